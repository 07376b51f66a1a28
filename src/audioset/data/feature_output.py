"""Places for converted features: a file or a folder that has its name when it is whole, and not before."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from audioset.errors import ConflictError, OutputError
from audioset.weights.model_folder import replacing

NEXT_STEPS = {
    errno.ENOSPC: "free some space there, or choose another disk",
    errno.EDQUOT: "free some of your quota there, or choose another disk",
    errno.EISDIR: "name a file in that folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` if the block ends well, and is deleted if not.

    Raises
    ------
    OutputError
        The disk is full, or the place does not allow it.
    """
    with explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with replacing(path) as temporary:
            yield temporary
            _flush(temporary)


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` if the block ends well, and is deleted if not.

    Raises
    ------
    ConflictError
        If there is something of that name, other than an empty folder.
    OutputError
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConflictError(f"{path} is there already. Next step: choose another name, or delete it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid4().hex[:8]}")
    with explained(path):
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


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says about writing ``path`` into an OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        step = NEXT_STEPS.get(error.errno or 0, "choose another place")
        raise OutputError(f"cannot write {path}: {error.strerror or error}. Next step: {step}") from error


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
