"""The primitives as training on a processor wants them: the same results, or the same distribution, in less time.

Of a step of Kong's heads in PyTorch as it comes, a sixth is spent on drawing random numbers for dropout, one by one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from audioset.executors.torch import INPUT_MAPS, TorchNetwork, TorchOps
from audioset.networks.ops import BatchNorm, Outputs

LEVELS = 1 << 16  # of a random number


class TrainingOps(TorchOps):
    """Executor of one training step; ``rng`` is for dropout on a processor, all else has PyTorch's generator."""

    def __init__(self, module: torch.nn.Module, rng: np.random.Generator) -> None:
        super().__init__(module)
        self.rng = rng

    def normalise(self, x: torch.Tensor, norm: BatchNorm) -> torch.Tensor:
        """As ``TorchOps``, but on a matrix: the layout of a map one column wide is not recognised as channels last."""
        if norm.axis != "channels" or x.dim() != 4 or not x.permute(0, 2, 3, 1).is_contiguous():
            return super().normalise(x, norm)
        rows = x.permute(0, 2, 3, 1)
        return super().normalise(rows.flatten(0, 2), norm).view(rows.shape).permute(0, 3, 1, 2)

    def dropout(self, x: torch.Tensor, rate: float) -> torch.Tensor:
        """As ``TorchOps``, by 16 random bits for each number, to which ``rate`` is rounded."""
        level = round(rate * LEVELS)
        if not self.module.training or x.device.type != "cpu" or not 0 < level < LEVELS:
            return super().dropout(x, rate)
        return x * self._gains(x, level)

    def clip(self, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
        """As ``TorchOps``, with a gradient that is one pass and not four."""
        return functional.hardtanh(x, low, high)

    def multiply(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As ``TorchOps``; a mask does not make float32 of a map in bfloat16."""
        return x * _as_mask(y, x)

    def height_mean(self, x: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """As ``TorchOps``, dividing each sum and not each weight, and without a copy in float32."""
        if weights is None:
            return x.sum(2, keepdim=True) / x.shape[2]
        weights = _as_mask(weights, x)
        total = (x * weights).sum(2, keepdim=True, dtype=torch.float32)
        return total / weights.sum(2, keepdim=True, dtype=torch.float32)

    def _gains(self, x: torch.Tensor, level: int) -> torch.Tensor:
        """0 in ``level`` of 65,536 cases, else what keeps the mean; in the layout of ``x``."""
        words = self.rng.integers(0, 1 << 64, math.ceil(x.numel() / 4), np.uint64)
        is_kept = torch.from_numpy(words.view(np.int16)[: x.numel()]).ge_(level - LEVELS // 2)
        gain = LEVELS / (LEVELS - level)
        if x.dtype == torch.bfloat16:  # 0 and 1 times its bits are two of its numbers, and nothing is converted
            gains = is_kept.mul_(int(torch.tensor(gain, dtype=x.dtype).view(torch.int16))).view(x.dtype)
        else:
            gains = is_kept.to(x.dtype).mul_(gain)
        strides, sizes = x.stride(), x.shape
        order = sorted(range(x.dim()), key=lambda axis: (-strides[axis], -sizes[axis]))
        inverse = [order.index(axis) for axis in range(x.dim())]
        return gains.view([sizes[axis] for axis in order]).permute(inverse)


def _as_mask(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A map of one channel, which is a mask of zeros and ones, in the dtype of another; others as they are."""
    return y.to(x.dtype) if y.shape[1] == 1 else y


def forward(module: TorchNetwork, rng: np.random.Generator, *inputs: torch.Tensor) -> Outputs[torch.Tensor]:
    """Run a module for a training step; parameters and result as ``TorchNetwork.forward``."""
    maps = [INPUT_MAPS[name](values) for name, values in zip(module.inputs, inputs, strict=True)]
    return module.network(TrainingOps(module, rng), *maps, **module.arguments)


def binary_cross_entropy(
    outputs: Outputs[torch.Tensor], targets: torch.Tensor, class_weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum over clips and classes of the binary cross-entropy: of each branch, or by logits where there are any."""
    if outputs.branches is not None:
        losses = torch.stack([_cross_entropy(branch.flatten(1), targets) for branch in outputs.branches]).sum(0)
    elif outputs.logits is not None:
        losses = functional.binary_cross_entropy_with_logits(outputs.logits.float(), targets, reduction="none")
    elif outputs.scores is not None:
        losses = _cross_entropy(outputs.scores, targets)
    return (losses if class_weights is None else losses * class_weights).sum()


def _cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each clip and class, by scores."""
    scores = scores.float()
    # Means of scores may be above 1 by a rounding error. PyTorch stops at NaN without a word on what to do.
    allowed = scores.nan_to_num(0.5).clamp(0, 1)
    return functional.binary_cross_entropy(allowed, targets, reduction="none") + 0 * scores
