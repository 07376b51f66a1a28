"""``FrontendSpec``: every constant of a frontend, and what follows from them for samples, frames and seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from audioset.arguments import check_choice, is_number, value_text
from audioset.errors import AudioError, UsageError

# What happens to audio that does not fill a patch. With a centred frontend, "cover" needs no zeros: see ``slabs``.
PADS = {
    "cover": "zeros follow the end until every sample is in a patch",
    "error": "samples after the last whole patch are not used; audio shorter than a patch is an error",
    "zero": "samples after the last whole patch are not used; zeros follow audio shorter than a patch",
    "repeat": "samples after the last whole patch are not used; audio shorter than a patch is repeated to fill one",
}
# What the weight of each bin in each band follows.
MEL_FORMULAS = {
    "htk": "tf.signal.linear_to_mel_weight_matrix",
    "kaldi": "torchaudio.compliance.kaldi.get_mel_banks",
    "slaney": "librosa.filters.mel",
}
LOGS = ("natural", "decibel")

MAX_SECONDS = 86_400.0  # between patches, and in one


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
        The original of each is in ``MEL_FORMULAS``.
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

    def with_patches(
        self, *, hop_s: float | None = None, window_s: float | None = None, pad: str | None = None
    ) -> FrontendSpec:
        """The same with audio cut in another way: see ``hop_frames``, ``with_window`` and ``with_pad``."""
        spec = self.with_pad(pad).with_window(window_s)
        return replace(spec, patch_hop_frames=spec.hop_frames(hop_s))

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


def too_short(n_samples: int, spec: FrontendSpec) -> AudioError:
    """The error of audio shorter than ``spec.min_samples``."""
    return AudioError(
        f"the audio has {n_samples:,} samples at {spec.sample_rate:,} Hz; {spec.name} needs {spec.min_samples:,} "
        f'({spec.min_samples / spec.sample_rate:g} s) at least. Next step: pad="zero" or pad="repeat" (--pad)',
        code="too_short",
    )


def check_array(name: str, values: Any, n_axes: int) -> None:
    """Refuse what is no array of floats with so many axes."""
    if not isinstance(values, np.ndarray) or values.ndim != n_axes or values.dtype.kind != "f":
        given = f"{values.dtype}, {values.shape}" if isinstance(values, np.ndarray) else value_text(values)
        raise UsageError(f"{name} is {given}; expected an array of floats, of {n_axes} axes")
