"""Run a network in PyTorch (an extra): training, fine-tuning and CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from audioset.errors import MissingExtraError
from audioset.networks.ops import AXES, BATCH_NORM_MOMENTUM, KERAS_NAMES, Names, Network, Outputs

try:
    import torch
except ImportError as error:
    raise MissingExtraError("the PyTorch executor", "torch", "train") from error
from torch.nn import functional

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

# Of a batch norm: stored with the weights, not trained.
MOMENTS = ("moving_mean", "moving_variance", "running_mean", "running_var")
TORCH_AXES = {"height": 2, "width": 3, "channels": 1}


class TorchOps:
    """Executor that computes at once, with the tensors of a module.

    Feature maps are (patches, channels, height, width) in the ``channels_last`` memory format: a pointwise
    convolution is then one matrix product with the published kernel as it is, and ``flatten`` is free.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def tensor(self, name: str) -> torch.Tensor:
        """A parameter or buffer by its published name."""
        owner, _, attribute = name.rpartition(".")
        value: torch.Tensor = getattr(self.module.get_submodule(owner), attribute)
        return value

    def conv2d(
        self,
        x: torch.Tensor,
        layer: str,
        *,
        filters: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
        padding: str = "same",
        names: Names = KERAS_NAMES,
    ) -> torch.Tensor:
        weight, *biases = (self.tensor(name) for name in names.layer(layer, bias=bias))
        offset = biases[0] if bias else None
        if kernel == stride == groups == 1:
            matrix = weight[:, :, 0, 0] if names.is_output_first else weight[0, 0].T
            return _channels_first(functional.linear(_channels_last(x), matrix, offset))
        weight = weight if names.is_output_first else weight.permute(3, 2, 0, 1)
        return _conv(x, weight, offset, stride, groups, padding)

    def depthwise_conv2d(self, x: torch.Tensor, layer: str, *, kernel: int, stride: int = 1) -> torch.Tensor:
        weight = self.tensor(f"{layer}/depthwise_kernel").permute(2, 3, 0, 1)
        return _conv(x, weight, None, stride, len(weight), "same")

    def batch_norm(
        self,
        x: torch.Tensor,
        layer: str,
        *,
        epsilon: float,
        scale: bool = True,
        axis: str = "channels",
        names: Names = KERAS_NAMES,
    ) -> torch.Tensor:
        if axis != "channels":
            place = TORCH_AXES[axis]
            x = self.batch_norm(x.transpose(1, place), layer, epsilon=epsilon, scale=scale, names=names)
            return x.transpose(1, place)
        *gains, beta, moving_mean, moving_variance = (
            self.tensor(name) for name in names.batch_norm(layer, scale=scale)
        )
        gamma = gains[0] if scale else None
        if not self.module.training:
            return functional.batch_norm(x, moving_mean, moving_variance, gamma, beta, eps=epsilon)
        mean, variance = torch.zeros_like(moving_mean), torch.zeros_like(moving_variance)
        x = functional.batch_norm(x, mean, variance, gamma, beta, training=True, momentum=1.0, eps=epsilon)
        if not names.is_output_first:
            n_values = x.numel() // x.shape[1]
            variance = variance * ((n_values - 1) / n_values)  # PyTorch keeps the unbiased variance; Keras this one
        for moving, batch in ((moving_mean, mean), (moving_variance, variance)):
            moving.mul_(BATCH_NORM_MOMENTUM).add_(batch, alpha=1 - BATCH_NORM_MOMENTUM)
        return x

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(x)

    def hard_swish(self, x: torch.Tensor) -> torch.Tensor:
        return functional.hardswish(x)

    def sigmoid(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)

    def dropout(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        return functional.dropout(x, rate, self.module.training)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y

    def scale(self, x: torch.Tensor, gains: torch.Tensor, axis: str) -> torch.Tensor:
        shape = [1] * 4
        shape[0], shape[TORCH_AXES[axis]] = gains.shape
        return x * gains.reshape(shape)

    def max_pool(self, x: torch.Tensor, *, size: int, stride: int) -> torch.Tensor:
        x, padding = _pad_same(x, size, stride, value=float("-inf"))
        return functional.max_pool2d(x, size, stride, padding)

    def avg_pool(self, x: torch.Tensor, *, size: tuple[int, int], stride: int, padding: str = "none") -> torch.Tensor:
        ends = tuple((n - 1) // 2 if padding == "symmetric" else 0 for n in size)
        return functional.avg_pool2d(x, size, stride, ends)

    def spatial_mean(self, x: torch.Tensor) -> torch.Tensor:
        return self.axis_mean(x, "channels")

    def spatial_max(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).max(2).values  # unlike amax, one of equal values has the whole gradient

    def width_mean(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(TORCH_AXES["width"], keepdim=True)

    def axis_mean(self, x: torch.Tensor, axis: str) -> torch.Tensor:
        return x.mean([TORCH_AXES[other] for other in AXES if other != axis])

    def transpose(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(2, 3)

    def flatten(self, x: torch.Tensor) -> torch.Tensor:
        return _channels_last(x).flatten(1)

    def dense(self, x: torch.Tensor, layer: str, units: int, *, names: Names = KERAS_NAMES) -> torch.Tensor:
        weight, bias = (self.tensor(name) for name in names.layer(layer))
        return functional.linear(x, weight if names.is_output_first else weight.T, bias)

    def pointwise_dense(self, x: torch.Tensor, layer: str, units: int, *, names: Names = KERAS_NAMES) -> torch.Tensor:
        return _channels_first(self.dense(_channels_last(x), layer, units, names=names))


class TorchNetwork(torch.nn.Module):
    """A network as a module; its parameters have the published names and layouts.

    The keys of its ``state_dict()`` are the published names, such as ``layer1/conv/kernel`` (height, width,
    in, out) or ``features.0.0.weight`` (out, in, height, width); the moving moments of batch norms are
    buffers. ``train()`` and ``eval()`` act on batch norms and dropout alone: to train with the published
    moments, leave the module in ``eval()``.

    Parameters
    ----------
    network : function over ``Ops``
    weights : mapping of str to float32 ndarray
        Published names and layouts; copied.
    arguments : mapping
        Keyword arguments of the network.

    Source: the originals that ``audioset.networks`` names. In evaluation and float32, YAMNet's scores are
    within 1.8e-6 of the original's on stored references, and embeddings within 1.4e-6 (YAMNet) and 1.8e-6
    (VGGish) of their largest value; the original's own float32 rounding is as large. For EfficientAT's mn04_as,
    which is a PyTorch network, both are within 6e-7.
    """

    def __init__(self, network: Network, weights: Mapping[str, FloatArray], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.arguments = dict(arguments)
        for name, value in weights.items():
            owner, _, attribute = name.rpartition(".")
            module = _make_submodule(self, owner)
            if name.endswith(MOMENTS):
                module.register_buffer(attribute, torch.tensor(value))
            else:
                module.register_parameter(attribute, torch.nn.Parameter(torch.tensor(value)))

    def forward(self, patches: torch.Tensor) -> Outputs[torch.Tensor]:
        """Run the network.

        Parameters
        ----------
        patches : tensor, shape (n_patches, n_frames, n_mels)
            Log-mel patches in the module's own dtype, float32 unless it was cast.

        Returns
        -------
        Outputs
            Tensors ``embeddings`` and, for a tagger, ``logits`` and ``scores``.
        """
        return self.network(TorchOps(self), patches.unsqueeze(1), **self.arguments)


def network_to_torch(network: Network, weights: Mapping[str, FloatArray], arguments: Mapping[str, Any]) -> TorchNetwork:
    """A network with its weights as a PyTorch module, ready to predict; call ``train()`` to train it.

    Parameters
    ----------
    network : function over ``Ops``
    weights : mapping of str to float32 ndarray
        Published names and layouts.
    arguments : mapping
        Keyword arguments of the network.

    Returns
    -------
    TorchNetwork
        In evaluation mode.
    """
    module = TorchNetwork(network, weights, arguments)
    module.eval()
    return module


def _make_submodule(module: torch.nn.Module, path: str) -> torch.nn.Module:
    """The module at a dotted path, made where it is not there: PyTorch allows no dots in a parameter's own name."""
    for name in path.split(".") if path else ():
        if name not in module._modules:
            module.add_module(name, torch.nn.Module())
        module = module.get_submodule(name)
    return module


def _conv(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, groups: int, padding: str
) -> torch.Tensor:
    """Convolution with a kernel (out, in / groups, height, width) and one of the two paddings."""
    kernel = weight.shape[2]
    if padding == "symmetric":
        return functional.conv2d(x, weight, bias, stride, (kernel - 1) // 2, groups=groups)
    x, ends = _pad_same(x, kernel, stride, value=0.0)
    return functional.conv2d(x, weight, bias, stride, ends, groups=groups)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    """(n, channels, height, width) to (n, height, width, channels), as a view."""
    return x.permute(0, 2, 3, 1)


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    """(n, height, width, channels) to (n, channels, height, width), as a view."""
    return x.permute(0, 3, 1, 2)


def _pad_same(x: torch.Tensor, size: int, stride: int, value: float) -> tuple[torch.Tensor, tuple[int, int]]:
    """Pad a map as TensorFlow does, or give the (height, width) padding that PyTorch adds by itself.

    PyTorch pads both ends alike, so a map that needs an odd sample at the end is padded here.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    (top, bottom), (left, right) = (_same_padding(length, size, stride) for length in x.shape[2:])
    if top == bottom and left == right:
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Samples before and after an axis so that ``ceil(length / stride)`` windows fit; the odd one after."""
    n_windows = -(-length // stride)
    total = max(0, (n_windows - 1) * stride + size - length)
    return total // 2, total - total // 2
