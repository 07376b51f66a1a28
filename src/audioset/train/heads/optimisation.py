"""The optimizer and the course of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from audioset.train.heads.config import TrainConfig

# PyTorch's OneCycleLR with its defaults: it rises from 1/25 for 30 % of the iterations and falls to 1/250,000.
RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 250_000


def make_optimizer(module: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW. Only matrices decay, as biases and batch norms have no size to keep small."""
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    optimizer: torch.optim.Optimizer = kind(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )
    return optimizer


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """The learning rate of an iteration, the first of which is 1."""
    progress = (iteration - 1) / config.n_iterations
    warmth = min(1.0, iteration / config.warm_up) if config.warm_up else 1.0
    return config.learning_rate * warmth * SCHEDULES[config.schedule](progress)


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(progress: float) -> float:
    if progress < RISE:
        return 1 + (FIRST - 1) * _cosine(progress / RISE)
    return LAST + (1 - LAST) * _cosine((progress - RISE) / (1 - RISE))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
}
