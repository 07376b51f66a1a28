"""The child's side of ``child.py``: a process that does a parent's jobs, with a silent output and limits."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from audioset.audio.child import write_message
from audioset.audio.limits import Limits
from audioset.errors import AudioSetError

Send = Callable[..., None]  # kind of a message, its fields, and its samples: bytes or a contiguous array


def _limits_of(settings: dict[str, Any]) -> Limits:
    return Limits(**settings)


def serve(answer: Callable[..., dict[str, Any]], read_settings: Callable[[dict[str, Any]], Any] = _limits_of) -> None:
    """Do one parent's jobs until it closes the pipe.

    ``answer`` takes the settings, a ``Send`` for what is done so far, and the job's values, and returns the fields of
    ``done``. ``read_settings`` makes the settings of what the parent has sent first.
    """
    pipe = take_output()
    lines = _parent_lines()
    first, memory_mb, stall_s = json.loads(lines.get())
    settings = read_settings(first)
    limit_memory(memory_mb)

    def send(kind: str, fields: dict[str, Any] | None = None, samples: Any = b"") -> None:
        limit_cpu(stall_s)
        write_message(pipe, {"kind": kind, **(fields or {})}, samples)

    send("ready")
    while True:
        job = json.loads(lines.get())
        limit_cpu(stall_s)
        try:
            send("done", answer(settings, send, *job))
        except Exception as error:  # the boundary of the process: whatever a decoder throws becomes an answer
            send("failed", failure(error, memory_mb))


def failure(error: Exception, memory_mb: int) -> dict[str, str]:
    """Code and message of whatever a decoder threw, at the boundary of its process."""
    if isinstance(error, AudioSetError):
        return {"code": error.code, "message": str(error)}
    if isinstance(error, MemoryError):
        message = (
            f"decoding needs more than the {memory_mb:,} MiB of one worker (--worker-memory-mb). Likely cause: a "
            "damaged header"
        )
        return {"code": "out_of_memory", "message": message}
    return {"code": "decode_failed", "message": f"the decoder failed with {type(error).__name__}: {error}"}


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


def _parent_lines() -> queue.SimpleQueue[str]:
    """The parent's lines; the process ends when the parent is gone, whatever it is doing."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


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
