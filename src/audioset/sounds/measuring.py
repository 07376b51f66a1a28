"""The processes that measure files: one may crash, hang or run out of memory, and costs no more than one file.

The parent writes lines of JSON: first the limits, then a path and the pieces of each file. The child answers each file
with one line, and sends empty lines while it decodes, so that a long file is not taken for a stalled one.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from audioset.arguments import check_count
from audioset.audio.child import READY, Ending, LineChild, limit_cpu, limit_memory, take_output
from audioset.audio.isolation import death, failure
from audioset.audio.limits import LIMITS, Limits
from audioset.errors import AudioError
from audioset.sounds.measures import FileMeasures, PieceMeasures, Span, measure_file

Measured = FileMeasures | AudioError
Job = tuple[Path, Sequence[Span]]

SIGN_EVERY_S = 1.0  # of life, while a file is decoded


def measure_files(
    jobs: Sequence[Job],
    *,
    limits: Limits = LIMITS,
    n_workers: int = 1,
    on_file: Callable[[Path, Measured], None] = lambda path, measured: None,
) -> list[Measured]:
    """Measure many files, each decoded once.

    Parameters
    ----------
    jobs : sequence of (Path, sequence of (float, float or None))
        Files, and the pieces of each in seconds.
    limits : Limits
        What one file may cost.
    n_workers : int
        Processes.
    on_file : callable
        Told of each file when it is done, in any order, by one thread at a time.

    Returns
    -------
    list of FileMeasures or AudioError
        In the order of the jobs.

    Raises
    ------
    UsageError
        For a number of processes below 1.
    EngineError
        With code ``worker``, if the process cannot start.
    """
    check_count("n_workers", n_workers)
    found: dict[int, Measured] = {}
    lock = threading.Lock()
    waiting = deque(enumerate(jobs))
    # While it decodes it says so once a second, which is not to count against it.
    stall_s, first_line = limits.worker_stall_s + SIGN_EVERY_S, json.dumps(asdict(limits))
    children = [LineChild("audioset.sounds.measuring", first_line, stall_s) for _ in range(min(n_workers, len(jobs)))]

    def serve(child: LineChild) -> None:
        while True:
            try:
                index, (path, spans) = waiting.popleft()
            except IndexError:  # none left
                return
            measured = _measure(child, path, spans, limits)
            with lock:
                found[index] = measured
                on_file(path, measured)

    pool = ThreadPoolExecutor(max(1, len(children)), thread_name_prefix="audioset-measure")
    try:
        for future in [pool.submit(serve, child) for child in children]:
            future.result()
    finally:
        waiting.clear()  # an error, or Ctrl-C, ends the others after their file
        for child in children:
            child.close()
        pool.shutdown()
    return [found[index] for index in range(len(jobs))]


def _measure(child: LineChild, path: Path, spans: Sequence[Span], limits: Limits) -> Measured:
    answer = child.ask(json.dumps([os.fspath(path), list(spans)]))
    if isinstance(answer, Ending):
        return death(answer, limits)
    record = json.loads(answer)
    if "message" in record:
        return AudioError(record["message"], code=record["code"])
    pieces = tuple(PieceMeasures(**piece) for piece in record.pop("pieces"))
    whole, warnings = PieceMeasures(**record.pop("whole")), tuple(record.pop("warnings"))
    return FileMeasures(whole=whole, pieces=pieces, warnings=warnings, **record)


def main() -> None:
    """Serve one parent until it closes the pipe."""
    answers = take_output()
    limits = Limits(**json.loads(sys.stdin.buffer.readline()))
    limit_memory(limits.worker_memory_mb)
    answers.write(READY)
    answers.flush()
    for line in sys.stdin.buffer:
        path, spans = json.loads(line)
        answer = _answer(Path(path), [(start_s, end_s) for start_s, end_s in spans], limits, answers)
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _answer(path: Path, spans: Sequence[Span], limits: Limits, answers: IO[bytes]) -> dict[str, Any]:
    try:
        return asdict(measure_file(path, spans, limits, _SignsOfLife(limits, answers)))
    except Exception as error:  # the boundary of the process: whatever a decoder throws becomes an answer
        return failure(error, limits)


class _SignsOfLife:
    """Tells the parent now and then that there is progress, and allows itself more processor time then."""

    def __init__(self, limits: Limits, answers: IO[bytes]) -> None:
        self._stall_s = limits.worker_stall_s
        self._answers = answers
        self._said_at = time.monotonic()
        limit_cpu(self._stall_s)

    def __call__(self) -> None:
        if time.monotonic() - self._said_at > SIGN_EVERY_S:
            self._said_at = time.monotonic()
            limit_cpu(self._stall_s)
            self._answers.write(b"\n")
            self._answers.flush()
