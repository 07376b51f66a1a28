"""Means of weights: of the recent ones, and of chosen iterations."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Weights = dict[str, torch.Tensor]

WARM_UP = 10  # iterations, roughly, before the decay of a moving average is what was asked for


class MovingAverage:
    """Exponential moving average of weights and moments.

    In the beginning its decay is lower, (1 + i) / (10 + i) after i iterations, so that the first weights are forgotten.

    Parameters
    ----------
    weights : mapping of str to tensor
        Where it begins; copied.
    decay : float
        What is kept of the average in an iteration.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self.weights = copied(weights)
        self._decay = decay

    def update(self, weights: Mapping[str, torch.Tensor], iteration: int) -> None:
        """Take in the weights after an iteration."""
        decay = min(self._decay, (1 + iteration) / (WARM_UP + iteration))
        torch._foreach_lerp_(list(self.weights.values()), [weights[name] for name in self.weights], 1 - decay)


class Mean:
    """Mean of some weights, or of other tensors, that are not all kept.

    Attributes
    ----------
    tensors : dict of str to tensor
        Their mean; empty before the first.
    n_members : int
    """

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


def copied(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Tensors of their own, outside any graph."""
    return {name: value.detach().clone() for name, value in weights.items()}
