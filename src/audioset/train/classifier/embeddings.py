"""Embeddings of labelled clips: computed once, and kept by the content of the clips."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import numpy as np

from audioset.arrays import FloatArray, IndexArray
from audioset.assets import hash_file
from audioset.audio.limits import LIMITS, Limits
from audioset.cache import EMBEDDINGS, cache_folder, delete, drop_lone_checksums, is_whole, seal
from audioset.concurrency import available_cores, map_in_order
from audioset.errors import AudioError, AudioSetError, NoInputError, UsageError
from audioset.files import replacing, sweep
from audioset.models.loading import open_model
from audioset.models.model import Model
from audioset.records import DAMAGE
from audioset.sounds.audio import read_clips
from audioset.sounds.collection import Clip, Collection
from audioset.train.backbones import Backbone, find_backbone

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # clips done and in all

MAX_PATCHES = 64  # of a clip that are kept, evenly over its length; its mean is over all
SHARD_CLIPS = 512  # what a run that is killed loses at most
SHARD_ARRAYS = ("keys", "counts", "means", "patches")
CLIPS_PER_TASK = 64  # of one file, decoded together


@dataclass(frozen=True, eq=False)
class Embedded:
    """One clip's embeddings."""

    mean: FloatArray  # (embedding_size,), over all patches
    patches: FloatArray  # (n_patches, embedding_size), at most MAX_PATCHES, evenly over the clip


@dataclass(frozen=True, eq=False)
class ClipEmbeddings:
    """Embeddings of the clips of a collection."""

    collection: Collection  # the clips that could be embedded
    backbone: Backbone
    means: FloatArray  # (n_clips, embedding_size)
    patches: FloatArray  # (n_patches, embedding_size), of all clips, one after the other
    counts: IndexArray  # (n_clips,): patches of each clip
    n_computed: int = 0  # clips that were not in the cache
    warnings: tuple[str, ...] = ()  # one for each clip that failed, and one if the cache cannot be written

    def mean_over_patches(self, values: FloatArray) -> FloatArray:
        """Mean of each clip's patches: from (n_patches, n) to (n_clips, n)."""
        starts = np.cumsum([0, *self.counts[:-1]])
        sums: FloatArray = np.add.reduceat(values, starts, axis=0)
        return (sums / self.counts[:, np.newaxis]).astype(np.float32)

    def select(self, rows: Sequence[int] | IndexArray) -> ClipEmbeddings:
        """Those of some clips."""
        chosen = np.asarray(rows, np.intp)
        stops = np.cumsum(self.counts)
        places = [np.arange(stops[row] - self.counts[row], stops[row]) for row in chosen]
        return ClipEmbeddings(
            self.collection.select(chosen.tolist()),
            self.backbone,
            self.means[chosen],
            self.patches[np.concatenate(places)] if places else self.patches[:0],
            self.counts[chosen],
        )


def embed_collection(
    collection: Collection,
    backbone: str | os.PathLike[str] | Backbone = "yamnet",
    *,
    digests: Sequence[str] | None = None,
    limits: Limits = LIMITS,
    n_threads: int | None = None,
    on_progress: Progress | None = None,
) -> ClipEmbeddings:
    """Embeddings of all clips, from the cache where they are there; each clip that cannot be read is a warning.

    They are kept in the cache folder by what identifies them: the bytes of the file, the times of the clip, and the
    weights of the network. A run that is stopped has kept what it had done, up to the last few hundred clips.
    NoInputError if there is no clip, or none can be read; UsageError, AssetError or WeightsError as ``find_backbone``.
    """
    found = backbone if isinstance(backbone, Backbone) else find_backbone(backbone)
    if not len(collection):
        raise NoInputError(f"{collection.source or 'the collection'} has no clips; expected some to learn from")
    cache = _Cache(cache_folder() / EMBEDDINGS / found.fingerprint())
    keys, failures = _keys(collection.clips, digests)
    known = cache.read({key for key in keys if key})
    missing = [row for row, key in enumerate(keys) if key and key not in known]
    first = {keys[row]: row for row in reversed(missing)}  # equal clips are embedded once
    todo = sorted(first.values())
    progress = _Counter(on_progress, len(collection) - len(todo), len(collection))
    if todo:
        failures |= _compute(collection.clips, todo, keys, found, cache, known, limits, n_threads, progress)
    usable = [row for row, key in enumerate(keys) if key in known]
    lost = [row for row in range(len(keys)) if keys[row] not in known]
    texts = [f"{collection.clips[row].path}: {failures.get(keys[row] or str(row), 'cannot be read')}" for row in lost]
    if not usable:
        raise NoInputError(f"none of the {len(collection)} clips can be read. The first: {texts[0]}")
    parts = [known[keys[row]] for row in usable]
    return ClipEmbeddings(
        collection.select(usable),
        found,
        np.stack([part.mean for part in parts]),
        np.concatenate([part.patches for part in parts]),
        np.array([len(part.patches) for part in parts], np.intp),
        len(todo),
        (*texts, *cache.warnings),
    )


class _Counter:
    """Counts clips, and tells whoever wants to know."""

    def __init__(self, on_progress: Progress | None, n_done: int, n_all: int) -> None:
        self._on_progress, self._n_done, self._n_all = on_progress, n_done, n_all
        self.advance(0)

    def advance(self, n: int) -> None:
        self._n_done += n
        if self._on_progress:
            self._on_progress(self._n_done, self._n_all)


@dataclass
class _Cache:
    """Shards of embeddings in a folder, each written whole. A damaged one is taken away."""

    folder: Path
    warnings: list[str] = field(default_factory=list)

    def read(self, wanted: set[str]) -> dict[str, Embedded]:
        """What is there of the clips that are wanted."""
        sweep(self.folder)
        drop_lone_checksums(self.folder)
        found: dict[str, Embedded] = {}
        for path in sorted(self.folder.glob("*.npz")):
            if wanted <= set(found):
                break
            for key, embedded in _read_shard(path, wanted):
                found[key] = embedded
        return found

    def write(self, embedded: Mapping[str, Embedded]) -> None:
        """Keep some. A disk that is full costs the next run time, and this one nothing."""
        if not embedded or self.warnings:
            return
        parts = list(embedded.values())
        arrays = {
            "keys": np.array(list(embedded)),
            "counts": np.array([len(part.patches) for part in parts], np.int64),
            "means": np.stack([part.mean for part in parts]),
            "patches": np.concatenate([part.patches for part in parts]),
        }
        path = self.folder / f"{uuid4().hex}.npz"
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            seal(path)
        except OSError as error:
            self.warnings.append(
                f"embeddings cannot be kept in {self.folder} ({error.strerror or error}): this run goes on, and the "
                "next one computes them again. Next step: free some space, or set AUDIOSET_CACHE to another folder"
            )


def _read_shard(path: Path, wanted: set[str]) -> Iterator[tuple[str, Embedded]]:
    try:
        if not is_whole(path):
            raise ValueError("it does not fit its checksum")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys, counts, means, patches = (archive[name] for name in SHARD_ARRAYS)
        starts = np.cumsum(counts) - counts
        if len(keys) != len(means) or counts.sum() != len(patches) or not np.isfinite(means).all():
            raise ValueError("its arrays do not fit")
    except (RuntimeError, *DAMAGE) as error:
        logger.warning("%s is damaged (%s) and was taken away; its clips are computed again", path, error)
        with suppress(OSError):
            delete(path)
        return
    for key, start, count, mean in zip(keys.tolist(), starts, counts, means, strict=True):
        if key in wanted:
            yield key, Embedded(mean, patches[start : start + count])


def _keys(clips: Sequence[Clip], digests: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """Identity of each clip, empty where its file cannot be read; and why, by number of the clip."""
    if digests is not None and len(digests) != len(clips):
        raise UsageError(f"{len(clips)} clips have {len(digests)} digests; expected one for each clip")
    known: dict[Path, str] = {}
    keys, failures = [], {}
    for row, clip in enumerate(clips):
        try:
            digest = digests[row] if digests is not None else known.get(clip.path) or hash_file(clip.path)
        except OSError as error:
            failures[str(row)] = f"it cannot be read ({error.strerror or error})"
            keys.append("")
            continue
        known[clip.path] = digest
        identity = f"{digest}:{clip.start_s!r}:{clip.end_s!r}"
        keys.append(hashlib.sha256(identity.encode()).hexdigest()[:32])
    return keys, failures


def _compute(
    clips: Sequence[Clip],
    todo: Sequence[int],
    keys: Sequence[str],
    backbone: Backbone,
    cache: _Cache,
    known: dict[str, Embedded],
    limits: Limits,
    n_threads: int | None,
    progress: _Counter,
) -> dict[str, str]:
    """Embed some clips into ``known`` and the cache; what went wrong, by key."""
    n_threads = n_threads or available_cores()
    model = open_model(backbone.card, backbone.folder, "openvino", "f32", n_threads)
    failures: dict[str, str] = {}
    fresh: dict[str, Embedded] = {}
    try:
        for rows, results in map_in_order(
            lambda rows: _embed(clips, rows, model, limits), _tasks(clips, todo), n_threads
        ):
            for row, result in zip(rows, results, strict=True):
                if isinstance(result, Embedded):
                    known[keys[row]] = fresh[keys[row]] = result
                else:
                    failures[keys[row]] = str(result)
            progress.advance(len(rows))
            if len(fresh) >= SHARD_CLIPS:
                cache.write(fresh)
                fresh = {}
    finally:
        cache.write(fresh)
    return failures


def _tasks(clips: Sequence[Clip], todo: Sequence[int]) -> Iterator[list[int]]:
    """Clips that are embedded together: neighbours that are pieces of one file."""
    for _, group in itertools.groupby(todo, lambda row: clips[row].path):
        rows = list(group)
        yield from (rows[start : start + CLIPS_PER_TASK] for start in range(0, len(rows), CLIPS_PER_TASK))


def _embed(
    clips: Sequence[Clip], rows: list[int], model: Model, limits: Limits
) -> tuple[list[int], list[Embedded | AudioSetError]]:
    """Each clip's embeddings, or what is wrong with it."""
    if len(rows) == 1:
        return rows, [_embed_one(clips[rows[0]], model, limits)]
    try:
        waveforms = list(read_clips([clips[row] for row in rows], model.frontend.sample_rate, limits))
        return rows, [_embed_samples(waveform, model) for waveform in waveforms]
    except AudioSetError:  # of one of them: each by itself
        return rows, [_embed_one(clips[row], model, limits) for row in rows]


def _embed_one(clip: Clip, model: Model, limits: Limits) -> Embedded | AudioSetError:
    try:
        if clip.is_whole_file:  # of any length, in constant memory
            return _embedded(
                [part.embeddings for part in model.predict_blocks(clip.path, limits=limits, isolated=True)]
            )
        return _embed_samples(next(read_clips([clip], model.frontend.sample_rate, limits)), model)
    except AudioSetError as error:
        return error


def _embed_samples(waveform: FloatArray, model: Model) -> Embedded:
    return _embedded([model.predict(waveform, model.frontend.sample_rate).embeddings])


def _embedded(parts: Sequence[FloatArray]) -> Embedded:
    every = np.concatenate(parts)
    if not np.isfinite(every).all():
        raise AudioError(
            "its embeddings are not finite. Likely cause: weights of the network that have diverged", code="not_finite"
        )
    kept = every if len(every) <= MAX_PATCHES else every[np.linspace(0, len(every) - 1, MAX_PATCHES).astype(np.intp)]
    return Embedded(every.mean(axis=0, dtype=np.float64).astype(np.float32), kept)
