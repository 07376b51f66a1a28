"""The clips of a fine-tuning: decoded once, kept as log-mel spectrograms, and given out in batches of like lengths."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from audioset.arrays import Array, Int64Array
from audioset.assets import hash_file
from audioset.errors import AudioError, DataError, NoInputError
from audioset.folders import AUDIO_SUFFIXES, find_files
from audioset.frontend.cutting import patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.spec import FrontendSpec
from audioset.sounds.audio import read_clip
from audioset.sounds.collection import Clip, Collection
from audioset.train.finetune.augment import MelScale, Noise
from audioset.train.finetune.config import FinetuneConfig

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

BYTES_PER_MB = 1e6
LENGTH_SPREAD = 0.1  # of clips that are sorted by length: as a share of the length, at random
SLAB_PATCHES = 16
NOISE_S = 30.0  # of each file of noise, at most


class Spectrograms:
    """Log-mel patches of the clips of a collection.

    They are computed once and kept in half precision, up to ``memory_mb``; those beyond are computed each time. Of
    clips longer than ``max_clip_s``, the network sees a piece at a time, with a frontend of whole clips. Shorter ones
    than the frontend takes are filled up, where the published one refuses them.
    """

    def __init__(self, clips: Sequence[Clip], spec: FrontendSpec, max_clip_s: float, memory_mb: float) -> None:
        spec = spec.with_pad("zero") if spec.pad == "error" else spec
        self.spec, self.clips = spec, clips
        self._max_frames = max(spec.min_frames, min(spec.patch_frames, math.ceil(max_clip_s / spec.frame_hop_s)))
        self._room = memory_mb * BYTES_PER_MB
        self._kept: dict[int, list[Array]] = {}
        self._lengths: dict[int, int] = {}

    def load(self, on_progress: Progress | None = None) -> dict[int, AudioError]:
        """Compute all that there is room for; the clips that cannot be read, by row."""
        failures = {}
        for row in range(len(self.clips)):
            try:
                self.patches(row)
            except AudioError as error:
                failures[row] = error
            if on_progress:
                on_progress(row + 1, len(self.clips))
        return failures

    def patches(self, row: int) -> list[Array]:
        """All patches of a clip, each (n_frames, n_mels), float16; a frontend of whole clips makes one of most."""
        if row in self._kept:
            return self._kept[row]
        made = log_mel_patches(read_clip(self.clips[row], self.spec.sample_rate), self.spec)
        self._lengths[row] = max(map(len, made))
        size = sum(patch.nbytes for patch in made)
        if size <= self._room:
            self._room -= size
            self._kept[row] = made
        return made

    def n_frames(self, row: int) -> int:
        """Of a clip as it is trained on."""
        if row not in self._lengths:
            self.patches(row)
        return min(self._max_frames, self._lengths[row])

    def piece(self, row: int, rng: np.random.Generator) -> torch.Tensor:
        """What a clip is in one pass: one of its patches, or a piece of it."""
        every = self.patches(row)
        chosen = every[rng.integers(len(every))]
        if self.spec.is_centred and len(chosen) > self._max_frames:
            start = rng.integers(len(chosen) - self._max_frames + 1)
            chosen = chosen[start : start + self._max_frames]
        return torch.from_numpy(chosen.astype(np.float32))


def log_mel_patches(waveform: Array, spec: FrontendSpec) -> list[Array]:
    """Patches of a clip as a model sees them when it predicts: each (n_frames, n_mels), float16."""
    pieces = slabs([waveform], spec, SLAB_PATCHES)
    made = (patches(log_mel(slab.waveform, spec)[slab.n_skipped :], spec) for slab in pieces)
    return [patch.astype(np.float16) for group in made for patch in group]


def read_spectrograms(
    collection: Collection, config: FinetuneConfig, spec: FrontendSpec, on_progress: Progress | None = None
) -> tuple[Spectrograms, Collection, dict[str, str]]:
    """Spectrograms of the clips that can be read, those clips, and what was wrong with the others, by path.

    Raises NoInputError if none can be read.
    """
    found = Spectrograms(collection.clips, spec, config.max_clip_s, config.memory_mb)
    failed = found.load(on_progress)
    if not failed:
        return found, collection, {}
    rows = [row for row in range(len(collection)) if row not in failed]
    messages = {str(collection.clips[row].path): str(error) for row, error in failed.items()}
    if not rows:
        first, why = next(iter(messages.items()), ("the collection", "it has no clips"))
        raise NoInputError(f"none of {len(collection)} clips can be read. {first}: {why}")
    usable = collection.select(rows)
    kept = Spectrograms(usable.clips, spec, config.max_clip_s, config.memory_mb)
    kept.load()
    return kept, usable, messages


def make_batches(
    rows: Int64Array, lengths: Array, batch_size: int, rng: np.random.Generator, least: int = 1
) -> list[Int64Array]:
    """All rows in batches of equal size and of clips of roughly equal lengths, in random order.

    None if they are fewer than ``least``.
    """
    order = rng.permutation(rows)
    roughly = lengths[order] * rng.normal(1, LENGTH_SPREAD, len(order))
    order = order[np.argsort(roughly, kind="stable")]
    n_batches = max(1, min(math.ceil(len(order) / batch_size), len(order) // least))
    batches = np.array_split(order, n_batches) if len(order) >= least else []
    return [batches[place] for place in rng.permutation(len(batches))]


def data_digest(collection: Collection, digests: Sequence[str] | None = None) -> str:
    """Identity of the clips and their labels: the contents of the files, not their places."""
    known = dict(zip((clip.path for clip in collection.clips), digests, strict=True)) if digests is not None else {}
    total = hashlib.sha256(json.dumps(collection.classes).encode())
    for clip in collection.clips:
        if clip.path not in known:
            known[clip.path] = _digest(clip.path)
        row = [known[clip.path], clip.labels, clip.start_s, clip.end_s, clip.group, clip.split]
        total.update(json.dumps(row).encode())
    return total.hexdigest()[:16]


def _digest(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def noise_source(folder: str, spec: FrontendSpec) -> Noise | None:
    """Pieces of the recordings in a folder, as energies of bands; None if no folder is named.

    NoInputError where there is no such folder or no audio in it, DataError where none of its files can be read.
    """
    if not folder:
        return None
    paths = _audio_files(Path(folder))
    scale, recordings = MelScale(spec), []
    for path in paths:
        try:
            recordings.append(_noise_energy(path, spec, scale))
        except AudioError as error:
            logger.warning("%s is left out of the noise: %s", path, error)
    if not recordings:
        raise DataError(f"none of the {len(paths)} files of noise in {folder} can be read. Next step: name another")

    def noise(n_frames: int, rng: np.random.Generator) -> torch.Tensor:
        chosen = recordings[rng.integers(len(recordings))]
        start = rng.integers(len(chosen))
        return chosen[(start + torch.arange(n_frames)) % len(chosen)]

    return noise


def _audio_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise NoInputError(f"there is no folder of noise {folder}. Next step: check the path")
    paths = find_files(folder, AUDIO_SUFFIXES)
    if not paths:
        raise NoInputError(f"{folder} has no audio; expected recordings of noise")
    return paths


def _noise_energy(path: Path, spec: FrontendSpec, scale: MelScale) -> torch.Tensor:
    waveform = read_clip(Clip(path, (), 0.0, NOISE_S), spec.sample_rate)
    if len(waveform) < spec.min_samples:
        waveform = np.resize(waveform, spec.min_samples)
    return scale.energy(torch.from_numpy(log_mel(waveform, spec)))


def stacked(batch: Iterable[Array]) -> torch.Tensor:
    """Patches of one length as the network takes them."""
    return torch.from_numpy(np.stack([patch.astype(np.float32) for patch in batch]))
