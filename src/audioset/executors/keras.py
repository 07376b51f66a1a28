"""Write a network as a Keras 3 model (an extra), on any of its backends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from audioset.arrays import FloatArray
from audioset.errors import EngineError, MissingExtraError
from audioset.networks.ops import (
    AXES,
    KERAS_NAMES,
    ROW_NAMES,
    BatchNorm,
    Convolution,
    Names,
    Network,
    Ops,
    Size,
    both,
    input_names,
)

try:
    import keras
except ImportError as error:
    if error.name == "keras":
        raise MissingExtraError("the Keras executor", "keras", "keras") from error
    raise EngineError(
        f"Keras is installed, but its backend is not: {error}. Next step: install that backend, or set the "
        "environment variable KERAS_BACKEND to one that is here (torch, jax, tensorflow)"
    ) from error
from keras import layers

MAPS = "channels_last"


class KerasOps(Ops[Any]):
    """Executor whose tensor is a symbolic one of the functional model that it builds.

    A layer is named as published, with ``_`` for ``/`` and ``.``; one without weights, by its kind and a number.
    """

    def __init__(self, weights: Mapping[str, FloatArray]) -> None:
        self.weights = weights
        self.counts: Counter[str] = Counter()
        self.layers: dict[str, Any] = {}

    def named(
        self,
        x: Any,
        make: Any,
        layer: str,
        values: Sequence[FloatArray],
        seen: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Apply a layer, which has its published weights, in Keras's order; ``seen`` is what it sees beside ``x``."""
        if layer in self.layers:
            return self.layers[layer](x, **(seen or {}))
        self.layers[layer] = keras_layer = make(name=layer.replace("/", "_").replace(".", "_"), **options)
        y = keras_layer(x, **(seen or {}))
        keras_layer.set_weights(values)
        return y

    def numbered(self, x: Any, make: Any, kind: str, *values: Any, **options: Any) -> Any:
        """Apply a layer without weights."""
        self.counts[kind] += 1
        return make(*values, name=f"{kind}_{self.counts[kind]}", **options)(x)

    def convolve(self, x: Any, convolution: Convolution) -> Any:
        layer, (weight, *biases) = convolution.layer, (self.weights[name] for name in convolution.tensors)
        weight = weight.transpose(convolution.names.kernel_order)
        weight = (weight if weight.ndim == 4 else weight[:, :, None]).transpose(2, 3, 1, 0)
        # Of a square kernel and a stride of 1, both paddings are the same.
        is_padded = convolution.padding == "symmetric" and (
            convolution.names is ROW_NAMES or convolution.stride > (1, 1)
        )
        if is_padded and convolution.size != (1, 1):
            x = self.numbered(x, layers.ZeroPadding2D, "padding", convolution.symmetric_ends, data_format=MAPS)
        options: dict[str, Any] = {
            "kernel_size": convolution.size,
            "strides": convolution.stride,
            "dilation_rate": convolution.dilation,
            "padding": "valid" if is_padded else "same",
            "data_format": MAPS,
            "use_bias": convolution.bias,
        }
        if convolution.groups is None or convolution.groups == convolution.filters == x.shape[-1] > 1:
            values = [weight.transpose(0, 1, 3, 2), *biases]
            return self.named(x, layers.DepthwiseConv2D, layer, values, **options)
        options |= {"filters": convolution.filters, "groups": convolution.groups}
        return self.named(x, layers.Conv2D, layer, [weight, *biases], **options)

    def normalise(self, x: Any, norm: BatchNorm) -> Any:
        values = [self.weights[name] for name in norm.tensors]
        options: dict[str, Any] = {"momentum": norm.momentum, "epsilon": norm.epsilon, "scale": norm.scale}
        place = AXES.index(norm.axis) - len(AXES)
        return self.named(x, layers.BatchNormalization, norm.layer, values, axis=place, **options)

    def relu(self, x: Any, limit: float | None = None) -> Any:
        return self.numbered(x, layers.ReLU, "relu", limit)

    def hard_swish(self, x: Any) -> Any:
        return self.numbered(x, layers.Activation, "hard_swish", "hard_swish")

    def sigmoid(self, x: Any) -> Any:
        return self.numbered(x, layers.Activation, "sigmoid", "sigmoid")

    def softmax(self, x: Any) -> Any:
        return self.numbered(x, layers.Softmax, "softmax", axis=-1)

    def clip(self, x: Any, low: float, high: float) -> Any:
        return keras.ops.clip(x, low, high)

    def affine(self, x: Any, gain: float, offset: float) -> Any:
        return self.numbered(x, layers.Rescaling, "affine", gain, offset)

    def sqrt(self, x: Any) -> Any:
        return keras.ops.sqrt(x)

    def l2_normalize(self, x: Any, epsilon: float) -> Any:
        length = keras.ops.sqrt(keras.ops.sum(keras.ops.square(x), axis=-1, keepdims=True))
        return x / keras.ops.maximum(length, epsilon)

    def dropout(self, x: Any, rate: float) -> Any:
        return self.numbered(x, layers.Dropout, "dropout", rate)

    def add(self, x: Any, y: Any) -> Any:
        return self.numbered([x, y], layers.Add, "add")

    def multiply(self, x: Any, y: Any) -> Any:
        return self.numbered([x, y], layers.Multiply, "product")  # Keras names its own operations multiply_1, ...

    def scale(self, x: Any, gains: Any, axis: str) -> Any:
        shape = [gains.shape[-1] if name == axis else 1 for name in AXES]
        return self.numbered([x, self.numbered(gains, layers.Reshape, "gains", shape)], layers.Multiply, "scale")

    def concatenate(self, x: Any, y: Any) -> Any:
        return self.numbered([x, y], layers.Concatenate, "concatenate")

    def max_pool(self, x: Any, *, size: Size, stride: Size, padding: str = "same") -> Any:
        options = {"strides": stride, "padding": {"same": "same", "none": "valid"}[padding], "data_format": MAPS}
        return self.numbered(x, layers.MaxPooling2D, "max_pool", both(size), **options)

    def spatial_mean(self, x: Any) -> Any:
        return self.numbered(x, layers.GlobalAveragePooling2D, "spatial_mean", data_format=MAPS)

    def avg_pool(self, x: Any, *, size: tuple[int, int], stride: Size, padding: str = "none") -> Any:
        if padding == "symmetric":  # Keras's own padding does not count in the mean
            ends = tuple((n - 1) // 2 for n in size)
            x = self.numbered(x, layers.ZeroPadding2D, "padding", ends, data_format=MAPS)
        return self.numbered(x, layers.AveragePooling2D, "avg_pool", size, strides=stride, data_format=MAPS)

    def spatial_max(self, x: Any) -> Any:
        return self.numbered(x, layers.GlobalMaxPooling2D, "spatial_max", data_format=MAPS)

    def width_mean(self, x: Any) -> Any:
        return self.avg_pool(x, size=(1, x.shape[2]), stride=1)

    def height_mean(self, x: Any, weights: Any = None) -> Any:
        if weights is None:
            return keras.ops.mean(x, axis=1, keepdims=True)
        shares = weights / keras.ops.sum(weights, axis=1, keepdims=True)
        return keras.ops.sum(x * shares, axis=1, keepdims=True)

    def height_max(self, x: Any) -> Any:
        return keras.ops.max(x, axis=1, keepdims=True)

    def axis_mean(self, x: Any, axis: str) -> Any:
        order = [number for number, name in enumerate(AXES, start=1) if name != axis]
        return self.spatial_mean(self.numbered(x, layers.Permute, "permute", (*order, 1 + AXES.index(axis))))

    def attention_mean(self, x: Any, weights: Any, limit: float) -> Any:
        shares = keras.ops.softmax(keras.ops.clip(weights, -limit, limit), axis=1)
        return keras.ops.sum(x * shares, axis=(1, 2))

    def transpose(self, x: Any) -> Any:
        return self.numbered(x, layers.Permute, "permute", (2, 1, 3))

    def spread(self, x: Any, width: int) -> Any:
        neighbours = self.numbered(x, layers.Reshape, "neighbours", (-1, x.shape[-1] // width, width))
        return self.numbered(neighbours, layers.Permute, "permute", (1, 3, 2))

    def rows(self, x: Any) -> Any:
        return self.numbered(x, layers.Reshape, "rows", (-1, x.shape[-1]))

    def flatten(self, x: Any) -> Any:
        return self.numbered(x, layers.Flatten, "flatten", data_format=MAPS)

    def dense(self, x: Any, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Any:
        weight, *biases = (self.weights[name] for name in names.layer(layer, bias=bias))
        values = [weight.T if names.is_output_first else weight, *biases]
        return self.named(x, layers.Dense, layer, values, units=units, use_bias=bias)

    def pointwise_dense(self, x: Any, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Any:
        return self.dense(x, layer, units, bias=bias, names=names)

    def mixture(self, gates: Any, experts: Any, n_experts: int) -> Any:
        gates = self.numbered(gates, layers.Reshape, "gates", (-1, n_experts + 1))
        shares = self.numbered(gates, layers.Softmax, "shares", axis=-1)[..., :n_experts]
        return keras.ops.sum(shares * self.numbered(experts, layers.Reshape, "experts", (-1, n_experts)), axis=-1)

    def lstm(self, x: Any, mask: Any, layer_names: Sequence[str], units: int, forget_bias: float) -> Any:
        rows = self.rows(x)
        is_real = None if mask is None else keras.ops.squeeze(keras.ops.cast(mask, "bool"), axis=(2, 3))
        for layer in layer_names:
            values = self._lstm_weights(layer, units, forget_bias)
            is_last = layer == layer_names[-1]
            seen = {"mask": is_real}
            rows = self.named(rows, layers.LSTM, layer, values, seen, units=units, return_sequences=not is_last)
        return rows

    def _lstm_weights(self, layer: str, units: int, forget_bias: float) -> list[FloatArray]:
        """A layer's weights in Keras's layout: forget gates before candidates."""
        order = [0, 2, 1, 3]
        kernel = self.weights[f"{layer}/kernel"].reshape(-1, 4, units)[:, order].reshape(-1, 4 * units)
        bias = self.weights[f"{layer}/bias"].reshape(4, units)[order]
        bias[1] += forget_bias
        n_in = len(kernel) - units
        return [kernel[:n_in], kernel[n_in:], bias.reshape(-1)]


def network_to_keras(
    network: Network,
    weights: Mapping[str, FloatArray],  # published names and layouts, float32
    patch_shape: tuple[int | None, int],  # (n_frames, n_mels) or (n_seconds, embedding_size); first None: any length
    arguments: Mapping[str, Any],  # of the network
) -> Any:
    """A network with its weights as a Keras functional model.

    It holds Keras's own layers only, so ``model.save("model.keras")`` writes a file that ``keras.models.load_model``
    reads without this package. It can be trained as any Keras model; give the loss by name,
    ``loss={"scores": "binary_crossentropy"}``.

    Input ``patches`` (n_patches, n_frames, n_mels), or a dict of this and ``waveforms`` (n_patches, n_samples) for a
    network that sees both, or of ``embeddings`` (n_patches, n_seconds, embedding_size) and ``mask`` (n_patches,
    n_seconds); a dict with the output ``embeddings`` and, for a tagger, ``scores`` and ``framewise``. Its layers are
    named as published, with ``_`` for ``/`` and ``.``.

    Source: the originals that ``audioset.networks`` names. On the PyTorch and JAX backends, YAMNet's scores are
    within 1.7e-6 of the original's on stored references, and embeddings within 1.5e-6 (YAMNet) and 2.5e-6
    (VGGish) of their largest value. On PyTorch, EfficientAT's mn04_as is within 2e-6
    and 4e-6.
    """
    ops = KerasOps(weights)
    n_rows, n_columns = patch_shape
    shapes = {"patches": patch_shape, "waveforms": (None,), "embeddings": patch_shape, "mask": (n_rows,)}
    map_shapes = {
        "patches": (n_rows or -1, n_columns, 1),
        "waveforms": (1, -1, 1),
        "embeddings": (n_rows or -1, 1, n_columns),
        "mask": (n_rows or -1, 1, 1),
    }
    inputs = {name: keras.Input(shapes[name], name=name) for name in input_names(network)}
    maps = [layers.Reshape(map_shapes[name], name=f"{name}_map")(value) for name, value in inputs.items()]
    outputs = network(ops, *maps, **arguments)
    results = {name: getattr(outputs, name) for name in ("embeddings", "scores", "framewise")}
    return keras.Model(
        next(iter(inputs.values())) if len(inputs) == 1 else inputs,
        {name: value for name, value in results.items() if value is not None},
        name=network.__name__,
    )
