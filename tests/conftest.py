"""What every test shares: no network, a cache of its own, the reference data, and models that compile once."""

from __future__ import annotations

import runpy
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from checkpoints import write_v1
from reference_data import ASSETS, YAMNET_SHAPES, Cases, keras_name, read_cases, reference_file

from audioset import Model, load_model
from audioset.errors import EngineError
from audioset.models.cards import NETWORKS
from audioset.networks.shapes import trace_shapes
from audioset.weights.model_folder import ModelCard, write_model_folder

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a process of tests died, which pytest-xdist does not."""
    if error:
        print(f"\n{node.gateway.id} ended with status {node.gateway._io.popen.wait(10)}")  # noqa: T201


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets reach this machine only."""
    connect = socket.socket.connect

    def connect_to_loopback(self: socket.socket, address: Any) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and address[0] not in LOOPBACK:
            raise AssertionError(f"a test opens a connection to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_loopback)


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One temporary cache for the whole run, so that each model compiles once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIOSET_CACHE", str(folder))
        patch.setenv("AUDIOSET_ASSETS", str(ASSETS))
        patch.delenv("AUDIOSET_OFFLINE", raising=False)
        yield folder


@pytest.fixture(scope="session")
def assets_folder() -> Path:
    """Folder of the published files."""
    if not (ASSETS / "yamnet.h5").is_file():
        pytest.skip(f"no reference weights: {ASSETS} has no yamnet.h5 (set AUDIOSET_ASSETS to a folder that has)")
    return ASSETS


@pytest.fixture(scope="session")
def reference() -> Cases:
    """Stored outputs of Google's YAMNet: ``reference["dog_975ms"]["scores"]``."""
    return read_cases("yamnet_reference.npz")


@pytest.fixture(scope="session")
def vggish_reference() -> Cases:
    """Stored outputs of Google's VGGish with the weights of ``vggish_weights``."""
    return read_cases("vggish_reference.npz")


@pytest.fixture(scope="session")
def vggish_weights() -> dict[str, np.ndarray]:
    """Eighteen tensors that stand for the published ones, under their names."""
    path = reference_file("vggish_weights.py")
    weights: dict[str, np.ndarray] = runpy.run_path(str(path))["weights"](0)
    return weights


@pytest.fixture(scope="session")
def vggish_folder(vggish_weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with these weights."""
    folder = tmp_path_factory.mktemp("vggish")
    write_model_folder(folder, ModelCard("vggish", {"activation": None}, "vggish", "", "CC0-1.0", {}), vggish_weights)
    return folder


@pytest.fixture(scope="session")
def vggish_assets(vggish_weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``AUDIOSET_ASSETS`` where the published files of VGGish would be, with these weights."""
    folder = tmp_path_factory.mktemp("assets")
    write_v1(folder / "vggish_model.ckpt", vggish_weights)
    shutil.copy(reference_file("vggish_pca_params_test.npz"), folder / "vggish_pca_params.npz")
    return folder


@pytest.fixture(scope="session")
def vggish(vggish_folder: Path) -> Model:
    """VGGish in float32 on OpenVINO."""
    return load_model(vggish_folder)


@pytest.fixture(scope="session")
def yamnet(assets_folder: Path) -> Model:
    """YAMNet with the reference weights, in float32 on OpenVINO."""
    return load_model("yamnet")


@pytest.fixture(scope="session")
def yamnet_onnxruntime(assets_folder: Path) -> Model:
    """The same on ONNX Runtime."""
    pytest.importorskip("onnxruntime")
    return load_model("yamnet", engine="onnxruntime")


@pytest.fixture(scope="session")
def yamnet_bf16(assets_folder: Path) -> Model:
    """The same on OpenVINO in bfloat16."""
    try:
        return load_model("yamnet", precision="bf16")
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def random_weights() -> dict[str, np.ndarray]:
    """Weights of YAMNet's shapes that keep its activations in a sensible range."""
    rng = np.random.default_rng(0)
    return {name: _random_tensor(rng, name, shape) for name, shape in YAMNET_SHAPES.items()}


@pytest.fixture(scope="session")
def random_checkpoint(random_weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random weights as a Keras file."""
    path = tmp_path_factory.mktemp("weights") / "random.h5"
    with h5py.File(path, "w") as file:
        for name, value in random_weights.items():
            file[keras_name(name)] = value
    return path


@pytest.fixture(scope="session")
def model(random_checkpoint: Path) -> Model:
    """YAMNet with random weights, for what does not depend on the published ones."""
    return load_model("yamnet", weights=random_checkpoint, n_threads=2)


def _random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("variance"):
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    if name.endswith(("bias", "beta", "mean")):
        return rng.normal(0, 0.1, shape).astype(np.float32)
    n_inputs = np.prod(shape[:2] if "depthwise" in name else shape[:-1])
    return rng.normal(0, np.sqrt(2 / n_inputs), shape).astype(np.float32)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MobileNet with weights of its own."""
    rng = np.random.default_rng(0)
    arguments = {"width": 0.1, "n_classes": 5}
    shapes, _ = trace_shapes(NETWORKS["mobilenet"], (None, 128), arguments)
    weights = {name: rng.normal(0, 0.5 / np.sqrt(np.prod(shape[1:])), shape) for name, shape in shapes.items()}
    weights |= {name: np.ones(shapes[name]) for name in shapes if name.endswith("running_var")}
    folder = tmp_path_factory.mktemp("backbone")
    card = ModelCard("mobilenet", arguments, "efficientat", list("abcde"), "none", {"is_published": False})
    write_model_folder(folder, card, {name: value.astype(np.float32) for name, value in weights.items()})
    return folder
