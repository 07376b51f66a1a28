"""A table of labelled clips: CSV or TSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from audioset.errors import DataError
from audioset.sounds.entry import Entry
from audioset.sounds.text import LABEL_SEPARATOR, lines_of, read_text, shown, split_labels

COLUMNS = ("path", "label", "start_s", "end_s")  # of a table without a heading
LABEL_COLUMNS = ("label", "labels")
DELIMITERS = ("\t", ",", ";")  # that a heading may have
KNOWN = frozenset(("path", "start_s", "end_s", *LABEL_COLUMNS))

Cells = dict[str, str]


def read_table(path: Path, audio: Path | None = None) -> list[Entry]:
    """Read a table with a clip on each line.

    Parameters
    ----------
    path : Path
        CSV or TSV, with a heading that has ``path`` and ``label`` (or ``labels``) and may have ``start_s``, ``end_s``
        and others; without one, the columns are ``path``, ``label``, ``start_s``, ``end_s``. Several labels have
        ``;`` between them. A clip without a label has none of the classes.
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
    text = read_text(path)
    try:
        rows = list(_rows(text, _suffix_delimiter(path)))
        entries = [_entry(line, cells, folder) for line, cells in rows]
    except DataError as error:
        raise DataError(f"{shown(path)}, {error}") from error
    if not entries:
        raise DataError(f"{shown(path)} has no rows; expected a path and a label on each line")
    return _join_lines(entries, is_multi_label=_says_several(rows))


def _suffix_delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() in (".tsv", ".tab") else ","


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, Cells]]:
    """Number of each line that is not empty, and its cells by name of column."""
    heading, delimiter = _find_heading(text, delimiter)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: Sequence[str] = heading or COLUMNS
    is_first = True
    try:
        for cells in lines:
            if not any(map(str.strip, cells)):
                continue
            if not (is_first and heading):
                _check_row(cells, names, lines.line_num, has_heading=bool(heading))
                yield lines.line_num, dict(zip(names, cells, strict=False))
            is_first = False
    except csv.Error as error:
        raise DataError(
            f"line {lines.line_num}: {error}. Likely cause: a quotation mark without its partner"
        ) from error


def _find_heading(text: str, delimiter: str) -> tuple[list[str], str]:
    """Names of the columns, empty if the first line is no heading, and what separates the cells."""
    first = next((line for line in lines_of(text) if line.strip()), "")
    for candidate in dict.fromkeys((delimiter, *DELIMITERS)):
        try:
            cells = next(csv.reader([first], delimiter=candidate), [])
        except csv.Error:
            continue
        names = [cell.strip() for cell in cells]
        if "path" in map(str.casefold, names):
            return _check_heading([_known(name) for name in names]), candidate
    return [], "\t" if "\t" in first else delimiter


def _known(name: str) -> str:
    """A column's name; those with a meaning in lower case."""
    return name.casefold() if name.casefold() in KNOWN else name


def _check_heading(names: list[str]) -> list[str]:
    repeated = {name for name in names if name and names.count(name) > 1}
    if repeated:
        raise DataError(f"line 1: the heading has {shown(repeated.pop())} twice; expected each column once")
    if sum(name in names for name in LABEL_COLUMNS) != 1:
        raise DataError(f"line 1: the heading is {shown(', '.join(names))}; expected path and one of label and labels")
    return names


def _check_row(cells: Sequence[str], names: Sequence[str], line: int, *, has_heading: bool) -> None:
    """Refuse a line with too many cells: some of them would not be seen."""
    is_too_long = any(map(str.strip, cells[len(names) :]))
    if not is_too_long and len(cells) >= (1 if has_heading else 2):
        return
    raise DataError(
        f"line {line} has {len(cells)} cells; expected {shown(', '.join(names))}. Likely cause: another separator, or "
        "a comma in a name that is not in quotation marks"
    )


def _entry(line: int, cells: Cells, folder: Path) -> Entry:
    name = cells["path"]
    if not name.strip():
        raise DataError(f"line {line} has no path")
    path = folder / name
    if name != name.strip() and not path.exists():  # spaces after commas
        name = name.strip()
        path = folder / name
    label = next((cells[column] for column in LABEL_COLUMNS if column in cells), "")
    start_s, end_s = _times(cells.get("start_s", ""), cells.get("end_s", ""), line)
    further = {column: cell.strip() for column, cell in cells.items() if column not in KNOWN}
    return Entry(path, _below(path, folder), split_labels(label, f"line {line}"), start_s, end_s, None, further, line)


def _below(path: Path, folder: Path) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _times(start: str, end: str, line: int) -> tuple[float, float | None]:
    """Seconds; an empty start is 0, an empty end the end of the file."""
    try:
        start_s, end_s = float(start.strip() or 0), float(end.strip() or math.inf)
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < math.inf or not start_s <= end_s or (end.strip() and end_s == math.inf):
        raise DataError(
            f"line {line} has the times {shown(start)!r} and {shown(end)!r}; expected seconds such as 1.25, the end "
            "not before the start"
        )
    return start_s, None if end_s == math.inf else end_s


def _says_several(rows: Sequence[tuple[int, Cells]]) -> bool:
    """Whether the table is one of several labels a clip: its heading says so, or a cell has several."""
    return any("labels" in cells or LABEL_SEPARATOR in cells.get("label", "").strip("; ") for _, cells in rows)


def _join_lines(entries: list[Entry], *, is_multi_label: bool) -> list[Entry]:
    """One clip for the lines of a piece that differ in nothing but the label.

    In a table of one label a clip they stay apart: there they contradict each other, and the check says so.
    """
    if not is_multi_label:
        return entries
    joined: dict[tuple[Path, float, float | None], Entry] = {}
    for entry in entries:
        key = entry.path, entry.start_s, entry.end_s
        first = joined.get(key)
        joined[key] = replace(first, labels=tuple(dict.fromkeys(first.labels + entry.labels))) if first else entry
    return list(joined.values())
