"""How glibc's allocator treats arrays that are freed: it keeps them for the next ones, or gives them back.

By itself it gives large arrays back to the system when they are freed, and fetches pages for the next ones, which the
system fills with zeros first. What computes on arrays of the same sizes again and again, as a training or a decoding
process does, spends up to half of its processor time on these zeros.
"""

from __future__ import annotations

import ctypes
import os

# Of a decoding process, which is yet to start. glibc allows no more than 32 MiB for the first.
KEPT_MEMORY_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
# Of a training, whose arrays are larger than that: none has pages of its own, and the heap never shrinks. Parameters
# of glibc's malloc.h: M_MMAP_MAX and M_TRIM_THRESHOLD, where -1 is without end.
KEPT_MEMORY_OPTIONS = {-4: 0, -1: -1}
OWN_SETTINGS = ("MALLOC_MMAP_", "MALLOC_TRIM_", "GLIBC_TUNABLES")  # of whoever started this process


def keep_freed_memory() -> None:
    """Let this process keep all memory that its arrays free, for those that come next.

    It then holds as much as it has once needed until it ends, and a fifth more, for what lies between arrays. The
    commands that train begin with it. No other function calls it: the allocator belongs to the program, and one that
    trains through Python may call it once, before it begins. No result depends on it. Where the environment has
    settings of the allocator, these stay. Other C libraries, those of macOS, Windows and Alpine Linux, have none of
    these parameters: nothing happens there.
    """
    if os.name != "posix" or any(name.startswith(OWN_SETTINGS) for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        for parameter, value in KEPT_MEMORY_OPTIONS.items():
            library.mallopt(parameter, value)
