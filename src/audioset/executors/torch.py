"""Run a network in PyTorch (an extra): training, fine-tuning and CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from audioset.arrays import FloatArray
from audioset.errors import EngineError, MissingExtraError, UsageError
from audioset.executors.forks import check_not_forked
from audioset.networks.ops import (
    AXES,
    KERAS_NAMES,
    ROW_NAMES,
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

try:
    import torch
except ImportError as error:
    raise MissingExtraError("the PyTorch executor", "torch", "train") from error
from torch import Tensor
from torch.nn import functional

# Of a batch norm: stored with the weights, not trained.
MOMENTS = ("moving_mean", "moving_variance", "running_mean", "running_var")
TORCH_AXES = {"height": 2, "width": 3, "channels": 1}
INPUT_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "patches": lambda patches: patches.unsqueeze(1),
    "waveforms": lambda waveforms: waveforms[:, None, None],
    "embeddings": lambda embeddings: _floats(embeddings).transpose(1, 2).unsqueeze(3),
    "mask": lambda mask: _floats(mask)[:, None, :, None],
}


class TorchOps(Ops[Tensor]):
    """Executor that computes at once, with the tensors of a module.

    Feature maps are (patches, channels, height, width) in the ``channels_last`` memory format: a pointwise
    convolution is then one matrix product with the published kernel as it is, and ``flatten`` is free.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def tensor(self, name: str) -> Tensor:
        """A parameter or buffer by its published name."""
        owner, _, attribute = name.rpartition(".")
        value: Tensor = getattr(self.module.get_submodule(owner), attribute)
        return value

    def convolve(self, x: Tensor, convolution: Convolution) -> Tensor:
        weight, *biases = map(self.tensor, convolution.tensors)
        bias = biases[0] if convolution.bias else None
        weight = weight.permute(convolution.names.kernel_order)
        groups = convolution.groups or len(weight)
        if convolution.size == convolution.stride == (1, 1) and groups == 1 and convolution.names is not ROW_NAMES:
            return _channels_first(functional.linear(_channels_last(x), weight.flatten(1), bias))
        weight = weight if weight.dim() == 4 else weight.unsqueeze(2)
        ends = convolution.symmetric_ends
        if convolution.padding == "same":
            x, ends = _pad_same(x, convolution.size, convolution.stride, value=0.0)
        return functional.conv2d(x, weight, bias, convolution.stride, ends, convolution.dilation, groups)

    def normalise(self, x: Tensor, norm: BatchNorm) -> Tensor:
        if norm.axis != "channels":
            place = TORCH_AXES[norm.axis]
            return self.normalise(x.transpose(1, place), replace(norm, axis="channels")).transpose(1, place)
        *gains, beta, moving_mean, moving_variance = map(self.tensor, norm.tensors)
        gamma = gains[0] if norm.scale else None
        is_training = self.module.training
        if norm.names.is_output_first or not is_training:
            moments = moving_mean, moving_variance
            return functional.batch_norm(x, *moments, gamma, beta, is_training, 1 - norm.momentum, norm.epsilon)
        mean, variance = torch.zeros_like(moving_mean), torch.zeros_like(moving_variance)
        x = functional.batch_norm(x, mean, variance, gamma, beta, training=True, momentum=1.0, eps=norm.epsilon)
        n_values = x.numel() // x.shape[1]
        variance = variance * ((n_values - 1) / n_values)  # PyTorch gives the unbiased variance; Keras keeps this one
        for moving, batch in ((moving_mean, mean), (moving_variance, variance)):
            moving.mul_(norm.momentum).add_(batch, alpha=1 - norm.momentum)
        return x

    def relu(self, x: Tensor, limit: float | None = None) -> Tensor:
        return functional.relu(x) if limit is None else functional.hardtanh(x, 0.0, limit)

    def hard_swish(self, x: Tensor) -> Tensor:
        return functional.hardswish(x)

    def sigmoid(self, x: Tensor) -> Tensor:
        # With autocast, scores and what they are made of stay exact: near 1, bfloat16 knows steps of 0.004 only.
        is_rounded = x.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(x.device.type)
        return torch.sigmoid(x.float() if is_rounded else x)

    def softmax(self, x: Tensor) -> Tensor:
        return torch.softmax(x, TORCH_AXES["channels"])

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    def affine(self, x: Tensor, gain: float, offset: float) -> Tensor:
        return x * gain + offset

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)

    def l2_normalize(self, x: Tensor, epsilon: float) -> Tensor:
        return functional.normalize(x, dim=TORCH_AXES["channels"], eps=epsilon)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        return functional.dropout(x, rate, self.module.training)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y

    def scale(self, x: Tensor, gains: Tensor, axis: str) -> Tensor:
        shape = [1] * 4
        shape[0], shape[TORCH_AXES[axis]] = gains.shape
        return x * gains.reshape(shape).to(x.dtype)

    def concatenate(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], TORCH_AXES["channels"])

    def max_pool(self, x: Tensor, *, size: Size, stride: Size, padding: str = "same") -> Tensor:
        if padding == "none":
            return functional.max_pool2d(x, size, stride)
        x, ends = _pad_same(x, size, stride, value=float("-inf"))
        return functional.max_pool2d(x, size, stride, ends)

    def avg_pool(self, x: Tensor, *, size: tuple[int, int], stride: Size, padding: str = "none") -> Tensor:
        ends = tuple((n - 1) // 2 if padding == "symmetric" else 0 for n in size)
        return functional.avg_pool2d(x, size, stride, ends)

    def spatial_max(self, x: Tensor) -> Tensor:
        return x.flatten(2).max(2).values  # unlike amax, one of equal values has the whole gradient

    def width_mean(self, x: Tensor) -> Tensor:
        return x.mean(TORCH_AXES["width"], keepdim=True)

    def height_mean(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        height = TORCH_AXES["height"]
        if weights is None:
            return x.mean(height, keepdim=True)
        shares = weights / weights.sum(height, keepdim=True)
        return (x * shares).sum(height, keepdim=True)

    def height_max(self, x: Tensor) -> Tensor:
        return x.max(TORCH_AXES["height"], keepdim=True).values

    def draw_rows(self, x: Tensor, mask: Tensor | None, n_rows: int) -> tuple[Tensor, Tensor | None]:
        if not self.module.training:
            return x, mask
        n_maps, n_channels, height, width = x.shape
        lengths = height if mask is None else mask.sum(TORCH_AXES["height"], keepdim=True)
        drawn = (torch.rand(n_maps, 1, n_rows, 1, device=x.device) * lengths).long()
        return x.gather(TORCH_AXES["height"], drawn.expand(-1, n_channels, -1, width)), None

    def axis_mean(self, x: Tensor, axis: str) -> Tensor:
        return x.mean([TORCH_AXES[other] for other in AXES if other != axis])

    def attention_mean(self, x: Tensor, weights: Tensor, limit: float) -> Tensor:
        height = TORCH_AXES["height"]
        shares = torch.softmax(weights.clamp(-limit, limit), height)
        return (x * shares).sum([height, TORCH_AXES["width"]])

    def transpose(self, x: Tensor) -> Tensor:
        return x.transpose(2, 3)

    def spread(self, x: Tensor, width: int) -> Tensor:
        neighbours: Tensor = x.squeeze(2).unflatten(1, (-1, width))
        return neighbours.transpose(2, 3)

    def rows(self, x: Tensor) -> Tensor:
        return x.squeeze(3).transpose(1, 2)

    def flatten(self, x: Tensor) -> Tensor:
        return _channels_last(x).flatten(1)

    def dense(self, x: Tensor, layer: str, units: int, *, bias: bool = True, names: Names = KERAS_NAMES) -> Tensor:
        weight, *biases = (self.tensor(name) for name in names.layer(layer, bias=bias))
        return functional.linear(x, weight if names.is_output_first else weight.T, biases[0] if bias else None)

    def mixture(self, gates: Tensor, experts: Tensor, n_experts: int) -> Tensor:
        shares = torch.softmax(gates.unflatten(1, (-1, n_experts + 1)), 2)[..., :n_experts]
        scores: Tensor = (shares * experts.unflatten(1, (-1, n_experts))).sum(2)
        return scores

    def lstm(self, x: Tensor, mask: Tensor | None, layers: Sequence[str], units: int, forget_bias: float) -> Tensor:
        rows = self.rows(x)
        weights = [weight for layer in layers for weight in self._lstm_weights(layer, units, forget_bias)]
        start = rows.new_zeros(len(layers), len(rows), units)
        outputs: Tensor
        # with biases, so many layers, no dropout, one direction, maps first
        options = (True, len(layers), 0.0, self.module.training, False, True)
        outputs, *_ = torch.lstm(rows, (start, start), weights, *options)
        if mask is None:
            return outputs[:, -1]
        last = mask.sum(TORCH_AXES["height"]).long().reshape(-1, 1, 1) - 1
        return outputs.gather(1, last.expand(-1, 1, units)).squeeze(1)

    def _lstm_weights(self, layer: str, units: int, forget_bias: float) -> list[Tensor]:
        """A layer's weights in PyTorch's layout; the second bias is the one of the forget gates."""
        kernel, bias = self.tensor(f"{layer}/kernel"), self.tensor(f"{layer}/bias")
        order = [0, 2, 1, 3]  # forget gates before candidates
        matrix = kernel.unflatten(1, (4, units))[:, order].flatten(1).T
        bias = bias.unflatten(0, (4, units))[order].flatten()
        forget = bias.new_zeros(4, units)
        forget[1] = forget_bias
        n_in = len(kernel) - units
        return [matrix[:, :n_in].contiguous(), matrix[:, n_in:].contiguous(), bias, forget.flatten()]


class TorchNetwork(torch.nn.Module):
    """A network as a module; its parameters have the published names and layouts.

    The keys of its ``state_dict()`` are the published names, such as ``layer1/conv/kernel`` (height, width, in, out) or
    ``features.0.0.weight`` (out, in, height, width); the moving moments of batch norms are buffers. ``train()`` and
    ``eval()`` act on batch norms and dropout alone: to train with the published moments, leave the module in
    ``eval()``. Weights, float32 by their published names and layouts, are copied.

    Source: the originals that ``audioset.networks`` names. In evaluation and float32, YAMNet's scores are
    within 1.8e-6 of the original's on stored references, and embeddings within 1.4e-6 (YAMNet) and 1.8e-6
    (VGGish) of their largest value; the original's own float32 rounding is as large. For EfficientAT's mn04_as,
    which is a PyTorch network, both are within 6e-7.
    """

    def __init__(self, network: Network, weights: Mapping[str, FloatArray], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.inputs = input_names(network)  # what it takes: "patches", "waveforms", or both
        self.arguments = dict(arguments)  # of the network
        for name, value in weights.items():
            owner, _, attribute = name.rpartition(".")
            module = _make_submodule(self, owner)
            if name.endswith(MOMENTS):
                module.register_buffer(attribute, torch.tensor(value))
            else:
                module.register_parameter(attribute, torch.nn.Parameter(torch.tensor(value)))

    def forward(self, *inputs: Tensor) -> Outputs[Tensor]:
        """Run the network on what ``inputs`` says; UsageError if there are more or fewer.

        In the module's own dtype, float32 unless it was cast: log-mel patches (n_patches, n_frames, n_mels), and the
        samples of each patch (n_patches, n_samples); or embeddings (n_clips, n_seconds, embedding_size) and their mask
        (n_clips, n_seconds), which may also be whole numbers, such as the bytes of the released features.
        ``embeddings`` come out and, for a tagger, ``logits`` and ``scores``.
        """
        if len(inputs) != len(self.inputs):
            raise UsageError(
                f"{len(inputs)} tensors arrived; this network takes {' and '.join(self.inputs)}. "
                'Next step: Model.to_torch(input="waveform") makes them itself'
            )
        maps = [INPUT_MAPS[name](values) for name, values in zip(self.inputs, inputs, strict=True)]
        return self.network(TorchOps(self), *maps, **self.arguments)


def network_to_torch(network: Network, weights: Mapping[str, FloatArray], arguments: Mapping[str, Any]) -> TorchNetwork:
    """A network with its weights as a PyTorch module, ready to predict; call ``train()`` to train it.

    Weights are float32, with published names and layouts.
    """
    module = TorchNetwork(network, weights, arguments)
    module.eval()
    return module


class TorchEngine:
    """A network that PyTorch computes, on the processor. One thread may call it at once; PyTorch uses the cores.

    bf16 is PyTorch's autocast: products in bfloat16, sums and what is sensitive in float32; EngineError if the
    processor lacks it. Weights are float32, with published names and layouts.
    """

    name = "torch"
    n_threads = 1

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, FloatArray],
        arguments: Mapping[str, Any],
        precision: str,
        n_cores: int,
    ) -> None:
        check_not_forked("PyTorch")
        if precision == "bf16" and not _has_bf16():
            raise EngineError(
                "bf16 is asked for, and PyTorch finds no bfloat16 instructions in this processor. "
                'Next step: precision="f32"',
                code="precision",
            )
        self._network = network_to_torch(network, weights, arguments)
        self._is_bf16 = precision == "bf16"
        self._n_cores = n_cores

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """Run the network; parameters, result and errors as ``OpenVinoEngine``."""
        check_not_forked("PyTorch")
        tensors = [torch.tensor(values) for values in inputs]
        with (
            _cores(self._n_cores),
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=self._is_bf16),
        ):
            outputs = self._network(*tensors)
        seen = ("embeddings", "scores", "framewise")
        values = {name: value for name, value in vars(outputs).items() if value is not None and name in seen}
        return Outputs(**{name: value.float().contiguous().numpy() for name, value in values.items()})


def _has_bf16() -> bool:
    """Whether this processor has instructions for bfloat16, as far as PyTorch knows."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(is_there for name, is_there in capabilities.items() if name.endswith("bf16"))


@contextmanager
def _cores(n_cores: int) -> Iterator[None]:
    """Let PyTorch compute on so many cores; afterwards on as many as before, which belongs to the whole process."""
    n_before = torch.get_num_threads()
    if n_cores == n_before:
        yield
        return
    torch.set_num_threads(n_cores)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)


def _make_submodule(module: torch.nn.Module, path: str) -> torch.nn.Module:
    """The module at a dotted path, made where it is not there: PyTorch allows no dots in a parameter's own name."""
    for name in path.split(".") if path else ():
        if name not in module._modules:
            module.add_module(name, torch.nn.Module())
        module = module.get_submodule(name)
    return module


def _floats(values: Tensor) -> Tensor:
    """Numbers as a network takes them: bytes travel to a device as bytes."""
    return values if values.is_floating_point() else values.float()


def _channels_last(x: Tensor) -> Tensor:
    """(n, channels, height, width) to (n, height, width, channels), as a view."""
    return x.permute(0, 2, 3, 1)


def _channels_first(x: Tensor) -> Tensor:
    """(n, height, width, channels) to (n, channels, height, width), as a view."""
    return x.permute(0, 3, 1, 2)


def _pad_same(x: Tensor, size: Size, stride: Size, value: float) -> tuple[Tensor, tuple[int, int]]:
    """Pad a map as TensorFlow does, or give the (height, width) padding that PyTorch adds by itself.

    PyTorch pads both ends alike, so a map that needs an odd sample at the end is padded here.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    (top, bottom), (left, right) = map(_same_padding, x.shape[2:], both(size), both(stride))
    if top == bottom and left == right:
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """Samples before and after an axis so that ``ceil(length / stride)`` windows fit; the odd one after."""
    n_windows = -(-length // stride)
    total = max(0, (n_windows - 1) * stride + size - length)
    return total // 2, total - total // 2
