"""Parquet: the columns of CSV with their types, in row groups of bounded size. Readable once it is closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

from audioset.errors import MissingExtraError
from audioset.formats.output import Stream
from audioset.formats.recognising import Recogniser
from audioset.formats.rows import CELLS, EVENT_CELLS, EmbeddingRow, EventRow, Row, flat_cells, flat_event_cells

if TYPE_CHECKING:
    from audioset.arrays import ByteArray, FloatArray

LINES_PER_GROUP = 65_536
PATCHES_PER_GROUP = 8_192  # 32 MiB of 1024 float32
MISSING = {"float32": float("nan"), "uint8": 0}  # the embedding of a recording that failed
TAG_COLUMNS = (*CELLS, "duration_s")
EMBEDDING_COLUMNS = ("path", "start_s", "end_s", "embedding", "model", "error_code", "error")
TYPES = {
    "start_s": "float64",
    "end_s": "float64",
    "duration_s": "float64",
    "rank": "int32",
    "score": "float32",
    "mean": "float32",
}


class _LinesWriter:
    """Lines of typed cells, kept until there are enough for a row group."""

    def __init__(self, stream: Stream, names: tuple[str, ...]) -> None:
        self._groups = _RowGroups(stream)
        self._names = names
        self._lines: list[tuple[Any, ...]] = []

    def add(self, lines: Iterable[tuple[Any, ...]]) -> None:
        self._lines += lines
        if len(self._lines) >= LINES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._groups.close()

    def _flush(self) -> None:
        columns = zip(*self._lines, strict=True) if self._lines else ((),) * len(self._names)
        self._groups.write({name: _column(name, cells) for name, cells in zip(self._names, columns, strict=True)})
        self._lines = []


class ParquetWriter(_LinesWriter):
    """One line for each label; one without label for a row that has none."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, TAG_COLUMNS)

    def write(self, row: Row) -> None:
        """Keep the row's lines until there are enough for a row group."""
        self.add((*cells, row.duration_s) for cells in flat_cells(row))


class EventParquetWriter(_LinesWriter):
    """One line for each event; one without label for a recording that failed, or has none."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream, EVENT_CELLS)

    def write(self, row: EventRow) -> None:
        """Keep the row's lines until there are enough for a row group."""
        self.add(flat_event_cells(row))


class EmbeddingParquetWriter:
    """One line for each patch, and one for each recording that failed: its embedding is NaN, or 0 if quantised.

    The column ``embedding`` has lists of one size, of float32 or, if quantised, of uint8. NaN or 0 and not
    null: pyarrow before 26 cannot read a column of fixed-size lists where one is null.
    """

    def __init__(self, stream: Stream) -> None:
        self._groups = _RowGroups(stream)
        self._rows: list[EmbeddingRow] = []
        self._n_patches = 0
        self._size = 0
        self._dtype = "float32"

    def write(self, row: EmbeddingRow) -> None:
        """Keep the row until there are enough patches for a row group."""
        self._rows.append(row)
        self._n_patches += len(row.embeddings)
        self._size = max(self._size, row.embeddings.shape[1])
        if row.is_quantised:
            self._dtype = "uint8"
        if self._n_patches >= PATCHES_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._groups.close()

    def _flush(self) -> None:
        lines = [line for row in self._rows for line in _patch_lines(row)]
        names = ("path", "start_s", "end_s", "model", "error_code", "error")
        columns = zip(*lines, strict=True) if lines else ((),) * len(names)
        table = {name: _column(name, cells) for name, cells in zip(names, columns, strict=True)}
        blocks = [_patch_embeddings(row, self._size, self._dtype) for row in self._rows]
        embedding = _embedding_column(blocks, self._size, self._dtype)
        self._groups.write({name: table.get(name, embedding) for name in EMBEDDING_COLUMNS})
        self._rows, self._n_patches = [], 0


class _RowGroups:
    """A Parquet file on a stream, one row group for each write; the first one fixes the columns' types."""

    def __init__(self, stream: Stream) -> None:
        self._pyarrow = _pyarrow()
        self._stream = stream
        self._file: Any = None

    def write(self, columns: dict[str, Any]) -> None:
        table = self._pyarrow.table(columns)
        if self._file is None:
            parquet = self._pyarrow.parquet
            self._file = parquet.ParquetWriter(self._stream, table.schema, compression="zstd")
        if len(table):
            self._file.write_table(table)

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            self._file.is_open = False  # else it tries again when it is collected


def _patch_lines(row: EmbeddingRow) -> list[tuple[Any, ...]]:
    about = (row.model, row.error_code, row.error)
    if row.error_code is not None:
        return [(row.path, 0.0, 0.0, *about)]
    return [
        (row.path, start_s, end_s, *about)
        for start_s, end_s in zip(row.start_s.tolist(), row.end_s.tolist(), strict=True)
    ]


def _patch_embeddings(row: EmbeddingRow, size: int, dtype: str) -> FloatArray | ByteArray:
    import numpy as np

    return row.embeddings if row.error_code is None else np.full((1, size), MISSING[dtype], dtype)


def _embedding_column(blocks: list[FloatArray | ByteArray], size: int, dtype: str) -> Any:
    """Column of lists of ``size`` numbers; of empty lists where no recording gave an embedding."""
    import numpy as np

    pyarrow = _pyarrow()
    if size == 0:
        return pyarrow.array([[] for _ in blocks], pyarrow.list_(pyarrow.float32()))
    values = np.concatenate(blocks or [np.zeros((0, size), dtype)], dtype=dtype)
    return pyarrow.FixedSizeListArray.from_arrays(values.ravel(), size)


def _column(name: str, cells: Any) -> Any:
    return _pyarrow().array(cells, TYPES.get(name, "string"))


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet output", "pyarrow", "data") from error
    return pyarrow


def has_columns(*names: str) -> Recogniser:
    """A recogniser of Parquet files by their columns."""

    def is_ours(file: BinaryIO) -> bool:
        return tuple(_pyarrow().parquet.read_schema(file).names) == names

    return is_ours


is_tag_parquet = has_columns(*TAG_COLUMNS)
is_event_parquet = has_columns(*EVENT_CELLS)
is_embedding_parquet = has_columns(*EMBEDDING_COLUMNS)
