"""Commands that are started without standard input, output or error, in every combination."""

from __future__ import annotations

import itertools
from random import Random

from commands import COMMANDS
from sandbox import Finding, snapshot
from stage import Stage, first, half_written

KIND = "descriptors"
CLOSED = [closed for n in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), n)]
CASES = [(name, closed) for name in COMMANDS for closed in CLOSED]


def run_case(seed: int, stage: Stage, names: tuple[str, ...] = ()) -> list[Finding]:
    """One command with one combination; seeds from 0 to ``len(CASES)`` are all there are."""
    name, closed = CASES[seed % len(CASES)] if not names else (Random(seed).choice(names), CLOSED[seed % len(CLOSED)])
    command = COMMANDS[name]
    right = stage.reference(command, has_earlier=False)
    case = stage.sandbox(f"descriptors-{seed}")
    before = snapshot(case.work)
    running = case.start(command.arguments(stage.material), closed=closed)
    found = [*running.wait().faults((0,)), *running.wait_for_orphans()]
    found += half_written(case, command, before, right)
    found += stage.redo(case, command, has_earlier=False)
    return [Finding(KIND, seed, f"{what} [{name} without {closed}]") for what in first(iter(found), 10)]
