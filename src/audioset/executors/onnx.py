"""Write a network as an ONNX graph: batch norms folded, any number of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from audioset.networks.ops import KERAS_NAMES, Network

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
Shape = Sequence[str | int | None]  # of a value: a name or None stands for a size that is free

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.13
INPUT = "patches"


class OnnxGraph:
    """A graph under construction: its nodes in order, and its constants by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}

    def node(self, kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        """Add an operation, and return the name of its result."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        """Add a constant, and return its name."""
        self.constants[name] = value
        return name

    def rename(self, names: Mapping[str, str]) -> None:
        """Give values, and the operations that make them, other names."""
        for node in self.nodes:
            node.name = names.get(node.name, node.name)
            for values in (node.input, node.output):
                for index, value in enumerate(values):
                    values[index] = names.get(value, value)

    def to_bytes(
        self,
        name: str,
        inputs: Mapping[str, Shape],
        outputs: Mapping[str, Shape],
        metadata: Mapping[str, str] | None = None,
    ) -> bytes:
        """Serialised model, checked, of float32 inputs and outputs with these names and shapes."""
        graph = helper.make_graph(
            self.nodes,
            name,
            _float_values(inputs),
            _float_values(outputs),
            [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in self.constants.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="audioset"
        )
        helper.set_model_props(model, dict(metadata or {}))
        data = bytes(model.SerializeToString())
        onnx.checker.check_model(data)
        return data


class OnnxOps(OnnxGraph):
    """Executor whose tensor is the name of a value in the graph it builds.

    Feature maps are stored as (patches, channels, height, width), as ONNX has them. A batch norm is
    folded, in float64, into the convolution that it follows, so it costs nothing when the graph runs.
    """

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        super().__init__()
        self.weights = weights

    def conv2d(
        self,
        x: str,
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        bias: bool = False,
        names: tuple[str, str] = KERAS_NAMES,
    ) -> str:
        weight = self.weights[f"{layer}/{names[0]}"].transpose(3, 2, 0, 1)
        offset = self.weights[f"{layer}/{names[1]}"] if bias else np.zeros(filters, np.float32)
        return self._conv(x, layer, weight, offset, kernel, stride, groups=1)

    def depthwise_conv2d(self, x: str, layer: str, *, kernel: int, stride: int = 1) -> str:
        weight = self.weights[f"{layer}/depthwise_kernel"].transpose(2, 3, 0, 1)
        channels = weight.shape[0]
        return self._conv(x, layer, weight, np.zeros(channels, np.float32), kernel, stride, groups=channels)

    def _conv(
        self, x: str, layer: str, weight: FloatArray, offset: FloatArray, kernel: int, stride: int, groups: int
    ) -> str:
        return self.node(
            "Conv",
            x,
            self.constant(f"{layer}/weight", weight),
            self.constant(f"{layer}/offset", offset),
            output=layer,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=groups,
            auto_pad="SAME_UPPER",  # TensorFlow's: the odd sample of padding goes at the end
        )

    def batch_norm(self, x: str, layer: str, *, epsilon: float, scale: bool = True) -> str:
        beta, mean, variance = (
            self.weights[f"{layer}/{name}"].astype(np.float64) for name in ("beta", "moving_mean", "moving_variance")
        )
        gain = 1 / np.sqrt(variance + epsilon)
        if scale:
            gain *= self.weights[f"{layer}/gamma"]
        weight, offset = self.constants[f"{x}/weight"], self.constants[f"{x}/offset"]
        self.constants[f"{x}/weight"] = (weight * gain[:, None, None, None]).astype(np.float32)
        self.constants[f"{x}/offset"] = ((offset - mean) * gain + beta).astype(np.float32)
        return x

    def relu(self, x: str) -> str:
        return self.node("Relu", x, output=f"{x}/relu")

    def max_pool(self, x: str, *, size: int, stride: int) -> str:
        return self.node(
            "MaxPool",
            x,
            output=f"{x}/pool",
            kernel_shape=[size, size],
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
        )

    def spatial_mean(self, x: str) -> str:
        return self.node("ReduceMean", x, output=f"{x}/mean", axes=[2, 3], keepdims=0)

    def flatten(self, x: str) -> str:
        channels_last = self.node("Transpose", x, output=f"{x}/channels_last", perm=[0, 2, 3, 1])
        return self.node("Flatten", channels_last, output=f"{x}/flat")

    def dense(self, x: str, layer: str, units: int, *, names: tuple[str, str] = KERAS_NAMES) -> str:
        weight, offset = (self.constant(f"{layer}/{name}", self.weights[f"{layer}/{name}"]) for name in names)
        return self.node("Gemm", x, weight, offset, output=layer)

    def sigmoid(self, x: str) -> str:
        return self.node("Sigmoid", x, output=f"{x}/sigmoid")


def network_to_onnx(
    network: Network,
    weights: dict[str, FloatArray],
    patch_shape: tuple[int, int],
    arguments: dict[str, Any],
) -> bytes:
    """Serialised ONNX model of a network with its weights inside.

    Parameters
    ----------
    network : function over ``Ops``
    weights : dict of str to float32 ndarray
        Published names and layouts.
    patch_shape : (n_frames, n_mels) of one patch
    arguments : keyword arguments of the network

    Returns
    -------
    bytes
        Input ``patches`` (n_patches, n_frames, n_mels); outputs ``embeddings`` and, for a tagger,
        ``scores``. ``n_patches`` is free.
    """
    ops = OnnxOps(weights)
    outputs = add_network(ops, INPUT, network, arguments)
    return ops.to_bytes(network.__name__, {INPUT: ["n_patches", *patch_shape]}, outputs)


def add_network(ops: OnnxOps, patches: str, network: Network, arguments: dict[str, Any]) -> dict[str, Shape]:
    """Add a network to a graph.

    Parameters
    ----------
    ops : OnnxOps
        The graph, with the network's weights.
    patches : str
        Value (n_patches, n_frames, n_mels) that the network reads.
    network : function over ``Ops``
    arguments : keyword arguments of the network

    Returns
    -------
    dict of str to shape
        The values that the network made: ``embeddings`` and, for a tagger, ``scores``.
    """
    channel_axis = ops.constant("channel_axis", np.array([1], np.int64))
    outputs = network(ops, ops.node("Unsqueeze", patches, channel_axis, output="map"), **arguments)
    results = {outputs.embeddings: "embeddings"}
    if outputs.scores is not None:
        results[outputs.scores] = "scores"
    ops.rename(results)
    return {name: ["n_patches", None] for name in results.values()}


def _float_values(shapes: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
