"""Files of embeddings: Parquet, one line for each moment, whole recordings only.

The columns are ``path``, ``start_s``, ``end_s``, ``embedding`` (a list of float16 for each line, of length 1) and
``norm``, the length that the embedding had. The file's metadata name its recordings, so that a later run knows which
files have changed, and those without a moment too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioset.errors import DataError, MissingExtraError
from audioset.files import output_file

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
HalfArray = np.ndarray[Any, np.dtype[np.float16]]
SecondsArray = np.ndarray[Any, np.dtype[np.float64]]

RECORDINGS_KEY = b"audioset.recordings"
COLUMNS = ("path", "start_s", "end_s", "embedding", "norm")
ROWS_PER_GROUP = 8_192
NEXT_STEP = "Next step: delete the index folder, and index the recordings again"


@dataclass(frozen=True)
class Recording:
    """One file as it was when it was indexed.

    Attributes
    ----------
    path : str
        Absolute.
    size : int
        Bytes.
    modified_ns : int
        Nanoseconds since 1970.
    n_moments : int
    """

    path: str
    size: int
    modified_ns: int
    n_moments: int = 0


@dataclass
class Shard:
    """Recordings and their moments: what one file holds.

    Attributes
    ----------
    recordings : list of Recording
    start_s, end_s : ndarray, shape (n_moments,), float64
        Seconds from the start of the recording; the end is not past the recording's.
    units : ndarray, shape (n_moments, size), float16
        Embeddings, of length 1.
    norms : ndarray, shape (n_moments,), float32
    """

    recordings: list[Recording]
    start_s: SecondsArray
    end_s: SecondsArray
    units: HalfArray
    norms: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.start_s)

    def without(self, paths: set[str]) -> Shard:
        """The same without some recordings."""
        kept = [recording for recording in self.recordings if recording.path not in paths]
        is_kept = np.repeat(
            [recording.path not in paths for recording in self.recordings],
            [recording.n_moments for recording in self.recordings],
        ).astype(bool)
        return Shard(kept, *(values[is_kept] for values in (self.start_s, self.end_s, self.units, self.norms)))


def to_units(embeddings: FloatArray) -> tuple[HalfArray, FloatArray]:
    """Embeddings as vectors of length 1, and the lengths they had; one of zeros stays as it is."""
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    units = np.divide(embeddings, norms, out=np.zeros(embeddings.shape), where=norms > 0)
    return units.astype(np.float16), norms[:, 0].astype(np.float32)


def write_shard(path: Path, shard: Shard) -> None:
    """Write a file of embeddings; it has its name when it is whole.

    Raises
    ------
    OutputError
        The disk is full, or the place does not allow it.
    """
    pyarrow = require_pyarrow()
    paths = [recording.path for recording in shard.recordings for _ in range(recording.n_moments)]
    embedding = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(shard.units.ravel()), shard.units.shape[1])
    table = pyarrow.table(
        {
            "path": pyarrow.array(paths, "string"),
            "start_s": shard.start_s,
            "end_s": shard.end_s,
            "embedding": embedding,
            "norm": shard.norms,
        }
    )
    record = json.dumps([asdict(recording) for recording in shard.recordings])
    table = table.replace_schema_metadata({RECORDINGS_KEY: record})
    with output_file(path) as temporary:
        pyarrow.parquet.write_table(
            table,
            temporary,
            row_group_size=ROWS_PER_GROUP,
            compression="none",  # float16 noise: zstd saves 5 %, and costs half of the reading
            use_dictionary=["path"],
            write_statistics=False,
        )


def read_recordings(path: Path) -> list[Recording]:
    """The recordings of a file of embeddings, without the embeddings.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    with _reading(path) as file:
        return _recordings(file)


def read_shard(path: Path, size: int, n_moments: int) -> Shard:
    """Read a file of embeddings, of which the manifest promises so many moments of such a size.

    Raises
    ------
    DataError
        If the file is missing or damaged, or holds something else.
    """
    with _reading(path) as file:
        recordings = _recordings(file)
        table = file.read(columns=list(COLUMNS[1:]))
        found = sum(recording.n_moments for recording in recordings), table.num_rows
        if found != (n_moments, n_moments):
            raise ValueError(f"it has {found[1]:,} lines and names {found[0]:,}; expected {n_moments:,}")
        return Shard(recordings, *_seconds(table), _units(table["embedding"], size), table["norm"].to_numpy())


def iterate_units(folder: Path, shards: dict[str, int], size: int) -> Iterator[HalfArray]:
    """The embeddings of all files, one file after the other."""
    for name, n_moments in shards.items():
        yield read_shard(folder / name, size, n_moments).units


def read_times(path: Path, n_moments: int) -> tuple[list[Recording], SecondsArray, SecondsArray]:
    """As ``read_shard``, without the embeddings: recordings, starts and ends."""
    with _reading(path) as file:
        table = file.read(columns=["start_s", "end_s"])
        if table.num_rows != n_moments:
            raise ValueError(f"it has {table.num_rows:,} lines; expected {n_moments:,}")
        return _recordings(file), *_seconds(table)


def require_pyarrow() -> Any:
    """The package, or an error that says how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("an index", "pyarrow", "data") from error
    return pyarrow


class _reading:  # noqa: N801 - used as a function
    """Open a Parquet file; whatever is wrong with it is a DataError that names it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def __enter__(self) -> Any:
        pyarrow = require_pyarrow()
        try:
            self._file = pyarrow.parquet.ParquetFile(self._path, memory_map=True)
        except (OSError, ValueError) as error:
            raise self._explain(error) from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, (OSError, ValueError, KeyError, TypeError)):
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> DataError:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged: {error}"
        return DataError(f"{self._path} {what}. {NEXT_STEP}")


def _recordings(file: Any) -> list[Recording]:
    metadata = file.schema_arrow.metadata or {}
    return [Recording(**record) for record in json.loads(metadata[RECORDINGS_KEY])]


def _seconds(table: Any) -> tuple[SecondsArray, SecondsArray]:
    return table["start_s"].to_numpy(), table["end_s"].to_numpy()


def _units(column: Any, size: int) -> HalfArray:
    if column.type.list_size != size or str(column.type.value_type) != "halffloat":
        raise ValueError(f"its embeddings are {column.type}; expected {size} halffloat")
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    units = np.concatenate(chunks or [np.zeros(0, np.float16)]).reshape(-1, size)
    if not np.isfinite(units).all():
        raise ValueError("some of its embeddings are not finite")
    return units
