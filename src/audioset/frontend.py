"""From waveform to the log-mel patches that a network sees, exactly as its original computes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from audioset.errors import AudioError, UsageError

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]

# What happens to audio that does not fill a patch.
PADS = {
    "cover": "zeros follow the end until every sample is in a patch",
    "error": "samples after the last whole patch are not used; audio shorter than a patch is an error",
    "zero": "samples after the last whole patch are not used; zeros follow audio shorter than a patch",
    "repeat": "samples after the last whole patch are not used; audio shorter than a patch is repeated to fill one",
}

# BLAS starts threads of its own for larger products, which then fight the network for the cores.
FRAMES_PER_PRODUCT = 16
FRAMES_AT_ONCE = 3 * FRAMES_PER_PRODUCT  # their spectra stay in a core's own cache


@dataclass(frozen=True)
class FrontendSpec:
    """Every constant of one published frontend. The originals disagree on purpose: change none of them.

    Attributes
    ----------
    sample_rate : int
        Hz.
    window_samples, hop_samples, fft_size : int
        Periodic Hann window, its hop, and the transform's size. Frames are not centred: the first one
        begins at the first sample, and samples after the last whole frame are not used.
    n_mels : int
    mel_min_hz, mel_max_hz : float
        Lower edge of the first HTK mel band and upper edge of the last.
    log_offset : float
        Added to the mel magnitude before the natural logarithm.
    patch_frames : int
        Frames in one patch.
    patch_hop_frames : int
        Frames between the starts of patches, unless the caller asks for another hop.
    pad : {"cover", "error", "zero", "repeat"}
        What happens to audio that does not fill a patch; see ``PADS``.
    """

    name: str
    sample_rate: int
    window_samples: int
    hop_samples: int
    fft_size: int
    n_mels: int
    mel_min_hz: float
    mel_max_hz: float
    log_offset: float
    patch_frames: int
    patch_hop_frames: int
    pad: str

    @property
    def frame_hop_s(self) -> float:
        """Seconds between the starts of frames."""
        return self.hop_samples / self.sample_rate

    def samples(self, n_frames: int) -> int:
        """Samples that ``n_frames`` frames cover."""
        return (n_frames - 1) * self.hop_samples + self.window_samples

    def hop_frames(self, hop_s: float | None) -> int:
        """Frames between patches for a hop in seconds; None means the published hop.

        Raises
        ------
        UsageError
            If ``hop_s`` is not a positive whole number of frames.
        """
        if hop_s is None:
            return self.patch_hop_frames
        n_frames = hop_s / self.frame_hop_s
        if not (np.isfinite(n_frames) and round(n_frames) >= 1 and abs(n_frames - round(n_frames)) < 1e-6):
            raise UsageError(
                f"hop_s is {hop_s}; expected a positive multiple of one frame, {self.frame_hop_s} s, "
                f"such as {max(1, round(n_frames) if np.isfinite(n_frames) else 1) * self.frame_hop_s:g}"
            )
        return round(n_frames)

    def with_pad(self, pad: str | None) -> FrontendSpec:
        """The same with another ``pad``; None means the published one.

        Raises
        ------
        UsageError
            If there is no such way.
        """
        if pad is None:
            return self
        if pad not in PADS:
            raise UsageError(f"pad is {pad!r}; expected one of {', '.join(PADS)}, or None for the published one")
        return replace(self, pad=pad)


# tensorflow/models, research/audioset/yamnet/params.py and features.py
YAMNET = FrontendSpec(
    name="yamnet",
    sample_rate=16_000,  # params.sample_rate
    window_samples=400,  # stft_window_seconds = 0.025
    hop_samples=160,  # stft_hop_seconds = 0.010
    fft_size=512,  # the next power of two
    n_mels=64,  # mel_bands
    mel_min_hz=125.0,
    mel_max_hz=7500.0,
    log_offset=0.001,
    patch_frames=96,  # patch_window_seconds = 0.96
    patch_hop_frames=48,  # patch_hop_seconds = 0.48
    pad="cover",  # features.py, pad_waveform
)

# tensorflow/models, research/audioset/vggish/vggish_params.py and vggish_input.py
VGGISH = replace(
    YAMNET,  # sample rate, window, hop, transform and mel bands are the same
    name="vggish",
    log_offset=0.01,  # LOG_OFFSET
    patch_hop_frames=96,  # EXAMPLE_HOP_SECONDS = 0.96
    pad="error",  # mel_features.py, frame: whole examples only
)


def log_mel(waveform: FloatArray, spec: FrontendSpec, *, dtype: type[np.floating[Any]] = np.float32) -> FloatArray:
    """Log-mel spectrogram exactly as ``spec`` defines it.

    The transform is done in float64. In nearly silent mel bands beside a loud tone the logarithm
    amplifies the rounding of a float32 transform to 4e-3; this way nothing is left to amplify.

    Parameters
    ----------
    waveform : ndarray, shape (n_samples,), float32 or float64
        Mono audio in [-1, 1] at ``spec.sample_rate`` Hz.
    spec : FrontendSpec
    dtype : float32 or float64
        Of the result, and of the arithmetic after the transform.

    Returns
    -------
    ndarray, shape (n_frames, spec.n_mels)
        Natural logarithm of the mel magnitude plus ``spec.log_offset``; no frame where the waveform is
        shorter than one window.

    Source: tensorflow/models, research/audioset/yamnet/features.py. Within 5e-7 of its formula evaluated
    in float64 (float32 result); the original itself is up to 3e-3 from it.
    """
    n_frames = max(0, 1 + (len(waveform) - spec.window_samples) // spec.hop_samples)
    window, weights, bins = constants(spec, np.dtype(dtype).name)
    (sample,) = waveform.strides
    frames = as_strided(waveform, (n_frames, spec.window_samples), (spec.hop_samples * sample, sample), writeable=False)
    mel = np.empty((n_frames, spec.n_mels), dtype)
    # Every array below is made once and filled again: fresh ones cost more in page faults than the arithmetic.
    padded = np.zeros((FRAMES_AT_ONCE, spec.fft_size))
    windows = np.tile(np.pad(window, (0, spec.fft_size - len(window))), (FRAMES_AT_ONCE, 1))  # one loop, not one a row
    spectrum = np.empty((FRAMES_AT_ONCE, spec.fft_size // 2 + 1), np.complex128)
    used = np.empty((FRAMES_AT_ONCE, len(weights)), np.result_type(dtype, np.complex64))
    magnitude = np.empty((FRAMES_AT_ONCE // FRAMES_PER_PRODUCT, FRAMES_PER_PRODUCT, len(weights)), dtype)
    for start in range(0, n_frames, FRAMES_AT_ONCE):
        count = min(FRAMES_AT_ONCE, n_frames - start)
        padded[:count, : spec.window_samples] = frames[start : start + count]
        np.multiply(padded, windows, out=padded)
        np.fft.rfft(padded, out=spectrum)
        np.copyto(used, spectrum[:, bins], casting="same_kind")
        np.abs(used, out=magnitude.reshape(used.shape))
        mel[start : start + count] = (magnitude @ weights).reshape(-1, spec.n_mels)[:count]
    mel += mel.dtype.type(spec.log_offset)
    return np.log(mel, out=mel)


def patches(log_mel: FloatArray, spec: FrontendSpec, hop_frames: int | None = None) -> FloatArray:
    """Overlapping patches of a log-mel spectrogram, as a view.

    Parameters
    ----------
    log_mel : ndarray, shape (n_frames, n_mels)
    spec : FrontendSpec
    hop_frames : int, optional
        Frames between patch starts; default ``spec.patch_hop_frames``.

    Returns
    -------
    ndarray, shape (n_patches, spec.patch_frames, n_mels)
        Whole patches only; frames after the last one are left out.
    """
    hop_frames = hop_frames or spec.patch_hop_frames
    n_patches = max(0, 1 + (len(log_mel) - spec.patch_frames) // hop_frames)
    frame, mel = log_mel.strides
    return as_strided(
        log_mel, (n_patches, spec.patch_frames, log_mel.shape[1]), (hop_frames * frame, frame, mel), writeable=False
    )


def n_patches(n_samples: int, spec: FrontendSpec, hop_frames: int | None = None) -> int:
    """Patches of a clip, as ``spec.pad`` has it; one at least, even where a shorter clip is an error.

    Source: ``pad_waveform`` in tensorflow/models, research/audioset/yamnet/features.py (``"cover"``), and
    ``frame`` in research/audioset/vggish/mel_features.py (the others).
    """
    hop_samples = (hop_frames or spec.patch_hop_frames) * spec.hop_samples
    beyond = max(0, n_samples - spec.samples(spec.patch_frames))
    return 1 + (-(-beyond // hop_samples) if spec.pad == "cover" else beyond // hop_samples)


def pad_to_patch(waveform: FloatArray, spec: FrontendSpec) -> FloatArray:
    """A clip shorter than one patch, made as long as one.

    Raises
    ------
    AudioError
        ``too_short`` with ``spec.pad="error"``.
    """
    n_samples = spec.samples(spec.patch_frames)
    if spec.pad == "error":
        raise AudioError(
            f"the audio has {len(waveform):,} samples at {spec.sample_rate:,} Hz; {spec.name} needs {n_samples:,} "
            f'({n_samples / spec.sample_rate:g} s) at least. Next step: pad="zero" or pad="repeat" (--pad)',
            code="too_short",
        )
    if spec.pad == "repeat":
        return np.resize(waveform, n_samples)
    return np.pad(waveform, (0, n_samples - len(waveform)))


@dataclass(frozen=True)
class Slab:
    """A piece of a stream of samples that holds whole patches.

    Attributes
    ----------
    waveform : ndarray, shape (n_samples,)
        Exactly the samples of its frames, padded with zeros after the end of the stream.
    first_patch, n_patches : int
        Which patches of the stream it holds.
    n_frames : int
        Frames that belong to it and not to the next slab, which repeats what their patches share.
    end_sample : int
        Samples of the stream up to the end of this slab; of the whole stream in the last slab.
    """

    waveform: FloatArray
    first_patch: int
    n_patches: int
    n_frames: int
    end_sample: int


def slabs(blocks: Iterable[FloatArray], spec: FrontendSpec, hop_frames: int, slab_patches: int) -> Iterator[Slab]:
    """Cut a stream of samples into slabs of ``slab_patches`` patches; the last may have fewer.

    The grid starts at the first sample, so the slabs, and all that is computed from them, do not depend
    on how the stream was cut into blocks. The end is padded as the original pads a clip.

    Parameters
    ----------
    blocks : iterable of ndarray, shape (n,)
    spec : FrontendSpec
    hop_frames : int
        Frames between patches.
    slab_patches : int

    Yields
    ------
    Slab
    """
    slab_hop_frames = slab_patches * hop_frames
    slab_hop = slab_hop_frames * spec.hop_samples
    size = spec.samples(max(slab_hop_frames, slab_hop_frames - hop_frames + spec.patch_frames))
    # The last slab has more frames of its own, so a slab may go only when another patch is sure to follow it.
    needed = size + 1 if spec.pad == "cover" else spec.samples(slab_hop_frames + spec.patch_frames)
    rest = np.zeros(0, np.float32)
    n_seen = first_patch = 0
    pending: list[FloatArray] = []
    for block in blocks:
        pending.append(block)
        n_seen += len(block)
        if n_seen - first_patch * hop_frames * spec.hop_samples < needed:
            continue
        rest = np.concatenate(pending)
        while len(rest) >= needed:
            end = first_patch * hop_frames * spec.hop_samples + size
            yield Slab(rest[:size], first_patch, slab_patches, slab_hop_frames, end)
            rest = rest[slab_hop:]
            first_patch += slab_patches
        pending = [rest]
    rest = np.concatenate(pending) if pending else rest
    if n_seen < spec.samples(spec.patch_frames):
        rest = pad_to_patch(rest, spec)
    n_all = n_patches(n_seen, spec, hop_frames)
    while first_patch < n_all:
        count = min(slab_patches, n_all - first_patch)
        is_last = first_patch + count == n_all
        n_frames = (count - 1) * hop_frames + spec.patch_frames if is_last else slab_hop_frames
        waveform = rest[: spec.samples(n_frames)]
        waveform = np.pad(waveform, (0, spec.samples(n_frames) - len(waveform)))
        yield Slab(waveform, first_patch, count, n_frames, n_seen)
        rest = rest[slab_hop:]
        first_patch += slab_patches


def mel_weights(spec: FrontendSpec) -> FloatArray:
    """Weight of each FFT bin in each HTK mel band, shape (fft_size / 2 + 1, n_mels), float64.

    Triangles that are straight in mel, with peaks of 1; the bin at 0 Hz has no weight.

    Source: ``tf.signal.linear_to_mel_weight_matrix``, evaluated in float64.
    """
    bins_hz = np.linspace(0, spec.sample_rate / 2, spec.fft_size // 2 + 1)
    edges = np.linspace(hz_to_mel(spec.mel_min_hz), hz_to_mel(spec.mel_max_hz), spec.n_mels + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    mel = hz_to_mel(bins_hz)[:, None]
    weights: FloatArray = np.maximum(0, np.minimum((mel - lower) / (centre - lower), (upper - mel) / (upper - centre)))
    weights[0] = 0
    return weights


def hz_to_mel(frequency_hz: Any) -> Any:
    """HTK's mel scale: ``1127 ln(1 + f / 700)``."""
    return 1127.0 * np.log1p(np.asarray(frequency_hz) / 700.0)


@lru_cache(maxsize=16)
def constants(spec: FrontendSpec, dtype: str) -> tuple[FloatArray, FloatArray, slice]:
    """Hann window (float64), the mel weights' rows that are not all zero, and the bins of these rows."""
    phase = 2 * np.pi * np.arange(spec.window_samples) / spec.window_samples
    weights = mel_weights(spec)
    used = np.flatnonzero(weights.any(axis=1))
    bins = slice(int(used[0]), int(used[-1]) + 1)
    return 0.5 - 0.5 * np.cos(phase), weights[bins].astype(dtype), bins
