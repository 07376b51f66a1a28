"""Writing a file of the dataset whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from audioset.errors import OutputError
from audioset.weights.model_folder import replacing


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which becomes ``path`` if the block ends well, and is deleted if not.

    Raises
    ------
    OutputError
        The disk is full, or the place does not allow it.
    """
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}. Next step: free some space there, or choose another place"
        ) from error
