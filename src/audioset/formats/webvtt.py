"""WebVTT: events as captions, which video players show while the recording plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from audioset.errors import one_line
from audioset.formats.output import OneRecordingWriter
from audioset.formats.recognising import has_lines
from audioset.formats.rows import EventRow

if TYPE_CHECKING:
    from audioset.labels.events import Event

TIME = r"\d{2,}:\d\d:\d\d\.\d{3}"
_has_captions = has_lines(rf"|{TIME} --> {TIME}|.+ \(\d\.\d\d\)")
ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})  # with these, no text holds "-->"


class WebVttWriter(OneRecordingWriter):
    """One cue for each event of one recording, in the order of time. One that failed has none.

    Source: W3C, "WebVTT: The Web Video Text Tracks Format".
    """

    HEADING = b"WEBVTT\n"
    ONE = "WebVTT file, which describes one"

    def write(self, row: EventRow) -> None:
        """Write one cue for each event."""
        if row.error_code is not None:
            return
        self._check_path(row.path)
        self._stream.write("".join(map(_cue, row.events)).encode("utf-8"))


def _cue(event: Event) -> str:
    start_ms = round(event.start_s * 1_000)
    end_ms = max(start_ms + 1, round(event.end_s * 1_000))  # a cue must last
    text = f"{one_line(event.label)} ({event.score:.2f})".translate(ENTITIES)
    return f"\n{_timestamp(start_ms)} --> {_timestamp(end_ms)}\n{text}\n"


def _timestamp(ms: int) -> str:
    """``01:02:03.004``."""
    seconds, ms = divmod(ms, 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}.{ms:03}"


def is_webvtt(file: BinaryIO) -> bool:
    """Whether a file has captions as they are written here: labels with scores."""
    return file.read(len(WebVttWriter.HEADING)) == WebVttWriter.HEADING and _has_captions(file)
