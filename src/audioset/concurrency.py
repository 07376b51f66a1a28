"""How many cores this process may use, and whether it keeps the memory of arrays that are freed."""

from __future__ import annotations

import ctypes
import os
import sys

# For a training: no array has pages of its own, and the heap never shrinks. Parameters of glibc's malloc.h:
# M_MMAP_MAX and M_TRIM_THRESHOLD, where -1 is without end.
KEPT_MEMORY_OPTIONS = {-4: 0, -1: -1}
OWN_SETTINGS = ("MALLOC_MMAP_", "MALLOC_TRIM_", "GLIBC_TUNABLES")  # of whoever started this process


def available_cores() -> int:
    """Cores that this process may use: fewer than the machine has, where it is bound to some of them."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process keep all memory that its arrays free, for those that come next.

    By itself glibc's allocator gives large arrays back to the system when they are freed, and fetches pages for the
    next ones, which the system fills with zeros first. What computes on arrays of the same sizes again and again, as a
    training or a decoding process does, spends up to half of its processor time on these zeros.

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
