"""JSON Lines, one record a line, for programs that read while this one writes; and JSON, one array of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from audioset.formats.output import StreamWriter
from audioset.formats.recognising import has_records
from audioset.formats.rows import EVENT_CELLS, EmbeddingRow, EventRow, Row, flat_event_cells

if TYPE_CHECKING:
    from audioset.arrays import FloatArray

DECIMALS = 6
FLOAT32_DIGITS = 9  # significant; enough to read the same float32 back


class JsonlWriter(StreamWriter):
    """One line for each row."""

    def write(self, row: Row) -> None:
        """Write one record."""
        self._stream.write(record_to_json(row_to_record(row)) + b"\n")


class JsonWriter(StreamWriter):
    """One array, written as the rows come."""

    _before = b"[\n"

    def write(self, row: Row) -> None:
        """Write one element of the array."""
        self._stream.write(self._before + record_to_json(row_to_record(row)))
        self._before = b",\n"

    def close(self) -> None:
        """Close the array."""
        self._stream.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


class EmbeddingJsonlWriter(StreamWriter):
    """One line for each patch, with integers if it is quantised; and one for each recording that failed."""

    def write(self, row: EmbeddingRow) -> None:
        """Write one record for each patch."""
        if row.error_code is not None:
            self._write_record(row, 0.0, 0.0, None)
            return
        for start_s, end_s, values in zip(row.start_s, row.end_s, row.embeddings, strict=True):
            numbers = values.tolist() if row.is_quantised else _short_floats(values)
            self._write_record(row, float(start_s), float(end_s), numbers)

    def _write_record(self, row: EmbeddingRow, start_s: float, end_s: float, values: list[float] | None) -> None:
        record = _record(row, start_s, end_s, {"embedding": values})
        self._stream.write(record_to_json(record) + b"\n")


class EventJsonlWriter(StreamWriter):
    """One line for each event, and one without label for each recording that failed, or has none."""

    def write(self, row: EventRow) -> None:
        """Write one record for each event."""
        self._stream.write(b"".join(record_to_json(record) + b"\n" for record in _event_records(row)))


def row_to_record(row: Row) -> dict[str, Any]:
    """A row as JSON's own types."""
    tags = [
        {"label_id": tag.label_id, "label": tag.label, "score": round(float(tag.score), DECIMALS)} for tag in row.tags
    ]
    return _record(row, row.start_s, row.end_s, {"tags": tags})


def record_to_json(record: dict[str, Any]) -> bytes:
    """One line of plain ASCII. NaN and infinities, which are not JSON, are refused."""
    return json.dumps(record, allow_nan=False).encode("ascii")


def _event_records(row: EventRow) -> Iterator[dict[str, Any]]:
    for cells in flat_event_cells(row):
        rounded = (round(cell, DECIMALS) if isinstance(cell, float) else cell for cell in cells)
        record = dict(zip(EVENT_CELLS, rounded, strict=True))
        yield {**{name: record[name] for name in EVENT_CELLS[:-2]}, "error": _error(row)}


def _error(row: Row | EventRow | EmbeddingRow) -> dict[str, str | None] | None:
    return None if row.error_code is None else {"code": row.error_code, "message": row.error}


def _record(row: Row | EmbeddingRow, start_s: float, end_s: float, contents: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": row.path,
        "start_s": round(float(start_s), DECIMALS),
        "end_s": round(float(end_s), DECIMALS),
        "duration_s": None if row.duration_s is None else round(float(row.duration_s), DECIMALS),
        "model": row.model,
        **contents,
        "warnings": list(row.warnings),
        "error": _error(row),
    }


def _short_floats(values: FloatArray) -> list[float]:
    """float32 values as the shortest floats that read back the same; plain conversion writes twice the digits."""
    import numpy as np

    exact = values.astype(np.float64)
    scale = 10.0 ** (FLOAT32_DIGITS - 1 - np.floor(np.log10(np.maximum(np.abs(exact), 1e-30))))
    short: list[float] = (np.round(exact * scale) / scale).tolist()
    return short


def _keys(contents: str) -> tuple[str, ...]:
    return ("path", "start_s", "end_s", "duration_s", "model", contents, "warnings", "error")


is_tag_json = has_records(*_keys("tags"))  # lines, or an array of them
is_embedding_jsonl = has_records(*_keys("embedding"))
is_event_jsonl = has_records(*EVENT_CELLS[:-2], "error")
