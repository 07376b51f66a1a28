"""Read the pickles of PyTorch checkpoints by an interpreter that makes plain data and descriptions of tensors alone.

It knows nothing that it could run, keeps account of the memory that a pickle's objects take, and does not recurse.

Sources: Python's ``pickletools``; PyTorch's ``torch/_utils.py`` and ``torch/serialization.py``.
"""

from __future__ import annotations

import io
import pickletools
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from audioset.weights.checkpoint import SAVE_AGAIN, FormatError, clipped

Shape = tuple[int, ...]

MAX_PICKLE_BYTES = 1 << 24  # a thousand tensors take 0.1 MB
MAX_EXTRA_BYTES = 1 << 25  # of memory, beyond the size of the file, for what a pickle makes
OPCODE_BYTES = 112  # of memory that one opcode takes at most, beside its argument: an empty dict and its memo
MAX_RANK = 32
MAX_ARGUMENTS = 16
MAX_INT_BITS = 1 << 10  # the states of random generators have 128

FOREIGN = (
    "Expected tensors and plain data. Likely cause: a whole model was saved in place of its state_dict, or the file is "
    "meant to do harm; nothing of it was run. Next step: take the weights from a source that you trust, or have them "
    "saved again as torch.save(model.state_dict(), path)"
)


class StorageType(NamedTuple):
    """A dtype as PyTorch calls it, and numpy's for its items in the file and for what is returned."""

    name: str
    stored: str
    result: str


class StoredValues(NamedTuple):
    """Values that one or more tensors share."""

    key: str
    dtype: StorageType
    n_items: int


class StoredTensor(NamedTuple):
    """A part of a storage; offset and strides count items."""

    storage: StoredValues
    offset: int
    shape: Shape
    strides: Shape


def _storage(saved_id: Any) -> StoredValues:
    """What stands for the values of a tensor. The format before zip adds which part of a storage it is."""
    if type(saved_id) is not tuple or len(saved_id) not in (5, 6) or saved_id[0] != "storage":
        raise FormatError(f"it refers to {show(saved_id)}, which is not the values of a tensor", FOREIGN)
    dtype, key, _, n_items = saved_id[1:5]
    if not (isinstance(dtype, StorageType) and type(key) is str and type(n_items) is int and n_items >= 0):
        raise FormatError(f"it describes the values of a tensor as {', '.join(map(show, saved_id))}")
    if saved_id[5:] not in ((), (None,)):
        raise FormatError(f"the storage {show(key)} is a part of another", SAVE_AGAIN)
    return StoredValues(key, dtype, n_items)


def _rebuild_tensor(args: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, strides = args[:4]
    numbers = (shape, strides, (offset,))
    if not (isinstance(storage, StoredValues) and all(_are_ints(n) and min(n, default=0) >= 0 for n in numbers)):
        raise FormatError(
            f"it describes a tensor as a part of {show(storage)} with offset {show(offset)}, shape {show(shape)} "
            f"and strides {show(strides)}; expected counts"
        )
    if len(shape) != len(strides):
        raise FormatError(f"a tensor has the shape {show(shape)} and the strides {show(strides)}")
    return StoredTensor(storage, offset, shape, strides)


def _are_ints(values: Any) -> bool:
    return type(values) is tuple and len(values) <= MAX_RANK and all(type(n) is int for n in values)


class _LeftOut:
    """Stands for plain data of other kinds, which nobody asks for."""


LEFT_OUT = _LeftOut()


def _leave_out(args: tuple[Any, ...]) -> _LeftOut:
    return LEFT_OUT


def _ordered_dict(args: tuple[Any, ...]) -> dict[str, Any]:
    """Empty, as its items follow; Python 2 gave them as pairs."""
    pairs = args[0] if args else []
    if type(pairs) is not list or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in pairs):
        raise FormatError(f"it makes a dict of {show(pairs)}; expected pairs")
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
    "torch.HalfStorage": StorageType("float16", "f2", "f2"),
    "torch.BFloat16Storage": StorageType("bfloat16", "u2", "f4"),
    "torch.FloatStorage": StorageType("float32", "f4", "f4"),
    "torch.DoubleStorage": StorageType("float64", "f8", "f8"),
    "torch.CharStorage": StorageType("int8", "i1", "i1"),
    "torch.ShortStorage": StorageType("int16", "i2", "i2"),
    "torch.IntStorage": StorageType("int32", "i4", "i4"),
    "torch.LongStorage": StorageType("int64", "i8", "i8"),
    "torch.ByteStorage": StorageType("uint8", "u1", "u1"),
    "torch.BoolStorage": StorageType("bool", "u1", "?"),
}
KNOWN |= dict.fromkeys(("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64", "torch.bool"), LEFT_OUT)
KNOWN |= dict.fromkeys(("torch.int8", "torch.int16", "torch.int32", "torch.int64", "torch.uint8"), LEFT_OUT)
KNOWN |= dict.fromkeys((f"builtins.{kind}" for kind in ("set", "frozenset", "bytearray")), _leave_out)
KNOWN |= dict.fromkeys((f"__builtin__.{kind}" for kind in ("set", "frozenset", "bytearray")), _leave_out)
KNOWN |= dict.fromkeys(("_codecs.encode", "torch.device", "numpy.ndarray", "numpy.dtype"), _leave_out)
KNOWN |= dict.fromkeys((f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")), _leave_out)
KNOWN |= dict.fromkeys((f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")), _leave_out)


class TensorUnpickler:
    """Runs the opcodes of pickles that follow each other in a stream.

    Nothing is imported, called or set but what ``KNOWN`` has. Dicts keep what has a string as its key: the rest is
    never asked for, and keys of other kinds can be made to collide.
    """

    def __init__(self, data: memoryview, n_file_bytes: int) -> None:
        self.stream = io.BytesIO(data[:MAX_PICKLE_BYTES])
        self.storages: dict[str, StoredValues] = {}  # what the pickles referred to
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


Handler = Callable[[TensorUnpickler, Any], object]


def _push(make: Callable[[], Any]) -> Handler:
    return lambda machine, argument: machine.stack.append(make())


def _literal(machine: TensorUnpickler, argument: Any) -> None:
    machine.stack.append(argument)


def _mark(machine: TensorUnpickler, argument: None) -> None:
    machine.marks.append(len(machine.stack))


def _name(machine: TensorUnpickler, argument: str) -> None:
    """GLOBAL: a callable by its name. It is looked up in a table, and nowhere else."""
    machine.stack.append(_known(*argument.split(" ", 1)))


def _name_from_stack(machine: TensorUnpickler, argument: None) -> None:
    machine.stack.append(_known(*machine.pop(2)))


def _known(module: Any, name: Any) -> Any:
    dotted = f"{module}.{name}" if type(module) is type(name) is str else f"{show(module)}.{show(name)}"
    if dotted not in KNOWN:
        raise FormatError(f"it wants to run {clipped(dotted)}", FOREIGN)
    return KNOWN[dotted]


def _reduce(machine: TensorUnpickler, argument: None) -> None:
    _call(machine, *machine.pop(2))


def _instance(machine: TensorUnpickler, argument: str) -> None:
    """INST: the name of a callable, and its arguments above the mark."""
    _call(machine, _known(*argument.split(" ", 1)), tuple(machine.items()))


def _call(machine: TensorUnpickler, function: Any, args: Any) -> None:
    if not callable(function) or type(args) is not tuple or len(args) > MAX_ARGUMENTS:  # callable is what is in KNOWN
        raise FormatError(f"it wants to run {show(function)} with {show(args)}", FOREIGN)
    for argument in args:
        machine.spend(OPCODE_BYTES * len(argument) if isinstance(argument, list) else 0)
    machine.stack.append(function(args))


def _refer(machine: TensorUnpickler, saved_id: Any) -> None:
    """What is not in the pickle itself: the values of a tensor."""
    storage = _storage(saved_id)
    if machine.storages.setdefault(storage.key, storage) != storage:
        raise FormatError(f"it describes the storage {show(storage.key)} in two ways")
    machine.stack.append(storage)


def _build(machine: TensorUnpickler, argument: None) -> None:
    """Attributes, such as ``_metadata`` of a state dict, which nobody asks for."""
    machine.stack.pop()


def _put(machine: TensorUnpickler, argument: int | None) -> None:
    index = len(machine.memo) if argument is None else argument
    if not 0 <= index < 1 << 32:
        raise FormatError("its pickle memorises under a number beyond 32 bits")
    machine.memo[index] = machine.stack[-1]


def _get(machine: TensorUnpickler, argument: int) -> None:
    if argument not in machine.memo:
        raise FormatError("its pickle refers to what it did not memorise")
    machine.stack.append(machine.memo[argument])


def _append(machine: TensorUnpickler, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, list):
        target.extend(items)
    elif target is not LEFT_OUT:
        raise FormatError(f"its pickle appends to {show(target)}")


def _set(machine: TensorUnpickler, items: list[Any]) -> None:
    target = machine.stack[-1]
    if isinstance(target, dict):
        _set_items(target, items)
    elif target is not LEFT_OUT:
        raise FormatError(f"its pickle sets items of {show(target)}")


def _set_items(target: dict[str, Any], items: Any) -> None:
    """Keys and values by turns."""
    if not isinstance(items, (list, tuple)) or len(items) % 2:
        raise FormatError(f"its pickle fills a dict with {show(items)}")
    target.update((key, value) for key, value in zip(items[::2], items[1::2], strict=True) if type(key) is str)


def _dict_of(items: list[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    _set_items(made, items)
    return made


def _collect(make: Callable[[list[Any]], Any], n: int | None = None) -> Handler:
    """Make one object of the last ``n``, or of those above the mark."""

    def run(machine: TensorUnpickler, argument: None) -> None:
        machine.stack.append(make(machine.items() if n is None else machine.pop(n)))

    return run


# What each opcode does, by its name. Sets become lists.
HANDLERS: dict[str, Handler] = {
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
HANDLERS |= dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _put)
HANDLERS |= dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get)
HANDLERS |= dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _literal)
HANDLERS |= dict.fromkeys(("FLOAT", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"), _literal)
HANDLERS |= dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _literal)
HANDLERS |= dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), _literal)
# How to read the argument of each opcode that is supported, and what it does.
OPCODES = {
    opcode.code.encode("latin-1"): (opcode.arg.reader if opcode.arg else None, HANDLERS[opcode.name])
    for opcode in pickletools.opcodes
    if opcode.name in HANDLERS
}


def show(value: Any) -> str:
    """A value in a message: a plain one itself, of others what they are."""
    if value is None or isinstance(value, (str, int, float, StorageType, StoredValues)) or _are_ints(value):
        return clipped(value)
    return f"a {type(value).__name__.strip('_')}"
