"""Files that are whole when they have their name, one writer for each, and what the system says if it cannot be.

While ``name`` is written there are two hidden files beside it: ``.name.audioset-partial`` with what is done, and
``.name.audioset-lock``, whose lock is the operating system's and ends with its process. Both go when it is done. What a
killed process has left of them is deleted by the next one that writes ``name``.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from audioset.concurrency import IS_WINDOWS, NO_LINKS, holding
from audioset.errors import AudioSetError, ConflictError, DataError, OutputError, UsageError

logger = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20
MAX_NAME = 4096
MAX_TEXT_BYTES = 1 << 30
# What Windows opens in place of a file of that name, whatever its ending.
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{name}{n}" for name in ("COM", "LPT") for n in range(10))}

NEXT_STEPS = {
    errno.ENOSPC: "free some space there, or choose another disk",
    errno.EDQUOT: "free some of your quota there, or choose another disk",
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.EISDIR: "name a file in that folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}
PARTIAL, LOCK = "audioset-partial", "audioset-lock"
RUN = "run"  # in the name of a folder's lock
OURS = re.compile(rf"\.(?P<name>.+)\.(?:{PARTIAL}|{LOCK})", re.DOTALL)
MAX_NAME_BYTES = 255  # of nearly every file system
TEMPORARY = re.compile("audioset-[0-9a-f]{12}")
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}  # likewise
KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextmanager
def explain_os_errors(place: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system says about writing to a place into an OutputError. A closed pipe stays one."""
    try:
        yield
    except (AudioSetError, BrokenPipeError):
        raise
    except OSError as error:
        step = NEXT_STEPS.get(error.errno or 0, "choose another place")
        raise OutputError(f"cannot write {place}: {error.strerror or error}. Next step: {step}") from error


@contextmanager
def locked(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Be the only process that writes ``path``, which may be missing, in a folder that is there, while the block lasts.

    It yields whether that is sure: some network file systems keep no locks. Then a warning was logged. If it ``waits``,
    it waits for another process that is writing it, instead of raising ``ConflictError``.
    """
    with holding(_beside(path, LOCK), path, waits=waits) as is_sure:
        yield is_sure


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Be the only run that fills a folder, while the block lasts; the folder is made, and swept.

    ``UsageError`` if it is a file, ``ConflictError`` if another run is filling it, ``OutputError`` if the disk is full,
    or the place does not allow it.
    """
    if exists(folder) and not is_folder(folder):
        raise UsageError(f"{folder} is a file; expected a folder, which is made if need be")
    is_new = not exists(folder)
    with ExitStack() as stack:
        with explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if is_new:
                stack.callback(_remove_if_empty, folder)
            if stack.enter_context(holding(folder / f".{RUN}.{LOCK}", folder, waits=False)):
                sweep(folder)
        yield


@contextmanager
def replacing(path: Path, *, waits: bool = True) -> Iterator[Path]:
    """An empty file to write to, which becomes ``path`` if the block ends well and is deleted if not.

    The folder is made if need be; ``waits`` as for ``locked``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, waits=waits) as is_sure, _renaming(path, is_sure=is_sure) as temporary:
        yield temporary


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole: nobody ever sees a part of it."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """As ``replacing``, for results: on the disk for good before they have their name, and failures explained.

    ``ConflictError`` if another process is writing it, ``OutputError`` if the disk is full, or the place does not allow
    it.
    """
    with explain_os_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        with replacing(path, waits=False) as temporary:
            yield temporary
            flush(temporary)
        flush(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """As ``output_file``, open for writing."""
    with output_file(path) as temporary, temporary.open("wb") as file:
        yield file


def update(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file by what a function makes of its contents, of which there are none if it is missing.

    Several processes may do so at once: each one's change is made to what the one before has left. ``OutputError`` if
    the disk is full, or the place does not allow it.
    """
    with explain_os_errors(path):
        real = Path(os.path.realpath(path))  # a link stays a link
        real.parent.mkdir(parents=True, exist_ok=True)
        with locked(real, waits=True) as is_sure:
            before = real.read_bytes() if real.exists() else b""
            after = change(before)
            if after != before:
                with _renaming(real, is_sure=is_sure) as temporary:
                    temporary.write_bytes(after)
                    flush(temporary)
                flush(real.parent)


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``path`` if the block ends well, and is deleted if not.

    ``ConflictError`` if there is something of that name, other than an empty folder, or another process is writing it;
    ``OutputError`` if the disk is full, or the place does not allow it.
    """
    with partial_folder(path) as temporary:  # first: what a killed run has left goes, even where all was done
        _check_free(path)
        yield temporary
        with explain_os_errors(path):
            flush_tree(temporary)
            _check_free(path)
            if path.exists():
                path.rmdir()
            temporary.rename(path)
            flush(path.parent)


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` for what is to become it, deleted at the end if it is still there; with its lock.

    ``ConflictError`` if another process is writing ``path``, ``OutputError`` if the disk is full, or the place does not
    allow it.
    """
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path) as is_sure:
            temporary = _free_name(path, is_sure=is_sure)
            temporary.mkdir()
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def check_regular(path: Path) -> None:
    """Refuse what is no file before it is opened: a pipe lets its reader wait for ever, and a device has no end.

    ``OSError``, with words for what it is.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, "it is a folder; expected a file", str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"it is {KINDS.get(kind, 'no file')}; expected a file", str(path))


def open_input(path: Path) -> BinaryIO:
    """Open a text to be read once. It may be a pipe, as shells make them: one that nobody writes to is refused."""
    if not stat.S_ISFIFO(path.stat().st_mode):
        check_regular(path)
        return path.open("rb")
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    os.set_blocking(file.fileno(), True)
    if not file.peek(1):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe that nobody writes to", str(path))
    return file


def read_input(path: Path) -> bytes:
    """The bytes of a text, of any size that a text has.

    ``OSError`` if it cannot be read, is no file, or has more than ``MAX_TEXT_BYTES``.
    """
    with open_input(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_TEXT_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MAX_TEXT_BYTES:,} bytes; expected a text", str(path))
        return file.read()


# Whether there is such a file or folder. None has a name that no disk takes, of which pathlib raises OSError.
exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir


def read_blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a block after the other."""
    check_regular(path)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def confined(folder: Path, name: str) -> Path:
    """The path of something below a folder, given its name by somebody else: here, and only here, names become paths.

    One or several plain names with ``/`` between them. ``DataError`` if they are not plain on every system (absolute,
    with a drive, ``..``, a backslash, control characters, a name that Windows keeps for devices), or a link on the way
    leads out of the folder.
    """
    if not is_plain_name(name):
        raise DataError(
            f"{str(name)!r:.100} is no name of a file below {folder}; expected plain names. Likely cause: a damaged "
            "file, or one that was made to reach others"
        )
    path = folder / name
    try:
        is_inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        is_inside = False
    if not is_inside:
        raise DataError(f"{path} leads out of {folder} by a link. Next step: put the file itself there")
    return path


def is_plain_name(name: object) -> bool:
    """Whether a text is one or several plain names with ``/`` between them, which mean the same on every system."""
    return isinstance(name, str) and len(name) <= MAX_NAME and all(map(_is_plain, name.split("/")))


def _is_plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and "\\" not in part
        and part.isprintable()
        and part == part.rstrip(". ")
        and not (len(part) > 1 and part[1] == ":")
        and part.partition(".")[0].rstrip().upper() not in DEVICES
    )


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of this process in the system's place for such; those that killed processes left are deleted first."""
    place = Path(tempfile.gettempdir())
    for found in (*place.glob("audioset-*"), *place.glob(f".audioset-*.{LOCK}")):
        name = found.name.removeprefix(".").removesuffix(f".{LOCK}")
        if TEMPORARY.fullmatch(name):
            _sweep_one(place / name, place / name)
    folder = place / f"audioset-{uuid4().hex[:12]}"
    with ExitStack() as stack:
        with explain_os_errors(place):
            stack.enter_context(locked(folder))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            folder.mkdir(mode=0o700)
        yield folder


def sweep(folder: Path) -> None:
    """Delete what killed processes left half-written in a folder of this package's own."""
    for found in list(folder.glob(f".*.{PARTIAL}")) + list(folder.glob(f".*.{LOCK}")):
        match = OURS.fullmatch(found.name)
        if match and match["name"] != RUN:
            _sweep_one(folder / match["name"], _beside(folder / match["name"], PARTIAL))


def flush(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder, whatever happens to the machine."""
    is_folder = path.is_dir()
    if is_folder and IS_WINDOWS:  # which keeps them by itself
        return
    try:
        file = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
    except PermissionError:
        if is_folder:  # that may be written to, and not listed
            return
        raise
    try:
        os.fsync(file)
    except OSError as error:
        if not is_folder or error.errno not in NO_FOLDER_SYNC:
            raise
    finally:
        os.close(file)


def flush_tree(folder: Path) -> None:
    """The same for all that is in a folder, and below it."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() or path.is_file():
            flush(path)


def _beside(path: Path, what: str) -> Path:
    """The hidden name of a lock or of a part of ``path``. If it is too long, a digest stands for the name."""
    name = f".{path.name}.{what}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES >= len(os.fsencode(path.name)):
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.{what}"
    return path.with_name(name)


@contextmanager
def _renaming(path: Path, *, is_sure: bool) -> Iterator[Path]:
    """An empty file that becomes ``path``, whose lock is held, or is deleted."""
    temporary = _free_name(path, is_sure=is_sure)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _free_name(path: Path, *, is_sure: bool) -> Path:
    """A name for what is to become ``path``. What is there is a killed process's, if the lock is surely ours."""
    temporary = _beside(path, PARTIAL)
    if is_sure and _delete(temporary):
        return temporary
    return _beside(path, uuid4().hex)


def _sweep_one(path: Path, leftover: Path) -> None:
    with suppress(ConflictError, OSError), locked(path) as is_sure:
        if is_sure:
            _delete(leftover)


def _delete(leftover: Path) -> bool:
    """Delete a file or folder of this user's; whether nothing of the name is there now."""
    try:
        status = leftover.lstat()
        if hasattr(os, "getuid") and status.st_uid != os.getuid():
            return False
        if stat.S_ISDIR(status.st_mode):
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _check_free(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConflictError(f"{path} is there already. Next step: choose another name, or delete it")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
