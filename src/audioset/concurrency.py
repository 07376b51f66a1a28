"""Cores that this process may use, the memory that it keeps, and work that threads share and that stays in order."""

from __future__ import annotations

import ctypes
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Task = TypeVar("Task")
Value = TypeVar("Value")

TASKS_AHEAD = 4  # for each thread

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


def map_in_order(function: Callable[[Task], Value], tasks: Iterable[Task], n_threads: int) -> Iterator[Value]:
    """``map`` over several threads: results in order, and never more than a few tasks ahead.

    The threads take turns at making the tasks: with a thread of its own for that, there would be one more than
    there are cores, and it would fight the others for the interpreter lock.
    """
    source, turn, is_over = iter(tasks), threading.Lock(), threading.Event()
    slots = threading.Semaphore(TASKS_AHEAD * n_threads)
    results: queue.SimpleQueue[Future[Value] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        while True:
            slots.acquire()
            with turn:  # whoever has the turn also queues the result, so results are in order
                if is_over.is_set():
                    return
                try:
                    task = next(source)
                except BaseException as error:  # StopIteration, or whatever the consumer has to hear of
                    is_over.set()
                    results.put(error)
                    return
                result: Future[Value] = Future()
                results.put(result)
            try:
                result.set_result(function(task))
            except BaseException as error:  # raised where the result is asked for
                result.set_exception(error)

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="audioset")
    try:
        for _ in range(n_threads):
            pool.submit(work)
        while isinstance(result := results.get(), Future):
            yield result.result()
            slots.release()
        if not isinstance(result, StopIteration):
            raise result
    finally:
        is_over.set()
        slots.release(n_threads)
        pool.shutdown(wait=True)
