"""What the processes that decode have in common: a silent output, and limits that the kernel keeps."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import BinaryIO


def take_output() -> BinaryIO:
    """The pipe to the parent, taken from standard output.

    Standard output and error lead nowhere after that, because native libraries write to both. Ctrl-C is left to
    the parent.
    """
    pipe = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return pipe


def limit_memory(n_mib: int) -> None:
    """Allow this process so much address space, and no core file. Without effect on Windows."""
    if sys.platform == "win32":
        return
    import resource

    _lower_limit(resource.RLIMIT_CORE, 0)
    _lower_limit(resource.RLIMIT_AS, n_mib << 20)


def limit_cpu(seconds: float) -> None:
    """Allow this process so much more processor time; the kernel ends it after that. Without effect on Windows."""
    if sys.platform == "win32":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    _lower_limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + seconds) + 1)


def _lower_limit(kind: int, value: int) -> None:
    import resource

    _, hard = resource.getrlimit(kind)
    with suppress(ValueError, OSError):  # macOS has no limit on address space; the parent's clock still holds
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
