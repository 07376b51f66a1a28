"""The primitives that networks are written in, and the executor that only counts shapes.

A network is a function ``network(ops, patches, **arguments) -> Outputs``. It names its layers as the
published checkpoint does and never sees a framework: an executor supplies ``ops``. Feature maps are
described in height, width, channels; how an executor stores them is its own business.

What a network sees is said by its parameters: ``patches``, ``waveforms`` (the samples of each patch), or both;
or ``embeddings`` and ``mask``. A waveform is a map of height 1, one column for each sample. Embeddings are a map of
width 1, one row for each second and one channel for each number; their mask has one channel, 1 for a second of the
clip and 0 for padding after it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Tensor = TypeVar("Tensor")


@dataclass(frozen=True)
class Names:
    """How a family of checkpoints names and stores the tensors of a layer.

    Attributes
    ----------
    separator : str
        Between the name of a layer and that of its tensor.
    weight, bias : str
        Of a convolution and of a dense layer.
    gain, offset, mean, variance : str
        Of a batch norm.
    is_output_first : bool
        Whether kernels are (out, in, height, width) and dense weights (out, in), as in PyTorch; if not, they
        are (height, width, in, out) and (in, out), as in TensorFlow.
    """

    separator: str = "/"
    weight: str = "kernel"
    bias: str = "bias"
    gain: str = "gamma"
    offset: str = "beta"
    mean: str = "moving_mean"
    variance: str = "moving_variance"
    is_output_first: bool = False

    def tensor(self, layer: str, kind: str) -> str:
        """Published name of a tensor, by its kind: ``tensor("logits", "bias")``."""
        return f"{layer}{self.separator}{getattr(self, kind)}"

    def layer(self, layer: str, *, bias: bool = True) -> list[str]:
        """Published names of the weight and, where there is one, the bias of a layer."""
        return [self.tensor(layer, kind) for kind in ("weight", "bias")[: 1 + bias]]

    def batch_norm(self, layer: str, *, scale: bool = True) -> list[str]:
        """Published names of a batch norm's tensors: its gain, where there is one, offset, mean and variance."""
        return [self.tensor(layer, kind) for kind in ("gain", "offset", "mean", "variance")[not scale :]]

    def kernel_shape(self, height: int, width: int, n_in: int, n_out: int) -> tuple[int, ...]:
        """Shape of a convolution's stored kernel."""
        return (n_out, n_in, height, width) if self.is_output_first else (height, width, n_in, n_out)

    def dense_shape(self, n_in: int, n_out: int) -> tuple[int, ...]:
        """Shape of a dense layer's stored weight."""
        return (n_out, n_in) if self.is_output_first else (n_in, n_out)


KERAS_NAMES = Names()
SLIM_NAMES = Names(weight="weights", bias="biases")
TORCH_NAMES = Names(".", "weight", "bias", "weight", "bias", "running_mean", "running_var", is_output_first=True)

MOST_TENSORS, MOST_VALUES = 10_000, 1 << 32  # of a network; the largest published one has 700, and 138 million
BATCH_NORM_MOMENTUM = 0.99  # what a stored moment keeps of itself in a step: Keras's default, and EfficientAT's
AXES = ("height", "width", "channels")
INPUTS = ("patches", "waveforms", "embeddings", "mask")  # what a network may see
Size = int | tuple[int, int]  # height and width; one number for both


@dataclass(frozen=True)
class Outputs(Generic[Tensor]):
    """What a network returns, in the executor's own tensor type.

    Attributes
    ----------
    embeddings : tensor, shape (n_patches, embedding_size)
    logits : tensor, shape (n_patches, n_classes), or None
        Unbounded; None for a network that only embeds, or whose scores are means of the scores of segments.
    scores : tensor, shape (n_patches, n_classes), or None
        In [0, 1]; None for a network that only embeds.
    framewise : tensor, shape (n_patches, n_segments, n_classes), or None
        Scores over time, in [0, 1], a row for each segment of a patch; None for a network that has none.
    branches : tuple of tensors, maps of one place (n_patches, 1, 1, n_classes), or None
        Scores in [0, 1] of the parts of a network that are trained each by a loss of its own, whose mean is
        ``scores``; None for a network with one loss. Training alone reads them: no engine and no export has them.
    """

    embeddings: Tensor
    logits: Tensor | None = None
    scores: Tensor | None = None
    framewise: Tensor | None = None
    branches: tuple[Tensor, ...] | None = None


class Ops(Protocol[Tensor]):
    """What every executor implements. ``layer`` is the published layer name; ``names``, how its tensors are called.

    ``padding="same"`` is TensorFlow's: output size ``ceil(size / stride)``, the odd sample of padding
    at the end. ``"symmetric"`` is PyTorch's ``(kernel - 1) // 2`` at both ends, for odd kernels, and makes
    outputs of the same size.
    """

    def conv2d(
        self,
        x: Tensor,
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: str = "same",
        names: Names = KERAS_NAMES,
    ) -> Tensor:
        """Convolution; with ``groups``, each group of outputs sees one group of inputs only."""
        ...

    def conv1d(
        self,
        x: Tensor,
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> Tensor:
        """Convolution along the width with ``symmetric`` padding; weight ``{layer}.weight`` (out, in, kernel).

        With a dilation, neighbours under the kernel are so many columns apart.
        """
        ...

    def depthwise_conv2d(self, x: Tensor, layer: str, *, kernel: int, stride: int = 1) -> Tensor:
        """Per-channel convolution with ``same`` padding; weight ``{layer}/depthwise_kernel``."""
        ...

    def batch_norm(
        self,
        x: Tensor,
        layer: str,
        *,
        epsilon: float,
        scale: bool = True,
        axis: str = "channels",
        momentum: float = BATCH_NORM_MOMENTUM,
        names: Names = KERAS_NAMES,
    ) -> Tensor:
        """Normalise each channel, or row or column, by the stored moments; without ``scale`` there is no gain.

        In training, by the moments of the batch, and of the stored ones the share ``momentum`` stays. The
        variance that is stored is the biased one, as in Keras, or the unbiased one, as in PyTorch.
        """
        ...

    def relu(self, x: Tensor, limit: float | None = None) -> Tensor:
        """``max(x, 0)``; with a limit, ``min(max(x, 0), limit)``."""
        ...

    def hard_swish(self, x: Tensor) -> Tensor:
        """``x min(max(x + 3, 0), 6) / 6``."""
        ...

    def sigmoid(self, x: Tensor) -> Tensor:
        """``1 / (1 + exp(-x))``."""
        ...

    def softmax(self, x: Tensor) -> Tensor:
        """``exp(x)`` over its sum over the channels."""
        ...

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        """``min(max(x, low), high)``."""
        ...

    def affine(self, x: Tensor, gain: float, offset: float) -> Tensor:
        """``x * gain + offset``."""
        ...

    def sqrt(self, x: Tensor) -> Tensor:
        """Square root of numbers that are not below 0."""
        ...

    def l2_normalize(self, x: Tensor, epsilon: float) -> Tensor:
        """A map over the Euclidean length of its channels at each place, which counts as ``epsilon`` if shorter."""
        ...

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """The same; in training, each number is 0 with probability ``rate`` and else divided by ``1 - rate``."""
        ...

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of two tensors of one shape."""
        ...

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Product of two maps of one height and width; the second has as many channels as the first, or one."""
        ...

    def scale(self, x: Tensor, gains: Tensor, axis: str) -> Tensor:
        """A map times gains (n, length of ``axis``), one of ``AXES``."""
        ...

    def concatenate(self, x: Tensor, y: Tensor) -> Tensor:
        """The channels of two maps of one height and width, those of ``x`` first."""
        ...

    def max_pool(self, x: Tensor, *, size: Size, stride: Size, padding: str = "same") -> Tensor:
        """Maximum of each window, with ``same`` padding; with ``"none"``, what fills no window is left out."""
        ...

    def avg_pool(self, x: Tensor, *, size: tuple[int, int], stride: Size, padding: str = "none") -> Tensor:
        """Mean of each window of this height and width.

        With ``padding="none"``, what fills no window is left out. With ``"symmetric"``, the zeros that are added
        count as values: outputs of the same size for odd windows and a stride of 1.
        """
        ...

    def spatial_mean(self, x: Tensor) -> Tensor:
        """Mean over height and width: (n, height, width, channels) to (n, channels)."""
        ...

    def spatial_max(self, x: Tensor) -> Tensor:
        """Maximum over height and width: (n, height, width, channels) to (n, channels)."""
        ...

    def width_mean(self, x: Tensor) -> Tensor:
        """Mean over the width: (n, height, width, channels) to (n, height, 1, channels)."""
        ...

    def height_mean(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the height: (n, height, width, channels) to (n, 1, width, channels).

        With weights, which are a map like ``x`` or one of one channel, a place counts by its share in their sum.
        """
        ...

    def height_max(self, x: Tensor) -> Tensor:
        """Maximum over the height: (n, height, width, channels) to (n, 1, width, channels)."""
        ...

    def draw_rows(self, x: Tensor, mask: Tensor | None, n_rows: int) -> tuple[Tensor, Tensor | None]:
        """The same map and mask; in training, ``n_rows`` rows of each map drawn with replacement, and no mask.

        Only rows whose mask is 1 are drawn: the first ones.
        """
        ...

    def axis_mean(self, x: Tensor, axis: str) -> Tensor:
        """Mean over all of ``AXES`` but one: (n, height, width, channels) to (n, length of ``axis``)."""
        ...

    def attention_mean(self, x: Tensor, weights: Tensor, limit: float) -> Tensor:
        """Weighted mean over the height: (n, height, 1, channels) twice to (n, channels).

        A place weighs ``exp(min(max(weight, -limit), limit))``.
        """
        ...

    def transpose(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, width, height, channels)."""
        ...

    def spread(self, x: Tensor, width: int) -> Tensor:
        """(n, 1, height, channels) to (n, height, width, channels / width), neighbours side by side.

        Channel ``c * width + j`` becomes column ``j`` of channel ``c``.
        """
        ...

    def rows(self, x: Tensor) -> Tensor:
        """(n, height, 1, channels) to (n, height, channels)."""
        ...

    def flatten(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, height * width * channels), channels changing fastest."""
        ...

    def dense(self, x: Tensor, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Tensor:
        """Matrix product with the layer's weight, plus its bias, if it has one."""
        ...

    def pointwise_dense(
        self, x: Tensor, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES
    ) -> Tensor:
        """``dense`` at each place of a map: (n, height, width, channels) to (n, height, width, units)."""
        ...

    def mixture(self, gates: Tensor, experts: Tensor, n_experts: int) -> Tensor:
        """What gated experts say: (n, classes * (n_experts + 1)) and (n, classes * n_experts) to (n, classes).

        The gates of a class are neighbours, and so are its experts. Softmax of the gates says what each expert
        counts; the last gate belongs to an expert that always says 0.
        """
        ...

    def lstm(self, x: Tensor, mask: Tensor | None, layers: Sequence[str], units: int, forget_bias: float) -> Tensor:
        """The last layer's output at the last row: (n, height, 1, channels) to (n, units).

        Each layer reads the rows of the one before it. With a mask, the last row is the last whose mask is 1. Weights
        ``{layer}/kernel`` (channels + units, 4 * units), the inputs' rows first, and ``{layer}/bias``; their columns
        are the input gates, the candidates, the forget gates, whose bias is ``forget_bias`` higher, and the output
        gates.
        """
        ...


Network = Callable[..., Outputs[Any]]


def input_names(network: Network) -> tuple[str, ...]:
    """What a network sees: those of ``INPUTS`` that are its parameters, in this order.

    Parameters
    ----------
    network : function over ``Ops``

    Returns
    -------
    tuple of str
    """
    parameters = inspect.signature(network).parameters
    return tuple(name for name in INPUTS if name in parameters)


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


class ShapeOps:
    """Executor that computes nothing: it records the name and shape of every parameter.

    Its tensor is the shape without the batch: (height, width, channels) or (features,). A height or width of
    None is free.
    """

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = _Shapes()

    def conv2d(
        self,
        x: tuple[Any, ...],
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: str = "same",
        names: Names = KERAS_NAMES,
    ) -> tuple[Any, ...]:
        height, width, channels = x
        shapes = (names.kernel_shape(kernel, kernel, channels // groups, filters), (filters,))
        self.shapes.update(zip(names.layer(layer, bias=bias), shapes, strict=False))
        return (_windows(height, stride), _windows(width, stride), filters)

    def conv1d(
        self,
        x: tuple[Any, ...],
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
    ) -> tuple[Any, ...]:
        height, width, channels = x
        shapes = ((filters, channels, kernel), (filters,))
        self.shapes.update(zip(TORCH_NAMES.layer(layer, bias=bias), shapes, strict=False))
        return (height, _windows(width, stride), filters)

    def depthwise_conv2d(self, x: tuple[Any, ...], layer: str, *, kernel: int, stride: int = 1) -> tuple[Any, ...]:
        height, width, channels = x
        self.shapes[f"{layer}/depthwise_kernel"] = (kernel, kernel, channels, 1)
        return (_windows(height, stride), _windows(width, stride), channels)

    def batch_norm(
        self,
        x: tuple[Any, ...],
        layer: str,
        *,
        epsilon: float,
        scale: bool = True,
        axis: str = "channels",
        momentum: float = BATCH_NORM_MOMENTUM,
        names: Names = KERAS_NAMES,
    ) -> tuple[Any, ...]:
        self.shapes.update(dict.fromkeys(names.batch_norm(layer, scale=scale), (x[AXES.index(axis)],)))
        return x

    def relu(self, x: tuple[Any, ...], limit: float | None = None) -> tuple[Any, ...]:
        return x

    def hard_swish(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def sigmoid(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def softmax(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def clip(self, x: tuple[Any, ...], low: float, high: float) -> tuple[Any, ...]:
        return x

    def affine(self, x: tuple[Any, ...], gain: float, offset: float) -> tuple[Any, ...]:
        return x

    def sqrt(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def l2_normalize(self, x: tuple[Any, ...], epsilon: float) -> tuple[Any, ...]:
        return x

    def dropout(self, x: tuple[Any, ...], rate: float) -> tuple[Any, ...]:
        return x

    def add(self, x: tuple[Any, ...], y: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def multiply(self, x: tuple[Any, ...], y: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def scale(self, x: tuple[Any, ...], gains: tuple[Any, ...], axis: str) -> tuple[Any, ...]:
        return x

    def concatenate(self, x: tuple[Any, ...], y: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*x[:-1], x[-1] + y[-1])

    def max_pool(self, x: tuple[Any, ...], *, size: Size, stride: Size, padding: str = "same") -> tuple[Any, ...]:
        return self._pool(x, both(size), both(stride), is_padded=padding == "same")

    def avg_pool(
        self, x: tuple[Any, ...], *, size: tuple[int, int], stride: Size, padding: str = "none"
    ) -> tuple[Any, ...]:
        return self._pool(x, size, both(stride), is_padded=padding == "symmetric")

    def _pool(
        self, x: tuple[Any, ...], size: tuple[int, int], stride: tuple[int, int], *, is_padded: bool
    ) -> tuple[Any, ...]:
        *lengths, channels = x
        if not is_padded:
            lengths = [
                length and max(0, length - n + step) // step * step
                for length, n, step in zip(lengths, size, stride, strict=True)
            ]
        return (*map(_windows, lengths, stride), channels)

    def spatial_mean(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x[-1:]

    def spatial_max(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x[-1:]

    def width_mean(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        height, _, channels = x
        return (height, 1, channels)

    def height_mean(self, x: tuple[Any, ...], weights: tuple[Any, ...] | None = None) -> tuple[Any, ...]:
        return (1, *x[1:])

    def height_max(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return (1, *x[1:])

    def draw_rows(
        self, x: tuple[Any, ...], mask: tuple[Any, ...] | None, n_rows: int
    ) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]:
        return x, mask

    def axis_mean(self, x: tuple[Any, ...], axis: str) -> tuple[Any, ...]:
        return (x[AXES.index(axis)],)

    def attention_mean(self, x: tuple[Any, ...], weights: tuple[Any, ...], limit: float) -> tuple[Any, ...]:
        return x[-1:]

    def transpose(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        height, width, channels = x
        return (width, height, channels)

    def spread(self, x: tuple[Any, ...], width: int) -> tuple[Any, ...]:
        _, height, channels = x
        return (height, width, channels // width)

    def rows(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        height, _, channels = x
        return (height, channels)

    def flatten(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return (math.prod(x),)

    def dense(
        self, x: tuple[Any, ...], layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES
    ) -> tuple[Any, ...]:
        shapes = (names.dense_shape(x[-1], units), (units,))
        self.shapes.update(zip(names.layer(layer, bias=bias), shapes, strict=False))
        return (units,)

    def pointwise_dense(
        self, x: tuple[Any, ...], layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES
    ) -> tuple[Any, ...]:
        return (*x[:-1], *self.dense(x, layer, units, bias=bias, names=names))

    def mixture(self, gates: tuple[Any, ...], experts: tuple[Any, ...], n_experts: int) -> tuple[Any, ...]:
        return (experts[-1] // n_experts,)

    def lstm(
        self,
        x: tuple[Any, ...],
        mask: tuple[Any, ...] | None,
        layers: Sequence[str],
        units: int,
        forget_bias: float,
    ) -> tuple[Any, ...]:
        n_in = x[-1]
        for layer in layers:
            self.shapes.update({f"{layer}/kernel": (n_in + units, 4 * units), f"{layer}/bias": (4 * units,)})
            n_in = units
        return (units,)


def both(size: Size) -> tuple[int, int]:
    """A size as height and width."""
    return size if isinstance(size, tuple) else (size, size)


def _windows(length: int | None, stride: int) -> int | None:
    """Windows along an axis that is padded, or None where its length is free."""
    return None if length is None else -(-length // stride)


def trace_shapes(
    network: Network, patch_shape: tuple[int | None, int], arguments: dict[str, Any]
) -> tuple[dict[str, tuple[int, ...]], Outputs[tuple[int, ...]]]:
    """Shapes of a network's parameters and outputs, without computing anything.

    Parameters
    ----------
    network : function over ``Ops``
    patch_shape : (n_frames, n_mels) of one patch, or (n_seconds, embedding_size)
        The first is None for a network that takes any length.
    arguments : keyword arguments of the network

    Returns
    -------
    parameters : dict of str to tuple of int
        Name and shape of every parameter, in the order in which the network uses them.
    outputs : Outputs
        Shapes of one patch's outputs.
    """
    ops = ShapeOps()
    outputs = network(ops, *input_shapes(network, patch_shape), **arguments)
    return ops.shapes, outputs


def input_shapes(
    network: Network, patch_shape: tuple[int | None, int], n_samples: int | None = None
) -> Iterator[tuple[Any, ...]]:
    """Shapes of what a network sees of one patch, as ``ShapeOps`` takes them.

    Parameters
    ----------
    network : function over ``Ops``
    patch_shape : (n_frames, n_mels) of one patch, or (n_seconds, embedding_size)
    n_samples : int, optional
        Of the patch's waveform. Default: free.
    """
    n_rows, n_columns = patch_shape
    seen: dict[str, tuple[Any, ...]] = {
        "patches": (n_rows, n_columns, 1),
        "waveforms": (1, n_samples, 1),
        "embeddings": (n_rows, 1, n_columns),
        "mask": (n_rows, 1, 1),
    }
    return (seen[name] for name in input_names(network))
