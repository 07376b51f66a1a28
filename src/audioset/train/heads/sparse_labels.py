"""The labels of many clips without a matrix: two million clips have four million labels, and a billion zeros."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from audioset.arrays import Array, DoubleArray, FloatArray, Int16Array, Int32Array, Int64Array
from audioset.dataset.features.reading import ClipArrays


@dataclass(frozen=True, eq=False)
class SparseLabels:
    """Which clip has which labels: of clip ``i``, ``indices[offsets[i] : offsets[i + 1]]``, each at most once."""

    indices: Int16Array  # (n_labels,)
    offsets: Int64Array  # (n_clips + 1,)
    n_classes: int

    @classmethod
    def of(cls, arrays: ClipArrays, rows: Int64Array, n_classes: int) -> SparseLabels:
        """The labels of some rows of the features."""
        return cls(np.asarray(arrays.label_indices), np.asarray(arrays.label_offsets), n_classes).take(rows)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def counts(self) -> Int64Array:
        """How many clips have each class, shape (n_classes,)."""
        return np.bincount(self.indices, minlength=self.n_classes)

    def take(self, rows: Array) -> SparseLabels:
        """The labels of clips in any order, copied."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return SparseLabels(self.indices[self._places(rows, lengths, offsets)], offsets, self.n_classes)

    def targets(self, rows: Array) -> FloatArray:
        """A matrix for some clips, (n_rows, n_classes): 1 where a clip has a class, else 0."""
        chosen = self.take(rows)
        targets = np.zeros((len(rows), self.n_classes), np.float32)
        targets[np.repeat(np.arange(len(rows)), np.diff(chosen.offsets)), chosen.indices] = 1
        return targets

    def clips_of_classes(self) -> list[Int32Array]:
        """The clips that have each class, ascending."""
        order = np.argsort(self.indices, kind="stable")
        clips = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))[order]
        return np.split(clips, np.cumsum(self.counts)[:-1])

    def sums(self, values: DoubleArray) -> DoubleArray:
        """For each clip the sum of its classes' values, shape (n_clips,)."""
        running = np.concatenate([[0.0], np.cumsum(values[self.indices])])
        sums: DoubleArray = np.diff(running[self.offsets])
        return sums

    def _places(self, rows: Array, lengths: Int64Array, offsets: Int64Array) -> Int64Array:
        """Where in ``indices`` the labels of these clips are."""
        places: Int64Array = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return places
