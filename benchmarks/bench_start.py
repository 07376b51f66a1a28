"""How long a user waits: ``audioset --help``, and ``audioset tag`` of one 10-second clip with a warm cache.

python benchmarks/bench_start.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from report import print_bound

N_RUNS = 7


def seconds(*arguments: str) -> float:
    """Median wall time of a command, the first run left out."""
    times = []
    for _ in range(N_RUNS + 1):
        start = time.perf_counter()
        subprocess.run([Path(sys.executable).parent / "audioset", *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    print(f"wall time, medians of {N_RUNS}")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.wav"
        soundfile.write(clip, np.random.default_rng(0).uniform(-0.5, 0.5, (441_000, 2)), 44_100, subtype="PCM_16")
        for bound_s, arguments in ((0.3, ["--help"]), (1.0, ["tag", str(clip)])):
            print_bound(f"audioset {arguments[0]}", seconds(*arguments), at_most=bound_s, unit="s")


if __name__ == "__main__":
    main()
