"""Frameworks, weights and stored outputs for the tests of executors."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest
from oracle import PATCH_SHAPE, read_reference

from audioset.frontend.cutting import patches
from audioset.frontend.published import YAMNET
from audioset.networks.shapes import trace_shapes
from audioset.networks.yamnet import yamnet as yamnet_network
from audioset.weights.keras_h5 import read_keras_h5


@pytest.fixture(scope="session")
def torch():
    """PyTorch in one thread: its pool waits actively, which costs more than it gains on these few patches."""
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def published(request):
    """Weights of a network, by its name."""
    return lambda name: request.getfixturevalue(f"{name.partition('-')[0]}_weights")


@pytest.fixture(scope="session")
def expected(reference, assets_folder):
    """``expected("vggish")[clip]``: patches, and what the original makes of them."""
    stored = read_reference(assets_folder.parent / "reference" / "vggish_reference.npz")
    embedded = {clip: (case["log_mel"], case["embedding"]) for clip, case in stored.items() if len(case["log_mel"])}
    cases = {
        "yamnet": {
            clip: (np.array(patches(case["log_mel"], YAMNET)), case["embeddings"], case["scores"])
            for clip, case in reference.items()
        },
        "vggish": {clip: (examples, values, None) for clip, (examples, values) in embedded.items()},
        "vggish-relu": {clip: (examples, np.maximum(values, 0), None) for clip, (examples, values) in embedded.items()},
    }
    return cases.__getitem__


@pytest.fixture(scope="session")
def keras(tmp_path_factory, request):
    """Keras on PyTorch, unless KERAS_BACKEND names another; its configuration is kept out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        if os.environ["KERAS_BACKEND"] == "torch":
            request.getfixturevalue("torch")
        return pytest.importorskip("keras")


@pytest.fixture(scope="session")
def yamnet_weights(assets_folder):
    shapes, _ = trace_shapes(yamnet_network, PATCH_SHAPE, {})
    return read_keras_h5(assets_folder / "yamnet.h5", shapes)


@pytest.fixture(scope="session")
def vggish_weights(assets_folder):
    """The stand-ins with which the reference outputs were made."""
    path = assets_folder.parent / "reference" / "vggish_weights.py"
    if not path.is_file():
        pytest.skip(f"no stand-in weights: there is no {path}")
    spec = importlib.util.spec_from_file_location("vggish_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.weights(0)
