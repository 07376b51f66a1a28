"""Everything that changes in the course of a training, so that it can be stored and restored as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from audioset.arrays import Int64Array
from audioset.executors.torch import TorchNetwork
from audioset.train.checkpoint import Record, Weights

WARM_UP = 10  # iterations, roughly, before the decay of a moving average is what was asked for
COUNTERS = ("iteration", "epoch", "batch", "loss_sum", "n_losses", "best_score", "n_stale")


class Sampler(Protocol):
    """An endless source of batches, determined by its seed and a few counters."""

    def next_batch(self) -> Int64Array:
        """Positions of the next batch's clips, at most as many as a batch has."""
        ...

    def state(self) -> dict[str, Int64Array]:
        """Where it stands, as a few small arrays."""
        ...

    def restore(self, state: Mapping[str, Int64Array]) -> None:
        """Go to where the sampler stood that ``state`` is from."""
        ...


class MovingAverage:
    """Exponential moving average of weights and moments, of which ``decay`` is kept in an iteration.

    In the beginning the decay is lower, (1 + i) / (10 + i) after i iterations, so that the first weights are forgotten.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self.weights = copied(weights)
        self._decay = decay

    def update(self, weights: Mapping[str, torch.Tensor], iteration: int) -> None:
        """Take in the weights after an iteration."""
        decay = min(self._decay, (1 + iteration) / (WARM_UP + iteration))
        torch._foreach_lerp_(list(self.weights.values()), [weights[name] for name in self.weights], 1 - decay)


class Mean:
    """Mean of some weights, or of other tensors, that are not all kept; empty before the first."""

    def __init__(self) -> None:
        self.tensors: Weights = {}
        self.n_members = 0

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take in one more."""
        self.n_members += 1
        if not self.tensors:
            self.tensors = copied(tensors)
            return
        torch._foreach_lerp_(list(self.tensors.values()), [tensors[name] for name in self.tensors], 1 / self.n_members)


class TrainingState:
    """A training after some iterations; ``sampler`` is what chooses batches, if it has a state of its own."""

    def __init__(
        self, module: TorchNetwork, optimizer: torch.optim.Optimizer, ema: float, sampler: Sampler | None = None
    ) -> None:
        self.module, self.optimizer, self.sampler = module, optimizer, sampler
        self.moving = MovingAverage(module.state_dict(), ema) if ema else None
        self.mean = Mean()  # of the weights or the scores of chosen iterations
        self.iteration = self.epoch = self.batch = 0  # batches and passes so far, and batches of this pass
        self.loss_sum, self.n_losses = 0.0, 0  # of the batches since the last line of the measurements
        self.best_score, self.n_stale = -1.0, 0  # on held-out clips, and how many measurements ago
        self.best: Weights = {}  # that had it

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

    def note_score(self, score: float, weights: Weights) -> None:
        """Compare with the best so far, on held-out clips; of equal ones the later one's weights are kept."""
        self.n_stale = 0 if score > self.best_score else self.n_stale + 1
        if score >= self.best_score:
            self.best_score, self.best = score, copied(weights)

    def tensors(self) -> Weights:
        """All tensors by name, and in ``record`` all else; a parameter that was never trained has no moments."""
        moments = self.optimizer.state
        groups = {
            "weights": self.module.state_dict(),
            "moving": self.moving.weights if self.moving else {},
            "mean": self.mean.tensors,
            "best": self.best,
            "sampler": {k: torch.from_numpy(v) for k, v in self.sampler.state().items()} if self.sampler else {},
            **{f"optimizer.{k}": moments[v] for k, v in self.module.named_parameters() if v in moments},
        }
        return {f"{group}:{name}": value for group, tensors in groups.items() for name, value in tensors.items()}

    def record(self) -> Record:
        """What is no tensor."""
        return {"n_members": self.mean.n_members, **{name: getattr(self, name) for name in COUNTERS}}

    def restore(self, tensors: Weights, record: Record) -> None:
        """Go to where the run stood that these are from."""
        groups: dict[str, Weights] = {}
        device = next(self.module.parameters()).device
        for name, value in tensors.items():
            group, _, own_name = name.partition(":")
            groups.setdefault(group, {})[own_name] = value if group == "sampler" else value.to(device)
        self.module.load_state_dict(groups["weights"])
        for name, parameter in self.module.named_parameters():
            if f"optimizer.{name}" in groups:
                self.optimizer.state[parameter] = groups[f"optimizer.{name}"]
        if self.sampler:
            self.sampler.restore({name: value.numpy() for name, value in groups["sampler"].items()})
        if self.moving:
            self.moving.weights = groups["moving"]
        self.mean.tensors, self.mean.n_members = groups.get("mean", {}), record["n_members"]
        self.best = groups.get("best", {})
        for name in COUNTERS:
            setattr(self, name, record[name])


def copied(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Tensors of their own, outside any graph."""
    return {name: value.detach().clone() for name, value in weights.items()}
