"""What the cases of one session share: inputs, a site, and what undisturbed runs give."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from commands import COMMANDS, Command, Material, write_material
from download_server import Site
from fetch import weights_server, yamnet_file
from outputs import difference
from sandbox import LEFTOVERS, Ended, Sandbox, changes, snapshot, tail

CONFLICT = 6  # exit code


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run gives."""

    values: Any
    files: dict[str, str]  # digest of each output file, by its path from the working directory
    seconds: float
    n_bytes: int  # of the largest file


@dataclass
class Stage:
    """Inputs of all commands and references of those that were asked for."""

    root: Path
    material: Material
    _inputs: dict[Path, str] = field(init=False)
    _references: dict[tuple[str, bool], Reference] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._inputs = snapshot(self.material.folder)

    def sandbox(self, name: str) -> Sandbox:
        """An empty sandbox of that name."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        return Sandbox.make(folder)

    def begin(self, case: Sandbox, command: Command, has_earlier: bool) -> None:
        """Put an earlier output where the command will write."""
        if has_earlier and command.earlier:
            copy_tree(self.earlier(command).work, case.work)

    def reference(self, command: Command, has_earlier: bool) -> Reference:
        """What the command gives if nothing disturbs it."""
        key = command.name, has_earlier and command.earlier is not None
        with self._lock:
            if key not in self._references:
                case = self.sandbox(f"reference-{safe(command.name)}-{has_earlier:d}")
                self.begin(case, command, has_earlier)
                ended = case.run(command.arguments(self.material), program=command.program)
                check_done(command.name, ended)
                self._references[key] = _measure(command, case, ended.seconds)
            return self._references[key]

    def input_changes(self) -> Iterator[str]:
        """Inputs that are not what they were."""
        yield from (f"an input: {what}" for what in changes(self._inputs, snapshot(self.material.folder)))

    def redo(self, case: Sandbox, command: Command, has_earlier: bool) -> Iterator[str]:
        """Run the same command again, undisturbed: it must give what it would have given at once.

        What replaces no earlier output may find that all was done before the disturbance.
        """
        is_done = not (command.earlier or command.is_growing) and not list(self._wrong(case, command, has_earlier))
        allowed = (0, CONFLICT) if is_done else (0,)
        ended = case.run(command.arguments(self.material), "again", command.program)
        yield from (f"the same command again {what}" for what in ended.faults(allowed))
        if ended.status in allowed:
            yield from self.left(case, command, has_earlier)

    def left(self, case: Sandbox, command: Command, has_earlier: bool) -> Iterator[str]:
        """What is wrong with what a run has left that ended well."""
        yield from self._wrong(case, command, has_earlier)
        yield from case.leftovers()
        yield from self.input_changes()

    def _wrong(self, case: Sandbox, command: Command, has_earlier: bool) -> Iterator[str]:
        """What is wrong with its output."""
        right = self.reference(command, has_earlier).values
        problems = list(unreadable(case, command))
        yield from problems or first(difference(right, command.read(case.work / command.output)))

    def earlier(self, command: Command) -> Sandbox:
        """Where an earlier run of the command has left its output."""
        folder = self.root / f"earlier-{safe(command.name)}"
        with self._lock:
            if not folder.exists() and command.earlier:
                check_done(command.name, Sandbox.make(folder).run(command.earlier(self.material)))
        return Sandbox(folder)


@contextmanager
def open_stage(root: Path) -> Iterator[Stage]:
    """Inputs below ``root``, and a site that runs as long as the block."""
    with Site() as site, weights_server(yamnet_file()) as weights:
        (root / "material").mkdir(parents=True)
        material = write_material(root / "material", site, weights)
        making = Sandbox.make(root / "making")
        check_done("index", making.run(["index", material.sounds, "--model", material.model, "-o", material.index]))
        yield Stage(root, material)


def check_done(name: str, ended: Ended) -> None:
    """Stop if a command fails that nothing disturbs."""
    if ended.status != 0:
        raise RuntimeError(f"{name}, undisturbed, ended with {ended.status}: {tail(ended.err)}")


def choose(rng: Random, names: Sequence[str] = ()) -> tuple[Command, bool]:
    """A command, and whether it finds an earlier output."""
    commands = [COMMANDS[name] for name in names] or list(COMMANDS.values())
    [command] = rng.choices(commands, [command.weight for command in commands])
    return command, command.earlier is not None and rng.random() < 0.5


def half_written(case: Sandbox, command: Command, before: dict[Path, str], right: Reference) -> Iterator[str]:
    """Files under an output's own name that are neither the earlier ones nor the new ones."""
    if command.is_growing:
        return
    for path, digest in snapshot(case.work).items():
        name = path.relative_to(case.work).as_posix()
        is_output = name == command.output or name.startswith(f"{command.output.rstrip('/')}/")
        is_new = digest not in (before.get(path), right.files.get(name)) and not LEFTOVERS.search(path.name)
        if is_output and is_new and path.is_file():
            yield f"half written: {name}"
    yield from (f"the earlier {path.name} is gone" for path in before if not path.exists())


def unreadable(case: Sandbox, command: Command) -> Iterator[str]:
    """An output that is not whole."""
    try:
        command.read(case.work / command.output)
    except Exception as error:  # whatever a reader makes of it
        yield f"{command.output} cannot be read: {error!r}"


def first(texts: Iterator[str], n: int = 3) -> list[str]:
    """A few of many."""
    return [text for text, _ in zip(texts, range(n), strict=False)]


def safe(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def copy_tree(source: Path, target: Path) -> None:
    """Copy what is in a folder into another."""
    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)


def _measure(command: Command, case: Sandbox, seconds: float) -> Reference:
    output = case.work / command.output
    files = {path: digest for path, digest in snapshot(case.work).items() if path.is_file()}
    sizes = [path.stat().st_size for path in (*files, *snapshot(output)) if path.is_file()]
    named = {str(path.relative_to(case.work)): digest for path, digest in files.items()}
    return Reference(command.read(output), named, seconds, max(sizes))
