"""Patches, slabs and windows: how a stream of samples, or its log-mel spectrogram, is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from audioset.arguments import check_count, check_type
from audioset.arrays import RealArray
from audioset.frontend.spec import FrontendSpec, check_array, too_short


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
    check_array("log_mel", log_mel, n_axes=2)
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
