"""The primitives that networks are written in: what they mean, and their signatures, which stand here alone.

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
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

Tensor = TypeVar("Tensor")


@dataclass(frozen=True)
class Names:
    """How a family of checkpoints names and stores the tensors of a layer."""

    separator: str = "/"  # between the name of a layer and that of its tensor
    weight: str = "kernel"  # of a convolution and of a dense layer, as is ``bias``
    bias: str = "bias"
    gain: str = "gamma"  # of a batch norm, as are the next three
    offset: str = "beta"
    mean: str = "moving_mean"
    variance: str = "moving_variance"
    # Of a stored kernel: OIHW (outputs, inputs, height, width) in PyTorch, HWIO in TensorFlow; of dense weights, O and
    # I in the same order.
    kernel_axes: str = "HWIO"

    def tensor(self, layer: str, kind: str) -> str:
        """Published name of a tensor, by its kind: ``tensor("logits", "bias")``."""
        return f"{layer}{self.separator}{getattr(self, kind)}"

    def layer(self, layer: str, *, bias: bool = True) -> list[str]:
        """Published names of the weight and, where there is one, the bias of a layer."""
        return [self.tensor(layer, kind) for kind in ("weight", "bias")[: 1 + bias]]

    def batch_norm(self, layer: str, *, scale: bool = True) -> list[str]:
        """Published names of a batch norm's tensors: its gain, where there is one, offset, mean and variance."""
        return [self.tensor(layer, kind) for kind in ("gain", "offset", "mean", "variance")[not scale :]]

    def kernel_shape(self, n_out: int, n_in: int, height: int = 1, width: int = 1) -> tuple[int, ...]:
        """Shape of a stored kernel or dense weight."""
        lengths = {"O": n_out, "I": n_in, "H": height, "W": width}
        return tuple(lengths[axis] for axis in self.kernel_axes)

    @property
    def kernel_order(self) -> tuple[int, ...]:
        """Axes of a stored kernel in the order of PyTorch's: outputs, inputs, height and width, those that it has."""
        return tuple(self.kernel_axes.index(axis) for axis in "OIHW" if axis in self.kernel_axes)

    @property
    def is_output_first(self) -> bool:
        """Whether outputs are the first axis of kernels and dense weights."""
        return self.kernel_axes.startswith("O")

    @property
    def dense(self) -> Names:
        """The same for kernels without height and width: the weights of dense layers."""
        return replace(self, kernel_axes=self.kernel_axes.replace("HW", ""))


KERAS_NAMES = Names()
SLIM_NAMES = Names(weight="weights", bias="biases")
TORCH_NAMES = Names(".", "weight", "bias", "weight", "bias", "running_mean", "running_var", "OIHW")
ROW_NAMES = replace(TORCH_NAMES, kernel_axes="OIW")  # of convolutions along the width
DEPTHWISE_NAMES = Names(weight="depthwise_kernel", kernel_axes="HWOI")

BATCH_NORM_MOMENTUM = 0.99  # what a stored moment keeps of itself in a step: Keras's default, and EfficientAT's
AXES = ("height", "width", "channels")
INPUTS = ("patches", "waveforms", "embeddings", "mask")  # what a network may see
Size = int | tuple[int, int]  # height and width; one number for both


@dataclass(frozen=True)
class Outputs(Generic[Tensor]):
    """What a network returns, in the executor's own tensor type."""

    embeddings: Tensor  # (n_patches, embedding_size)
    # (n_patches, n_classes), unbounded; None if it only embeds, or scores are means of the scores of segments.
    logits: Tensor | None = None
    scores: Tensor | None = None  # (n_patches, n_classes), in [0, 1]; None for a network that only embeds
    # (n_patches, n_segments, n_classes), in [0, 1]: over time, a row for each segment of a patch.
    framewise: Tensor | None = None
    # Maps of one place (n_patches, 1, 1, n_classes), in [0, 1]: scores of the parts of a network that are trained each
    # by a loss of its own, whose mean is ``scores``; None with one loss. Training alone reads them: no engine and no
    # export has them.
    branches: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class Convolution:
    """A convolution as an executor computes it; sizes and steps are (height, width)."""

    layer: str  # what its weight and, with ``bias``, its bias are called, by ``names``
    names: Names
    filters: int | None  # None: one for each channel of the input
    groups: int | None = 1  # None: one for each channel of the input
    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    bias: bool = False
    padding: str = "same"  # same or symmetric

    @property
    def tensors(self) -> list[str]:
        """Published names of its weight and, where there is one, its bias."""
        return self.names.layer(self.layer, bias=self.bias)

    @property
    def symmetric_ends(self) -> tuple[int, int]:
        """Rows and columns of ``symmetric`` padding at each end."""
        height, width = ((n - 1) // 2 * step for n, step in zip(self.size, self.dilation, strict=True))
        return height, width


@dataclass(frozen=True)
class BatchNorm:
    """A batch norm as an executor computes it; attributes as the arguments of ``Ops.batch_norm``."""

    layer: str
    names: Names
    epsilon: float
    scale: bool
    axis: str
    momentum: float

    @property
    def tensors(self) -> list[str]:
        """Published names of its gain, where there is one, offset, mean and variance."""
        return self.names.batch_norm(self.layer, scale=self.scale)


class Ops(ABC, Generic[Tensor]):
    """What a network is written in. ``layer`` is the published layer name; ``names``, how its tensors are called.

    An executor computes what has no body here, among it all convolutions as ``convolve`` and batch norms as
    ``normalise``. What has one is the same in all of them, or in all that only predict.

    ``padding="same"`` is TensorFlow's: output size ``ceil(size / stride)``, the odd sample of padding
    at the end. ``"symmetric"`` is PyTorch's ``(kernel - 1) // 2`` at both ends, for odd kernels, and makes
    outputs of the same size.
    """

    @abstractmethod
    def convolve(self, x: Tensor, convolution: Convolution) -> Tensor:
        """Any of the convolutions, by their description."""

    @abstractmethod
    def normalise(self, x: Tensor, norm: BatchNorm) -> Tensor:
        """A batch norm, by its description."""

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
        size = both(kernel), both(stride)
        return self.convolve(x, Convolution(layer, names, filters, groups, *size, bias=bias, padding=padding))

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
        size = (1, kernel), (1, stride), (1, dilation)
        return self.convolve(x, Convolution(layer, ROW_NAMES, filters, 1, *size, bias=bias, padding="symmetric"))

    def depthwise_conv2d(self, x: Tensor, layer: str, *, kernel: int, stride: int = 1) -> Tensor:
        """Per-channel convolution with ``same`` padding; weight ``{layer}/depthwise_kernel``."""
        return self.convolve(x, Convolution(layer, DEPTHWISE_NAMES, None, None, both(kernel), both(stride)))

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
        return self.normalise(x, BatchNorm(layer, names, epsilon, scale, axis, momentum))

    @abstractmethod
    def relu(self, x: Tensor, limit: float | None = None) -> Tensor:
        """``max(x, 0)``; with a limit, ``min(max(x, 0), limit)``."""

    @abstractmethod
    def hard_swish(self, x: Tensor) -> Tensor:
        """``x min(max(x + 3, 0), 6) / 6``."""

    @abstractmethod
    def sigmoid(self, x: Tensor) -> Tensor:
        """``1 / (1 + exp(-x))``."""

    @abstractmethod
    def softmax(self, x: Tensor) -> Tensor:
        """``exp(x)`` over its sum over the channels."""

    @abstractmethod
    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        """``min(max(x, low), high)``."""

    @abstractmethod
    def affine(self, x: Tensor, gain: float, offset: float) -> Tensor:
        """``x * gain + offset``."""

    @abstractmethod
    def sqrt(self, x: Tensor) -> Tensor:
        """Square root of numbers that are not below 0."""

    @abstractmethod
    def l2_normalize(self, x: Tensor, epsilon: float) -> Tensor:
        """A map over the Euclidean length of its channels at each place, which counts as ``epsilon`` if shorter."""

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """The same; in training, each number is 0 with probability ``rate`` and else divided by ``1 - rate``."""
        return x

    @abstractmethod
    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of two tensors of one shape."""

    @abstractmethod
    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """Product of two maps of one height and width; the second has as many channels as the first, or one."""

    @abstractmethod
    def scale(self, x: Tensor, gains: Tensor, axis: str) -> Tensor:
        """A map times gains (n, length of ``axis``), one of ``AXES``."""

    @abstractmethod
    def concatenate(self, x: Tensor, y: Tensor) -> Tensor:
        """The channels of two maps of one height and width, those of ``x`` first."""

    @abstractmethod
    def max_pool(self, x: Tensor, *, size: Size, stride: Size, padding: str = "same") -> Tensor:
        """Maximum of each window, with ``same`` padding; with ``"none"``, what fills no window is left out."""

    @abstractmethod
    def avg_pool(self, x: Tensor, *, size: tuple[int, int], stride: Size, padding: str = "none") -> Tensor:
        """Mean of each window of this height and width.

        With ``padding="none"``, what fills no window is left out. With ``"symmetric"``, the zeros that are added
        count as values: outputs of the same size for odd windows and a stride of 1.
        """

    def spatial_mean(self, x: Tensor) -> Tensor:
        """Mean over height and width: (n, height, width, channels) to (n, channels)."""
        return self.axis_mean(x, "channels")

    @abstractmethod
    def spatial_max(self, x: Tensor) -> Tensor:
        """Maximum over height and width: (n, height, width, channels) to (n, channels)."""

    @abstractmethod
    def width_mean(self, x: Tensor) -> Tensor:
        """Mean over the width: (n, height, width, channels) to (n, height, 1, channels)."""

    @abstractmethod
    def height_mean(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mean over the height: (n, height, width, channels) to (n, 1, width, channels).

        With weights, which are a map like ``x`` or one of one channel, a place counts by its share in their sum.
        """

    @abstractmethod
    def height_max(self, x: Tensor) -> Tensor:
        """Maximum over the height: (n, height, width, channels) to (n, 1, width, channels)."""

    def draw_rows(self, x: Tensor, mask: Tensor | None, n_rows: int) -> tuple[Tensor, Tensor | None]:
        """The same map and mask; in training, ``n_rows`` rows of each map drawn with replacement, and no mask.

        Only rows whose mask is 1 are drawn: the first ones.
        """
        return x, mask

    @abstractmethod
    def axis_mean(self, x: Tensor, axis: str) -> Tensor:
        """Mean over all of ``AXES`` but one: (n, height, width, channels) to (n, length of ``axis``)."""

    @abstractmethod
    def attention_mean(self, x: Tensor, weights: Tensor, limit: float) -> Tensor:
        """Weighted mean over the height: (n, height, 1, channels) twice to (n, channels).

        A place weighs ``exp(min(max(weight, -limit), limit))``.
        """

    @abstractmethod
    def transpose(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, width, height, channels)."""

    @abstractmethod
    def spread(self, x: Tensor, width: int) -> Tensor:
        """(n, 1, height, channels) to (n, height, width, channels / width), neighbours side by side.

        Channel ``c * width + j`` becomes column ``j`` of channel ``c``.
        """

    @abstractmethod
    def rows(self, x: Tensor) -> Tensor:
        """(n, height, 1, channels) to (n, height, channels)."""

    @abstractmethod
    def flatten(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, height * width * channels), channels changing fastest."""

    @abstractmethod
    def dense(self, x: Tensor, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Tensor:
        """Matrix product with the layer's weight, plus its bias, if it has one."""

    def pointwise_dense(
        self, x: Tensor, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES
    ) -> Tensor:
        """``dense`` at each place of a map: (n, height, width, channels) to (n, height, width, units)."""
        return self.convolve(x, Convolution(layer, names.dense, units, bias=bias, padding="symmetric"))

    @abstractmethod
    def mixture(self, gates: Tensor, experts: Tensor, n_experts: int) -> Tensor:
        """What gated experts say: (n, classes * (n_experts + 1)) and (n, classes * n_experts) to (n, classes).

        The gates of a class are neighbours, and so are its experts. Softmax of the gates says what each expert
        counts; the last gate belongs to an expert that always says 0.
        """

    @abstractmethod
    def lstm(self, x: Tensor, mask: Tensor | None, layers: Sequence[str], units: int, forget_bias: float) -> Tensor:
        """The last layer's output at the last row: (n, height, 1, channels) to (n, units).

        Each layer reads the rows of the one before it. With a mask, the last row is the last whose mask is 1. Weights
        ``{layer}/kernel`` (channels + units, 4 * units), the inputs' rows first, and ``{layer}/bias``; their columns
        are the input gates, the candidates, the forget gates, whose bias is ``forget_bias`` higher, and the output
        gates.
        """


Network = Callable[..., Outputs[Any]]


def input_names(network: Network) -> tuple[str, ...]:
    """What a network sees: those of ``INPUTS`` that are its parameters, in this order."""
    parameters = inspect.signature(network).parameters
    return tuple(name for name in INPUTS if name in parameters)


def both(size: Size) -> tuple[int, int]:
    """A size as height and width."""
    return size if isinstance(size, tuple) else (size, size)
