"""The metrics of YouTube-8M, as its starter code defines them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from audioset.arrays import Array, BoolArray, DoubleArray, IndexArray
from audioset.errors import UsageError
from audioset.metrics.ranking import Ranks, checked, mean_defined

TOP_K = 20


@dataclass(frozen=True)
class YouTube8MMetrics:
    """What the evaluation of YouTube-8M's starter code reports.

    Attributes
    ----------
    n_clips : int
    n_classes_used : int
        Classes with positives, which ``mean_ap_in_top`` is the mean of.
    top_k : int
        How many classes of a clip ``gap`` and ``mean_ap_in_top`` look at.
    hit_at_1 : float
        Share of the clips whose highest class is one of their labels.
    perr : float
        Precision at equal recall rate: of a clip with G labels, the share of labels among its G highest classes with
        a score above 0; averaged over the clips.
    gap : float
        Global average precision: that of all classes' scores in one list, of the top k of each clip. The positives
        outside the top k count as never found. NaN if no clip has a label.
    mean_ap_in_top : float
        Mean average precision over the classes with positives, of the scores that are in the top k of their clips.
        The positives outside count as never found. NaN if no clip has a label.

    Notes
    -----
    ``mean_ap_in_top`` is not comparable with ``Metrics.mean_ap``: positives outside the top k are lost, but so are
    the negatives that would outrank others.
    """

    n_clips: int
    n_classes_used: int
    top_k: int
    hit_at_1: float
    perr: float
    gap: float
    mean_ap_in_top: float

    def as_dict(self) -> dict[str, float | int | None]:
        """All by name, as JSON can hold them: None where not defined."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def evaluate_youtube8m(scores: Array, targets: Array, *, top_k: int = TOP_K) -> YouTube8MMetrics:
    """Hit@1, PERR, GAP and the mean average precision within the top k.

    Parameters
    ----------
    scores : ndarray, shape (n_clips, n_classes), any real dtype
        Probabilities. With logits, PERR counts only those above 0.
    targets : ndarray, shape (n_clips, n_classes), bool or 0 and 1
        Clips without labels count in ``hit_at_1`` and ``perr``, as missed.
    top_k : int
        From 1; all classes if there are fewer.

    Returns
    -------
    YouTube8MMetrics

    Raises
    ------
    UsageError
        For another ``top_k``; for arrays that ``average_precision`` refuses.

    Notes
    -----
    Of equal scores in a clip, those of earlier classes come first. Equal scores of a list are taken together, as in
    ``average_precision``; the starter code shuffles them.

    Source: ``eval_util.py`` and ``average_precision_calculator.py`` of google/youtube-8m; equal to 1e-12 to the
    plainest code that says the same.
    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}; expected 1 or more")
    scores, targets = checked(scores, targets)
    n_labels = np.count_nonzero(targets, axis=1)
    n_positives = np.count_nonzero(targets, axis=0)
    is_top = _is_top(scores, np.full(len(scores), min(top_k, scores.shape[1])))
    is_hit = is_top & targets
    return YouTube8MMetrics(
        n_clips=len(scores),
        n_classes_used=int(np.count_nonzero(n_positives)),
        top_k=top_k,
        hit_at_1=float(targets[np.arange(len(scores)), scores.argmax(axis=1)].mean()),
        perr=_perr(scores, targets, n_labels),
        gap=_average_precision(scores[is_top], scores[is_hit], int(n_positives.sum())),
        mean_ap_in_top=mean_defined(_average_precisions(scores, is_top, is_hit, n_positives)),
    )


def _perr(scores: Array, targets: BoolArray, n_labels: IndexArray) -> float:
    is_hit = _is_top(scores, n_labels) & targets & (scores > 0)
    return float((np.count_nonzero(is_hit, axis=1) / np.maximum(n_labels, 1)).mean())


def _is_top(scores: Array, n_top: IndexArray) -> BoolArray:
    """Which classes of a clip are its highest, as many as wanted; of equal ones, the first."""
    lowest = np.sort(scores, axis=1)[np.arange(len(scores)), -np.maximum(n_top, 1), None]
    is_top: BoolArray = scores > lowest
    is_tied = scores == lowest
    n_left = n_top - np.count_nonzero(is_top, axis=1)
    has_choice = np.count_nonzero(is_tied, axis=1) > n_left  # rare: count along these rows only
    is_tied[has_choice] &= np.cumsum(is_tied[has_choice], axis=1) <= n_left[has_choice, None]
    is_top |= is_tied
    return is_top


def _average_precisions(scores: Array, is_top: BoolArray, is_hit: BoolArray, n_positives: IndexArray) -> DoubleArray:
    columns = zip(scores.T, is_top.T, is_hit.T, n_positives, strict=True)
    return np.array([_average_precision(column[top], column[hit], int(n)) for column, top, hit, n in columns])


def _average_precision(kept: Array, hits: Array, n_positives: int) -> float:
    """Of the scores that were kept, with all positives as denominator."""
    return Ranks.of(np.sort(kept), np.sort(hits)).precision_sum / n_positives if n_positives else math.nan
