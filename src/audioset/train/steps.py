"""Steps that every training on labelled sounds takes: check, parts, folds and thresholds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from audioset.arrays import Array, IndexArray
from audioset.audio.limits import LIMITS, Limits
from audioset.calibration.fit import fit as fit_thresholds
from audioset.errors import DataError
from audioset.labels.labels import LabelSet
from audioset.sounds.check import Check, check_collection
from audioset.sounds.collection import Clip, Collection
from audioset.train.results import BY_GROUP, HeldOut

OnStage = Callable[[str, int, int], None]  # is told the name of a stage, what is done of it, and all of it

N_SHOWN = 3  # groups in the name of a fold


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def check_sounds(collection: Collection, check: Check | None, on_stage: OnStage, limits: Limits = LIMITS) -> Check:
    """What ``check_collection`` finds, or has found already."""
    n_files = len({clip.path for clip in collection.clips})
    done = iter(range(1, n_files + 1))
    return check or check_collection(
        collection, limits=limits, on_file=lambda *_: on_stage("check", next(done, n_files), n_files)
    )


def digests_of(check: Check, clips: Sequence[Clip]) -> list[str]:
    """Of the files of some of the clips that were checked."""
    known = dict(zip(check.usable.clips, check.digests, strict=True))
    return [known[clip] for clip in clips]


def split_off_test(collection: Collection, activation: str) -> tuple[IndexArray, IndexArray]:
    """Clips to learn from, and those that the data call test; DataError if the first are of one class."""
    is_test = np.array([clip.split == "test" for clip in collection.clips])
    rows, test_rows = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    if activation == "softmax" and collection.targets()[rows].any(axis=0).sum() < 2:
        raise DataError(
            "the clips to learn from are of one class: there is nothing to tell apart. Next step: add clips of "
            "another class, or of background, that are not for testing",
            code="one_class",
        )
    return rows, test_rows


def can_be_judged(targets: Array, folds: IndexArray) -> Array:
    """Whether all classes of a clip are also in clips of other folds; and whether there are any others."""
    is_judged = np.zeros(len(targets), bool)
    for fold in np.unique(folds):
        held = folds == fold
        is_known = targets[~held].any(axis=0)
        is_judged |= held & ~(targets.astype(bool) & ~is_known).any(axis=1) & (~held).any()
    return is_judged


def name_fold(split: str, clips: Sequence[Clip], fold: int) -> str:
    """What the clips of a fold have in common, for people."""
    groups = sorted({clip.group or "" for clip in clips})
    return ", ".join(groups[:N_SHOWN]) if split == BY_GROUP else f"fold {fold + 1}"


def find_thresholds(
    held_out: Sequence[HeldOut], collection: Collection
) -> tuple[dict[str, Any] | None, dict[str, float | None]]:
    """Those of the most telling held-out scores, for the model's card and for people."""
    if not held_out or not held_out[0].targets.any():
        return None, {}
    first = held_out[0]
    recordings = [str(collection.clips[row].path) for row in first.rows]
    labels = LabelSet(collection.classes, collection.classes)
    found = fit_thresholds(np.clip(first.scores, 0, 1), first.targets, labels, recordings=recordings)
    return found.calibration.to_record(), dict(found.calibration.thresholds)
