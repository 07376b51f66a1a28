"""Tab-separated events, as DCASE's tasks and sed_eval read them, and as the strong labels of AudioSet are."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from audioset.errors import one_line
from audioset.formats.csv_lines import decimal
from audioset.formats.output import StreamWriter
from audioset.formats.recognising import begins_with
from audioset.formats.rows import EventRow

if TYPE_CHECKING:
    from audioset.labels.events import Event


def _times(event: Event) -> tuple[str, str]:
    return decimal(event.start_s), decimal(event.end_s)


def _line(cells: tuple[str, ...]) -> bytes:
    return ("\t".join(map(_cell, cells)) + "\n").encode("utf-8")


def _cell(text: str) -> str:
    """Text without tabs and line ends; in quotes if it has some, which readers would else take for quoting."""
    text = one_line(text)
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


class DcaseWriter(StreamWriter):
    """``filename``, ``onset``, ``offset`` and ``event_label``, the label's name.

    A recording without events has a line with its name alone: readers count it as evaluated. One that failed
    has none, so that it does not count as silent.
    """

    HEADING = _line(("filename", "onset", "offset", "event_label"))

    def write(self, row: EventRow) -> None:
        """Write one line for each event."""
        lines = [_line((row.path, *_times(event), event.label)) for event in row.events]
        if row.is_last and row.error_code is None and row.n_events == 0:
            lines.append(_line((row.path, "", "", "")))
        self._stream.write(b"".join(lines))


class StrongWriter(StreamWriter):
    """``segment_id``, ``start_time_seconds``, ``end_time_seconds`` and ``label``, the label's id.

    The segment's id is the name of the file without folder and ending: those of AudioSet's clips are the video's
    id, an underscore and the clip's start in milliseconds. The times are seconds from the start of the file.
    Recordings without events, or that failed, have no lines.

    Source: the published ``audioset_eval_strong.tsv``.
    """

    HEADING = _line(("segment_id", "start_time_seconds", "end_time_seconds", "label"))

    def write(self, row: EventRow) -> None:
        """Write one line for each event."""
        name = PurePath(row.path).stem
        self._stream.write(b"".join(_line((name, *_times(event), event.label_id)) for event in row.events))


is_dcase = begins_with(DcaseWriter.HEADING)
is_audioset_strong = begins_with(StrongWriter.HEADING)
