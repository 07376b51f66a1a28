"""Clips that cannot be used: one function for each reason."""

from __future__ import annotations

from collections.abc import Iterator

from audioset.sounds.collection import Clip
from audioset.sounds.findings import (
    SILENT_DBFS,
    Finding,
    HeardClip,
    Rule,
    Survey,
    count_of,
    grouped,
    is_or_are,
    it_or_them,
    left_out,
)

EMPTY = ("no_samples", "empty_file")  # codes of files without a sample


def find_missing(survey: Survey) -> Iterator[Finding]:
    """Labels of files that are not there."""
    missing = [item for item in survey.heard if item.code == "missing"]
    if missing:
        n_files = len({item.clip.path for item in missing})
        yield left_out(
            "missing",
            "error",
            f"{count_of(len(missing), 'label')} of {count_of(n_files, 'file')} that {is_or_are(n_files)} not there. "
            "Next step: correct the paths, or name the folder where they begin with --audio",
            missing,
        )


def find_unreadable(survey: Survey) -> Iterator[Finding]:
    """Files that cannot be decoded."""
    broken = [item for item in survey.heard if item.code not in ("", "missing", *EMPTY)]
    if broken:
        n_files = len({item.clip.path for item in broken})
        yield left_out(
            "unreadable",
            "error",
            f"{count_of(n_files, 'file')} cannot be read. Next step: convert {it_or_them(n_files)} again from the "
            f"original, or delete {it_or_them(n_files)}",
            broken,
            [item.problem for item in broken],
        )


def find_empty(survey: Survey) -> Iterator[Finding]:
    """Clips without a sample: empty files, labels of a point in time, labels after the end."""
    empty = [item for item in survey.heard if item.code in EMPTY or (item.piece and not item.piece.n_samples)]
    if empty:
        yield left_out(
            "empty",
            "error",
            f"{count_of(len(empty), 'clip')} without a single sample. Next step: record again, or give the label a "
            "length within its recording",
            empty,
            [_why_empty(item) for item in empty],
        )


def find_silent(survey: Survey) -> Iterator[Finding]:
    """Clips of a class in which nothing is heard."""
    silent = [item for item in survey.heard if item.is_silent and item.clip.labels]
    if silent:
        yield left_out(
            "silent",
            "error",
            f"{count_of(len(silent), 'clip')} with nothing above {SILENT_DBFS} dBFS. Next step: look at the recorder's "
            "level; if silence is meant, make it the background",
            silent,
        )


def find_contradictions(survey: Survey) -> Iterator[Finding]:
    """The same audio under different labels."""
    groups = [group for group in _same_audio(survey) if len({frozenset(item.clip.labels) for item in group}) > 1]
    items = [item for group in groups for item in group]
    if items:
        yield left_out(
            "contradiction",
            "error",
            f"{count_of(len(groups), 'sound')} under different labels. Next step: keep the right label; if all are "
            "right, write a CSV with them in one cell, with ; between them",
            items,
            [
                f"{_labels(item.clip)}, as {_place(next(other for other in group if other is not item).clip)}"
                for group in groups
                for item in group
            ],
        )


def find_leaked_copies(survey: Survey) -> Iterator[Finding]:
    """Learned clips of which there is a copy among the tested ones."""
    learned = []
    for group in _same_audio(survey):
        if {item.clip.split for item in group} >= {"train", "test"}:
            tested = next(item for item in group if item.clip.split == "test")
            learned += [(item, tested) for item in group if item.clip.split == "train"]
    if learned:
        yield left_out(
            "leak",
            "error",
            f"{count_of(len(learned), 'clip')} of train with the same audio in test. Only the tested ones are kept. "
            "Next step: delete one of each",
            [item for item, _ in learned],
            [f"as {_place(tested.clip)}" for _, tested in learned],
        )


def find_copies(survey: Survey) -> Iterator[Finding]:
    """The same audio several times under the same labels: the first is kept."""
    copies = [(item, group[0]) for group in _same_audio(survey) for item in group[1:]]
    if copies:
        yield left_out(
            "copy",
            "warning",
            f"{count_of(len(copies), 'clip')} with the same audio as another of the same class; one of each is kept. "
            "Next step: delete the others",
            [item for item, _ in copies],
            [f"as {_place(first.clip)}" for _, first in copies],
        )


def _same_audio(survey: Survey) -> list[list[HeardClip]]:
    """Groups of two or more clips whose samples are the same."""
    heard = [item for item in survey.heard if item.piece]
    groups = grouped(heard, lambda item: item.piece and item.piece.digest).values()
    return [group for group in groups if len(group) > 1]


def _why_empty(item: HeardClip) -> str:
    if item.file is None:
        return "the file is empty" if item.code == "empty_file" else "the file holds no samples"
    if item.clip.start_s == item.clip.end_s:
        return f"the label is a point at {item.clip.start_s:g} s"
    return f"it begins at {item.clip.start_s:g} s; the recording lasts {item.file.duration_s:.2f} s"


def _labels(clip: Clip) -> str:
    return " and ".join(map(repr, clip.labels)) or "no class"


def _place(clip: Clip) -> str:
    times = "" if clip.is_whole_file else f" at {clip.start_s:g} s"
    return f"{'/'.join(clip.path.parts[-2:])}{times}"


# In this order: clips that one rule leaves out are not seen by the next.
CLIP_RULES: tuple[Rule, ...] = (
    find_missing,
    find_unreadable,
    find_empty,
    find_silent,
    find_contradictions,
    find_leaked_copies,
    find_copies,
)
