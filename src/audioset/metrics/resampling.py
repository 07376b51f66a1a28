"""How far a metric would move had other clips been drawn: the bootstrap over clips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from audioset.arrays import Array, BoolArray, DoubleArray, IndexArray
from audioset.concurrency import available_cores
from audioset.errors import UsageError
from audioset.metrics.ranking import Ranks, checked, d_prime, mean_defined, ranks_of_classes

N_RESAMPLES = 1_000
NAMES = ("mean_ap", "mean_auc", "d_prime", "ap", "auc")
BLOCK_RESAMPLES = 250  # weighed together; more only costs memory


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Metrics of resamples: as many clips as there are, drawn with replacement.

    Attributes
    ----------
    ap, auc : ndarray, shape (n_resamples, n_classes), float64
        NaN where a resample has no positive, or for ``auc`` no negative.
    sample_ap, sample_auc : ndarray, shape (n_classes,), float64
        Those of the clips themselves, as ``average_precision`` and ``roc_auc`` give them.

    Examples
    --------
    Two systems on the same clips, with the same seed and number of resamples, meet the same resamples. The
    differences are then paired: ``np.mean(a.mean_ap > b.mean_ap)`` is the share in which ``a`` is ahead.
    """

    ap: DoubleArray
    auc: DoubleArray
    sample_ap: DoubleArray
    sample_auc: DoubleArray

    @property
    def mean_ap(self) -> DoubleArray:
        """Mean over the classes that have an AP in the resample, shape (n_resamples,)."""
        return np.array([mean_defined(row) for row in self.ap])

    @property
    def mean_auc(self) -> DoubleArray:
        """Mean over the classes that have an AUC in the resample, shape (n_resamples,)."""
        return np.array([mean_defined(row) for row in self.auc])

    def interval(self, name: str = "mean_ap", confidence: float = 0.95, *, is_centred: bool = True) -> DoubleArray:
        """Interval in which the metric of other clips of the same kind, as many, would lie.

        Parameters
        ----------
        name : {"mean_ap", "mean_auc", "d_prime", "ap", "auc"}
            ``d_prime`` is that of ``mean_auc``. The last two are of each class.
        confidence : float
            In (0, 1).
        is_centred : bool
            Whether the values of the resamples are moved so that their mean is the metric of the clips themselves.
            If not, this is the plain percentile interval.

        Returns
        -------
        ndarray, shape (2,) or (2, n_classes), float64
            Lower and upper end, nowhere outside what the metric can be. Resamples in which a value is not defined
            are left out; NaN if there is no other.

        Raises
        ------
        UsageError
            For another name, or a confidence outside (0, 1).

        Notes
        -----
        A positive that is drawn twice stands beside itself in the ranking. This raises average precision, for rare
        classes by more than it varies, so that plain percentiles may not even contain the metric itself.

        Source: the percentile interval of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
        section 13.3, less the estimate of bias of section 10.2.
        """
        if name not in NAMES:
            raise UsageError(f"there is no interval of {name!r}; expected one of {', '.join(NAMES)}")
        if not 0 < confidence < 1:
            raise UsageError(f"confidence is {confidence}; expected a probability in (0, 1), such as 0.95")
        ends = ((1 - confidence) / 2, (1 + confidence) / 2)
        match name:
            case "ap" | "auc":
                values, sample = getattr(self, name), getattr(self, f"sample_{name}")
                columns = zip(values.T, sample.tolist(), strict=True)
                return np.stack([_interval(column, value, ends, is_centred) for column, value in columns], axis=1)
            case "mean_ap":
                return _interval(self.mean_ap, mean_defined(self.sample_ap), ends, is_centred)
            case _:
                of_auc = _interval(self.mean_auc, mean_defined(self.sample_auc), ends, is_centred)
                return d_prime(of_auc) if name == "d_prime" else of_auc


def bootstrap(
    scores: Array, targets: Array, *, n_resamples: int = N_RESAMPLES, seed: int = 0, n_threads: int | None = None
) -> Bootstrap:
    """Draw the clips anew, again and again, and compute average precision and ROC AUC of each class each time.

    Parameters
    ----------
    scores, targets : ndarray, shape (n_clips, n_classes)
        As for ``average_precision``. A clip is drawn with all its classes, so that classes vary together.
    n_resamples : int
        From 1.
    seed : int
        From 0. The same seed and number of clips give the same resamples, on every machine and with any number of
        threads; the first of many resamples are those of few.
    n_threads : int, optional
        From 1. Default: one for each core.

    Returns
    -------
    Bootstrap

    Raises
    ------
    UsageError
        For numbers below those; for arrays that ``average_precision`` refuses.

    Notes
    -----
    Nothing is sorted twice: a resample weighs each clip by how often it was drawn, and the counts of clips in
    average precision and AUC become sums of weights along the order of the scores. Equal to 1e-12 to the metrics of
    the drawn clips. Each thread holds one weight for each of its 250 resamples and each clip.
    """
    for name, value, least in (("n_resamples", n_resamples, 1), ("seed", seed, 0), ("n_threads", n_threads, 1)):
        if value is not None and value < least:
            raise UsageError(f"{name} is {value}; expected {least} or more")
    scores, targets = checked(scores, targets)
    firsts = range(0, n_resamples, BLOCK_RESAMPLES)
    blocks = [range(first, min(first + BLOCK_RESAMPLES, n_resamples)) for first in firsts]
    with ThreadPoolExecutor(n_threads or available_cores()) as pool:
        parts = list(pool.map(partial(_resample, scores, targets, seed), blocks))
    ap, auc = (np.concatenate(part) for part in zip(*parts, strict=True))
    sample = [(ranks.average_precision, ranks.roc_auc) for ranks in ranks_of_classes(scores, targets)]
    return Bootstrap(ap, auc, *np.array(sample).T)


def _resample(scores: Array, targets: BoolArray, seed: int, resamples: range) -> tuple[DoubleArray, DoubleArray]:
    """AP and AUC of some resamples, (n_resamples, n_classes)."""
    weights = draw(len(scores), seed, resamples)
    columns = zip(scores.T, targets.T, strict=True)
    results = np.array([_weighted(column.copy(), is_one, weights) for column, is_one in columns])
    return results[:, 0].T, results[:, 1].T


def draw(n_clips: int, seed: int, resamples: range) -> Array:
    """How often each resample has drawn each clip."""
    weights = np.empty((len(resamples), n_clips), np.min_scalar_type(n_clips))
    for row, number in zip(weights, resamples, strict=True):
        row[:] = np.bincount(np.random.default_rng((seed, number)).integers(n_clips, size=n_clips), minlength=n_clips)
    by_clip: Array = weights.T.copy()
    return by_clip


def _weighted(scores: Array, is_positive: BoolArray, weights: Array) -> tuple[DoubleArray, DoubleArray]:
    """AP and AUC of one class in each resample: those of ``Ranks``, with sums of weights instead of counts."""
    worst_first = np.argsort(scores)
    positives = worst_first[is_positive[worst_first]]
    ranks = Ranks.of(scores[worst_first], scores[positives])
    best_first, positives = worst_first[::-1], positives[::-1]

    at_least, above = _sums_of_first(weights, best_first, ranks.at_least, ranks.above)
    positives_at_least, positives_above = _sums_of_first(
        weights, positives, ranks.positives_at_least, ranks.positives_above
    )
    drawn = weights[positives].astype(np.int64)
    n_positives = drawn.sum(axis=0)
    precisions = positives_at_least / np.maximum(at_least, 1)  # a sum of 0 has no positive to count
    n_pairs = n_positives * (len(scores) - n_positives)
    wrong = (drawn * (at_least - positives_at_least + above - positives_above)).sum(axis=0)
    return _quotient((drawn * precisions).sum(axis=0), n_positives), _quotient(2 * n_pairs - wrong, 2 * n_pairs)


def _sums_of_first(weights: Array, order: IndexArray, *counts: IndexArray) -> list[Array]:
    """For each count, the weights of as many first clips of an order, summed; (n_counts, n_resamples) each."""
    edges = np.unique(np.concatenate([[0], *counts]))
    sums = np.zeros((len(edges), weights.shape[1]), np.int64)
    for row, (start, stop) in zip(sums[1:], pairwise(edges), strict=True):
        row[:] = weights[order[start:stop]].sum(axis=0, dtype=weights.dtype)
    np.cumsum(sums, axis=0, out=sums)
    return [sums[np.searchsorted(edges, count)] for count in counts]


def _quotient(numerators: Array, denominators: Array) -> DoubleArray:
    """NaN for a denominator of 0."""
    quotients = np.full(denominators.shape, np.nan)
    np.divide(numerators, denominators, out=quotients, where=denominators > 0)
    return quotients


def _interval(values: DoubleArray, sample: float, ends: tuple[float, float], is_centred: bool) -> DoubleArray:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return np.full(2, np.nan)
    shift = sample - defined.mean() if is_centred else 0.0
    interval: DoubleArray = np.clip(np.quantile(defined, ends) + shift, 0, 1)
    return interval
