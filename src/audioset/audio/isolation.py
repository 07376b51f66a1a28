"""Decode a file in a process of its own, which may crash, hang or run out of memory, for a caller that wants samples.

Processes are kept for the next file, until the parent ends. It writes lines of JSON: first the limits, then a path, a
rate and how many samples are wanted. The child answers each with messages: ``block`` with samples, any number of times,
and ``done`` or ``failed``. A message is two lengths, that many bytes of JSON, and that many bytes of float32 samples.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.audio.child import (
    N_STARTS,
    START_S,
    Child,
    Ending,
    limit_cpu,
    limit_memory,
    parent_lines,
    take_output,
    watched,
)
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reading import mono_blocks, open_audio
from audioset.errors import AudioError, AudioSetError

Message = tuple[dict[str, Any], memoryview]

HEADER = struct.Struct("<II")

_idle: dict[tuple[int, Limits], list[Child]] = {}  # by the parent, for a fork must not share them, and by limits
_lock = threading.Lock()


class IsolatedAudio:
    """A file that another process decodes, mixes down and resamples.

    Parameters
    ----------
    path : path
    sample_rate : int
        Of what is wanted, Hz.
    limits : Limits
        What the file may cost.
    n_samples : int, optional
        How many are wanted; at least so many come, if the file has them. Default: all.

    Attributes
    ----------
    warnings : tuple of str
        What the file promised and did not keep; known after its last block.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        limits: Limits = LIMITS,
        *,
        n_samples: int | None = None,
    ) -> None:
        # Absolute: a process that is kept may have been started in another folder.
        self._job = json.dumps([os.path.abspath(path), sample_rate, n_samples])  # noqa: PTH100 - links stay links
        self._limits = limits
        self.warnings: tuple[str, ...] = ()

    def blocks(self) -> Iterator[FloatArray]:
        """Mono float32 blocks, those of ``audio.mono_blocks``.

        Raises
        ------
        AudioError
            Those of ``open_audio`` and ``checked_blocks``; ``timeout``, ``worker_died`` or ``out_of_memory``.
        EngineError
            With code ``worker``, if no process can be started.
        """
        child = _take(self._limits)
        is_reusable = False
        try:
            child.send(self._job)
            while True:
                fields, payload = self._next(child)
                if fields["kind"] == "block":
                    yield np.frombuffer(payload, np.float32)
                    continue
                is_reusable = True
                if fields["kind"] == "failed":
                    raise AudioError(fields["message"], code=fields["code"])
                self.warnings = tuple(fields["warnings"])
                return
        finally:
            if is_reusable:
                _keep(child, self._limits)
            else:
                _end(child)

    def _next(self, child: Child) -> Message:
        with watched(child, self._limits.worker_stall_s):
            message = read_message(child.results)
        if message is None:
            raise death(child.wait(), self._limits)
        return message


def death(ending: Ending, limits: Limits) -> AudioError:
    """What is said of a file whose decoding process ended."""
    if ending.is_stalled:
        return AudioError(
            f"the decoder delivered nothing for {limits.worker_stall_s:g} s (--worker-stall-s) and was stopped. Likely "
            "cause: a damaged file that sends the decoder round in circles, or a disk that does not answer",
            code="timeout",
        )
    return AudioError(
        f"the decoder process ended with {ending.cause}. Likely cause: a damaged file that crashes the decoder; all "
        "other files go on",
        code="worker_died",
    )


def failure(error: Exception, limits: Limits) -> dict[str, str]:
    """Code and message of whatever a decoder threw, at the boundary of its process."""
    if isinstance(error, AudioSetError):
        return {"code": error.code, "message": str(error)}
    if isinstance(error, MemoryError):
        message = (
            f"decoding needs more than the {limits.worker_memory_mb:,} MiB of one worker (--worker-memory-mb). Likely "
            "cause: a damaged header"
        )
        return {"code": "out_of_memory", "message": message}
    return {"code": "decode_failed", "message": f"the decoder failed with {type(error).__name__}: {error}"}


def write_message(pipe: IO[bytes], fields: dict[str, Any], samples: Any = b"") -> None:
    """Send one message; ``samples`` is bytes or a contiguous array."""
    text = json.dumps(fields).encode()
    payload = memoryview(samples).cast("B")
    pipe.write(HEADER.pack(len(text), len(payload)))
    pipe.write(text)
    pipe.write(payload)
    pipe.flush()


def read_message(pipe: Any) -> Message | None:
    """Receive one message from a buffered pipe, or None where the other side is gone. Its samples may be written to."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    n_text, n_payload = HEADER.unpack(header)
    text, payload = pipe.read(n_text), np.empty(n_payload, np.uint8).data
    if len(text) < n_text or pipe.readinto(payload) < n_payload:
        return None
    return json.loads(text), payload


def _take(limits: Limits) -> Child:
    """A process that waits for a file, or a new one."""
    with _lock:
        waiting = _idle.get((os.getpid(), limits))
        while waiting:
            child = waiting.pop()
            if child.is_alive:
                return child
            child.close_pipes()
    return _start(limits)


def _start(limits: Limits) -> Child:
    for _ in range(N_STARTS):
        child = Child("audioset.audio.isolation")
        child.send(json.dumps(asdict(limits)))
        with watched(child, START_S):
            message = read_message(child.results)
        if message is not None:
            return child
        error = child.start_error()
        _end(child)
    raise error


def _keep(child: Child, limits: Limits) -> None:
    with _lock:
        _idle.setdefault((os.getpid(), limits), []).append(child)


def _end(child: Child) -> None:
    child.kill()
    child.close_pipes()


@atexit.register
def _end_all() -> None:
    for (parent, _), children in list(_idle.items()):
        if parent == os.getpid():
            while children:
                _end(children.pop())


def main() -> None:
    """Serve one parent until it closes the pipe."""
    results = take_output()
    lines = parent_lines()
    limits = Limits(**json.loads(lines.get()))
    limit_memory(limits.worker_memory_mb)
    write_message(results, {"kind": "ready"})
    while True:
        path, sample_rate, n_samples = json.loads(lines.get())
        _serve(path, sample_rate, n_samples, limits, results)


def _serve(path: str, sample_rate: int, n_samples: int | None, limits: Limits, results: IO[bytes]) -> None:
    limit_cpu(limits.worker_stall_s)
    n_sent = 0
    try:
        with open_audio(path, limits) as reader:
            for block in mono_blocks(reader, sample_rate):
                limit_cpu(limits.worker_stall_s)
                write_message(results, {"kind": "block"}, np.ascontiguousarray(block))
                n_sent += len(block)
                if n_samples is not None and n_sent >= n_samples:
                    break
        write_message(results, {"kind": "done", "warnings": reader.warnings})
    except Exception as error:  # the boundary of the process: whatever a decoder throws becomes an answer
        write_message(results, {"kind": "failed", **failure(error, limits)})
