"""Commands whose disk is full at a random byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from sandbox import Finding, snapshot
from stage import Stage, choose, first, half_written

KIND = "disks"
OUR_STATUS = (0, 5, 7)  # 5: weights that could not be fetched or kept
SPARE_BYTES = 4096  # a file system's own


def run_case(seed: int, stage: Stage, names: tuple[str, ...] = ()) -> list[Finding]:
    """Run a command on a disk that is too small, or with a limit on the size of files; then with room."""
    rng = Random(seed)
    command, has_earlier = choose(rng, names)
    right = stage.reference(command, has_earlier)
    case = stage.sandbox(f"{KIND}-{seed}")
    n_bytes = rng.randrange(right.n_bytes + 1)
    is_mounted = os.geteuid() == 0 and rng.random() < 0.5 and _can_mount(case.root)
    with _small_disk(case.work, n_bytes + SPARE_BYTES) if is_mounted else _no_disk() as make_room:
        try:
            stage.begin(case, command, has_earlier)
        except OSError:  # there is no room for what an earlier run wrote
            return []
        before = snapshot(case.work)
        running = case.start(
            command.arguments(stage.material), program=command.program, file_bytes=None if is_mounted else n_bytes
        )
        ended = running.wait()
        found = [*ended.faults(OUR_STATUS), *running.wait_for_orphans()]
        found += half_written(case, command, before, right)
        make_room()
        found += stage.redo(case, command, has_earlier)
    where = "a small disk" if is_mounted else f"files of {n_bytes} bytes"
    story = f"{command.name}{', with an earlier output' if has_earlier else ''}, {where}"
    return [Finding(KIND, seed, f"{what} [{story}]") for what in first(iter(found), 10)]


@contextmanager
def _no_disk() -> Iterator[Callable[[], object]]:
    yield lambda: None


@contextmanager
def _small_disk(folder: Path, n_bytes: int) -> Iterator[Callable[[], object]]:
    """A file system of its own in that folder; what is given makes room in it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _can_mount(folder: Path) -> bool:
    place = folder / "mount"
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode == 0:
        subprocess.run(["umount", "-l", str(place)], check=True)
    return mounted.returncode == 0
