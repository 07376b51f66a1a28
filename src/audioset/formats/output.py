"""Where results go: standard output, or a file that gets its name when it is whole."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from audioset.errors import OutputError
from audioset.files import explain_os_errors
from audioset.formats.rows import printable


class Output(io.RawIOBase):
    """A binary stream to write to, whose failures are ``OutputError``. Made by ``open_output``.

    Attributes
    ----------
    name : str
        For messages.
    encoding : str
        Of text that a person reads there.
    folder : Path or None
        Where temporary files belong: on the disk that the output goes to. None: the system's place.
    reader_is_gone : bool
        The pipe's other end was closed (``audioset tag ... | head``), so there is no more to do.
    """

    def __init__(self, stream: BinaryIO, name: str, *, encoding: str = "utf-8", folder: Path | None = None) -> None:
        self._stream = stream
        self.name = name
        self.encoding = encoding
        self.folder = folder
        self.reader_is_gone = False

    def write(self, data: Any, /) -> int:
        """Write all of ``data``, and flush it: what a killed run had written is there."""
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


@contextmanager
def open_output(target: str | os.PathLike[str] | None) -> Iterator[Output]:
    """Open the place for results.

    Parameters
    ----------
    target : path or None
        None or ``"-"`` is standard output. A file is written as ``<name>.partial`` and renamed at the end
        of the ``with`` block. If the block raises, or the process is killed, what was done stays in the
        partial file. Devices and named pipes are written directly.

    Yields
    ------
    Output
        If its reader goes away, the block ends quietly at the next write: see ``Output.reader_is_gone``.

    Raises
    ------
    OutputError
        If the place cannot be written, when the block begins, at any write, or when it ends.
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
    with explain_os_errors(name):
        is_device = target.exists() and not target.is_file() and not target.is_dir()
        final = target if is_device else Path(os.path.realpath(target))  # a link stays a link
        partial = final if is_device else final.with_name(final.name + ".partial")
        _check_place(final)
        file = partial.open("wb")
    try:
        yield Output(file, name, folder=None if is_device else final.parent)
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    with explain_os_errors(name):
        if not is_device:
            os.fsync(file.fileno())
        file.close()
        if not is_device:
            partial.replace(final)


def _check_place(path: Path) -> None:
    """Find out now what would otherwise fail when the work is done."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"the folder {printable(path.parent)} does not exist")
