"""Make an index of recordings, or bring one up to date: ``build_index``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import numpy as np

from audioset.audio.limits import LIMITS, Limits
from audioset.errors import AudioSetError
from audioset.files import locked_folder
from audioset.formats.rows import printable
from audioset.models.model import Model
from audioset.models.prediction import Prediction, join_predictions
from audioset.runs.batch import Part, predict_parts
from audioset.search.manifest import Manifest, Settings, open_or_begin
from audioset.search.shards import (
    Recording,
    Shard,
    read_recordings,
    read_shard,
    require_pyarrow,
    shard_path,
    to_units,
    write_shard,
)

SHARD_MOMENTS = 16_384
SHARD_S = 30.0  # the work that a killed run may lose
Watch = Callable[[Part], None]


@dataclass
class BuildReport:
    """What became of the recordings."""

    # n_added, n_changed, n_unchanged, n_dropped: recordings: new ones, those whose file is another than before, those
    # as before, those no longer there
    n_added: int = 0
    n_changed: int = 0
    n_unchanged: int = 0
    n_dropped: int = 0
    # n_recordings, n_moments: in the index now
    n_recordings: int = 0
    n_moments: int = 0
    # Files that could not be used. They are tried again by the next run.
    failures: list[tuple[str, AudioSetError]] = field(default_factory=list)


def build_index(
    paths: Iterable[str | os.PathLike[str]],
    model: Model,
    folder: str | os.PathLike[str],  # of the index; made if need be
    # How the model was loaded and is to be applied; default: its folder, and what is its own.
    settings: Settings | None = None,
    *,
    prune: bool = False,  # drop the recordings whose files are gone
    limits: Limits = LIMITS,  # what one file may cost
    n_workers: int | None = None,  # decoding processes; default one for each core
    begin: Callable[[int], None] | None = None,  # called with the number of files that are to be read
    watch: Watch | None = None,  # called with each part of each file's result
) -> BuildReport:
    """Store the embeddings of recordings, with their times; of an index, what is new.

    A file that is in the index, with the same size and time of change, is not read again. ConflictError if the folder
    holds something else, an index made in another way, or one that another run is writing; DataError if a file of the
    index is damaged; OutputError if the disk is full, or the place does not allow it: what was stored before stays, and
    a later run goes on; MissingExtraError without pyarrow.
    """
    require_pyarrow()
    place = Path(folder)
    with locked_folder(place):
        settings = settings or Settings(str(model.folder))
        store = _Store(place, open_or_begin(place, settings, model))
        report = BuildReport()
        wanted = list(dict.fromkeys(os.path.abspath(path) for path in paths))  # noqa: PTH100 - links stay links
        known = store.recordings
        gone = {path for path in known if prune and not Path(path).exists()} - set(map(printable, wanted))
        waiting = {path: stamp for path in wanted if (stamp := _stamp(path)) != known.get(stamp.path)}
        changed = {stamp.path for stamp in waiting.values()} & set(known)
        store.drop(gone | changed)
        if begin:
            begin(len(waiting))
        report.n_dropped, report.n_changed = len(gone), len(changed)
        report.n_unchanged = len(wanted) - len(waiting)
        _add(store, waiting, model, report, limits=limits, n_workers=n_workers, watch=watch)
        report.n_added = len(waiting) - len(changed) - len(report.failures)
        report.n_recordings, report.n_moments = store.manifest.n_recordings, store.manifest.n_moments
    return report


def _add(
    store: _Store,
    waiting: dict[str, Recording],
    model: Model,
    report: BuildReport,
    *,
    limits: Limits,
    n_workers: int | None,
    watch: Watch | None,
) -> None:
    """Embed files and store what comes, in pieces of some seconds' work."""
    parts: list[Prediction] = []
    arguments = store.manifest.settings.embedding_arguments
    try:
        for part in predict_parts(waiting, model, **arguments, limits=limits, n_workers=n_workers):
            if watch:
                watch(part)
            if part.prediction is not None:
                parts.append(_without_scores(part.prediction))
            if part.is_last and part.error:  # its moments would be those of half a recording
                report.failures.append((part.path, part.error))
            elif part.is_last:
                store.add(waiting[part.path], join_predictions(parts) if parts else None)
            if part.is_last:
                parts = []
    finally:
        store.flush()  # also when a file ends the run, or the user: what is done is done


class _Store:
    """The files of an index, and the recordings that are not yet in one."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._shards = {name: read_recordings(shard_path(folder, name)) for name in manifest.shards}
        self._new: list[tuple[Recording, Prediction | None]] = []
        self._n_new = 0
        self._flushed_at = time.monotonic()
        self._save()
        for path in folder.glob("embeddings-*.parquet"):  # of a run that was killed before it could name them
            if path.name not in manifest.shards:
                path.unlink()

    @property
    def recordings(self) -> dict[str, Recording]:
        """Those in the index by their paths, without their numbers of moments."""
        everything = (recording for recordings in self._shards.values() for recording in recordings)
        return {recording.path: replace(recording, n_moments=0) for recording in everything}

    def add(self, recording: Recording, prediction: Prediction | None) -> None:
        """Keep a recording's moments until there are enough for a file."""
        n_moments = 0 if prediction is None else len(prediction.start_s)
        self._new.append((replace(recording, n_moments=n_moments), prediction))
        self._n_new += n_moments
        if self._n_new >= SHARD_MOMENTS or time.monotonic() - self._flushed_at > SHARD_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a file of its own, then say so in the manifest."""
        if self._new:
            self._write(_to_shard(self._new, self.manifest.embedding_size))
            self._new, self._n_new = [], 0
            self._save()
        self._flushed_at = time.monotonic()

    def drop(self, paths: set[str]) -> None:
        """Write the files that have some of these recordings anew, without them."""
        stale = [name for name, recordings in self._shards.items() if any(one.path in paths for one in recordings)]
        for name in stale:
            shard = read_shard(shard_path(self.folder, name), self.manifest.embedding_size, self.manifest.shards[name])
            del self._shards[name], self.manifest.shards[name]
            rest = shard.without(paths)
            if rest.recordings:
                self._write(rest)
        if stale:
            self._save()  # from here on the old files are not part of the index
            for name in stale:
                shard_path(self.folder, name).unlink(missing_ok=True)

    def _write(self, shard: Shard) -> None:
        name = f"embeddings-{uuid4().hex[:12]}.parquet"
        write_shard(self.folder / name, shard)
        self._shards[name] = shard.recordings
        self.manifest.shards[name] = len(shard)

    def _save(self) -> None:
        self.manifest = replace(self.manifest, n_recordings=sum(map(len, self._shards.values())))
        self.manifest.write(self.folder)


def _to_shard(waiting: list[tuple[Recording, Prediction | None]], size: int) -> Shard:
    predictions = [prediction for _, prediction in waiting if prediction is not None]
    embeddings = np.concatenate([np.zeros((0, size), np.float32), *(part.embeddings for part in predictions)])
    ends = [np.minimum(part.end_s, part.duration_s) for part in predictions]
    return Shard(
        [recording for recording, _ in waiting],
        np.concatenate([np.zeros(0), *(part.start_s for part in predictions)]),
        np.concatenate([np.zeros(0), *ends]),
        *to_units(embeddings),
    )


def _without_scores(prediction: Prediction) -> Prediction:
    """What an index keeps: of an hour, 30 MB instead of 140."""
    nothing = np.zeros((0, 0), np.float32)
    return replace(prediction, scores=None, log_mel=nothing, frame_start_s=np.zeros(0), segment_scores=None)


def _stamp(path: str) -> Recording:
    """A file's size and time of change; of one that is not there, what no file has."""
    try:
        status = Path(path).stat()
    except OSError:
        return Recording(printable(path), -1, -1)  # decoding it says what is wrong
    return Recording(printable(path), status.st_size, status.st_mtime_ns)
