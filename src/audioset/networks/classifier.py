"""A classifier of your own sounds: a published network without its classes, and new layers on its embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audioset.networks.mobilenet import mobilenet
from audioset.networks.ops import Network, Ops, Outputs, Tensor
from audioset.networks.panns import panns_cnn, panns_mobilenet, panns_mobilenet_v2, panns_resnet
from audioset.networks.vgg16 import vgg16
from audioset.networks.vggish import vggish
from audioset.networks.yamnet import yamnet

# Networks of patches that can do without classes, by name.
BACKBONES: dict[str, Network] = {
    network.__name__: network
    for network in (yamnet, vggish, vgg16, mobilenet, panns_cnn, panns_resnet, panns_mobilenet, panns_mobilenet_v2)
}
WITHOUT_CLASSES: dict[str, dict[str, Any]] = {
    name: {} if name == "vggish" else {"n_classes": None} for name in BACKBONES
}
ACTIVATIONS = ("softmax", "sigmoid")
HIDDEN, LOGITS = "classifier/hidden", "classifier/logits"  # layers


def classifier(
    ops: Ops[Tensor],
    patches: Tensor,
    backbone: str = "yamnet",
    n_classes: int = 2,
    *,
    backbone_arguments: Mapping[str, Any] | None = None,
    hidden_size: int = 0,
    dropout: float = 0.0,
    activation: str = "softmax",
) -> Outputs[Tensor]:
    """Scores and embeddings of patches, by layers of one's own on a published network.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        As the backbone's frontend makes them.
    backbone : str
        One of ``BACKBONES``.
    n_classes : int
    backbone_arguments : mapping, optional
        Its keyword arguments, but for ``n_classes``.
    hidden_size : int
        Units of a layer with ReLU between embeddings and logits; 0 for none.
    dropout : float
        Share of what the last layer sees that is left out in training.
    activation : {"softmax", "sigmoid"}
        Softmax where each clip has one class, sigmoid where it may have several or none.

    Returns
    -------
    Outputs
        ``embeddings`` of the backbone; ``logits`` and ``scores`` (n_patches, n_classes).

    Raises
    ------
    TypeError
        For another backbone or activation, or arguments that the backbone does not take.
    """
    if backbone not in BACKBONES or activation not in ACTIVATIONS:
        raise TypeError(
            f"backbone is {backbone!r} and activation is {activation!r}; expected one of {', '.join(BACKBONES)}, and "
            f"one of {', '.join(ACTIVATIONS)}"
        )
    arguments = {**(backbone_arguments or {}), **WITHOUT_CLASSES[backbone]}
    embeddings = BACKBONES[backbone](ops, patches, **arguments).embeddings
    x = ops.relu(ops.dense(embeddings, HIDDEN, hidden_size)) if hidden_size else embeddings
    logits = ops.dense(ops.dropout(x, dropout), LOGITS, n_classes)
    scores = ops.softmax(logits) if activation == "softmax" else ops.sigmoid(logits)
    return Outputs(embeddings=embeddings, logits=logits, scores=scores)
