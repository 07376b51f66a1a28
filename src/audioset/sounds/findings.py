"""What is found in labelled sounds, and the words that findings have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from audioset.sounds.collection import Clip
from audioset.sounds.measures import FileMeasures, PieceMeasures

SEVERITIES = ("error", "warning", "note")

N_NAMED = 5  # names in a message
SILENT_DBFS = -60
SILENT_PEAK = 10 ** (SILENT_DBFS / 20)


@dataclass(frozen=True)
class Finding:
    """One thing that was found. Its message has the next step, and names no files: these are the clips.

    An ``error`` spoils what is learned unless the clips are left out or the data changed; ``warning`` and ``note`` do
    not.
    """

    kind: str  # stable identifier, such as ``silent``
    severity: str
    message: str
    clips: tuple[Clip, ...] = ()  # those concerned; empty if it is all of them
    details: tuple[str, ...] = ()  # for each of the clips, what else is to be said; or empty
    is_left_out: bool = False  # whether the clips are not used

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON knows it."""
        clips = [clip_record(clip) for clip in self.clips]
        for record, detail in zip(clips, self.details, strict=False):
            record["detail"] = detail
        return {
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "is_left_out": self.is_left_out,
            "clips": clips,
        }


@dataclass(frozen=True)
class HeardClip:
    """A clip, and what was found in its file."""

    clip: Clip
    file: FileMeasures | None = None  # None where it cannot be read
    piece: PieceMeasures | None = None  # of the clip
    code: str = ""  # why it cannot be read: a code of ``AudioError``, or ``missing``
    problem: str = ""  # the message

    @property
    def duration_s(self) -> float:
        """Seconds of the clip that were decoded."""
        return self.piece.n_samples / self.file.sample_rate if self.piece and self.file else 0.0

    @property
    def is_silent(self) -> bool:
        """Whether nothing reaches -60 dBFS."""
        return self.piece is not None and self.piece.peak < SILENT_PEAK


@dataclass(frozen=True)
class Survey:
    """Clips that findings are about, and the classes that they should have."""

    heard: Sequence[HeardClip]
    classes: Sequence[str]

    def of(self, label: str) -> Sequence[HeardClip]:
        """Clips of a class."""
        return self._by_label.get(label, ())

    @cached_property
    def _by_label(self) -> dict[str, list[HeardClip]]:
        by_label = defaultdict(list)
        for item in self.heard:
            for label in item.clip.labels:
                by_label[label].append(item)
        return by_label


Rule = Callable[[Survey], Iterator[Finding]]


def clip_record(clip: Clip) -> dict[str, Any]:
    """A clip as JSON knows it."""
    return {
        "path": str(clip.path),
        "labels": list(clip.labels),
        "start_s": clip.start_s,
        "end_s": clip.end_s,
        "group": clip.group,
        "split": clip.split,
    }


def left_out(
    kind: str, severity: str, message: str, items: Iterable[HeardClip], details: Iterable[str] = ()
) -> Finding:
    """A finding whose clips are not used."""
    return Finding(kind, severity, message, tuple(item.clip for item in items), tuple(details), is_left_out=True)


def concerning(
    kind: str, severity: str, message: str, items: Iterable[HeardClip], details: Iterable[str] = ()
) -> Finding:
    """A finding whose clips are used all the same."""
    return Finding(kind, severity, message, tuple(item.clip for item in items), tuple(details))


def grouped(items: Iterable[HeardClip], key: Callable[[HeardClip], Hashable]) -> dict[Hashable, list[HeardClip]]:
    """Clips by what a function says of them, in their order."""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def names_of(names: Sequence[str]) -> str:
    """Some of the names, and how many there are beside."""
    more = f" and {len(names) - N_NAMED:,} more" if len(names) > N_NAMED else ""
    return ", ".join(map(repr, names[:N_NAMED])) + more


def count_of(number: int, noun: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def is_or_are(number: int) -> str:
    """The verb for so many."""
    return "is" if number == 1 else "are"


def it_or_them(number: int) -> str:
    """The pronoun for so many."""
    return "it" if number == 1 else "them"
