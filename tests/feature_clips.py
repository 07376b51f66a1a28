"""Clips of features that the tests of all formats write and read."""

from __future__ import annotations

from typing import Any

import numpy as np

from audioset.dataset.features.clips import FeatureClip


def clip(video_id: str = "--4gqARaEJE", n_seconds: int = 10, subset: str | None = "eval", seed: int = 0) -> FeatureClip:
    embeddings = np.random.default_rng(seed).integers(0, 256, (n_seconds, 128), np.uint8)
    return FeatureClip(video_id, 30.0, 30.0 + n_seconds, (0, 74, 526), embeddings, subset)


CLIPS = [clip(seed=1), clip("-0abcdefghi", 3, "bal_train", 2), clip("aBcdefghijk", 1, "bal_train", 3)]


def key(each: FeatureClip) -> tuple[Any, ...]:
    frames = each.embeddings
    assert frames.dtype == np.uint8
    return (each.video_id, each.start_s, each.end_s, each.labels, frames.shape, frames.tobytes(), each.subset)
