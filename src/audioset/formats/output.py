"""Where results go: standard output, or a file that gets its name when it is whole."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from audioset.errors import MissingExtraError, OutputError, UsageError, one_line
from audioset.files import exists, explain_os_errors, flush, is_file, is_folder, replacing
from audioset.formats.recognising import Recogniser
from audioset.formats.rows import printable


class Output(io.RawIOBase):
    """A binary stream to write to, whose failures are ``OutputError``. Made by ``open_output``.

    Temporary files belong in ``folder``: on the disk that the output goes to. None is the system's place.
    """

    def __init__(self, stream: BinaryIO, name: str, *, encoding: str = "utf-8", folder: Path | None = None) -> None:
        self._stream = stream
        self.name = name  # for messages
        self.encoding = encoding  # of text that a person reads there
        self.folder = folder
        self.reader_is_gone = False  # the pipe's other end was closed (``audioset tag | head``): no more to do

    def write(self, data: Any, /) -> int:
        """Write all of ``data``, and flush it: readers of pipes see each row at once."""
        try:
            with explain_os_errors(self.name):
                self._stream.write(data)
                self._stream.flush()
        except BrokenPipeError:
            self.reader_is_gone = True
            self._drop_the_rest()
            raise
        except OutputError:
            self._drop_the_rest()
            raise
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether a person may be reading this in a terminal."""
        return self._stream.isatty()

    def _drop_the_rest(self) -> None:
        """Let what is still in buffers go nowhere; else the interpreter complains of the pipe when it exits."""
        with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path but a device
            os.dup2(nowhere.fileno(), self._stream.fileno())


Stream = BinaryIO | Output
FileId = tuple[int, int]


class StreamWriter:
    """What writers have in common that keep nothing back: a heading first, and nothing in the end."""

    HEADING = b""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        if self.HEADING:
            stream.write(self.HEADING)

    def close(self) -> None:
        """Nothing is left to write."""


class OneRecordingWriter(StreamWriter):
    """A writer of a format that describes one recording, and refuses a second one."""

    ONE = ""  # what there is one of
    OTHERS = "csv or dcase"  # formats that take several
    FILE = "file"
    _path: str | None = None

    def _check_path(self, path: str) -> None:
        if self._path not in (None, path):
            raise UsageError(
                f"a second recording, {one_line(path)}, in one {self.ONE} recording. "
                f"Next step: give a folder as --output, which gets one {self.FILE} for each recording, "
                f"or choose another format, such as {self.OTHERS}"
            )
        self._path = path


@contextmanager
def open_output(target: str | os.PathLike[str] | None) -> Iterator[Output]:
    """Open the place for results. None or ``"-"`` is standard output.

    A file gets its name at the end of the ``with`` block, and is deleted if the block raises; folders on the way are
    made. Devices and named pipes are written directly. If its reader goes away, the block ends quietly at the next
    write: see ``Output.reader_is_gone``. ``ConflictError`` if another process is writing the file; ``OutputError`` if
    the place cannot be written, when the block begins, at any write, or when it ends.
    """
    is_standard = target is None or os.fspath(target) == "-"
    with _standard_output() if target is None or is_standard else _file_output(Path(target)) as output:
        try:
            yield output
        except BrokenPipeError:
            if not output.reader_is_gone:
                raise


@contextmanager
def _standard_output() -> Iterator[Output]:
    sys.stdout.flush()
    yield Output(sys.stdout.buffer, "standard output", encoding=sys.stdout.encoding)


@contextmanager
def _file_output(target: Path) -> Iterator[Output]:
    name = printable(target)
    with ExitStack() as stack:
        with explain_os_errors(name):
            if is_device(target):
                final, file = None, target.open("wb")
            else:
                final = Path(os.path.realpath(target))  # a link stays a link
                if final.is_dir():
                    raise IsADirectoryError(errno.EISDIR, "it is a folder")
                temporary = stack.enter_context(replacing(final, waits=False))
                file = temporary.open("wb")
            stack.callback(_close, file)
        yield Output(file, name, folder=final and final.parent)
        with explain_os_errors(name):
            if final:
                os.fsync(file.fileno())
            file.close()
            stack.close()
            if final:
                flush(final.parent)


def is_device(target: Path) -> bool:
    """Whether it is a device or a pipe, which is written to and not replaced."""
    return exists(target) and not is_file(target) and not is_folder(target)


def _close(file: BinaryIO) -> None:
    """Close a file whose contents nobody wants any more."""
    with suppress(OSError):
        file.close()


def file_ids(paths: Iterable[str | os.PathLike[str]]) -> set[FileId]:
    """What the system tells files and folders by, through links, second names and other cases."""
    found = set()
    for path in paths:
        with suppress(OSError, ValueError):
            status = Path(path).stat()
            found.add((status.st_dev, status.st_ino))
    return found


def check_output(
    target: str | os.PathLike[str] | None,
    inputs: Container[FileId],
    is_ours: Recogniser | None,
    *,
    overwrites: bool = False,
    option: str = "--output",
) -> None:
    """Refuse, before any work, to write over an input, or over what another program has written, with a ``UsageError``.

    None or ``"-"`` is standard output; devices and named pipes are written to, and not replaced, and an empty file may
    be replaced. ``inputs`` are the ``file_ids`` of everything that is read. ``is_ours`` tells from a file's contents
    whether the writer that would replace it has written it; None: it was told elsewhere. If it ``overwrites``, any file
    may be replaced that is not an input. ``option`` is what the target was given with, for messages.
    """
    is_standard = target is None or os.fspath(target) == "-"
    try:
        status = os.fstat(sys.stdout.fileno()) if target is None or is_standard else Path(target).stat()
    except (OSError, ValueError, AttributeError):  # nothing is there; in tests, no file at all
        return
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return
    name = "standard output" if target is None or is_standard else f"{option} {printable(target)}"
    if (status.st_dev, status.st_ino) in inputs:
        raise UsageError(f"{name} is one of the inputs, and would be written over. Next step: choose another name")
    if target is None or is_standard or overwrites or not status.st_size or is_ours is None:
        return
    if stat.S_ISREG(status.st_mode) and not _is_recognised(Path(target), is_ours):
        raise UsageError(
            f"{name} is there already, and holds something else than this command writes. "
            "Next step: choose another name, or --overwrite"
        )


def check_different(**targets: str | os.PathLike[str] | None) -> None:
    """Refuse options that name one file for several outputs, with a ``UsageError``."""
    named: dict[str, str] = {}
    for option, target in targets.items():
        if target is not None and os.fspath(target) != "-" and not is_device(Path(target)):
            other = named.setdefault(os.path.realpath(target), option)
            if other != option:
                raise UsageError(f"--{other} and --{option} are both {printable(target)}. Next step: name another file")


def _is_recognised(path: Path, is_ours: Recogniser) -> bool:
    try:
        with path.open("rb") as file:
            return is_ours(file)
    except MissingExtraError:
        raise
    except Exception:  # readers of other people's bytes fail in any way
        return False
