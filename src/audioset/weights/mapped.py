"""What the readers of checkpoints share: files that are mapped and not read, and words for what is wrong with one."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from audioset.errors import WeightsError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

CHUNK_BYTES = 1 << 21
DAMAGED = (
    "Likely cause: an unfinished or damaged download, or another format. Next step: download it again, and compare its "
    "size with the published one"
)


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


def is_finite(values: FloatArray) -> bool:
    """Whether no value is NaN or infinite, found without a second array of their size."""
    flat = values.reshape(-1)
    return all(np.isfinite(flat[i : i + CHUNK_BYTES]).all() for i in range(0, flat.size, CHUNK_BYTES))
