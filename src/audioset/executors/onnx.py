"""Write a network as an ONNX graph: batch norms folded, any number of patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from audioset.networks.ops import Network

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.13
INPUT = "patches"


class OnnxOps:
    """Executor whose tensor is the name of a value in the graph it builds.

    Feature maps are stored as (patches, channels, height, width), as ONNX has them. A batch norm is
    folded, in float64, into the convolution that it follows, so it costs nothing when the graph runs.
    """

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}

    def node(self, kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray[Any, Any]) -> str:
        self.constants[name] = value
        return name

    def conv2d(self, x: str, layer: str, *, filters: int, kernel: int, stride: int = 1, bias: bool = False) -> str:
        weight = self.weights[f"{layer}/kernel"].transpose(3, 2, 0, 1)
        offset = self.weights[f"{layer}/bias"] if bias else np.zeros(filters, np.float32)
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

    def spatial_mean(self, x: str) -> str:
        return self.node("ReduceMean", x, output=f"{x}/mean", axes=[2, 3], keepdims=0)

    def dense(self, x: str, layer: str, units: int) -> str:
        kernel = self.constant(f"{layer}/kernel", self.weights[f"{layer}/kernel"])
        bias = self.constant(f"{layer}/bias", self.weights[f"{layer}/bias"])
        return self.node("Gemm", x, kernel, bias, output=layer)

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
    channel_axis = ops.constant("channel_axis", np.array([1], np.int64))
    outputs = network(ops, ops.node("Unsqueeze", INPUT, channel_axis, output="map"), **arguments)
    results = {outputs.embeddings: "embeddings"}
    if outputs.scores is not None:
        results[outputs.scores] = "scores"
    _rename(ops.nodes, results)
    graph = helper.make_graph(
        ops.nodes,
        network.__name__,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n_patches", *patch_shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n_patches", None]) for name in results.values()],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in ops.constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="audioset"
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _rename(nodes: list[onnx.NodeProto], names: dict[str, str]) -> None:
    """Give values of a graph other names, wherever they are written or read."""
    for node in nodes:
        for values in (node.input, node.output):
            for index, value in enumerate(values):
                values[index] = names.get(value, value)
