"""Tables of labelled recordings, as people, spreadsheets and programs write them: one reader, for every command.

>>> table = read_table("esc50.csv")  # doctest: +SKIP
>>> table.rows[0].path, table.rows[0].label  # doctest: +SKIP
('1-100032-A-0.wav', 'dog')
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from audioset.errors import DataError
from audioset.folders import is_audio_name
from audioset.text import lines_of, read_text, shown, without_apostrophe

# Meaning -> names of the column, best first. Case, what stands between words and a unit of seconds do not matter.
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file path", "filepath", "filename", "file name", "slice file name", "fname", "file", "begin path"),
        *("begin file", "in file", "audio path", "audio file", "audio filename", "wav file", "sound file"),
        *("sound files", "notated path", "segment id", "wav path", "clip name", "recording", "audio", "sound", "wav"),
    ),
    "label": (
        *("label", "labels", "event label", "event labels", "scene label", "category", "class", "class name"),
        *("class label", "classname", "label name", "annotation", "species", "common name", "primary label"),
        *("scientific name", "species code", "ebird code", "tag", "tags", "call type", "manual id"),
        *("auto id", "target"),
    ),
    "label_id": ("label id", "label ids", "mid", "mids"),
    "start": ("start", "onset", "begin time", "start time", "begin", "t start", "time start"),
    "end": ("end", "offset", "end time", "stop", "stop time", "t end", "time end"),  # DCASE's offset is the end
    "duration": ("duration", "delta time"),
    "file_offset": ("file offset",),  # Raven's: where a selection begins in its own recording
}
MEANINGS = {name: meaning for meaning, names in COLUMNS.items() for name in names}
SECONDS = re.compile(r"(?<=[a-z])\W*\b(?:s|secs?|seconds?)\W*$")
BETWEEN_WORDS = re.compile(r"[\s_.\-]+|(?<=[a-z]{2})(?=[A-Z])")
# Words of columns that have times, known or not.
TIME_WORDS = {"start": frozenset(("start", "onset", "begin")), "end": frozenset(("end", "offset", "stop"))}
# Names of columns whose cells hold several labels, with commas between them. Elsewhere a comma is part of a name.
COMMAS = frozenset(("event labels", "mids"))
COMMAS_BESIDE = "fname"  # Freesound's tables: fname,labels,mids
SEVERAL = frozenset(("labels", "event labels", "tags"))
SLICES = "slice file name"  # UrbanSound8K: the file is the slice, and its times are those in the original
WITHOUT_HEADING = ("path", "label", "start", "end")
DCASE_WITHOUT_HEADING = ("path", "start", "end", "label")
SHOWN_NAMES = {"start": "start_s", "end": "end_s"}
N_KNOWN_SHOWN = 6
JSON = ("{", "[{", "[\n")
DELIMITERS = (",", "\t", ";")
DELIMITER_LINE = re.compile(r'\ufeff?"?sep=(.)"?\s*')  # that Excel takes as an order
RAVEN = "begin time"  # its program writes no quotation marks around cells, and those that are there are text


@dataclass(frozen=True)
class TableRow:
    """One line of a table."""

    line: int  # from 1, for messages
    path: str  # as it stands there; empty where the table has no such column
    label: str  # the cell; empty where nothing was heard
    label_id: str  # the cell with ids, of tables that have one beside the names
    start_s: float | None  # seconds, as ``end_s``; None where the cell is empty or the table has no such column
    end_s: float | None
    cells: Mapping[str, str]  # of the columns that have none of these meanings, by their headings


@dataclass(frozen=True)
class Heading:
    """The columns of a table."""

    names: tuple[str, ...]  # as they stand there; those of ``WITHOUT_HEADING`` where none do
    places: Mapping[str, int]  # meaning to column
    delimiter: str  # what separates the cells
    is_there: bool = True  # whether the table has a heading

    def plain(self, meaning: str) -> str:
        """The name of a column as ``COLUMNS`` has it; empty if there is no such column."""
        return plain_name(self.names[self.places[meaning]]) if meaning in self.places else ""

    @property
    def is_timed(self) -> bool:
        """Whether labels have a start, and an end or a duration."""
        return "start" in self.places and ("end" in self.places or "duration" in self.places)


@dataclass(frozen=True)
class Table:
    """A table of labelled recordings."""

    heading: Heading
    rows: tuple[TableRow, ...]

    @property
    def separators(self) -> str:
        """What stands between several labels in one cell."""
        label = self.heading.plain("label")
        has_commas = label in COMMAS or (label in SEVERAL and self.heading.plain("path") == COMMAS_BESIDE)
        return ";," if has_commas else ";"

    @property
    def has_several_labels(self) -> bool:
        """Whether the table is one of several labels a clip: its heading says so, or a cell has several."""
        if self.heading.plain("label") in SEVERAL:
            return True
        return any(mark in row.label.strip("; ") for row in self.rows for mark in self.separators)


def read_table(path: Path, *, needs_path: bool = True) -> Table:
    """Read a table of labelled recordings; it may have no rows.

    It is UTF-8, or has the byte order mark of another Unicode; cells stand between tabs, commas or semicolons, whatever
    the name of the file says; numbers may have a decimal comma where it separates no cells. With a heading, the columns
    may have any order and any of the names in ``COLUMNS``: those of DCASE, ESC-50, UrbanSound8K, FSD50K, AudioSet's
    strong labels, BirdNET, Raven and Kaleidoscope, and the package's own. Without one they are path, label, start, end;
    or, as DCASE has them, path, start, end, label. A selection that Raven shows in several views is there once.

    ``DataError`` if it cannot be read, its heading is not understood, or has no paths where it ``needs_path``, or a
    line is not as described; the message has its number.
    """
    text = read_text(path)
    if text.lstrip().startswith(JSON):
        raise DataError(f"{shown(path)} is JSON; expected a table. Next step: save it as CSV")
    try:
        heading = find_heading(text, path.suffix)
        _check_heading(heading, needs_path=needs_path)
        rows = [_row(line, cells, heading) for line, cells in _lines(text, heading)]
        _check_times(heading, rows)
    except DataError as error:
        raise DataError(f"{shown(path)}, {error}") from error
    return Table(heading, tuple(rows))


def find_heading(text: str, suffix: str) -> Heading:
    """The columns of a table, and what separates them: tabs in ``.tsv`` and ``.tab``, if nothing else is seen."""
    lines = [line for line in lines_of(text) if line.strip()][:3]
    if lines and (order := DELIMITER_LINE.fullmatch(lines[0])):
        return _heading_of(lines[1:], order[1])
    delimiters = ("\t", *DELIMITERS) if suffix.lower() in (".tsv", ".tab") else DELIMITERS
    found = [_heading_of(lines, delimiter) for delimiter in dict.fromkeys(delimiters)]
    return max(found, key=lambda heading: _fitness(heading, lines))


def plain_name(name: str) -> str:
    """A column's name as words in lower case, without unit: ``Begin_Time (s)`` and ``beginTime`` as ``begin time``."""
    words = BETWEEN_WORDS.sub(" ", name).casefold().strip()
    return SECONDS.sub("", words).strip() or words


def _heading_of(lines: Sequence[str], delimiter: str) -> Heading:
    """The columns if ``delimiter`` separates them."""
    first, second = (_split(line, delimiter) for line in (*lines, "", "")[:2])
    places = _places(first)
    if not any(map(is_audio_name, first)) and (places or any(map(is_audio_name, second))):
        return Heading(tuple(first), places, delimiter)
    is_dcase = len(first) == len(DCASE_WITHOUT_HEADING) and [*map(_is_number, first)] == [False, True, True, False]
    names = DCASE_WITHOUT_HEADING if is_dcase else WITHOUT_HEADING
    shown_names = tuple(SHOWN_NAMES.get(name, name) for name in names)
    return Heading(shown_names, {name: place for place, name in enumerate(names)}, delimiter, is_there=False)


def _fitness(heading: Heading, lines: Sequence[str]) -> tuple[int, bool, bool]:
    """How likely it is that the cells are separated so: known columns, a path that is one, several cells."""
    first = _split(lines[0], heading.delimiter) if lines else []
    n_known = len(heading.places) if heading.is_there else 0
    return n_known, bool(first) and is_audio_name(first[0]), len(first) > 1


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _places(names: Sequence[str]) -> dict[str, int]:
    """The column of each meaning, by the best of its names."""
    by_name: dict[str, int] = {}
    for place, name in enumerate(names):
        by_name.setdefault(plain_name(name), place)
    found = {
        meaning: next(by_name[name] for name in known if name in by_name)
        for meaning, known in COLUMNS.items()
        if not by_name.keys().isdisjoint(known)
    }
    if "start" not in found and "duration" in found and "offset" in by_name:
        found |= {"start": found.pop("end")}  # Kaleidoscope's offset is the start
    if SLICES in by_name:
        found = {meaning: place for meaning, place in found.items() if meaning in ("path", "label", "label_id")}
    return found


def _check_heading(heading: Heading, *, needs_path: bool) -> None:
    if not heading.is_there:
        return
    columns = shown(", ".join(heading.names))
    repeated = {name for name in heading.names if name and heading.names.count(name) > 1}
    if repeated:
        raise DataError(f"line 1: the heading has {shown(repeated.pop())} twice; expected each column once")
    plain = {plain_name(name) for name in heading.names}
    if {"label", "labels"} <= plain:
        raise DataError("line 1: the heading has label and labels; expected path and one of label and labels")
    for meaning in ("path", "label") if needs_path else ("label",):
        if meaning not in heading.places and not (meaning == "label" and "label_id" in heading.places):
            known = ", ".join(name.replace(" ", "_") for name in COLUMNS[meaning][:N_KNOWN_SHOWN])
            raise DataError(
                f"line 1: no column {meaning}; the columns are {columns}. Next step: name that column {meaning}; "
                f"others that are known are {known}, …"
            )


def _check_times(heading: Heading, rows: Sequence[TableRow]) -> None:
    """Refuse numbers that seem to be times and are not understood: without them, a label would be of the recording."""
    if not heading.is_there or SLICES in map(plain_name, heading.names):
        return
    missing = {"start", "end"} - heading.places.keys() - ({"end"} if "duration" in heading.places else set())
    for name in heading.names:
        words = set(plain_name(name).split())
        is_time = any(words & TIME_WORDS[meaning] for meaning in missing) and plain_name(name) not in MEANINGS
        if is_time and any(_is_number(row.cells.get(name, "")) for row in rows):
            raise DataError(
                f"line 1: the times {shown(name)} are not understood; expected start_s and end_s, in seconds. Next "
                "step: name those columns so, and convert what is in other units"
            )


def _lines(text: str, heading: Heading) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each row."""
    is_ravens = heading.plain("start") == RAVEN and heading.delimiter == "\t"
    lines = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=heading.delimiter,
        quoting=csv.QUOTE_NONE if is_ravens else csv.QUOTE_MINIMAL,
        strict=True,
    )
    is_heading = heading.is_there
    seen: set[tuple[str, ...]] = set()
    view = next((place for place, name in enumerate(heading.names) if plain_name(name) == "view"), None)
    try:
        for cells in lines:
            if not any(map(str.strip, cells)) or (lines.line_num == 1 and _is_order(cells, heading.delimiter)):
                continue
            if is_heading:
                is_heading = False
                continue
            _check_row(cells, heading, lines.line_num, is_first=not seen)
            shape = tuple(cell for place, cell in enumerate(cells) if place != view)
            if view is None or shape not in seen:
                yield lines.line_num, cells
            seen.add(shape)
    except csv.Error as error:
        raise DataError(
            f"line {lines.line_num}: {error}. Likely cause: a quotation mark without its partner"
        ) from error


def _is_order(cells: Sequence[str], delimiter: str) -> bool:
    return DELIMITER_LINE.fullmatch(delimiter.join(cells)) is not None


def _check_row(cells: Sequence[str], heading: Heading, line: int, *, is_first: bool) -> None:
    """Refuse a line with too many cells, some of which would not be seen, and a list of names without labels."""
    is_too_long = any(map(str.strip, cells[len(heading.names) :]))
    if not is_too_long and (heading.is_there or not is_first or len(cells) > 1):
        return
    raise DataError(
        f"line {line} has {len(cells)} cells; expected {shown(', '.join(heading.names))}. Likely cause: another "
        "separator, or a comma in a name that is not in quotation marks"
    )


def _row(line: int, cells: Sequence[str], heading: Heading) -> TableRow:
    def cell(meaning: str) -> str:
        place = heading.places.get(meaning, len(cells))
        return without_apostrophe(cells[place]) if place < len(cells) else ""

    used = {heading.places[meaning] for meaning in ("path", "label", "start", "end") if meaning in heading.places}
    path = cell("path")
    if "path" in heading.places and not path.strip():
        raise DataError(f"line {line} has no path")
    start_s, end_s = _times(cell, line, has_decimal_commas=heading.delimiter != ",")
    further = {
        name: without_apostrophe(text).strip()
        for place, (name, text) in enumerate(zip(heading.names, cells, strict=False))
        if name and place not in used
    }
    return TableRow(line, path, cell("label"), cell("label_id"), start_s, end_s, further)


def _times(cell: Callable[[str], str], line: int, *, has_decimal_commas: bool) -> tuple[float | None, float | None]:
    """Start and end in the recording, in seconds; None where the cell is empty."""
    texts = {meaning: cell(meaning).strip() for meaning in ("start", "end", "duration", "file_offset")}
    start_s, end_s, duration_s, offset_s = (
        _seconds(text, has_decimal_commas=has_decimal_commas) for text in texts.values()
    )
    if end_s is None and duration_s is not None and start_s is not None:
        end_s = start_s + duration_s
    if offset_s is not None and start_s is not None and end_s is not None:
        start_s, end_s = offset_s, offset_s + (end_s - start_s)
    low_s = 0.0 if start_s is None else start_s
    high_s = low_s if end_s is None else end_s
    if not 0 <= low_s <= high_s < math.inf:
        raise DataError(
            f"line {line} has the times '{shown(texts['start'])}' and '{shown(texts['end'])}'; expected seconds such "
            "as 1.25, the end not before the start"
        )
    return start_s, end_s


def _seconds(text: str, *, has_decimal_commas: bool) -> float | None:
    """NaN for what is no number."""
    if not text:
        return None
    try:
        return float(text.replace(",", ".") if has_decimal_commas else text)
    except ValueError:
        return math.nan


def _is_number(text: str) -> bool:
    value = _seconds(text, has_decimal_commas=True)
    return value is not None and not math.isnan(value)
