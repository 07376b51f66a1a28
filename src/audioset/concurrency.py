"""What a process shares: cores it may use, work of its threads in order, locks of files, and memory that it keeps."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from audioset.errors import ConflictError

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Value = TypeVar("Value")

TASKS_AHEAD = 4  # for each thread
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # of network file systems
NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
IS_WINDOWS = sys.platform == "win32"

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


@contextmanager
def holding(lock: Path, place: Path, *, waits: bool) -> Iterator[bool]:
    """Hold the lock of a file, which is made, and deleted at the end."""
    file, is_sure = _open_locked(lock, place, waits=waits)
    try:
        yield is_sure
    finally:
        with suppress(OSError):  # another user's, in a folder where only owners delete
            if not os.fstat(file).st_size:
                lock.unlink()
        os.close(file)


def _open_locked(lock: Path, place: Path, *, waits: bool) -> tuple[int, bool]:
    while True:
        file = _open(lock)
        try:
            is_sure = _acquire(file, place, waits=waits)
            if _is_there(lock, file):
                return file, is_sure
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # whoever held it has deleted it since: the next one makes another


def _open(lock: Path) -> int:
    """The file of a lock; never a link's target. Another user's may only be readable, which is enough."""
    flags = NO_LINKS | getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:
        if not lock.exists():
            raise
        return os.open(lock, os.O_RDONLY | flags)


def _is_there(lock: Path, file: int) -> bool:
    try:
        return IS_WINDOWS or os.path.samestat(os.fstat(file), lock.lstat())
    except FileNotFoundError:
        return False


def _acquire(file: int, place: Path, *, waits: bool) -> bool:
    """Lock an open file; whether its file system keeps locks."""
    try:
        _lock(file, waits=waits)
    except (BlockingIOError, PermissionError) as error:
        raise ConflictError(
            f"another run is writing {place}. Next step: wait for it, or choose another name"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("the disk of %s keeps no locks: two runs that write it at once would not be noticed", place)
        return False
    return True


if sys.platform == "win32":

    def _lock(file: int, *, waits: bool) -> None:
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_LOCK if waits else msvcrt.LK_NBLCK, 1)

else:

    def _lock(file: int, *, waits: bool) -> None:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
