"""Write a network as an ONNX graph: batch norms folded, any number of patches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from audioset.arrays import Array, FloatArray
from audioset.networks.ops import (
    AXES,
    KERAS_NAMES,
    BatchNorm,
    Convolution,
    Names,
    Network,
    Ops,
    Size,
    both,
    input_names,
)

Shape = Sequence[str | int | None]  # of a value: a name or None stands for a size that is free

OPSET = 17
IR_VERSION = 8  # read by every ONNX Runtime since 1.13
ONNX_AXES = {"height": 2, "width": 3, "channels": 1}
NEW_AXES = {  # that make a map of an input, and of embeddings whose seconds come last
    "patches": ["channels"],
    "waveforms": ["channels", "height"],
    "embeddings": ["width"],
    "mask": ["channels", "width"],
}
INPUT_NAMES = {"embeddings": "input_embeddings"}  # where a network's outputs have the plain name


class OnnxGraph:
    """A graph under construction: its nodes in order, and its constants by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.uses: Counter[str] = Counter()

    def node(self, kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        """Add an operation, and return the name of its result, which a layer that is used twice gets a number for."""
        self.uses[output] += 1
        output = output if self.uses[output] == 1 else f"{output}/{self.uses[output]}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
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


class OnnxOps(OnnxGraph, Ops[str]):
    """Executor whose tensor is the name of a value in the graph it builds.

    Feature maps are stored as (patches, channels, height, width), as ONNX has them. A batch norm of channels
    is folded, in float64, into the convolution that it follows, so it costs nothing when the graph runs.
    """

    def __init__(self, weights: dict[str, FloatArray]) -> None:
        super().__init__()
        self.weights = weights

    def convolve(self, x: str, convolution: Convolution) -> str:
        layer, (weight, *biases) = convolution.layer, (self.weights[name] for name in convolution.tensors)
        weight = weight.transpose(convolution.names.kernel_order)
        while weight.ndim < 4:  # of one axis, or of one place
            weight = weight[:, :, None]
        offset = biases[0] if convolution.bias else np.zeros(len(weight), np.float32)
        # SAME_UPPER is TensorFlow's: the odd sample of padding goes at the end.
        is_same = convolution.padding == "same"
        padding: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if is_same else {"pads": convolution.symmetric_ends * 2}
        return self.node(
            "Conv",
            x,
            self.constant(f"{layer}/weight", weight),
            self.constant(f"{layer}/offset", offset),
            output=layer,
            kernel_shape=convolution.size,
            strides=convolution.stride,
            dilations=convolution.dilation,
            group=convolution.groups or len(weight),
            **padding,
        )

    def normalise(self, x: str, norm: BatchNorm) -> str:
        *gains, beta, mean, variance = (self.weights[name].astype(np.float64) for name in norm.tensors)
        gain = np.prod(gains, axis=0) / np.sqrt(variance + norm.epsilon)
        if norm.axis != "channels" or f"{x}/weight" not in self.constants:
            return self._affine(x, norm.layer, gain, beta - mean * gain, norm.axis)
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

    def softmax(self, x: str) -> str:
        return self.node("Softmax", x, output=f"{x}/softmax", axis=ONNX_AXES["channels"])

    def clip(self, x: str, low: float, high: float) -> str:
        return self._clip(x, low, high, f"{x}/clip")

    def affine(self, x: str, gain: float, offset: float) -> str:
        layer = f"{x}/affine {gain} {offset}"  # constants have the layer's name, and a map may have several
        return self._affine(x, layer, np.full(1, gain), np.full(1, offset), "channels")

    def sqrt(self, x: str) -> str:
        return self.node("Sqrt", x, output=f"{x}/sqrt")

    def l2_normalize(self, x: str, epsilon: float) -> str:
        length = self.node("ReduceL2", x, output=f"{x}/length", axes=[ONNX_AXES["channels"]], keepdims=1)
        shortest = self.constant(f"{x}/shortest", np.array(epsilon, np.float32))
        return self.node("Div", x, self.node("Max", length, shortest, output=f"{x}/divisor"), output=f"{x}/normalized")

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y, output=f"{y}/sum")

    def multiply(self, x: str, y: str) -> str:
        return self.node("Mul", x, y, output=f"{x}/product")

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

    def spatial_max(self, x: str) -> str:
        return self.node("ReduceMax", x, output=f"{x}/max", axes=_other_axes("channels"), keepdims=0)

    def width_mean(self, x: str) -> str:
        return self.node("ReduceMean", x, output=f"{x}/width_mean", axes=[ONNX_AXES["width"]], keepdims=1)

    def height_mean(self, x: str, weights: str | None = None) -> str:
        height = ONNX_AXES["height"]
        if weights is None:
            return self.node("ReduceMean", x, output=f"{x}/height_mean", axes=[height], keepdims=1)
        axes = self.constant(f"{x}/height", np.array([height], np.int64))
        total = self.node("ReduceSum", weights, axes, output=f"{weights}/total", keepdims=1)
        shares = self.node("Div", weights, total, output=f"{weights}/shares")
        shared = self.node("Mul", x, shares, output=f"{x}/shared")
        return self.node("ReduceSum", shared, axes, output=f"{x}/height_mean", keepdims=1)

    def height_max(self, x: str) -> str:
        return self.node("ReduceMax", x, output=f"{x}/height_max", axes=[ONNX_AXES["height"]], keepdims=1)

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

    def dense(self, x: str, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> str:
        tensors = [self.constant(name, self.weights[name]) for name in names.layer(layer, bias=bias)]
        return self.node("Gemm", x, *tensors, output=layer, transB=int(names.is_output_first))

    def mixture(self, gates: str, experts: str, n_experts: int) -> str:
        of_classes = [
            self._reshape(gates, [0, -1, n_experts + 1], f"{gates}/of_classes"),
            self._reshape(experts, [0, -1, n_experts], f"{experts}/of_classes"),
        ]
        shares = self.node("Softmax", of_classes[0], output=f"{gates}/shares", axis=2)
        ends = [self.constant(f"{gates}/{name}", np.array([n], np.int64)) for name, n in (("start", 0), ("end", -1))]
        axis = self.constant(f"{gates}/axis", np.array([2], np.int64))
        real = self.node("Slice", shares, *ends, axis, output=f"{gates}/real_shares")
        shared = self.node("Mul", real, of_classes[1], output=f"{experts}/shared")
        return self.node("ReduceSum", shared, axis, output=f"{experts}/mixture", keepdims=0)

    def _reshape(self, x: str, shape: Sequence[int], output: str) -> str:
        """With 0 for a length that stays."""
        return self.node("Reshape", x, self.constant(f"{output}/shape", np.array(shape, np.int64)), output=output)

    def lstm(self, x: str, mask: str | None, layers: Sequence[str], units: int, forget_bias: float) -> str:
        rows = self.node("Transpose", self.rows(x), output=f"{x}/sequence", perm=[1, 0, 2])
        directions = self.constant(f"{x}/directions", np.array([1], np.int64))
        for layer in layers:
            tensors = self._lstm_weights(layer, units, forget_bias)
            # Without lengths, which OpenVINO does not heed: what comes after the last row is not used.
            outputs = self.node("LSTM", rows, *tensors, output=layer, hidden_size=units)
            rows = self.node("Squeeze", outputs, directions, output=f"{layer}/rows")
        if mask is None:
            last = self.node("Gather", rows, self.constant(f"{x}/place", np.array([-1])), output=f"{x}/last", axis=0)
            return self.node("Squeeze", last, self.constant(f"{x}/time", np.array([0])), output=f"{x}/lstm")
        axes = self.constant(f"{x}/axes", np.array([ONNX_AXES["height"], ONNX_AXES["width"]], np.int64))
        lengths = self.node("ReduceSum", mask, axes, output=f"{mask}/lengths", keepdims=0)
        whole = self.node("Cast", lengths, output=f"{mask}/whole_lengths", to=TensorProto.INT64)
        last = self.node("Sub", whole, self.constant(f"{x}/one", np.array(1)), output=f"{mask}/last")
        maps = self.node("Transpose", rows, output=f"{x}/maps", perm=[1, 0, 2])
        return self.node("GatherND", maps, last, output=f"{x}/lstm", batch_dims=1)

    def _lstm_weights(self, layer: str, units: int, forget_bias: float) -> list[str]:
        """Names of a layer's weights in ONNX's layout: gates of inputs, outputs and forgetting, then candidates."""
        order = [0, 3, 2, 1]
        kernel = self.weights[f"{layer}/kernel"].reshape(-1, 4, units)[:, order].reshape(-1, 4 * units).T
        bias = self.weights[f"{layer}/bias"].reshape(4, units)[order]
        bias[2] += forget_bias
        n_in = kernel.shape[1] - units
        both_biases = np.concatenate([bias.reshape(-1), np.zeros(4 * units, np.float32)])
        values = {"inputs": kernel[:, :n_in], "recurrence": kernel[:, n_in:], "offsets": both_biases}
        return [self.constant(f"{layer}/{name}", value[None]) for name, value in values.items()]


def _other_axes(axis: str) -> list[int]:
    return sorted(ONNX_AXES[other] for other in AXES if other != axis)


def network_to_onnx(
    network: Network,
    weights: dict[str, FloatArray],  # published names and layouts, float32
    patch_shape: tuple[int | None, int],  # (n_frames, n_mels) or (n_seconds, embedding_size); first None: any length
    arguments: dict[str, Any],  # of the network
) -> bytes:
    """Serialised ONNX model of a network with its weights inside.

    Inputs ``patches`` (n_patches, n_frames, n_mels) and ``waveforms`` (n_patches, n_samples), as the network has them,
    or ``input_embeddings`` (n_patches, n_seconds, embedding_size) and ``mask`` (n_patches, n_seconds); outputs
    ``embeddings`` and, for a tagger, ``scores`` and ``framewise``. ``n_patches`` and ``n_samples`` are free, and
    ``n_frames`` or ``n_seconds`` where ``patch_shape`` says so.
    """
    ops = OnnxOps(weights)
    names = {name: INPUT_NAMES.get(name, name) for name in input_names(network)}
    outputs = add_network(ops, names, network, arguments)
    n_rows, n_columns = patch_shape
    shapes: dict[str, Shape] = {
        "patches": ["n_patches", n_rows or "n_frames", n_columns],
        "waveforms": ["n_patches", "n_samples"],
        "embeddings": ["n_patches", n_rows or "n_seconds", n_columns],
        "mask": ["n_patches", n_rows or "n_seconds"],
    }
    return ops.to_bytes(network.__name__, {name: shapes[key] for key, name in names.items()}, outputs)


def add_network(
    ops: OnnxOps, inputs: Mapping[str, str], network: Network, arguments: dict[str, Any]
) -> dict[str, Shape]:
    """Add a network to a graph that has its weights, and return the shapes of the values that it made, by name.

    ``inputs`` are values by the names of what the network sees: (n_patches, n_frames, n_mels) and (n_patches,
    n_samples), or (n_patches, n_seconds, embedding_size) and (n_patches, n_seconds). It makes ``embeddings`` and, for a
    tagger, ``scores`` and ``framewise``.
    """
    maps = []
    for name in input_names(network):
        seen = inputs[name]
        if name == "embeddings":
            seen = ops.node("Transpose", seen, output=f"{name}_columns", perm=[0, 2, 1])
        new_axes = ops.constant(f"{name}_axes", np.array([ONNX_AXES[axis] for axis in NEW_AXES[name]], np.int64))
        maps.append(ops.node("Unsqueeze", seen, new_axes, output=f"{name}_map"))
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
