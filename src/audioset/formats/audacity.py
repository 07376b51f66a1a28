"""Audacity label track: start, end and label, with the score in the label's text."""

from __future__ import annotations

from audioset.errors import UsageError, one_line
from audioset.formats.output import Stream
from audioset.formats.recognising import has_lines
from audioset.formats.rows import Row, clipped_end_s


class AudacityWriter:
    """Labels of one recording. A recording that failed has none: it is skipped.

    Source: "Importing and Exporting Labels" in the Audacity manual: start, tab, end, tab, label. A fourth
    column would not be read.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._path: str | None = None

    def write(self, row: Row) -> None:
        """Write one line for each tag."""
        if row.error_code is not None:
            return
        self._check_path(row.path)
        times = f"{row.start_s:.6f}\t{clipped_end_s(row):.6f}"
        lines = [f"{times}\t{one_line(tag.label)} ({tag.score:.2f})\n" for tag in row.tags]
        self._stream.write("".join(lines).encode("utf-8"))

    def close(self) -> None:
        """Nothing is left to write."""

    def _check_path(self, path: str) -> None:
        if self._path not in (None, path):
            raise UsageError(
                f"a second recording, {one_line(path)}, in one Audacity label file: its labels belong to one "
                "recording. Next step: give a folder as --output, which gets one label file for each recording, "
                "or choose another format, such as raven or csv"
            )
        self._path = path


is_audacity = has_lines(r"\d+\.\d{6}\t\d+\.\d{6}\t.* \(\d\.\d\d\)")
