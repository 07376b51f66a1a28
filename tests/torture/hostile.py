"""Hostile files of every reader, each in a process with limits, watched for what it tries."""

from __future__ import annotations

import importlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hostile_place import HOSTILE, Hostile, Place
from sandbox import Finding, Running, Sandbox, changes, snapshot, tail, walk
from sounds import noise, wav_bytes
from tiny import write_tiny_model

KIND = "hostile"
CPU_S = 25
MEMORY_MIB = 1_500  # resident
DATA_BYTES = 4 << 30  # that the kernel allows, so that a fault does not take the whole machine
# Not ``python -m audioset``, with which Python itself looks into the current folder first.
COMMAND = [sys.executable, str(Path(sys.executable).with_name("audioset"))]
HOOK = Path(__file__).parent / "hook"
for module in ("hostile_models", "hostile_data", "hostile_recordings"):
    importlib.import_module(module)  # each adds to HOSTILE
NAMES = tuple(HOSTILE)
RATE = 16_000


def run_case(seed: int, root: Path, strace: str | None = None) -> list[Finding]:
    """Write one hostile input, run the command that reads it, and see what it has done."""
    name = NAMES[seed % len(NAMES)]
    hostile = HOSTILE[name]
    folder = root / f"{KIND}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    case = Sandbox.make(folder)
    outside = _outside(folder)
    write_tiny_model(case.work / "model")
    (case.work / "a.wav").write_bytes(wav_bytes(noise(RATE), RATE))
    arguments = hostile.write(Place(case.work, seed))
    before = {**_regular(case.work), **snapshot(outside)}
    ended = _start(case, arguments, strace).wait()
    found = [*ended.faults(hostile.statuses)]
    found += [f"took {ended.max_rss_mib:,.0f} MiB"] if ended.max_rss_mib > MEMORY_MIB else []
    found += ["an escape sequence came out"] if b"\x1b" in ended.out + ended.err else []
    after = {**_regular(case.work), **snapshot(outside)}
    found += [what for what in changes(before, after) if not _is_output(what, case.work, hostile)]
    found += [f"ran code: {path.name}" for path in walk(folder) if path.name.startswith("CANARY")]
    found += [*_tried(folder), *case.leftovers()]
    said = f" It said: {tail(ended.err, 200)}" if ended.status not in hostile.statuses else ""
    for path in (case.work, outside):
        shutil.rmtree(path, ignore_errors=True)
    return [Finding(KIND, seed, f"{what} [{name}]{said}") for what in dict.fromkeys(found)]


def _start(case: Sandbox, arguments: Sequence[str], strace: str | None) -> Running:
    env = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HOOK), os.environ.get("PYTHONPATH")))),
        "TORTURE_LOG": str(case.root / "log" / "tried"),
        "TORTURE_ROOT": str(case.root),
        "AUDIOSET_ASSETS": str(case.work / "assets"),
    }
    trace = ["-f", "-qq", "--seccomp-bpf", "-e", "trace=network", "-o", str(case.root / "log" / "trace")]
    command = [strace, *trace, *COMMAND, *arguments] if strace else [*COMMAND, *arguments]
    return Running(case, command, "run", env, cpu_s=CPU_S, data_bytes=DATA_BYTES)


def _outside(folder: Path) -> Path:
    """Files beside the case's own, where nothing may change."""
    outside = folder / "outside"
    outside.mkdir()
    for name in ("victim.txt", "victim.parquet", "ledger.sqlite", "victim.wav"):
        (outside / name).write_text("untouched")
    return outside


def _regular(folder: Path) -> dict[Path, str]:
    """Digests of what can be read without waiting or filling memory."""
    paths = [path for path in walk(folder) if path.is_symlink() or stat.S_ISREG(path.stat().st_mode)]
    return {path: digest for path in paths if _is_small(path) for digest in snapshot(path).values()}


def _is_small(path: Path) -> bool:
    return path.is_symlink() or path.stat().st_size < 1 << 27


def _is_output(what: str, work: Path, hostile: Hostile) -> bool:
    """Whether a change is what the command is for."""
    return any(what.startswith(str(work / name)) for name in hostile.outputs)


def _tried(folder: Path) -> Iterator[str]:
    """What the hook and the trace have noted."""
    tried, trace = folder / "log" / "tried", folder / "log" / "trace"
    if tried.exists():
        yield from (f"tried {line}" for line in tried.read_text().splitlines())
    if trace.exists():
        lines = trace.read_text(errors="replace").splitlines()
        yield from (
            f"opened a socket: {line[:200]}"
            for line in lines
            if "AF_INET" in line and "bind(" not in line and "socket(" not in line
        )


def find_strace() -> str | None:
    """Where ``strace`` is, if it may be used here."""
    path = shutil.which("strace")
    command = [str(path), "-qq", "--seccomp-bpf", "-f", "-o", os.devnull, "true"]
    return path if path and subprocess.run(command, capture_output=True, check=False).returncode == 0 else None
