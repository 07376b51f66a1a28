"""Read PyTorch checkpoints without PyTorch, and without running anything that they ask for.

What ``torch.save`` writes is a pickle, which is a program, and the raw values of the tensors. Since version 1.6 they
are members of a zip file; before, they followed each other in one file, without checksums. The program is read here
by an interpreter that makes plain data and descriptions of tensors, and knows nothing that it could run. The file is
mapped, not read; and no size that it claims takes memory before the bytes behind it are found.

Sources: PyTorch's ``torch/serialization.py``, ``torch/_utils.py``, ``caffe2/serialize/inline_container.cc`` and
``torch/csrc/serialization.cpp``; PKWARE's ``APPNOTE.TXT``; Python's ``pickletools``. Distance from ``torch.load``:
none, bit by bit.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.errors import WeightsError
from audioset.weights.checkpoint import (
    CHUNK_BYTES,
    DAMAGED,
    SAVE_AGAIN,
    FormatError,
    MappedFile,
    Variable,
    blame,
    check_variables,
    clipped,
    find_variable,
    take_weights,
)
from audioset.weights.torch_pickle import FOREIGN, MAX_PICKLE_BYTES, StoredTensor, StoredValues, TensorUnpickler, show
from audioset.weights.zip_members import LOCAL_SIGNATURE, MemberPlace, read_members

Shape = tuple[int, ...]

FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
STATE_DICT_KEYS = ("model", "state_dict")  # where training scripts put it, beside their own state

MAX_EXPANDED_BYTES = 1 << 24  # of a tensor that repeats its values, in a smaller file
MAX_DEPTH = 12
MAX_NAME_CHARS = 1 << 10
MAX_ITEMS = 1 << 48  # of one tensor: beyond any file, within what numpy can count

LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001

# Marks of other formats and where they are, for the message.
FORMATS = (
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, whose file was not fetched"),
    (0, b"<", "a web page"),
    (0, b"{", "a JSON file"),
    (8, b'{"', "a safetensors file"),
    (257, b"ustar", "a tar file"),
    (-8, 0xDB4775248B80FB57.to_bytes(8, "little"), "a TensorFlow checkpoint"),
)


def read_torch_zip(
    path: Path, shapes: Mapping[str, Shape], ignored: Sequence[str] = ("*num_batches_tracked",)
) -> dict[str, FloatArray]:
    """Read exactly the tensors that a network needs, as float32, in the order of ``shapes``.

    ``path`` is what ``torch.save`` wrote, in the zip format or the one before. ``shapes`` are by the checkpoint's names
    (``"features.0.0.weight"``). ``ignored`` are patterns, as a shell has them, of the tensors that the checkpoint may
    have beside these: by default, the counters of batch norms. WeightsError, which names it: no checkpoint, a damaged
    or a harmful one, a missing or additional tensor, a wrong shape or dtype, NaN.
    """
    checkpoint = open_torch_checkpoint(path)
    check_variables(checkpoint, shapes, FLOAT_TYPES)
    _check_known(checkpoint, shapes, ignored)
    return take_weights(checkpoint, shapes)


def open_torch_checkpoint(path: Path) -> TorchCheckpoint:
    """Open a checkpoint and read its list of tensors; WeightsError if there is none, or it is damaged or harmful.

    ``path`` is what ``torch.save`` wrote, in the zip format or the one before. The state dict is the whole of it, or
    what it has under ``"model"`` or ``"state_dict"``.
    """
    file = _CheckedFile(path)
    with blame(path, "PyTorch"):
        return TorchCheckpoint(path, file, _contents(file.bytes))


class TorchCheckpoint:
    """A checkpoint whose list of tensors has been read. Its file stays mapped as long as it lives."""

    def __init__(self, path: Path, file: _CheckedFile, contents: _Contents) -> None:
        self.path = path
        self._file = file
        self._places = contents.places
        self._byte_order = contents.byte_order
        self._tensors = _state_dict(contents.root)
        for name, tensor in self._tensors.items():
            _check_tensor(tensor, name, len(file.bytes))
        # Shape and dtype of every tensor, in the file's order; the names of nested dicts are joined with dots.
        self.variables = {
            name: Variable(tensor.shape, tensor.storage.dtype.name) for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> Array:
        """A copy of one of ``variables`` in its stored dtype; WeightsError if there is none, or it is damaged.

        bfloat16, which numpy does not have, becomes float32, exactly.
        """
        find_variable(self, name)
        return self._read(name, self._tensors[name].storage.dtype.result)

    def _read(self, name: str, dtype: str) -> Array:
        """One tensor in another dtype: converted chunk by chunk on its way out of the file."""
        storage, offset, shape, strides = self._tensors[name]
        values = np.empty(shape, dtype)
        if not values.size:
            return values
        place = self._places[storage.key]
        with blame(self.path, "PyTorch"):
            self._file.check(place, f"the values of {name!r}")
        stored = np.dtype(storage.dtype.stored).newbyteorder(self._byte_order)
        items = np.frombuffer(self._file.bytes[place.start : place.end], stored)[offset:]
        in_bytes = [stride * stored.itemsize if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)]
        view = np.lib.stride_tricks.as_strided(items, shape, in_bytes, writeable=False)
        for source, target in _chunks(view, values):
            _copy(source, target, storage.dtype.name)
            self._file.release()
        return values


def _check_known(checkpoint: TorchCheckpoint, names: Iterable[str], ignored: Sequence[str]) -> None:
    known = set(names)
    unknown = [
        name
        for name in checkpoint.variables
        if name not in known and not any(fnmatchcase(name, pattern) for pattern in ignored)
    ]
    if unknown:
        raise WeightsError(
            f"{checkpoint.path} has {len(unknown)} tensors that the network does not know, such as {unknown[0]!r}. "
            "Likely cause: weights of another network"
        )


def _chunks(source: Array, target: Array) -> Iterator[tuple[Array, Array]]:
    """Parts to copy one after the other, so that no more of the file than a chunk is in memory."""
    if not source.flags.c_contiguous:
        yield source, target  # its rows are spread over all of the storage
        return
    n_items = CHUNK_BYTES // source.itemsize
    source, target = source.reshape(-1), target.reshape(-1)
    for i in range(0, len(source), n_items):
        yield source[i : i + n_items], target[i : i + n_items]


def _copy(source: Array, target: Array, dtype: str) -> None:
    if dtype == "bfloat16":  # the upper half of a float32
        bits = target.view(np.uint32)
        bits[...] = source
        bits <<= 16
    else:
        target[...] = source


# ---- Tensors


def _check_tensor(tensor: StoredTensor, name: str, n_file_bytes: int) -> None:
    """No tensor reaches beyond its storage, nor repeats values until memory is full."""
    storage, offset, shape, strides = tensor
    if math.prod(max(1, n) for n in shape) > MAX_ITEMS:
        raise FormatError(f"{name!r} claims the shape {clipped(shape)}")
    n_bytes = math.prod(shape) * np.dtype(storage.dtype.stored).itemsize
    if n_bytes > max(n_file_bytes, MAX_EXPANDED_BYTES):
        raise FormatError(f"{name!r} claims {n_bytes:,} bytes; the whole file has {n_file_bytes:,}")
    end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    if n_bytes and end > storage.n_items:
        raise FormatError(
            f"{name!r} has shape {shape}, strides {clipped(strides)} and offset {clipped(offset)}, which reach "
            f"beyond the {clipped(storage.n_items)} values of its storage"
        )


def _state_dict(root: Any) -> dict[str, StoredTensor]:
    """The tensors of a state dict under their names, in their order."""
    if isinstance(root, dict):
        for group in (*map(root.get, STATE_DICT_KEYS), root):
            if isinstance(group, dict) and (tensors := _by_name(group)):
                return tensors
    raise FormatError(
        f"it holds {show(root)} without tensors; expected a state dict, at the top or under "
        f"{' or '.join(map(repr, STATE_DICT_KEYS))}",
        "Likely cause: a file that belongs to the weights. Next step: give the one with the weights themselves",
    )


def _by_name(group: dict[str, Any]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for name, tensor in _tensors(group, set()):
        if name in tensors:
            raise FormatError(f"it has two tensors {name!r}")
        tensors[name] = tensor
    return tensors


def _tensors(
    group: dict[str, Any], seen: set[int], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, StoredTensor]]:
    if depth > MAX_DEPTH or id(group) in seen:
        raise FormatError(f"its dicts are nested more than {MAX_DEPTH} deep, or within themselves", FOREIGN)
    seen.add(id(group))
    for key, value in group.items():
        name = prefix + key
        if len(name) > MAX_NAME_CHARS:
            raise FormatError(f"a name has {len(name):,} characters")
        if isinstance(value, StoredTensor):
            yield name, value
        elif isinstance(value, dict):
            yield from _tensors(value, seen, f"{name}.", depth + 1)


# ---- The two formats


class _Contents(NamedTuple):
    """What a file holds: its object, and where the values of each storage are."""

    root: Any
    places: dict[str, MemberPlace]
    byte_order: Literal["<", ">"] = "<"


def _contents(data: memoryview) -> _Contents:
    if data[:4] == LOCAL_SIGNATURE:
        return _zip_contents(data)
    if data[0] == 0x80:
        return _legacy_contents(data)
    found = next((what for at, mark, what in FORMATS if data[at:][: len(mark)] == mark), None)
    raise FormatError(f"it is {found}" if found else f"it begins with {bytes(data[:16])!r}")


def _zip_contents(data: memoryview) -> _Contents:
    members = read_members(data)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"it is a zip file with {len(pickles)} members */data.pkl; torch.save writes one")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise FormatError(
            "it is a TorchScript archive, which holds programs",
            "Next step: have it saved as torch.save(torch.jit.load(path).state_dict(), other_path)",
        )
    unpickler = TensorUnpickler(_member(data, members[pickles[0]], "data.pkl"), len(data))
    root = unpickler.load()
    return _Contents(
        root,
        {key: _place(members, f"{folder}data/", storage) for key, storage in unpickler.storages.items()},
        _byte_order(data, members.get(f"{folder}byteorder")),
    )


def _member(data: memoryview, place: MemberPlace, name: str) -> memoryview:
    """A small member whose checksum is right."""
    content = data[place.start : place.end]
    if len(content) > MAX_PICKLE_BYTES:
        raise FormatError(f"{name} has {len(content):,} bytes; expected at most {MAX_PICKLE_BYTES:,}", FOREIGN)
    _compare(zlib.crc32(content), place, name)
    return content


def _compare(checksum: int, place: MemberPlace, what: str) -> None:
    if checksum != place.checksum:
        is_missing = not place.checksum  # as torch.serialization.set_crc32_options(False) leaves it
        raise FormatError(
            f"the checksum of {what} is {'missing' if is_missing else 'wrong: its bytes were changed'}",
            SAVE_AGAIN if is_missing else DAMAGED,
        )


def _place(members: dict[str, MemberPlace], folder: str, storage: StoredValues) -> MemberPlace:
    place = members.get(folder + storage.key)
    if place is None:
        raise FormatError(f"it has no values for the storage {show(storage.key)}")
    _check_size(storage, place.end - place.start)
    return place


def _check_size(storage: StoredValues, n_bytes: int) -> None:
    n_expected = storage.n_items * np.dtype(storage.dtype.stored).itemsize
    if n_bytes != n_expected:
        raise FormatError(
            f"the storage {show(storage.key)} has {n_bytes:,} bytes; its {clipped(storage.n_items)} values of "
            f"{storage.dtype.name} need {clipped(n_expected)}"
        )


def _byte_order(data: memoryview, place: MemberPlace | None) -> Literal["<", ">"]:
    """Numpy's sign for it. Versions before 2.1 wrote none, on machines that are little-endian."""
    record = b"little" if place is None else bytes(_member(data, place, "byteorder"))
    if record not in (b"little", b"big"):
        raise FormatError(f"its byte order is {record[:16]!r}; expected 'little' or 'big'")
    return ">" if record == b"big" else "<"


def _legacy_contents(data: memoryview) -> _Contents:
    """Five pickles (two marks, the machine, the object, the storages), and the values of each storage."""
    unpickler = TensorUnpickler(data, len(data))
    if unpickler.load() != LEGACY_MAGIC or unpickler.load() != LEGACY_VERSION:
        raise FormatError("it is a pickle that torch.save did not write", FOREIGN)
    unpickler.load()  # a big-endian machine says so, and writes its values as others do
    root, keys = unpickler.load(), unpickler.load()
    is_list = isinstance(keys, list) and all(type(key) is str for key in keys)
    if not is_list or len(keys) != len(unpickler.storages) or {*keys} != {*unpickler.storages}:
        raise FormatError("its list of storages is not that of its tensors")
    places, at = {}, unpickler.stream.tell()
    for key in keys:
        places[key], at = _legacy_place(data, at, unpickler.storages[key])
    if at != len(data):
        raise FormatError(f"its values end at byte {at:,} of {len(data):,}")
    return _Contents(root, places)


def _legacy_place(data: memoryview, at: int, storage: StoredValues) -> tuple[MemberPlace, int]:
    """Where the values are, behind their number, and where the next storage begins."""
    itemsize = np.dtype(storage.dtype.stored).itemsize
    n_items = int.from_bytes(data[at : at + 8], "little")
    _check_size(storage, n_items * itemsize)
    place = MemberPlace(at + 8, at + 8 + n_items * itemsize)
    if place.end > len(data):
        raise FormatError(f"the storage {show(storage.key)} ends at byte {place.end:,} of {len(data):,}")
    return place, place.end


# ---- Files


class _CheckedFile(MappedFile):
    """A mapped file whose parts may have checksums."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._checked: set[MemberPlace] = set()

    def check(self, place: MemberPlace, what: str) -> None:
        """Compare bytes with their checksum, the first time."""
        if place.checksum is None or place in self._checked:
            return
        found = 0
        for chunk in self.chunks(place.start, place.end):
            found = zlib.crc32(chunk, found)
        _compare(found, place, what)
        self._checked.add(place)
