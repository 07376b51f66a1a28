"""Write a network as an ONNX graph: batch norms folded, any number of patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from audioset.networks.ops import AXES, KERAS_NAMES, TORCH_NAMES, Names, Network, Size, both, input_names

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
Shape = Sequence[str | int | None]  # of a value: a name or None stands for a size that is free

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.13
ONNX_AXES = {"height": 2, "width": 3, "channels": 1}


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

    Feature maps are stored as (patches, channels, height, width), as ONNX has them. A batch norm of channels
    is folded, in float64, into the convolution that it follows, so it costs nothing when the graph runs.
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
        groups: int = 1,
        bias: bool = False,
        padding: str = "same",
        names: Names = KERAS_NAMES,
    ) -> str:
        tensors = [self.weights[name] for name in names.layer(layer, bias=bias)]
        weight = tensors[0] if names.is_output_first else tensors[0].transpose(3, 2, 0, 1)
        offset = tensors[1] if bias else np.zeros(filters, np.float32)
        return self._conv(x, layer, weight, offset, stride, groups, padding)

    def conv1d(
        self,
        x: str,
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> str:
        weight, *biases = (self.weights[name] for name in TORCH_NAMES.layer(layer, bias=bias))
        offset = biases[0] if bias else np.zeros(filters, np.float32)
        return self._conv(x, layer, weight[:, :, None], offset, (1, stride), 1, "symmetric", (1, dilation))

    def depthwise_conv2d(self, x: str, layer: str, *, kernel: int, stride: int = 1) -> str:
        weight = self.weights[f"{layer}/depthwise_kernel"].transpose(2, 3, 0, 1)
        channels = len(weight)
        return self._conv(x, layer, weight, np.zeros(channels, np.float32), stride, channels, "same")

    def _conv(
        self,
        x: str,
        layer: str,
        weight: FloatArray,
        offset: FloatArray,
        stride: Size,
        groups: int,
        padding: str,
        dilation: tuple[int, int] = (1, 1),
    ) -> str:
        size = weight.shape[2:]
        ends = [(n - 1) // 2 * step for n, step in zip(size, dilation, strict=True)]
        # SAME_UPPER is TensorFlow's: the odd sample of padding goes at the end.
        pads: dict[str, Any] = {"pads": ends * 2} if padding == "symmetric" else {"auto_pad": "SAME_UPPER"}
        return self.node(
            "Conv",
            x,
            self.constant(f"{layer}/weight", weight),
            self.constant(f"{layer}/offset", offset),
            output=layer,
            kernel_shape=list(size),
            strides=list(both(stride)),
            dilations=list(dilation),
            group=groups,
            **pads,
        )

    def batch_norm(
        self,
        x: str,
        layer: str,
        *,
        epsilon: float,
        scale: bool = True,
        axis: str = "channels",
        names: Names = KERAS_NAMES,
    ) -> str:
        *gains, beta, mean, variance = (
            self.weights[name].astype(np.float64) for name in names.batch_norm(layer, scale=scale)
        )
        gain = np.prod(gains, axis=0) / np.sqrt(variance + epsilon)
        if axis != "channels" or f"{x}/weight" not in self.constants:
            return self._affine(x, layer, gain, beta - mean * gain, axis)
        weight, offset = self.constants[f"{x}/weight"], self.constants[f"{x}/offset"]
        self.constants[f"{x}/weight"] = (weight * gain[:, None, None, None]).astype(np.float32)
        self.constants[f"{x}/offset"] = ((offset - mean) * gain + beta).astype(np.float32)
        return x

    def _affine(self, x: str, layer: str, gain: Any, offset: Any, axis: str) -> str:
        """A map times a gain, plus an offset, for each place along an axis."""
        others = [number - 1 for number in _other_axes(axis)]  # of a constant without the axis of patches
        gain, offset = (np.expand_dims(value, others).astype(np.float32) for value in (gain, offset))
        scaled = self.node("Mul", x, self.constant(f"{layer}/gain", gain), output=f"{layer}/scaled")
        return self.node("Add", scaled, self.constant(f"{layer}/offset", offset), output=layer)

    def relu(self, x: str, limit: float | None = None) -> str:
        if limit is None:
            return self.node("Relu", x, output=f"{x}/relu")
        return self._clip(x, 0, limit, f"{x}/relu")

    def _clip(self, x: str, low: float, high: float, output: str) -> str:
        bounds = [self.constant(f"{output}/{bound}", np.array(bound, np.float32)) for bound in (low, high)]
        return self.node("Clip", x, *bounds, output=output)

    def hard_swish(self, x: str) -> str:
        return self.node("HardSwish", x, output=f"{x}/hard_swish")

    def sigmoid(self, x: str) -> str:
        return self.node("Sigmoid", x, output=f"{x}/sigmoid")

    def dropout(self, x: str, rate: float) -> str:
        return x

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y, output=f"{y}/sum")

    def scale(self, x: str, gains: str, axis: str) -> str:
        others = self.constant(f"{x}/axes", np.array(_other_axes(axis), np.int64))
        column = self.node("Unsqueeze", gains, others, output=f"{gains}/column")
        return self.node("Mul", x, column, output=f"{x}/scaled")

    def concatenate(self, x: str, y: str) -> str:
        return self.node("Concat", x, y, output=f"{y}/joined", axis=ONNX_AXES["channels"])

    def max_pool(self, x: str, *, size: Size, stride: Size, padding: str = "same") -> str:
        return self.node(
            "MaxPool",
            x,
            output=f"{x}/pool",
            kernel_shape=list(both(size)),
            strides=list(both(stride)),
            auto_pad={"same": "SAME_UPPER", "none": "VALID"}[padding],
        )

    def avg_pool(self, x: str, *, size: tuple[int, int], stride: Size, padding: str = "none") -> str:
        ends = [(n - 1) // 2 if padding == "symmetric" else 0 for n in size]
        return self.node(
            "AveragePool",
            x,
            output=f"{x}/mean_pool",
            kernel_shape=list(size),
            strides=list(both(stride)),
            pads=ends * 2,
            count_include_pad=1,
        )

    def spatial_mean(self, x: str) -> str:
        return self.axis_mean(x, "channels")

    def spatial_max(self, x: str) -> str:
        return self.node("ReduceMax", x, output=f"{x}/max", axes=_other_axes("channels"), keepdims=0)

    def width_mean(self, x: str) -> str:
        return self.node("ReduceMean", x, output=f"{x}/width_mean", axes=[ONNX_AXES["width"]], keepdims=1)

    def axis_mean(self, x: str, axis: str) -> str:
        return self.node("ReduceMean", x, output=f"{x}/mean", axes=_other_axes(axis), keepdims=0)

    def attention_mean(self, x: str, weights: str, limit: float) -> str:
        clipped = self._clip(weights, -limit, limit, f"{weights}/clipped")
        shares = self.node("Softmax", clipped, output=f"{weights}/shares", axis=ONNX_AXES["height"])
        shared = self.node("Mul", x, shares, output=f"{x}/shared")
        axes = self.constant(f"{x}/axes", np.array(_other_axes("channels"), np.int64))
        return self.node("ReduceSum", shared, axes, output=f"{x}/attention", keepdims=0)

    def transpose(self, x: str) -> str:
        return self.node("Transpose", x, output=f"{x}/transposed", perm=[0, 1, 3, 2])

    def spread(self, x: str, width: int) -> str:
        shape = self.constant(f"{x}/shape", np.array([0, -1, width, 0], np.int64))  # 0 keeps a length
        neighbours = self.node("Reshape", x, shape, output=f"{x}/neighbours")
        return self.node("Transpose", neighbours, output=f"{x}/spread", perm=[0, 1, 3, 2])

    def rows(self, x: str) -> str:
        width = self.constant(f"{x}/width", np.array([ONNX_AXES["width"]], np.int64))
        column = self.node("Squeeze", x, width, output=f"{x}/column")
        return self.node("Transpose", column, output=f"{x}/rows", perm=[0, 2, 1])

    def flatten(self, x: str) -> str:
        channels_last = self.node("Transpose", x, output=f"{x}/channels_last", perm=[0, 2, 3, 1])
        return self.node("Flatten", channels_last, output=f"{x}/flat")

    def dense(self, x: str, layer: str, units: int, *, names: Names = KERAS_NAMES) -> str:
        weight, offset = (self.constant(name, self.weights[name]) for name in names.layer(layer))
        return self.node("Gemm", x, weight, offset, output=layer, transB=int(names.is_output_first))

    def pointwise_dense(self, x: str, layer: str, units: int, *, names: Names = KERAS_NAMES) -> str:
        weight, offset = (self.weights[name] for name in names.layer(layer))
        weight = weight if names.is_output_first else weight.T
        return self._conv(x, layer, weight[:, :, None, None], offset, 1, 1, "symmetric")


def _other_axes(axis: str) -> list[int]:
    return sorted(ONNX_AXES[other] for other in AXES if other != axis)


def network_to_onnx(
    network: Network,
    weights: dict[str, FloatArray],
    patch_shape: tuple[int | None, int],
    arguments: dict[str, Any],
) -> bytes:
    """Serialised ONNX model of a network with its weights inside.

    Parameters
    ----------
    network : function over ``Ops``
    weights : dict of str to float32 ndarray
        Published names and layouts.
    patch_shape : (n_frames, n_mels) of one patch
        ``n_frames`` is None for a network that takes patches of any length.
    arguments : keyword arguments of the network

    Returns
    -------
    bytes
        Inputs ``patches`` (n_patches, n_frames, n_mels) and ``waveforms`` (n_patches, n_samples), as the network
        has them; outputs ``embeddings`` and, for a tagger, ``scores`` and ``framewise``. ``n_patches`` and
        ``n_samples`` are free, and ``n_frames`` where ``patch_shape`` says so.
    """
    ops = OnnxOps(weights)
    names = input_names(network)
    outputs = add_network(ops, {name: name for name in names}, network, arguments)
    n_frames, n_mels = patch_shape
    shapes: dict[str, Shape] = {
        "patches": ["n_patches", n_frames or "n_frames", n_mels],
        "waveforms": ["n_patches", "n_samples"],
    }
    return ops.to_bytes(network.__name__, {name: shapes[name] for name in names}, outputs)


def add_network(
    ops: OnnxOps, inputs: Mapping[str, str], network: Network, arguments: dict[str, Any]
) -> dict[str, Shape]:
    """Add a network to a graph.

    Parameters
    ----------
    ops : OnnxOps
        The graph, with the network's weights.
    inputs : mapping of str to str
        By the names of what the network sees: values (n_patches, n_frames, n_mels) and (n_patches, n_samples).
    network : function over ``Ops``
    arguments : keyword arguments of the network

    Returns
    -------
    dict of str to shape
        The values that the network made: ``embeddings`` and, for a tagger, ``scores`` and ``framewise``.
    """
    axes = {"patches": [ONNX_AXES["channels"]], "waveforms": [ONNX_AXES["channels"], ONNX_AXES["height"]]}
    maps = []
    for name in input_names(network):
        new_axes = ops.constant(f"{name}_axes", np.array(axes[name], np.int64))
        maps.append(ops.node("Unsqueeze", inputs[name], new_axes, output=f"{name}_map"))
    outputs = network(ops, *maps, **arguments)
    shapes: dict[str, Shape] = {
        "embeddings": ["n_patches", None],
        "scores": ["n_patches", None],
        "framewise": ["n_patches", None, None],
    }
    values = {name: getattr(outputs, name) for name in shapes if getattr(outputs, name) is not None}
    ops.rename({value: name for name, value in values.items()})
    return {name: shapes[name] for name in values}


def _float_values(shapes: Mapping[str, Shape]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
