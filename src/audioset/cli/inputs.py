"""Which files a command line means: files, folders, globs, and ``-`` for standard input."""

from __future__ import annotations

import glob
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from audioset.cli.echo import echo
from audioset.errors import NoInputError
from audioset.files import exists, is_folder, temporary_folder
from audioset.folders import AUDIO_SUFFIXES, scan_folder

STDIN = "-"


@dataclass(frozen=True)
class Input:
    """One recording: where its bytes are, and what it is called in results."""

    path: str
    shown: str


@contextmanager
def open_inputs(arguments: Sequence[str], *, is_quiet: bool = False) -> Iterator[list[Input]]:
    """All recordings that the arguments name, each once, in the order given; folders sorted.

    What lies in folders and is no audio is counted on standard error, unless ``is_quiet``. Standard input is kept in a
    temporary file, because most formats cannot be decoded without seeking. ``NoInputError`` if there are none; the
    message says what was looked for.
    """
    with temporary_folder() if STDIN in arguments else nullcontext(Path()) as folder:
        inputs: dict[str, Input] = {}
        for argument in arguments:
            for path in _paths(argument, is_quiet=is_quiet):
                inputs.setdefault(path, Input(path, path))
            if argument == STDIN:
                inputs[STDIN] = Input(_spool_stdin(folder), STDIN)
        if not inputs:
            raise NoInputError(
                f"no audio in {', '.join(arguments)}. Looked for files ending in {' '.join(sorted(AUDIO_SUFFIXES))}, "
                "in folders below too. Next step: name the files themselves if they end otherwise"
            )
        yield list(inputs.values())


def _paths(argument: str, *, is_quiet: bool) -> Iterator[str]:
    if argument == STDIN:
        return
    if is_folder(argument):
        scan = scan_folder(argument)
        for note in () if is_quiet else scan.notes():
            echo(f"audioset: {note}", err=True)
        yield from scan.of(AUDIO_SUFFIXES)
    elif glob.has_magic(argument) and not exists(argument):
        yield from sorted(path for path in glob.glob(argument, recursive=True) if not Path(path).is_dir())
    else:
        yield argument


def _spool_stdin(folder: Path) -> str:
    path = folder / "stdin"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return str(path)
