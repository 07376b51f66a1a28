"""A small backbone, and a classifier of tones."""

from __future__ import annotations

import pytest
from tones import tones

from audioset.train.classifier.classifier import learn_classifier
from audioset.weights.model_folder import ModelCard, write_model_folder


@pytest.fixture(scope="module")
def backbone(random_weights, tmp_path_factory):
    """Folder of a small-scale YAMNet: random weights, which tell tones apart."""
    folder = tmp_path_factory.mktemp("backbone")
    card = ModelCard("yamnet", {"n_classes": 521}, "yamnet", "yamnet-521", "CC0-1.0", {"file": "random"})
    write_model_folder(folder, card, random_weights)
    return folder


@pytest.fixture(scope="module")
def learned(backbone, tmp_path_factory):
    """A classifier of tones."""
    return learn_classifier(tones(tmp_path_factory.mktemp("tones"), n=8), backbone)
