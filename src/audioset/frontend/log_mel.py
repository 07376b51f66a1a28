"""The log-mel spectrogram of a waveform."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from audioset.arguments import check_type
from audioset.arrays import RealArray
from audioset.frontend.mel import BandSums, band_sums, mel_weights, used_bins
from audioset.frontend.spec import FrontendSpec, check_array, too_short

SAMPLES_AT_ONCE = 98_304  # of frames that are transformed together: their spectra stay in a core's own cache


def _natural_log(mel: RealArray, offset: float) -> RealArray:
    mel += mel.dtype.type(offset)
    return np.log(mel, out=mel)


def _decibel(mel: RealArray, offset: float) -> RealArray:
    np.maximum(mel, mel.dtype.type(offset), out=mel)
    np.log10(mel, out=mel)
    mel *= 10
    return mel


# Both in place.
LOGARITHMS: dict[str, Callable[[RealArray, float], RealArray]] = {"natural": _natural_log, "decibel": _decibel}


def log_mel(waveform: RealArray, spec: FrontendSpec, *, dtype: type[np.floating[Any]] = np.float32) -> RealArray:
    """Log-mel spectrogram exactly as ``spec`` defines it.

    The transform is done in float64. In nearly silent mel bands beside a loud tone the logarithm
    amplifies the rounding of a float32 transform to 4e-3; this way nothing is left to amplify.

    Parameters
    ----------
    waveform : ndarray, shape (n_samples,), float32 or float64
        Mono audio in [-1, 1] at ``spec.sample_rate`` Hz. With a centred frontend, one whole clip, or one
        window of it: the ends are reflected.
    spec : FrontendSpec
    dtype : float32 or float64
        Of the result, and of the arithmetic after the transform.

    Returns
    -------
    ndarray, shape (n_frames, spec.n_mels)
        Logarithm of the mel magnitudes or powers, normalised; ``spec.n_frames(n_samples)`` frames.

    Raises
    ------
    AudioError
        ``too_short`` for less audio than a centred frontend can reflect.

    Source: tensorflow/models, research/audioset/yamnet/features.py: within 5e-7 of its formula evaluated in
    float64 (float32 result), and the original itself is up to 3e-3 from it. fschmid56/EfficientAT,
    models/preprocess.py: within 5e-7 of its formula, and the original itself is up to 8e-5 from it.
    """
    check_type("spec", spec, FrontendSpec)
    check_array("waveform", waveform, n_axes=1)
    n_frames = spec.n_frames(len(waveform))
    windows, bins, sums = tiles(spec, np.dtype(dtype).name)
    signal = pad_ends(waveform, spec)
    (sample,) = signal.strides
    frames = as_strided(signal, (n_frames, spec.window_samples), (spec.hop_samples * sample, sample), writeable=False)
    mel = np.empty((n_frames, spec.n_mels), dtype)
    # Every array below is made once and filled again: fresh ones cost more in page faults than the arithmetic.
    n_at_once = len(windows)
    padded = np.zeros(windows.shape)
    spectrum = np.zeros((n_at_once, spec.fft_size // 2 + 1), np.complex128)
    used = np.empty((bins.stop - bins.start, n_at_once), np.result_type(dtype, np.complex64))
    magnitude = np.empty(used.shape, dtype)
    terms = np.empty(sums.weights.shape, dtype)
    additions = [(terms[:count], terms[first : first + count]) for first, count in sums.steps]
    lower, upper = halves = np.empty((2, spec.n_mels, n_at_once), dtype)
    for start in range(0, n_frames, n_at_once):
        count = min(n_at_once, n_frames - start)
        padded[:count, : spec.window_samples] = frames[start : start + count]
        np.multiply(padded[:count], windows[:count], out=padded[:count])
        np.fft.rfft(padded[:count], out=spectrum[:count])
        np.copyto(used, spectrum[:, bins].T, casting="same_kind")
        np.abs(used, out=magnitude)
        if spec.power == 2:
            np.multiply(magnitude, magnitude, out=magnitude)
        magnitude.take(sums.bins, axis=0, out=terms, mode="clip")  # "clip" writes to ``terms`` without a copy
        np.multiply(terms, sums.weights, out=terms)
        for total, more in additions:
            np.add(total, more, out=total)
        terms.take(sums.rows, axis=0, out=halves, mode="clip")
        np.add(lower, upper, out=lower)
        mel[start : start + count] = lower.T[:count]
    mel = LOGARITHMS[spec.log](mel, spec.log_offset)
    if (spec.log_mean, spec.log_scale) != (0, 1):
        mel -= mel.dtype.type(spec.log_mean)
        mel /= mel.dtype.type(spec.log_scale)
    return mel


def pad_ends(waveform: RealArray, spec: FrontendSpec) -> RealArray:
    """What the frames are cut from: the samples with preemphasis and reflected ends, where the specification has them.

    The window's place in a longer transform only turns phases, so its frames are cut as they are.
    """
    if not (spec.preemphasis or spec.is_centred):
        return waveform
    if spec.is_centred and len(waveform) < spec.reflected_samples:
        raise too_short(len(waveform), spec.with_pad("cover"))
    samples = waveform[:-1] if spec.preemphasis else waveform
    before, after = spec.margins
    dtype = np.float64 if spec.preemphasis else waveform.dtype
    signal = np.empty(before + len(samples) + after, dtype)  # filled in place: two thirds of the time of np.pad
    inside = signal[before : before + len(samples)]
    inside[:] = samples
    if spec.preemphasis:
        inside *= -spec.preemphasis
        inside += waveform[1:]
    signal[:before] = inside[before:0:-1]
    signal[before + len(samples) :] = inside[-2 : -2 - after : -1]
    return signal


@lru_cache(maxsize=16)
def constants(spec: FrontendSpec, dtype: str) -> tuple[RealArray, RealArray, slice]:
    """Hann window (float64), the mel weights' rows that are not all zero, and the bins of these rows."""
    n_steps = spec.window_samples if spec.is_window_periodic else spec.window_samples - 1
    phase = 2 * np.pi * np.arange(spec.window_samples) / n_steps
    weights = mel_weights(spec)
    bins = used_bins(weights)
    return 0.5 - 0.5 * np.cos(phase), weights[bins].astype(dtype), bins


@lru_cache(maxsize=16)
def tiles(spec: FrontendSpec, dtype: str) -> tuple[RealArray, slice, BandSums]:
    """What frames that are computed at once are multiplied with: padded windows, and the weights of the used bins."""
    window, weights, bins = constants(spec, dtype)
    n_frames = max(1, SAMPLES_AT_ONCE // spec.fft_size)
    windows = np.tile(np.pad(window, (0, spec.fft_size - len(window))), (n_frames, 1))  # one loop, not one a row
    return windows, bins, band_sums(weights, n_frames)
