"""Peak memory of tagging a 1-hour and a 24-hour recording per patch, parent and workers together.

    python benchmarks/bench_memory.py [hours ...]

The recordings are 16 kHz 16-bit WAV. Memory is what the kernel counts as proportional set size (pages
that processes share count once), added up over the process and its children, sampled ten times a second;
the parent's own peak resident size is printed beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from report import print_bound

SAMPLE_RATE = 16_000
INTERVAL_S = 0.1
BOUND_MB = 450
BOUND_RATIO = 1.1


def write_recording(path: Path, hours: float) -> None:
    """Noise whose loudness changes every minute, written a minute at a time."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="RF64") as file:
        for _ in range(round(hours * 60)):
            minute = rng.integers(-8000, 8000, 60 * SAMPLE_RATE, dtype=np.int16)
            file.write((minute * rng.uniform(0, 1)).astype(np.int16))


def peak_mb(recording: Path, table: Path) -> tuple[float, float, float]:
    """Peak of the process tree (PSS) and of the parent (RSS) in MB, and the seconds it took."""
    command = [sys.executable, "-m", "audioset", "tag", str(recording), "--per-patch", "-o", str(table), "-q"]
    start = time.perf_counter()
    with subprocess.Popen(command) as process:
        tree = parent = 0.0
        while process.poll() is None:
            tree = max(tree, sum(proportional_mb(pid) for pid in family(process.pid)))
            parent = max(parent, status_mb(process.pid, "VmHWM"))
            time.sleep(INTERVAL_S)
    if process.returncode:
        sys.exit(f"audioset ended with {process.returncode}")
    return tree, parent, time.perf_counter() - start


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *map(int, children)]


def proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def status_mb(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def main() -> None:
    lengths = [float(hours) for hours in sys.argv[1:]] or [1.0, 24.0]
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for hours in lengths:
            recording, table = Path(folder) / "recording.wav", Path(folder) / "tags.csv"
            write_recording(recording, hours)
            tree, parent, elapsed_s = peak_mb(recording, table)
            peaks.append(tree)
            with table.open() as lines:
                n_lines = sum(1 for _ in lines) - 1
            print(
                f"  {hours:5.1f} h  {tree:5.0f} MB in all processes  {parent:5.0f} MB in the parent  "
                f"{elapsed_s:6.1f} s  {hours * 3600 / elapsed_s:6,.0f} x real time  {n_lines:,} lines"
            )
    print_bound("peak of all processes", max(peaks), at_most=BOUND_MB, unit="MB")
    print_bound("longest / shortest", peaks[-1] / peaks[0], at_most=BOUND_RATIO)


if __name__ == "__main__":
    main()
