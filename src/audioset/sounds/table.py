"""A table of labelled clips: CSV or TSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from audioset.errors import DataError
from audioset.folders import find_recordings
from audioset.labels.tables import Table, TableRow, read_table
from audioset.sounds.entry import Entry
from audioset.text import shown, split_labels


def read_clip_table(path: Path, audio: Path | None = None) -> list[Entry]:
    """Read a table with a clip on each line.

    Parameters
    ----------
    path : Path
        As ``label_tables.read_table`` reads it. Several labels have ``;`` between them. A clip without a label has
        none of the classes; an empty start is the beginning of the file, and an empty end its end.
    audio : Path, optional
        Where relative paths begin. Default: the folder of the table.

    Returns
    -------
    list of Entry

    Raises
    ------
    DataError
        If it cannot be read, or a line is not as described; the message has its number.
    """
    folder = path.parent if audio is None else audio
    table = read_table(path)
    if not table.rows:
        raise DataError(f"{shown(path)} has no rows; expected a path and a label on each line")
    try:
        files = find_recordings((row.path for row in table.rows), folder)
        names = {file: (file.relative_to(folder) if file.is_relative_to(folder) else file) for file in files.values()}
        entries = [_entry(row, table, files[row.path], names[files[row.path]].as_posix()) for row in table.rows]
    except DataError as error:
        raise DataError(f"{shown(path)}, {error}") from error
    return _join_lines(entries, is_multi_label=table.has_several_labels)


def _entry(row: TableRow, table: Table, file: Path, name: str) -> Entry:
    labels = split_labels(row.label or row.label_id, f"line {row.line}", table.separators)
    return Entry(file, name, labels, row.start_s or 0.0, row.end_s, None, row.cells, row.line)


def _join_lines(entries: Sequence[Entry], *, is_multi_label: bool) -> list[Entry]:
    """One clip for the lines of a piece that differ in nothing but the label.

    In a table of one label a clip they stay apart: there they contradict each other, and the check says so.
    """
    if not is_multi_label:
        return list(entries)
    joined: dict[tuple[Path, float, float | None], Entry] = {}
    for entry in entries:
        key = entry.path, entry.start_s, entry.end_s
        first = joined.get(key)
        joined[key] = replace(first, labels=tuple(dict.fromkeys(first.labels + entry.labels))) if first else entry
    return list(joined.values())
