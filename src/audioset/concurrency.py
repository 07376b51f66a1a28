"""How many cores this process may use."""

from __future__ import annotations

import os
import sys


def available_cores() -> int:
    """Cores that this process may use: fewer than the machine has, where it is bound to some of them."""
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
