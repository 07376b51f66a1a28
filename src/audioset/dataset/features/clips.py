"""Clips of the released features, one by one and as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from audioset.arrays import Array, BoolArray, ByteArray
from audioset.dataset.features.problems import Malformed
from audioset.errors import UsageError
from audioset.models.postprocess import EMBEDDING_SIZE

N_CLASSES = 527
CLIP_S = 10  # seconds of a clip, and so embeddings
SUBSETS = ("bal_train", "eval", "unbal_train")
NO_SUBSET = 255  # the code of a clip whose subset is not known
ALIASES = {
    **{name: name for name in SUBSETS},
    **dict.fromkeys(("balanced_train", "balanced_train_segments", "balanced"), "bal_train"),
    **dict.fromkeys(("unbalanced_train", "unbalanced_train_segments", "unbalanced"), "unbal_train"),
    **dict.fromkeys(("eval_segments", "evaluation"), "eval"),
}
MAX_ID_BYTES = 255


@dataclass(frozen=True, eq=False, slots=True)
class FeatureClip:
    """What was released of one clip.

    Attributes
    ----------
    video_id : str
        Of the video on YouTube.
    start_s, end_s : float
        The clip in the video, in seconds.
    labels : tuple of int
        Indices into the 527 classes, 0 to 526, ascending.
    embeddings : ndarray, shape (n_seconds, 128), uint8
        Quantised by VGGish's postprocessor, one row a second; short clips have fewer than ten.
        ``audioset.models.postprocess.dequantize`` makes numbers from -2 to 2 of them.
    subset : str or None
        One of ``SUBSETS``; None if it is not known.
    """

    video_id: str
    start_s: float
    end_s: float
    labels: tuple[int, ...]
    embeddings: ByteArray
    subset: str | None


@dataclass(frozen=True, eq=False)
class ClipArrays:
    """Many clips as arrays.

    Attributes
    ----------
    embeddings : ndarray, shape (n_clips, 10, 128), uint8
        Short clips are padded with 0.
    lengths : ndarray, shape (n_clips,), uint8
        Embeddings of each clip before the padding, 0 to 10.
    label_indices : ndarray, shape (n_labels,), int16
        The labels of all clips, one clip after the other.
    label_offsets : ndarray, shape (n_clips + 1,), int64
        The labels of clip ``i`` are ``label_indices[label_offsets[i] : label_offsets[i + 1]]``.
    video_ids : ndarray, shape (n_clips,), bytes
        UTF-8.
    start_s, end_s : ndarray, shape (n_clips,), float32
        Seconds.
    subsets : ndarray, shape (n_clips,), uint8
        Indices into ``SUBSETS``; 255 if not known.
    """

    embeddings: ByteArray
    lengths: ByteArray
    label_indices: Array
    label_offsets: Array
    video_ids: Array
    start_s: Array
    end_s: Array
    subsets: ByteArray

    @classmethod
    def of(cls, clips: Sequence[FeatureClip]) -> ClipArrays:
        """Pack clips.

        Raises
        ------
        Malformed
            If one has more than ten embeddings.
        """
        lengths = [len(clip.embeddings) for clip in clips]
        if max(lengths, default=0) > CLIP_S:
            clip = clips[int(np.argmax(lengths))]
            raise Malformed(f"{clip.video_id} has {len(clip.embeddings)} embeddings; there is room for {CLIP_S}")
        embeddings = np.zeros((len(clips), CLIP_S, EMBEDDING_SIZE), np.uint8)
        for row, clip in zip(embeddings, clips, strict=True):
            row[: len(clip.embeddings)] = clip.embeddings
        labels = [clip.labels for clip in clips]
        ids = [clip.video_id.encode() for clip in clips]
        return cls(
            embeddings,
            np.array(lengths, np.uint8),
            np.array([index for each in labels for index in each], np.int16),
            np.cumsum([0, *map(len, labels)], dtype=np.int64),
            id_array(ids),
            np.array([clip.start_s for clip in clips], np.float32),
            np.array([clip.end_s for clip in clips], np.float32),
            np.array([subset_code(clip.subset) for clip in clips], np.uint8),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: slice) -> ClipArrays:
        """Neighbouring clips, not copied."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise UsageError(f"a slice of clips has the step {step}; expected 1. Next step: take(indices)")
        stop = max(start, stop)
        first, last = int(self.label_offsets[start]), int(self.label_offsets[stop])
        return ClipArrays(
            self.embeddings[start:stop],
            self.lengths[start:stop],
            self.label_indices[first:last],
            self.label_offsets[start : stop + 1] - first,
            self.video_ids[start:stop],
            self.start_s[start:stop],
            self.end_s[start:stop],
            self.subsets[start:stop],
        )

    def take(self, indices: Any) -> ClipArrays:
        """Clips in any order, copied.

        Parameters
        ----------
        indices : array_like of int, or of bool, shape (n_clips,)

        Returns
        -------
        ClipArrays
        """
        rows = np.arange(len(self))[np.asarray(indices)]
        counts = self.label_offsets[rows + 1] - self.label_offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(self.label_offsets[rows] - offsets[:-1], counts)
        return ClipArrays(
            np.asarray(self.embeddings[rows]),
            np.asarray(self.lengths[rows]),
            np.asarray(self.label_indices[places]),
            offsets,
            np.asarray(self.video_ids[rows]),
            np.asarray(self.start_s[rows]),
            np.asarray(self.end_s[rows]),
            np.asarray(self.subsets[rows]),
        )

    def targets(self, n_classes: int = N_CLASSES) -> BoolArray:
        """Labels as a matrix.

        Returns
        -------
        ndarray, shape (n_clips, n_classes), bool
        """
        targets = np.zeros((len(self), n_classes), np.bool_)
        targets[np.repeat(np.arange(len(self)), np.diff(self.label_offsets)), self.label_indices] = True
        return targets

    def clip(self, i: int) -> FeatureClip:
        """One clip, with an array of its own.

        Raises
        ------
        Malformed
            If no clip has such values.
        """
        try:
            video_id = self.video_ids[i].decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"the id {self.video_ids[i]!r} is not UTF-8") from error
        return make_clip(
            video_id,
            float(self.start_s[i]),
            float(self.end_s[i]),
            self.label_indices[self.label_offsets[i] : self.label_offsets[i + 1]].tolist(),
            np.array(self.embeddings[i, : self.lengths[i]]),
            subset_of_code(int(self.subsets[i])),
        )


def make_clip(
    video_id: str, start_s: float, end_s: float, labels: Sequence[int], embeddings: ByteArray, subset: str | None
) -> FeatureClip:
    """A clip of values that were read from a table."""
    if not 0 < len(video_id.encode("utf-8", "replace")) <= MAX_ID_BYTES or "\0" in video_id:
        raise Malformed(f"the id is {video_id[:20]!r}; expected 1 to {MAX_ID_BYTES} bytes, none of them 0")
    if len(labels) and not 0 <= min(labels) <= max(labels) < N_CLASSES:
        raise Malformed(f"{video_id} has the labels {list(labels)[:20]}; expected 0 to {N_CLASSES - 1}")
    if subset is not None and subset not in SUBSETS:
        raise Malformed(f"{video_id} has the subset {subset!r}; expected one of {', '.join(SUBSETS)}")
    return FeatureClip(video_id, start_s, end_s, tuple(sorted(set(labels))), embeddings, subset)


def join_arrays(blocks: list[ClipArrays]) -> ClipArrays:
    """Many packs of clips as one; ``blocks`` is emptied on the way, so that there are never two of everything."""
    if not blocks:
        return ClipArrays.of(())
    if len(blocks) == 1:
        return blocks.pop()
    n_clips = sum(map(len, blocks))
    sizes = {"label_indices": sum(len(block.label_indices) for block in blocks), "label_offsets": n_clips + 1}
    dtypes = {"video_ids": max(block.video_ids.dtype for block in blocks)}
    whole = {}
    for field in fields(ClipArrays):
        first = getattr(blocks[0], field.name)
        shape = (sizes.get(field.name, n_clips), *first.shape[1:])
        whole[field.name] = np.empty(shape, dtypes.get(field.name, first.dtype))
    whole["label_offsets"][0] = 0
    row = label = 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        end, last = row + len(block), label + len(block.label_indices)
        whole["label_offsets"][row + 1 : end + 1] = block.label_offsets[1:] + label
        whole["label_indices"][label:last] = block.label_indices
        for name in whole.keys() - sizes.keys():
            whole[name][row:end] = getattr(block, name)
        row, label = end, last
    return ClipArrays(**whole)


def id_array(ids: Sequence[bytes]) -> Array:
    """Ids as an array of byte strings, as wide as the longest."""
    return np.array(ids, f"S{max(map(len, ids), default=1)}")


def check_subset(name: str | None) -> str | None:
    """The short name of a subset, for any of its names."""
    if name is not None and name not in ALIASES:
        raise UsageError(f"the subset is {name!r}; expected one of {', '.join(SUBSETS)}")
    return name and ALIASES[name]


def subset_named(*names: str) -> str | None:
    """The subset that the first of these names which is a subset's says; None if none does."""
    return next((ALIASES[name] for name in names if name in ALIASES), None)


def subset_code(subset: str | None) -> int:
    """How arrays store a subset."""
    return NO_SUBSET if subset is None else SUBSETS.index(subset)


def subset_of_code(code: int) -> str | None:
    """The subset that arrays store so."""
    return SUBSETS[code] if code < len(SUBSETS) else None


def in_blocks(clips: Iterable[FeatureClip], n_clips: int) -> Iterator[list[FeatureClip]]:
    """Clips in lists of ``n_clips``, the last perhaps shorter."""
    block: list[FeatureClip] = []
    for clip in clips:
        block.append(clip)
        if len(block) == n_clips:
            yield block
            block = []
    if block:
        yield block
