"""Scores of clips by heads that have not seen them, with the strength of L2 chosen without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset.arrays import Array, IndexArray
from audioset.concurrency import available_cores
from audioset.train.classifier.embeddings import ClipEmbeddings
from audioset.train.classifier.fit import Recipe, fit, log_losses
from audioset.train.measures import Decision, clip_balanced_accuracy
from audioset.train.results import CurvePoint
from audioset.train.steps import can_be_judged

CURVE_SIZES = (2, 5, 10, 20, 50, 100, 200, 500, 1000)  # clips of a class
CURVE_FOLDS = 3  # that a point of the curve is a mean over


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """What cross-validation found."""

    rows: IndexArray  # clips that can be judged: those whose classes are also in other folds
    scores: Array  # (n_rows, n_classes) float32, of the candidate that the other folds chose
    folds: IndexArray  # (n_rows,)
    candidate: int  # which all folds together choose
    all_folds: IndexArray  # of all clips


def cross_validate(embeddings: ClipEmbeddings, folds: IndexArray, recipe: Recipe) -> CrossValidated | None:
    """Score each fold by heads fitted to the others; None if no clip can be judged.

    For each fold, the candidate is the one that is best on the clips of the other folds, when those are held out in
    turn: no clip has a say in the choice of the head that scores it.
    """
    targets = embeddings.collection.targets()
    rows = np.flatnonzero(can_be_judged(targets, folds))
    if not rows.size:
        return None
    scores = np.zeros((len(recipe.candidates), *targets.shape), np.float32)

    def score(fold: int) -> None:
        held = folds == fold
        scores[:, held] = fold_scores(embeddings, np.flatnonzero(~held), np.flatnonzero(held), recipe)

    _on_all_cores(score, np.unique(folds[rows]).tolist())
    all_folds, folds = folds, folds[rows]
    scores, targets = scores[:, rows], targets[rows]
    chosen = np.empty(scores.shape[1:], np.float32)
    for fold in np.unique(folds):
        held = folds == fold
        others = ~held if not held.all() else held
        chosen[held] = scores[choose(scores[:, others], targets[others], recipe), held]
    return CrossValidated(rows, chosen, folds, choose(scores, targets, recipe), all_folds)


def fold_scores(
    embeddings: ClipEmbeddings, learned: Sequence[int] | IndexArray, held: Sequence[int] | IndexArray, recipe: Recipe
) -> Array:
    """Scores (n_candidates, n_held, n_classes) of some clips by heads fitted to others: means over their patches."""
    known = embeddings.collection.select([int(row) for row in learned])
    fitted = fit(embeddings.means[learned], known.targets(), recipe, is_rough=True)
    part = embeddings.select(held)
    return np.stack([part.mean_over_patches(scores) for scores in fitted.scores(part.patches)])


def choose(scores: Array, targets: Array, recipe: Recipe) -> int:
    """The best candidate, by held-out scores (n_candidates, n_clips, n_classes).

    With softmax, those within one standard error of the highest accuracy are as good as that, and the one with the
    lowest log loss among them is the most honest. With independent scores, that with the lowest log loss.
    """
    losses = log_losses(scores, targets).mean(axis=1)
    if recipe.activation == "softmax":
        accuracies = (scores.argmax(axis=2) == targets.argmax(axis=1)).mean(axis=1)
        best = accuracies.max()
        error = np.sqrt(best * (1 - best) / len(targets))
        losses = np.where(accuracies >= best - error, losses, np.inf)
    return int(losses.argmin())


def learning_curve(
    embeddings: ClipEmbeddings, folds: IndexArray, recipe: Recipe, split: str, decision: Decision, seed: int
) -> list[CurvePoint]:
    """Balanced accuracy of heads of one candidate that learn from fewer clips, on the same held-out clips."""
    targets = embeddings.collection.targets()
    judged = can_be_judged(targets, folds)
    chosen = np.unique(folds[judged])[:CURVE_FOLDS].tolist()
    largest = max(int(targets[folds != fold].sum(axis=0).max()) for fold in chosen) if chosen else 0
    sizes = [size for size in CURVE_SIZES if size < largest]

    def point(size: int) -> CurvePoint:
        values, counts = [], []
        for fold in chosen:
            learned = _sample(targets, np.flatnonzero(folds != fold), size, np.random.default_rng((seed, size, fold)))
            held = np.flatnonzero((folds == fold) & judged)
            scores = fold_scores(embeddings, learned, held, recipe)[0]
            values.append(clip_balanced_accuracy(scores, targets[held], decision))
            counts.append(targets[learned].sum() / targets.shape[1])
        return CurvePoint(split, float(np.mean(counts)), float(np.mean(values)))

    return _on_all_cores(point, [*sizes, largest] if chosen else [])


def _on_all_cores(function: Callable[[int], Any], values: Iterable[int]) -> list[Any]:
    """``map`` over threads: what takes long lets others go on."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return list(pool.map(function, values))


def _sample(targets: Array, rows: IndexArray, size: int, rng: np.random.Generator) -> IndexArray:
    """At most so many clips of each class, and of none."""
    every = np.column_stack([targets, targets.sum(axis=1) == 0])
    shuffled = rng.permutation(rows)
    is_taken = (every[shuffled].astype(bool) & (every[shuffled].cumsum(axis=0) <= size)).any(axis=1)
    sampled: IndexArray = np.sort(shuffled[is_taken])
    return sampled
