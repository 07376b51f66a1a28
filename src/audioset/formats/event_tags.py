"""Events in the formats that are written for tags: each event is a row with one label."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from audioset.formats.audacity import AudacityWriter
from audioset.formats.output import Stream
from audioset.formats.raven import RavenWriter
from audioset.formats.rows import EventRow, Row, Tag, Writer


class EventTagsWriter:
    """Passes events on to a writer of tags."""

    def __init__(self, stream: Stream, make: Callable[[Stream], Writer[Row]]) -> None:
        self._writer = make(stream)

    def write(self, row: EventRow) -> None:
        """Write a row for each event, and one without for the end of a recording: it says how long it was."""
        for tag_row in _tag_rows(row):
            self._writer.write(tag_row)

    def close(self) -> None:
        """Complete the file."""
        self._writer.close()


def audacity_events(stream: Stream) -> EventTagsWriter:
    """A writer of Audacity labels: one line for each event."""
    return EventTagsWriter(stream, AudacityWriter)


def raven_events(stream: Stream) -> EventTagsWriter:
    """A writer of Raven selections: one for each event."""
    return EventTagsWriter(stream, RavenWriter)


def _tag_rows(row: EventRow) -> Iterator[Row]:
    for event in row.events:
        tags = (Tag(event.label_id, event.label, event.score),)
        yield Row(row.path, event.start_s, event.end_s, tags, row.duration_s, row.model, high_hz=row.high_hz)
    if row.is_last:
        about = (row.duration_s, row.model, row.warnings, row.error_code, row.error)
        yield Row(row.path, 0.0, row.duration_s or 0.0, (), *about)
