"""Count what a list of clips holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from audioset.dataset.lists.segments import SegmentList
from audioset.labels.labels import LabelSet
from audioset.labels.ontology import Ontology

CLIP_MS = 10_000


@dataclass(frozen=True)
class ClassCount:
    """How many clips a class has."""

    label_id: str
    label: str
    n_clips: int  # with this label
    n_clips_below: int  # with this label or one below it in the ontology, each clip once


@dataclass(frozen=True)
class Closure:
    """How far the labels of a clip have those above them beside them."""

    n_labels: int  # labels with a parent among the labels that may occur
    n_closed: int  # those with one of their parents in the same clip
    n_open_clips: int  # clips with a label that has parents, but none of them in the clip


@dataclass(frozen=True)
class Statistics:
    """What a list of clips holds."""

    n_clips: int
    duration_s: float  # of all clips
    n_labels: int  # positive labels of all clips
    labels_per_clip: dict[int, int]  # number of labels → clips with so many
    n_short: int  # clips of less than ten seconds
    n_dash_ids: int  # clips whose id begins with ``-``
    closure: Closure
    classes: tuple[ClassCount, ...]  # of labels and all that is above them in the ontology, the most clips first


def count_segments(segments: SegmentList, labels: LabelSet | None = None) -> Statistics:
    """Count what a list of clips holds.

    Parameters
    ----------
    segments : SegmentList
    labels : LabelSet, optional
        The labels that may occur. Default: ``audioset-527``.

    Returns
    -------
    Statistics
    """
    labels = labels or LabelSet.load("audioset-527")
    sizes: Counter[int] = Counter()
    for label_ids, count in _used_sets(segments):
        sizes[len(label_ids)] += count
    duration_ms = segments.end_ms - segments.start_ms
    first_bytes = np.ascontiguousarray(segments.video_ids).view(np.uint8).reshape(len(segments), -1)[:, :1]
    return Statistics(
        len(segments),
        float(duration_ms.sum(dtype=np.int64)) / 1000,
        sum(size * count for size, count in sizes.items()),
        dict(sorted(sizes.items())),
        int((duration_ms < CLIP_MS).sum()),
        int((first_bytes == ord("-")).sum()),
        _count_closure(segments, labels),
        _count_classes(segments, labels),
    )


def _used_sets(segments: SegmentList) -> Iterable[tuple[tuple[str, ...], int]]:
    """Each set of labels with the number of its clips; clips with equal sets are counted together."""
    counts = segments.set_counts.tolist()
    return ((labels, count) for labels, count in zip(segments.label_sets, counts, strict=True) if count)


def _count_classes(segments: SegmentList, labels: LabelSet) -> tuple[ClassCount, ...]:
    ontology = Ontology.load()
    names = dict(zip(labels.ids, labels.names, strict=True))
    above = {
        label_id: {label_id, *(ontology.ancestors(label_id) if label_id in ontology else ())} for label_id in labels.ids
    }
    n_clips: Counter[str] = Counter()
    n_below: Counter[str] = Counter()
    for label_ids, count in _used_sets(segments):
        for label_id in label_ids:
            n_clips[label_id] += count
        for label_id in set().union(*(above[label_id] for label_id in label_ids)):
            n_below[label_id] += count
    found = (
        ClassCount(label_id, names.get(label_id) or ontology.name(label_id), n_clips[label_id], count)
        for label_id, count in n_below.items()
    )
    return tuple(sorted(found, key=lambda entry: (-entry.n_clips_below, -entry.n_clips, entry.label_id)))


def _count_closure(segments: SegmentList, labels: LabelSet) -> Closure:
    ontology = Ontology.load()
    known = frozenset(labels.ids)
    parents = {
        label_id: known.intersection(ontology.parents(label_id)) for label_id in labels.ids if label_id in ontology
    }
    n_labels = n_closed = n_open_clips = 0
    for label_ids, count in _used_sets(segments):
        present = frozenset(label_ids)
        with_parent = [parents[label_id] for label_id in label_ids if parents.get(label_id)]
        closed = [not present.isdisjoint(above) for above in with_parent]
        n_labels += count * len(closed)
        n_closed += count * sum(closed)
        n_open_clips += count * (not all(closed))
    return Closure(n_labels, n_closed, n_open_clips)
