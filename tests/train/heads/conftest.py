"""Features, soft targets and settings of small runs."""

from __future__ import annotations

import numpy as np
import pytest
from head_runs import N_EVAL, N_TRAINING, make_clips

from audioset.dataset.features.folder import write
from audioset.train import TrainConfig


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "arrays"
    write(folder, [*make_clips(N_TRAINING, "bal_train", 0), *make_clips(N_EVAL, "eval", 1)])
    return folder


@pytest.fixture(scope="module")
def soft_targets(features, tmp_path_factory):
    path = tmp_path_factory.mktemp("targets") / "soft.npy"
    np.save(path, np.random.default_rng(0).random((N_TRAINING, 527), np.float32))
    return str(path)


@pytest.fixture
def config(features):
    return TrainConfig(
        features=str(features),
        eval_subset="eval",
        head="logistic",
        batch_size=16,
        n_iterations=6,
        learning_rate=0.01,
        eval_every=2,
        checkpoint_every=2,
        log_every=1,
        device="cpu",
    )
