"""Where TFRecord shards are: in an archive that is streamed, in a folder, or on their own.

The archive is never unpacked. Its shards are named by the first two characters of their clips' ids, and most of these
names differ from another only by case: on a disk that does not tell ``aB`` from ``Ab`` over half of the clips are lost.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from audioset import records
from audioset.dataset.features.clips import subset_named
from audioset.dataset.features.problems import Problems
from audioset.files import check_regular

TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
SHARD_SUFFIXES = (".tfrecord", ".tfrecords")
BUFFER_BYTES = 1 << 16  # tarfile copies what is left of it at each read
MAX_HEADER_BYTES = 1 << 20  # of an archive's extended headers, which are read into memory whole
MAX_SMALL_BYTES = 1 << 20
# Whatever the readers of gzip and tar say of a damaged archive.
DAMAGE = (tarfile.TarError, *records.DAMAGE)


@dataclass(frozen=True)
class Shard:
    """A TFRecord file, open for reading until the next one is asked for."""

    name: str  # for messages
    stem: str  # file name without its ending
    subset: str | None  # what its folder or its own name says
    file: BinaryIO  # it need not seek
    n_bytes: int


class _Header(tarfile.TarInfo):
    """A header of an archive that refuses to make others read much into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        if header.type not in tarfile.REGULAR_TYPES and header.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {header.size:,} bytes; expected at most {MAX_HEADER_BYTES:,}")
        return header


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive."""
    return path.name.lower().endswith(TAR_SUFFIXES)


def is_shard(name: str) -> bool:
    """Whether the name is that of a TFRecord file; hidden ones, such as macOS resource forks, are none."""
    return name.lower().endswith(SHARD_SUFFIXES) and not name.startswith(".")


def archive_shards(path: Path, problems: Problems) -> Iterator[Shard]:
    """The shards of an archive, in its order, read once from its beginning to its end.

    Where the archive itself is damaged, reading it raises one of ``DAMAGE``.
    """
    archive_name = path.name.partition(".")[0]
    with _open_archive(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BUFFER_BYTES, tarinfo=_Header) as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined]  # else they pile up
                folders, _, name = member.name.rpartition("/")
                if not member.isreg() or not is_shard(name):
                    continue
                if member.issparse():
                    problems.add(f"{path}:{member.name}", "it is stored with holes; expected a plain file")
                    continue
                file = _open_member(archive, member)
                subset = subset_named(folders.rpartition("/")[2], archive_name)
                yield Shard(f"{path}:{member.name}", name.rpartition(".")[0], subset, file, member.size)
        while stream.read(BUFFER_BYTES):  # to its end, where gzip compares its checksum
            pass


def _open_member(archive: Any, member: tarfile.TarInfo) -> Any:
    """A member to read; a small one, as released shards are, in a third of the time that tarfile needs to open it."""
    is_small = member.size <= MAX_SMALL_BYTES
    return io.BytesIO(archive.fileobj.read(member.size)) if is_small else archive.extractfile(member)


def folder_shards(folder: Path) -> Iterator[Shard]:
    """The shards in a folder and those below, by name."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(filter(is_shard, names)):
            yield from file_shard(Path(parent, name))


def file_shard(path: Path) -> Iterator[Shard]:
    """One file."""
    check_regular(path)
    with path.open("rb") as file:
        subset = subset_named(path.absolute().parent.name, path.stem)
        yield Shard(str(path), path.stem, subset, file, os.fstat(file.fileno()).st_size)


def _open_archive(path: Path) -> Any:
    check_regular(path)
    return path.open("rb") if path.name.lower().endswith(".tar") else closing(gzip.open(path, "rb"))
