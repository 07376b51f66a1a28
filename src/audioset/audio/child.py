"""What the processes that decode have in common: how they start, when they are stalled, a silent output, and limits.

Both sides are here. The parent starts a ``Child`` or a ``LineChild`` and looks at its ``StallClock``; the child takes
its output with ``take_output`` and bounds itself with ``limit_memory`` and ``limit_cpu``.
"""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from audioset.errors import EngineError

READY = b'{"ready": true}\n'  # the first line of a child that answers in lines
START_S = 120.0  # in which a child has loaded its libraries
N_STARTS = 2
LOOK_EVERY_S = 0.1
MOST_OF_A_LOOK_S = 1.0  # the parent may have been stopped since it last looked
# Python 3.10 has no option that keeps the current folder out of sys.path; nothing is imported from it before this line.
COMMAND = "import sys; sys.path[:] = filter(None, sys.path); from {module} import main; main()"
INTERPRETER = re.compile(r"(python|pypy)[\d.]*w?t?(\.exe)?", re.IGNORECASE)
# What makes Python read a file or import a module of its own before the command runs.
NOT_INHERITED = frozenset(("PYTHONINSPECT", "PYTHONSTARTUP"))


# ---- The parent's side


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Attributes
    ----------
    cause : str
        Such as ``"signal SIGSEGV"`` or ``"status 1"``.
    is_stalled : bool
        It was stopped, because it took too long: by its parent, or by the kernel's limit on processor time.
    """

    cause: str
    is_stalled: bool


class Child:
    """A process that runs ``main`` of a module of this package, with a pipe to its input and one from its output.

    Parameters
    ----------
    module : str
    environment : mapping, optional
        Variables beside those of this process.

    Attributes
    ----------
    results : binary file
        What the child writes.

    Raises
    ------
    EngineError
        With code ``worker``, if no process can be started.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        fill_standard_descriptors()
        self._interpreter = find_interpreter()
        self._is_stalled = False
        try:
            self._process = subprocess.Popen(
                [self._interpreter, "-c", COMMAND.format(module=module)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,  # for what Python says if it cannot start; take_output closes it
                env=_child_environment(environment or {}),
            )
        except OSError as error:
            raise EngineError(
                f"the decoding process cannot start: {self._interpreter}: {error.strerror or error}", code="worker"
            ) from error
        assert self._process.stdout is not None
        self.results: IO[bytes] = self._process.stdout

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def send(self, line: str) -> None:
        """Write a line to it; of one that is gone, ``results`` says so."""
        with suppress(OSError, ValueError):
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """End it, because it is stalled."""
        self._is_stalled = True
        self._process.kill()

    def wait(self) -> Ending:
        """Wait for its end, and say how it was."""
        status = self._process.wait()
        is_stalled = self._is_stalled or status == -getattr(signal, "SIGXCPU", 0)
        return Ending(f"signal {_signal_name(-status)}" if status < 0 else f"status {status}", is_stalled)

    def start_error(self) -> EngineError:
        """Why it has ended before it was ready."""
        ending = self.wait()
        said = self._process.stderr.read().decode(errors="replace").strip() if self._process.stderr else ""
        how = f"did not answer within {START_S:g} s" if ending.is_stalled else f"ended with {ending.cause}"
        cause = f" ({said.splitlines()[-1]})" if said else ""
        return EngineError(
            f"the decoding process cannot start: {self._interpreter} {how}{cause}. Next step: audioset doctor",
            code="worker",
        )

    def close_pipes(self) -> None:
        """Close what leads to it and from it."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError, ValueError):  # what was not yet written is not wanted any more
                if pipe:
                    pipe.close()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have none
        return str(number)


class LineChild:
    """A child that answers each line with a line. It starts when it is first needed, and again after a crash.

    While it works it may send empty lines, as signs of life. One thread asks; any may close.

    Parameters
    ----------
    module : str
        Its ``main`` reads a first line, says ``READY``, and then answers.
    first_line : str
    stall_s : float
        A child that says nothing for so long is stopped: see ``StallClock``.
    """

    def __init__(self, module: str, first_line: str, stall_s: float) -> None:
        self._module = module
        self._first_line = first_line
        self._stall_s = stall_s
        self._child: Child | None = None
        self._is_closed = False

    def ask(self, line: str) -> bytes | Ending:
        """The answer to a line; or how the child ended, if it gave none.

        Raises
        ------
        EngineError
            With code ``worker``, if it cannot start, or was closed.
        """
        child = self._child or self._start()
        answer = _answer(child, line, self._stall_s)
        if answer is not None:
            return answer
        ending = child.wait()
        self._end()
        return ending

    def close(self) -> None:
        """End the process now, whoever asks it."""
        self._is_closed = True
        self._end()

    def _start(self) -> Child:
        for n_starts in range(1, N_STARTS + 1):
            if self._is_closed:
                raise EngineError("the decoding process was stopped", code="worker")
            child = self._child = Child(self._module)
            if _answer(child, self._first_line, START_S) == READY:
                return child
            child.kill()
            error = child.start_error()
            self._end()
            if n_starts == N_STARTS:
                raise error
        raise AssertionError("unreachable")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.close_pipes()


def _answer(child: Child, line: str, stall_s: float) -> bytes | None:
    """The next line that is not empty, or None if the child is gone before it is whole."""
    child.send(line)
    with watched(child, stall_s) as clock, suppress(OSError, ValueError):  # close() was called
        while answer := child.results.readline():
            clock.restart()
            if answer.strip():
                return answer if answer.endswith(b"\n") else None
    return None


@contextmanager
def watched(child: Child, stall_s: float) -> Iterator[StallClock]:
    """Stop the child once its clock has run out, while the block waits for it."""
    clock, is_done = StallClock(child.pid, stall_s), threading.Event()

    def watch() -> None:
        while not is_done.wait(LOOK_EVERY_S):
            if clock.has_run_out():
                child.stop()
                return

    watcher = threading.Thread(target=watch, daemon=True, name="audioset-watch")
    watcher.start()
    try:
        yield clock
    finally:
        is_done.set()
        watcher.join()


class StallClock:
    """How long a child has delivered nothing, without the time in which it could run and no processor was free.

    On a busy machine a healthy child waits; that is not its fault. A child that computes in circles, sleeps, or waits
    for a disk is stalled. Where the system does not say how long a process waited (all but Linux), the clock stops only
    while its parent does not look, which a busy machine keeps from that as well.

    Parameters
    ----------
    pid : int
        Of the child.
    limit_s : float
        After which it has run out.
    """

    def __init__(self, pid: int, limit_s: float) -> None:
        self._pid = pid
        self._limit_s = limit_s
        self._is_restarted = True
        self._stalled_s = self._looked_at = 0.0
        self._waited_s: float | None = None

    def restart(self) -> None:
        """Begin again: the child has delivered something, or was given work. Any thread may say so."""
        self._is_restarted = True

    def has_run_out(self) -> bool:
        """Look; one thread does so, several times a second."""
        now = time.monotonic()
        if self._is_restarted:
            self._is_restarted = False
            self._stalled_s, self._looked_at, self._waited_s = 0.0, now, None
            return False
        passed_s = now - self._looked_at
        if passed_s < LOOK_EVERY_S:
            return False
        waited_s = _waited_s(self._pid)
        # The system adds a wait when it is over, which may be several looks after it began.
        starved_s = waited_s - self._waited_s if waited_s is not None and self._waited_s is not None else 0.0
        self._stalled_s = max(0.0, self._stalled_s + min(passed_s, MOST_OF_A_LOOK_S) - starved_s)
        self._looked_at, self._waited_s = now, waited_s
        return self._stalled_s >= self._limit_s and not self._is_restarted


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


def find_interpreter() -> str:
    """Python's program: ``sys.executable``, but where an application brings Python and that is the application.

    Raises
    ------
    EngineError
        With code ``worker``, if there is none.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folders = [
        Path(folder) / name
        for folder in (sys.prefix, sys.exec_prefix, sys.base_prefix)
        for name in (("", "Scripts") if sys.platform == "win32" else ("bin",))
    ]
    folders.append(Path(sysconfig.get_config_var("BINDIR") or sys.prefix))
    suffix = ".exe" if sys.platform == "win32" else ""
    names = [f"{name}{suffix}" for name in (f"python{version}", "python3", "python")]
    known = [sys.executable, getattr(sys, "_base_executable", None)]
    candidates: list[str] = [*filter(None, known), *(str(folder / name) for folder in folders for name in names)]
    for path in candidates:
        if INTERPRETER.fullmatch(os.path.basename(path)) and os.access(path, os.X_OK):  # noqa: PTH119
            return path
    raise EngineError(
        "decoding needs a process of its own, and there is no Python to start it: sys.executable is "
        f"{sys.executable!r}, and there is none in {', '.join(dict.fromkeys(map(str, folders)))}. Likely cause: Python "
        f"runs inside another program. Next step: set sys.executable to the path of Python {version}, or use "
        "model.predict_file",
        code="worker",
    )


def _child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**inherited, **extra, "PYTHONPATH": os.pathsep.join(_import_path()), "PYTHONSAFEPATH": "1"}


def _import_path() -> list[str]:
    """Where a child imports from: where this process does, but not the current folder nor that of the main script.

    If this package itself is in one of these, that folder comes last, so that no file in it hides a module.
    """
    package = str(Path(__file__).parents[2])
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    unwanted = {_real(os.path.dirname(script))} if script else set()  # noqa: PTH120
    with suppress(OSError):  # it was deleted
        unwanted.add(_real(os.getcwd()))  # noqa: PTH109
    wanted = [os.path.abspath(path) for path in sys.path if path and _real(path) not in unwanted]  # noqa: PTH100
    return wanted if package in wanted else [*wanted, package]


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def fill_standard_descriptors() -> None:
    """Open the null device as each of the descriptors 0, 1 and 2 that is closed, for reading: writing still fails.

    Otherwise the next file or pipe would get that number, and whatever prints would write into it.
    """
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)


# ---- The child's side


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


def parent_lines() -> queue.SimpleQueue[str]:
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
