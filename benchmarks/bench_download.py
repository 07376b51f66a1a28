"""What the account of a download costs at full size, and what cutting a clip costs.

    python benchmarks/bench_download.py [--clips N]

The ledger has as many clips as AudioSet's largest list, with generated ids. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import random
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from report import print_bound

from audioset.dataset.download.clips import Shard
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.media import MediaSettings, cut_clip
from audioset.dataset.lists.segments import Segment

N_CLIPS = 2_041_789
N_CLAIMS = 200
LEASE_S = 600
ALPHABET = string.ascii_letters + string.digits + "-_"
TRACK_S = 600
SAMPLE_RATE = 48_000


def segments(n_clips: int) -> list[Segment]:
    rng = random.Random(0)
    return [Segment("".join(rng.choices(ALPHABET, k=11)), 30.0, 40.0, ("/m/09x0r",)) for _ in range(n_clips)]


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure_ledger(folder: Path, n_clips: int) -> None:
    clips = segments(n_clips)
    path = folder / "ledger.sqlite"
    with Ledger(path) as ledger:
        print(f"  add {n_clips:,} clips                     {seconds(lambda: ledger.add(clips, 'unbal_train')):8.1f} s")
        claims = [seconds(lambda: ledger.claim("host:1", LEASE_S)) for _ in range(N_CLAIMS)]
        shard = Shard(7, 400)
        of_shard = [seconds(lambda: ledger.claim("host:2", LEASE_S, shard)) for _ in range(N_CLAIMS)]
        print_bound("claim a video, median", 1e3 * float(np.median(claims)), at_most=20, unit="ms")
        print_bound("claim one of 400 shards, median", 1e3 * float(np.median(of_shard)), at_most=20, unit="ms")
        print_bound("when is the next clip due?", 1e3 * seconds(ledger.next_due), at_most=100, unit="ms")
        print_bound("how many clips are in each state?", 1e3 * seconds(ledger.counts), at_most=2_000, unit="ms")
    print(f"  size of the ledger                       {path.stat().st_size / 1e6:8.0f} MB")


def measure_cutting(folder: Path) -> None:
    rng = np.random.default_rng(0)
    track = folder / "track.opus"
    with soundfile.SoundFile(track, "w", SAMPLE_RATE, 2, format="OGG", subtype="OPUS") as file:
        for _ in range(TRACK_S):
            file.write(rng.uniform(-0.1, 0.1, (SAMPLE_RATE, 2)))
    for start_s in (30, TRACK_S - 10):
        target = folder / f"{start_s}.flac"
        took_s = seconds(
            lambda start_s=start_s, target=target: cut_clip(track, target, start_s, start_s + 10, MediaSettings())
        )
        print(f"  cut 10 s from Opus, {start_s:3d} s into the track    {took_s:8.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=N_CLIPS)
    with tempfile.TemporaryDirectory() as folder:
        measure_ledger(Path(folder), parser.parse_args().clips)
        measure_cutting(Path(folder))


if __name__ == "__main__":
    main()
