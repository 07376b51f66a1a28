"""From waveform to the log-mel patches that a network sees, exactly as its original computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from audioset.arguments import check_choice, check_count, check_type, is_number, value_text
from audioset.arrays import IndexArray, RealArray
from audioset.errors import AudioError, UsageError

# What happens to audio that does not fill a patch. With a centred frontend, "cover" needs no zeros: see ``slabs``.
PADS = {
    "cover": "zeros follow the end until every sample is in a patch",
    "error": "samples after the last whole patch are not used; audio shorter than a patch is an error",
    "zero": "samples after the last whole patch are not used; zeros follow audio shorter than a patch",
    "repeat": "samples after the last whole patch are not used; audio shorter than a patch is repeated to fill one",
}

MAX_SECONDS = 86_400.0  # between patches, and in one
SAMPLES_AT_ONCE = 98_304  # of frames that are transformed together: their spectra stay in a core's own cache


@dataclass(frozen=True)
class FrontendSpec:
    """Every constant of one published frontend. The originals disagree on purpose: change none of them.

    Attributes
    ----------
    sample_rate : int
        Hz.
    window_samples, hop_samples, fft_size : int
        Hann window, its hop, and the transform's size.
    n_mels : int
    mel_min_hz, mel_max_hz : float
        Lower edge of the first mel band and upper edge of the last.
    log_offset : float
        What keeps the logarithm finite; see ``log``.
    patch_frames : int
        Frames in one patch; with a centred frontend, in the longest one.
    patch_hop_frames : int
        Frames between the starts of patches, unless the caller asks for another hop.
    pad : {"cover", "error", "zero", "repeat"}
        What happens to audio that does not fill a patch; see ``PADS``.
    is_window_periodic : bool
        Whether the Hann window begins and ends as a period does, with one zero; if not, it is symmetric.
    is_centred : bool
        If not, the first frame begins at the first sample, and samples after the last whole frame are not
        used. If so, a frame is centred on the first sample and on every hop after it, and the samples at
        both ends are reflected to fill the outer frames. Such features belong to one piece of audio with its
        ends, so each patch has features of its own, and audio shorter than ``patch_frames`` is one patch of
        its own length.
    preemphasis : float
        ``a`` of ``y[t] = x[t] - a x[t - 1]``, which leaves one sample less; 0 for none.
    power : {1, 2}
        Exponent of the magnitudes that the mel bands add up.
    mel_formula : {"htk", "kaldi", "slaney"}
        See ``MEL_FORMULAS``.
    log : {"natural", "decibel"}
        ``ln(x + log_offset)``, or ``10 log10(max(x, log_offset))``.
    log_mean, log_scale : float
        Subtracted from the logarithm, and then divided by.
    min_frames : int
        Fewest frames that a network with a centred frontend can take.

    Raises
    ------
    UsageError
        For a ``pad``, ``power``, ``mel_formula`` or ``log`` that there is not.
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
    is_window_periodic: bool = True
    is_centred: bool = False
    preemphasis: float = 0.0
    power: int = 1
    mel_formula: str = "htk"
    log: str = "natural"
    log_mean: float = 0.0
    log_scale: float = 1.0
    min_frames: int = 1

    def __post_init__(self) -> None:
        for name, choices in (("pad", PADS), ("power", (1, 2)), ("mel_formula", MEL_FORMULAS), ("log", LOGS)):
            check_choice(name, getattr(self, name), choices)

    @property
    def frame_hop_s(self) -> float:
        """Seconds between the starts of frames."""
        return self.hop_samples / self.sample_rate

    @property
    def margins(self) -> tuple[int, int]:
        """Samples that are reflected before and after the audio, so that frames are centred."""
        if not self.is_centred:
            return 0, 0
        before = self.fft_size // 2 - (self.fft_size - self.window_samples) // 2
        return before, self.window_samples - before

    @property
    def min_samples(self) -> int:
        """Samples of the shortest audio that needs no padding."""
        if self.is_centred and self.pad == "cover":
            return max(self.reflected_samples, self.samples(self.min_frames))
        return self.samples(self.patch_frames)

    @property
    def reflected_samples(self) -> int:
        """Samples of the shortest audio whose ends a centred frontend can reflect."""
        return self.fft_size // 2 + 1 + self._n_lost

    def samples(self, n_frames: int) -> int:
        """Samples that ``n_frames`` frames cover; whole hops with a centred frontend."""
        if self.is_centred:
            return (n_frames - 1 + self._n_lost) * self.hop_samples
        return (n_frames - 1) * self.hop_samples + self.window_samples + self._n_lost

    def n_frames(self, n_samples: int) -> int:
        """Frames of ``n_samples`` samples."""
        n_framed = n_samples - self._n_lost + sum(self.margins)
        return max(0, 1 + (n_framed - self.window_samples) // self.hop_samples)

    @property
    def _n_lost(self) -> int:
        """Samples that preemphasis takes: the first has none before it."""
        return int(self.preemphasis != 0)

    def hop_frames(self, hop_s: float | None) -> int:
        """Frames between patches for a hop in seconds; None means the published hop.

        Raises
        ------
        UsageError
            If ``hop_s`` is not a positive whole number of frames.
        """
        if hop_s is None:
            return self.patch_hop_frames
        _check_seconds("hop_s", hop_s)
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
        return self if pad is None else replace(self, pad=pad)

    def with_window(self, window_s: float | None) -> FrontendSpec:
        """The same with windows of another length, which follow each other; None means the published one.

        Parameters
        ----------
        window_s : float, optional
            Seconds of audio in the longest patch of a centred frontend, a multiple of one hop.

        Returns
        -------
        FrontendSpec

        Raises
        ------
        UsageError
            If it is no multiple of a hop or too short for the network, or for a frontend that is not centred, whose
            patches all have one length.
        """
        if window_s is None:
            return self
        _check_seconds("window_s", window_s)
        if not self.is_centred:
            self._check_patch_length(window_s)
            return self
        n_hops, fewest = window_s / self.frame_hop_s, self._fewest_hops
        if not (np.isfinite(n_hops) and round(n_hops) >= fewest and abs(n_hops - round(n_hops)) < 1e-6):
            near = max(fewest, round(n_hops) if np.isfinite(n_hops) else fewest)
            raise UsageError(
                f"window_s is {window_s}; expected a multiple of one hop, {self.frame_hop_s} s, from "
                f"{fewest * self.frame_hop_s:g} s, such as {near * self.frame_hop_s:g}"
            )
        return replace(self, patch_frames=round(n_hops) + 1 - self._n_lost, patch_hop_frames=round(n_hops))

    @property
    def _fewest_hops(self) -> int:
        """Hops of the shortest window that the network takes and whose ends can be reflected."""
        return max(self.min_frames - 1 + self._n_lost, -(-self.reflected_samples // self.hop_samples))

    def _check_patch_length(self, window_s: float) -> None:
        patch_s = self.patch_frames * self.frame_hop_s
        if not abs(window_s - patch_s) < 1e-6:
            raise UsageError(
                f"window_s is {window_s}; every patch of {self.name} has {patch_s:g} s. Next step: leave window_s out, "
                "or choose a model of whole clips, such as mn04"
            )

    def waveform_samples(self, n_frames: int) -> int:
        """Fewest samples of a patch of ``n_frames`` for a network that sees both: see ``patch_waveforms``."""
        return n_frames // 2 * 2 * self.hop_samples


def _check_seconds(name: str, seconds: float) -> None:
    """Refuse what is no number, and so long a time that its samples would fill the memory."""
    if not is_number(seconds) or seconds > MAX_SECONDS:
        raise UsageError(f"{name} is {value_text(seconds)}; expected seconds, at most {MAX_SECONDS:,.0f}")


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


def _check_array(name: str, values: Any, n_axes: int) -> None:
    if not isinstance(values, np.ndarray) or values.ndim != n_axes or values.dtype.kind != "f":
        given = f"{values.dtype}, {values.shape}" if isinstance(values, np.ndarray) else value_text(values)
        raise UsageError(f"{name} is {given}; expected an array of floats, of {n_axes} axes")


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


def _natural_log(mel: RealArray, offset: float) -> RealArray:
    mel += mel.dtype.type(offset)
    return np.log(mel, out=mel)


def _decibel(mel: RealArray, offset: float) -> RealArray:
    np.maximum(mel, mel.dtype.type(offset), out=mel)
    np.log10(mel, out=mel)
    mel *= 10
    return mel


# Weight of each bin in each band: tf.signal.linear_to_mel_weight_matrix, torchaudio.compliance.kaldi.get_mel_banks and
# librosa.filters.mel.
MEL_FORMULAS: dict[str, Callable[[FrontendSpec], RealArray]] = {
    "htk": _htk_weights,
    "kaldi": _kaldi_weights,
    "slaney": _slaney_weights,
}
# What their bands are evenly spaced in.
MEL_SCALES: dict[str, Callable[[Any], Any]] = {"htk": hz_to_mel, "kaldi": hz_to_mel, "slaney": hz_to_slaney_mel}
LOGS: dict[str, Callable[[RealArray, float], RealArray]] = {"natural": _natural_log, "decibel": _decibel}  # in place


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

# fschmid56/EfficientAT, models/preprocess.py (AugmentMelSTFT in evaluation), with the defaults of inference.py
EFFICIENTAT = FrontendSpec(
    name="efficientat",
    sample_rate=32_000,  # sr
    window_samples=800,  # win_length
    hop_samples=320,  # hopsize
    fft_size=1024,  # n_fft
    n_mels=128,
    mel_min_hz=0.0,  # fmin
    mel_max_hz=15_000.0,  # fmax: sr // 2 - fmax_aug_range // 2
    log_offset=1e-5,
    patch_frames=1000,  # 10 s, the clips of AudioSet; windowed_inference.py
    patch_hop_frames=1000,
    pad="cover",
    is_window_periodic=False,
    is_centred=True,  # torch.stft(center=True), which reflects
    preemphasis=0.97,  # preemphasis_coefficient
    power=2,
    mel_formula="kaldi",
    log_mean=-4.5,  # fast normalization
    log_scale=5.0,
)
# The variants that were published with one checkpoint each: another hop, in milliseconds, or number of mel bands.
EFFICIENTAT_VARIANTS = (
    *(
        replace(
            EFFICIENTAT,
            name=f"efficientat_hop_{hop_ms}",
            hop_samples=hop_ms * 32,
            patch_frames=-(-10_000 // hop_ms),
            patch_hop_frames=-(-10_000 // hop_ms),
        )
        for hop_ms in (5, 15, 20, 25)
    ),
    *(replace(EFFICIENTAT, name=f"efficientat_mels_{n_mels}", n_mels=n_mels) for n_mels in (40, 64, 256)),
)
# Our own, for classifiers of short sounds: clips of less than two seconds have silence after them, which the network
# knows better than so few frames; longer recordings are heard in windows of two seconds.
EFFICIENTAT_2S = replace(EFFICIENTAT, name="efficientat_2s", patch_frames=201, patch_hop_frames=100, min_frames=201)

# qiuqiangkong/audioset_tagging_cnn, pytorch/models.py (Cnn14) and torchlibrosa's stft.py, which follows librosa's
# defaults; the numbers are those of its README and runme.sh. Within 2e-5 dB of its formula evaluated in float64, and
# the original itself is up to 4e-3 dB from it.
PANNS = FrontendSpec(
    name="panns",
    sample_rate=32_000,
    window_samples=1024,
    hop_samples=320,
    fft_size=1024,
    n_mels=64,
    mel_min_hz=50.0,
    mel_max_hz=14_000.0,
    log_offset=1e-10,  # amin
    patch_frames=1001,  # 10 s, the clips of AudioSet
    patch_hop_frames=1000,
    pad="cover",
    is_centred=True,  # pad_mode="reflect"
    power=2,
    mel_formula="slaney",
    log="decibel",  # ref=1.0, top_db=None
    min_frames=32,  # five poolings halve them
)
# Cnn14_16k and Cnn14_8k: the same durations at other rates, up to half the rate
PANNS_VARIANTS = tuple(
    replace(
        PANNS,
        name=f"panns_{sample_rate // 1000}k",
        sample_rate=sample_rate,
        window_samples=sample_rate * 32 // 1000,
        hop_samples=sample_rate // 100,
        fft_size=sample_rate * 32 // 1000,
        mel_max_hz=sample_rate / 2,
    )
    for sample_rate in (16_000, 8_000)
)

# Our own: 2.24 s as a picture of the size that photographs have for VGG16, from 0 (-80 dB) to 1 (20 dB). The window is
# long, so that the lowest of so many bands have bins of their own.
VGG16 = FrontendSpec(
    name="vgg16",
    sample_rate=16_000,
    window_samples=1024,
    hop_samples=160,
    fft_size=2048,
    n_mels=224,
    mel_min_hz=20.0,
    mel_max_hz=8_000.0,
    log_offset=1e-8,
    patch_frames=224,
    patch_hop_frames=112,
    pad="cover",
    power=2,
    mel_formula="slaney",
    log="decibel",
    log_mean=-80.0,
    log_scale=100.0,
)


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
    _check_array("waveform", waveform, n_axes=1)
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
    mel = LOGS[spec.log](mel, spec.log_offset)
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


def patches(log_mel: RealArray, spec: FrontendSpec, hop_frames: int | None = None) -> RealArray:
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
        Whole patches only; frames after the last one are left out. With a centred frontend, which sees
        one patch at a time, all frames are that patch: (1, n_frames, n_mels).
    """
    check_type("spec", spec, FrontendSpec)
    _check_array("log_mel", log_mel, n_axes=2)
    if spec.is_centred:
        return log_mel[np.newaxis]
    hop_frames = spec.patch_hop_frames if hop_frames is None else check_count("hop_frames", hop_frames)
    n_patches = max(0, 1 + (len(log_mel) - spec.patch_frames) // hop_frames)
    frame, mel = log_mel.strides
    return as_strided(
        log_mel, (n_patches, spec.patch_frames, log_mel.shape[1]), (hop_frames * frame, frame, mel), writeable=False
    )


def patch_waveforms(waveform: RealArray, spec: FrontendSpec, *, beside_patches: bool = True) -> RealArray:
    """The samples of a patch, for a network that sees them beside the log-mel spectrogram, or instead of it.

    Such a network halves the frames, and makes as many rows of whole pairs of hops. A clip with an odd number of
    whole hops has an even number of frames, one more; its own last pair is then filled with zeros. The original
    cannot take such a clip; all others stay as they are.

    Parameters
    ----------
    waveform : ndarray, shape (n_samples,), float32
        One window, as ``log_mel`` sees it.
    spec : FrontendSpec
        A centred one.
    beside_patches : bool
        Whether the network sees the log-mel spectrogram too. If not, no rows have to agree, and only a clip that
        does not fill ``spec.min_frames`` is changed.

    Returns
    -------
    ndarray, shape (1, n_samples or more), float32

    Source: qiuqiangkong/audioset_tagging_cnn, pytorch/models.py (Wavegram_Logmel_Cnn14).
    """
    n_frames = spec.n_frames(len(waveform)) if beside_patches else spec.min_frames
    n_missing = spec.waveform_samples(n_frames) - len(waveform)
    return np.pad(waveform, (0, max(0, n_missing)))[np.newaxis]


def n_patches(n_samples: int, spec: FrontendSpec, hop_frames: int | None = None) -> int:
    """Patches of a clip, as ``spec.pad`` has it; one at least, even where a shorter clip is an error.

    Source: ``pad_waveform`` in tensorflow/models, research/audioset/yamnet/features.py (``"cover"``), and
    ``frame`` in research/audioset/vggish/mel_features.py (the others).
    """
    hop_samples = (hop_frames or spec.patch_hop_frames) * spec.hop_samples
    beyond = max(0, n_samples - spec.samples(spec.patch_frames))
    return 1 + (-(-beyond // hop_samples) if spec.pad == "cover" else beyond // hop_samples)


def pad_to_patch(waveform: RealArray, spec: FrontendSpec) -> RealArray:
    """A clip shorter than ``spec.min_samples``, made as long.

    Raises
    ------
    AudioError
        ``too_short`` with ``spec.pad="error"``.
    """
    if spec.pad == "error":
        raise too_short(len(waveform), spec)
    if spec.pad == "repeat":
        return np.resize(waveform, spec.min_samples)
    return np.pad(waveform, (0, spec.min_samples - len(waveform)))


def too_short(n_samples: int, spec: FrontendSpec) -> AudioError:
    """The error of audio shorter than ``spec.min_samples``."""
    return AudioError(
        f"the audio has {n_samples:,} samples at {spec.sample_rate:,} Hz; {spec.name} needs {spec.min_samples:,} "
        f'({spec.min_samples / spec.sample_rate:g} s) at least. Next step: pad="zero" or pad="repeat" (--pad)',
        code="too_short",
    )


@dataclass(frozen=True)
class Slab:
    """A piece of a stream of samples that holds whole patches.

    Attributes
    ----------
    waveform : ndarray, shape (n_samples,)
        Exactly the samples of its frames, padded with zeros after the end of the stream.
    first_patch, n_patches : int
        Which patches of the stream it holds.
    first_sample : int
        Where in the stream it begins.
    n_frames : int
        Frames that belong to it and not to the next slab, which repeats what their patches share.
    end_sample : int
        Samples of the stream up to the end of this slab; of the whole stream in the last slab.
    """

    waveform: RealArray
    first_patch: int
    n_patches: int
    first_sample: int
    n_frames: int
    end_sample: int

    def __repr__(self) -> str:
        return f"<Slab of {self.n_patches} patches from patch {self.first_patch} on>"


def slabs(blocks: Iterable[RealArray], spec: FrontendSpec, hop_frames: int, slab_patches: int) -> Iterator[Slab]:
    """Cut a stream of samples into slabs of ``slab_patches`` patches; the last may have fewer.

    The grid starts at the first sample, so the slabs, and all that is computed from them, do not depend
    on how the stream was cut into blocks. The end is padded as the original pads a clip.

    With a centred frontend every slab is one patch. A stream no longer than ``spec.patch_frames`` is one patch
    of its own length. In a longer one, each patch has that many frames; with ``pad="cover"``, samples after the
    last whole patch are covered by one more that ends with the stream.

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

    Raises
    ------
    AudioError
        ``too_short`` with ``spec.pad="error"``.
    """
    if spec.is_centred:
        windows = Windows(spec, hop_frames)
        for block in blocks:
            yield from windows.push(block)
        yield windows.finish()
        return
    slab_hop_frames = slab_patches * hop_frames
    slab_hop = slab_hop_frames * spec.hop_samples
    size = spec.samples(max(slab_hop_frames, slab_hop_frames - hop_frames + spec.patch_frames))
    # The last slab has more frames of its own, so a slab may go only when another patch is sure to follow it.
    needed = size + 1 if spec.pad == "cover" else spec.samples(slab_hop_frames + spec.patch_frames)
    rest = np.zeros(0, np.float32)
    n_seen = first_patch = 0
    pending: list[RealArray] = []
    for block in blocks:
        pending.append(block)
        n_seen += len(block)
        if n_seen - first_patch * hop_frames * spec.hop_samples < needed:
            continue
        rest = np.concatenate(pending)
        while len(rest) >= needed:
            first_sample = first_patch * hop_frames * spec.hop_samples
            yield Slab(rest[:size], first_patch, slab_patches, first_sample, slab_hop_frames, first_sample + size)
            rest = rest[slab_hop:]
            first_patch += slab_patches
        pending = [rest]
    rest = np.concatenate(pending) if pending else rest
    if n_seen < spec.min_samples:
        rest = pad_to_patch(rest, spec)
    n_all = n_patches(n_seen, spec, hop_frames)
    while first_patch < n_all:
        count = min(slab_patches, n_all - first_patch)
        is_last = first_patch + count == n_all
        n_frames = (count - 1) * hop_frames + spec.patch_frames if is_last else slab_hop_frames
        waveform = rest[: spec.samples(n_frames)]
        waveform = np.pad(waveform, (0, spec.samples(n_frames) - len(waveform)))
        first_sample = first_patch * hop_frames * spec.hop_samples
        yield Slab(waveform, first_patch, count, first_sample, n_frames, n_seen)
        rest = rest[slab_hop:]
        first_patch += slab_patches


class Windows:
    """Cuts samples into the windows of a centred frontend, block by block: see ``slabs``.

    Parameters
    ----------
    spec : FrontendSpec
    hop_frames : int
        Frames between windows.
    """

    def __init__(self, spec: FrontendSpec, hop_frames: int) -> None:
        self._spec = spec
        self._size, self._hop = spec.samples(spec.patch_frames), hop_frames * spec.hop_samples
        # A window may go when another is sure to follow it.
        self._needed = self._size + (1 if spec.pad == "cover" else self._hop)
        self._pending: list[RealArray] = []  # joined when a window may go: each time, it would be 1.4 ms for 10 s
        self._pending_start = 0
        self._n_patches = self._start = 0
        self.n_seen = 0  # samples

    def push(self, block: RealArray) -> Iterator[Slab]:
        """Take the next samples; the windows that may go."""
        self._pending.append(block)
        self.n_seen += len(block)
        if self.n_seen < self._start + self._needed:
            return
        rest = np.concatenate(self._pending)
        while self.n_seen >= self._start + self._needed:
            yield self._window(rest, self._start, self._start + self._size)
            self._n_patches, self._start = self._n_patches + 1, self._start + self._hop
        kept = max(self._pending_start, min(self._start, self.n_seen - self._size))
        self._pending, self._pending_start = [rest[kept - self._pending_start :].copy()], kept

    def finish(self) -> Slab:
        """The last window, of what is left."""
        rest = np.concatenate([np.zeros(0, np.float32), *self._pending])
        if self.n_seen < self._spec.min_samples:
            rest = pad_to_patch(rest, self._spec)
        return self._window(rest, max(0, min(self._start, self.n_seen - self._size)), self.n_seen)

    def _window(self, rest: RealArray, first_sample: int, end_sample: int) -> Slab:
        waveform = rest[first_sample - self._pending_start :][: self._size]
        n_frames = self._spec.n_frames(len(waveform))
        return Slab(waveform, self._n_patches, 1, first_sample, n_frames, end_sample)


def mel_weights(spec: FrontendSpec) -> RealArray:
    """Weight of each FFT bin in each mel band, shape (fft_size / 2 + 1, n_mels), float64.

    Source: what ``MEL_FORMULAS`` names, evaluated in float64.
    """
    return MEL_FORMULAS[spec.mel_formula](spec)


@lru_cache(maxsize=16)
def constants(spec: FrontendSpec, dtype: str) -> tuple[RealArray, RealArray, slice]:
    """Hann window (float64), the mel weights' rows that are not all zero, and the bins of these rows."""
    n_steps = spec.window_samples if spec.is_window_periodic else spec.window_samples - 1
    phase = 2 * np.pi * np.arange(spec.window_samples) / n_steps
    weights = mel_weights(spec)
    bins = _used_bins(weights)
    return 0.5 - 0.5 * np.cos(phase), weights[bins].astype(dtype), bins


class BandSums(NamedTuple):
    """The order in which weighted bins are added up to mel bands.

    No matrix product: which bits it gives a frame depends on the frame's place among the others, and on the kernel
    that a BLAS library picks for the processor. Here every frame is a column of its own, weighted and added element
    by element in one order. A band weighs few bins, so this is also a thirtieth of the arithmetic.

    Each band is summed in two halves. The terms begin with the first bin of every half, the longest halves first;
    then come the second bins of the halves that have one, and so on. So each step adds one run of terms to the
    first ones, which end as the sums.

    Attributes
    ----------
    bins : ndarray, shape (n_terms,)
        The bin that each term weighs.
    weights : ndarray, shape (n_terms, n_frames)
        Its weight, the same for every frame that is computed at once.
    steps : tuple of (first term, number of terms)
        The runs that are added.
    rows : ndarray, shape (2, n_mels)
        Where the sums of the bands' halves are in the end.
    """

    bins: IndexArray
    weights: RealArray
    steps: tuple[tuple[int, int], ...]
    rows: IndexArray


@lru_cache(maxsize=16)
def tiles(spec: FrontendSpec, dtype: str) -> tuple[RealArray, slice, BandSums]:
    """What frames that are computed at once are multiplied with: padded windows, and the weights of the used bins."""
    window, weights, bins = constants(spec, dtype)
    n_frames = max(1, SAMPLES_AT_ONCE // spec.fft_size)
    windows = np.tile(np.pad(window, (0, spec.fft_size - len(window))), (n_frames, 1))  # one loop, not one a row
    return windows, bins, band_sums(weights, n_frames)


def band_sums(weights: RealArray, n_frames: int) -> BandSums:
    """Mel weights (n_bins, n_mels), in the order in which they are added up for ``n_frames`` frames at once."""
    bands = [_used_bins(weights[:, [band]]) for band in range(weights.shape[1])]
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


def _used_bins(weights: RealArray) -> slice:
    """From the first row that is not all zero to the last; the first row, if all are."""
    used = np.flatnonzero(weights.any(axis=1))
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
