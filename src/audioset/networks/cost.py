"""What a network costs: its multiply-adds, counted from shapes alone."""

from __future__ import annotations

import math
from typing import Any

from audioset.networks.ops import Network, ShapeOps, input_shapes


class CountingOps(ShapeOps):
    """Executor that counts the multiply-adds of convolutions and dense layers, which are nearly all there are.

    Attributes
    ----------
    n_multiply_adds : int
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_multiply_adds = 0

    def conv2d(self, x: tuple[Any, ...], layer: str, **settings: Any) -> tuple[Any, ...]:
        return self._count(super().conv2d(x, layer, **settings), x[-1] // settings.get("groups", 1), settings)

    def conv1d(self, x: tuple[Any, ...], layer: str, **settings: Any) -> tuple[Any, ...]:
        return self._count(super().conv1d(x, layer, **settings), x[-1], {"kernel": (1, settings["kernel"])})

    def depthwise_conv2d(self, x: tuple[Any, ...], layer: str, **settings: Any) -> tuple[Any, ...]:
        return self._count(super().depthwise_conv2d(x, layer, **settings), 1, settings)

    def dense(self, x: tuple[Any, ...], layer: str, units: int, **settings: Any) -> tuple[Any, ...]:
        return self._count(super().dense(x, layer, units, **settings), x[-1], {"kernel": 1})

    def pointwise_dense(self, x: tuple[Any, ...], layer: str, units: int, **settings: Any) -> tuple[Any, ...]:
        outputs = super().pointwise_dense(x, layer, units, **settings)  # counted once by ``dense``, for one place
        self.n_multiply_adds += (math.prod(x[:-1]) - 1) * x[-1] * units
        return outputs

    def _count(self, outputs: tuple[Any, ...], n_inputs: int, settings: dict[str, Any]) -> tuple[Any, ...]:
        kernel = settings["kernel"]
        size = math.prod(kernel) if isinstance(kernel, tuple) else kernel**2
        self.n_multiply_adds += math.prod(outputs) * size * n_inputs
        return outputs


def count_multiply_adds(
    network: Network, patch_shape: tuple[int, int], n_samples: int, arguments: dict[str, Any]
) -> int:
    """Multiply-adds that a network needs for one patch.

    Parameters
    ----------
    network : function over ``Ops``
    patch_shape : (n_frames, n_mels)
    n_samples : int
        Of the patch, for a network that sees them.
    arguments : keyword arguments of the network

    Returns
    -------
    int
        Of convolutions and dense layers. Batch norms, which are folded into them, and pooling count nothing.
    """
    ops = CountingOps()
    network(ops, *input_shapes(network, patch_shape, n_samples), **arguments)
    return ops.n_multiply_adds
