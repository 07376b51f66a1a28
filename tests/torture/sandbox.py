"""One case's folder, the commands that run in it, and what must be left when they have ended."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = int(os.environ.get("TORTURE_SEED", "1"))  # of the first case of the short form
POLL_S = 0.01
N_POLLS = 6_000  # a command that sleeps and computes for less than IDLE_CPU_S during so many hangs, on any machine
IDLE_CPU_S = 0.3
MEMORY_MIB = 3_000  # resident, of the largest process of a command
CPU_S = 120  # of each process of a command
TRACEBACK = b"Traceback (most recent call last)"
LEFTOVERS = re.compile(r"^\..+\.(audioset-(partial|lock)|[0-9a-f]{32})$|^audioset-|\.(part|partial|tmp)$")
OF_OTHERS = re.compile(r"^torchinductor_")  # PyTorch's own cache


@dataclass(frozen=True)
class Finding:
    """What one case found wrong."""

    kind: str
    seed: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind} --seed {self.seed}: {self.what}"


@dataclass(frozen=True)
class Ended:
    """How a command ended; ``status`` is negative for a signal, None for a command that hung and was killed."""

    status: int | None
    out: bytes
    err: bytes
    seconds: float
    max_rss_mib: float

    def faults(self, allowed: Sequence[int | None]) -> Iterator[str]:
        """What is wrong with the way it ended."""
        if self.status not in allowed:
            yield f"ended with {self.status}, expected one of {list(allowed)}: {tail(self.err)}"
        if TRACEBACK in self.err:
            yield f"a traceback: {tail(self.err)}"
        if self.max_rss_mib > MEMORY_MIB:
            yield f"took {self.max_rss_mib:,.0f} MiB"


def tail(text: bytes, n: int = 400) -> str:
    """The last characters of what a command said, as one line."""
    return " | ".join(text.decode(errors="backslashreplace").strip().splitlines())[-n:] or "(nothing on stderr)"


@dataclass(frozen=True)
class Sandbox:
    """Folders of one case: everything a command may write to lies below ``root``."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Sandbox:
        """A sandbox with empty folders."""
        for name in ("work", "tmp", "home", "cache", "log"):
            (root / name).mkdir(parents=True, exist_ok=True)
        return cls(root)

    @property
    def work(self) -> Path:
        """The commands' working directory."""
        return self.root / "work"

    @property
    def cache(self) -> Path:
        """The commands' cache."""
        return self.root / "cache"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables under which a command sees these folders and nothing else."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AUDIOSET_", "XDG_"))}
        ours = {
            "AUDIOSET_CACHE": str(self.cache),
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONFAULTHANDLER": "",
            "COLUMNS": "200",
        }
        return {**kept, **ours, **(extra or {})}

    def start(
        self, arguments: Sequence[str], name: str = "run", program: Sequence[str] | None = None, **limits: Any
    ) -> Running:
        """Start ``audioset ARGUMENTS``, or another program, in a session of its own."""
        return Running(self, [*(program or COMMAND), *arguments], name, **limits)

    def run(self, arguments: Sequence[str], name: str = "run", program: Sequence[str] | None = None) -> Ended:
        """Run ``audioset ARGUMENTS``, or another program, to its end."""
        return self.start(arguments, name, program).wait()

    def leftovers(self) -> Iterator[str]:
        """Temporary files that are still there, and anything at all in the home folder."""
        for folder in (self.work, self.cache):
            yield from (f"left {path.relative_to(self.root)}" for path in walk(folder) if LEFTOVERS.search(path.name))
        for name in ("tmp", "home"):
            entries = sorted(path.name for path in (self.root / name).iterdir())
            yield from (f"left {name}/{entry}" for entry in entries if not OF_OTHERS.match(entry))


COMMAND = [sys.executable, "-m", "audioset"]


def peak_mib(pid: int) -> float:
    """The most memory that a process has had. What wait4 says also counts this process, from which it was forked."""
    with suppress(OSError, ValueError, StopIteration), Path(f"/proc/{pid}/status").open(encoding="utf-8") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024
    return 0.0


class Running:
    """A command that runs, with all that it starts."""

    def __init__(
        self,
        sandbox: Sandbox,
        command: Sequence[str],
        name: str,
        env: Mapping[str, str] | None = None,
        cpu_s: int = CPU_S,
        file_bytes: int | None = None,
        data_bytes: int | None = None,
        closed: Sequence[int] = (),
    ) -> None:
        self._logs = [sandbox.root / "log" / f"{name}.{stream}" for stream in ("out", "err")]
        self._started = time.monotonic()

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
            if file_bytes is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            if data_bytes is not None:
                resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
            for descriptor in closed:
                os.close(descriptor)

        with self._logs[0].open("wb") as out, self._logs[1].open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=sandbox.work,
                env=sandbox.environment(env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=limit,
            )
        self.pid = self._process.pid
        self._ended: tuple[int, float] | None = None
        self._max_rss_mib = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether the command itself has ended."""
        if self._ended is None:
            self._max_rss_mib = max(self._max_rss_mib, peak_mib(self.pid))
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended = os.waitstatus_to_exitcode(status), self._max_rss_mib
                self._process.returncode = self._ended[0]
        return self._ended is not None

    def send(self, number: int, to_group: bool = False) -> None:
        """Send a signal to the command, or to all of its processes."""
        with suppress(ProcessLookupError):
            (os.killpg if to_group else os.kill)(self.pid, number)

    def wait(self) -> Ended:
        """Wait for the end; a command that hangs is killed, and one that computes for ever by the system."""
        hung = not self._comes_to(lambda: self.has_ended)
        if hung:
            self.send(signal.SIGKILL, to_group=True)
            while not self.has_ended:
                time.sleep(POLL_S)
        seconds = time.monotonic() - self._started
        status, max_rss_mib = self._ended or (0, 0.0)
        out, err = (log.read_bytes() for log in self._logs)
        return Ended(None if hung else status, out, err, seconds, max_rss_mib)

    def _comes_to(self, end: Callable[[], bool]) -> bool:
        """Wait for an end as long as the command computes or would if it could; whether it came."""
        cpu_s = self._cpu_s()
        for n_polls in itertools.count(1):
            if end():
                return True
            time.sleep(POLL_S)
            if n_polls % N_POLLS == 0:
                before, cpu_s = cpu_s, self._cpu_s()
                if abs(cpu_s - before) < IDLE_CPU_S and not self._wants_to_compute():
                    return False
        raise AssertionError("counting came to an end")

    def _wants_to_compute(self) -> bool:
        """Whether a thread of this session waits for a processor or for a disk."""
        threads = (path for pid in session_members(self.pid) for path in Path(f"/proc/{pid}/task").glob("*/stat"))
        return any(fields and fields[0] in "RD" for fields in map(_fields, threads))

    def _cpu_s(self) -> float:
        """Processor time of the processes of this session that are alive, and of their children that have ended."""
        ticks = sum(sum(map(int, _fields(_stat(pid))[11:15])) for pid in session_members(self.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def wait_for_orphans(self) -> Iterator[str]:
        """Processes that outlive the command; they are killed."""
        if not self._comes_to(lambda: not session_members(self.pid)):
            yield f"{len(session_members(self.pid))} processes lived on"
            self.send(signal.SIGKILL, to_group=True)


def session_members(session: int) -> list[int]:
    """Processes of a session that are alive."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if (fields := _fields(_stat(pid))) and fields[0] != "Z" and int(fields[3]) == session]


def _stat(pid: int) -> Path:
    return Path(f"/proc/{pid}/stat")


def _fields(stat: Path) -> list[str]:
    """What the system says of a process or thread, from its state on; nothing if it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def walk(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder, links not followed."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted([*folders, *names]))


def digest_of(path: Path) -> str:
    """What a file holds, or where a link leads."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else "no file"


def snapshot(*paths: Path) -> dict[Path, str]:
    """Digests of files and of all that is below folders."""
    files = [path for each in paths for path in (walk(each) if each.is_dir() else [each])]
    return {path: digest_of(path) for path in files if path.exists() or path.is_symlink()}


def changes(before: Mapping[Path, str], after: Mapping[Path, str]) -> Iterator[str]:
    """What has changed between two snapshots."""
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            how = "is gone" if path not in after else "is new" if path not in before else "was changed"
            yield f"{path} {how}"
