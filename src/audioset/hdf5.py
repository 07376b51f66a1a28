"""Datasets of HDF5 files from outside: stored in the file itself, and not larger than it can hold."""

from __future__ import annotations

import math
from typing import Any

MAX_CHUNK_BYTES = 1 << 27  # of a piece that is read into memory whole
MOST_COMPRESSED = 1100  # deflate makes at most 1,032 bytes of one


def problem_of(dataset: Any) -> str | None:
    """Why a dataset must not be read, in words, or None.

    It may point at other files, hold values of any length, or claim terabytes in a few bytes.
    """
    if dataset.is_virtual or dataset.external:
        return "is a virtual or external dataset, which reads other files"
    if dataset.dtype.kind == "O":
        return "has values of variable length; expected a fixed one"
    stored, n_file = dataset.id.get_storage_size(), dataset.file.id.get_filesize()
    if dataset.nbytes > stored * MOST_COMPRESSED or stored > n_file:
        return f"claims {dataset.nbytes:,} bytes, of which {stored:,} are stored"
    if math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize > MAX_CHUNK_BYTES:
        return f"is stored in chunks of {dataset.chunks}, which is too much at once"
    return None
