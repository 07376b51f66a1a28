"""Features as arrays that are mapped, not read: training takes any clip of two million, and opening takes no time.

A folder with one ``.npy`` file for each attribute of ``ClipArrays``, and a card, ``features.json``, with counts and
digests.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from audioset.arrays import Array
from audioset.dataset.features.clips import (
    CLIP_S,
    N_CLASSES,
    ClipArrays,
    FeatureClip,
    id_array,
    in_blocks,
    subset_of_code,
)
from audioset.dataset.features.problems import Malformed, Problems
from audioset.errors import DataError
from audioset.files import check_regular, is_file, output_folder
from audioset.models.postprocess import EMBEDDING_SIZE
from audioset.records import DAMAGE, OBJECT, WHOLE, check_record, decode_json, map_of, read_bounded, text

CARD = "features.json"
KIND, FORMAT = "audioset features", 1
CLIPS_PER_BLOCK = 1024
CHUNK_BYTES = 1 << 20
SMALL_BYTES = 4096  # of a file that is read; an array without values cannot be mapped
NAMES = tuple(field.name for field in fields(ClipArrays))
COLUMNS = {  # dtype and shape of a row; ids are as wide as the longest
    "embeddings": ("<u1", (CLIP_S, EMBEDDING_SIZE)),
    "lengths": ("<u1", ()),
    "label_indices": ("<i2", ()),
    "label_offsets": ("<i8", ()),
    "start_s": ("<f4", ()),
    "end_s": ("<f4", ()),
    "subsets": ("<u1", ()),
}
SCHEMA = {"n_clips": WHOLE, "n_labels": WHOLE, "subsets": map_of(WHOLE, 1000), "files": OBJECT}
FILE_SCHEMA = {"sha256": text(64)}
HINT = (
    "Likely cause: an unfinished or damaged copy. Next step: audioset data features convert ... --format arrays, again"
)


class MappedArrays(ClipArrays):
    """The arrays of a folder. What ``take`` has read leaves memory again."""

    def take(self, indices: Any) -> ClipArrays:
        """Clips in any order, copied."""
        taken = super().take(indices)
        mapped = self.embeddings.base
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return taken


def is_feature_folder(path: Path) -> bool:
    """Whether a folder has the card."""
    return is_file(path / CARD)


def read(folder: Path, problems: Problems) -> Iterator[FeatureClip]:
    """The clips of a folder, a block after the other."""
    try:
        arrays = open_arrays(folder)
    except DataError as error:
        problems.add(str(folder), error, " ")
        return
    for first in range(0, len(arrays), CLIPS_PER_BLOCK):
        block = arrays.take(np.arange(first, min(first + CLIPS_PER_BLOCK, len(arrays))))
        for i in range(len(block)):
            try:
                yield block.clip(i)
            except Malformed as error:
                problems.add(f"{folder}: row {first + i:,}", error, HINT)


def open_arrays(folder: Path) -> ClipArrays:
    """Map the arrays of a folder that ``write`` made."""
    try:
        card = read_card(folder)
        arrays = MappedArrays(**{name: _load(folder / f"{name}.npy") for name in NAMES})
        _check(arrays, card)
    except DAMAGE as error:
        raise DataError(f"{folder} cannot be read as a folder of features ({error}). {HINT}") from error
    return arrays


def read_card(folder: Path) -> dict[str, Any]:
    """What ``features.json`` says: ``n_clips``, ``n_labels``, ``subsets``, and of each file its ``sha256``."""
    card = decode_json(read_bounded(folder / CARD, DataError), CARD, DataError)
    if not isinstance(card, dict) or card.get("kind") != KIND or card.get("format") != FORMAT:
        raise Malformed(f"{CARD} is not the card of {KIND} in format {FORMAT}")
    check_record(card, CARD, SCHEMA, DataError)
    for name in NAMES:
        check_record(card["files"].get(name), f"{CARD}: the file {name!r}", FILE_SCHEMA, DataError)
    return card


def check_digests(folder: Path, problems: Problems) -> None:
    """Compare the values of each array with the digest in the card."""
    card = read_card(folder)
    for name in NAMES:
        array = _load(folder / f"{name}.npy")
        digest = hashlib.sha256()
        for first in range(0, len(array), CLIPS_PER_BLOCK):
            digest.update(array[first : first + CLIPS_PER_BLOCK].tobytes())
        if digest.hexdigest() != card["files"][name]["sha256"]:
            problems.add(str(folder / f"{name}.npy"), "its values do not have the digest that the card gives", HINT)


def write(folder: Path, clips: Iterable[FeatureClip]) -> int:
    """Write clips as a folder of arrays, a block after the other.

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
    subsets: Counter[str] = Counter()
    with output_folder(folder) as temporary, ExitStack() as stack:
        columns = {
            name: stack.enter_context(_Column(temporary / f"{name}.npy", *column)) for name, column in COLUMNS.items()
        }
        columns["label_offsets"].append(np.zeros(1))
        for block in in_blocks(clips, CLIPS_PER_BLOCK):
            try:
                arrays = ClipArrays.of(block)
            except Malformed as error:
                step = "Next step: parquet or tfrecord, which hold any length"
                raise DataError(f"cannot write {folder}: {error}. {step}") from error
            columns["label_offsets"].append(arrays.label_offsets[1:] + columns["label_indices"].n_rows)
            for name in COLUMNS.keys() - {"label_offsets"}:
                columns[name].append(getattr(arrays, name))
            ids += arrays.video_ids.tolist()
            subsets.update(clip.subset or "unknown" for clip in block)
        video_ids = id_array(ids)
        columns["video_ids"] = stack.enter_context(_Column(temporary / "video_ids.npy", video_ids.dtype.str, ()))
        columns["video_ids"].append(video_ids)
        files = {name: {"n_rows": column.n_rows, "sha256": column.finish()} for name, column in columns.items()}
        card = {
            "kind": KIND,
            "format": FORMAT,
            "n_clips": len(ids),
            "n_labels": columns["label_indices"].n_rows,
            "n_classes": N_CLASSES,
            "subsets": dict(sorted(subsets.items())),
            "subset_codes": {subset_of_code(code): code for code in range(3)},
            "files": files,
        }
        (temporary / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return len(ids)


class _Column:
    """A ``.npy`` file that grows by rows; its header is written again at the end, when their number is known."""

    def __init__(self, path: Path, dtype: str, row: tuple[int, ...]) -> None:
        self._file: BinaryIO = path.open("wb")
        self._dtype, self._row = np.dtype(dtype), row
        self._hash = hashlib.sha256()
        self.n_rows = 0
        self._write_header()
        self._n_header_bytes = self._file.tell()

    def append(self, rows: Array) -> None:
        data = np.ascontiguousarray(rows, self._dtype).tobytes()
        self._file.write(data)
        self._hash.update(data)
        self.n_rows += len(rows)

    def finish(self) -> str:
        """Complete the file and return the SHA-256 of its values."""
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._n_header_bytes:
            raise OSError("the header of the file has grown")
        self._file.flush()
        return self._hash.hexdigest()

    def __enter__(self) -> _Column:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with suppress(OSError) if error else nullcontext():  # what is in buffers may not fit either
            self._file.close()

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.n_rows, *self._row)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _load(path: Path) -> Any:
    check_regular(path)
    is_small = path.stat().st_size < SMALL_BYTES
    return np.load(path, mmap_mode=None if is_small else "r", allow_pickle=False)


def _check(arrays: ClipArrays, card: dict[str, Any]) -> None:
    rows = {**dict.fromkeys(NAMES, card["n_clips"]), "label_indices": card["n_labels"]}
    rows["label_offsets"] += 1
    for name in NAMES:
        array = getattr(arrays, name)
        dtype, row = COLUMNS.get(name, (f"S{array.dtype.itemsize}", ()))
        if array.shape != (rows[name], *row) or array.dtype != dtype:
            raise Malformed(
                f"{name}.npy has shape {array.shape} and dtype {array.dtype}; expected {(rows[name], *row)} and {dtype}"
            )
    offsets = arrays.label_offsets
    if offsets[0] != 0 or offsets[-1] != card["n_labels"] or (np.diff(offsets) < 0).any():
        raise Malformed("label_offsets.npy does not ascend from 0 to the number of labels")
    if arrays.lengths.max(initial=0) > CLIP_S:
        raise Malformed(f"lengths.npy has {arrays.lengths.max()}; expected 0 to {CLIP_S}")
