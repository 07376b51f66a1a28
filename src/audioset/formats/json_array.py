"""JSON: one array of the records that JSON Lines has."""

from __future__ import annotations

from audioset.formats.jsonl import record_to_json, row_to_record
from audioset.formats.output import Stream
from audioset.formats.rows import Row


class JsonWriter:
    """One array, written as the rows come."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._before = b"[\n"

    def write(self, row: Row) -> None:
        """Write one element of the array."""
        self._stream.write(self._before + record_to_json(row_to_record(row)))
        self._before = b",\n"

    def close(self) -> None:
        """Close the array."""
        self._stream.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")
