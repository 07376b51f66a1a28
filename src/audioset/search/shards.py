"""Files of embeddings: Parquet, one line for each moment, whole recordings only.

The columns are ``path``, ``start_s``, ``end_s``, ``embedding`` (a list of float16 for each line, of length 1) and
``norm``, the length that the embedding had. The file's metadata name its recordings, so that a later run knows which
files have changed, and those without a moment too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import DoubleArray, FloatArray, HalfArray
from audioset.errors import AudioSetError, DataError, MissingExtraError
from audioset.files import check_regular, confined, output_file
from audioset.records import DAMAGE, TEXT, WHOLE, check_record, decode_json, whole

RECORDINGS_KEY = b"audioset.recordings"
COLUMNS = ("path", "start_s", "end_s", "embedding", "norm")
ROWS_PER_GROUP = 8_192
SHARD_NAME = re.compile(r"embeddings-\w{1,64}\.parquet", re.ASCII)
MOST_COMPRESSED = 1100  # bytes that one byte of a file stands for, at most
RECORDING = {"path": TEXT, "size": whole(-1, 2**63), "modified_ns": whole(-1, 2**63), "n_moments": WHOLE}
NEXT_STEP = "Next step: delete the index folder, and index the recordings again"


@dataclass(frozen=True)
class Recording:
    """One file as it was when it was indexed."""

    path: str  # absolute
    size: int  # bytes
    modified_ns: int  # nanoseconds since 1970
    n_moments: int = 0


@dataclass
class Shard:
    """Recordings and their moments: what one file holds."""

    recordings: list[Recording]
    # start_s, end_s: shape (n_moments,), float64; seconds from the start of the recording; the end is not past the
    # recording's
    start_s: DoubleArray
    end_s: DoubleArray
    units: HalfArray  # shape (n_moments, size), float16; embeddings, of length 1
    norms: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))  # shape (n_moments,), float32

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
    """Write a file of embeddings; it has its name when it is whole."""
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


def shard_path(folder: Path, name: str) -> Path:
    """The file of embeddings that a manifest names, in the folder of its index."""
    if not SHARD_NAME.fullmatch(name):
        raise DataError(f"{folder} names the file {name!r:.100}; expected embeddings-….parquet. {NEXT_STEP}")
    return confined(folder, name)


def read_recordings(path: Path) -> list[Recording]:
    """The recordings of a file of embeddings, without the embeddings."""
    with _reading(path) as file:
        return _recordings(file)


def read_shard(path: Path, size: int, n_moments: int) -> Shard:
    """Read a file of embeddings, of which the manifest promises so many moments of such a size."""
    with _reading(path) as file:
        recordings = _recordings(file)
        _check_length(path, file, size, n_moments)
        table = file.read(columns=list(COLUMNS[1:]))
        n_named = sum(recording.n_moments for recording in recordings)
        if n_named != n_moments:
            raise ValueError(f"it has {n_moments:,} lines and names {n_named:,}")
        return Shard(recordings, *_seconds(table), _units(table["embedding"], size), table["norm"].to_numpy())


def check_length(path: Path, size: int, n_moments: int) -> None:
    """Refuse a file of embeddings that has not as many lines as the manifest promises, without reading them."""
    with _reading(path) as file:
        _check_length(path, file, size, n_moments)


def _check_length(path: Path, file: Any, size: int, n_moments: int) -> None:
    n_lines = file.metadata.num_rows
    if n_lines != n_moments:
        raise ValueError(f"it has {n_lines:,} lines; expected {n_moments:,}")
    if n_lines * size * np.dtype(np.float16).itemsize > MOST_COMPRESSED * path.stat().st_size:
        raise ValueError(f"it claims {n_lines:,} embeddings, more than it can hold")


def iterate_units(folder: Path, shards: dict[str, int], size: int) -> Iterator[HalfArray]:
    """The embeddings of all files, one file after the other."""
    for name, n_moments in shards.items():
        yield read_shard(shard_path(folder, name), size, n_moments).units


def read_times(path: Path, n_moments: int) -> tuple[list[Recording], DoubleArray, DoubleArray]:
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
            check_regular(self._path)
            self._file = pyarrow.parquet.ParquetFile(self._path, memory_map=True)
        except (pyarrow.ArrowException, *DAMAGE) as error:
            raise self._explain(error) from error
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if isinstance(error, (require_pyarrow().ArrowException, *DAMAGE)) and not isinstance(error, AudioSetError):
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> DataError:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged: {error}"
        return DataError(f"{self._path} {what}. {NEXT_STEP}")


def _recordings(file: Any) -> list[Recording]:
    metadata = file.schema_arrow.metadata or {}
    records = decode_json(metadata[RECORDINGS_KEY], "the list of its recordings", DataError)
    if not isinstance(records, list):
        raise TypeError("the list of its recordings is no list")
    for record in records:
        check_record(record, "one of its recordings", RECORDING, DataError, NEXT_STEP)
    return [Recording(**{name: record[name] for name in RECORDING}) for record in records]


def _seconds(table: Any) -> tuple[DoubleArray, DoubleArray]:
    starts, ends = (np.asarray(table[name].to_numpy(), np.float64) for name in ("start_s", "end_s"))
    if not (np.isfinite(starts).all() and np.isfinite(ends).all()):
        raise ValueError("some of its times are not finite")
    return starts, ends


def _units(column: Any, size: int) -> HalfArray:
    if column.type.list_size != size or str(column.type.value_type) != "halffloat":
        raise ValueError(f"its embeddings are {column.type}; expected {size} halffloat")
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    units = np.concatenate(chunks or [np.zeros(0, np.float16)]).reshape(-1, size)
    if not np.isfinite(units).all():
        raise ValueError("some of its embeddings are not finite")
    return units
