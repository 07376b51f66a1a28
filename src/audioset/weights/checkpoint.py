"""What the readers of checkpoints share: taking what a network needs, mapped files, and words for their faults."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import WeightsError
from audioset.files import check_regular

CHUNK_BYTES = 1 << 21
DAMAGED = (
    "Likely cause: an unfinished or damaged download, or another format. Next step: download it again, and compare its "
    "size with the published one"
)

SAVE_AGAIN = "Next step: load and save it again with torch.save, or take the file as it was published"


class FormatError(Exception):
    """What is wrong with a file, and what may help; ``blame`` says which file."""

    def __init__(self, message: str, hint: str = DAMAGED) -> None:
        super().__init__(message)
        self.hint = hint


@contextmanager
def blame(path: Path, kind: str) -> Iterator[None]:
    """Turn a ``FormatError`` into a ``WeightsError`` that names the file and the ``kind`` of checkpoint expected."""
    try:
        yield
    except FormatError as error:
        raise WeightsError(f"{path} cannot be read as a {kind} checkpoint: {error}. {error.hint}") from error


class MappedFile:
    """The bytes of a file, which come into memory as they are touched and leave it with ``release``."""

    def __init__(self, path: Path) -> None:
        try:
            check_regular(path)
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            reason = getattr(error, "strerror", None) or error
            raise WeightsError(f"{path} cannot be read ({reason}). {DAMAGED}") from error
        self.path = path
        self.bytes = memoryview(self._map)

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end``, never more than a chunk of them in memory."""
        for at in range(start, end, CHUNK_BYTES):
            yield self.bytes[at : min(end, at + CHUNK_BYTES)]
            self.release()

    def release(self) -> None:
        """Let go of the pages; they are read again if they are touched again."""
        if sys.platform != "win32":
            self._map.madvise(mmap.MADV_DONTNEED)


class Variable(NamedTuple):
    """What a checkpoint says of one tensor."""

    shape: tuple[int, ...]
    dtype: str  # the name that the framework has for it; what cannot be read is listed too


class Checkpoint(Protocol):
    """An open checkpoint."""

    path: Path

    @property
    def variables(self) -> Mapping[str, Variable]:
        """Its tensors by name."""
        ...

    def _read(self, name: str, dtype: str) -> Any:
        """The values of a tensor that is there, converted."""
        ...


def find_variable(checkpoint: Checkpoint, name: str) -> Variable:
    """What a checkpoint says of a tensor that it must have."""
    variables = checkpoint.variables
    if name not in variables:
        raise WeightsError(
            f"{checkpoint.path} has no tensor {name!r}; it has {len(variables)} tensors, such as "
            f"{', '.join(sorted(variables)[:3]) or 'none'}. Likely cause: weights of another network"
        )
    return variables[name]


def check_variables(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]], float_types: Container[str]) -> None:
    """Refuse a checkpoint in which a tensor that a network needs is missing, or has another shape or type."""
    for name, expected in shapes.items():
        shape, dtype = find_variable(checkpoint, name)
        if shape != expected:
            raise WeightsError(
                f"{checkpoint.path}: {name!r} has shape {shape}; expected {expected}. Likely cause: weights of another "
                "network, or trained for another number of classes"
            )
        if dtype not in float_types:
            raise WeightsError(f"{checkpoint.path}: {name!r} has dtype {dtype}; expected floating-point weights")


def take_weights(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, FloatArray]:
    """Tensors that have been checked, as float32; none may hold NaN or infinite values."""
    weights: dict[str, FloatArray] = {}
    for name in names:
        with np.errstate(over="ignore", invalid="ignore"):  # becomes infinite or NaN, which is refused below
            weights[name] = checkpoint._read(name, "float32")
        if not _is_finite(weights[name]):
            raise WeightsError(f"{checkpoint.path}: {name!r} holds NaN or infinite values; expected finite weights")
    return weights


def _is_finite(values: FloatArray) -> bool:
    """Whether no value is NaN or infinite, found without a second array of their size."""
    flat = values.reshape(-1)
    return all(np.isfinite(flat[i : i + CHUNK_BYTES]).all() for i in range(0, flat.size, CHUNK_BYTES))


def clipped(value: Any) -> str:
    """A value of a file in a message, cut where it is long."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 120 else f"{text[:120]} …"
