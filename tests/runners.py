"""A network in any executor, as one function of arrays."""

from __future__ import annotations

from pathlib import Path

from audioset.cache import Graph
from audioset.executors.onnx import network_to_onnx
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.networks.ops import Outputs, input_names


def make_runner(executor, network, weights, patch_shape, arguments, folder: Path):
    """A function from patches to ``Outputs`` of arrays."""
    if executor == "torch":
        return torch_runner(network, weights, arguments)
    if executor == "keras":
        return keras_runner(network, weights, patch_shape, arguments)
    graph = Graph(f"tests{folder}", lambda: network_to_onnx(network, weights, patch_shape, arguments))
    return {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}[executor](graph, "f32", 2)


def torch_runner(network, weights, arguments):
    import torch

    from audioset.executors.torch import network_to_torch

    module = network_to_torch(network, weights, arguments)

    def run(*examples):
        with torch.no_grad():
            return to_numpy(module(*map(torch.tensor, examples)))

    return run


def keras_runner(network, weights, patch_shape, arguments):
    from audioset.executors.keras import network_to_keras

    model = network_to_keras(network, weights, patch_shape, arguments)
    names = input_names(network)

    def run(*examples):
        feeds = examples[0] if len(names) == 1 else dict(zip(names, examples, strict=True))
        return Outputs(**model.predict(feeds, verbose=0))

    return run


def to_numpy(outputs):
    return Outputs(**{name: None if x is None else x.detach().numpy() for name, x in vars(outputs).items()})
