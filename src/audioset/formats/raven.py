"""Raven selection table: tab-separated, and one time line through all recordings."""

from __future__ import annotations

from audioset.errors import one_line
from audioset.formats.output import Stream
from audioset.formats.recognising import begins_with
from audioset.formats.rows import Row, clipped_end_s

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


class RavenWriter:
    """One selection for each tag.

    Raven opens several recordings as one long one: ``Begin Time`` counts from the start of the first,
    ``File Offset`` from the start of each. Rows of a recording come one after the other; one that failed
    takes no time and has no selections.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._n_selections = 0
        self._path: str | None = None
        self._path_starts_s = 0.0
        self._path_lasts_s = 0.0
        self._stream.write(_line(COLUMNS))

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

    def close(self) -> None:
        """Nothing is left to write."""

    def _move_on(self, row: Row) -> None:
        """Keep account of where the row's recording starts; its parts know its duration only so far."""
        if row.path != self._path:
            self._path_starts_s += self._path_lasts_s
            self._path, self._path_lasts_s = row.path, 0.0
        self._path_lasts_s = max(self._path_lasts_s, row.duration_s or 0.0)


def _decimal(value: float) -> str:
    return f"{value:.6f}"


def _line(cells: tuple[str, ...]) -> bytes:
    return ("\t".join(map(one_line, cells)) + "\n").encode("utf-8")


is_raven = begins_with(_line(COLUMNS))
