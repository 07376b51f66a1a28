"""Commands that are killed at a random moment, and started again."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from random import Random

from sandbox import TRACEBACK, Finding, Running, Sandbox, session_members, snapshot, tail, walk
from stage import Stage, choose, first, half_written, unreadable

KIND = "kills"
# What is killed: the command, one of its processes, or all of them.
WAYS = {
    "KILL": (signal.SIGKILL, "command"),
    "TERM": (signal.SIGTERM, "command"),
    "HUP": (signal.SIGHUP, "command"),
    "INT to all": (signal.SIGINT, "all"),
    "KILL all": (signal.SIGKILL, "all"),
    "TERM to all": (signal.SIGTERM, "all"),
    "KILL one child": (signal.SIGKILL, "child"),
}
WEIGHTS = (4, 3, 1, 1, 2, 1, 2)
OUR_STATUS = (0, 2, 3, 4, 5, 6, 7)


def run_case(seed: int, stage: Stage, names: tuple[str, ...] = ()) -> list[Finding]:
    """Kill one run, look at what is there, run it again, and compare."""
    rng = Random(seed)
    command, has_earlier = choose(rng, names)
    [way] = rng.choices(list(WAYS), WEIGHTS)
    right = stage.reference(command, has_earlier)
    case = stage.sandbox(f"{KIND}-{seed}")
    stage.begin(case, command, has_earlier)
    before = snapshot(case.work)
    running = case.start(command.arguments(stage.material), program=command.program)
    waits_for_output = rng.random() < 0.5
    _wait(rng, running, case, right.seconds, len(before) if waits_for_output else None)
    found = [*_kill(rng, running, way), *running.wait_for_orphans()]
    found += stage.input_changes()
    # A run that has lost a child goes on, with an error in place of what the child was at.
    goes_on = WAYS[way][1] == "child"
    found += unreadable(case, command) if goes_on else half_written(case, command, before, right)
    found += stage.redo(case, command, has_earlier)
    story = f"{command.name}{', with an earlier output' if has_earlier else ''}, {way}"
    return [Finding(KIND, seed, f"{what} [{story}]") for what in first(iter(found), 10)]


def _wait(rng: Random, running: Running, case: Sandbox, seconds: float, n_files: int | None) -> None:
    """Until a moment of the run, or until shortly after it has begun to write."""
    deadline = time.monotonic() + rng.uniform(0, 1.1 * seconds)
    pause_s = rng.choice((0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.3)))
    while time.monotonic() < deadline if n_files is None else len(list(walk(case.work))) <= n_files:
        if running.has_ended:
            return
        time.sleep(0.002)
    time.sleep(pause_s if n_files is not None else 0)


def _kill(rng: Random, running: Running, way: str) -> list[str]:
    number, whom = WAYS[way]
    if whom == "child":
        return _kill_child(rng, running)
    running.send(number, to_group=whom == "all")
    ended = running.wait()
    if ended.status is None:
        return [f"did not end after {way}"]
    if number != signal.SIGKILL and TRACEBACK in ended.err:
        return [f"a traceback after {way}: {tail(ended.err)}"]
    if number != signal.SIGKILL and ended.status not in (0, -number, 128 + number):
        return [f"ended with {ended.status} after {way}: {tail(ended.err)}"]
    return []


def _kill_child(rng: Random, running: Running) -> list[str]:
    """One of the command's processes; the command goes on, or says what happened."""
    children = sorted(pid for pid in session_members(running.pid) if pid != running.pid)
    if children:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(children), signal.SIGKILL)
    return list(running.wait().faults(OUR_STATUS))
