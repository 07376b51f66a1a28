"""Two commands with one output at the same time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

from commands import Command
from outputs import difference
from sandbox import Finding, Sandbox
from stage import CONFLICT, Stage, choose, first

KIND = "writers"


def run_case(seed: int, stage: Stage, names: tuple[str, ...] = ()) -> list[Finding]:
    """Start two; each ends well or is refused, and the output is what one or both of them make."""
    rng = Random(seed)
    command, _ = choose(rng, names)
    case = stage.sandbox(f"{KIND}-{seed}")
    arguments = command.arguments(stage.material)
    other = command.earlier(stage.material) if command.earlier and rng.random() < 0.5 else arguments
    one = case.start(arguments, "one", command.program)
    time.sleep(rng.choice((0.0, rng.uniform(0, stage.reference(command, has_earlier=False).seconds))))
    two = case.start(other, "two", command.program)
    ends = [one.wait(), two.wait()]
    found = [fault for ended in ends for fault in ended.faults((0, CONFLICT))]
    if all(ended.status == CONFLICT for ended in ends):
        found.append("both were refused")
    if not command.is_growing:
        found += _mixed(stage, case, command)
    if other is arguments:
        found += stage.redo(case, command, has_earlier=False)
    alike = "alike" if other is arguments else "with other inputs"
    return [Finding(KIND, seed, f"{what} [two of {command.name}, {alike}]") for what in first(iter(found), 10)]


def _mixed(stage: Stage, case: Sandbox, command: Command) -> list[str]:
    """How the output, or a file of it, differs from the nearest of those that it may be."""
    rights = [stage.reference(command, has_earlier=False).values]
    if command.earlier:  # that of the other, or of both where rows are added
        rights.append(command.read(stage.earlier(command).work / command.output))
        rights.append(stage.reference(command, has_earlier=True).values)
    found = command.read(case.work / command.output)
    if not command.output.endswith("/"):
        return _nearest(rights, found)
    allowed = {name: [right[name] for right in rights if name in right] or [None] for name in found}
    return [f"{name}: {what}" for name, value in found.items() for what in _nearest(allowed[name], value)]


def _nearest(rights: Sequence[object], found: object) -> list[str]:
    return min((first(difference(right, found)) for right in rights), key=len)
