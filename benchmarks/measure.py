"""The recording that the speed benchmarks share, and how they take time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import soundfile

from audioset.concurrency import map_in_order

DURATION_S = 600
SAMPLE_RATE = 44_100
N_THREADS = 2
BATCH = 64


def write_recording(path: Path) -> None:
    """Ten minutes of 44.1 kHz stereo 16-bit: tones that come and go in noise."""
    rng = np.random.default_rng(0)
    seconds = np.arange(DURATION_S * SAMPLE_RATE) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * (440 + 200 * np.sin(seconds / 7)) * seconds) * (np.sin(seconds) > 0)
    noise = rng.standard_normal((len(seconds), 2)) * 0.05
    soundfile.write(path, 0.3 * tone[:, None] + noise, SAMPLE_RATE, subtype="PCM_16")


def network_alone(engine: Callable[[np.ndarray], object], batches: list[np.ndarray]) -> None:
    """Run the network on all batches, with one thread for each core."""
    for _ in map_in_order(engine, batches, N_THREADS):
        pass


def batches_of(patches: np.ndarray) -> list[np.ndarray]:
    """Patches in contiguous batches."""
    return [np.ascontiguousarray(patches[start : start + BATCH]) for start in range(0, len(patches), BATCH)]


def interleaved_medians(functions: Mapping[str, Callable[[], object]], n_runs: int) -> dict[str, float]:
    """Median seconds of each function, all of them run in turn."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(n_runs):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def print_speeds(medians: Mapping[str, float]) -> None:
    """Print what each took for the recording, and how fast that is."""
    for name, seconds in medians.items():
        print(
            f"  {name:22s} {seconds:7.3f} s  {DURATION_S / seconds:7,.0f} x real time  "
            f"{DURATION_S / seconds / N_THREADS:6,.0f} audio-hours per core-hour"
        )
    print()
