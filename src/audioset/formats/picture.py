"""Names of pictures, and what tells those that were drawn here from others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from audioset.errors import UsageError
from audioset.formats.rows import printable

MARKS = {"png": "Software", "pdf": "Creator", "svg": "Creator"}  # the entry of each kind that names the program
CREATOR = "audioset tag --plot"


def check_plot(path: str | os.PathLike[str]) -> str:
    """The kind of picture that a name asks for: ``png``, ``pdf`` or ``svg``; ``UsageError`` for another ending."""
    kind = Path(path).suffix.lower()[1:]
    if kind not in MARKS:
        endings = ", ".join(f".{known}" for known in MARKS)
        raise UsageError(f"a plot cannot be written to {printable(path)}; expected a name with {endings}")
    return kind


def is_picture(file: BinaryIO) -> bool:
    """Whether a picture says that it was drawn here."""
    return CREATOR.encode() in file.read()
