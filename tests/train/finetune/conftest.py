"""Sounds and settings of small runs."""

from __future__ import annotations

import pytest
from finetune_runs import KINDS, write_sounds

from audioset.train.finetune.config import FinetuneConfig


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("sounds"), dict.fromkeys(KINDS, 6))


@pytest.fixture
def config(backbone):
    return FinetuneConfig(
        backbone=str(backbone),
        n_epochs=4,
        head_epochs=1,
        unfreeze_epochs=2,
        batch_size=8,
        least_batches=1,
        holdout=0.2,
        n_threads=1,
        device="cpu",
    )
