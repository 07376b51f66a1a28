"""Metrics that depend on the order of the scores alone: average precision, ROC AUC, d-prime and lwlrap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import overload

import numpy as np

from audioset.arrays import Array, BoolArray, DoubleArray, IndexArray
from audioset.errors import UsageError

BLOCK_CLASSES = 32  # sorted together; more only costs memory
BLOCK_PAIRS = 4_096  # pairs of clip and label that lwlrap looks at together
NORMAL = NormalDist()


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the positives of one class stand among all clips, the best first."""

    n_clips: int
    # at_least, above: shape (n_positives,), intp; for each positive, the number of clips with at least its score, and
    # with a higher one
    at_least: IndexArray
    above: IndexArray
    # positives_at_least, positives_above: shape (n_positives,), intp; the same among the positives
    positives_at_least: IndexArray
    positives_above: IndexArray

    @classmethod
    def of(cls, scores: Array, positives: Array) -> Ranks:
        """Ranks of ascending scores, and of those among them that belong to positives, ascending too."""
        best_first = positives[::-1]
        return cls(len(scores), *_counts(scores, best_first), *_counts(positives, best_first))

    @property
    def n_positives(self) -> int:
        """Clips with the label."""
        return len(self.at_least)

    @property
    def precision_sum(self) -> float:
        """Sum over the positives of the precision among the clips with at least their scores."""
        return float((self.positives_at_least / self.at_least).sum())

    @property
    def average_precision(self) -> float:
        """NaN without positives."""
        return self.precision_sum / self.n_positives if self.n_positives else math.nan

    @property
    def roc_auc(self) -> float:
        """NaN without positives, and without negatives."""
        n_pairs = self.n_positives * (self.n_clips - self.n_positives)
        # Twice the pairs in the wrong order: a tie counts half. All are integers, so that only the quotient is rounded.
        wrong = int((self.at_least - self.positives_at_least + self.above - self.positives_above).sum())
        return (2 * n_pairs - wrong) / (2 * n_pairs) if n_pairs else math.nan


def _counts(scores: Array, values: Array) -> tuple[IndexArray, IndexArray]:
    """How many of some ascending scores are at least each of some values, and how many are above it."""
    n = len(scores)
    return n - np.searchsorted(scores, values, "left"), n - np.searchsorted(scores, values, "right")


def average_precision(scores: Array, targets: Array) -> DoubleArray:
    """Average precision of each class, without interpolation.

    The mean, over the clips with the label, of the precision among all clips with at least the score of that clip.
    Clips with equal scores are thus taken together, whatever their order.

    Parameters
    ----------
    scores : ndarray, shape (n_clips, n_classes), any real dtype
        Probabilities, logits or any other numbers of which more means likelier. Infinities are allowed.
    targets : ndarray, shape (n_clips, n_classes), bool or 0 and 1
        Which clip has which label.

    Returns
    -------
    ndarray, shape (n_classes,), float64
        In (0, 1]; 1 for a class that all clips have, NaN for one that none has.

    Raises
    ------
    UsageError
        For arrays that are empty or whose shapes differ, scores that are NaN or no real numbers, and targets other
        than 0 and 1.

    Source: ``average_precision_score`` of scikit-learn, 3e-16 apart on random scores with and without ties.
    """
    return np.array([ranks.average_precision for ranks in ranks_of_classes(*checked(scores, targets))])


def roc_auc(scores: Array, targets: Array) -> DoubleArray:
    """Area under the ROC curve of each class.

    The probability that a clip with the label scores higher than one without; equal scores count half.

    Parameters
    ----------
    scores, targets : ndarray, shape (n_clips, n_classes)
        As for ``average_precision``.

    Returns
    -------
    ndarray, shape (n_classes,), float64
        In [0, 1]; NaN for a class that no clip has, or that all have.

    Raises
    ------
    UsageError
        As ``average_precision``.

    Source: ``roc_auc_score`` of scikit-learn, 2e-16 apart on random scores with and without ties.
    """
    return np.array([ranks.roc_auc for ranks in ranks_of_classes(*checked(scores, targets))])


@overload
def d_prime(auc: float) -> float: ...
@overload
def d_prime(auc: DoubleArray) -> DoubleArray: ...
def d_prime(auc: float | DoubleArray) -> float | DoubleArray:
    """Sensitivity index d′ that belongs to an area under the ROC curve: √2 Φ⁻¹(AUC).

    How many standard deviations apart the scores of clips with and without the label would be, were both normal
    with the same variance.

    Parameters
    ----------
    auc : float or ndarray
        In [0, 1], or NaN.

    Returns
    -------
    float or ndarray, the same shape, float64
        0 for 0.5, -inf for 0, +inf for 1, NaN for NaN.

    Raises
    ------
    UsageError
        If a value is outside [0, 1].

    Source: Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017. Φ⁻¹ is
    ``statistics.NormalDist``; relative distance 9e-16 from scipy's on [1e-12, 1 - 1e-12].
    """
    values = np.asarray(auc, np.float64)
    if np.any(is_outside := (values < 0) | (values > 1)):
        raise UsageError(f"an AUC is {values[is_outside].flat[0]:g}; expected areas in [0, 1]")
    result = math.sqrt(2) * np.array([_normal_quantile(p) for p in values.flat]).reshape(values.shape)
    return result if isinstance(auc, np.ndarray) else float(result)


def _normal_quantile(probability: float) -> float:
    if 0 < probability < 1:
        return NORMAL.inv_cdf(probability)
    return {0.0: -math.inf, 1.0: math.inf}.get(probability, math.nan)


def lwlrap(scores: Array, targets: Array) -> float:
    """Label-weighted label-ranking average precision: how high the labels of a clip stand among all classes.

    For each label of each clip, the share of the clip's own labels among the classes that score at least as high
    there; averaged over all labels of all clips. Scores are compared within a clip, never between clips.

    Parameters
    ----------
    scores, targets : ndarray, shape (n_clips, n_classes)
        As for ``average_precision``. Clips without labels have no influence.

    Returns
    -------
    float
        In (0, 1]; NaN if no clip has a label.

    Raises
    ------
    UsageError
        As ``average_precision``.

    Source: Fonseca et al., "Audio tagging with noisy labels and minimal supervision", DCASE 2019. Equal scores are
    taken together, as in ``label_ranking_average_precision_score`` of scikit-learn, which gives the same with the
    numbers of labels as sample weights, 3e-15 apart.
    """
    precisions, _ = _label_precisions(*checked(scores, targets))
    return mean_defined(precisions)


def lwlrap_of_classes(scores: Array, targets: Array) -> DoubleArray:
    """The part of each class in ``lwlrap``: the mean over the clips that have the label.

    Parameters
    ----------
    scores, targets : ndarray, shape (n_clips, n_classes)
        As for ``average_precision``.

    Returns
    -------
    ndarray, shape (n_classes,), float64
        In (0, 1]; NaN for a class that no clip has. Weighted by the numbers of clips, their mean is ``lwlrap``.

    Raises
    ------
    UsageError
        As ``average_precision``.
    """
    scores, targets = checked(scores, targets)
    return means_of_classes(*_label_precisions(scores, targets), targets.shape[1])


def lwlrap_both(scores: Array, targets: BoolArray) -> tuple[float, DoubleArray]:
    """``lwlrap`` and ``lwlrap_of_classes`` of checked arrays."""
    precisions, classes = _label_precisions(scores, targets)
    return mean_defined(precisions), means_of_classes(precisions, classes, targets.shape[1])


def _label_precisions(scores: Array, targets: BoolArray) -> tuple[DoubleArray, IndexArray]:
    """For each pair of clip and label: the precision among the classes of at least its score; and its class."""
    clips, classes = np.nonzero(targets)
    precisions = np.empty(len(clips))
    for first in range(0, len(clips), BLOCK_PAIRS):
        block = slice(first, first + BLOCK_PAIRS)
        rows = clips[block]
        is_at_least = scores[rows] >= scores[rows, classes[block], None]
        n_hits = np.count_nonzero(is_at_least & targets[rows], axis=1)
        precisions[block] = n_hits / np.count_nonzero(is_at_least, axis=1)
    return precisions, classes


def means_of_classes(values: DoubleArray, classes: IndexArray, n_classes: int) -> DoubleArray:
    """Mean of the values of each class; NaN for a class without values."""
    counts = np.bincount(classes, minlength=n_classes)
    sums = np.bincount(classes, weights=values, minlength=n_classes)
    means = np.full(n_classes, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def mean_defined(values: DoubleArray) -> float:
    """Mean of the values that are not NaN, such as the AP of the classes that have any.

    Parameters
    ----------
    values : ndarray, float64

    Returns
    -------
    float
        NaN if all are NaN, or if both infinities are among them.
    """
    defined = values[~np.isnan(values)]
    with np.errstate(invalid="ignore"):  # of two infinities
        return float(defined.mean()) if defined.size else math.nan


def ranks_of_classes(scores: Array, targets: BoolArray) -> Iterator[Ranks]:
    """Ranks of one class after the other, in memory for a block of them."""
    for first in range(0, scores.shape[1], BLOCK_CLASSES):
        block = slice(first, first + BLOCK_CLASSES)
        columns = scores[:, block].T.copy()
        positives = [np.sort(column[is_one]) for column, is_one in zip(columns, targets[:, block].T, strict=True)]
        columns.sort(axis=1)
        yield from map(Ranks.of, columns, positives)


def checked(scores: Array, targets: Array) -> tuple[Array, BoolArray]:
    """The scores, and the targets as booleans, if they are what every metric expects."""
    scores, targets = np.asarray(scores), np.asarray(targets)
    _check_shapes(scores, targets)
    for name, array in (("scores", scores), ("targets", targets)):
        if array.dtype.kind not in "biuf":
            raise UsageError(f"{name} have dtype {array.dtype}; expected real numbers")
    if scores.dtype.kind == "f" and np.any(is_nan := np.isnan(scores)):
        raise UsageError(
            f"the score of {_first(is_nan)} is NaN, one of {np.count_nonzero(is_nan):,}; expected numbers. "
            "Likely cause: training that diverged, or clips without audio. "
            "Next step: leave those clips out of both arrays"
        )
    return scores, _as_booleans(targets)


def _check_shapes(scores: Array, targets: Array) -> None:
    if scores.shape != targets.shape:
        raise UsageError(
            f"scores have shape {scores.shape} and targets {targets.shape}; expected the same, (n_clips, n_classes). "
            "Likely cause: labels of another model, or clips that are in one of them only"
        )
    if scores.ndim != 2:
        raise UsageError(
            f"scores and targets have shape {scores.shape}; expected (n_clips, n_classes). "
            "Next step, for one class: scores[:, None] and targets[:, None]"
        )
    if 0 in scores.shape:
        raise UsageError(f"scores have shape {scores.shape}; expected at least one clip and one class")


def _as_booleans(targets: Array) -> BoolArray:
    if targets.dtype.kind == "b":
        return targets
    is_one: BoolArray = targets == 1
    if np.any(is_other := ~is_one & (targets != 0)):
        raise UsageError(
            f"the target of {_first(is_other)} is {targets[is_other][0]:g}; expected 0 or 1. "
            "Likely cause: labels that were mixed or smoothed for training, or scores and targets changed places"
        )
    return is_one


def _first(is_wrong: BoolArray) -> str:
    clip, index = np.unravel_index(int(is_wrong.argmax()), is_wrong.shape)
    return f"clip {clip}, class {index},"
