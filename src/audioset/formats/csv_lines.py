"""CSV: one line for each label or event, UTF-8, quoted as RFC 4180 says, and without formulas for spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Iterable

from audioset.errors import plain
from audioset.formats.output import Stream
from audioset.formats.recognising import begins_with
from audioset.formats.rows import CELLS, EVENT_CELLS, Cell, EventRow, Row, flat_cells, flat_event_cells
from audioset.text import harmless

# Not the csv module: before Python 3.13 it leaves a lone carriage return unquoted, and then cannot read it back.
NEEDS_QUOTES = re.compile('[",\r\n]')


class CsvWriter:
    """A header, then a line for each label; one line without label for a row that has none."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._stream.write(_lines(stream, [CELLS]))

    def write(self, row: Row) -> None:
        """Write the row's lines."""
        self._stream.write(_lines(self._stream, flat_cells(row)))

    def close(self) -> None:
        """Nothing is left to write."""


class EventCsvWriter:
    """A header, then a line for each event; one line without label for a recording that failed, or has none."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._stream.write(_lines(stream, [EVENT_CELLS]))

    def write(self, row: EventRow) -> None:
        """Write the row's lines."""
        self._stream.write(_lines(self._stream, flat_event_cells(row)))

    def close(self) -> None:
        """Nothing is left to write."""


def decimal(value: float) -> str:
    """A number to six decimals, without those that say nothing: ``0.48``."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _lines(stream: Stream, rows: Iterable[tuple[Cell, ...]]) -> bytes:
    """Exact for a file and a program; for a person, without what moves a cursor."""
    text = "".join(map(_line, rows))
    return (plain(text) if stream.isatty() else text).encode("utf-8")


def _line(cells: tuple[Cell, ...]) -> str:
    return ",".join(map(_quoted, cells)) + "\n"


def _quoted(cell: Cell) -> str:
    if cell is None:
        return ""
    text = harmless(cell) if isinstance(cell, str) else decimal(cell)
    return '"' + text.replace('"', '""') + '"' if NEEDS_QUOTES.search(text) else text


is_tag_csv = begins_with(_line(CELLS).encode())
is_event_csv = begins_with(_line(EVENT_CELLS).encode())
