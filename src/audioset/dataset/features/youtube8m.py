"""The layout of YouTube-8M's frame-level records, which differs from AudioSet's in two names.

Its records have ``id`` for ``video_id`` and ``audio`` for ``audio_embedding``. Its readers for training ask for these,
and so cannot read AudioSet's features, nor the other way round. Only the audio is read or written, never ``rgb``.

Source: google/youtube-8m, readers.py, ``YT8MFrameFeatureReader``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from audioset.dataset.features import tfrecord
from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.examples import AUDIOSET, YOUTUBE8M, parse_clip
from audioset.dataset.features.problems import Problems
from audioset.dataset.features.shards import file_shard, shard_clips
from audioset.errors import NoInputError

N_CLASSES = YOUTUBE8M.n_classes


def read(path: str | os.PathLike[str], on_error: str = "raise") -> Iterator[FeatureClip]:
    """Read a frame-level TFRecord file of YouTube-8M.

    Unlike ``features.reading.read``, which takes such records too, labels may be any of YouTube-8M's 3,862 classes.

    Parameters
    ----------
    path : path
    on_error : {"raise", "skip"}
        Whether a damaged record ends the reading, or is left out.

    Yields
    ------
    FeatureClip
        ``start_s`` is 0 and ``end_s`` one second for each embedding, unless the record says otherwise.

    Raises
    ------
    DataError
        The message has the file, the record and the byte.
    """
    path = Path(path)
    if not path.is_file():
        raise NoInputError(f"there is no file {path}; expected a .tfrecord file of YouTube-8M")
    for clip, _ in shard_clips(file_shard(path), path, Problems(on_error), _parse):
        yield clip


def _parse(example: bytes, subset: str | None) -> FeatureClip:
    """A record's clip; what its file's name says is no subset of YouTube-8M's."""
    return parse_clip(example, None, (YOUTUBE8M, AUDIOSET))


def write(path: str | os.PathLike[str], clips: Iterable[FeatureClip]) -> int:
    """Write clips in the layout of YouTube-8M: an archive, a file or a folder, by its name.

    The times are kept, under AudioSet's names, which YouTube-8M's readers pass over.

    Parameters
    ----------
    path : path
    clips : iterable of FeatureClip

    Returns
    -------
    int
        How many.
    """
    return tfrecord.write(Path(path), clips, YOUTUBE8M)
