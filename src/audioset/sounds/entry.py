"""What a source says of one clip, before groups, splits and classes are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One clip as its source has it.

    Attributes
    ----------
    path : Path
    name : str
        The path as the source has it, below its folder and with ``/``: what patterns are matched with.
    labels : tuple of str
    start_s, end_s : float, float or None
        Seconds; None for the end of the file.
    split : str or None
        Where the place of the file says it.
    cells : mapping of str to str
        Further columns of a table.
    line : int or None
        Of the table, for messages.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    start_s: float = 0.0
    end_s: float | None = None
    split: str | None = None
    cells: Mapping[str, str] = field(default_factory=dict)
    line: int | None = None


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
