"""Mel scales, the weights of bins in mel bands, and the order in which weighted bins are added up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from audioset.arrays import IndexArray, RealArray
from audioset.frontend.spec import FrontendSpec


def hz_to_mel(frequency_hz: Any) -> Any:
    """HTK's mel scale: ``1127 ln(1 + f / 700)``."""
    return 1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0)


def hz_to_slaney_mel(frequency_hz: Any) -> Any:
    """Slaney's mel scale: ``3 f / 200`` up to 1 kHz, and 27 steps for each factor of 6.4 above it."""
    frequency_hz = np.asarray(frequency_hz)
    n_factors = np.log(np.maximum(frequency_hz, 1000) / 1000) / np.log(6.4)
    return np.where(frequency_hz < 1000, frequency_hz * 3 / 200, 15 + 27 * n_factors)


def slaney_mel_to_hz(mel: Any) -> Any:
    """Inverse of ``hz_to_slaney_mel``."""
    mel = np.asarray(mel)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _bins_hz(spec: FrontendSpec) -> RealArray:
    return np.linspace(0, spec.sample_rate / 2, spec.fft_size // 2 + 1)


def _triangles(places: RealArray, edges: RealArray) -> RealArray:
    """Triangles with peaks of 1 over the bins at ``places``; each reaches to its neighbours' peaks."""
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    places = places[:, None]
    weights: RealArray = np.minimum((places - lower) / (centre - lower), (upper - places) / (upper - centre))
    return np.maximum(0, weights)


def _mel_triangles(spec: FrontendSpec) -> RealArray:
    """Triangles that are straight in HTK's mel scale."""
    edges = np.linspace(hz_to_mel(spec.mel_min_hz), hz_to_mel(spec.mel_max_hz), spec.n_mels + 2)
    return _triangles(hz_to_mel(_bins_hz(spec)), edges)


def _htk_weights(spec: FrontendSpec) -> RealArray:
    """These, without the bin at 0 Hz."""
    weights = _mel_triangles(spec)
    weights[0] = 0
    return weights


def _kaldi_weights(spec: FrontendSpec) -> RealArray:
    """The same, without the bin at half the sample rate."""
    weights = _mel_triangles(spec)
    weights[-1] = 0
    return weights


def _slaney_weights(spec: FrontendSpec) -> RealArray:
    """Triangles that are straight in Hz and have an area of 1 there."""
    lowest, highest = hz_to_slaney_mel(spec.mel_min_hz), hz_to_slaney_mel(spec.mel_max_hz)
    edges = slaney_mel_to_hz(np.linspace(lowest, highest, spec.n_mels + 2))
    weights: RealArray = _triangles(_bins_hz(spec), edges) * 2 / (edges[2:] - edges[:-2])
    return weights


_WEIGHTS: dict[str, Callable[[FrontendSpec], RealArray]] = {
    "htk": _htk_weights,
    "kaldi": _kaldi_weights,
    "slaney": _slaney_weights,
}
# What their bands are evenly spaced in.
MEL_SCALES: dict[str, Callable[[Any], Any]] = {"htk": hz_to_mel, "kaldi": hz_to_mel, "slaney": hz_to_slaney_mel}


def mel_weights(spec: FrontendSpec) -> RealArray:
    """Weight of each FFT bin in each mel band, shape (fft_size / 2 + 1, n_mels), float64.

    Source: what ``MEL_FORMULAS`` names, evaluated in float64.
    """
    return _WEIGHTS[spec.mel_formula](spec)


class BandSums(NamedTuple):
    """The order in which weighted bins are added up to mel bands.

    No matrix product: which bits it gives a frame depends on the frame's place among the others, and on the kernel
    that a BLAS library picks for the processor. Here every frame is a column of its own, weighted and added element
    by element in one order. A band weighs few bins, so this is also a thirtieth of the arithmetic.

    Each band is summed in two halves. The terms begin with the first bin of every half, the longest halves first;
    then come the second bins of the halves that have one, and so on. So each step adds one run of terms to the
    first ones, which end as the sums.
    """

    bins: IndexArray  # (n_terms,): the bin that each term weighs
    weights: RealArray  # (n_terms, n_frames): its weight, the same for every frame that is computed at once
    steps: tuple[tuple[int, int], ...]  # the runs that are added: (first term, number of terms)
    rows: IndexArray  # (2, n_mels): where the sums of the bands' halves are in the end


def band_sums(weights: RealArray, n_frames: int) -> BandSums:
    """Mel weights (n_bins, n_mels), in the order in which they are added up for ``n_frames`` frames at once."""
    bands = [used_bins(weights[:, [band]]) for band in range(weights.shape[1])]
    cuts = [(bins.start, (bins.start + bins.stop) // 2, bins.stop) for bins in bands]
    halves = [(band, cut[half], cut[half + 1]) for half in (0, 1) for band, cut in enumerate(cuts)]
    n_terms = np.array([max(1, stop - start) for _, start, stop in halves])  # an empty half has one term of weight 0
    order = np.argsort(-n_terms, kind="stable")
    runs = [[halves[half] for half in order if n_terms[half] > step] for step in range(n_terms.max())]
    ends = np.cumsum([len(run) for run in runs])
    terms = [(start + step, band, start + step < stop) for step, run in enumerate(runs) for band, start, stop in run]
    term_weights = np.array([weights[index, band] if is_used else 0 for index, band, is_used in terms], weights.dtype)
    return BandSums(
        bins=np.array([index for index, _, _ in terms]),
        weights=np.repeat(term_weights[:, None], n_frames, axis=1),
        steps=tuple((int(start), int(stop - start)) for start, stop in pairwise(ends)),
        rows=np.argsort(order).reshape(2, -1),
    )


def used_bins(weights: RealArray) -> slice:
    """From the first row that is not all zero to the last; the first row, if all are."""
    used = np.flatnonzero(weights.any(axis=1))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
