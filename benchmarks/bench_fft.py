"""Which FFT serves the frontend: one second of 10 ms hops, windows of 400 samples in 512 points.

    python benchmarks/bench_fft.py

scipy and ducc0 are measured where they are installed. ``out`` means into an array made once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from measure import interleaved_medians

N_FRAMES = 48
N_RUNS = 200


def contestants(frames: np.ndarray) -> dict[str, Callable[[], object]]:
    double, single = frames.astype(np.float64), frames.astype(np.float32)
    out = np.empty((len(frames), 257), np.complex128)
    found: dict[str, Callable[[], object]] = {
        "numpy float64, out": lambda: np.fft.rfft(double, out=out),
        "numpy float64": lambda: np.fft.rfft(double),
        "numpy float32": lambda: np.fft.rfft(single),
    }
    try:
        import scipy.fft

        found["scipy float64"] = lambda: scipy.fft.rfft(double)
        found["scipy float32"] = lambda: scipy.fft.rfft(single)
    except ImportError:
        print("scipy is not installed")
    try:
        import ducc0

        found["ducc0 float64, out"] = lambda: ducc0.fft.r2c(double, axes=(1,), out=out)
        found["ducc0 float32"] = lambda: ducc0.fft.r2c(single, axes=(1,))
    except ImportError:
        print("ducc0 is not installed (its licence is GPL, so the project does not depend on it)")
    return found


def main() -> None:
    frames = np.random.default_rng(0).standard_normal((N_FRAMES, 512))
    medians = interleaved_medians(contestants(frames), N_RUNS)
    print("FFT, milliseconds of one core per second of audio")
    for name, seconds in medians.items():
        milliseconds = seconds * 1e3 * 100 / N_FRAMES
        print(f"  {name:20s} {milliseconds:.3f}  {seconds / medians['numpy float64, out']:.2f} of the one in use")


if __name__ == "__main__":
    main()
