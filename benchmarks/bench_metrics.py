"""Metrics at the size of AudioSet's evaluation set, beside scikit-learn, and what the bootstrap's intervals hold.

    python benchmarks/bench_metrics.py

Scores are random logits in float32; a label raises its own by 2.5 standard deviations. The prevalence of the classes
falls as 1 / rank, from 30 % down to 0.3 %, as in the evaluation set: most classes have some sixty clips. scikit-learn
computes average precision and ROC AUC of each class, as the published evaluations do; here, the same numbers, d-prime
and lwlrap come from the same arrays. Both run in turns, and the best of each counts. Largest differences are printed.

Coverage: from many small samples of one population, how often the interval of a sample holds the mean of the metric
over all samples. A 95 % interval should in 95 % of them.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from report import print_bound
from sklearn.metrics import average_precision_score, roc_auc_score

from audioset import metrics

N_CLIPS, N_CLASSES = 20_371, 527
PREVALENCE = (0.3, 0.003)  # of the first class, and the least
SEPARATION = 2.5
N_RUNS = 3
N_RESAMPLES = 1_000

SAMPLES, SAMPLE_CLIPS, SAMPLE_CLASSES, SAMPLE_RESAMPLES = 200, 10_000, 100, 300

BOUND_RATIO = 10
BOUND_DIFFERENCE = 1e-9

METHODS = {"centred": True, "plain percentiles": False}

Array = np.ndarray[Any, Any]


def draw(rng: np.random.Generator, n_clips: int, n_classes: int) -> tuple[Array, Array]:
    """Scores and targets of random clips."""
    highest, least = PREVALENCE
    prevalence = np.maximum(highest / np.arange(1, n_classes + 1), least)
    targets = rng.random((n_clips, n_classes)) < prevalence
    scores = rng.standard_normal(targets.shape, np.float32) + np.float32(SEPARATION) * targets
    return scores, targets


def scikit_learn(scores: Array, targets: Array) -> tuple[list[float], list[float]]:
    """AP and AUC of each class."""
    columns = list(zip(targets.T, scores.T, strict=True))
    return [average_precision_score(*column) for column in columns], [roc_auc_score(*column) for column in columns]


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def compare_speed(scores: Array, targets: Array) -> None:
    ours, theirs = [], []
    for _ in range(N_RUNS):
        seconds, (ap, auc) = timed(scikit_learn, scores, targets)
        theirs.append(seconds)
        seconds, result = timed(metrics.evaluate, scores, targets)
        ours.append(seconds)
    print(f"{N_CLIPS:,} clips, {N_CLASSES} classes, {targets.sum():,} labels; best of {N_RUNS} in turns")
    print(f"  scikit-learn, AP and AUC {min(theirs):.2f} s; all of evaluate() {min(ours):.3f} s")
    print_bound("scikit-learn / evaluate()", min(theirs) / min(ours), at_least=BOUND_RATIO, unit="x")
    for name, expected in (("ap", ap), ("auc", auc)):
        difference = float(np.abs(getattr(result.classes, name) - expected).max())
        print(f"  {name}: largest difference {difference:.1e}, {'met' if difference <= BOUND_DIFFERENCE else 'MISSED'}")


def measure_others(scores: Array, targets: Array) -> None:
    print(f"  evaluate_youtube8m(): {timed(metrics.evaluate_youtube8m, scores, targets)[0]:.3f} s")
    seconds, resamples = timed(partial(metrics.bootstrap, n_resamples=N_RESAMPLES), scores, targets)
    print(f"  bootstrap(), {N_RESAMPLES:,} resamples: {seconds:.2f} s")
    print(f"  mAP {metrics.evaluate(scores, targets).mean_ap:.4f}, 95 % intervals:", end="")
    for name, is_centred in METHODS.items():
        low, high = resamples.interval("mean_ap", is_centred=is_centred)
        print(f" {name} [{low:.4f}, {high:.4f}]", end="")
    print()
    tracemalloc.start()
    metrics.evaluate(scores, targets)
    print(f"  evaluate(), memory beside the arrays: {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB")
    tracemalloc.stop()


def measure_coverage() -> None:
    rng = np.random.default_rng(1)
    samples = [draw(rng, SAMPLE_CLIPS, SAMPLE_CLASSES) for _ in range(SAMPLES)]
    resamples = [metrics.bootstrap(*sample, n_resamples=SAMPLE_RESAMPLES, seed=i) for i, sample in enumerate(samples)]
    print(f"intervals of 95 %: {SAMPLES} samples of {SAMPLE_CLIPS:,} clips, {SAMPLE_CLASSES} classes")
    for name in ("mean_ap", "mean_auc"):
        truth = np.mean([getattr(metrics.evaluate(*sample), name) for sample in samples])
        for method, is_centred in METHODS.items():
            ends = np.array([part.interval(name, is_centred=is_centred) for part in resamples])
            coverage = np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
            print(f"  {name:8s} {method:18s} holds it in {coverage:.1%}")


def main() -> None:
    scores, targets = draw(np.random.default_rng(0), N_CLIPS, N_CLASSES)
    compare_speed(scores, targets)
    compare_speed(scores.astype(np.float64), targets)
    measure_others(scores, targets)
    measure_coverage()


if __name__ == "__main__":
    main()
