"""Trainings in several processes, signals, and programs that stand for Python's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
ABORTED = "terminate called without an active exception"


def python_that(folder: Path, script: str) -> str:
    """A program called python3 that does what a shell script says."""
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def torchrun(*arguments: Path) -> None:
    """Run a script in two processes.

    On a busy machine PyTorch's own threads may abort a process as it ends; the same command then finds its run done.
    """
    for _ in range(2):
        process = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, timeout=180)
        if ABORTED not in process.stderr:
            break
    assert process.returncode == 0, process.stderr


def ask_to_stop() -> None:
    """Send this process a signal to stop, which must be waited for: it would end all tests."""
    assert callable(signal.getsignal(signal.SIGTERM)), "nothing waits for SIGTERM"
    os.kill(os.getpid(), signal.SIGTERM)


def children_of(pid: int) -> set[int]:
    """The processes that any thread of one has started; where the system does not list them, the test is skipped."""
    listings = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not listings:
        pytest.skip("this system does not list child processes")
    return {int(child) for listing in listings for child in listing.read_text().split()}
