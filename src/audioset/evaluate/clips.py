"""Which clips there are, which labels they have, and which scores they got."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any

import numpy as np

from audioset.arrays import Array, BoolArray, FloatArray, IndexArray
from audioset.dataset.download.clips import Key
from audioset.dataset.lists.clip_names import OWN_NAME, clip_names
from audioset.errors import DataError, UsageError
from audioset.labels.labels import LabelSet

NOT_THERE = -1
NO_SCORES = "no_scores"


@dataclass(frozen=True, eq=False)
class Targets:
    """Which clip has which label.

    Attributes
    ----------
    names : tuple of str
        Of the clips, each once: ``<video id>_<start>_<end>`` in milliseconds, or a recording's path.
    labels : LabelSet
    values : ndarray, shape (n_clips, n_labels), bool
    source : str
        Where they come from, for reports.

    Raises
    ------
    DataError
        If a clip is there twice.
    UsageError
        For another number of rows or columns.
    """

    names: tuple[str, ...]
    labels: LabelSet
    values: BoolArray
    source: str

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names), len(self.labels)):
            raise UsageError(
                f"{self.source} has {len(self.names)} clips and {len(self.labels)} labels, and targets of shape "
                f"{self.values.shape}; expected a row for each clip and a column for each label"
            )
        if (name := first_repeated(self.names)) is not None:
            raise DataError(f"{self.source}: the clip {name} is there twice; expected each clip once")

    def find(self, clip_id: str) -> int:
        """Row of the clip that an id or the name of a file means; -1 if it is none of these.

        Parameters
        ----------
        clip_id : str
            A clip's name, or what tools make of it: a folder and a suffix may be added, the end or both times left
            out, PANNs' ``Y`` put before. Another end is passed over: some released features end a second before the
            list says.

        Returns
        -------
        int
        """
        for name in (clip_id, os.path.normpath(clip_id)):
            if name in self._rows:
                return self._rows[name]
        for name_of_clip in clip_names(PurePath(clip_id).name):
            rows = [
                row
                for key, row in self._rows_of_videos.get(name_of_clip.video_id, ())
                if name_of_clip.start_ms in (None, key.start_ms)
            ]
            if len(rows) == 1:
                return rows[0]
        return NOT_THERE

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def _rows_of_videos(self) -> Mapping[str, list[tuple[Key, int]]]:
        found = defaultdict(list)
        for row, match in enumerate(map(OWN_NAME.fullmatch, self.names)):
            if match:
                key = Key(match["video_id"], int(match["start_ms"]), int(match["end_ms"]))
                found[key.video_id].append((key, row))
        return found


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says of clips.

    Attributes
    ----------
    name : str
        Of the model or the file, for reports.
    clip_ids : tuple of str
        As ``Targets.find`` takes them.
    labels : LabelSet
    values : ndarray, shape (n_clips, n_labels), float32
        Probabilities, logits or any other numbers of which more means likelier.
    failures : mapping of str to str
        Clips that have no scores, and a word that says why.
    model : dict or None
        Card of the model, and how it ran.

    Raises
    ------
    DataError
        If the shape is another, or a score is NaN or no real number.
    """

    name: str
    clip_ids: tuple[str, ...]
    labels: LabelSet
    values: FloatArray
    failures: Mapping[str, str] = field(default_factory=dict)
    model: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.values.dtype.kind not in "fiu":
            raise DataError(f"{self.name} has scores of dtype {self.values.dtype}; expected real numbers")
        if self.values.ndim != 2 or len(self.values) != len(self.clip_ids):
            raise DataError(
                f"{self.name} has scores of shape {self.values.shape} for {len(self.clip_ids):,} clips; expected a row "
                "for each clip. Likely cause: ids of another run"
            )
        if self.values.shape[1] != len(self.labels):
            raise DataError(
                f"{self.name} has scores for {self.values.shape[1]} classes, and {len(self.labels)} labels; expected "
                "a column for each label"
            )
        object.__setattr__(self, "values", np.ascontiguousarray(self.values, np.float32))
        if np.isnan(self.values.min(initial=0)):
            self._check_numbers()

    def _check_numbers(self) -> None:
        """Refuse NaN; infinities are scores too."""
        for clip_id, row in zip(self.clip_ids, self.values, strict=True):
            if np.isnan(row).any():
                label = self.labels.names[int(np.isnan(row).argmax())]
                raise DataError(
                    f"{self.name}: the clip {clip_id} has the score NaN for {label}; expected a number. Likely cause: "
                    "weights that diverged in training, or audio that was not decoded"
                )


@dataclass(frozen=True, eq=False)
class ScoredClips:
    """Clips that have labels and scores, by name, and an account of all others.

    Attributes
    ----------
    names : tuple of str
        Sorted.
    labels : LabelSet
        Those of the targets that the model has too, in the order of the targets.
    scores : ndarray, shape (n_clips, n_labels), float32
    targets : ndarray, shape (n_clips, n_labels), bool
    missing : dict of str to str
        Clips with labels and without scores, and a word that says why, by name.
    n_extra : int
        Clips with scores and without labels.
    only_in_targets, only_in_scores : tuple of str
        Ids of labels that are not shared.
    """

    names: tuple[str, ...]
    labels: LabelSet
    scores: FloatArray
    targets: BoolArray
    missing: dict[str, str]
    n_extra: int
    only_in_targets: tuple[str, ...]
    only_in_scores: tuple[str, ...]


def join(scores: Scores, targets: Targets) -> ScoredClips:
    """Bring scores and labels together."""
    labels = shared_labels([targets.labels, scores.labels], [targets.source, scores.name])
    rows = locate(scores, targets)
    found = np.flatnonzero(rows != NOT_THERE)
    if not len(found):
        raise no_shared_clips(scores, targets)
    found = found[np.argsort(np.array(targets.names)[rows[found]])]
    chosen = rows[found]
    has_scores = np.zeros(len(targets.names), bool)
    has_scores[chosen] = True
    failures = {targets.find(clip_id): reason for clip_id, reason in scores.failures.items()}
    return ScoredClips(
        names=tuple(targets.names[row] for row in chosen.tolist()),
        labels=labels,
        scores=take(scores.values, found, columns(scores.labels, labels)),
        targets=take(targets.values, chosen, columns(targets.labels, labels)),
        missing={
            targets.names[row]: failures.get(row, NO_SCORES)
            for row in sorted(np.flatnonzero(~has_scores).tolist(), key=targets.names.__getitem__)
        },
        n_extra=len(scores.clip_ids) - len(found),
        only_in_targets=_difference(targets.labels, labels),
        only_in_scores=_difference(scores.labels, labels),
    )


def locate(scores: Scores, targets: Targets) -> IndexArray:
    """Row in the targets of each clip that has scores, -1 where there is none."""
    rows = np.array([targets.find(clip_id) for clip_id in scores.clip_ids], np.intp)
    found = rows[rows != NOT_THERE]
    counts = np.bincount(found, minlength=len(targets.names))
    if counts.max(initial=0) > 1:
        row = int(counts.argmax())
        first, second = np.flatnonzero(rows == row)[:2]
        raise DataError(
            f"{scores.name} has the clip {targets.names[row]} more than once: as {scores.clip_ids[first]} and as "
            f"{scores.clip_ids[second]}; expected each clip once"
        )
    return rows


def shared_labels(sets: Sequence[LabelSet], sources: Sequence[str]) -> LabelSet:
    """The labels that all sets have, in the order of the first."""
    common = frozenset.intersection(*(frozenset(labels.ids) for labels in sets))
    if not common:
        shown = "; ".join(
            f"{source} has {len(labels)} such as {', '.join(labels.ids[:2])}"
            for source, labels in zip(sources, sets, strict=True)
        )
        raise UsageError(
            f"no class is in all of them, so there is nothing to evaluate: {shown}. Likely cause: a model of other "
            "classes, or label_ids that are no ids of AudioSet"
        )
    return sets[0].select(index for index, label_id in enumerate(sets[0].ids) if label_id in common)


def no_shared_clips(scores: Scores, targets: Targets) -> UsageError:
    """What is wrong where scores and labels have no clip in common."""
    if not scores.clip_ids:
        reasons = ", ".join(sorted(set(scores.failures.values()))) or "there are none"
        return UsageError(f"{scores.name} has no scores at all ({reasons}), so there is nothing to evaluate")
    return UsageError(
        f"none of the {len(scores.clip_ids):,} clips with scores is among the {len(targets.names):,} with labels: "
        f"{scores.name} has ids such as {scores.clip_ids[0]!r}, {targets.source} such as {targets.names[0]!r}. "
        "Likely cause: labels of another subset, or ids in a form of their own"
    )


def columns(labels: LabelSet, wanted: LabelSet) -> IndexArray:
    """Where a set has the labels of another, shape (n_wanted,)."""
    places = {label_id: index for index, label_id in enumerate(labels.ids)}
    return np.array([places[label_id] for label_id in wanted.ids], np.intp)


def take(values: Array, rows: IndexArray, chosen: IndexArray) -> Array:
    """Some rows and columns, copied, without a copy of all where they are all."""
    taken = values[rows]
    return taken if np.array_equal(chosen, np.arange(values.shape[1])) else np.ascontiguousarray(taken[:, chosen])


def first_repeated(names: Iterable[str]) -> str | None:
    """The first that was there before, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _difference(labels: LabelSet, shared: LabelSet) -> tuple[str, ...]:
    has = frozenset(shared.ids)
    return tuple(label_id for label_id in labels.ids if label_id not in has)
