"""VGG16 without its published weights: it begins from scratch, and says so."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from sounds import noise, sine, wav_bytes

from audioset import load_model
from audioset.errors import AssetError
from audioset.models.folders import load_weights
from audioset.sounds.reading import read_collection
from audioset.train.finetune.config import FinetuneConfig
from audioset.train.finetune.finetune import finetune
from audioset.train.finetune.scratch import prepare_or_draw
from audioset.weights.model_folder import WEIGHTS_NAME

RATE = 16_000
SMALL = {"hidden_size": 16}


@pytest.fixture(autouse=True)
def nothing_is_at_hand(tmp_path_factory, monkeypatch):
    """No weights here, none to be fetched, and a cache of its own."""
    monkeypatch.setenv("AUDIOSET_ASSETS", "")
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path_factory.mktemp("cache")))

    def fail(*_, **__):
        raise AssetError("there is no network")

    monkeypatch.setattr("audioset.assets.fetch", fail)


def test_drawn_weights_are_always_the_same_and_keep_the_size_of_values(caplog):
    card, folder = prepare_or_draw("vgg16", SMALL)
    assert "vgg16 begins from scratch" in caplog.text
    weights = load_weights(card, folder)
    stamp = (folder / WEIGHTS_NAME).stat().st_mtime_ns
    assert prepare_or_draw("vgg16", SMALL) == (card, folder)
    assert (folder / WEIGHTS_NAME).stat().st_mtime_ns == stamp
    kernel = weights["features.28.weight"]
    assert abs(kernel.std() * np.sqrt(kernel[0].size / 2) - 1) < 0.01
    assert not weights["features.28.bias"].any()


def test_other_networks_need_their_weights():
    with pytest.raises(AssetError, match="there is no network"):
        prepare_or_draw("cnn6")


def test_layers_above_a_named_one_are_trained(tmp_path, caplog):
    for name, make in (("tone", lambda i: sine(300 + 50 * i, RATE, 1.0)), ("hiss", lambda i: noise(RATE, seed=i))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "data" / name / f"{i}.wav").write_bytes(wav_bytes(make(i), RATE))
    config = FinetuneConfig(
        backbone="vgg16",
        backbone_arguments=SMALL,
        frozen_until="features.28",
        n_epochs=1,
        head_epochs=0,
        unfreeze_epochs=0,
        batch_size=3,
        least_batches=1,
        holdout=0.0,
        ema=0.0,
        device="cpu",
    )
    finetune(read_collection(tmp_path / "data"), config, tmp_path / "model")
    assert "begins from scratch" in caplog.text
    before = load_weights(*prepare_or_draw("vgg16", SMALL))
    after = load_file(tmp_path / "model" / WEIGHTS_NAME)
    assert np.array_equal(after["features.28.weight"], before["features.28.weight"])
    assert not np.array_equal(after["classifier.3.weight"], before["classifier.3.weight"])
    model = load_model(tmp_path / "model")
    assert model.labels.names == ("hiss", "tone")
    assert model.predict(sine(300, RATE, 1.0), RATE).scores.shape == (1, 2)
