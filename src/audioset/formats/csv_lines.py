"""CSV: one line for each label or event, UTF-8, quoted as RFC 4180 says, and without formulas for spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Iterable

from audioset.errors import plain
from audioset.formats.output import StreamWriter
from audioset.formats.recognising import begins_with
from audioset.formats.rows import CELLS, EVENT_CELLS, Cell, EventRow, Row, flat_cells, flat_event_cells
from audioset.text import harmless

# Not the csv module: before Python 3.13 it leaves a lone carriage return unquoted, and then cannot read it back.
NEEDS_QUOTES = re.compile('[",\r\n]')


def decimal(value: float) -> str:
    """A number to six decimals, without those that say nothing: ``0.48``."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _line(cells: tuple[Cell, ...]) -> str:
    return ",".join(map(_quoted, cells)) + "\n"


def _quoted(cell: Cell) -> str:
    if cell is None:
        return ""
    text = harmless(cell) if isinstance(cell, str) else decimal(cell)
    return '"' + text.replace('"', '""') + '"' if NEEDS_QUOTES.search(text) else text


class _LineWriter(StreamWriter):
    def _write(self, rows: Iterable[tuple[Cell, ...]]) -> None:
        """Exact for a file and a program; for a person, without what moves a cursor."""
        text = "".join(map(_line, rows))
        self._stream.write((plain(text) if self._stream.isatty() else text).encode("utf-8"))


class CsvWriter(_LineWriter):
    """A header, then a line for each label; one line without label for a row that has none."""

    HEADING = _line(CELLS).encode()

    def write(self, row: Row) -> None:
        """Write the row's lines."""
        self._write(flat_cells(row))


class EventCsvWriter(_LineWriter):
    """A header, then a line for each event; one line without label for a recording that failed, or has none."""

    HEADING = _line(EVENT_CELLS).encode()

    def write(self, row: EventRow) -> None:
        """Write the row's lines."""
        self._write(flat_event_cells(row))


is_tag_csv = begins_with(CsvWriter.HEADING)
is_event_csv = begins_with(EventCsvWriter.HEADING)
