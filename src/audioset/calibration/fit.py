"""Learn thresholds and maps of scores from clips with known labels, and say how good they are.

>>> found = fit(scores, targets, model.labels)  # doctest: +SKIP
>>> found.calibration.settings(model.labels, max_gap_s=1)  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset.arrays import Array, BoolArray, FloatArray
from audioset.calibration import Calibration
from audioset.calibration.score_maps import FITS, ScoreMap
from audioset.errors import UsageError
from audioset.labels.events import EventSettings
from audioset.labels.labels import LabelSet

SEED = 0
N_BINS = 10  # of the expected calibration error
MIN_DECIMALS = 3  # of a threshold; it has more where fewer would not separate the scores

CALIBRATED = "calibrated"
TOO_FEW = "too_few_positives"  # keeps the common threshold
NO_NEGATIVES = "no_negatives"  # keeps it too: nothing tells a right threshold from 0
NOT_PRECISE = "precision_not_reached"  # is never an event


@dataclass(frozen=True)
class Quality:
    """How well a label's scores and threshold tell its clips from others.

    Attributes
    ----------
    f1, precision, recall : float
        In [0, 1], of the clips whose score reaches the threshold; 0 where nothing is there to be divided by.
    brier : float
        In [0, 1]: mean squared distance of the score from 1 in clips with the label, from 0 in others.
    calibration_error : float
        In [0, 1]: mean distance between score and share of clips with the label, in ten bins of equal width.

    Source: Brier 1950; expected calibration error: Naeini, Cooper and Hauskrecht, AAAI 2015, of one class.
    """

    f1: float
    precision: float
    recall: float
    brier: float
    calibration_error: float


@dataclass(frozen=True)
class LabelFit:
    """What was learned of one label.

    Attributes
    ----------
    label_id, label : str
    n_positives : int
        Clips, or patches, with this label.
    outcome : {"calibrated", "too_few_positives", "no_negatives", "precision_not_reached"}
        The second and third have no threshold of their own; the last makes no events.
    threshold : float or None
    score_map : ScoreMap or None
        None where none was asked for, or higher scores do not mean the label more often.
    before : Quality
        With the scores as they are, and the common threshold.
    after : Quality or None
        With thresholds and maps that were learned from other recordings, in turns; None where that is impossible:
        with only one recording that has the label, or without a threshold.
    """

    label_id: str
    label: str
    n_positives: int
    outcome: str
    threshold: float | None
    score_map: ScoreMap | None
    before: Quality
    after: Quality | None


@dataclass(frozen=True)
class Fit:
    """What ``fit`` has learned: ``calibration``, and one ``LabelFit`` for each label with a positive clip."""

    calibration: Calibration
    labels: tuple[LabelFit, ...]


@dataclass(frozen=True)
class Recipe:
    """How a threshold and a map are made from one label's clips.

    Attributes
    ----------
    map : {"none", "platt", "isotonic"}
    min_precision : float, optional
        In (0, 1]. The threshold has the highest recall among those with at least this precision. Default: the
        threshold has the highest F1.
    min_positives : int
        From 1. Labels with fewer positive clips, or patches, are left as they are.
    n_folds : int
        From 2: turns of the evaluation.

    Raises
    ------
    UsageError
        For other values.
    """

    map: str = "none"
    min_precision: float | None = None
    min_positives: int = 5
    n_folds: int = 5

    def __post_init__(self) -> None:
        if self.map not in FITS:
            raise UsageError(f"map is {self.map!r}; expected one of {', '.join(FITS)}")
        if self.min_precision is not None and not 0 < self.min_precision <= 1:
            raise UsageError(f"min_precision is {self.min_precision}; expected a share in (0, 1]")
        if self.min_positives < 1 or self.n_folds < 2:
            raise UsageError(
                f"min_positives is {self.min_positives} and n_folds {self.n_folds}; expected at least 1 and 2"
            )

    def learn(self, scores: Array, is_positive: BoolArray) -> tuple[float | None, ScoreMap | None]:
        """Threshold and map of one label."""
        score_map = FITS[self.map](scores, is_positive)
        return best_threshold(_mapped(scores, score_map), is_positive, self.min_precision), score_map


DEFAULTS = Recipe()
COMMON_THRESHOLD = EventSettings().threshold


def fit(
    scores: Array,
    targets: Array,
    labels: LabelSet,
    *,
    recordings: Sequence[Any] | Array | None = None,
    recipe: Recipe = DEFAULTS,
) -> Fit:
    """Learn thresholds and maps, and say how good they are.

    Parameters
    ----------
    scores : ndarray, shape (n_clips, n_classes)
        In [0, 1]; used as float32, as models give them.
    targets : ndarray, shape (n_clips, n_classes)
        Booleans, or 0 and 1: whether the label is in the clip.
    labels : LabelSet
        What the columns mean.
    recordings : sequence, length n_clips, optional
        What each clip or patch was cut from. The evaluation never learns from the recording that it looks at.
        Default: each clip is a recording.
    recipe : Recipe

    Returns
    -------
    Fit
        It does not depend on the order of the clips, except for the evaluation, which takes turns in their order.

    Raises
    ------
    UsageError
        If shapes, scores or targets are not as described, or no clip has any label.
    """
    scores, is_positive = _checked(scores, targets, labels)
    groups = _groups(recordings, len(scores))
    found = [index for index in range(len(labels)) if is_positive[:, index].any()]
    if not found:
        raise UsageError(
            f"none of the {len(scores)} clips has any of the {len(labels)} labels; expected some that have"
        )
    fits = tuple(
        _fit_label(labels.ids[index], labels.names[index], scores[:, index], is_positive[:, index], groups, recipe)
        for index in found
    )
    learned = [label for label in fits if label.outcome in (CALIBRATED, NOT_PRECISE)]
    calibration = Calibration(
        {label.label_id: label.threshold for label in learned},
        {label.label_id: label.score_map for label in learned if label.score_map},
        {
            "n_clips": len(scores),
            "n_recordings": int(groups.max()) + 1,
            "labels_digest": _digest(is_positive, labels),
            "best_for": "f1" if recipe.min_precision is None else f"recall at precision {recipe.min_precision:g}",
            "map": recipe.map,
        },
    )
    return Fit(calibration, fits)


def best_threshold(scores: Array, is_positive: BoolArray, min_precision: float | None = None) -> float | None:
    """The threshold that is best for one label; every one that makes a difference is looked at.

    Parameters
    ----------
    scores : ndarray, shape (n_clips,)
        In [0, 1]; used as float32.
    is_positive : ndarray, shape (n_clips,), bool
        At least one.
    min_precision : float, optional
        In (0, 1]. Default: the highest F1.

    Returns
    -------
    float or None
        In [0, 1], halfway between two neighbouring scores, to as few decimals, from 3, as keep it between them. Of
        equally good ones, the highest. None if none has ``min_precision``.
    """
    values, where = np.unique(np.asarray(scores, np.float32), return_inverse=True)
    n_found = np.bincount(where, weights=is_positive)[::-1].cumsum()[::-1]  # positives that score at least this
    n_called = np.bincount(where)[::-1].cumsum()[::-1]
    if min_precision is None:
        merit = 2 * n_found / (n_called + n_found[0])
    else:
        merit = np.where(n_found / n_called >= min_precision, n_found, -1)
    best = len(values) - 1 - int(np.argmax(merit[::-1]))
    if merit[best] < 0:
        return None
    return _between(float(values[best - 1]) if best else 0.0, float(values[best]))


def measure(scores: Array, is_called: BoolArray, is_positive: BoolArray) -> Quality:
    """How well one label is told from others: scores in [0, 1], clips said to have it, and clips that have it."""
    n_found, n_called, n_positives = (is_called & is_positive).sum(), is_called.sum(), is_positive.sum()
    distance = scores.astype(np.float64) - is_positive
    bins = np.minimum((scores * N_BINS).astype(np.intp), N_BINS - 1)
    gaps = np.abs(np.bincount(bins, weights=distance, minlength=N_BINS))
    return Quality(
        f1=float(2 * n_found / max(1, n_called + n_positives)),
        precision=float(n_found / max(1, n_called)),
        recall=float(n_found / max(1, n_positives)),
        brier=float((distance**2).mean()),
        calibration_error=float(gaps.sum() / len(scores)),
    )


def _fit_label(
    label_id: str, label: str, scores: Array, is_positive: BoolArray, groups: Array, recipe: Recipe
) -> LabelFit:
    n_positives = int(is_positive.sum())
    before = measure(scores, _reaches(scores, COMMON_THRESHOLD), is_positive)
    if n_positives < recipe.min_positives or n_positives == len(scores):
        outcome = TOO_FEW if n_positives < recipe.min_positives else NO_NEGATIVES
        return LabelFit(label_id, label, n_positives, outcome, None, None, before, None)
    threshold, score_map = recipe.learn(scores, is_positive)
    after = _cross_validate(scores, is_positive, groups, recipe)
    outcome = NOT_PRECISE if threshold is None else CALIBRATED
    return LabelFit(label_id, label, n_positives, outcome, threshold, score_map, before, after)


def _cross_validate(scores: Array, is_positive: BoolArray, groups: Array, recipe: Recipe) -> Quality | None:
    """Quality of what is learned from the other folds, over all clips; None if there are no two folds."""
    folds = _folds(is_positive, groups, recipe.n_folds)
    if folds is None:
        return None
    mapped, is_called = np.empty_like(scores), np.empty_like(is_positive)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        threshold, score_map = recipe.learn(scores[~held], is_positive[~held])
        mapped[held] = _mapped(scores[held], score_map)
        is_called[held] = _reaches(mapped[held], threshold)
    return measure(mapped, is_called, is_positive)


def _folds(is_positive: BoolArray, groups: Array, n_folds: int) -> Array | None:
    """Fold of each clip: recordings stay whole, and those with the label are dealt out evenly, as are the others."""
    has_label = np.bincount(groups, weights=is_positive) > 0
    n_folds = min(n_folds, int(has_label.sum()))
    if n_folds < 2:
        return None
    fold_of = np.empty(len(has_label), np.intp)
    rng = np.random.default_rng(SEED)
    for members in (np.flatnonzero(has_label), np.flatnonzero(~has_label)):
        fold_of[rng.permutation(members)] = np.arange(len(members)) % n_folds
    folds: Array = fold_of[groups]
    return folds


def _mapped(scores: Array, score_map: ScoreMap | None) -> Array:
    return scores if score_map is None else score_map(scores).astype(np.float32)


def _reaches(scores: Array, threshold: float | None) -> BoolArray:
    """Whether scores make an event: as ``EventDetector`` decides, in their own precision."""
    reaches: BoolArray = scores >= scores.dtype.type(np.inf if threshold is None else threshold)
    return reaches


def _between(below: float, value: float) -> float:
    """A short decimal that only ``value`` reaches, of two neighbouring float32 scores; 0 where both are 0."""
    middle = (below + value) / 2
    for decimals in range(MIN_DECIMALS, 18):
        short = round(middle, decimals)
        if below < np.float32(short) <= value:
            return short
    return value


def _checked(scores: Array, targets: Array, labels: LabelSet) -> tuple[FloatArray, BoolArray]:
    scores, targets = np.asarray(scores), np.asarray(targets)
    if scores.ndim != 2 or scores.shape[1] != len(labels) or scores.shape != targets.shape or not len(scores):
        raise UsageError(
            f"scores have the shape {scores.shape} and targets {targets.shape}; expected (n_clips, {len(labels)}) "
            "for both, one row for each clip and one column for each label"
        )
    if scores.dtype.kind not in "fiu" or not ((scores >= 0) & (scores <= 1)).all():
        raise UsageError("scores are not all in [0, 1]. Likely cause: NaN, or logits in place of scores")
    if targets.dtype.kind not in "biuf" or not ((targets == 0) | (targets == 1)).all():
        raise UsageError("targets are not all 0 or 1. Likely cause: NaN, or numbers of labels instead of a column each")
    return scores.astype(np.float32), targets.astype(bool)


def _groups(recordings: Sequence[Any] | Array | None, n_clips: int) -> Array:
    """Number of each clip's recording, from 0, as they first come."""
    if recordings is None:
        return np.arange(n_clips)
    if len(recordings) != n_clips:
        raise UsageError(f"{n_clips} clips have {len(recordings)} recordings; expected one for each clip")
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(recording, len(numbers)) for recording in recordings])


def _digest(is_positive: BoolArray, labels: LabelSet) -> str:
    """Identity of what the clips were labelled with, whatever their order."""
    rows = sorted(row.tobytes() for row in np.packbits(is_positive, axis=1))
    return f"sha256:{hashlib.sha256(chr(10).join(labels.ids).encode() + b''.join(rows)).hexdigest()}"
