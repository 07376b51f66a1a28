"""Patches, slabs and windows: how a stream of samples, or its log-mel spectrogram, is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from audioset.arguments import check_count, check_type
from audioset.arrays import RealArray
from audioset.frontend.spec import FrontendSpec, check_array, too_short

# Computed at once: fewer hand-overs between threads than with less, a smaller last piece than with more.
SLAB_PATCHES = 64
SLAB_FRAMES = 6_144  # 61 s


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
    """A clip shorter than ``spec.min_samples``, made as long; AudioError ``too_short`` with ``spec.pad="error"``."""
    if spec.pad == "error":
        raise too_short(len(waveform), spec)
    if spec.pad == "repeat":
        return np.resize(waveform, spec.min_samples)
    return np.pad(waveform, (0, spec.min_samples - len(waveform)))


@dataclass(frozen=True)
class Slab:
    """A piece of a stream of samples that holds whole patches."""

    waveform: RealArray  # (n_samples,): exactly those of its frames, with zeros after the end of the stream
    first_patch: int  # in the stream
    n_patches: int
    n_skipped: int  # frames before its first patch: between patches that do not touch there are some that no patch has
    # Its last frames, that no earlier slab had: those before them are shared with the patches of that slab.
    n_frames: int
    first_sample: int  # where in the stream these begin
    end_sample: int  # samples of the stream up to the end of this slab; of the whole stream in the last slab
    is_last: bool

    def __repr__(self) -> str:
        return f"<Slab of {self.n_patches} patches from patch {self.first_patch} on>"


class Cutter:
    """Cuts a stream of samples into slabs, block by block.

    The grid starts at the first sample, so the slabs, and all that is computed from them, do not depend
    on how the stream was cut into blocks. The end is padded as the original pads a clip.

    With a centred frontend every slab is one patch. A stream no longer than ``spec.patch_frames`` is one patch of its
    own length. In a longer one, each patch has that many frames; with ``pad="cover"``, samples after the last whole
    patch are covered by one more that ends with the stream. With ``live_patches``, so many patches go as soon as they
    are whole, or a multiple of them. By default, as with a centred frontend, slabs are as large as they may be,
    ``max_patches``, and go when another patch is sure to follow.
    """

    def __init__(self, spec: FrontendSpec, max_patches: int, live_patches: int | None = None) -> None:
        self._spec = spec
        self._max_patches = 1 if spec.is_centred else max_patches
        self._is_live = live_patches is not None and not spec.is_centred
        self._step = live_patches if live_patches is not None and not spec.is_centred else self._max_patches
        self._pending: list[RealArray] = []  # joined when a slab may go: each time, it would be 1.4 ms for 10 s
        self._pending_start = 0
        self._n_patches = self._n_frames = 0  # of the slabs so far
        self.n_samples = 0  # of the stream, so far

    def push(self, block: RealArray) -> Iterator[Slab]:
        """Take the next samples; the slabs that may go."""
        self._pending.append(block)
        self.n_samples += len(block)
        n_waiting = self._n_certain() - self._n_patches
        if n_waiting < self._step:
            return
        rest = np.concatenate(self._pending)
        for count in _shares(n_waiting // self._step * self._step, self._max_patches):
            yield self._slab(rest, count)
        kept = self._next_start()
        # A copy: a view would keep the whole of a large block.
        self._pending, self._pending_start = [rest[kept - self._pending_start :].copy()], kept

    def finish(self) -> Iterator[Slab]:
        """The slabs of what is left; AudioError ``too_short`` with ``spec.pad="error"``."""
        rest = np.concatenate([np.zeros(0, np.float32), *self._pending])
        if self.n_samples < self._spec.min_samples:
            rest = pad_to_patch(rest, self._spec)
        n_all = n_patches(self.n_samples, self._spec)
        for count in _shares(n_all - self._n_patches, self._max_patches):
            yield self._slab(rest, count, is_last=self._n_patches + count == n_all)

    def _n_certain(self) -> int:
        """Patches that may go: whole ones, or those that another is sure to follow."""
        if not self._is_live:
            return n_patches(self.n_samples, self._spec) - 1
        beyond = self.n_samples - self._spec.samples(self._spec.patch_frames)
        return 1 + beyond // (self._spec.patch_hop_frames * self._spec.hop_samples)

    def _next_start(self) -> int:
        """The first sample that the next slabs may need; the last window of a centred frontend ends with the stream."""
        spec = self._spec
        if spec.is_centred:
            start = self._n_patches * spec.patch_hop_frames * spec.hop_samples
            return max(0, min(start, self.n_samples - spec.samples(spec.patch_frames)))
        return min(self._n_frames, self._n_patches * spec.patch_hop_frames) * spec.hop_samples

    def _slab(self, rest: RealArray, count: int, *, is_last: bool = False) -> Slab:
        """The next ``count`` patches, of samples that begin where those before them were cut off."""
        spec, first_patch, start = self._spec, self._n_patches, self._next_start()
        waveform = rest[start - self._pending_start :]
        if spec.is_centred:
            waveform = waveform[: spec.samples(spec.patch_frames)]
            n_skipped, n_frames, first_sample = 0, spec.n_frames(len(waveform)), start
        else:
            first_frame = first_patch * spec.patch_hop_frames
            end_frame = first_frame + (count - 1) * spec.patch_hop_frames + spec.patch_frames
            n_samples = spec.samples(end_frame - start // spec.hop_samples)
            n_missing = n_samples - len(waveform)
            waveform = waveform[:n_samples] if n_missing <= 0 else np.pad(waveform, (0, n_missing))
            n_skipped, n_frames = first_frame - start // spec.hop_samples, end_frame - self._n_frames
            first_sample = self._n_frames * spec.hop_samples
        self._n_patches += count
        self._n_frames += n_frames
        end_sample = self.n_samples if is_last else min(start + len(waveform), self.n_samples)
        return Slab(waveform, first_patch, count, n_skipped, n_frames, first_sample, end_sample, is_last)


def slabs(blocks: Iterable[RealArray], spec: FrontendSpec, max_patches: int) -> Iterator[Slab]:
    """Cut a stream of samples into slabs of ``max_patches`` patches; the last may have fewer. See ``Cutter``.

    Blocks are (n,). AudioError ``too_short`` with ``spec.pad="error"``.
    """
    cutter = Cutter(spec, max_patches)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


def _shares(total: int, most: int) -> Iterator[int]:
    """``total`` in parts of ``most`` each, and the rest."""
    for start in range(0, total, most):
        yield min(most, total - start)


def slab_patches(spec: FrontendSpec, window_patches: int = 1) -> int:
    """Patches in one slab: whole windows, as many as fit in its time, within bounds for tiny and for huge hops."""
    n_windows = min(SLAB_PATCHES, SLAB_FRAMES // spec.patch_hop_frames) // window_patches
    return max(1, n_windows) * window_patches
