"""What is done to a batch before the network sees it."""

from __future__ import annotations

import numpy as np
import torch

from audioset.train.heads.config import TrainConfig
from audioset.train.heads.examples import Batch


class Preparation:
    """From a batch of clips to tensors.

    Parameters
    ----------
    config : TrainConfig
    class_counts : ndarray, shape (n_classes,)
        How many of the clips have each class.
    n_clips : int
    device : torch.device

    Attributes
    ----------
    class_weights : tensor, shape (n_classes,), float32, or None
    """

    def __init__(self, config: TrainConfig, class_counts: np.ndarray, n_clips: int, device: torch.device) -> None:
        self._mixup, self._smoothing, self._device = config.mixup, config.label_smoothing, device
        counts = torch.tensor(class_counts, dtype=torch.float32, device=device)
        self._frequencies = counts / n_clips
        power = config.class_weight_power if counts.any() else 0.0  # with no labels at all, no class is rarer
        self.class_weights = (counts.mean() / counts.clamp(min=1)) ** power if power else None

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings (n_clips, n_seconds, 128), mask (n_clips, n_seconds) and targets (n_clips, n_classes)."""
        arrays = (batch.embeddings, batch.mask, batch.targets)
        embeddings, mask, targets = (torch.from_numpy(array).to(self._device).float() for array in arrays)
        if self._smoothing:
            targets = torch.lerp(targets, self._frequencies, self._smoothing)
        if self._mixup:
            partners = torch.from_numpy(rng.permutation(len(targets))).to(self._device)
            drawn = rng.beta(self._mixup, self._mixup, (len(targets), 1)).astype(np.float32)
            shares = torch.from_numpy(np.maximum(drawn, 1 - drawn)).to(self._device)
            return mixup(embeddings, mask, targets, partners, shares)
        return embeddings, mask, targets


def mixup(
    embeddings: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix each clip with another one. A second that only one of the two has is that one's own.

    Parameters
    ----------
    embeddings : tensor, shape (n_clips, n_seconds, 128)
    mask : tensor, shape (n_clips, n_seconds)
    targets : tensor, shape (n_clips, n_classes)
    partners : tensor, shape (n_clips,), int64
        The other clip of each.
    shares : tensor, shape (n_clips, 1), in [0, 1]
        What each clip's own part counts.

    Returns
    -------
    embeddings, mask, targets : tensor

    Source: Zhang et al. 2018 (arXiv:1710.09412), with the larger share always the clip's own.
    """
    own, other = shares * mask, (1 - shares) * mask[partners]
    total = own + other
    own, other = (part / total.clamp(min=1e-6) for part in (own, other))
    mixed = own.unsqueeze(2) * embeddings + other.unsqueeze(2) * embeddings[partners]
    return mixed, (total > 0).float(), shares * targets + (1 - shares) * targets[partners]
