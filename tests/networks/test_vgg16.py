"""VGG16 on log-mel pictures, against PyTorch's own layers and from the published kinds of files."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from sounds import noise
from torch import nn

from audioset.cache import Graph
from audioset.errors import WeightsError
from audioset.executors.onnx import network_to_onnx
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.executors.torch import network_to_torch
from audioset.frontend.log_mel import log_mel
from audioset.frontend.mel import mel_weights
from audioset.frontend.published import VGG16
from audioset.models.cards import NETWORKS
from audioset.models.published import MODELS
from audioset.networks.shapes import trace_shapes
from audioset.networks.vgg16 import BLOCKS, NORMALISATIONS, vgg16
from audioset.weights.vgg16_files import KERAS_LAYERS, read_vgg16_keras, read_vgg16_torch

HIDDEN = 16
ARGUMENTS = {"hidden_size": HIDDEN}
SHAPES, OUTPUT_SHAPES = trace_shapes(vgg16, (224, 224), ARGUMENTS)


class Original(nn.Module):
    """torchvision's network, written with PyTorch's modules: the same names, order and layouts."""

    def __init__(self) -> None:
        super().__init__()
        layers, n_in = [], 3
        for filters, places in BLOCKS:
            for _ in places:
                layers += [nn.Conv2d(n_in, filters, 3, padding=1), nn.ReLU()]
                n_in = filters
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, HIDDEN),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(HIDDEN, 1000),
        )

    def embed(self, pictures):
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        grey = torch.tensor(pictures).clamp(0, 1).transpose(1, 2)[:, None]
        normalised = (grey - mean[:, None, None]) / deviation[:, None, None]
        return self.classifier[:5](self.features(normalised).flatten(1))


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    module = Original()
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # so that values keep their size, as in training
    module.eval()
    return module


@pytest.fixture(scope="module")
def checkpoint(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg16") / "vgg16.pth"
    torch.save(original.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.fixture(scope="module")
def weights(checkpoint):
    return read_vgg16_torch(checkpoint, SHAPES)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(-0.2, 1.2, (2, 224, 224)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(original, pictures):
    with torch.no_grad():
        return original.embed(pictures).numpy()


def distance(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_the_names_of_the_parameters_are_those_of_the_published_file(original):
    published = {name: tuple(value.shape) for name, value in original.state_dict().items()}
    assert {name: shape for name, shape in published.items() if not name.startswith("classifier.6")} == SHAPES
    assert OUTPUT_SHAPES.embeddings == (HIDDEN,)


def test_pytorch_gives_the_embeddings_of_the_original(weights, pictures, expected):
    with torch.no_grad():
        found = network_to_torch(vgg16, weights, ARGUMENTS)(torch.tensor(pictures)).embeddings.numpy()
    assert distance(found, expected) < 5e-6


@pytest.mark.parametrize("engine", [OpenVinoEngine, OnnxRuntimeEngine])
def test_graphs_give_the_embeddings_of_the_original(engine, weights, pictures, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    graph = Graph("vgg16", lambda: network_to_onnx(vgg16, weights, (224, 224), ARGUMENTS))
    assert distance(engine(graph, "f32", 2)(pictures).embeddings, expected) < 5e-6


def keras_file(path, state, *, is_new):
    """The same weights as Keras stores them: outputs last, and a map with its channels last."""
    with h5py.File(path, "w") as file:
        file.create_group("block1_pool")
        for name, value in state.items():
            layer, _, kind = name.rpartition(".")
            array = value.numpy()
            if name == "classifier.0.weight":
                array = array.reshape(HIDDEN, 512, 7, 7).transpose(0, 2, 3, 1).reshape(HIDDEN, -1)
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            keras = KERAS_LAYERS[layer]
            new = f"{keras}/{keras}/{'kernel' if kind == 'weight' else 'bias'}:0"
            old = f"{keras}/{keras}_{'W' if kind == 'weight' else 'b'}_1:0"
            file[new if is_new else old] = array


@pytest.mark.parametrize("is_new", [True, False])
def test_a_keras_file_gives_the_same_weights(is_new, original, weights, tmp_path):
    keras_file(tmp_path / "vgg16.h5", original.state_dict(), is_new=is_new)
    found = read_vgg16_keras(tmp_path / "vgg16.h5", SHAPES)
    assert list(found) == list(weights)
    for name, value in weights.items():
        assert np.array_equal(found[name], value), name


def test_another_keras_file_is_refused_by_the_name_of_a_missing_tensor(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["conv1/conv1/kernel:0"] = np.zeros((3, 3, 3, 64), np.float32)
    with pytest.raises(WeightsError, match="has no tensor 'block1_conv1/kernel'"):
        read_vgg16_keras(tmp_path / "other.h5", SHAPES)


def test_a_damaged_torch_file_is_refused(checkpoint, tmp_path):
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:10_000])
    with pytest.raises(WeightsError, match=r"cut\.pth"):
        read_vgg16_torch(tmp_path / "cut.pth", SHAPES)


def test_keras_normalises_to_bytes_without_means():
    channels = NORMALISATIONS["keras"]
    assert [gain * 1.0 + offset for gain, offset in channels] == [255 - 103.939, 255 - 116.779, 255 - 123.68]


def test_another_normalisation_is_refused():
    with pytest.raises(TypeError, match="normalisation is 'caffe'; expected one of torchvision, keras"):
        trace_shapes(vgg16, (224, 224), {"normalisation": "caffe"})


def test_with_classes_it_has_scores():
    shapes, outputs = trace_shapes(vgg16, (224, 224), {"n_classes": 10})
    assert shapes["classifier.6.weight"] == (10, 4096)
    assert outputs.scores == (10,)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_keras"])
def test_the_published_models_have_the_published_size(name):
    assert MODELS[name].n_parameters == 134_260_544  # 138,357,544 without the layer of a thousand photographs
    assert NETWORKS[MODELS[name].network] is vgg16


def test_a_picture_is_as_large_as_a_photograph_and_within_its_range():
    picture = log_mel(0.2 * noise(VGG16.samples(224)), VGG16)
    assert picture.shape == (224, 224)
    assert picture.min() > 0
    assert picture.max() < 1


def test_every_band_has_a_bin():
    assert (mel_weights(VGG16).max(axis=0) > 0).all()
