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
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.errors import WeightsError
from audioset.weights.checkpoint import (
    CHUNK_BYTES,
    FormatError,
    MappedFile,
    Variable,
    blame,
    check_variables,
    find_variable,
    take_weights,
)

Shape = tuple[int, ...]
Place = tuple[slice, ...]
Extents = tuple[tuple[int, int], ...]  # start and length of a slice on each axis, as they are stored


FLOAT_TYPES = ("float32", "float64")
MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")  # the last bytes of a table
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # behind each block: the kind of its compression, and its checksum
PLAIN, SNAPPY = 0, 1
MAX_SNAPPY_RATIO = 22  # at best, three bytes stand for 64
MAX_KEY_BYTES = 1 << 12
MAX_KEYS_BYTES = 1 << 24  # of all keys that are kept; they share prefixes in the file

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
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
    """Read exactly the tensors that a network needs.

    Parameters
    ----------
    path : Path
        A version 1 file, or the prefix or ``.index`` file of version 2.
    shapes : mapping of str to tuple of int
        What the network needs, under the checkpoint's names: ``"vggish/conv1/weights"`` and so on. Tensors
        beside them, such as an optimiser's slots and ``global_step``, are left alone.

    Returns
    -------
    dict of str to ndarray, float32
        The same names in the same order.

    Raises
    ------
    WeightsError
        No checkpoint, a damaged one, a missing tensor, a wrong shape or dtype, NaN; the message names it.
    """
    checkpoint = open_tf_checkpoint(path)
    check_variables(checkpoint, shapes, FLOAT_TYPES)
    return take_weights(checkpoint, shapes)


def open_tf_checkpoint(path: Path) -> TfCheckpoint:
    """Open a checkpoint and read its list of tensors.

    Parameters
    ----------
    path : Path
        A version 1 file, or the prefix or ``.index`` file of version 2. The file itself says which it is.

    Returns
    -------
    TfCheckpoint

    Raises
    ------
    WeightsError
        No checkpoint, or a damaged one.
    """
    path = _table_path(path)
    file = _CheckedFile(path)
    with blame(path, "TensorFlow"):
        table = _Table(file)
        header = table.get(b"")
        if header is None:
            raise FormatError("the table has no header")
        number, wire_type, meta = next(_fields(header), (0, 0, header))
        if (number, wire_type) == (1, BYTES):  # version 2 begins with a number: how many data files it has
            return TfCheckpoint(path, _Version1(table, meta))
        return TfCheckpoint(path, _Version2(table, header))


class TfCheckpoint:
    """A checkpoint whose list of tensors has been read. Its files stay mapped as long as it lives.

    Attributes
    ----------
    path : Path
        The version 1 file, or the ``.index`` file of version 2.
    variables : dict of str to Variable
        Shape and dtype of every tensor, in the file's order.
    """

    def __init__(self, path: Path, version: _Version1 | _Version2) -> None:
        self.path = path
        self.variables = {name: Variable(stored.shape, stored.dtype) for name, stored in version.stored.items()}
        self._version = version

    def read(self, name: str) -> Array:
        """Read one tensor.

        Parameters
        ----------
        name : str
            A key of ``variables``.

        Returns
        -------
        ndarray
            A copy in the stored dtype.

        Raises
        ------
        WeightsError
            No such tensor, damaged data, or a dtype that cannot be read.
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

    def __init__(self, table: _Table, meta: memoryview) -> None:
        self._table = table
        self.stored: dict[str, _Stored] = {}
        for message in _all(meta, 1):
            name = _text(_last(message, 1))
            if name in self.stored:
                raise FormatError(f"{name!r} is listed twice")
            slices = tuple(_extents(payload) for payload in _all(message, 4))
            self.stored[name] = _Stored(_shape(_last(message, 2)), _dtype(_last(message, 3)), slices)

    def values(self, name: str, extents: Extents, shape: Shape) -> Array:
        """All values of one slice, checked, and not copied if their encoding allows it."""
        value = self._table.get(_slice_key(name, extents))
        if value is None:
            raise FormatError(f"{name!r} is listed, but its values are not there")
        saved = _last(value, 2)
        if _text(_last(saved, 1)) != name:
            raise FormatError(f"the values of {name!r} belong to {_text(_last(saved, 1))!r}")
        return _tensor_values(_last(saved, 3), name, self.stored[name].dtype, math.prod(shape))

    def release(self) -> None:
        self._table.file.release()


class _Version2:
    """A table of entries, and data files in which the values follow each other."""

    def __init__(self, table: _Table, header: memoryview) -> None:
        if order := _integer(_last(header, 2)):
            raise FormatError(
                f"its byte order is {'big-endian' if order == 1 else order}; expected little-endian",
                "Next step: load and save it again with TensorFlow on a little-endian machine",
            )
        self._prefix = str(table.file.path).removesuffix(".index")
        self._n_shards = _integer(_last(header, 1))
        self._shards: dict[int, _CheckedFile] = {}
        self._slices: dict[bytes, _Stored] = {}
        self.stored: dict[str, _Stored] = {}
        for key, value in table.items():
            if key.startswith(b"\0"):
                self._slices[key] = _bundle_entry(value)
            elif key:
                self.stored[_text(key)] = _bundle_entry(value)
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

    def _shard(self, number: int) -> _CheckedFile:
        if number >= self._n_shards:
            raise FormatError(f"it names data file {number} of {self._n_shards}")
        if number not in self._shards:
            path = Path(f"{self._prefix}.data-{number:05d}-of-{self._n_shards:05d}")
            self._shards[number] = _CheckedFile(path)
        return self._shards[number]

    def release(self) -> None:
        for file in self._shards.values():
            file.release()


def _bundle_entry(message: memoryview) -> _Stored:
    return _Stored(
        shape=_shape(_last(message, 2)),
        dtype=_dtype(_last(message, 1)),
        slices=tuple(_extents(payload) for payload in _all(message, 7)),
        shard=_integer(_last(message, 3)),
        offset=_integer(_last(message, 4)),
        n_bytes=_integer(_last(message, 5)),
        checksum=int.from_bytes(_last(message, 6), "little"),
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


# ---- Tables


class _Table:
    """A sorted string table: blocks of entries, and an index of the blocks."""

    def __init__(self, file: _CheckedFile) -> None:
        footer = file.bytes[-FOOTER_BYTES:]
        if len(footer) < FOOTER_BYTES or footer[-len(MAGIC) :] != MAGIC:
            raise FormatError(f"it ends in {footer[-len(MAGIC) :].hex() or 'nothing'}; expected {MAGIC.hex()}")
        self.file = file
        self._checked: set[tuple[int, int]] = set()
        self._n_key_bytes = 0
        _, at = _block_handle(footer, 0)  # of the blocks that describe blocks; TensorFlow writes none
        handle, _ = _block_handle(footer, at)
        index = self._kept(_entries(self._block(*handle)))
        self._index = [(key, *_block_handle(value, 0)[0]) for key, value in index]
        end = 0
        for _, offset, n_bytes in self._index:
            if offset < end:
                raise FormatError(f"two blocks share the bytes from {offset:,}")
            end = offset + n_bytes

    def get(self, key: bytes) -> memoryview | None:
        """The value of a key, or None."""
        at = bisect_left(self._index, key, key=itemgetter(0))  # blocks are listed by a key not below their last
        if at == len(self._index):
            return None
        _, offset, n_bytes = self._index[at]
        return next((value for found, value in _entries(self._block(offset, n_bytes)) if found == key), None)

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """All keys and values."""
        for _, offset, n_bytes in self._index:
            yield from self._kept(_entries(self._block(offset, n_bytes)))

    def _kept(self, entries: Iterator[tuple[bytes, memoryview]]) -> Iterator[tuple[bytes, memoryview]]:
        for key, value in entries:
            self._n_key_bytes += len(key)
            if self._n_key_bytes > MAX_KEYS_BYTES:
                raise FormatError(f"its keys take more than {MAX_KEYS_BYTES:,} bytes")
            yield key, value

    def _block(self, offset: int, n_bytes: int) -> memoryview:
        """A block, its checksum verified the first time, decompressed if need be."""
        end = offset + n_bytes
        trailer = self.file.bytes[end : end + TRAILER_BYTES]
        if len(trailer) < TRAILER_BYTES:
            raise FormatError(f"a block ends at byte {end:,} of {len(self.file.bytes):,}")
        if (offset, end) not in self._checked:
            self.file.check(offset, end + 1, int.from_bytes(trailer[1:], "little"), f"the block at byte {offset:,}")
            self._checked.add((offset, end))
        content = self.file.bytes[offset:end]
        if trailer[0] == SNAPPY:
            return memoryview(_unsnappy(content))
        if trailer[0] != PLAIN:
            raise FormatError(f"the block at byte {offset:,} has compression {trailer[0]}; expected none or snappy")
        return content


def _block_handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where the next handle begins."""
    offset, at = _varint(data, at)
    n_bytes, at = _varint(data, at)
    return (offset, n_bytes), at


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a block. Each key is stored as what it does not share with the one before."""
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * n_restarts  # they serve a binary search, which is not worth it here
    if end < 0:
        raise FormatError(f"a block of {len(block):,} bytes has {n_restarts:,} restarts")
    at, previous = 0, None
    while at < end:
        n_shared, at = _varint(block, at)
        n_rest, at = _varint(block, at)
        n_value, at = _varint(block, at)
        if n_shared > len(previous or b"") or n_shared + n_rest > MAX_KEY_BYTES or at + n_rest + n_value > end:
            raise FormatError("an entry does not fit into its block")
        key = (previous or b"")[:n_shared] + bytes(block[at : at + n_rest])
        if previous is not None and key <= previous:
            raise FormatError(f"the key {key!r} follows {previous!r}")
        yield key, block[at + n_rest : at + n_rest + n_value]
        at, previous = at + n_rest + n_value, key


def _unsnappy(data: memoryview) -> bytearray:
    """Decompress a block: literal bytes, and references to bytes that came before."""
    n_bytes, at = _varint(data, 0)
    if n_bytes > MAX_SNAPPY_RATIO * len(data):
        raise FormatError(f"{len(data):,} compressed bytes claim to be {n_bytes:,}")
    plain = bytearray()
    while at < len(data) and len(plain) <= n_bytes:
        if data[at] & 3:
            distance, length, at = _reference(data, at)
            start = len(plain) - distance
            if not 0 <= start < len(plain):
                raise FormatError("compressed data refer to what is not there")
            run = plain[start : start + length]
            plain += run if distance >= length else (run * (length // distance + 1))[:length]
        else:
            start, at = _literal(data, at)
            plain += data[start:at]
    if len(plain) != n_bytes or at != len(data):
        raise FormatError(f"a compressed block has {len(plain):,} bytes; expected {n_bytes:,}")
    return plain


def _literal(data: memoryview, at: int) -> tuple[int, int]:
    """Where literal bytes begin and end. Above 60, their count has up to four bytes of its own."""
    length, at = (data[at] >> 2) + 1, at + 1
    if (n_digits := length - 60) > 0:
        length, at = int.from_bytes(data[at : at + n_digits], "little") + 1, at + n_digits
    return at, at + length


def _reference(data: memoryview, at: int) -> tuple[int, int, int]:
    """How far back and how long a reference is, and what comes after it."""
    tag = data[at]
    end = at + (2, 3, 5)[(tag & 3) - 1]
    distance = int.from_bytes(data[at + 1 : end], "little")
    if tag & 3 == 1:
        return distance | tag >> 5 << 8, (tag >> 2 & 7) + 4, end
    return distance, (tag >> 2) + 1, end


# ---- Protobuf messages


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and payload of each field; the payload of a number is its encoding."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire_type = tag & 7
        if wire_type == VARINT:
            end = _varint(message, at)[1]
        elif wire_type == BYTES:
            n_bytes, at = _varint(message, at)
            end = at + n_bytes
        elif wire_type in (FIXED32, FIXED64):
            end = at + (4 if wire_type == FIXED32 else 8)
        else:
            raise FormatError(f"a message has a field of wire type {wire_type}")
        if end > len(message):
            raise FormatError("a field does not fit into its message")
        yield tag >> 3, wire_type, message[at:end]
        at = end


def _all(message: memoryview, number: int) -> Iterator[memoryview]:
    return (payload for found, _, payload in _fields(message) if found == number)


def _last(message: memoryview, number: int) -> memoryview:
    """A field that counts once; empty if it is absent."""
    last = memoryview(b"")
    for payload in _all(message, number):
        last = payload
    return last


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven to a byte, and where the next thing begins."""
    number = 0
    for shift, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + shift + 1
    raise FormatError("a number does not end")


def _integer(payload: memoryview) -> int:
    return _varint(payload, 0)[0] if payload else 0


def _signed(payload: memoryview) -> int:
    number = _integer(payload)
    return number - (number >> 63 << 64)


def _text(payload: memoryview | bytes) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"a name is not text: {bytes(payload)!r}") from error


def _dtype(payload: memoryview) -> str:
    number = _integer(payload)
    return READ_TYPES.get(number) or OTHER_TYPES.get(number) or f"type {number}"


def _shape(message: memoryview) -> Shape:
    shape = tuple(_signed(_last(dimension, 1)) for dimension in _all(message, 2))
    if _integer(_last(message, 3)) or len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise FormatError("the shape of a tensor is unknown")
    if math.prod(max(1, n) for n in shape) > MAX_ITEMS:
        raise FormatError(f"a tensor claims the shape {shape}")
    return shape


def _extents(message: memoryview) -> Extents:
    return tuple(_extent(payload) for payload in _all(message, 1))


def _extent(message: memoryview) -> tuple[int, int]:
    start, length = _signed(_last(message, 1)), _last(message, 2)
    return start, _signed(length) if length else -1


def _tensor_values(message: memoryview, name: str, dtype: str, n_values: int) -> Array:
    """All values of a TensorProto."""
    raw: memoryview | bytearray = _last(message, TENSOR_CONTENT)
    is_encoded = not raw and dtype.startswith("int")
    raw = raw or _joined(_all(message, VALUE_FIELDS[dtype]))
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


# ---- Files


class _CheckedFile(MappedFile):
    """A mapped file whose parts have checksums."""

    def check(self, start: int, end: int, checksum: int, what: str) -> None:
        """Compare bytes with their checksum: CRC-32C, stored rotated and with a constant added."""
        import google_crc32c

        if end > len(self.bytes):
            raise FormatError(f"{what} ends at byte {end:,} of {len(self.bytes):,}")
        found = 0
        for chunk in self.chunks(start, end):
            found = google_crc32c.extend(found, bytes(chunk))
        if ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF != checksum:
            raise FormatError(f"the checksum of {what} is wrong: its bytes were changed")
