"""What it costs that a frame's bits do not depend on BLAS: log-mels beside the same ones with matrix products.

    python benchmarks/bench_log_mel.py

Both are run in turn on the same ten seconds; each ratio is the median over pairs, in processor time of one thread. The
rival is the form that this package had before: frames in tiles of 48, bands in groups of 16, and one product a group.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from report import print_bound

from audioset.frontend.log_mel import LOGARITHMS, constants, log_mel, pad_ends
from audioset.frontend.published import EFFICIENTAT, PANNS, VGG16, VGGISH, YAMNET
from audioset.frontend.spec import FrontendSpec

N_PAIRS = 150
DURATION_S = 10
TILE_FRAMES = 48
GROUP_BANDS = 16


def products_of(spec: FrontendSpec) -> list[tuple[slice, slice, np.ndarray]]:
    """Bands, the bins that they weigh, and the weights."""
    _, weights, _ = constants(spec, "float32")
    found = []
    for first in range(0, spec.n_mels, GROUP_BANDS):
        bands = slice(first, first + GROUP_BANDS)
        used = np.flatnonzero(weights[:, bands].any(axis=1))
        bins = slice(used[0], used[-1] + 1)
        found.append((bands, bins, np.ascontiguousarray(weights[bins, bands])))
    return found


def log_mel_by_products(waveform: np.ndarray, spec: FrontendSpec, products: list) -> np.ndarray:
    window, weights, bins = constants(spec, "float32")
    signal = pad_ends(waveform, spec)
    frames = sliding_window_view(signal, spec.window_samples)[:: spec.hop_samples]
    mel = np.empty((len(frames) + -len(frames) % TILE_FRAMES, spec.n_mels), np.float32)
    padded = np.zeros((TILE_FRAMES, spec.fft_size))
    windows = np.tile(np.pad(window, (0, spec.fft_size - len(window))), (TILE_FRAMES, 1))
    spectrum = np.empty((TILE_FRAMES, spec.fft_size // 2 + 1), np.complex128)
    used = np.empty((TILE_FRAMES, len(weights)), np.complex64)
    magnitude = np.empty(used.shape, np.float32)
    for start in range(0, len(frames), TILE_FRAMES):
        count = min(TILE_FRAMES, len(frames) - start)
        padded[:count, : spec.window_samples] = frames[start : start + count]
        np.multiply(padded, windows, out=padded)
        np.fft.rfft(padded, out=spectrum)
        np.copyto(used, spectrum[:, bins], casting="same_kind")
        np.abs(used, out=magnitude)
        if spec.power == 2:
            np.multiply(magnitude, magnitude, out=magnitude)
        for bands, rows, part in products:
            np.matmul(magnitude[:, rows], part, out=mel[start : start + TILE_FRAMES, bands])
    mel = LOGARITHMS[spec.log](mel[: len(frames)], spec.log_offset)
    if (spec.log_mean, spec.log_scale) != (0, 1):
        mel -= np.float32(spec.log_mean)
        mel /= np.float32(spec.log_scale)
    return mel


def seconds_of(function: Callable[[], object]) -> float:
    start = time.thread_time()
    function()
    return time.thread_time() - start


def main() -> None:
    print("log-mels of ten seconds: ours, and its time beside matrix products")
    for spec in (YAMNET, VGGISH, EFFICIENTAT, PANNS, VGG16):
        waveform = np.random.default_rng(0).uniform(-0.5, 0.5, DURATION_S * spec.sample_rate).astype(np.float32)
        products = products_of(spec)
        ours, theirs = log_mel(waveform, spec), log_mel_by_products(waveform, spec, products)
        exact = log_mel(waveform.astype(np.float64), spec, dtype=np.float64)
        pairs = [
            (
                seconds_of(lambda w=waveform, s=spec: log_mel(w, s)),
                seconds_of(lambda w=waveform, s=spec, p=products: log_mel_by_products(w, s, p)),
            )
            for _ in range(N_PAIRS)
        ]
        milliseconds = 1e3 * statistics.median(own for own, _ in pairs)
        print(
            f"  {spec.name}: {milliseconds:.2f} ms; from float64: {np.abs(ours - exact).max():.1e}, "
            f"with products {np.abs(theirs - exact).max():.1e}"
        )
        print_bound(f"{spec.name}, times products", statistics.median(a / b for a, b in pairs), at_most=1.05)


if __name__ == "__main__":
    main()
