"""What a hostile input is, and what its writers share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFUSALS = (2, 3, 4, 5, 6, 7)
READ_OR_REFUSED = (0, 3)
DEEP = 200_000  # lists in lists
TAG_MODEL = ["tag", "a.wav", "--model", "model", "-q"]


@dataclass(frozen=True)
class Place:
    """Where an input is written: the working directory of the command."""

    work: Path
    seed: int

    def path(self, name: str) -> Path:
        """A file below the working directory, in a folder that is made."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, data: bytes | str) -> Path:
        """A file with these contents."""
        path = self.path(name)
        path.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)
        return path

    @property
    def canary(self) -> str:
        """A file that is there if code of the input has run."""
        return str(self.work.parent / f"CANARY-{self.seed}")


Write = Callable[[Place], "list[str]"]


@dataclass(frozen=True)
class Hostile:
    """One hostile input.

    Attributes
    ----------
    write : function of Place
        Writes it; returns the arguments of the command that reads it.
    statuses : sequence of int
        How that command may end.
    outputs : sequence of str
        What it may write or change.
    """

    write: Write
    statuses: Sequence[int] = REFUSALS
    outputs: Sequence[str] = ()


HOSTILE: dict[str, Hostile] = {}


def hostile(name: str, statuses: Sequence[int] = REFUSALS, outputs: Sequence[str] = ()) -> Callable[[Write], Write]:
    """Add what the function writes to ``HOSTILE``."""

    def add(write: Write) -> Write:
        HOSTILE[name] = Hostile(write, statuses, outputs)
        return write

    return add


class Gadget:
    """Its pickle runs a command where it is loaded."""

    def __init__(self, place: Place) -> None:
        self._command = f"touch {place.canary}"

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def tag(*inputs: str) -> list[str]:
    """The command that reads recordings."""
    return [
        "tag",
        *inputs,
        "--model",
        "model",
        "-q",
        "--format",
        "jsonl",
        "--worker-stall-s",
        "5",
        "--max-seconds",
        "600",
    ]
