"""The released features of AudioSet: 128 bytes for each second of two million clips.

>>> for clip in read("features.tar.gz", subset="eval"):  # doctest: +SKIP
...     clip.video_id, clip.labels, clip.embeddings

Source: https://research.google.com/audioset/download.html, "Features dataset".
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from audioset.dataset.features import folder as feature_folder
from audioset.dataset.features import hdf5 as feature_hdf5
from audioset.dataset.features import parquet as feature_parquet
from audioset.dataset.features import tfrecord as feature_tfrecord
from audioset.dataset.features import youtube8m
from audioset.dataset.features.clips import SUBSETS as SUBSETS
from audioset.dataset.features.clips import ClipArrays as ClipArrays
from audioset.dataset.features.clips import FeatureClip as FeatureClip
from audioset.dataset.features.clips import check_subset, in_blocks, join_arrays, subset_code
from audioset.dataset.features.examples import example_to_clip
from audioset.dataset.features.framing import read_records, record_place
from audioset.dataset.features.problems import Malformed, Problems
from audioset.dataset.features.shards import (
    DAMAGE,
    Shard,
    archive_shards,
    file_shard,
    folder_shards,
    is_archive,
    is_shard,
)
from audioset.errors import AudioSetError, DataError, NoInputError, UsageError
from audioset.files import exists

CLIPS_PER_BLOCK = 4096
TABLES: dict[str, Callable[[Path, Problems], Iterator[FeatureClip]]] = {
    ".parquet": feature_parquet.read,
    ".h5": feature_hdf5.read,
    ".hdf5": feature_hdf5.read,
}
WRITERS: dict[str, Callable[[Path, Iterable[FeatureClip]], int]] = {
    "parquet": feature_parquet.write,
    "hdf5": feature_hdf5.write,
    "arrays": feature_folder.write,
    "tfrecord": feature_tfrecord.write,
    "youtube8m": youtube8m.write,
}
RECOGNISERS: dict[str, Callable[[BinaryIO], bool]] = {
    "parquet": feature_parquet.is_written,
    "hdf5": feature_hdf5.is_written,
    "tfrecord": feature_tfrecord.is_written,
    "youtube8m": feature_tfrecord.is_written,
}
# What the ending of a single file says; TFRecord's are in ``feature_shards``.
ENDINGS = {".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5"}
# What the name of an output may say, for each form; None is a name that says nothing: a folder.
NAMES_OF: dict[str, tuple[str | None, ...]] = {
    "parquet": ("parquet",),
    "hdf5": ("hdf5",),
    "arrays": (None,),
    "tfrecord": ("tfrecord", None),
    "youtube8m": ("tfrecord", None),
}
EXPECTED = (
    "features.tar.gz as released, a .tfrecord, .parquet or .h5 file, a folder with .tfrecord files, or one of arrays"
)


def read(path: str | os.PathLike[str], subset: str | None = None, on_error: str = "raise") -> Clips:
    """Read features.

    Parameters
    ----------
    path : path
        ``features.tar.gz`` as released, which is never unpacked; a folder with ``.tfrecord`` files, in folders below
        too; one such file; what ``convert`` made of them; or a glob of files.
    subset : {"bal_train", "eval", "unbal_train"}, optional
        Also under longer names, such as ``"balanced_train_segments"``. Default: all.
    on_error : {"raise", "skip"}
        Whether a damaged record ends the reading, or is left out and accounted for in ``problems``.

    Returns
    -------
    Clips
        To iterate over, any number of times.

    Raises
    ------
    UsageError
        An unknown subset; when read, a file that does not say what subset its clips are of.
    NoInputError
        When read: there is no such file, or there are no clips in it.
    DataError
        When read: a damaged record. The message has the file, the record and the byte, both counted from 0.
    """
    return Clips(path, subset, on_error)


def read_arrays(path: str | os.PathLike[str], subset: str | None = None) -> ClipArrays:
    """Read features as arrays, for training.

    Parameters
    ----------
    path, subset
        As for ``read``. A folder of arrays is mapped, which takes no time and no memory.

    Returns
    -------
    ClipArrays

    Raises
    ------
    UsageError, NoInputError, DataError
        As ``read``; also if a clip has more than ten embeddings.
    """
    return read(path, subset).arrays()


def convert(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    to: str | None = None,
    subset: str | None = None,
    on_error: str = "raise",
) -> tuple[int, Problems]:
    """Write features in another form, clip by clip, so that any number fits into memory.

    Parameters
    ----------
    path, subset, on_error
        As for ``read``.
    output : path
        It has its name when it is whole, and not before. Folders must not be there yet.
    to : {"parquet", "hdf5", "arrays", "tfrecord", "youtube8m"}, optional
        Default: what the output's name says: ``.parquet``, ``.h5`` or ``.hdf5``, or one of TFRecord's. Names that say
        another form are refused, and so is a single file whose name says none, as ``read`` could not tell it.

    Returns
    -------
    n_clips : int
    problems : Problems

    Raises
    ------
    UsageError, NoInputError, DataError
        As ``read``.
    OutputError
        The disk is full, or the place does not allow it.
    ConflictError
        The folder is there already.
    """
    form = output_form(output, to)
    clips = read(path, subset, on_error)
    return WRITERS[form](Path(output), clips), clips.problems


def recogniser(output: str | os.PathLike[str], to: str) -> Callable[[BinaryIO], bool] | None:
    """What tells a file that ``convert`` wrote under a name from others; None for what is a folder."""
    if to in ("tfrecord", "youtube8m") and is_archive(Path(output)):
        return feature_tfrecord.is_written_archive
    return RECOGNISERS.get(to)


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """All files that ``read`` may read."""
    found = _paths(os.fspath(path))
    return [*found, *(file for each in found if each.is_dir() for file in each.rglob("*") if file.is_file())]


class Clips:
    """The clips of a file or folder, read anew each time one goes through them. Made by ``read``.

    Attributes
    ----------
    problems : Problems
        What was left out the last time, with ``on_error="skip"``: ``problems.n_skipped`` and ``problems.kept``.
    """

    def __init__(self, path: str | os.PathLike[str], subset: str | None, on_error: str) -> None:
        self.problems = Problems(on_error)
        self._on_error = on_error
        self._path = os.fspath(path)
        self._subset = check_subset(subset)

    def __iter__(self) -> Iterator[FeatureClip]:
        return (clip for clip, _ in self.with_shards())

    def with_shards(self) -> Iterator[tuple[FeatureClip, Shard | None]]:
        """The clips, each with the TFRecord file that it is from, if it is from one."""
        self.problems = Problems(self._on_error)
        others: set[str] = set()
        is_empty = True
        for each in chain.from_iterable(
            _read(path, self._subset, self.problems, others) for path in _paths(self._path)
        ):
            is_empty = False
            yield each
        if is_empty and not self.problems.n_skipped:
            wanted = f"no clips of {self._subset}, only of {', '.join(sorted(others))}" if others else "no clips"
            raise NoInputError(f"{self._path} has {wanted}; expected {EXPECTED}")

    def arrays(self) -> ClipArrays:
        """All of them as arrays; see ``read_arrays``."""
        folder = Path(self._path)
        if feature_folder.is_feature_folder(folder):
            arrays = feature_folder.open_arrays(folder)
            return arrays if self._subset is None else arrays.take(arrays.subsets == subset_code(self._subset))
        try:
            return join_arrays([ClipArrays.of(block) for block in in_blocks(self, CLIPS_PER_BLOCK)])
        except Malformed as error:
            raise DataError(f"{self._path}: {error}. Next step: read the clips one by one") from error


def output_form(path: str | os.PathLike[str], to: str | None = None) -> str:
    """The form in which ``convert`` writes an output: ``to``, or what its name says."""
    output = Path(path)
    if to is not None and to not in WRITERS:
        raise UsageError(f"cannot convert to {to!r}; expected one of {', '.join(WRITERS)}")
    is_tfrecord = is_archive(output) or is_shard(output.name)
    said = "tfrecord" if is_tfrecord else ENDINGS.get(output.suffix.lower())
    if to is None and said is None:
        raise UsageError(
            f"{output} has a name that says no form. Next step: a name that ends in {', '.join(ENDINGS)}, .tfrecord or "
            f".tar.gz; or, for a folder, --format arrays, tfrecord or youtube8m"
        )
    form = to or str(said)
    if said not in NAMES_OF[form]:
        endings = ", ".join(ending for ending, other in ENDINGS.items() if other == form)
        expected = f"a name that ends in {endings}" if endings else "a folder" if form == "arrays" else "another name"
        raise UsageError(
            f"--format {form} does not fit the name {output}: its readers could not tell. Next step: {expected}"
            + (f", such as {output.name}{endings.partition(',')[0]}" if endings and said is None else "")
        )
    return form


def _paths(path: str) -> list[Path]:
    """What a path or a glob names."""
    if exists(path):
        return [Path(path)]
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    if not found:
        raise NoInputError(f"there is no {path}; expected {EXPECTED}")
    return list(map(Path, found))


def _read(
    path: Path, subset: str | None, problems: Problems, others: set[str]
) -> Iterator[tuple[FeatureClip, Shard | None]]:
    """The clips of one file or folder; the names of the subsets that were passed over go into ``others``."""
    if feature_folder.is_feature_folder(path):
        return _of_subset(path, feature_folder.read(path, problems), subset, others)
    if path.suffix.lower() in TABLES and path.is_file():
        return _of_subset(path, TABLES[path.suffix.lower()](path, problems), subset, others)
    if path.is_dir():
        return _of_shards(path, folder_shards(path), subset, problems, others)
    if is_archive(path):
        return _of_shards(path, archive_shards(path, problems), subset, problems, others)
    if is_shard(path.name):
        return _of_shards(path, file_shard(path), subset, problems, others)
    raise NoInputError(f"{path} has a name that says no format; expected {EXPECTED}")


def _of_shards(
    path: Path, shards: Iterator[Shard], subset: str | None, problems: Problems, others: set[str]
) -> Iterator[tuple[FeatureClip, Shard]]:
    try:
        for shard in shards:
            if not _is_wanted(shard.subset, subset, shard.name, others):
                continue
            for number, offset, example in read_records(shard.file, shard.n_bytes, shard.name, problems):
                try:
                    clip = example_to_clip(example, shard.subset)
                except Malformed as error:
                    problems.add(record_place(shard.name, number, offset), error)
                else:
                    yield clip, shard
    except AudioSetError:
        raise
    except DAMAGE as error:
        problems.add(str(path), f"it cannot be read to its end ({error or type(error).__name__})")


def _of_subset(
    path: Path, clips: Iterator[FeatureClip], subset: str | None, others: set[str]
) -> Iterator[tuple[FeatureClip, None]]:
    for clip in clips:
        if _is_wanted(clip.subset, subset, str(path), others):
            yield clip, None


def _is_wanted(found: str | None, wanted: str | None, name: str, others: set[str]) -> bool:
    if wanted is None or found == wanted:
        return True
    if found is None:
        raise UsageError(
            f"{name} does not say what subset its clips are of, so the ones of {wanted} cannot be told from others. "
            "Next step: leave the subset out, or put the file into a folder of the subset's name"
        )
    others.add(found)
    return False
