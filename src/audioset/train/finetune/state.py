"""Everything that changes in the course of a fine-tuning, and the folder that it is kept in."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audioset.arrays import FloatArray
from audioset.errors import ConflictError
from audioset.executors.torch import network_to_torch
from audioset.models.cards import find_network, network_shapes, output_shapes
from audioset.models.folders import load_weights
from audioset.networks.classifier import HIDDEN, LOGITS
from audioset.train.average import MovingAverage, Weights, copied
from audioset.train.backbones import Backbone, Head
from audioset.train.checkpoint import CHECKPOINTS, CONFIG_NAME, Record, RunFolder, Tensors
from audioset.train.finetune.config import FinetuneConfig, read_finetune_config
from audioset.train.finetune.layers import find_stages, make_optimizer
from audioset.train.settings import differences
from audioset.weights.model_folder import ModelCard

RELATIVE_DEVIATION = 0.5  # of the new layers' first weights, against what keeps the size of what they see


class FinetuneState:
    """A run at one iteration.

    Parameters
    ----------
    card : ModelCard
        Of the network with new layers.
    weights : mapping of str to ndarray
        That it begins with.
    config : FinetuneConfig
    device : torch.device

    Attributes
    ----------
    epoch, iteration : int
        Passes and batches so far.
    batch : int
        Batches of this pass so far.
    module : TorchNetwork
    optimizer : torch.optim.Optimizer
    moving : MovingAverage or None
    best_score, n_stale : float, int
        On the held-out clips, and how many measurements ago.
    best : dict of str to tensor
        The weights that had it.
    loss_sum : float
        Of this pass.
    """

    def __init__(
        self, card: ModelCard, weights: dict[str, FloatArray], config: FinetuneConfig, device: torch.device
    ) -> None:
        arguments = {**card.arguments, "dropout": config.dropout}
        self.module = network_to_torch(find_network(card), weights, arguments).to(device)
        self.optimizer = make_optimizer(self.module, find_stages(network_shapes(card)), config)
        self.moving = MovingAverage(self.module.state_dict(), config.ema) if config.ema else None
        self.epoch = self.batch = self.iteration = self.n_stale = 0
        self.loss_sum, self.best_score = 0.0, -1.0
        self.best: Weights = {}

    @property
    def weights(self) -> Weights:
        """The weights that the run would end with: the moving average, if there is one."""
        return self.moving.weights if self.moving else self.module.state_dict()

    def note_score(self, score: float, weights: Weights) -> None:
        """Compare with the best so far, on the held-out clips; of equal ones the later one's weights are kept."""
        self.n_stale = 0 if score > self.best_score else self.n_stale + 1
        if score >= self.best_score:
            self.best_score, self.best = score, copied(weights)

    def tensors(self) -> Tensors:
        """All tensors by name, and in ``record`` all else."""
        groups = {
            "weights": self.module.state_dict(),
            "moving": self.moving.weights if self.moving else {},
            "best": self.best,
            **{f"optimizer.{name}": self.optimizer.state[value] for name, value in self._with_state()},
        }
        return {f"{group}:{name}": value for group, tensors in groups.items() for name, value in tensors.items()}

    def record(self) -> Record:
        """What is no tensor."""
        names = ("iteration", "epoch", "batch", "n_stale", "best_score", "loss_sum")
        return {name: getattr(self, name) for name in names}

    def restore(self, tensors: Tensors, record: Record) -> None:
        """Go to where the run stood that these are from."""
        groups: dict[str, Tensors] = {}
        device = next(self.module.parameters()).device
        for name, value in tensors.items():
            group, _, own_name = name.partition(":")
            groups.setdefault(group, {})[own_name] = value.to(device)
        self.module.load_state_dict(groups["weights"])
        for name, parameter in self.module.named_parameters():
            if f"optimizer.{name}" in groups:
                self.optimizer.state[parameter] = groups[f"optimizer.{name}"]
        if self.moving:
            self.moving.weights = groups["moving"]
        self.best = groups.get("best", {})
        for name in self.record():
            setattr(self, name, record[name])

    def _with_state(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Parameters that have been trained; the others have no moments."""
        return [item for item in self.module.named_parameters() if item[1] in self.optimizer.state]


class FinetuneFolder(RunFolder):
    """The folder of a run: as of other trainings, with settings of its own kind, and without checkpoints in the end."""

    def __init__(self, path: Path, config: FinetuneConfig, data_digest: str, *, is_writer: bool) -> None:
        settings: Any = config  # has what is asked of it
        super().__init__(path, settings, data_digest, is_writer=is_writer)

    def finished(self, card: ModelCard) -> Weights:
        """The weights of a run that has been here to its end, and perhaps was killed before all was cleared away."""
        self._clear()
        return {name: torch.from_numpy(value) for name, value in load_weights(card, self.path).items()}

    def signed(self, card: ModelCard) -> ModelCard:
        """The card with the settings and the data of the run."""
        return replace(card, source={**card.source, **self.provenance({})})

    def finish(self, card: ModelCard, weights: Any) -> None:
        """Write the model, and delete the checkpoints."""
        super().finish(card, weights)
        self._clear()

    def _clear(self) -> None:
        if self._is_writer:
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def _check_settings(self) -> None:
        path = self.path / CONFIG_NAME
        if not path.is_file():
            super()._check_settings()
            return
        changed = differences(self._config.as_dict(), read_finetune_config(path).as_dict())
        if changed:
            raise ConflictError(
                f"{self.path} holds a run with other settings ({'; '.join(changed)}). "
                "Next step: another --output, or delete the folder"
            )


def with_new_layers(
    backbone: Backbone, classes: tuple[str, ...], activation: str, config: FinetuneConfig, source: Record
) -> tuple[ModelCard, dict[str, FloatArray]]:
    """Card and weights of a network with new layers, whose weights are drawn from the seed alone."""
    return backbone.with_head(_new_head(backbone, len(classes), activation, config), classes, source)


def _new_head(backbone: Backbone, n_classes: int, activation: str, config: FinetuneConfig) -> Head:
    rng = np.random.default_rng(config.seed)
    sizes = [
        output_shapes(backbone.card).embeddings[0],
        *([config.hidden_size] if config.hidden_size else []),
        n_classes,
    ]
    layers = [HIDDEN, LOGITS] if config.hidden_size else [LOGITS]
    weights = {}
    for layer, n_in, n_out in zip(layers, sizes, sizes[1:], strict=False):
        deviation = RELATIVE_DEVIATION / np.sqrt(n_in)
        weights[f"{layer}/kernel"] = rng.normal(0, deviation, (n_in, n_out)).astype(np.float32)
        weights[f"{layer}/bias"] = np.zeros(n_out, np.float32)
    return Head(weights, config.hidden_size, activation)
