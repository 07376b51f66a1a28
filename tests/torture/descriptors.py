"""Commands that are started without standard input, output or error, in every combination."""

from __future__ import annotations

import itertools
from random import Random

from commands import COMMANDS
from sandbox import Finding
from stage import Stage, first

KIND = "descriptors"
CLOSED = [closed for n in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), n)]
CASES = [(name, closed) for name in COMMANDS for closed in CLOSED]


def run_case(seed: int, stage: Stage, names: tuple[str, ...] = ()) -> list[Finding]:
    """One command with one combination; seeds from 0 to ``len(CASES)`` are all there are."""
    name, closed = CASES[seed % len(CASES)] if not names else (Random(seed).choice(names), CLOSED[seed % len(CLOSED)])
    command = COMMANDS[name]
    case = stage.sandbox(f"{KIND}-{seed}")
    running = case.start(command.arguments(stage.material), program=command.program, closed=closed)
    ended = running.wait()
    found = [*ended.faults((0,)), *running.wait_for_orphans()]
    found += stage.left(case, command, has_earlier=False) if ended.status == 0 else []
    return [Finding(KIND, seed, f"{what} [{name} without {closed}]") for what in first(iter(found), 10)]
