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

KERAS_NAMES = ("kernel", "bias")  # a layer's weight and offset in a Keras checkpoint
SLIM_NAMES = ("weights", "biases")  # and in a TF-Slim one
BATCH_NORM_MOMENTUM = 0.99  # Keras's default, which no network here changes


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
    """What every executor implements. ``layer`` is the published layer name.

    ``padding="same"`` is TensorFlow's: output size ``ceil(size / stride)``, the odd sample of padding
    at the end.
    """

    def conv2d(
        self,
        x: Tensor,
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        bias: bool = False,
        names: tuple[str, str] = KERAS_NAMES,
    ) -> Tensor:
        """Convolution with ``same`` padding; weight ``{layer}/{names[0]}`` (height, width, in, out)."""
        ...

    def depthwise_conv2d(self, x: Tensor, layer: str, *, kernel: int, stride: int = 1) -> Tensor:
        """Per-channel convolution with ``same`` padding; weight ``{layer}/depthwise_kernel``."""
        ...

    def batch_norm(self, x: Tensor, layer: str, *, epsilon: float, scale: bool = True) -> Tensor:
        """Normalise each channel by the stored moments; without ``scale`` there is no ``gamma``.

        In training, by the moments of the batch, and the stored ones move by ``BATCH_NORM_MOMENTUM``.
        """
        ...

    def relu(self, x: Tensor) -> Tensor:
        """``max(x, 0)``."""
        ...

    def max_pool(self, x: Tensor, *, size: int, stride: int) -> Tensor:
        """Maximum of each window, with ``same`` padding."""
        ...

    def spatial_mean(self, x: Tensor) -> Tensor:
        """Mean over height and width: (n, height, width, channels) to (n, channels)."""
        ...

    def flatten(self, x: Tensor) -> Tensor:
        """(n, height, width, channels) to (n, height * width * channels), channels changing fastest."""
        ...

    def dense(self, x: Tensor, layer: str, units: int, *, names: tuple[str, str] = KERAS_NAMES) -> Tensor:
        """``x @ {layer}/{names[0]} + {layer}/{names[1]}``; weight (in, out)."""
        ...

    def sigmoid(self, x: Tensor) -> Tensor:
        """``1 / (1 + exp(-x))``."""
        ...


Network = Callable[..., Outputs[Any]]


class ShapeOps:
    """Executor that computes nothing: it records the name and shape of every parameter.

    Its tensor is the shape without the batch: (height, width, channels) or (features,).
    """

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def conv2d(
        self,
        x: tuple[int, ...],
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        bias: bool = False,
        names: tuple[str, str] = KERAS_NAMES,
    ) -> tuple[int, ...]:
        height, width, channels = x
        self.shapes[f"{layer}/{names[0]}"] = (kernel, kernel, channels, filters)
        if bias:
            self.shapes[f"{layer}/{names[1]}"] = (filters,)
        return (-(-height // stride), -(-width // stride), filters)

    def depthwise_conv2d(self, x: tuple[int, ...], layer: str, *, kernel: int, stride: int = 1) -> tuple[int, ...]:
        height, width, channels = x
        self.shapes[f"{layer}/depthwise_kernel"] = (kernel, kernel, channels, 1)
        return (-(-height // stride), -(-width // stride), channels)

    def batch_norm(self, x: tuple[int, ...], layer: str, *, epsilon: float, scale: bool = True) -> tuple[int, ...]:
        names = ("gamma",) * scale + ("beta", "moving_mean", "moving_variance")
        self.shapes.update({f"{layer}/{name}": x[-1:] for name in names})
        return x

    def relu(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return x

    def max_pool(self, x: tuple[int, ...], *, size: int, stride: int) -> tuple[int, ...]:
        height, width, channels = x
        return (-(-height // stride), -(-width // stride), channels)

    def spatial_mean(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return x[-1:]

    def flatten(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(x),)

    def dense(
        self, x: tuple[int, ...], layer: str, units: int, *, names: tuple[str, str] = KERAS_NAMES
    ) -> tuple[int, ...]:
        self.shapes[f"{layer}/{names[0]}"] = (x[-1], units)
        self.shapes[f"{layer}/{names[1]}"] = (units,)
        return (units,)

    def sigmoid(self, x: tuple[int, ...]) -> tuple[int, ...]:
        return x


def trace_shapes(
    network: Network, patch_shape: tuple[int, int], arguments: dict[str, Any]
) -> tuple[dict[str, tuple[int, ...]], Outputs[tuple[int, ...]]]:
    """Shapes of a network's parameters and outputs, without computing anything.

    Parameters
    ----------
    network : function over ``Ops``
    patch_shape : (n_frames, n_mels) of one patch
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
