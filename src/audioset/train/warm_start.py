"""New layers on top of a published network, trained alone or together with it.

Source: tensorflow/models, research/audioset/vggish/vggish_train_demo.py, whose defaults are these:
100 hidden units, Adam with a learning rate of 1e-4 and an epsilon of 1e-8, sigmoid cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import MissingExtraError, UsageError
from audioset.executors.torch import TorchNetwork
from audioset.models.model import Model
from audioset.train.finite import no_number

try:
    import torch
except ImportError as error:
    raise MissingExtraError("audioset.train", "torch", "train") from error


BATCH_SIZE = 64  # of patches that are only computed
ADAM_EPSILON = 1e-8
INIT_DEVIATION = 0.01  # of the new layers' weights, as in vggish_params.py


class WarmStart(torch.nn.Module):
    """A published network with a new classifier of the user's own classes on its embeddings.

    Parameters
    ----------
    model : Model
        VGGish, YAMNet or a model folder.
    n_classes : int
    n_hidden : int
        Units of the one hidden layer; 0 makes the classifier linear.
    trains_network : bool
        Whether the published weights are trained too. If not, they stay as they are, bit for bit, and cost
        no gradients. The moments of batch norms stay in either case.

    Attributes
    ----------
    network : TorchNetwork
        The published network.
    classifier : torch.nn.Sequential
        The new layers, from embeddings to logits.

    Raises
    ------
    UsageError
        For numbers that make no network.
    MissingExtraError
        Without PyTorch.
    """

    def __init__(self, model: Model, n_classes: int, *, n_hidden: int = 100, trains_network: bool = False) -> None:
        super().__init__()
        if n_classes < 1 or n_hidden < 0:
            raise UsageError(
                f"n_classes is {n_classes} and n_hidden is {n_hidden}; expected 1 or more classes and 0 or more units"
            )
        self.network: TorchNetwork = model.to_torch()
        self.network.requires_grad_(trains_network)
        self.n_classes = n_classes
        self.classifier = _classifier(model.embedding_size, n_hidden, n_classes)

    @property
    def device(self) -> torch.device:
        """Where it computes; ``to("cuda")`` changes it."""
        return next(self.classifier.parameters()).device

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Logits (n_patches, n_classes) of log-mel patches (n_patches, n_frames, n_mels)."""
        return self.classify(self.network(patches).embeddings)

    def classify(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits (n_patches, n_classes) of the network's embeddings (n_patches, embedding_size)."""
        logits: torch.Tensor = self.classifier(torch.relu(embeddings))
        return logits

    def train(self, mode: bool = True) -> WarmStart:
        """Set the training mode of the new layers.

        The published network stays in evaluation mode: its batch norms keep the published moments, which the
        small batches of fine-tuning would spoil, while its weights may still be trained.
        """
        super().train(mode)
        self.network.eval()
        return self

    def scores(self, patches: FloatArray, *, batch_size: int = BATCH_SIZE) -> FloatArray:
        """Scores of patches.

        Parameters
        ----------
        patches : ndarray, shape (n_patches, n_frames, n_mels), float32
            As ``Model.patches`` gives them.
        batch_size : int
            Patches in memory at once.

        Returns
        -------
        ndarray, shape (n_patches, n_classes), float32
            In [0, 1], independent for each class.
        """
        inputs = torch.from_numpy(np.ascontiguousarray(patches))
        scores = _in_batches(lambda batch: torch.sigmoid(self(batch.to(self.device))).cpu(), inputs, batch_size)
        return scores.numpy()


def fit(
    warm_start: WarmStart,
    patches: FloatArray,
    targets: FloatArray,
    *,
    n_epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-4,
    seed: int = 0,
) -> list[float]:
    """Train on patches with Adam and sigmoid cross-entropy.

    Parameters
    ----------
    warm_start : WarmStart
        Changed in place.
    patches : ndarray, shape (n_patches, n_frames, n_mels), float32
        As ``Model.patches`` gives them.
    targets : ndarray, shape (n_patches, n_classes), in [0, 1]
    n_epochs : int
        Passes over all patches.
    batch_size : int
    learning_rate : float
    seed : int
        Of the order of the patches: the same seed gives the same result.

    Returns
    -------
    list of float
        The mean loss of each epoch.

    Raises
    ------
    UsageError
        If patches and targets do not belong together, patches are not finite, or the loss is no number.
    """
    _check_examples(patches, targets, warm_start.n_classes)
    arrays = (np.ascontiguousarray(array, np.float32) for array in (patches, targets))
    inputs, wanted = (torch.from_numpy(array).to(warm_start.device) for array in arrays)
    predict: Callable[[torch.Tensor], torch.Tensor] = warm_start
    if not any(parameter.requires_grad for parameter in warm_start.network.parameters()):
        # A network that stays as it is makes the same of the patches in every epoch, so once is enough.
        inputs, predict = _in_batches(lambda batch: warm_start.network(batch).embeddings, inputs), warm_start.classify
    trained = [parameter for parameter in warm_start.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=learning_rate, eps=ADAM_EPSILON)
    order = torch.Generator().manual_seed(seed)
    warm_start.train()
    history = []
    for epoch in range(n_epochs):
        total = 0.0
        for batch, indices in enumerate(torch.split(torch.randperm(len(inputs), generator=order), batch_size)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(predict(inputs[indices]), wanted[indices])
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, math.inf)
            if not torch.isfinite(loss + norm):
                place = f"epoch {epoch + 1}, batch {batch + 1}"
                raise no_number(loss.item(), float(norm), place, [f"patch {index}" for index in indices.tolist()])
            optimizer.step()
            total += loss.item() * len(indices)
        history.append(total / len(inputs))
    warm_start.eval()
    return history


def _in_batches(
    function: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, batch_size: int = BATCH_SIZE
) -> torch.Tensor:
    """A function of all inputs, a batch at a time and without gradients."""
    with torch.no_grad():
        return torch.cat([function(batch) for batch in torch.split(inputs, batch_size)])


def _classifier(n_inputs: int, n_hidden: int, n_classes: int) -> torch.nn.Sequential:
    sizes = [n_inputs, *([n_hidden] if n_hidden else []), n_classes]
    layers: list[torch.nn.Module] = []
    for size, next_size in pairwise(sizes):
        layer = torch.nn.Linear(size, next_size)
        torch.nn.init.trunc_normal_(layer.weight, std=INIT_DEVIATION, a=-2 * INIT_DEVIATION, b=2 * INIT_DEVIATION)
        torch.nn.init.zeros_(layer.bias)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _check_examples(patches: FloatArray, targets: FloatArray, n_classes: int) -> None:
    if len(patches) == 0:
        raise UsageError("there are no patches to train on. Likely cause: audio shorter than one patch")
    if np.shape(targets) != (len(patches), n_classes):
        raise UsageError(
            f"targets have shape {np.shape(targets)} for {len(patches)} patches and {n_classes} classes; expected "
            f"({len(patches)}, {n_classes}): the labels of a clip, repeated for each of its patches"
        )
    is_spoilt = ~np.isfinite(patches).reshape(len(patches), -1).all(axis=1)
    if is_spoilt.any():
        raise UsageError(
            f"patch {int(is_spoilt.argmax())} is not finite, as are {int(is_spoilt.sum())} of {len(patches)}; expected "
            "log-mel values as Model.patches gives them"
        )
    if not (np.isfinite(targets).all() and np.min(targets) >= 0 and np.max(targets) <= 1):
        raise UsageError("targets hold values outside [0, 1]; expected 1 where a class is heard and 0 where it is not")
