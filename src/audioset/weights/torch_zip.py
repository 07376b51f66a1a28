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

import io
import math
import pickletools
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.errors import WeightsError
from audioset.weights.checkpoint import (
    CHUNK_BYTES,
    DAMAGED,
    FormatError,
    MappedFile,
    Variable,
    blame,
    check_variables,
    find_variable,
    take_weights,
)

Shape = tuple[int, ...]

FLOAT_TYPES = ("float16", "bfloat16", "float32", "float64")
STATE_DICT_KEYS = ("model", "state_dict")  # where training scripts put it, beside their own state

MAX_PICKLE_BYTES = 1 << 24  # a thousand tensors take 0.1 MB
MAX_EXTRA_BYTES = 1 << 25  # of memory, beyond the size of the file, for what a pickle makes
OPCODE_BYTES = 112  # of memory that one opcode takes at most, beside its argument: an empty dict and its memo
MAX_MEMBERS = 1 << 14
MAX_MEMBER_NAME_BYTES = 300
MAX_EXPANDED_BYTES = 1 << 24  # of a tensor that repeats its values, in a smaller file
MAX_DEPTH = 12
MAX_NAME_CHARS = 1 << 10
MAX_RANK = 32
MAX_ITEMS = 1 << 48  # of one tensor: beyond any file, within what numpy can count
MAX_ARGUMENTS = 16
MAX_INT_BITS = 1 << 10  # the states of random generators have 128

LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001

FOREIGN = (
    "Expected tensors and plain data. Likely cause: a whole model was saved in place of its state_dict, or the file is "
    "meant to do harm; nothing of it was run. Next step: take the weights from a source that you trust, or have them "
    "saved again as torch.save(model.state_dict(), path)"
)
SAVE_AGAIN = "Next step: load and save it again with torch.save, or take the file as it was published"

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
    """Read exactly the tensors that a network needs.

    Parameters
    ----------
    path : Path
        What ``torch.save`` wrote, in the zip format or the one before.
    shapes : mapping of str to tuple of int
        What the network needs, under the checkpoint's names: ``"features.0.0.weight"`` and so on.
    ignored : sequence of str
        Patterns, as a shell has them, of the tensors that the checkpoint may have beside these. By default, the
        counters of batch norms.

    Returns
    -------
    dict of str to ndarray, float32
        The same names in the same order.

    Raises
    ------
    WeightsError
        No checkpoint, a damaged or a harmful one, a missing or additional tensor, a wrong shape or dtype, NaN; the
        message names it.
    """
    checkpoint = open_torch_checkpoint(path)
    check_variables(checkpoint, shapes, FLOAT_TYPES)
    _check_known(checkpoint, shapes, ignored)
    return take_weights(checkpoint, shapes)


def open_torch_checkpoint(path: Path) -> TorchCheckpoint:
    """Open a checkpoint and read its list of tensors.

    Parameters
    ----------
    path : Path
        What ``torch.save`` wrote, in the zip format or the one before. The state dict is the whole of it, or what
        it has under ``"model"`` or ``"state_dict"``.

    Returns
    -------
    TorchCheckpoint

    Raises
    ------
    WeightsError
        No checkpoint, or a damaged or harmful one.
    """
    file = _CheckedFile(path)
    with blame(path, "PyTorch"):
        return TorchCheckpoint(path, file, _contents(file.bytes))


class TorchCheckpoint:
    """A checkpoint whose list of tensors has been read. Its file stays mapped as long as it lives.

    Attributes
    ----------
    path : Path
    variables : dict of str to Variable
        Shape and dtype of every tensor of the state dict, in the file's order. The names of nested dicts are joined
        with dots.
    """

    def __init__(self, path: Path, file: _CheckedFile, contents: _Contents) -> None:
        self.path = path
        self._file = file
        self._places = contents.places
        self._byte_order = contents.byte_order
        self._tensors = _state_dict(contents.root)
        for name, tensor in self._tensors.items():
            _check_tensor(tensor, name, len(file.bytes))
        self.variables = {
            name: Variable(tensor.shape, tensor.storage.dtype.name) for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> Array:
        """Read one tensor.

        Parameters
        ----------
        name : str
            A key of ``variables``.

        Returns
        -------
        ndarray
            A copy in the stored dtype; bfloat16, which numpy does not have, becomes float32, exactly.

        Raises
        ------
        WeightsError
            No such tensor, or damaged data.
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


class _Dtype(NamedTuple):
    """A dtype as PyTorch calls it, and numpy's for its items in the file and for what is returned."""

    name: str
    stored: str
    result: str


class _Storage(NamedTuple):
    """Values that one or more tensors share."""

    key: str
    dtype: _Dtype
    n_items: int


class _Tensor(NamedTuple):
    """A part of a storage; offset and strides count items."""

    storage: _Storage
    offset: int
    shape: Shape
    strides: Shape


def _storage(saved_id: Any) -> _Storage:
    """What stands for the values of a tensor. The format before zip adds which part of a storage it is."""
    if type(saved_id) is not tuple or len(saved_id) not in (5, 6) or saved_id[0] != "storage":
        raise FormatError(f"it refers to {_show(saved_id)}, which is not the values of a tensor", FOREIGN)
    dtype, key, _, n_items = saved_id[1:5]
    if not (isinstance(dtype, _Dtype) and type(key) is str and type(n_items) is int and n_items >= 0):
        raise FormatError(f"it describes the values of a tensor as {', '.join(map(_show, saved_id))}")
    if saved_id[5:] not in ((), (None,)):
        raise FormatError(f"the storage {_show(key)} is a part of another", SAVE_AGAIN)
    return _Storage(key, dtype, n_items)


def _rebuild_tensor(args: tuple[Any, ...]) -> _Tensor:
    storage, offset, shape, strides = args[:4]
    numbers = (shape, strides, (offset,))
    if not (isinstance(storage, _Storage) and all(_are_ints(n) and min(n, default=0) >= 0 for n in numbers)):
        raise FormatError(
            f"it describes a tensor as a part of {_show(storage)} with offset {_show(offset)}, shape {_show(shape)} "
            f"and strides {_show(strides)}; expected counts"
        )
    if len(shape) != len(strides):
        raise FormatError(f"a tensor has the shape {_show(shape)} and the strides {_show(strides)}")
    return _Tensor(storage, offset, shape, strides)


def _are_ints(values: Any) -> bool:
    return type(values) is tuple and len(values) <= MAX_RANK and all(type(n) is int for n in values)


def _check_tensor(tensor: _Tensor, name: str, n_file_bytes: int) -> None:
    """No tensor reaches beyond its storage, nor repeats values until memory is full."""
    storage, offset, shape, strides = tensor
    if math.prod(max(1, n) for n in shape) > MAX_ITEMS:
        raise FormatError(f"{name!r} claims the shape {_clipped(shape)}")
    n_bytes = math.prod(shape) * np.dtype(storage.dtype.stored).itemsize
    if n_bytes > max(n_file_bytes, MAX_EXPANDED_BYTES):
        raise FormatError(f"{name!r} claims {n_bytes:,} bytes; the whole file has {n_file_bytes:,}")
    end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    if n_bytes and end > storage.n_items:
        raise FormatError(
            f"{name!r} has shape {shape}, strides {_clipped(strides)} and offset {_clipped(offset)}, which reach "
            f"beyond the {_clipped(storage.n_items)} values of its storage"
        )


def _state_dict(root: Any) -> dict[str, _Tensor]:
    """The tensors of a state dict under their names, in their order."""
    if isinstance(root, dict):
        for group in (*map(root.get, STATE_DICT_KEYS), root):
            if isinstance(group, dict) and (tensors := _by_name(group)):
                return tensors
    raise FormatError(
        f"it holds {_show(root)} without tensors; expected a state dict, at the top or under "
        f"{' or '.join(map(repr, STATE_DICT_KEYS))}",
        "Likely cause: a file that belongs to the weights. Next step: give the one with the weights themselves",
    )


def _by_name(group: dict[str, Any]) -> dict[str, _Tensor]:
    tensors: dict[str, _Tensor] = {}
    for name, tensor in _tensors(group, set()):
        if name in tensors:
            raise FormatError(f"it has two tensors {name!r}")
        tensors[name] = tensor
    return tensors


def _tensors(group: dict[str, Any], seen: set[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, _Tensor]]:
    if depth > MAX_DEPTH or id(group) in seen:
        raise FormatError(f"its dicts are nested more than {MAX_DEPTH} deep, or within themselves", FOREIGN)
    seen.add(id(group))
    for key, value in group.items():
        name = prefix + key
        if len(name) > MAX_NAME_CHARS:
            raise FormatError(f"a name has {len(name):,} characters")
        if isinstance(value, _Tensor):
            yield name, value
        elif isinstance(value, dict):
            yield from _tensors(value, seen, f"{name}.", depth + 1)


# ---- The pickle


class _LeftOut:
    """Stands for plain data of other kinds, which nobody asks for."""


LEFT_OUT = _LeftOut()


def _leave_out(args: tuple[Any, ...]) -> _LeftOut:
    return LEFT_OUT


def _ordered_dict(args: tuple[Any, ...]) -> dict[str, Any]:
    """Empty, as its items follow; Python 2 gave them as pairs."""
    pairs = args[0] if args else []
    if type(pairs) is not list or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
        raise FormatError(f"it makes a dict of {_show(pairs)}; expected pairs")
    return {key: value for key, value in pairs if type(key) is str}


def _first(args: tuple[Any, ...]) -> Any:
    return args[0]


# Everything that a pickle may name, and what stands for it. These functions are all that it can call.
KNOWN: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch.Size": _first,
    "torch.HalfStorage": _Dtype("float16", "f2", "f2"),
    "torch.BFloat16Storage": _Dtype("bfloat16", "u2", "f4"),
    "torch.FloatStorage": _Dtype("float32", "f4", "f4"),
    "torch.DoubleStorage": _Dtype("float64", "f8", "f8"),
    "torch.CharStorage": _Dtype("int8", "i1", "i1"),
    "torch.ShortStorage": _Dtype("int16", "i2", "i2"),
    "torch.IntStorage": _Dtype("int32", "i4", "i4"),
    "torch.LongStorage": _Dtype("int64", "i8", "i8"),
    "torch.ByteStorage": _Dtype("uint8", "u1", "u1"),
    "torch.BoolStorage": _Dtype("bool", "u1", "?"),
}
KNOWN |= dict.fromkeys(("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64", "torch.bool"), LEFT_OUT)
KNOWN |= dict.fromkeys(("torch.int8", "torch.int16", "torch.int32", "torch.int64", "torch.uint8"), LEFT_OUT)
KNOWN |= dict.fromkeys((f"builtins.{kind}" for kind in ("set", "frozenset", "bytearray")), _leave_out)
KNOWN |= dict.fromkeys((f"__builtin__.{kind}" for kind in ("set", "frozenset", "bytearray")), _leave_out)
KNOWN |= dict.fromkeys(("_codecs.encode", "torch.device", "numpy.ndarray", "numpy.dtype"), _leave_out)
KNOWN |= dict.fromkeys((f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")), _leave_out)
KNOWN |= dict.fromkeys((f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")), _leave_out)


class _Unpickler:
    """Runs the opcodes of pickles that follow each other in a stream.

    Nothing is imported, called or set but what ``KNOWN`` has. Dicts keep what has a string as its key: the rest is
    never asked for, and keys of other kinds can be made to collide.

    Attributes
    ----------
    storages : dict of str to _Storage
        What the pickles referred to.
    """

    def __init__(self, data: memoryview, n_file_bytes: int) -> None:
        self.stream = io.BytesIO(data[:MAX_PICKLE_BYTES])
        self.storages: dict[str, _Storage] = {}
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self._budget_bytes = n_file_bytes + MAX_EXTRA_BYTES

    def load(self) -> Any:
        """The object of the next pickle."""
        self.stack, self.marks, self.memo = [], [], {}
        try:
            while (code := self.stream.read(1)) != b".":
                self._run(code)
            return self.stack.pop()
        except (ValueError, IndexError, OverflowError, struct.error) as error:  # pickletools', and our own stack's
            raise FormatError(f"its pickle is damaged near byte {self.stream.tell():,}") from error

    def _run(self, code: bytes) -> None:
        if code not in OPCODES:
            raise FormatError(
                f"its pickle has the opcode {code!r} at byte {self.stream.tell() - 1:,}"
                if code
                else "its pickle ends early"
            )
        read_argument, run = OPCODES[code]
        argument = read_argument(self.stream) if read_argument else None
        if isinstance(argument, int) and argument.bit_length() > MAX_INT_BITS:
            raise FormatError(f"its pickle has a number of {argument.bit_length():,} bits")
        self.spend(sys.getsizeof(argument))
        run(self, argument)

    def spend(self, n_bytes: int) -> None:
        """Keep account of the memory that objects take."""
        self._budget_bytes -= OPCODE_BYTES + n_bytes
        if self._budget_bytes < 0:
            raise FormatError("its pickle makes more objects than a list of tensors needs", FOREIGN)

    def items(self) -> list[Any]:
        """Take everything above the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def pop(self, n: int) -> list[Any]:
        """Take the last ``n`` objects."""
        return [self.stack.pop() for _ in range(n)][::-1]


Handler = Callable[[_Unpickler, Any], object]


def _push(make: Callable[[], Any]) -> Handler:
    return lambda machine, argument: machine.stack.append(make())


def _literal(machine: _Unpickler, argument: Any) -> None:
    machine.stack.append(argument)


def _mark(machine: _Unpickler, argument: None) -> None:
    machine.marks.append(len(machine.stack))


def _name(machine: _Unpickler, argument: str) -> None:
    """GLOBAL: a callable by its name. It is looked up in a table, and nowhere else."""
    machine.stack.append(_known(*argument.split(" ", 1)))


def _name_from_stack(machine: _Unpickler, argument: None) -> None:
    machine.stack.append(_known(*machine.pop(2)))


def _known(module: Any, name: Any) -> Any:
    dotted = f"{module}.{name}" if type(module) is type(name) is str else f"{_show(module)}.{_show(name)}"
    if dotted not in KNOWN:
        raise FormatError(f"it wants to run {_clipped(dotted)}", FOREIGN)
    return KNOWN[dotted]


def _reduce(machine: _Unpickler, argument: None) -> None:
    _call(machine, *machine.pop(2))


def _instance(machine: _Unpickler, argument: str) -> None:
    """INST: the name of a callable, and its arguments above the mark."""
    _call(machine, _known(*argument.split(" ", 1)), tuple(machine.items()))


def _call(machine: _Unpickler, function: Any, args: Any) -> None:
    if not callable(function) or type(args) is not tuple or len(args) > MAX_ARGUMENTS:  # callable is what is in KNOWN
        raise FormatError(f"it wants to run {_show(function)} with {_show(args)}", FOREIGN)
    for argument in args:
        machine.spend(OPCODE_BYTES * len(argument) if isinstance(argument, list) else 0)
    machine.stack.append(function(args))


def _refer(machine: _Unpickler, saved_id: Any) -> None:
    """What is not in the pickle itself: the values of a tensor."""
    storage = _storage(saved_id)
    if machine.storages.setdefault(storage.key, storage) != storage:
        raise FormatError(f"it describes the storage {_show(storage.key)} in two ways")
    machine.stack.append(storage)


def _build(machine: _Unpickler, argument: None) -> None:
    """Attributes, such as ``_metadata`` of a state dict, which nobody asks for."""
    machine.stack.pop()


def _put(machine: _Unpickler, argument: int | None) -> None:
    index = len(machine.memo) if argument is None else argument
    if not 0 <= index < 1 << 32:
        raise FormatError("its pickle memorises under a number beyond 32 bits")
    machine.memo[index] = machine.stack[-1]


def _get(machine: _Unpickler, argument: int) -> None:
    if argument not in machine.memo:
        raise FormatError("its pickle refers to what it did not memorise")
    machine.stack.append(machine.memo[argument])


def _append(machine: _Unpickler, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif target is not LEFT_OUT:
        raise FormatError(f"its pickle appends to {_show(target)}")


def _set(machine: _Unpickler, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, dict):
        _set_items(target, items)
    elif target is not LEFT_OUT:
        raise FormatError(f"its pickle sets items of {_show(target)}")


def _set_items(target: dict[str, Any], items: Any) -> None:
    """Keys and values by turns."""
    if not isinstance(items, (list, tuple)) or len(items) % 2:
        raise FormatError(f"its pickle fills a dict with {_show(items)}")
    target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)


def _dict_of(items: list[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    _set_items(made, items)
    return made


def _collect(make: Callable[[list[Any]], Any], n: int | None = None) -> Handler:
    """Make one object of the last ``n``, or of those above the mark."""

    def run(machine: _Unpickler, argument: None) -> None:
        machine.stack.append(make(machine.items() if n is None else machine.pop(n)))

    return run


def _opcodes() -> dict[bytes, tuple[Callable[[IO[bytes]], Any] | None, Handler]]:
    """How to read the argument of each opcode that is supported, and what it does. Sets become lists."""
    by_name: dict[str, Handler] = {
        "PROTO": lambda machine, argument: None,
        "FRAME": lambda machine, argument: None,
        "NONE": _push(lambda: None),
        "NEWTRUE": _push(lambda: True),
        "NEWFALSE": _push(lambda: False),
        "EMPTY_TUPLE": _push(tuple),
        "EMPTY_LIST": _push(list),
        "EMPTY_DICT": _push(dict),
        "EMPTY_SET": _push(list),
        "MARK": _mark,
        "POP": lambda machine, argument: machine.stack.pop(),
        "POP_MARK": lambda machine, argument: machine.items(),
        "DUP": lambda machine, argument: machine.stack.append(machine.stack[-1]),
        "TUPLE": _collect(tuple),
        "TUPLE1": _collect(tuple, 1),
        "TUPLE2": _collect(tuple, 2),
        "TUPLE3": _collect(tuple, 3),
        "LIST": _collect(list),
        "FROZENSET": _collect(list),
        "DICT": _collect(_dict_of),
        "APPEND": lambda machine, argument: _append(machine, machine.pop(1)),
        "APPENDS": lambda machine, argument: _append(machine, machine.items()),
        "ADDITEMS": lambda machine, argument: _append(machine, machine.items()),
        "SETITEM": lambda machine, argument: _set(machine, machine.pop(2)),
        "SETITEMS": lambda machine, argument: _set(machine, machine.items()),
        "GLOBAL": _name,
        "STACK_GLOBAL": _name_from_stack,
        "REDUCE": _reduce,
        "NEWOBJ": _reduce,
        "BUILD": _build,
        "INST": _instance,
        "BINPERSID": lambda machine, argument: _refer(machine, machine.stack.pop()),
        "PERSID": _refer,
    }
    by_name |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put)
    by_name |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get)
    by_name |= dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _literal)
    by_name |= dict.fromkeys(("FLOAT", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"), _literal)
    by_name |= dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _literal)
    by_name |= dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _literal)
    return {
        opcode.code.encode("latin-1"): (opcode.arg.reader if opcode.arg else None, by_name[opcode.name])
        for opcode in pickletools.opcodes
        if opcode.name in by_name
    }


OPCODES = _opcodes()


def _show(value: Any) -> str:
    """A value in a message: a plain one itself, of others what they are."""
    if value is None or isinstance(value, (str, int, float, _Dtype, _Storage)) or _are_ints(value):
        return _clipped(value)
    return f"a {type(value).__name__.strip('_')}"


def _clipped(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 120 else f"{text[:120]} …"


# ---- The two formats


class _Place(NamedTuple):
    """Where bytes are, and their CRC-32 if they have one."""

    start: int
    end: int
    checksum: int | None = None


class _Contents(NamedTuple):
    """What a file holds: its object, and where the values of each storage are."""

    root: Any
    places: dict[str, _Place]
    byte_order: Literal["<", ">"] = "<"


def _contents(data: memoryview) -> _Contents:
    if data[:4] == LOCAL_SIGNATURE:
        return _zip_contents(data)
    if data[0] == 0x80:
        return _legacy_contents(data)
    found = next((what for at, mark, what in FORMATS if data[at:][: len(mark)] == mark), None)
    raise FormatError(f"it is {found}" if found else f"it begins with {bytes(data[:16])!r}")


def _zip_contents(data: memoryview) -> _Contents:
    members = _zip_members(data)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"it is a zip file with {len(pickles)} members */data.pkl; torch.save writes one")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise FormatError(
            "it is a TorchScript archive, which holds programs",
            "Next step: have it saved as torch.save(torch.jit.load(path).state_dict(), other_path)",
        )
    unpickler = _Unpickler(_member(data, members[pickles[0]], "data.pkl"), len(data))
    root = unpickler.load()
    return _Contents(
        root,
        {key: _place(members, f"{folder}data/", storage) for key, storage in unpickler.storages.items()},
        _byte_order(data, members.get(f"{folder}byteorder")),
    )


def _member(data: memoryview, place: _Place, name: str) -> memoryview:
    """A small member whose checksum is right."""
    content = data[place.start : place.end]
    if len(content) > MAX_PICKLE_BYTES:
        raise FormatError(f"{name} has {len(content):,} bytes; expected at most {MAX_PICKLE_BYTES:,}", FOREIGN)
    _compare(zlib.crc32(content), place, name)
    return content


def _compare(checksum: int, place: _Place, what: str) -> None:
    if checksum != place.checksum:
        is_missing = not place.checksum  # as torch.serialization.set_crc32_options(False) leaves it
        raise FormatError(
            f"the checksum of {what} is {'missing' if is_missing else 'wrong: its bytes were changed'}",
            SAVE_AGAIN if is_missing else DAMAGED,
        )


def _place(members: dict[str, _Place], folder: str, storage: _Storage) -> _Place:
    place = members.get(folder + storage.key)
    if place is None:
        raise FormatError(f"it has no values for the storage {_show(storage.key)}")
    _check_size(storage, place.end - place.start)
    return place


def _check_size(storage: _Storage, n_bytes: int) -> None:
    n_expected = storage.n_items * np.dtype(storage.dtype.stored).itemsize
    if n_bytes != n_expected:
        raise FormatError(
            f"the storage {_show(storage.key)} has {n_bytes:,} bytes; its {_clipped(storage.n_items)} values of "
            f"{storage.dtype.name} need {_clipped(n_expected)}"
        )


def _byte_order(data: memoryview, place: _Place | None) -> Literal["<", ">"]:
    """Numpy's sign for it. Versions before 2.1 wrote none, on machines that are little-endian."""
    record = b"little" if place is None else bytes(_member(data, place, "byteorder"))
    if record not in (b"little", b"big"):
        raise FormatError(f"its byte order is {record[:16]!r}; expected 'little' or 'big'")
    return ">" if record == b"big" else "<"


def _legacy_contents(data: memoryview) -> _Contents:
    """Five pickles (two marks, the machine, the object, the storages), and the values of each storage."""
    unpickler = _Unpickler(data, len(data))
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


def _legacy_place(data: memoryview, at: int, storage: _Storage) -> tuple[_Place, int]:
    """Where the values are, behind their number, and where the next storage begins."""
    itemsize = np.dtype(storage.dtype.stored).itemsize
    n_items = int.from_bytes(data[at : at + 8], "little")
    _check_size(storage, n_items * itemsize)
    place = _Place(at + 8, at + 8 + n_items * itemsize)
    if place.end > len(data):
        raise FormatError(f"the storage {_show(storage.key)} ends at byte {place.end:,} of {len(data):,}")
    return place, place.end


# ---- Zip files

LOCAL_SIGNATURE, CENTRAL_SIGNATURE = b"PK\3\4", b"PK\1\2"
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END, END_SIGNATURE = struct.Struct("<4s4H2IH"), b"PK\5\6"
LOCATOR, LOCATOR_SIGNATURE = struct.Struct("<4sIQI"), b"PK\6\7"  # of END64, right before END
END64, END64_SIGNATURE = struct.Struct("<4sQ2H2I4Q"), b"PK\6\6"
IN_EXTRA, ZIP64_EXTRA = 0xFFFF_FFFF, 1


def _zip_members(data: memoryview) -> dict[str, _Place]:
    """Every member, none of them compressed, and no byte part of two."""
    n_members, at, end = _zip_directory(data)
    if n_members > MAX_MEMBERS:
        raise FormatError(f"it has {n_members:,} members; expected at most {MAX_MEMBERS:,}")
    members: dict[str, _Place] = {}
    spans = [(at, len(data))]
    for _ in range(n_members):
        name, header_at, place, at = _zip_member(data, at, end)
        if name in members:
            raise FormatError(f"it has two members {_show(name)}")
        members[name] = place
        spans.append((header_at, place.end))
    if at != end:
        raise FormatError("its list of members is damaged")
    spans.sort()
    if any(span[1] > following[0] for span, following in pairwise(spans)):
        raise FormatError("its members overlap")
    return members


def _zip_directory(data: memoryview) -> tuple[int, int, int]:
    """How many members the file lists, and where the list begins and ends."""
    end_at = len(data) - END.size
    if end_at < 0 or data[end_at : end_at + 4] != END_SIGNATURE:
        raise FormatError(f"it begins as a zip file and ends, at byte {len(data):,}, without a list of members")
    _, _, _, _, n_members, n_bytes, at, _ = END.unpack_from(data, end_at)
    locator_at = end_at - LOCATOR.size
    if locator_at >= 0 and data[locator_at : locator_at + 4] == LOCATOR_SIGNATURE:
        _, _, end64_at, _ = LOCATOR.unpack_from(data, locator_at)
        if data[end64_at : end64_at + 4] != END64_SIGNATURE or end64_at + END64.size > locator_at:
            raise FormatError("its list of members is damaged")
        *_, n_members, n_bytes, at = END64.unpack_from(data, end64_at)
        end_at = end64_at
    if at + n_bytes > end_at:
        raise FormatError("its list of members is damaged")
    return n_members, at, at + n_bytes


def _zip_member(data: memoryview, at: int, end: int) -> tuple[str, int, _Place, int]:
    """Name of a listed member, where its header and its bytes are, and where the next one is listed."""
    if at + CENTRAL.size > end or data[at : at + 4] != CENTRAL_SIGNATURE:
        raise FormatError("its list of members is damaged")
    fields = CENTRAL.unpack_from(data, at)
    method, checksum, n_stored, n_bytes, n_name, n_extra, n_comment = (*fields[4:5], *fields[7:13])
    if n_name > MAX_MEMBER_NAME_BYTES:
        raise FormatError(f"a member has a name of {n_name:,} bytes")
    name_at = at + CENTRAL.size
    raw_name, extra = data[name_at : name_at + n_name], data[name_at + n_name : name_at + n_name + n_extra]
    name = str(raw_name, "utf-8", "replace")
    n_bytes, n_stored, header_at = _zip64_numbers(extra, [n_bytes, n_stored, fields[16]])
    if method or n_stored != n_bytes:
        raise FormatError(
            f"its member {_show(name)} is compressed; torch.save stores bytes as they are. Likely cause: it was packed "
            "again by another program",
            SAVE_AGAIN,
        )
    start = _zip_bytes_start(data, header_at, raw_name)
    return name, header_at, _Place(start, start + n_bytes, checksum), name_at + n_name + n_extra + n_comment


def _zip64_numbers(extra: memoryview, numbers: list[int]) -> list[int]:
    """Sizes and offset, those beyond 32 bits from the extra field."""
    at = 0
    while at + 4 <= len(extra) and IN_EXTRA in numbers:
        kind, n_bytes = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64_EXTRA:
            values = extra[at + 4 :][:n_bytes]
            longer = iter(struct.unpack_from(f"<{len(values) // 8}Q", values))
            return [next(longer, n) if n == IN_EXTRA else n for n in numbers]
        at += 4 + n_bytes
    return numbers


def _zip_bytes_start(data: memoryview, header_at: int, raw_name: memoryview) -> int:
    """Where the bytes of a member begin, behind a header that says again what it is."""
    if header_at + LOCAL.size > len(data) or data[header_at : header_at + 4] != LOCAL_SIGNATURE:
        raise FormatError(f"there is no member at byte {header_at:,}, where one is listed")
    n_name, n_extra = LOCAL.unpack_from(data, header_at)[-2:]
    name_at = header_at + LOCAL.size
    if data[name_at : name_at + n_name] != raw_name:
        raise FormatError(f"the member at byte {header_at:,} is not the one that is listed")
    return int(name_at + n_name + n_extra)


# ---- Files


class _CheckedFile(MappedFile):
    """A mapped file whose parts may have checksums."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._checked: set[_Place] = set()

    def check(self, place: _Place, what: str) -> None:
        """Compare bytes with their checksum, the first time."""
        if place.checksum is None or place in self._checked:
            return
        found = 0
        for chunk in self.chunks(place.start, place.end):
            found = zlib.crc32(chunk, found)
        _compare(found, place, what)
        self._checked.add(place)
