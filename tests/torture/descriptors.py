"""Commands that are started without standard input, output or error, in every combination."""

from __future__ import annotations

import itertools
from random import Random

from commands import COMMANDS
from sandbox import Finding
from stage import Stage, first

KIND = "descriptors"
CLOSED = [closed for n in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), n)]
NOT_WRITTEN = 7  # exit code
CASES = Random(0).sample(pairs := list(itertools.product(COMMANDS, CLOSED)), len(pairs))  # so that a part has of all


def run_case(seed: int, stage: Stage, names: tuple[str, ...] = ()) -> list[Finding]:
    """One command with one combination; seeds from 0 to ``len(CASES)`` are all there are."""
    name, closed = CASES[seed % len(CASES)] if not names else (Random(seed).choice(names), CLOSED[seed % len(CLOSED)])
    command = COMMANDS[name]
    case = stage.sandbox(f"{KIND}-{seed}")
    running = case.start(command.arguments(stage.material), program=command.program, closed=closed)
    ended = running.wait()
    # What a command has to say on a closed standard output cannot be written; its work is done all the same.
    statuses = (0, NOT_WRITTEN) if 1 in closed else (0,)
    found = [*ended.faults(statuses), *running.wait_for_orphans()]
    found += stage.left(case, command, has_earlier=False) if ended.status in statuses else []
    return [Finding(KIND, seed, f"{what} [{name} without {closed}]") for what in first(iter(found), 10)]
