"""Read TensorFlow checkpoints without TensorFlow.

Version 1 is one file: a sorted string table whose values are the tensors. Version 2 is a table of the same kind
(``.index``) that says where the tensors lie in the data files beside it. The files are mapped, not read; whatever
is used has its checksum verified; and no size that a file claims takes memory before the bytes behind it are found.

Sources: TensorFlow's ``core/lib/io/table_builder.cc``, ``core/util/tensor_slice_writer.cc``,
``core/util/saved_tensor_slice_util.cc``, ``core/lib/strings/ordered_code.cc``,
``core/util/tensor_bundle/tensor_bundle.cc`` and the protobuf messages that they write; the description of snappy's
format. Distance from what TensorFlow reads: none, bit by bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.errors import WeightsError
from audioset.weights.checkpoint import (
    CHUNK_BYTES,
    FormatError,
    Variable,
    blame,
    check_variables,
    find_variable,
    take_weights,
)
from audioset.weights.protobuf import BYTES, all_fields, fields, last_field, to_integer, to_signed, to_text
from audioset.weights.tf_table import ChecksummedFile, StringTable

Shape = tuple[int, ...]
Place = tuple[slice, ...]
Extents = tuple[tuple[int, int], ...]  # start and length of a slice on each axis, as they are stored


FLOAT_TYPES = ("float32", "float64")

MAX_RANK = 32
MAX_ITEMS = 1 << 48  # of one tensor: beyond any file, within what numpy can count
WHOLE_AXIS = (0, -1)

# TensorFlow's DataType: what is read, and the names of what is not.
READ_TYPES = {1: "float32", 2: "float64", 3: "int32", 9: "int64"}
OTHER_TYPES = {4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64", 10: "bool", 14: "bfloat16"}
OTHER_TYPES |= {17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64"}
TENSOR_CONTENT = 4  # fields of TensorProto: raw bytes, and values of each dtype
VALUE_FIELDS = {"float32": 5, "float64": 6, "int32": 7, "int64": 10}

DATA_FILE = re.compile(r"(.*)\.data-\d{5}-of-\d{5}")


def read_tf_checkpoint(path: Path, shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
    """Read exactly the tensors that a network needs, as float32, in the order of ``shapes``.

    ``path`` is a version 1 file, or the prefix or ``.index`` file of version 2. ``shapes`` are by the checkpoint's
    names (``"vggish/conv1/weights"``). Tensors beside them, such as an optimiser's slots and ``global_step``, are left
    alone. WeightsError, which names it: no checkpoint, a damaged one, a missing tensor, a wrong shape or dtype, NaN.
    """
    checkpoint = open_tf_checkpoint(path)
    check_variables(checkpoint, shapes, FLOAT_TYPES)
    return take_weights(checkpoint, shapes)


def open_tf_checkpoint(path: Path) -> TfCheckpoint:
    """Open a checkpoint and read its list of tensors; WeightsError if there is none, or it is damaged.

    ``path`` is a version 1 file, or the prefix or ``.index`` file of version 2. The file itself says which it is.
    """
    path = _table_path(path)
    file = ChecksummedFile(path)
    with blame(path, "TensorFlow"):
        table = StringTable(file)
        header = table.get(b"")
        if header is None:
            raise FormatError("the table has no header")
        number, wire_type, meta = next(fields(header), (0, 0, header))
        if (number, wire_type) == (1, BYTES):  # version 2 begins with a number: how many data files it has
            return TfCheckpoint(path, _Version1(table, meta))
        return TfCheckpoint(path, _Version2(table, header))


class TfCheckpoint:
    """A checkpoint whose list of tensors has been read. Its files stay mapped as long as it lives."""

    def __init__(self, path: Path, version: _Version1 | _Version2) -> None:
        self.path = path  # the version 1 file, or the ``.index`` file of version 2
        # Shape and dtype of every tensor, in the file's order.
        self.variables = {name: Variable(stored.shape, stored.dtype) for name, stored in version.stored.items()}
        self._version = version

    def read(self, name: str) -> Array:
        """A copy of one of ``variables`` in its stored dtype.

        WeightsError: no such tensor, damaged data, or a dtype that cannot be read.
        """
        return self._read(name, find_variable(self, name).dtype)

    def _read(self, name: str, dtype: str) -> Array:
        """One tensor in another dtype: converted chunk by chunk on its way out of the file."""
        stored = self._version.stored[name]
        if stored.dtype not in VALUE_FIELDS:
            raise WeightsError(
                f"{self.path}: {name!r} has dtype {stored.dtype}; expected one of {', '.join(VALUE_FIELDS)}"
            )
        with blame(self.path, "TensorFlow"):
            parts = [
                (place, self._version.values(name, extents, _shape_of(place)))
                for place, extents in _tiles(name, stored.shape, stored.slices)
            ]
        tensor = np.empty(stored.shape, dtype)
        for place, values in parts:
            _copy(values, tensor[place] if place else tensor, self._version)
        return tensor


def _table_path(path: Path) -> Path:
    """The file that lists the tensors."""
    if data_file := DATA_FILE.fullmatch(str(path)):
        raise WeightsError(
            f"{path} holds the values of a version 2 checkpoint, not their names. Next step: give "
            f"{data_file[1]}.index, which belongs beside it"
        )
    index = Path(f"{path}.index")
    if path.is_file():
        return path
    if not index.is_file():
        raise WeightsError(
            f"there is no checkpoint {path}: neither that file nor {index.name} beside it exists. Next step: give the "
            "version 1 file, or the .index file of version 2"
        )
    return index


def _copy(values: Array, target: Array, version: _Version1 | _Version2) -> None:
    """Copy out of the file without holding more than a chunk of it in memory."""
    source = values.reshape(target.shape)
    if source.ndim == 0:
        target[...] = source
        return
    n_rows = max(1, CHUNK_BYTES * len(source) // max(1, source.nbytes))
    for i in range(0, len(source), n_rows):
        target[i : i + n_rows] = source[i : i + n_rows]
        version.release()


# ---- The two versions


@dataclass(frozen=True)
class _Stored:
    """One entry of the list of tensors: what it is, and where.

    ``slices`` are the parts that have entries of their own. Version 2 gives the rest for an entry without them.
    """

    shape: Shape
    dtype: str
    slices: tuple[Extents, ...] = ()
    shard: int = 0
    offset: int = 0
    n_bytes: int = 0
    checksum: int = 0


class _Version1:
    """One file: each slice of a tensor is a value of its table."""

    def __init__(self, table: StringTable, meta: memoryview) -> None:
        self._table = table
        self.stored: dict[str, _Stored] = {}
        for message in all_fields(meta, 1):
            name = to_text(last_field(message, 1))
            if name in self.stored:
                raise FormatError(f"{name!r} is listed twice")
            slices = tuple(_extents(payload) for payload in all_fields(message, 4))
            self.stored[name] = _Stored(_shape(last_field(message, 2)), _dtype(last_field(message, 3)), slices)

    def values(self, name: str, extents: Extents, shape: Shape) -> Array:
        """All values of one slice, checked, and not copied if their encoding allows it."""
        value = self._table.get(_slice_key(name, extents))
        if value is None:
            raise FormatError(f"{name!r} is listed, but its values are not there")
        saved = last_field(value, 2)
        if to_text(last_field(saved, 1)) != name:
            raise FormatError(f"the values of {name!r} belong to {to_text(last_field(saved, 1))!r}")
        return _tensor_values(last_field(saved, 3), name, self.stored[name].dtype, math.prod(shape))

    def release(self) -> None:
        self._table.file.release()


class _Version2:
    """A table of entries, and data files in which the values follow each other."""

    def __init__(self, table: StringTable, header: memoryview) -> None:
        if order := to_integer(last_field(header, 2)):
            raise FormatError(
                f"its byte order is {'big-endian' if order == 1 else order}; expected little-endian",
                "Next step: load and save it again with TensorFlow on a little-endian machine",
            )
        self._prefix = str(table.file.path).removesuffix(".index")
        self._n_shards = to_integer(last_field(header, 1))
        self._shards: dict[int, ChecksummedFile] = {}
        self._slices: dict[bytes, _Stored] = {}
        self.stored: dict[str, _Stored] = {}
        for key, value in table.items():
            if key.startswith(b"\0"):
                self._slices[key] = _bundle_entry(value)
            elif key:
                self.stored[to_text(key)] = _bundle_entry(value)
        self._check_apart()

    def _check_apart(self) -> None:
        """No byte is the value of two tensors, so the tensors are not larger than the files."""
        parts = [stored for stored in (*self.stored.values(), *self._slices.values()) if not stored.slices]
        shard, end = 0, 0
        for part in sorted(parts, key=attrgetter("shard", "offset", "n_bytes")):
            if part.shard == shard and part.offset < end:
                raise FormatError(f"two tensors share the bytes from {part.offset:,} of data file {shard}")
            shard, end = part.shard, part.offset + part.n_bytes

    def values(self, name: str, extents: Extents, shape: Shape) -> Array:
        """All values of one slice, checked and not copied."""
        whole = self.stored[name]
        part = self._slices.get(_slice_key(name, extents)) if whole.slices else whole
        if part is None:
            raise FormatError(f"{name!r} is listed, but the values of its slice {extents} are not there")
        if (part.shape, part.dtype) != (shape, whole.dtype):
            raise FormatError(
                f"a slice of {name!r} is {part.dtype} of shape {part.shape}; expected {whole.dtype} of shape {shape}"
            )
        dtype = np.dtype(part.dtype).newbyteorder("<")
        if part.n_bytes != math.prod(shape) * dtype.itemsize:
            raise FormatError(f"{name!r} has {part.n_bytes:,} bytes, which do not make shape {shape}")
        file, end = self._shard(part.shard), part.offset + part.n_bytes
        with blame(file.path, "TensorFlow"):
            file.check(part.offset, end, part.checksum, repr(name))
        return np.frombuffer(file.bytes[part.offset : end], dtype)

    def _shard(self, number: int) -> ChecksummedFile:
        if number >= self._n_shards:
            raise FormatError(f"it names data file {number} of {self._n_shards}")
        if number not in self._shards:
            path = Path(f"{self._prefix}.data-{number:05d}-of-{self._n_shards:05d}")
            self._shards[number] = ChecksummedFile(path)
        return self._shards[number]

    def release(self) -> None:
        for file in self._shards.values():
            file.release()


def _bundle_entry(message: memoryview) -> _Stored:
    return _Stored(
        shape=_shape(last_field(message, 2)),
        dtype=_dtype(last_field(message, 1)),
        slices=tuple(_extents(payload) for payload in all_fields(message, 7)),
        shard=to_integer(last_field(message, 3)),
        offset=to_integer(last_field(message, 4)),
        n_bytes=to_integer(last_field(message, 5)),
        checksum=int.from_bytes(last_field(message, 6), "little"),
    )


def _tiles(name: str, shape: Shape, slices: tuple[Extents, ...]) -> list[tuple[Place, Extents]]:
    """Where each slice of a tensor goes. Together they are the tensor, cut along one axis at most."""
    whole = tuple(slice(0, n) for n in shape)
    if not slices:
        return [(whole, (WHOLE_AXIS,) * len(shape))]
    tiles = [(_place(name, shape, extents), extents) for extents in slices]
    axes = sorted({axis for place, _ in tiles for axis, part in enumerate(place) if part != whole[axis]})
    if len(axes) > 1:
        raise FormatError(
            f"{name!r} is cut along the axes {axes}; expected one axis",
            "Next step: load and save it again with TensorFlow, without a partitioner",
        )
    if not axes:
        if len(tiles) > 1:
            raise FormatError(f"{name!r} is stored {len(tiles)} times; expected once")
        return tiles
    tiles.sort(key=lambda tile: tile[0][axes[0]].start)
    bounds = [(place[axes[0]].start, place[axes[0]].stop) for place, _ in tiles]
    if [0, *(stop for _, stop in bounds)] != [*(start for start, _ in bounds), shape[axes[0]]]:
        raise FormatError(f"the slices of {name!r} overlap or leave gaps")
    return tiles


def _place(name: str, shape: Shape, extents: Extents) -> Place:
    if len(extents) != len(shape):
        raise FormatError(f"a slice of {name!r} has {len(extents)} axes; expected {len(shape)}")
    place = tuple(
        slice(0, n) if extent == WHOLE_AXIS else slice(extent[0], sum(extent))
        for n, extent in zip(shape, extents, strict=True)
    )
    if not all(0 <= part.start <= part.stop <= n for n, part in zip(shape, place, strict=True)):
        raise FormatError(f"a slice of {name!r} lies outside its shape {shape}: {extents}")
    return place


def _shape_of(place: Place) -> Shape:
    return tuple(part.stop - part.start for part in place)


def _slice_key(name: str, extents: Extents) -> bytes:
    """The key of a slice in TensorFlow's ordered code: keys sort as the names and numbers in them do."""
    text = name.encode().replace(b"\0", b"\0\xff")  # 0xff itself, the other escape, is never in UTF-8
    rank = bytes((1, len(extents))) if extents else b"\0"
    numbers = b"".join(_ordered_number(number) for extent in extents for number in extent)
    return b"\0" + text + b"\0\1" + rank + numbers


def _ordered_number(number: int) -> bytes:
    """A signed number in as few bytes as hold it, their count in the leading bits."""
    n_bytes = (number if number >= 0 else ~number).bit_length() // 7 + 1
    n_bits = 8 * n_bytes
    header = ((1 << n_bytes) - 1) << (n_bits - n_bytes)
    return ((number & ((1 << n_bits) - 1)) ^ header).to_bytes(n_bytes, "big")


# ---- Values


def _dtype(payload: memoryview) -> str:
    number = to_integer(payload)
    return READ_TYPES.get(number) or OTHER_TYPES.get(number) or f"type {number}"


def _shape(message: memoryview) -> Shape:
    shape = tuple(to_signed(last_field(dimension, 1)) for dimension in all_fields(message, 2))
    if to_integer(last_field(message, 3)) or len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise FormatError("the shape of a tensor is unknown")
    if math.prod(max(1, n) for n in shape) > MAX_ITEMS:
        raise FormatError(f"a tensor claims the shape {shape}")
    return shape


def _extents(message: memoryview) -> Extents:
    return tuple(_extent(payload) for payload in all_fields(message, 1))


def _extent(message: memoryview) -> tuple[int, int]:
    start, length = to_signed(last_field(message, 1)), last_field(message, 2)
    return start, to_signed(length) if length else -1


def _tensor_values(message: memoryview, name: str, dtype: str, n_values: int) -> Array:
    """All values of a TensorProto."""
    raw: memoryview | bytearray = last_field(message, TENSOR_CONTENT)
    is_encoded = not raw and dtype.startswith("int")
    raw = raw or _joined(all_fields(message, VALUE_FIELDS[dtype]))
    stored = np.dtype(np.uint8 if is_encoded else dtype).newbyteorder("<")
    if len(raw) % stored.itemsize:
        raise FormatError(f"{name!r} has {len(raw):,} bytes, no whole number of values")
    values = np.frombuffer(raw, stored)
    found = np.count_nonzero(values < 0x80) if is_encoded else len(values)
    if found != n_values:
        raise FormatError(f"{name!r} has {found:,} values; its shape needs {n_values:,}")
    return _decode_varints(values, name).astype(dtype) if is_encoded else values


def _joined(payloads: Iterator[memoryview]) -> memoryview | bytearray:
    """The payloads of a repeated field. Usually it is one, which is not copied."""
    first, second = next(payloads, memoryview(b"")), next(payloads, None)
    if second is None:
        return first
    joined = bytearray(first) + second
    for payload in payloads:
        joined += payload
    return joined


def _decode_varints(encoded: Array, name: str) -> Array:
    """Numbers of up to ten bytes, seven bits to a byte; the last byte of each is below 128."""
    ends = np.flatnonzero(encoded < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1)) if ends.size else ends
    lengths = ends - starts + 1
    if lengths.max(initial=0) > 10 or lengths.sum() != encoded.size:
        raise FormatError(f"the values of {name!r} do not end")
    numbers = np.zeros(ends.size, np.uint64)
    for i in range(int(lengths.max(initial=0))):
        longer = lengths > i
        numbers[longer] |= (encoded[starts[longer] + i] & 0x7F).astype(np.uint64) << np.uint64(7 * i)
    return numbers.view(np.int64)
