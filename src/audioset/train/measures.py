"""How good the scores of held-out clips are: accuracy, precision, recall and F1, each with how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset.arrays import Array, BoolArray
from audioset.metrics import average_precision
from audioset.metrics.resampling import draw

N_RESAMPLES = 1_000
SEED = 0
Z_95 = 1.959964
COMMON_THRESHOLD = 0.5
NO_CLASS = "(no class)"


@dataclass(frozen=True)
class Decision:
    """How scores become classes.

    Of softmax scores, the class with the highest is said. Of sigmoid scores, those that reach their threshold; without
    multi-label clips, only the one that is highest above its own.
    """

    activation: str  # softmax or sigmoid
    is_multi_label: bool = False  # whether any clip has several classes
    has_background: bool = False  # whether any clip has none
    thresholds: tuple[float | None, ...] = ()  # for each class, where it has one of its own

    def __call__(self, scores: Array) -> BoolArray:
        """Whether a class is said of a clip: (n_clips, n_classes)."""
        if self.activation == "softmax":
            return _highest(scores)
        n_classes = scores.shape[1]
        own = self.thresholds or (None,) * n_classes
        levels = np.array([COMMON_THRESHOLD if level is None else level for level in own], np.float32)
        reaches: BoolArray = scores >= levels
        return reaches if self.is_multi_label else reaches & _highest(np.where(reaches, scores - levels, -np.inf))


def measure(scores: Array, targets: Array, folds: Array, classes: Sequence[str], decision: Decision) -> dict[str, Any]:
    """Everything that a report says about held-out clips.

    Scores and targets are (n_clips, n_classes), folds (n_clips,), whole numbers: clips of one fold were held out
    together. The record has ``n_clips``; ``accuracy``: share of clips that get exactly their classes, and its Wilson
    interval; ``balanced_accuracy``: mean recall of the classes that have clips, and its bootstrap interval;
    ``macro_f1``; ``mean_ap``; ``classes``: a list; ``confusion``: counts, rows are what clips have, None if any has
    several; ``folds``: the same numbers of each. All intervals are of 95 %.
    """
    is_positive, is_called = targets.astype(bool), decision(scores)
    cells, named = _with_no_class(is_positive, is_called, classes, decision)
    drawn = _draws(len(scores))
    rows = [_class_row(name, *pair, drawn) for name, pair in zip(named, _columns(cells), strict=True)]
    is_right = (is_positive == is_called).all(axis=1)
    real = rows[: len(classes)]
    for row, ap in zip(real, average_precision(scores, is_positive), strict=True):
        row["ap"] = float(ap)
    has_confusion = not decision.is_multi_label
    return {
        "n_clips": len(scores),
        "accuracy": float(is_right.mean()),
        "accuracy_interval": wilson(int(is_right.sum()), len(scores)),
        "balanced_accuracy": balanced_accuracy(*cells),
        "balanced_accuracy_interval": _interval(_balanced(*cells, drawn)),
        "macro_f1": _mean([row["f1"] for row in real]),
        "mean_ap": _mean([row["ap"] for row in real]),
        "classes": real,
        "confusion": {"names": list(named), "counts": _confusion(*cells)} if has_confusion else None,
        "folds": [_fold(*(each[folds == fold] for each in cells)) for fold in range(int(folds.max(initial=-1)) + 1)],
    }


def balanced_accuracy(is_positive: BoolArray, is_called: BoolArray) -> float:
    """Mean recall over the classes that have clips; NaN if none has."""
    n = is_positive.sum(axis=0)
    recalls = (is_positive & is_called).sum(axis=0)[n > 0] / n[n > 0]
    return float(recalls.mean()) if recalls.size else math.nan


def clip_balanced_accuracy(scores: Array, targets: Array, decision: Decision) -> float:
    """The same of scores; clips without a class count as a class of their own."""
    cells, _ = _with_no_class(targets.astype(bool), decision(scores), [""] * scores.shape[1], decision)
    return balanced_accuracy(*cells)


def wilson(n_right: int, n: int) -> list[float]:
    """Interval of 95 % for a share; [0, 1] where nothing is known.

    Source: Wilson 1927, the score interval.
    """
    if not n:
        return [0.0, 1.0]
    share, spread = n_right / n, Z_95**2 / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z_95 * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def _highest(values: Array) -> BoolArray:
    """Whether an entry is the highest of its row; the first of equal ones."""
    highest = np.zeros(values.shape, bool)
    if values.size:
        highest[np.arange(len(values)), values.argmax(axis=1)] = True
    return highest


def _with_no_class(
    is_positive: BoolArray, is_called: BoolArray, classes: Sequence[str], decision: Decision
) -> tuple[tuple[BoolArray, BoolArray], Sequence[str]]:
    """The same with a column for clips that have no class, if these are possible and can be told."""
    if decision.is_multi_label or not decision.has_background:
        return (is_positive, is_called), classes
    cells = [np.column_stack([each, ~each.any(axis=1)]) for each in (is_positive, is_called)]
    return (cells[0], cells[1]), [*classes, NO_CLASS]


def _columns(cells: tuple[BoolArray, BoolArray]) -> list[tuple[BoolArray, BoolArray]]:
    return list(zip(cells[0].T, cells[1].T, strict=True))


def _class_row(name: str, is_positive: BoolArray, is_called: BoolArray, drawn: Array) -> dict[str, Any]:
    n_found = int((is_positive & is_called).sum())
    n_called, n_positives = int(is_called.sum()), int(is_positive.sum())
    found, all_called, all_positives = (
        each.astype(np.float32) @ drawn for each in (is_positive & is_called, is_called, is_positive)
    )
    both = all_called + all_positives
    return {
        "class": name,
        "n_clips": n_positives,
        "precision": n_found / n_called if n_called else math.nan,
        "precision_interval": wilson(n_found, n_called),
        "recall": n_found / n_positives if n_positives else math.nan,
        "recall_interval": wilson(n_found, n_positives),
        "f1": 2 * n_found / (n_called + n_positives) if n_called + n_positives else math.nan,
        "f1_interval": _interval(2 * found[both > 0] / both[both > 0]),
    }


def _confusion(is_positive: BoolArray, is_called: BoolArray) -> list[list[int]]:
    """Clips of each class (rows) that were said to be of each class (columns)."""
    counts: list[list[int]] = (is_positive.T.astype(np.int64) @ is_called.astype(np.int64)).tolist()
    return counts


def _fold(is_positive: BoolArray, is_called: BoolArray) -> dict[str, Any]:
    n_right = int((is_positive == is_called).all(axis=1).sum())
    return {
        "n_clips": len(is_positive),
        "accuracy": n_right / len(is_positive) if len(is_positive) else math.nan,
        "accuracy_interval": wilson(n_right, len(is_positive)),
        "balanced_accuracy": balanced_accuracy(is_positive, is_called),
    }


def _draws(n_clips: int) -> Array:
    """How often each resample has drawn each clip: (n_clips, n_resamples), float32."""
    return draw(n_clips, SEED, range(N_RESAMPLES)).astype(np.float32)


def _balanced(is_positive: BoolArray, is_called: BoolArray, drawn: Array) -> Array:
    """Balanced accuracy of each resample."""
    found = (is_positive & is_called).T.astype(np.float32) @ drawn
    n = is_positive.T.astype(np.float32) @ drawn
    recalls = np.where(n > 0, found / np.maximum(n, 1), np.nan)
    is_known = ~np.isnan(recalls).all(axis=0)
    values: Array = np.nanmean(recalls[:, is_known], axis=0)
    return values


def _interval(values: Array) -> list[float] | None:
    return np.quantile(values, (0.025, 0.975)).tolist() if values.size else None


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
