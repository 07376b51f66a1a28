"""The engines that run a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from audioset.arrays import FloatArray
from audioset.cache import Graph
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.models.cards import find_network
from audioset.models.folders import load_weights, prepare_graph
from audioset.networks.ops import Outputs
from audioset.weights.model_folder import ModelCard

PRECISIONS = ("f32", "bf16")


class Engine(Protocol):
    """A compiled network; up to ``n_threads`` threads may call it at once."""

    name: str
    n_threads: int

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """Run the network on what it sees: patches (n_patches, n_frames, n_mels), waveforms, or both."""
        ...


# Those that run a graph. PyTorch runs the network itself; see ``make_engine``.
ENGINES: dict[str, Callable[[Graph, str, int], Engine]] = {
    "openvino": OpenVinoEngine,
    "onnxruntime": OnnxRuntimeEngine,
}
ENGINE_NAMES = (*ENGINES, "torch")


def make_engine(name: str, card: ModelCard, folder: Path, precision: str, n_threads: int) -> Engine:
    """An engine with a model's network, ready to run.

    EngineError or MissingExtraError where the engine or the precision is not available here.
    """
    if name in ENGINES:
        return ENGINES[name](prepare_graph(card, folder), precision, n_threads)
    from audioset.executors.torch import TorchEngine

    return TorchEngine(find_network(card), load_weights(card, folder), card.arguments, precision, n_threads)
