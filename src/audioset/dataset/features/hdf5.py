"""Features as HDF5, in the layout of Kong's ``packed_features``.

Datasets: ``x`` uint8 (N, 10, 128), short clips padded with 0; ``y`` bool (N, 527); ``video_id_list`` bytes (N,). Beside
these, which that layout has no place for and its programs pass over: ``lengths`` uint8, ``start_s`` and ``end_s``
float32, and ``subsets`` uint8, all (N,).

Source: qiuqiangkong/audioset_classification, utils/utilities.py, ``load_data``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from audioset.dataset.features.clips import (
    CLIP_S,
    N_CLASSES,
    ClipArrays,
    FeatureClip,
    in_blocks,
    subset_code,
    subset_named,
)
from audioset.dataset.features.problems import Malformed, Problems
from audioset.errors import AudioSetError, DataError
from audioset.files import check_regular, output_file
from audioset.models.postprocess import EMBEDDING_SIZE
from audioset.records import DAMAGE, problem_of

CLIPS_PER_BLOCK = 1024
CLIPS_PER_CHUNK = 256
REQUIRED = {"x": (CLIP_S, EMBEDDING_SIZE), "y": (N_CLASSES,), "video_id_list": ()}
EXTRA = {"lengths": "uint8", "start_s": "float32", "end_s": "float32", "subsets": "uint8"}
HINT = "Likely cause: an HDF5 file of another kind, or a damaged copy. Next step: convert the released features again"


def read(path: Path, problems: Problems) -> Iterator[FeatureClip]:
    """The clips of an HDF5 file.

    In a file without ``lengths``, trailing embeddings of 128 zeros are padding; without times, these are NaN.
    """
    number = 0
    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            columns = {name: _dataset(file, name) for name in (*REQUIRED, *EXTRA) if name in file}
            _check(columns)
            default = subset_code(subset_named(path.stem, path.absolute().parent.name))
            for first in range(0, len(columns["x"]), CLIPS_PER_BLOCK):
                block = {name: column[first : first + CLIPS_PER_BLOCK] for name, column in columns.items()}
                arrays = _arrays(block, default)
                for i in range(len(arrays)):
                    try:
                        yield arrays.clip(i)
                    except Malformed as error:
                        problems.add(f"{path}: row {number:,}", error, HINT)
                    number += 1
    except AudioSetError:
        raise
    except (RuntimeError, *DAMAGE) as error:  # h5py's, for damage of all kinds
        problems.add(f"{path}: from row {number:,} on", error, HINT)


def write(path: Path, clips: Iterable[FeatureClip]) -> int:
    """Write clips as HDF5.

    Returns
    -------
    int
        How many.

    Raises
    ------
    DataError
        If a clip has more than ten embeddings.
    """
    ids: list[bytes] = []
    with output_file(path) as temporary, _Sink(temporary) as sink, h5py.File(sink, "w") as file:
        columns = _create(file)
        for block in in_blocks(clips, CLIPS_PER_BLOCK):
            try:
                arrays = ClipArrays.of(block)
            except Malformed as error:
                raise DataError(
                    f"cannot write {path}: {error}. Next step: parquet or tfrecord, which hold any"
                ) from error
            first = len(ids)
            ids += arrays.video_ids.tolist()
            values = {"x": arrays.embeddings, "y": arrays.targets(), **{name: getattr(arrays, name) for name in EXTRA}}
            for name, column in columns.items():
                column.resize(len(ids), axis=0)
                column[first:] = values[name]
            sink.check()
        file["video_id_list"] = np.array(ids, f"S{max(map(len, ids), default=1)}")
    return len(ids)


class _Sink(io.FileIO):
    """A file that takes everything, and says at a quieter time that the disk was full.

    The HDF5 library, told so while it writes or closes, ends the whole process.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def __exit__(self, *_: object) -> None:
        self.close()
        self.check()

    def check(self) -> None:
        """Say it."""
        if self._error:
            raise self._error

    def write(self, data: Any, /) -> int:
        """All of it, unless something has failed."""
        view = memoryview(data).cast("B")
        try:
            while view and not self._error:
                view = view[super().write(view) or 0 :]
        except OSError as error:
            self._error = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None, /) -> int:
        """As usual, unless something has failed."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = error
            return size or 0


def _create(file: Any) -> dict[str, Any]:
    columns = {
        "x": file.create_dataset("x", (0, *REQUIRED["x"]), "u1", **_growing(*REQUIRED["x"])),
        "y": file.create_dataset(
            "y", (0, N_CLASSES), "?", compression="gzip", compression_opts=1, **_growing(N_CLASSES)
        ),
    }
    for name, dtype in EXTRA.items():
        columns[name] = file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1 << 14,))
    return columns


def _growing(*row: int) -> dict[str, Any]:
    return {"maxshape": (None, *row), "chunks": (CLIPS_PER_CHUNK, *row)}


def _dataset(file: Any, name: str) -> Any:
    """A dataset that is in the file itself, and that does not claim more than the file can hold."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise Malformed(f"{name!r} is a link; expected a dataset in the file itself")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise Malformed(f"{name!r} is a group, or is stored in other files; expected a dataset in the file itself")
    if problem := problem_of(dataset):
        raise Malformed(f"{name!r} {problem}")
    return dataset


def _check(columns: dict[str, Any]) -> None:
    for name, row in REQUIRED.items():
        if name not in columns:
            raise Malformed(f"it has no dataset {name!r}; expected {', '.join(REQUIRED)}")
        shape, kind = columns[name].shape, columns[name].dtype.kind
        if shape[1:] != row or len(shape) != len(row) + 1:
            raise Malformed(f"{name!r} has shape {shape}; expected (N{''.join(f', {n}' for n in row)})")
        if kind not in {"x": "u", "y": "bui", "video_id_list": "S"}[name]:
            raise Malformed(f"{name!r} has dtype {columns[name].dtype}; expected that of Kong's layout")
    if columns["x"].dtype != np.uint8:
        raise Malformed(f"'x' has dtype {columns['x'].dtype}; expected uint8")
    counts = {name: column.shape[0] if column.shape else 0 for name, column in columns.items()}
    if len(set(counts.values())) != 1:
        raise Malformed(f"its datasets have different numbers of rows: {counts}")
    for name in EXTRA.keys() & columns.keys():
        if columns[name].ndim != 1 or columns[name].dtype != EXTRA[name]:
            raise Malformed(f"{name!r} has shape {columns[name].shape} and dtype {columns[name].dtype}")


def _arrays(block: dict[str, Any], default_subset: int) -> ClipArrays:
    x, targets = block["x"], block["y"] != 0
    n_clips = len(x)
    times = np.full(n_clips, np.nan, np.float32)
    lengths = block.get("lengths")
    if lengths is None:
        lengths = CLIP_S - np.argmax(x.any(axis=2)[:, ::-1], axis=1)
        lengths = np.where(x.any(axis=(1, 2)), lengths, 0).astype(np.uint8)
    if lengths.max(initial=0) > CLIP_S:
        raise Malformed(f"'lengths' has {lengths.max()}; expected 0 to {CLIP_S}")
    return ClipArrays(
        x,
        lengths,
        np.nonzero(targets)[1].astype(np.int16),
        np.concatenate([[0], np.cumsum(targets.sum(axis=1))]),
        block["video_id_list"],
        block.get("start_s", times),
        block.get("end_s", times),
        block.get("subsets", np.full(n_clips, default_subset, np.uint8)),
    )


def is_written(file: BinaryIO) -> bool:
    """Whether a file has the datasets that ``write`` writes, and no others."""
    with h5py.File(file, "r") as found:
        return set(found) == {*REQUIRED, *EXTRA}
