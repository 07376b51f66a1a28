"""What a source says of one clip, before groups, splits and classes are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One clip as its source has it."""

    path: Path
    name: str  # the path as the source has it, below its folder and with ``/``: what patterns are matched with
    labels: tuple[str, ...]
    start_s: float = 0.0  # seconds in the file
    end_s: float | None = None  # seconds; None is the end of the file
    split: str | None = None  # where the place of the file says it
    cells: Mapping[str, str] = field(default_factory=dict)  # further columns of a table
    line: int | None = None  # of the table, for messages


def join_labels(entries: Iterable[Entry]) -> list[Entry]:
    """One entry for all of one piece of a file, with the labels of each."""
    joined: dict[tuple[Path, float, float | None], Entry] = {}
    for entry in entries:
        key = entry.path, entry.start_s, entry.end_s
        first = joined.get(key)
        joined[key] = replace(first, labels=tuple(dict.fromkeys(first.labels + entry.labels))) if first else entry
    return list(joined.values())


def name_below(path: Path, folder: Path) -> str:
    """The name of a file as its source has it: below a folder, or whole where it lies elsewhere."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
