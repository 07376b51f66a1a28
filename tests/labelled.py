"""Small collections of labelled sounds, written to disk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from sounds import noise, wav_bytes

from audioset.sounds.collection import Clip

RATE = 8_000  # Hz


def write_sound(path: Path, seconds: float = 0.3, seed: int = 0, rate: int = RATE) -> Path:
    """A file of noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes(noise(round(seconds * rate), seed=seed), rate))
    return path


def write_folders(folder: Path, counts: dict[str, int], speakers: Sequence[str] = ("ann", "bob")) -> Path:
    """Folders of classes; the files are ``<speaker>_<number>.wav`` and all different."""
    seeds = itertools.count()
    for name, count in counts.items():
        for number in range(count):
            write_sound(folder / name / f"{speakers[number % len(speakers)]}_{number}.wav", seed=next(seeds))
    return folder


def table_of(folder: Path, text: str | bytes, name: str = "clips.csv") -> Path:
    """A table of clips, in ``folder``."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def names_of(clips: Sequence[Clip]) -> list[str]:
    """Names of the files of clips."""
    return [clip.path.name for clip in clips]
