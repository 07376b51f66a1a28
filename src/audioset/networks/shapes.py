"""What a network's parameters and outputs are, and what it costs, from shapes alone: nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from audioset.networks.ops import (
    AXES,
    KERAS_NAMES,
    BatchNorm,
    Convolution,
    Names,
    Network,
    Ops,
    Outputs,
    Size,
    both,
    input_names,
)

Shape = tuple[Any, ...]

MOST_TENSORS, MOST_VALUES = 10_000, 1 << 32  # of a network; the largest published one has 700, and 138 million


class _Shapes(dict[str, tuple[int, ...]]):
    """Names and shapes of parameters, within bounds: arguments from outside could ask for a billion layers."""

    n_values = 0

    def __setitem__(self, name: str, shape: tuple[int, ...]) -> None:
        if not all(isinstance(n, int) and n > 0 for n in shape):
            raise ValueError(f"they make a tensor of shape {shape}")
        self.n_values += math.prod(shape)
        if len(self) >= MOST_TENSORS or self.n_values > MOST_VALUES:
            raise ValueError(f"they make a network of more than {MOST_TENSORS:,} tensors or {MOST_VALUES:,} numbers")
        super().__setitem__(name, shape)

    def update(self, shapes: Any) -> None:  # type: ignore[override]
        """Add some, each within the bounds; a dict's own would not ask."""
        for name, shape in dict(shapes).items():
            self[name] = shape


class ShapeOps(Ops[Shape]):
    """Executor that computes nothing: it records the name and shape of every parameter.

    Its tensor is the shape without the batch: (height, width, channels) or (features,). A height or width of
    None is free.
    """

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = _Shapes()

    def convolve(self, x: Shape, convolution: Convolution) -> Shape:
        height, width, channels = x
        filters, groups = convolution.filters or channels, convolution.groups or channels
        kernel = convolution.names.kernel_shape(filters, channels // groups, *convolution.size)
        self.shapes.update(zip(convolution.tensors, (kernel, (filters,)), strict=False))
        return (*map(_windows, (height, width), convolution.stride), filters)

    def normalise(self, x: Shape, norm: BatchNorm) -> Shape:
        self.shapes.update(dict.fromkeys(norm.tensors, (x[AXES.index(norm.axis)],)))
        return x

    def _unchanged(self, x: Shape, *values: Any, **options: Any) -> Shape:
        return x

    relu = hard_swish = sigmoid = softmax = clip = affine = sqrt = l2_normalize = _unchanged
    add = multiply = scale = _unchanged

    def concatenate(self, x: Shape, y: Shape) -> Shape:
        return (*x[:-1], x[-1] + y[-1])

    def max_pool(self, x: Shape, *, size: Size, stride: Size, padding: str = "same") -> Shape:
        return self._pool(x, both(size), both(stride), is_padded=padding == "same")

    def avg_pool(self, x: Shape, *, size: tuple[int, int], stride: Size, padding: str = "none") -> Shape:
        return self._pool(x, size, both(stride), is_padded=padding == "symmetric")

    def _pool(self, x: Shape, size: tuple[int, int], stride: tuple[int, int], *, is_padded: bool) -> Shape:
        *lengths, channels = x
        if not is_padded:
            lengths = [
                length and max(0, length - n + step) // step * step
                for length, n, step in zip(lengths, size, stride, strict=True)
            ]
        return (*map(_windows, lengths, stride), channels)

    def axis_mean(self, x: Shape, axis: str) -> Shape:
        return (x[AXES.index(axis)],)

    def _channels(self, x: Shape, *values: Any, **options: Any) -> Shape:
        return x[-1:]

    spatial_max = attention_mean = _channels

    def _one_row(self, x: Shape, *values: Any, **options: Any) -> Shape:
        return (1, *x[1:])

    height_mean = height_max = _one_row

    def width_mean(self, x: Shape) -> Shape:
        height, _, channels = x
        return (height, 1, channels)

    def transpose(self, x: Shape) -> Shape:
        height, width, channels = x
        return (width, height, channels)

    def spread(self, x: Shape, width: int) -> Shape:
        _, height, channels = x
        return (height, width, channels // width)

    def rows(self, x: Shape) -> Shape:
        height, _, channels = x
        return (height, channels)

    def flatten(self, x: Shape) -> Shape:
        return (math.prod(x),)

    def dense(self, x: Shape, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Shape:
        shapes = (names.dense.kernel_shape(units, x[-1]), (units,))
        self.shapes.update(zip(names.layer(layer, bias=bias), shapes, strict=False))
        return (units,)

    def mixture(self, gates: Shape, experts: Shape, n_experts: int) -> Shape:
        return (experts[-1] // n_experts,)

    def lstm(self, x: Shape, mask: Shape | None, layers: Sequence[str], units: int, forget_bias: float) -> Shape:
        n_in = x[-1]
        for layer in layers:
            self.shapes.update({f"{layer}/kernel": (n_in + units, 4 * units), f"{layer}/bias": (4 * units,)})
            n_in = units
        return (units,)


class CountingOps(ShapeOps):
    """Executor that counts the multiply-adds of convolutions and dense layers, which are nearly all there are."""

    def __init__(self) -> None:
        super().__init__()
        self.n_multiply_adds = 0

    def convolve(self, x: Shape, convolution: Convolution) -> Shape:
        outputs = super().convolve(x, convolution)
        n_inputs = x[-1] // (convolution.groups or x[-1])
        self.n_multiply_adds += math.prod(outputs) * math.prod(convolution.size) * n_inputs
        return outputs

    def dense(self, x: Shape, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Shape:
        self.n_multiply_adds += units * x[-1]
        return super().dense(x, layer, units, bias=bias, names=names)


def _windows(length: int | None, stride: int) -> int | None:
    """Windows along an axis that is padded, or None where its length is free."""
    return None if length is None else -(-length // stride)


def trace_shapes(
    network: Network, patch_shape: tuple[int | None, int], arguments: dict[str, Any]
) -> tuple[dict[str, tuple[int, ...]], Outputs[tuple[int, ...]]]:
    """Shapes of a network's parameters and of one patch's outputs, without computing anything.

    The parameters are in the order in which the network uses them. ``patch_shape`` is (n_frames, n_mels) or (n_seconds,
    embedding_size), the first None for a network that takes any length.
    """
    ops = ShapeOps()
    outputs = network(ops, *input_shapes(network, patch_shape), **arguments)
    return ops.shapes, outputs


def count_multiply_adds(
    network: Network, patch_shape: tuple[int, int], n_samples: int, arguments: dict[str, Any]
) -> int:
    """Multiply-adds that a network needs for one patch, (n_frames, n_mels), of ``n_samples`` if it sees them.

    Of convolutions and dense layers. Batch norms, which are folded into them, and pooling count nothing.
    """
    ops = CountingOps()
    network(ops, *input_shapes(network, patch_shape, n_samples), **arguments)
    return ops.n_multiply_adds


def input_shapes(
    network: Network, patch_shape: tuple[int | None, int], n_samples: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Shapes of what a network sees of one patch, as ``ShapeOps`` takes them.

    ``patch_shape`` is (n_frames, n_mels) or (n_seconds, embedding_size); ``n_samples``, of its waveform, is free by
    default.
    """
    n_rows, n_columns = patch_shape
    seen: dict[str, tuple[Any, ...]] = {
        "patches": (n_rows, n_columns, 1),
        "waveforms": (1, n_samples, 1),
        "embeddings": (n_rows, 1, n_columns),
        "mask": (n_rows, 1, 1),
    }
    return (seen[name] for name in input_names(network))
