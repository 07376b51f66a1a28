"""A collection of labelled clips: what is learned from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import UsageError

SPLITS = ("train", "test")  # that data may give


@dataclass(frozen=True)
class Clip:
    """One labelled piece of a sound file."""

    path: Path
    labels: tuple[str, ...]  # names of its classes; empty for a clip that has none of them, as background
    start_s: float = 0.0  # seconds in the file
    end_s: float | None = None  # seconds; None is the end of the file
    group: str | None = None  # what it shares with other clips: a speaker, a site, a recording
    split: str | None = None  # ``train`` or ``test``, where the data say so

    @property
    def is_whole_file(self) -> bool:
        """Whether it is all of its file."""
        return self.start_s == 0 and self.end_s is None


@dataclass(frozen=True)
class Collection:
    """Labelled clips and their classes."""

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]  # names in order: column ``i`` of targets and scores is ``classes[i]``
    source: str = ""  # where it was read from, for people
    notes: tuple[str, ...] = ()  # what was passed over there, for people

    def __post_init__(self) -> None:
        unknown = sorted({label for clip in self.clips for label in clip.labels} - set(self.classes))
        if unknown:
            raise UsageError(f"clips have the labels {', '.join(unknown)}, which are not among the classes")

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def is_multi_label(self) -> bool:
        """Whether there are clips with no class or with several."""
        return any(len(clip.labels) != 1 for clip in self.clips)

    def targets(self) -> FloatArray:
        """1 where a clip has a class: (n_clips, n_classes), float32."""
        columns = {name: column for column, name in enumerate(self.classes)}
        targets = np.zeros((len(self.clips), len(self.classes)), np.float32)
        for row, clip in enumerate(self.clips):
            targets[row, [columns[label] for label in clip.labels]] = 1
        return targets

    def select(self, rows: Iterable[int]) -> Collection:
        """Some of the clips, with all classes."""
        return replace(self, clips=tuple(self.clips[row] for row in rows))
