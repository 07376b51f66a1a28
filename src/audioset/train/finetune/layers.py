"""Which layers are trained when, and with what steps: new ones first, then the network from the top down."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence

import torch

from audioset.errors import UsageError
from audioset.executors.torch import TorchNetwork
from audioset.networks.classifier import HIDDEN, LOGITS
from audioset.train.finetune.config import FinetuneConfig

N_STAGES = 8  # that the layers of a network are divided into, in the order in which it computes them
HEAD = N_STAGES  # the stage of the new layers
BETAS = (0.9, 0.98)


def find_stages(names: Iterable[str]) -> dict[str, int]:
    """The stage of each tensor, in the network's order: 0 for layers next to the sound, ``HEAD`` for the new ones."""
    layers = {name: _layer(name) for name in names}
    own = list(dict.fromkeys(layer for layer in layers.values() if layer not in (HIDDEN, LOGITS)))
    stages = {layer: place * N_STAGES // len(own) for place, layer in enumerate(own)}
    return {name: stages.get(layer, HEAD) for name, layer in layers.items()}


def find_frozen(names: Iterable[str], last_layer: str) -> frozenset[str]:
    """Tensors, in the network's order, of a layer and of all before it; none for an empty name.

    ``last_layer`` may be the beginning of the names of several: ``features.9`` is all of that block.
    """
    own = [name for name in names if _layer(name) not in (HIDDEN, LOGITS)]
    if not last_layer:
        return frozenset()
    places = [place for place, name in enumerate(own) if name.startswith((f"{last_layer}.", f"{last_layer}/"))]
    if not places:
        layers = list(dict.fromkeys(map(_layer, own)))
        near = difflib.get_close_matches(last_layer, layers, 3, 0) or layers[:3]
        raise UsageError(f"frozen_until is {last_layer!r}, and there is no such layer; near it: {', '.join(near)}")
    return frozenset(own[: places[-1] + 1])


def make_optimizer(module: TorchNetwork, stages: dict[str, int], config: FinetuneConfig) -> torch.optim.Optimizer:
    """AdamW with a group for each stage's matrices, and one for its biases and batch norms, which do not decay."""
    frozen = find_frozen(stages, config.frozen_until)
    groups: dict[tuple[int, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
            continue
        groups.setdefault((stages[name], parameter.dim() > 1), []).append(parameter)
    listed = [
        {"params": parameters, "stage": stage, "weight_decay": config.weight_decay * is_matrix}
        for (stage, is_matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    return torch.optim.AdamW(listed, lr=config.learning_rate, betas=BETAS, fused=True)


def prepare_epoch(module: TorchNetwork, optimizer: torch.optim.Optimizer, config: FinetuneConfig, epoch: int) -> None:
    """Let the layers learn whose turn it is; the others cost no gradients.

    With the new layers alone, the network is as it was published, batch norms included.
    """
    for group in optimizer.param_groups:
        _require_gradients(group["params"], epoch >= first_epoch(config, group["stage"]))
    module.train(epoch >= config.head_epochs and config.batch_norms == "adapt")


def first_epoch(config: FinetuneConfig, stage: int) -> float:
    """When a stage begins to learn, in epochs."""
    below_top = (N_STAGES - 1 - stage) / (N_STAGES - 1)
    return 0.0 if stage == HEAD else config.head_epochs + config.unfreeze_epochs * below_top


def learning_rate(config: FinetuneConfig, stage: int, progress: float) -> float:
    """That of a stage, after so much of the run: a rise, then half a cosine; lower stages have smaller steps."""
    height = stage / (N_STAGES - 1)
    relative = config.head_rate if stage == HEAD else config.bottom_rate ** (1 - height)
    warmth = min(1.0, progress / config.warm_up) if config.warm_up else 1.0
    return config.learning_rate * relative * warmth * (1 + math.cos(math.pi * progress)) / 2


def _require_gradients(parameters: Sequence[torch.nn.Parameter], is_trained: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(is_trained)


def _layer(name: str) -> str:
    """``features.0.0`` of ``features.0.0.weight``, ``layer1/conv`` of ``layer1/conv/kernel``."""
    return name[: max(name.rfind("."), name.rfind("/"))]
