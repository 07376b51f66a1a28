"""What is in features, and whether they are what was released."""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioset.dataset.features import folder as feature_folder
from audioset.dataset.features.clips import FeatureClip, check_subset, in_blocks, subset_named
from audioset.dataset.features.problems import Problems
from audioset.dataset.features.reading import read
from audioset.dataset.features.shards import Shard
from audioset.dataset.lists.published import segments_path
from audioset.errors import AudioSetError, DataError, UsageError
from audioset.files import check_regular
from audioset.labels.labels import LabelSet

LABELS = "audioset-527"
CLIPS_PER_BLOCK = 1024
MOST_EXAMPLES = 20  # of each kind of fault
FAULTS = {
    "damaged": "records that cannot be read",
    "wrong_shard": "clips in a file of another name than their id's first two characters",
    "duplicate": "clips that are there twice",
    "wrong_length": "clips with more or fewer embeddings than seconds",
    "wrong_labels": "clips with other labels than in the list",
    "wrong_times": "clips with other times than in the list",
    "unlisted": "clips that the list does not have",
    "missing": "clips of the list that are not there",
}


@dataclass(frozen=True)
class Summary:
    """What is in features."""

    # n_clips, n_seconds: A second is one embedding
    n_clips: int
    n_seconds: int
    subsets: dict[str, int]  # clips of each subset
    lengths: dict[int, int]  # clips of each length in seconds
    n_labels: int  # of all clips together
    n_clips_of_class: list[int]  # for each of the 527 classes, the clips that have it
    # mean, sd: of the bytes, 0 to 255
    mean: float
    sd: float
    # share_0, share_255: bytes that are saturated, 0 to 1
    share_0: float
    share_255: float


@dataclass
class Report:
    """What a check has found."""

    n_clips: int = 0
    n_listed: int | None = None  # clips of the lists; None without lists
    # Clips that end before the list says, and have as many embeddings fewer. The balanced and evaluation sets have 79,
    # so it is no fault.
    n_short: int = 0
    faults: Counter[str] = field(default_factory=Counter)  # how many of each kind of ``FAULTS``
    examples: dict[str, list[str]] = field(default_factory=dict)  # the first 20 of each kind

    @property
    def is_sound(self) -> bool:
        """Whether there is no fault."""
        return not self.faults.total()

    def add(self, kind: str, example: str) -> None:
        """Count a fault."""
        self.faults[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(example)


@dataclass(frozen=True)
class _Listed:
    """What a list says of a clip."""

    start_s: float
    end_s: float
    labels: tuple[int, ...]


def summarise(clips: Iterable[FeatureClip]) -> Summary:
    """Count and average features."""
    n_of_byte = np.zeros(256, np.int64)
    subsets: Counter[str] = Counter()
    lengths: Counter[int] = Counter()
    classes: Counter[int] = Counter()
    for block in in_blocks(clips, CLIPS_PER_BLOCK):
        frames = np.concatenate([clip.embeddings for clip in block])
        n_of_byte += np.bincount(frames.ravel(), minlength=256)
        for clip in block:
            subsets[clip.subset or "unknown"] += 1
            lengths[len(clip.embeddings)] += 1
            classes.update(clip.labels)
    shares = n_of_byte / max(1, n_of_byte.sum())
    mean = float(shares @ np.arange(256))
    return Summary(
        n_clips=lengths.total(),
        n_seconds=sum(n_seconds * n_clips for n_seconds, n_clips in lengths.items()),
        subsets=dict(sorted(subsets.items())),
        lengths=dict(sorted(lengths.items(), reverse=True)),
        n_labels=classes.total(),
        n_clips_of_class=[classes[index] for index in range(len(LabelSet.load(LABELS)))],
        mean=mean,
        sd=math.sqrt(float(shares @ (np.arange(256) - mean) ** 2)),
        share_0=float(shares[0]),
        share_255=float(shares[255]),
    )


def verify(
    path: str | os.PathLike[str], lists: Sequence[str | os.PathLike[str]] = (), subset: str | None = None
) -> Report:
    """Check features: every checksum, the names of shards, and whether they agree with the published lists of clips.

    A list's name, such as ``eval_segments.csv``, says which subset it is of; one with another name is of all.
    """
    subset = check_subset(subset)
    report = Report()
    expected, covered = _read_lists(lists, subset)
    seen: set[str] = set()
    clips = read(path, subset, on_error="skip")
    for clip, shard in clips.with_shards():
        report.n_clips += 1
        if clip.video_id in seen:
            report.add("duplicate", clip.video_id)
        seen.add(clip.video_id)
        _check_clip(report, clip, shard)
        if lists and (clip.subset is None or None in covered or clip.subset in covered):
            _compare(report, clip, expected.get(clip.video_id))
    if lists:
        report.n_listed = len(expected)
        for video_id in sorted(expected.keys() - seen):
            report.add("missing", video_id)
    _check_folder(Path(path), clips.problems)
    for error in clips.problems.kept:
        report.add("damaged", str(error))
    report.faults["damaged"] = clips.problems.n_skipped
    return report


def _check_clip(report: Report, clip: FeatureClip, shard: Shard | None) -> None:
    """What a clip alone can say."""
    if shard and len(shard.stem) == 2 and not clip.video_id.startswith(shard.stem):
        report.add("wrong_shard", f"{clip.video_id} in {shard.name}")
    n_embeddings, duration_s = len(clip.embeddings), clip.end_s - clip.start_s
    if n_embeddings == 0 or abs(n_embeddings - duration_s) >= 1:  # times may be NaN
        report.add("wrong_length", f"{clip.video_id} has {n_embeddings} embeddings for {duration_s:g} s")


def _compare(report: Report, clip: FeatureClip, listed: _Listed | None) -> None:
    """A clip with its list. Times are NaN where they are not known, and then nothing is wrong with them."""
    if listed is None:
        report.add("unlisted", clip.video_id)
        return
    if clip.labels != listed.labels:
        report.add("wrong_labels", f"{clip.video_id} has {clip.labels}; the list has {listed.labels}")
    start_s, end_s = np.float32(listed.start_s), np.float32(listed.end_s)
    if abs(clip.start_s - start_s) > 0 or clip.end_s > end_s:
        report.add("wrong_times", f"{clip.video_id} is {_times(clip)}; the list has {_times(listed)}")
    report.n_short += bool(clip.end_s < end_s)


def _times(clip: FeatureClip | _Listed) -> str:
    return f"{clip.start_s:g} to {clip.end_s:g} s"


def _check_folder(path: Path, problems: Problems) -> None:
    if feature_folder.is_feature_folder(path):
        feature_folder.check_digests(path, problems)


def _read_lists(
    lists: Sequence[str | os.PathLike[str]], subset: str | None
) -> tuple[dict[str, _Listed], set[str | None]]:
    """The clips of the lists, and the subsets that these cover; None among them covers all."""
    expected: dict[str, _Listed] = {}
    covered: set[str | None] = set()
    for path in map(segments_path, lists):
        found = subset_named(path.name.partition(".")[0])
        if None not in (subset, found) and found != subset:
            raise UsageError(f"{path} is the list of {found}; the subset asked for is {subset}")
        covered.add(found)
        expected.update(_rows(path))
    return expected, covered


def _rows(path: Path) -> Iterator[tuple[str, _Listed]]:
    index_of = {label_id: index for index, label_id in enumerate(LabelSet.load(LABELS).ids)}
    number = 0
    try:
        check_regular(path)
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file, skipinitialspace=True):
                number += 1
                if row and not row[0].startswith("# "):
                    video_id, start_s, end_s, label_ids = row
                    labels = tuple(sorted({index_of[label_id] for label_id in label_ids.split(",")}))
                    yield video_id, _Listed(float(start_s), float(end_s), labels)
    except AudioSetError:
        raise
    except (OSError, ValueError, LookupError, csv.Error) as error:
        raise DataError(
            f"{path}, line {number}: {error}; expected id, start, end and label ids in quotes. Likely cause: another "
            "file, or a list that a spreadsheet has saved. Next step: fetch the published list again"
        ) from error


def report_json(report: Report) -> dict[str, Any]:
    """A report as JSON has it."""
    return {
        "is_sound": report.is_sound,
        "n_clips": report.n_clips,
        "n_listed": report.n_listed,
        "n_short": report.n_short,
        "faults": {kind: report.faults[kind] for kind in FAULTS},
        "examples": report.examples,
    }
