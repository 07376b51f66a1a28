"""The spoken digits, unpacked for one run."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ASSETS = Path(os.environ.get("AUDIOSET_ASSETS", "../shared/assets").split(os.pathsep)[0])
ARCHIVE = ASSETS / "spoken_digits.tar.gz"
GROUP = "_([a-z]+)_"  # the speaker, in the names of the files


@contextmanager
def unpacked(archive: Path = ARCHIVE) -> Iterator[Path]:
    """A folder with a folder for each digit, with files such as ``3_jackson_12.wav``."""
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(archive) as file:
            file.extractall(place, filter="data")
        (folder,) = (path for path in Path(place).iterdir() if path.is_dir())
        yield folder
