"""Features to train heads on, and what runs of heads leave."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import load_file

from audioset.dataset.features.clips import FeatureClip
from audioset.weights.model_folder import WEIGHTS_NAME

N_TRAINING, N_EVAL, N_PRESENT = 60, 24, 6


def make_clips(n_clips, subset, seed):
    """Clips whose first numbers say their labels; some are short."""
    rng = np.random.default_rng(seed)
    for i in range(n_clips):
        labels = {i % N_PRESENT, int(rng.integers(N_PRESENT))}
        embeddings = rng.integers(0, 256, (10 if i % 9 else 4, 128)).astype(np.uint8)
        embeddings[:, sorted(labels)] = 250
        yield FeatureClip(f"{subset}{i:07d}", 0.0, 10.0, tuple(sorted(labels)), embeddings, subset)


def weights_of(folder):
    return load_file(folder / WEIGHTS_NAME)


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("elapsed_s", "core_s")} for line in lines]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(iteration):
    def on_line(line):
        if line["iteration"] == iteration:
            raise Killed("killed")

    return on_line
