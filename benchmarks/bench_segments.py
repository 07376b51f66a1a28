"""How long the tables of AudioSet take to read, at their full size: 2,041,789 clips, 934,821 labels with times.

    python benchmarks/bench_segments.py

The files are generated: the labels are those of the published balanced and evaluation lists, where they are at hand.
``csv.reader`` is the plain way: it checks nothing, and keeps a list of tuples.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import print_bound

from audioset.assets import find_file
from audioset.dataset.lists.segments import Segment, SegmentList, read_segments, write_segments
from audioset.dataset.lists.selection import Selection, select
from audioset.dataset.lists.statistics import count_segments
from audioset.dataset.lists.strong import StrongLabel, StrongTable, read_strong, write_strong
from audioset.labels.labels import LabelSet

N_CLIPS = 2_041_789
N_STRONG_CLIPS, N_STRONG = 103_463, 934_821
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TASKS = (
    "csv.reader",
    "read",
    "read and write",
    "read and count",
    "read and select Dog",
    "read and 100 a class",
    "strong",
)


def write_lists(folder: Path) -> None:
    rng = random.Random(0)
    label_sets = _label_sets()

    def segment() -> Segment:
        start_s = float(rng.randrange(0, 600))
        return Segment("".join(rng.choices(ALPHABET, k=11)), start_s, start_s + 10, rng.choice(label_sets))

    write_segments(folder / "clips.csv", SegmentList.of(segment() for _ in range(N_CLIPS)))
    ids = LabelSet.load("audioset-strong").ids
    rows = []
    for row in range(N_STRONG):
        clip = row * N_STRONG_CLIPS // N_STRONG
        start_s = rng.randrange(0, 9_000) / 1000
        rows.append(StrongLabel(f"{clip:011d}_30000", start_s, start_s + 0.5, rng.choice(ids)))
    write_strong(folder / "strong.tsv", StrongTable.of(rows))


def _label_sets() -> list[tuple[str, ...]]:
    found = [find_file(f"{name}_segments.csv") for name in ("balanced_train", "eval")]
    if published := [segment.label_ids for path in found if path for segment in read_segments(path)]:
        return published
    rng = random.Random(1)
    return [tuple(sorted(rng.sample(LabelSet.load("audioset-527").ids, 2))) for _ in range(50_000)]


def run_task(task: str, folder: Path) -> None:
    if task == "csv.reader":
        with (folder / "clips.csv").open(newline="") as file:
            rows = (row for row in csv.reader(file, skipinitialspace=True) if row[0][0] != "#")
            clips = [(row[0], float(row[1]), float(row[2]), row[3].split(",")) for row in rows]
        if len(clips) != N_CLIPS:
            raise SystemExit("csv.reader misses rows")
    elif task == "strong":
        read_strong(folder / "strong.tsv")
    else:
        segments = read_segments(folder / "clips.csv")
        if task == "read and write":
            write_segments(folder / "again.csv", segments)
        elif task == "read and count":
            count_segments(segments)
        elif task == "read and select Dog":
            select(segments, Selection(any_of=("Dog",)))
        elif task == "read and 100 a class":
            select(segments, Selection(n_per_class=100))


def peak_megabytes() -> float:
    """What this program has held at most; what its parent held does not count, as it would with getrusage."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    if len(sys.argv) > 1:
        start = time.process_time()
        run_task(sys.argv[1], Path(sys.argv[2]))
        print(json.dumps({"seconds": time.process_time() - start, "megabytes": peak_megabytes()}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lists(folder)
        size = os.path.getsize(folder / "clips.csv") / 1e6  # noqa: PTH202
        print(f"{N_CLIPS:,} clips in {size:.0f} MB; {N_STRONG:,} labels with times")
        found = {}
        for task in TASKS:  # a process each: what it takes at most is what it needs
            command = [sys.executable, __file__, task, name]
            found[task] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            print(f"  {task:24s} {found[task]['seconds']:6.2f} s of one core  {found[task]['megabytes']:7.0f} MB")
        print_bound("reading, seconds of one core", found["read"]["seconds"], at_most=10, unit="s")
        share = found["read"]["megabytes"] / found["csv.reader"]["megabytes"]
        print_bound("memory, share of csv.reader's", share, at_most=0.5)


if __name__ == "__main__":
    main()
