"""How glibc's allocator treats large arrays that are freed: it keeps them for the next ones, or gives them back.

By itself it gives arrays of more than 128 kB, and later of more than 32 MB, back to the system when they are freed, and
fetches pages for the next ones, which the system fills with zeros first. What computes on arrays of the same sizes
again and again, as a training or a decoding process does, spends up to half of its processor time on these zeros.
"""

from __future__ import annotations

import ctypes
import os

MMAP_THRESHOLD_BYTES = 32 << 20  # smaller arrays come from the heap; glibc allows no more
TRIM_THRESHOLD_BYTES = 256 << 20  # of free memory at the end of the heap that is kept
KEPT_MEMORY_ENVIRONMENT = {  # of a process that is yet to start
    "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(TRIM_THRESHOLD_BYTES),
}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process keep what its arrays free, for those that come next.

    The commands that train begin with it. No other function calls it: the allocator belongs to the program, and one
    that trains through Python may call it once, before it begins. No result depends on it. Thresholds that the
    environment sets stay. Other C libraries, those of macOS, Windows and Alpine Linux, have no such thresholds:
    nothing happens there.
    """
    if os.name != "posix" or KEPT_MEMORY_ENVIRONMENT.keys() & os.environ.keys():
        return
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return
    library.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    library.mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)
