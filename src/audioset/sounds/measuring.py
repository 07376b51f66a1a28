"""The processes that measure files: one may crash, hang or run out of memory, and costs no more than one file.

While it decodes, a process says that it is alive, so that a long file is not taken for a stalled one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audioset.arguments import check_count
from audioset.audio.answering import Send, serve
from audioset.audio.child import Child
from audioset.audio.limits import LIMITS, Limits
from audioset.errors import AudioError
from audioset.sounds.measures import FileMeasures, PieceMeasures, Span, measure_file

Measured = FileMeasures | AudioError
Job = tuple[Path, Sequence[Span]]

SAY_EVERY_S = 0.1  # that it is alive, while a file is decoded


def measure_files(
    jobs: Sequence[Job],
    *,
    limits: Limits = LIMITS,
    n_workers: int = 1,
    on_file: Callable[[Path, Measured], None] = lambda path, measured: None,
) -> list[Measured]:
    """Measure many files and the pieces of each, in seconds; each decoded once, in the order of the jobs.

    ``n_workers`` are processes; ``on_file`` is told of each file when it is done, in any order, by one thread at a
    time. ``UsageError`` for less than one process, ``EngineError`` with code ``worker`` if the process cannot start.
    """
    check_count("n_workers", n_workers)
    found: dict[int, Measured] = {}
    lock = threading.Lock()
    waiting = deque(enumerate(jobs))
    children = [Child("audioset.sounds.measuring", limits) for _ in range(min(n_workers, len(jobs)))]

    def measure_waiting(child: Child) -> None:
        while True:
            try:
                index, (path, spans) = waiting.popleft()
            except IndexError:  # none left
                return
            measured = _measure(child, path, spans)
            with lock:
                found[index] = measured
                on_file(path, measured)

    pool = ThreadPoolExecutor(max(1, len(children)), thread_name_prefix="audioset-measure")
    try:
        for future in [pool.submit(measure_waiting, child) for child in children]:
            future.result()
    finally:
        waiting.clear()  # an error, or Ctrl-C, ends the others after their file
        for child in children:
            child.close()
        pool.shutdown()
    return [found[index] for index in range(len(jobs))]


def _measure(child: Child, path: Path, spans: Sequence[Span]) -> Measured:
    try:
        ((record, _),) = child.ask(path, list(spans))
    except AudioError as error:
        return error
    pieces = tuple(PieceMeasures(**piece) for piece in record["pieces"])
    whole = PieceMeasures(**record["whole"])
    return FileMeasures(record["sample_rate"], record["n_channels"], whole, pieces, tuple(record["warnings"]))


def main() -> None:
    """Serve one parent until it closes the pipe."""
    serve(_answer)


def _answer(limits: Limits, send: Send, path: str, spans: Sequence[Span]) -> dict[str, Any]:
    said_at = time.monotonic()

    def say_alive() -> None:
        nonlocal said_at
        if time.monotonic() - said_at > SAY_EVERY_S:
            said_at = time.monotonic()
            send("alive")

    return asdict(measure_file(Path(path), spans, limits, say_alive))
