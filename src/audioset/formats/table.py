"""What a person reads in a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from audioset.errors import one_line
from audioset.formats.output import Stream, StreamWriter
from audioset.formats.recognising import head_lines
from audioset.formats.rows import EventRow, Row, Tag, clipped_end_s

MAX_BLOCKS = 2  # with more rows than this, each gets one line
MAX_BAR = 40
SHADES = " ▏▎▍▌▋▊▉█"  # how the last cell of a bar is filled, in eighths
LENGTH_WIDTH = 8
LABEL_WIDTH = 40  # the longest of AudioSet's labels
STRETCH_WIDTH = 17  # 10:00.48 to 10:01.44

# The end of a line: how long, how sure, or why there is nothing.
LINE = re.compile(
    r".*(  \d+\.\d\d s|  [\d:.]+|[ –]\d[\d:.]*\d|no (label|score) reaches the threshold|  [a-z_]+: .+)", re.DOTALL
)

Span = tuple[str, str]  # text and its rich style


class _Printer(StreamWriter):
    """Prints styled lines."""

    def __init__(self, stream: Stream) -> None:
        from rich.console import Console

        super().__init__(stream)
        self._encoding = getattr(stream, "encoding", "utf-8")
        self._is_terminal = stream.isatty()
        self._console = Console(force_terminal=self._is_terminal)
        self._path: str | None = None

    def _print(self, *spans: Span) -> None:
        from rich.text import Text

        with self._console.capture() as printed:
            self._console.print(Text.assemble(*spans), soft_wrap=True)
        self._stream.write(printed.get().encode(self._encoding, "replace"))


class TableWriter(_Printer):
    """Bars for one or two rows, a line for each of many; colour and cropping only in a terminal.

    Nothing in a file's name or an error's message can move the cursor or change a colour.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._waiting: list[Row] | None = []

    def write(self, row: Row) -> None:
        """Print one row, once it is known whether it is one of many."""
        if self._waiting is None:
            self._print_line(row)
            return
        self._waiting.append(row)
        if len(self._waiting) > MAX_BLOCKS:
            rows, self._waiting = self._waiting, None
            for waiting in rows:
                self._print_line(waiting)

    def close(self) -> None:
        """Print the rows that turned out to be few."""
        for row in self._waiting or ():
            self._print_block(row)

    def _print_block(self, row: Row) -> None:
        """A heading, and a bar for each label."""
        if self._path is not None:
            self._print()
        self._path = row.path
        time = _length(row) if _is_whole(row) else _stretch(row)
        self._print((_name(row), "bold"), (f"  {time}".rstrip(), "dim"))
        if not row.tags:
            self._print(("  ", ""), _remark(row))
        label_width = min(max((len(tag.label) for tag in row.tags), default=0), self._console.width // 2)
        bar_width = max(1, min(MAX_BAR, self._console.width - label_width - len("    0.000  ")))
        for tag in row.tags:
            label = self._cell(one_line(tag.label), label_width)
            bar = f"{_bar(tag.score, bar_width):{bar_width}}"
            self._print((f"  {label}  ", ""), (bar, "cyan"), (f"  {tag.score:.3f}", "bold" if tag.score >= 0.5 else ""))

    def _print_line(self, row: Row) -> None:
        """A recording as one line, or a stretch of one as a line under the recording's name."""
        if _is_whole(row):
            left = f"{self._cell(_name(row), max(16, self._console.width // 3))}  {_length(row):>{LENGTH_WIDTH}}"
        else:
            left = f"  {_stretch(row):{STRETCH_WIDTH}}"
            if row.path != self._path:
                self._print((_name(row), "bold"))
        self._path = row.path
        room = self._console.width - len(left) if self._is_terminal else sys.maxsize
        self._print((left, ""), *(_tag_spans(row.tags, room) if row.tags else (("  ", ""), _remark(row))))

    def _cell(self, text: str, width: int) -> str:
        """Text of a given width in cells; a pipe gets all of it."""
        from rich.cells import cell_len, set_cell_size

        if cell_len(text) <= width:
            return set_cell_size(text, width)
        return set_cell_size(text, width - 1) + "…" if self._is_terminal else text


class EventTableWriter(_Printer):
    """One line for each event under its recording's name: onset, offset, label and highest score.

    Colour only in a terminal. Nothing in a file's name or an error's message can move the cursor or change a colour.
    """

    def write(self, row: EventRow) -> None:
        """Print the row's events; at the end of a recording without any, why it has none."""
        if row.path != self._path:
            self._print((one_line(Path(row.path).name or row.path), "bold"))
            self._path = row.path
        for event in row.events:
            stretch = f"{clock(event.start_s)}–{clock(event.end_s)}"
            self._print(
                (f"  {stretch:{STRETCH_WIDTH}}  ", "dim"),
                (f"{one_line(event.label):{LABEL_WIDTH}}  ", ""),
                (f"{event.score:.2f}", "bold" if event.score >= 0.5 else ""),
            )
        if row.error_code is not None:
            self._print(("  ", ""), (one_line(f"{row.error_code}: {row.error}"), "red"))
        elif row.is_last and row.n_events == 0:
            self._print(("  ", ""), ("no score reaches the threshold", "dim"))


def clock(seconds: float, decimals: int = 2) -> str:
    """``0:00.48``, ``12:34.00`` or ``1:02:03.00``."""
    minutes, rest = divmod(round(seconds, decimals), 60)
    hours, minutes = divmod(int(minutes), 60)
    rest_text = f"{rest:0{decimals + 3 if decimals else 2}.{decimals}f}"
    return f"{hours}:{minutes:02}:{rest_text}" if hours else f"{minutes}:{rest_text}"


def _is_whole(row: Row) -> bool:
    """Whether the row speaks of the whole recording: its time is then said by its duration."""
    return row.duration_s is None or (row.start_s <= 0 and row.end_s >= row.duration_s)


def _name(row: Row) -> str:
    return one_line(Path(row.path).name or row.path)


def _length(row: Row) -> str:
    if row.duration_s is None:
        return ""
    return f"{row.duration_s:.2f} s" if row.duration_s < 59.995 else clock(row.duration_s, 0)


def _stretch(row: Row) -> str:
    return f"{clock(row.start_s)}–{clock(clipped_end_s(row))}"


def _remark(row: Row) -> Span:
    """What to say in place of labels."""
    if row.error_code is None:
        return "no label reaches the threshold", "dim"
    return one_line(f"{row.error_code}: {row.error}"), "red"


def _tag_spans(tags: tuple[Tag, ...], room: int) -> Iterator[Span]:
    """Labels and scores, as many as there is room for, but the first in any case."""
    from rich.cells import cell_len

    for rank, tag in enumerate(tags):
        label, score = f"  {one_line(tag.label)}", f" {tag.score:.2f}"
        room -= cell_len(label) + len(score)
        if rank > 0 and room < 0:
            return
        yield label, ""
        yield score, "dim"


def _bar(score: float, width: int) -> str:
    """A bar of block characters, exact to an eighth of a cell."""
    full, eighths = divmod(round(min(1.0, max(0.0, score)) * width * 8), 8)
    return SHADES[8] * full + SHADES[eighths] * (eighths > 0)


def is_table(file: BinaryIO) -> bool:
    """Whether a file has the lines of a table of labels or of events; names of recordings have indented lines below."""
    lines = [*head_lines(file), ""]
    return all(
        not line or LINE.fullmatch(line) or (line[0] != " " and below.startswith("  "))
        for line, below in pairwise(lines)
    )
