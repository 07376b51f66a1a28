"""Files that are whole when they have their name, and what the system says when they cannot be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from audioset.errors import ConflictError, OutputError

NEXT_STEPS = {
    errno.ENOSPC: "free some space there, or choose another disk",
    errno.EDQUOT: "free some of your quota there, or choose another disk",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.ENOENT: "create the folder, or correct its name",
    errno.EISDIR: "name a file in that folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def explain_os_errors(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system says about writing to a place into an OutputError. A closed pipe stays one."""
    try:
        yield
    except (OutputError, BrokenPipeError):
        raise
    except OSError as error:
        step = NEXT_STEPS.get(error.errno or 0, "choose another place")
        raise OutputError(f"cannot write {place}: {error.strerror or error}. Next step: {step}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes ``path`` if the block ends well and is deleted if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole: nobody ever sees a part of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """As ``replacing``, for results: on the disk for good before they have their name, and failures explained.

    Raises
    ------
    OutputError
        The disk is full, or the place does not allow it.
    """
    with explain_os_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with replacing(path) as temporary:
            yield temporary
            _flush(temporary)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """As ``output_file``, open for writing."""
    with output_file(path) as temporary, temporary.open("wb") as file:
        yield file


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` if the block ends well, and is deleted if not.

    Raises
    ------
    ConflictError
        If there is something of that name, other than an empty folder.
    OutputError
        The disk is full, or the place does not allow it.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConflictError(f"{path} is there already. Next step: choose another name, or delete it")
    temporary = _beside(path)
    with explain_os_errors(path):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.iterdir():
                if file.is_file():
                    _flush(file)
            if path.exists():
                path.rmdir()
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}")


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
