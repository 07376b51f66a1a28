"""Everything that changes in the course of a run, so that it can be stored and restored as one."""

from __future__ import annotations

import torch

from audioset.arrays import FloatArray
from audioset.executors.torch import TorchNetwork, network_to_torch
from audioset.networks.heads import HEADS
from audioset.train.average import Mean, MovingAverage, Weights, copied
from audioset.train.checkpoint import Record, Tensors
from audioset.train.heads.config import TrainConfig
from audioset.train.heads.init import init_weights
from audioset.train.heads.optimisation import make_optimizer
from audioset.train.heads.samplers import Sampler, make_sampler
from audioset.train.heads.sparse_labels import SparseLabels

Scores = FloatArray


class TrainingState:
    """A run at one iteration.

    Parameters
    ----------
    config : TrainConfig
    labels : SparseLabels
        Of the clips to train on.
    device : torch.device

    Attributes
    ----------
    iteration : int
        Batches so far.
    module : TorchNetwork
    optimizer : torch.optim.Optimizer
    sampler : Sampler
    moving : MovingAverage or None
    mean : Mean
        Of the weights or the scores of chosen iterations.
    loss_sum, n_losses : float, int
        Of the iterations since the last line of the measurements.
    best_mean_ap, n_stale : float, int
        On the held-out clips, and how many measurements ago.
    best : dict of str to tensor
        The weights that had it.
    """

    def __init__(self, config: TrainConfig, labels: SparseLabels, device: torch.device) -> None:
        self.iteration = 0
        self.module = make_module(config).to(device)
        self.module.train()
        self.optimizer = make_optimizer(self.module, config)
        self.sampler: Sampler = make_sampler(
            config.sampler, labels, config.batch_size, config.seed, config.draws_per_pass
        )
        self.moving = MovingAverage(self.module.state_dict(), config.ema) if config.ema else None
        self.mean = Mean()
        self.loss_sum, self.n_losses = 0.0, 0
        self.best_mean_ap, self.n_stale = -1.0, 0
        self.best: Weights = {}

    @property
    def weights(self) -> Weights:
        """The weights that the run would end with: the moving average, if there is one."""
        return self.moving.weights if self.moving else self.module.state_dict()

    def note_loss(self, loss: float) -> None:
        """Count the loss of a batch."""
        self.loss_sum += loss
        self.n_losses += 1

    def take_loss(self) -> float:
        """Mean loss since the last time."""
        mean = self.loss_sum / max(1, self.n_losses)
        self.loss_sum, self.n_losses = 0.0, 0
        return mean

    def note_measurement(self, mean_ap: float, *, keeps_best: bool) -> None:
        """Compare with the best so far, on the held-out clips."""
        if mean_ap <= self.best_mean_ap:
            self.n_stale += 1
            return
        self.best_mean_ap, self.n_stale = mean_ap, 0
        if keeps_best:
            self.best = copied(self.weights)

    def tensors(self) -> Tensors:
        """All tensors by name, and in ``record`` all else."""
        groups = {
            "weights": self.module.state_dict(),
            "moving": self.moving.weights if self.moving else {},
            "mean": self.mean.tensors,
            "best": self.best,
            "sampler": {name: torch.from_numpy(value) for name, value in self.sampler.state().items()},
            **{f"optimizer.{name}": self.optimizer.state[value] for name, value in self.module.named_parameters()},
        }
        return {f"{group}:{name}": value for group, tensors in groups.items() for name, value in tensors.items()}

    def record(self) -> Record:
        """What is no tensor."""
        return {
            "iteration": self.iteration,
            "n_members": self.mean.n_members,
            "loss_sum": self.loss_sum,
            "n_losses": self.n_losses,
            "best_mean_ap": self.best_mean_ap,
            "n_stale": self.n_stale,
        }

    def restore(self, tensors: Tensors, record: Record) -> None:
        """Go to where the run stood that these are from."""
        groups: dict[str, Tensors] = {}
        device = next(self.module.parameters()).device
        for name, value in tensors.items():
            group, _, own_name = name.partition(":")
            groups.setdefault(group, {})[own_name] = value if group == "sampler" else value.to(device)
        self.module.load_state_dict(groups["weights"])
        for name, parameter in self.module.named_parameters():
            self.optimizer.state[parameter] = groups.get(f"optimizer.{name}", {})
        self.sampler.restore({name: value.numpy() for name, value in groups["sampler"].items()})
        if self.moving:
            self.moving.weights = groups["moving"]
        self.mean.tensors, self.mean.n_members = groups.get("mean", {}), record["n_members"]
        self.best = groups.get("best", {})
        self.iteration = record["iteration"]
        self.loss_sum, self.n_losses = record["loss_sum"], record["n_losses"]
        self.best_mean_ap, self.n_stale = record["best_mean_ap"], record["n_stale"]


def make_module(config: TrainConfig) -> TorchNetwork:
    """The network of a run with the weights that it begins with.

    Raises
    ------
    UsageError
        There is no such head, or it cannot have such arguments.
    """
    weights = init_weights(config.head, config.head_arguments, config.seed)
    spec = HEADS[config.head]
    return network_to_torch(spec.network, weights, {**spec.arguments, **config.head_arguments})
