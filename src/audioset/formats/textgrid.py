"""Praat TextGrid: one tier for each label, whose intervals fill the whole recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from audioset.errors import one_line
from audioset.formats.csv_lines import decimal
from audioset.formats.output import OneRecordingWriter, Stream
from audioset.formats.recognising import head_lines
from audioset.formats.rows import EventRow

if TYPE_CHECKING:
    from audioset.labels.events import Event

DECIMALS = 6
HEADING, TIERS = ('File type = "ooTextFile"', 'Object class = "TextGrid"', ""), "tiers? <exists>"
EMPTY_TIER = "events"  # of a recording without events: Praat opens no TextGrid without tiers
Interval = tuple[float, float, str]


class TextGridWriter(OneRecordingWriter):
    """The events of one recording, written when it is complete; nothing of one that failed.

    The tiers have the names of the labels, in the order of their first events. An interval with an event has the
    label and the score as its text; the others have none.

    Source: "TextGrid file formats" in the Praat manual.
    """

    ONE = "TextGrid file, which describes one"

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._tiers: dict[str, list[Event]] = {}  # by label id

    def write(self, row: EventRow) -> None:
        """Keep the row's events until the recording is complete."""
        if row.error_code is not None:
            self._tiers = {}
            return
        self._check_path(row.path)
        for event in row.events:
            self._tiers.setdefault(event.label_id, []).append(event)
        if row.is_last:
            self._stream.write(_textgrid(list(self._tiers.values()), row.duration_s or 0.0).encode("utf-8"))


def _textgrid(tiers: list[list[Event]], duration_s: float) -> str:
    duration_s = max([duration_s, *(event.end_s for events in tiers for event in events)])
    lines = [*HEADING, *_extent(duration_s)]
    lines += [TIERS, f"size = {max(1, len(tiers))}", "item []:"]
    for number, events in enumerate(tiers or [[]], start=1):
        lines += [f"    item [{number}]:", *(f"        {line}" for line in _tier_lines(events, duration_s))]
    return "\n".join(lines) + "\n"


def _tier_lines(events: list[Event], duration_s: float) -> Iterator[str]:
    intervals = list(_tile(events, duration_s))
    yield 'class = "IntervalTier"'
    yield f"name = {_quoted(events[0].label if events else EMPTY_TIER)}"
    yield from _extent(duration_s)
    yield f"intervals: size = {len(intervals)}"
    for number, (start_s, end_s, text) in enumerate(intervals, start=1):
        yield f"intervals [{number}]:"
        yield f"    xmin = {decimal(start_s)}"
        yield f"    xmax = {decimal(end_s)}"
        yield f"    text = {_quoted(text)}"


def _tile(events: list[Event], duration_s: float) -> Iterator[Interval]:
    """Intervals from 0 to the end without gap or overlap; an event yields what an earlier one has taken."""
    at_s = 0.0
    for event in events:
        start_s = max(at_s, round(event.start_s, DECIMALS))
        end_s = round(event.end_s, DECIMALS)
        if end_s <= start_s:
            continue
        if start_s > at_s:
            yield at_s, start_s, ""
        yield start_s, end_s, f"{event.label} ({event.score:.2f})"
        at_s = end_s
    if at_s < round(duration_s, DECIMALS) or not events:
        yield at_s, duration_s, ""


def _extent(duration_s: float) -> tuple[str, str]:
    return "xmin = 0", f"xmax = {decimal(duration_s)}"


def _quoted(text: str) -> str:
    return '"' + one_line(text).replace('"', '""') + '"'


def is_textgrid(file: BinaryIO) -> bool:
    """Whether a file is a TextGrid as it is written here: Praat, which ends lines with blanks, has not saved it."""
    lines = list(head_lines(file))
    return (*lines[:3],) == HEADING and lines[5] == TIERS
