"""Clips with scores and labels that the tests of evaluations and of their reports take."""

from __future__ import annotations

import numpy as np

from audioset import LabelSet
from audioset.evaluate import (
    EvaluationSettings,
    ScoreFile,
    Scores,
    Targets,
)

ALL = LabelSet.load("audioset-527")
FEW = ALL.select(range(6))
QUICK = EvaluationSettings(n_resamples=20)
HOSTILE = "<script>alert('1')</script>|`x`\n# [y](javascript:z) \u202e&amp;"


def clip_names(n, first=0):
    return tuple(f"clip{index:07d}_{index * 1000}_{index * 1000 + 10_000}" for index in range(first, first + n))


def random_pair(n=60, labels=FEW, seed=0, strength=1.5):
    """Targets, and scores that know something of them."""
    rng = np.random.default_rng(seed)
    values = rng.random((n, len(labels))) < 0.3
    logits = rng.normal(size=values.shape) + strength * values - 1
    names = clip_names(n)
    return Scores("model", names, labels, 1 / (1 + np.exp(-logits))), Targets(names, labels, values, "list.csv")


def system(name, scores, targets=None, keep=None):
    rows = np.arange(len(scores.clip_ids)) if keep is None else np.asarray(keep)
    chosen = Scores(name, tuple(scores.clip_ids[i] for i in rows), scores.labels, scores.values[rows])
    own = targets and Targets(chosen.clip_ids, targets.labels, targets.values[rows], name)
    return ScoreFile(chosen, own)
