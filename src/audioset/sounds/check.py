"""Look at labelled sounds before anything is learned from them.

>>> check = check_collection(read_collection("birds/"))  # doctest: +SKIP
>>> [finding.kind for finding in check.findings]  # doctest: +SKIP
['unreadable', 'few']
>>> collection = check.require()  # doctest: +SKIP
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import DoubleArray
from audioset.audio.limits import LIMITS, Limits
from audioset.concurrency import available_cores
from audioset.errors import AudioError, DataError, NoInputError
from audioset.files import exists
from audioset.sounds.class_rules import CLASS_RULES
from audioset.sounds.collection import Clip, Collection
from audioset.sounds.findings import SEVERITIES, Finding, HeardClip, Survey
from audioset.sounds.measures import Span
from audioset.sounds.measuring import Measured, measure_files
from audioset.sounds.sound_rules import SOUND_RULES
from audioset.sounds.split_rules import SPLIT_RULES
from audioset.sounds.unusable import CLIP_RULES


@dataclass(frozen=True, eq=False)
class Check:
    """What was found in a collection. Clips whose files have the same digest sound the same."""

    collection: Collection  # as it was read
    usable: Collection  # without the clips that findings leave out, and without classes of which nothing is left
    findings: tuple[Finding, ...]  # errors first, then warnings, then notes
    durations_s: DoubleArray  # shape (n_usable,): seconds of each usable clip, as decoded
    digests: tuple[str, ...]  # for each usable clip, of the samples and sample rate of its whole file

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that are errors."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def require(self) -> Collection:
        """The usable clips, if something can be learned from them.

        ``NoInputError`` if no clip is usable; the message says why. ``DataError`` if there is nothing to tell apart.
        """
        if not len(self.usable):
            reasons = " ".join(finding.message + "." for finding in self.errors) or "It names no clip."
            raise NoInputError(f"nothing in {self.collection.source} can be used. {reasons}")
        for finding in self.errors:
            if finding.kind == "one_class":
                raise DataError(f"{self.collection.source}: {finding.message}", code=finding.kind)
        return self.usable

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON knows it."""
        return {
            "source": self.collection.source,
            "skipped": list(self.collection.notes),
            "n_clips": len(self.collection),
            "n_usable": len(self.usable),
            "is_multi_label": self.usable.is_multi_label,
            "classes": self._class_records(),
            "n_background": sum(not clip.labels for clip in self.usable.clips),
            "groups": _counts(clip.group for clip in self.usable.clips),
            "splits": _counts(clip.split for clip in self.usable.clips),
            "durations_s": summarise(self.durations_s),
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def _class_records(self) -> list[dict[str, Any]]:
        n_read = Counter(label for clip in self.collection.clips for label in clip.labels)
        rows_of: dict[str, list[int]] = {name: [] for name in self.collection.classes}
        for row, clip in enumerate(self.usable.clips):
            for label in clip.labels:
                rows_of[label].append(row)
        return [{"name": name, "n_clips": n_read[name], **self._of_rows(rows)} for name, rows in rows_of.items()]

    def _of_rows(self, rows: Sequence[int]) -> dict[str, Any]:
        clips = [self.usable.clips[row] for row in rows]
        return {
            "n_usable": len(rows),
            "n_files": len({clip.path for clip in clips}),
            "n_groups": len({clip.group for clip in clips} - {None}),
            "durations_s": summarise(self.durations_s[rows]),
        }


def check_collection(
    collection: Collection,
    *,
    limits: Limits = LIMITS,
    n_workers: int | None = None,
    on_file: Callable[[Path, Measured], None] = lambda path, measured: None,
) -> Check:
    """Decode each file once, and say what is wrong with clips, classes, groups and splits.

    Bad clips are findings, never exceptions. ``n_workers`` is by default one decoding process for each core;
    ``on_file`` is told of each file when it is done, in any order.
    """
    heard = _hear(collection, limits, available_cores() if n_workers is None else n_workers, on_file)
    findings, rows = [], list(range(len(heard)))
    for rule in CLIP_RULES:
        for finding in rule(Survey([heard[row] for row in rows], collection.classes)):
            findings.append(finding)
            left_out = {id(clip) for clip in finding.clips}
            rows = [row for row in rows if id(heard[row].clip) not in left_out]
    survey = Survey([heard[row] for row in rows], collection.classes)
    findings += [finding for rule in (*SPLIT_RULES, *CLASS_RULES, *SOUND_RULES) for finding in rule(survey)]
    usable = collection.select(rows)
    present = {label for clip in usable.clips for label in clip.labels}
    return Check(
        collection,
        replace(usable, classes=tuple(name for name in collection.classes if name in present)),
        tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        np.array([item.duration_s for item in survey.heard], np.float64),
        tuple(item.file.whole.digest if item.file else "" for item in survey.heard),
    )


def summarise(durations_s: DoubleArray) -> dict[str, float] | None:
    """Shortest, median and longest of some durations, and their sum, in seconds; None of none."""
    if not len(durations_s):
        return None
    found = {
        "min": durations_s.min(),
        "median": np.median(durations_s),
        "max": durations_s.max(),
        "total": durations_s.sum(),
    }
    return {name: round(float(seconds), 3) for name, seconds in found.items()}


def _hear(
    collection: Collection, limits: Limits, n_workers: int, on_file: Callable[[Path, Measured], None]
) -> list[HeardClip]:
    """Measure the file of each clip; what cannot be measured has a problem instead."""
    rows_of: dict[Path, list[int]] = defaultdict(list)
    heard: dict[int, HeardClip] = {}
    for row, clip in enumerate(collection.clips):
        if exists(clip.path):
            rows_of[clip.path].append(row)
        else:
            heard[row] = HeardClip(clip, code="missing", problem="there is no such file")
    jobs = [(path, [_span(collection.clips[row]) for row in rows]) for path, rows in rows_of.items()]
    measured = measure_files(jobs, limits=limits, n_workers=n_workers, on_file=on_file)
    for rows, result in zip(rows_of.values(), measured, strict=True):
        # Objects of their own: the same clip may be there twice, and one of the two is left out.
        clips = [replace(collection.clips[row]) for row in rows]
        heard.update(zip(rows, _heard_clips(clips, result), strict=True))
    return [heard[row] for row in range(len(collection))]


def _heard_clips(clips: Sequence[Clip], measured: Measured) -> Iterator[HeardClip]:
    if isinstance(measured, AudioError):
        for clip in clips:
            yield HeardClip(clip, code=measured.code, problem=str(measured))
        return
    for clip, piece in zip(clips, measured.pieces, strict=True):
        yield HeardClip(clip, measured, piece)


def _span(clip: Clip) -> Span:
    return clip.start_s, clip.end_s


def _counts(names: Iterator[str | None]) -> dict[str, int]:
    """How often each name occurs, sorted by name."""
    counts = Counter(name for name in names if name is not None)
    return dict(sorted(counts.items()))
