"""Labels for editors of sound: Audacity's label tracks, and Raven's selection tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from audioset.errors import one_line
from audioset.formats.output import OneRecordingWriter, Stream, StreamWriter
from audioset.formats.recognising import begins_with, has_lines
from audioset.formats.rows import EventRow, Row, Tag, Writer, clipped_end_s

COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Label",
    "Label ID",
    "Confidence",
    "Model",
)


def _decimal(value: float) -> str:
    return f"{value:.6f}"


def _line(cells: tuple[str, ...]) -> bytes:
    return ("\t".join(map(one_line, cells)) + "\n").encode("utf-8")


class AudacityWriter(OneRecordingWriter):
    """Labels of one recording. A recording that failed has none: it is skipped.

    Source: "Importing and Exporting Labels" in the Audacity manual: start, tab, end, tab, label. A fourth
    column would not be read.
    """

    ONE, FILE, OTHERS = "Audacity label file: its labels belong to one", "label file", "raven or csv"

    def write(self, row: Row) -> None:
        """Write one line for each tag."""
        if row.error_code is not None:
            return
        self._check_path(row.path)
        times = f"{row.start_s:.6f}\t{clipped_end_s(row):.6f}"
        lines = [f"{times}\t{one_line(tag.label)} ({tag.score:.2f})\n" for tag in row.tags]
        self._stream.write("".join(lines).encode("utf-8"))


class RavenWriter(StreamWriter):
    """One selection for each tag.

    Raven opens several recordings as one long one: ``Begin Time`` counts from the start of the first,
    ``File Offset`` from the start of each. Rows of a recording come one after the other; one that failed
    takes no time and has no selections.
    """

    HEADING = _line(COLUMNS)

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._n_selections = 0
        self._path: str | None = None
        self._path_starts_s = 0.0
        self._path_lasts_s = 0.0

    def write(self, row: Row) -> None:
        """Write one line for each tag."""
        if row.error_code is not None:
            return
        self._move_on(row)
        times = self._path_starts_s + row.start_s, self._path_starts_s + clipped_end_s(row)
        where = (*map(_decimal, times), _decimal(0.0), _decimal(row.high_hz), row.path, _decimal(row.start_s))
        lines = b""
        for tag in row.tags:
            self._n_selections += 1
            what = (tag.label, tag.label_id, _decimal(tag.score), row.model)
            lines += _line((str(self._n_selections), "Spectrogram 1", "1", *where, *what))
        self._stream.write(lines)

    def _move_on(self, row: Row) -> None:
        """Keep account of where the row's recording starts; its parts know its duration only so far."""
        if row.path != self._path:
            self._path_starts_s += self._path_lasts_s
            self._path, self._path_lasts_s = row.path, 0.0
        self._path_lasts_s = max(self._path_lasts_s, row.duration_s or 0.0)


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


is_audacity = has_lines(r"\d+\.\d{6}\t\d+\.\d{6}\t.* \(\d\.\d\d\)")
is_raven = begins_with(RavenWriter.HEADING)
