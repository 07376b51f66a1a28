"""Features as TFRecord again: one file, or shards as released, in an archive or in a folder."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any, BinaryIO

from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.examples import AUDIOSET, YOUTUBE8M_OF_AUDIOSET, Layout, clip_to_example, parse_clip
from audioset.dataset.features.framing import frame_record, read_records
from audioset.dataset.features.problems import Problems
from audioset.dataset.features.shards import is_archive, is_shard
from audioset.errors import DataError, OutputError
from audioset.files import output_file, output_folder, partial_folder

TOP = "audioset_v1_embeddings"
NO_SUBSET_FOLDER = "unknown"
SHARD = re.compile(r"[\w-]{2}", re.ASCII)
BUFFERED_BYTES = 1 << 25
GZIP_LEVEL = 6
N_RECOGNISED = 64  # examples: of as many released ones, some have another order


def write(path: Path, clips: Iterable[FeatureClip], layout: Layout = AUDIOSET) -> int:
    """Write clips as TFRecord, in the form that the name asks for.

    It is an archive if it ends in ``.tar.gz``, ``.tgz`` or ``.tar``, one file if in ``.tfrecord``, else a folder.
    Archives and folders have the released tree, ``audioset_v1_embeddings/eval/XX.tfrecord``, where ``XX`` are the
    first two characters of the id. The same clips in the same order make the same bytes.

    Returns
    -------
    int
        How many.

    Raises
    ------
    DataError
        An id that names no shard.
    OutputError
        A folder on a disk where two of the shards would be one; nothing is written then.
    """
    numbers = count()  # as many are taken as clips
    counted = (clip for clip, _ in zip(clips, numbers, strict=False))
    if is_archive(path):
        _write_archive(path, counted, layout)
    elif is_shard(path.name):
        with output_file(path) as temporary, temporary.open("wb") as file:
            for clip in counted:
                file.write(frame_record(clip_to_example(clip, layout)))
    else:
        _write_folder(path, counted, layout)
    return next(numbers)


class _Shards:
    """Shards that grow in any order, with few of them open and little in memory.

    Their temporary names are numbers, which no disk takes for one another.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffers: dict[str, list[bytes]] = defaultdict(list)
        self._n_bytes = 0
        self.paths: dict[str, Path] = {}

    def add(self, name: str, record: bytes) -> None:
        self._buffers[name].append(record)
        self._n_bytes += len(record)
        if self._n_bytes > BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        for name, records in self._buffers.items():
            path = self.paths.setdefault(name, self._folder / str(len(self.paths)))
            with path.open("ab") as file:
                file.write(b"".join(records))
        self._buffers.clear()
        self._n_bytes = 0


def _collect(folder: Path, clips: Iterable[FeatureClip], layout: Layout) -> dict[str, Path]:
    """Write shards into a folder; where each is, by its name in the tree, in order."""
    shards = _Shards(folder)
    for clip in clips:
        shards.add(_shard_name(clip), frame_record(clip_to_example(clip, layout)))
    shards.flush()
    return dict(sorted(shards.paths.items()))


def _shard_name(clip: FeatureClip) -> str:
    prefix = clip.video_id[:2]
    if not SHARD.fullmatch(prefix):
        raise DataError(
            f"{clip.video_id!r} names no shard, because it does not begin with two letters, digits, - or _. Likely "
            "cause: it is not the id of a video. Next step: write one file, with a name that ends in .tfrecord"
        )
    return f"{clip.subset or NO_SUBSET_FOLDER}/{prefix}.tfrecord"


def _write_archive(path: Path, clips: Iterable[FeatureClip], layout: Layout) -> None:
    with output_file(path) as temporary, partial_folder(path.with_name(f"{path.name}.shards")) as folder:
        paths = _collect(folder, clips, layout)
        with _open_archive(temporary, is_plain=path.suffix == ".tar") as archive:
            for name, shard in paths.items():
                data = shard.read_bytes()
                header = tarfile.TarInfo(f"{TOP}/{name}")
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))


@contextmanager
def _open_archive(path: Path, *, is_plain: bool) -> Iterator[Any]:
    """An archive to write, without names and times that would make each one different."""
    with path.open("wb") as file:
        if is_plain:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                yield archive
            return
        with (
            gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            yield archive


def _write_folder(path: Path, clips: Iterable[FeatureClip], layout: Layout) -> None:
    with output_folder(path) as temporary:
        names = _collect(temporary, clips, layout)
        if _folds_case(temporary):
            _check_names(path, names)
        for name, shard in names.items():
            target = temporary / TOP / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shard.rename(target)


def _folds_case(folder: Path) -> bool:
    """Whether the disk takes ``aB`` for ``Ab``."""
    probe = folder / "aB"
    probe.touch()
    try:
        return (folder / "Ab").exists()
    finally:
        probe.unlink()


def _check_names(path: Path, names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise OutputError(
                f"cannot write {path}: its disk takes {other} and {name} for one file. Next step: write "
                f"{path.name}.tar.gz, which every command here reads as it is, or choose another disk"
            )


def first_examples(file: BinaryIO, n: int) -> list[bytes]:
    """The first ``n`` examples of a TFRecord file, or all it has."""
    n_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    return [example for _, _, example in islice(read_records(file, n_bytes, "it", Problems("raise")), n)]


def is_written(file: BinaryIO) -> bool:
    """Whether a TFRecord file is one that ``write`` wrote: the same clips would be the same bytes."""
    layouts = (AUDIOSET, YOUTUBE8M_OF_AUDIOSET)
    examples = first_examples(file, N_RECOGNISED)
    clips = [parse_clip(example, None, layouts) for example in examples]
    return any(examples == [clip_to_example(clip, layout) for clip in clips] for layout in layouts)


def is_written_archive(file: BinaryIO) -> bool:
    """Whether an archive is one that ``write`` wrote: nobody's, and of no time."""
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        first = archive.next()
    return first is not None and first.name.startswith(f"{TOP}/") and not first.mtime and not first.uname
