"""The process that decodes for this one: it may crash, hang or run out of memory, and costs no more than one job.

Both sides are here: the parent has a ``Child``, and the child's ``main`` calls ``serve``. The parent writes lines of
JSON, first the settings and then one for each job. The child answers each job with messages, the last of which is of
the kind ``done`` or ``failed``. A message is two lengths, that many bytes of JSON, and that many bytes of samples.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from audioset.audio.interpreter import child_environment, fill_standard_descriptors, find_interpreter
from audioset.audio.limits import Limits
from audioset.errors import AudioError, EngineError

Message = tuple[dict[str, Any], memoryview]

HEADER = struct.Struct("<II")
START_S = 120.0  # in which a child has loaded its libraries
N_STARTS = 2
JOBS_PER_PROCESS = 2_000  # then a fresh process takes over, so that no decoder's leak adds up
LOOK_EVERY_S = 0.1
MOST_OF_A_LOOK_S = 1.0  # the parent may have been stopped since it last looked
# Python 3.10 has no option that keeps the current folder out of sys.path; nothing is imported from it before this line.
COMMAND = "import sys; sys.path[:] = filter(None, sys.path); from {module} import main; main()"


@dataclass(frozen=True)
class Ending:
    """How a child ended."""

    cause: str  # such as ``signal SIGSEGV`` or ``status 1``
    is_stalled: bool  # stopped, because it took too long: by its parent, or by the kernel's limit on processor time


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


class Child:
    """A process that does one job after the other. It starts when it is first needed, and again after a crash.

    One thread asks; any may close. The ``main`` of ``module``, of this package, calls ``serve``. ``limits`` are the
    memory of the process, and how long it may deliver nothing: see ``StallClock``. It is told ``settings`` first, of
    JSON's types; by default the limits. ``explain`` says what is wrong with a job whose process ended.
    """

    def __init__(
        self,
        module: str,
        limits: Limits,
        settings: dict[str, Any] | None = None,
        explain: Callable[[Ending, Limits], AudioError] = death,
    ) -> None:
        self._module = module
        self._limits = limits
        first = asdict(limits) if settings is None else settings
        self._first_line = json.dumps([first, limits.worker_memory_mb, limits.worker_stall_s])
        self._explain = explain
        self._process: _Process | None = None
        self._n_jobs = 0
        self._is_closed = False

    def ask(self, *job: Any) -> Generator[Message, None, None]:
        """Give it a job: values of JSON's types, and paths, which it gets as absolute ones.

        The last message is of the kind ``done``. Whoever does not wait for it ends the process. ``AudioError`` if the
        job failed, or the process ended; ``EngineError`` with code ``worker`` if it cannot start, or was closed.
        """
        process = self._ready()
        process.send(json.dumps(job, default=_absolute))
        is_done = False
        try:
            while not is_done:
                fields, samples = self._next(process)
                is_done = fields["kind"] in ("done", "failed")
                if fields["kind"] == "failed":
                    raise AudioError(fields["message"], code=fields["code"])
                if fields["kind"] != "alive":
                    yield fields, samples
        finally:
            if not is_done:
                self._end()

    def close(self) -> None:
        """End the process now, whoever asks it."""
        self._is_closed = True
        self._end()

    def _ready(self) -> _Process:
        """The process if it can go on, or a new one."""
        if self._process is not None and (self._n_jobs >= JOBS_PER_PROCESS or not self._process.is_alive):
            self._end()
        self._n_jobs += 1
        return self._process or self._start()

    def _start(self) -> _Process:
        for _ in range(N_STARTS):
            if self._is_closed:
                raise _stopped()
            process = self._process = _Process(self._module)
            process.send(self._first_line)
            if process.receive(START_S) is not None:
                self._n_jobs = 1
                return process
            error = process.start_error()
            self._end()
        raise error

    def _next(self, process: _Process) -> Message:
        message = process.receive(self._limits.worker_stall_s)
        if message is None:
            raise _stopped() if self._is_closed else self._explain(process.wait(), self._limits)
        return message

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end()


def _absolute(path: os.PathLike[str]) -> str:
    """A process that is kept may have been started in another folder; links stay links, ``..`` what is above them."""
    return str(Path(path).absolute())


def _stopped() -> EngineError:
    return EngineError("the decoding process was stopped", code="worker")


_idle: dict[tuple[int, str, Limits], list[Child]] = {}  # by the parent too, for a fork must not share them
_lock = threading.Lock()


@contextmanager
def kept_child(module: str, limits: Limits) -> Iterator[Child]:
    """A child that waits for a job, or a new one; it waits for the next job afterwards, until the parent ends."""
    with _lock:
        idle = _idle.setdefault((os.getpid(), module, limits), [])
        child = idle.pop() if idle else Child(module, limits)
    try:
        yield child
    finally:
        idle.append(child)


@atexit.register
def _end_all() -> None:
    for (parent, *_), children in list(_idle.items()):
        while children and parent == os.getpid():
            children.pop().close()


class _Process:
    """A running child, with a pipe to its input, one from its output, and a thread that stops it once it is stalled."""

    def __init__(self, module: str) -> None:
        fill_standard_descriptors()
        self._interpreter = find_interpreter()
        self._is_stalled = False
        try:
            self._process = subprocess.Popen(
                [self._interpreter, "-c", COMMAND.format(module=module)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,  # for what Python says if it cannot start; take_output closes it
                env=child_environment(),
            )
        except OSError as error:
            raise EngineError(
                f"the decoding process cannot start: {self._interpreter}: {error.strerror or error}", code="worker"
            ) from error
        self._clock: StallClock | None = None  # while a message is awaited
        self._is_awaited, self._is_ended = threading.Event(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True, name="audioset-watch")
        self._watcher.start()

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Write a line to it; of one that is gone, ``receive`` says so."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, stall_s: float) -> Message | None:
        """Its next message, or None if it is gone; it is stopped if it says nothing for so long."""
        self._clock = StallClock(self._process.pid, stall_s)
        self._is_awaited.set()
        try:
            return read_message(self._process.stdout)
        except (OSError, ValueError):  # end() was called
            return None
        finally:
            self._is_awaited.clear()
            self._clock = None

    def _watch(self) -> None:
        while self._is_awaited.wait() and not self._is_ended.wait(LOOK_EVERY_S):
            clock = self._clock
            if clock is not None and clock.has_run_out() and clock is self._clock:
                self._is_stalled = True
                self._process.kill()

    def wait(self) -> Ending:
        """Wait for its end, and say how it was."""
        status = self._process.wait()
        is_stalled = self._is_stalled or status == -getattr(signal, "SIGXCPU", 0)
        return Ending(f"signal {_signal_name(-status)}" if status < 0 else f"status {status}", is_stalled)

    def start_error(self) -> EngineError:
        """Why it was not ready: it has ended, or sends something else."""
        self._process.kill()
        ending = self.wait()
        said = self._process.stderr.read().decode(errors="replace").strip() if self._process.stderr else ""
        how = f"did not answer within {START_S:g} s" if ending.is_stalled else f"ended with {ending.cause}"
        cause = f" ({said.splitlines()[-1]})" if said else ""
        return EngineError(
            f"the decoding process cannot start: {self._interpreter} {how}{cause}. Next step: audioset doctor",
            code="worker",
        )

    def end(self) -> None:
        """End it now, and close what leads to it and from it."""
        self._process.kill()
        self._process.wait()
        self._is_ended.set()
        while self._watcher.is_alive():  # a receive() that ends now may take the signal back
            self._is_awaited.set()
            self._watcher.join(LOOK_EVERY_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError, ValueError):  # what was not yet written is not wanted any more
                if pipe:
                    pipe.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have none
        return str(number)


def write_message(pipe: IO[bytes], fields: dict[str, Any], samples: Any) -> None:
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


class StallClock:
    """How long a child has delivered nothing, without the time in which it could run and no processor was free.

    On a busy machine a healthy child waits; that is not its fault. A child that computes in circles, sleeps, or waits
    for a disk is stalled. Where the system does not say how long a process waited (all but Linux), the clock stops only
    while its parent does not look, which a busy machine keeps from that as well. It has run out ``limit_s`` seconds
    after the first look.
    """

    def __init__(self, pid: int, limit_s: float) -> None:
        self._pid = pid
        self._limit_s = limit_s
        self._stalled_s = 0.0
        self._looked_at: float | None = None
        self._waited_s: float | None = None

    def has_run_out(self) -> bool:
        """Look; one thread does so, several times a second."""
        now = time.monotonic()
        if self._looked_at is None:
            self._looked_at = now
        passed_s = now - self._looked_at
        if passed_s < LOOK_EVERY_S:
            return False
        waited_s = _waited_s(self._pid)
        # The system adds a wait when it is over, which may be several looks after it began.
        starved_s = waited_s - self._waited_s if waited_s is not None and self._waited_s is not None else 0.0
        self._stalled_s = max(0.0, self._stalled_s + min(passed_s, MOST_OF_A_LOOK_S) - starved_s)
        self._looked_at, self._waited_s = now, waited_s
        return self._stalled_s >= self._limit_s


def _waited_s(pid: int) -> float | None:
    """Seconds that a process's threads could run and had no processor, all together, or None if nobody knows."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - looked at ten times a second
        waits = [_read_waited_ns(f"/proc/{pid}/task/{thread}/schedstat") for thread in threads]
    except (OSError, ValueError, IndexError):
        return None
    return sum(waits) / 1e9


def _read_waited_ns(path: str) -> int:
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return int(file.read().split()[1])
