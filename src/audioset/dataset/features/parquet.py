"""Features as Parquet: one row for each clip, of any length.

Columns: ``video_id`` string, ``start_s`` and ``end_s`` float, ``labels`` list of int16, ``embeddings`` list of binary
of 128 bytes each, one for each second, ``subset`` string, which may be null. Not of fixed-size binary, as earlier
versions wrote them: pandas cannot open lists of these. Both are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audioset.dataset.features.clips import FeatureClip, in_blocks, make_clip, sound_rows
from audioset.dataset.features.problems import Malformed, Problems
from audioset.errors import MissingExtraError
from audioset.files import check_regular, output_file
from audioset.models.postprocess import EMBEDDING_SIZE
from audioset.records import DAMAGE

CLIPS_PER_GROUP = 4096  # 5 MB
HINT = "Likely cause: a Parquet file of another kind, or a damaged copy. Next step: convert the released features again"


def read(path: Path, problems: Problems) -> Iterator[FeatureClip]:
    """The clips of a Parquet file, a row group after the other."""
    pyarrow, _ = _pyarrow()
    return sound_rows(_rows(path), path, problems, HINT, (pyarrow.ArrowException, *DAMAGE))


def _rows(path: Path) -> Iterator[Callable[[], FeatureClip]]:
    pyarrow, parquet = _pyarrow()
    check_regular(path)
    with parquet.ParquetFile(path) as file:
        names = _schema(pyarrow).names
        if missing := [name for name in names if name not in file.schema_arrow.names]:
            raise Malformed(f"it has no column {missing[0]!r}; expected {', '.join(names)}")
        for batch in file.iter_batches(CLIPS_PER_GROUP, columns=names):
            table = pyarrow.Table.from_batches([batch]).select(names).cast(_schema(pyarrow)).combine_chunks()
            yield from (partial(make_clip, *row) for row in _cells(table))


def write(path: Path, clips: Iterable[FeatureClip]) -> int:
    """Write clips as Parquet.

    Returns
    -------
    int
        How many.
    """
    pyarrow, parquet = _pyarrow()
    schema = _schema(pyarrow)
    n_clips = 0
    with (
        output_file(path) as temporary,
        temporary.open("wb") as stream,
        parquet.ParquetWriter(stream, schema, compression="zstd") as file,
    ):
        for block in in_blocks(clips, CLIPS_PER_GROUP):
            file.write_table(pyarrow.table(_columns(pyarrow, block), schema))
            n_clips += len(block)
    return n_clips


def _columns(pyarrow: Any, clips: list[FeatureClip]) -> list[Any]:
    frames = np.concatenate([clip.embeddings for clip in clips])
    ends = np.arange(0, (len(frames) + 1) * EMBEDDING_SIZE, EMBEDDING_SIZE, dtype=np.int32)
    packed = pyarrow.Array.from_buffers(
        pyarrow.binary(), len(frames), [None, *map(pyarrow.py_buffer, (ends.tobytes(), frames.tobytes()))]
    )
    offsets = np.cumsum([0, *(len(clip.embeddings) for clip in clips)], dtype=np.int32)
    return [
        pyarrow.array([clip.video_id for clip in clips], pyarrow.string()),
        pyarrow.array([clip.start_s for clip in clips], pyarrow.float32()),
        pyarrow.array([clip.end_s for clip in clips], pyarrow.float32()),
        pyarrow.array([clip.labels for clip in clips], pyarrow.list_(pyarrow.int16())),
        pyarrow.ListArray.from_arrays(offsets, packed),
        pyarrow.array([clip.subset for clip in clips], pyarrow.string()),
    ]


def _cells(table: Any) -> Iterator[tuple[Any, ...]]:
    """The arguments of ``make_clip``, row by row."""
    for name in table.column_names:
        column = table[name]
        flat = column.combine_chunks().flatten() if name in ("labels", "embeddings") else column
        if name != "subset" and (column.null_count or flat.null_count):
            raise Malformed(f"the column {name!r} has nulls; expected values")
    lists = table["embeddings"].combine_chunks()
    rows = lists.flatten().to_pylist()
    if other := next((len(row) for row in rows if len(row) != EMBEDDING_SIZE), None):
        raise Malformed(f"an embedding has {other} bytes; expected {EMBEDDING_SIZE}")
    frames = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, EMBEDDING_SIZE)
    ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist()
    columns = (table[name].to_pylist() for name in ("video_id", "start_s", "end_s", "labels", "subset"))
    for start, end, (video_id, start_s, end_s, labels, subset) in zip(
        [0, *ends], ends, zip(*columns, strict=True), strict=False
    ):
        yield video_id, start_s, end_s, labels, frames[start:end].copy(), subset


def _schema(pyarrow: Any) -> Any:
    return pyarrow.schema(
        [
            pyarrow.field("video_id", pyarrow.string()),
            pyarrow.field("start_s", pyarrow.float32()),
            pyarrow.field("end_s", pyarrow.float32()),
            pyarrow.field("labels", pyarrow.list_(pyarrow.int16())),
            pyarrow.field("embeddings", pyarrow.list_(pyarrow.binary())),
            pyarrow.field("subset", pyarrow.string()),
        ]
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("features as Parquet", "pyarrow", "data") from error
    return pyarrow, pyarrow.parquet


def is_written(file: BinaryIO) -> bool:
    """Whether a file has the columns that ``write`` writes."""
    pyarrow, parquet = _pyarrow()
    return list(parquet.read_schema(file).names) == list(_schema(pyarrow).names)
