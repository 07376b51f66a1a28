"""What is kept between runs: downloads, and what is made from the weights of models.

Whatever is in the cache has its checksum in a small file beside it, and is made again where the two do not fit. The
checksum is CRC-32C: it finds damage by accident, costs 3 ms for YAMNet and 60 ms for VGGish at each start (SHA-256 six
times as much), and is no protection from those who may write to the cache, who could write a checksum too.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from audioset.errors import OutputError, UsageError
from audioset.files import check_regular, explain_os_errors, read_blocks, temporary_folder, write_atomically

logger = logging.getLogger(__name__)

CHECK_SUFFIX, PART_SUFFIX, STATE_SUFFIX = ".crc32c", ".part", ".json"
ASIDE_SUFFIXES = (CHECK_SUFFIX, ".lock", PART_SUFFIX, PART_SUFFIX + STATE_SUFFIX)
FORMER_FOLDERS = ("graphs", "openvino")  # of versions that kept weights twice and three times
STALE_S = 3600.0
ASSETS, MODELS, EMBEDDINGS = "assets", "models", "embeddings"
MAX_CHECK_BYTES = 64
MAX_NAME = 40  # characters of a model's name in the name of its folder


def cache_folder() -> Path:
    """Folder for downloads and for what is made from them: ``AUDIOSET_CACHE``, or the platform's cache folder."""
    import platformdirs

    return Path(os.environ.get("AUDIOSET_CACHE") or platformdirs.user_cache_dir("audioset", appauthor=False))


def writable_folder() -> Path:
    """The cache folder; where it cannot be written, a temporary one that lasts as long as the process."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        warn_unwritable(folder, error.strerror or str(error))
        return _scratch_folder()


def keep(name: str, make: Callable[[], bytes]) -> Path | bytes:
    """A derived file, ``name`` below the cache folder with ``/``, made if it is missing or does not fit its checksum.

    The contents themselves where the cache cannot be written, which is said once.
    """
    path = cache_folder() / name
    if is_whole(path):
        return path
    data = make()
    try:
        put(path, data)
    except OSError as error:
        warn_unwritable(cache_folder(), error.strerror or str(error))
        return data
    return path


@dataclass(frozen=True)
class Graph:
    """A network that an engine may keep in the cache in a form of its own."""

    name: str  # path below the cache folder, with ``/`` and without an ending
    to_onnx: Callable[[], bytes]  # makes the ONNX model, as ``executors.onnx.network_to_onnx`` returns it


def keep_file(name: str, make: Callable[[], bytes]) -> Path:
    """As ``keep``, in a file that lasts as long as the process where the cache cannot be written."""
    kept = keep(name, make)
    if isinstance(kept, Path):
        return kept
    path = _scratch_folder() / name
    with explain_os_errors(path):
        put(path, kept)
    return path


def holds_downloads(folder: Path) -> bool:
    """Whether a folder is the cache's own for downloads."""
    return any(folder.absolute() == (root / ASSETS).absolute() for root in (cache_folder(), *_scratch_folders))


def put(path: Path, data: bytes) -> None:
    """Write a file with its checksum beside it, in place of whatever is there."""
    _make_way(path)
    write_atomically(path, data)
    seal(path, data)


def put_folder(source: Path, target: Path) -> None:
    """Let a folder beside another take its name, with a checksum beside each of its files.

    The files of one folder belong together: of two processes that make it at once, the first one wins, because it may
    be reading it by then.
    """
    names = [path.relative_to(source) for path in _files(source)]
    for name in names:
        seal(source / name)
    with suppress(OSError):  # a folder takes no other's place, unless that is empty
        source.rename(target)
        return
    if not all(is_whole(target / name) for name in names):
        damaged = target.with_name(f".{uuid4().hex}")
        target.rename(damaged)
        delete(damaged)
        source.rename(target)


def _make_way(path: Path) -> None:
    """Take away what a file cannot replace, and its checksum: a killed run leaves none, not another file's."""
    for target in (path, check_path(path)):
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
    check_path(path).unlink(missing_ok=True)


def seal(path: Path, data: bytes | None = None) -> None:
    """Write the checksum of a file beside it."""
    write_atomically(check_path(path), _checksum(path, data).encode())


def seal_as(source: Path, path: Path) -> None:
    """Write the checksum of a file beside the name that it is about to get."""
    write_atomically(check_path(path), _checksum(source).encode())


def is_whole(path: Path) -> bool:
    """Whether a file is there and fits the checksum beside it."""
    try:
        check_regular(check_path(path))
        with check_path(path).open("rb") as file:
            promised = file.read(MAX_CHECK_BYTES)
        return path.is_file() and promised == _checksum(path).encode()
    except OSError:
        return False


def is_sealed(path: Path) -> bool:
    """Whether a file has a checksum beside it."""
    return check_path(path).is_file()


def drop_damaged(folder: Path, suffix: str, most: int) -> None:
    """Delete the files of a folder with such an ending that do not fit their checksums, and all but the newest."""
    paths = list(folder.glob(f"*{suffix}"))
    whole = sorted(filter(is_whole, paths), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in set(paths) - set(whole[:most]):
        with suppress(OSError):
            delete(path)
    drop_lone_checksums(folder)


def drop_lone_checksums(folder: Path) -> None:
    """Delete the checksums of files that are gone: nobody asks for them, where names are not made again."""
    for check in folder.glob(f"*{CHECK_SUFFIX}"):
        if not check.with_name(check.name.removesuffix(CHECK_SUFFIX)).exists():
            with suppress(OSError):
                delete(check)


def delete(path: Path) -> None:
    """Delete a file or folder, and what belongs to it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    for suffix in ASIDE_SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def check_path(path: Path) -> Path:
    """Where the checksum of a file is."""
    return path.with_name(path.name + CHECK_SUFFIX)


def entry_name(name: str, fingerprint: str) -> str:
    """Folder of a model in the cache, below it: its name as far as it is plain, and what tells it from others."""
    plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip(".")[:MAX_NAME]
    return f"{MODELS}/{plain or 'model'}-{fingerprint}"


@dataclass(frozen=True)
class Entry:
    """One download, or all that was made from the weights of one model.

    Its state is ``damaged`` where a file does not fit its checksum, and is made again when it is needed; ``unchecked``
    where one was put there by hand, or by an earlier version; else ``whole``.
    """

    name: str  # of the file or the model
    path: Path  # the file, or the folder
    n_bytes: int
    state: str


def entries(names: tuple[str, ...] = ()) -> list[Entry]:
    """What is in the cache, by kind and name: all of it, or what has one of the names. Every file is read.

    ``UsageError`` if nothing has one of the names.
    """
    found = _entries()
    unknown = set(names) - {entry.name for entry in found}
    if unknown:
        held = ", ".join(sorted({entry.name for entry in found})) or "nothing"
        raise UsageError(f"the cache has no {', '.join(sorted(unknown))}; it has {held}")
    return [entry for entry in found if not names or entry.name in names]


def _entries() -> list[Entry]:
    folder = cache_folder()
    found = [_entry(path.name, path, [path]) for path in _paths(folder / ASSETS) if not _is_aside(path)]
    for path in _paths(folder / MODELS):
        found.append(_entry(path.name.rpartition("-")[0] or path.name, path, _files(path)))
    others = [path for path in _paths(folder) if path.name in (EMBEDDINGS, *FORMER_FOLDERS)]
    return found + [_entry(path.name, path, _files(path)) for path in others]


def clear(names: tuple[str, ...] = ()) -> list[Entry]:
    """Delete what is in the cache, all of it or what has one of the names, and return what that was.

    ``UsageError`` if nothing has one of the names, ``OutputError`` if something cannot be deleted.
    """
    chosen = entries(names)
    for entry in chosen:
        with explain_os_errors(entry.path):
            delete(entry.path)
    return chosen


def _entry(name: str, path: Path, files: list[Path]) -> Entry:
    n_bytes = sum(file.stat().st_size for file in files)
    states = {_state(file) for file in files}
    state = next((state for state in ("damaged", "unchecked") if state in states), "whole")
    return Entry(name, path, n_bytes, state)


def _state(file: Path) -> str:
    if not is_sealed(file):
        return "unchecked"
    return "whole" if is_whole(file) else "damaged"


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".") or path.name.endswith(ASIDE_SUFFIXES)


def _files(path: Path) -> list[Path]:
    """A file, or all files below a folder but for checksums and what is half-written."""
    below = path.rglob("*") if path.is_dir() else [path]
    return [file for file in below if file.is_file() and not _is_aside(file)]


def _paths(folder: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(folder.iterdir())


def _checksum(path: Path, data: bytes | None = None) -> str:
    """CRC-32C in hexadecimal and length of a file, or of what was just written to it."""
    import google_crc32c

    if data is not None:
        return f"{google_crc32c.value(data):08x} {len(data)}"
    value = n_bytes = 0
    for block in read_blocks(path):
        value = google_crc32c.extend(value, block)
        n_bytes += len(block)
    return f"{value:08x} {n_bytes}"


_scratch_folders: list[Path] = []


def _scratch_folder() -> Path:
    if _scratch_folders:
        return _scratch_folders[0]
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary_folder())
        except OutputError as error:
            raise OutputError(
                f"neither the cache {cache_folder()} nor a temporary folder can be written ({error}). "
                "Next step: free some space, or set AUDIOSET_CACHE to a folder of yours"
            ) from error
        atexit.register(stack.pop_all().close)
    _scratch_folders.append(folder)
    return folder


_warned: set[Path] = set()


def sweep(folder: Path) -> None:
    """Delete what killed runs left half-written in a folder of the cache, an hour ago or earlier."""
    for path in folder.glob(".*"):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime > STALE_S:
                delete(path)


def warn_unwritable(folder: Path, reason: str) -> None:
    """Say once that the cache is of no use."""
    if folder in _warned:
        return
    _warned.add(folder)
    logger.warning(
        "the cache folder %s cannot be written (%s): models are prepared again at every start. "
        "Next step: free some space, or set AUDIOSET_CACHE to a folder of yours",
        folder,
        reason,
    )
