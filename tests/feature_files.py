"""Files of features that the tests of reading, forms and records make."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from feature_clips import CLIPS, key

from audioset.dataset.features import tfrecord as feature_tfrecord
from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.sequence_example import (
    bytes_feature,
    float_feature,
    int64_feature,
    message,
)

# Counted independently of this code, in the published shards.
LENGTHS = {
    "bal_train": {10: 21782, 9: 87, 7: 69, 8: 57, 6: 47, 4: 39, 5: 38, 3: 22, 2: 15, 1: 4},
    "eval": {10: 19976, 9: 90, 8: 78, 7: 77, 6: 64, 5: 33, 4: 19, 2: 17, 3: 15, 1: 2},
}
LISTS = {"bal_train": "balanced_train_segments.csv", "eval": "eval_segments.csv"}
OUTPUTS = {
    "parquet": "a.parquet",
    "hdf5": "a.h5",
    "arrays": "arrays",
    "tfrecord": "a.tar.gz",
    "folder": "shards",
    "file": "a.tfrecord",
    "youtube8m": "y.tar.gz",
}
WRITER_OF = {"folder": "tfrecord", "file": "tfrecord"}


def needs_extra(kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")


def same(a: FeatureClip, b: FeatureClip) -> bool:
    return key(a) == key(b)


def written(path: Path, clips: list[FeatureClip] = CLIPS) -> Path:
    feature_tfrecord.write(path, clips)
    return path


def entry(name: str, feature: bytes) -> bytes:
    return message(1, message(1, name.encode()) + message(2, feature))


CONTEXT = {
    "video_id": bytes_feature(b"--4gqARaEJE"),
    "start_time_seconds": float_feature(30.0),
    "end_time_seconds": float_feature(32.0),
    "labels": int64_feature((0, 74, 526)),
}
FRAMES = [bytes(range(128)), bytes(range(128, 256))]
LISTS_BYTES = message(2, entry("audio_embedding", b"".join(message(1, bytes_feature(frame)) for frame in FRAMES)))


def example(**changes: bytes | None) -> bytes:
    context = {name: feature for name, feature in {**CONTEXT, **changes}.items() if feature is not None}
    return message(1, b"".join(itertools.starmap(entry, context.items()))) + LISTS_BYTES
