"""The primitives that networks are written in, and the executor that only counts shapes.

A network is a function ``network(ops, patches, **arguments) -> Outputs``. It names its layers as the
published checkpoint does and never sees a framework: an executor supplies ``ops``. Feature maps are
described in height, width, channels; how an executor stores them is its own business.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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

BATCH_NORM_MOMENTUM = 0.99  # what a stored moment keeps of itself in a step: Keras's default, and EfficientAT's
AXES = ("height", "width", "channels")


@dataclass(frozen=True)
class Outputs(Generic[Tensor]):
    """What a network returns, in the executor's own tensor type.

    Attributes
    ----------
    embeddings : tensor, shape (n_patches, embedding_size)
    logits : tensor, shape (n_patches, n_classes), or None
        Unbounded; None for a network that only embeds.
    scores : tensor, shape (n_patches, n_classes), or None
        In [0, 1]; None for a network that only embeds.
    """

    embeddings: Tensor
    logits: Tensor | None = None
    scores: Tensor | None = None


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
        names: Names = KERAS_NAMES,
    ) -> Tensor:
        """Normalise each channel, or row or column, by the stored moments; without ``scale`` there is no gain.

        In training, by the moments of the batch, and the stored ones move by ``BATCH_NORM_MOMENTUM``. The
        variance that is stored is the biased one, as in Keras, or the unbiased one, as in PyTorch.
        """
        ...

    def relu(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        ...

    def hard_swish(self, x: Tensor) -> Tensor:
        """``x min(max(x + 3, 0), 6) / 6``."""
        ...

    def sigmoid(self, x: Tensor) -> Tensor:
        """``1 / (1 + exp(-x))``."""
        ...

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """The same; in training, each number is 0 with probability ``rate`` and else divided by ``1 - rate``."""
        ...

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum of two tensors of one shape."""
        ...

    def scale(self, x: Tensor, gains: Tensor, axis: str) -> Tensor:
        """A map times gains (n, length of ``axis``), one of ``AXES``."""
        ...

    def max_pool(self, x: Tensor, *, size: int, stride: int) -> Tensor:
        """Maximum of each window, with ``same`` padding."""
        ...

    def avg_pool(self, x: Tensor, *, size: tuple[int, int], stride: int, padding: str = "none") -> Tensor:
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

    def axis_mean(self, x: Tensor, axis: str) -> Tensor:
        """Mean over all of ``AXES`` but one: (n, height, width, channels) to (n, length of ``axis``)."""
        ...

    def transpose(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, width, height, channels)."""
        ...

    def flatten(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, height * width * channels), channels changing fastest."""
        ...

    def dense(self, x: Tensor, layer: str, units: int, *, names: Names = KERAS_NAMES) -> Tensor:
        """Matrix product with the layer's weight, plus its bias."""
        ...

    def pointwise_dense(self, x: Tensor, layer: str, units: int, *, names: Names = KERAS_NAMES) -> Tensor:
        """``dense`` at each place of a map: (n, height, width, channels) to (n, height, width, units)."""
        ...


Network = Callable[..., Outputs[Any]]


class ShapeOps:
    """Executor that computes nothing: it records the name and shape of every parameter.

    Its tensor is the shape without the batch: (height, width, channels) or (features,). A height or width of
    None is free.
    """

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

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
        names: Names = KERAS_NAMES,
    ) -> tuple[Any, ...]:
        self.shapes.update(dict.fromkeys(names.batch_norm(layer, scale=scale), (x[AXES.index(axis)],)))
        return x

    def relu(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def hard_swish(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def sigmoid(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def dropout(self, x: tuple[Any, ...], rate: float) -> tuple[Any, ...]:
        return x

    def add(self, x: tuple[Any, ...], y: tuple[Any, ...]) -> tuple[Any, ...]:
        return x

    def scale(self, x: tuple[Any, ...], gains: tuple[Any, ...], axis: str) -> tuple[Any, ...]:
        return x

    def max_pool(self, x: tuple[Any, ...], *, size: int, stride: int) -> tuple[Any, ...]:
        height, width, channels = x
        return (_windows(height, stride), _windows(width, stride), channels)

    def avg_pool(
        self, x: tuple[Any, ...], *, size: tuple[int, int], stride: int, padding: str = "none"
    ) -> tuple[Any, ...]:
        *lengths, channels = x
        if padding == "none":
            lengths = [length and max(0, length - n + stride) for length, n in zip(lengths, size, strict=True)]
            return (*(length and length // stride for length in lengths), channels)
        return (*(_windows(length, stride) for length in lengths), channels)

    def spatial_mean(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x[-1:]

    def spatial_max(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return x[-1:]

    def width_mean(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        height, _, channels = x
        return (height, 1, channels)

    def axis_mean(self, x: tuple[Any, ...], axis: str) -> tuple[Any, ...]:
        return (x[AXES.index(axis)],)

    def transpose(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        height, width, channels = x
        return (width, height, channels)

    def flatten(self, x: tuple[Any, ...]) -> tuple[Any, ...]:
        return (math.prod(x),)

    def dense(self, x: tuple[Any, ...], layer: str, units: int, *, names: Names = KERAS_NAMES) -> tuple[Any, ...]:
        self.shapes.update(zip(names.layer(layer), (names.dense_shape(x[-1], units), (units,)), strict=True))
        return (units,)

    def pointwise_dense(
        self, x: tuple[Any, ...], layer: str, units: int, *, names: Names = KERAS_NAMES
    ) -> tuple[Any, ...]:
        return (*x[:-1], *self.dense(x, layer, units, names=names))


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
    patch_shape : (n_frames, n_mels) of one patch
        ``n_frames`` is None for a network that takes patches of any length.
    arguments : keyword arguments of the network

    Returns
    -------
    parameters : dict of str to tuple of int
        Name and shape of every parameter, in the order in which the network uses them.
    outputs : Outputs
        Shapes of one patch's outputs.
    """
    ops = ShapeOps()
    outputs = network(ops, (*patch_shape, 1), **arguments)
    return ops.shapes, outputs
