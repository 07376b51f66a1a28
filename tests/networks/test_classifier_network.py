"""Layers of one's own on a published network: the same in every engine, and no more than was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from audioset import load_model
from audioset.models.cards import network_shapes
from audioset.models.folders import load_weights, prepare_model
from audioset.models.published import find_model
from audioset.networks.classifier import BACKBONES, classifier
from audioset.networks.shapes import trace_shapes
from audioset.weights.model_folder import ModelCard, write_model_folder

SHAPES = {"yamnet": (96, 64), "vggish": (96, 64), "vgg16": (224, 224), "mobilenet": (100, 128)}


def make_folder(folder, name, **arguments):
    """A model folder with new layers on a published network, whose weights are drawn."""
    card, published = prepare_model(name)
    backbone_arguments = {key: value for key, value in card.arguments.items() if key != "n_classes"}
    made = ModelCard(
        "classifier",
        {"backbone": card.network, "backbone_arguments": backbone_arguments, "n_classes": 3, **arguments},
        card.frontend,
        ["owl", "fox", "rain"],
        card.licence,
        {},
    )
    rng, weights = np.random.default_rng(0), load_weights(card, published)
    drawn = {
        key: weights[key] if key in weights else rng.normal(0, 0.1, shape).astype(np.float32)
        for key, shape in network_shapes(made).items()
    }
    write_model_folder(folder, made, drawn)
    return drawn


@pytest.mark.parametrize("name", ["yamnet", "mn04"])
@pytest.mark.parametrize("arguments", [{}, {"hidden_size": 8, "activation": "sigmoid"}])
def test_every_engine_gives_the_scores_of_the_definition(name, arguments, tmp_path):
    weights = make_folder(tmp_path, name, **arguments)
    waveform = np.sin(np.arange(48_000) / 7).astype(np.float32)
    published = load_model(name).predict(waveform, 16_000)
    x = published.embeddings.astype(np.float64)
    if "hidden_size" in arguments:
        x = np.maximum(0, x @ weights["classifier/hidden/kernel"] + weights["classifier/hidden/bias"])
    logits = x @ weights["classifier/logits/kernel"] + weights["classifier/logits/bias"]
    powers = np.exp(logits)
    is_sigmoid = arguments.get("activation") == "sigmoid"
    expected = 1 / (1 + np.exp(-logits)) if is_sigmoid else powers / powers.sum(axis=1, keepdims=True)
    for engine in ("openvino", "onnxruntime", "torch"):
        found = load_model(tmp_path, engine=engine).predict(waveform, 16_000)
        assert np.abs(found.scores - expected).max() < 1e-5, engine
        assert np.abs(found.embeddings - published.embeddings).max() < 1e-4, engine
        assert found.labels.names == ("owl", "fox", "rain")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_is_stored_of_the_published_classes(backbone):
    shape = SHAPES.get(backbone, (320, 64))
    arguments = {"backbone_arguments": {"width": 0.4}} if backbone == "mobilenet" else {}
    shapes, outputs = trace_shapes(classifier, shape, {"backbone": backbone, "n_classes": 3, **arguments})
    assert outputs.scores == (3,)
    assert not {521, 527} & {size for name, value in shapes.items() if "classifier/" not in name for size in value}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet"}, "backbone is 'resnet'"),
        ({"activation": "tanh"}, "activation is 'tanh'; expected|'tanh'"),
    ],
)
def test_what_there_is_not_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        trace_shapes(classifier, (96, 64), arguments)


def test_a_network_that_decides_for_segments_needs_classes():
    with pytest.raises(TypeError, match="decision is 'max' and there are no classes to decide"):
        trace_shapes(
            classifier, (320, 64), {"backbone": "panns_cnn", "backbone_arguments": {"decision": "max"}, "n_classes": 2}
        )


def test_published_networks_still_have_their_classes():
    assert find_model("yamnet").n_parameters == 3_751_369
