"""Published models, and models of one's own, as what new classes are put upon."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audioset import __version__
from audioset.arrays import FloatArray
from audioset.errors import UsageError
from audioset.models.cards import FRONTENDS, network_shapes
from audioset.models.folders import digest_model, load_weights, prepare_model
from audioset.networks.classifier import BACKBONES, HIDDEN, LOGITS
from audioset.weights.model_folder import ModelCard

SHORT, SHORT_S = "_2s", 2.0  # how frontends for short clips are named, and what is short


@dataclass(frozen=True)
class Head:
    """New layers on embeddings."""

    weights: Mapping[str, FloatArray]  # ``classifier/logits/kernel`` and ``bias``, and those of a hidden layer, if any
    hidden_size: int  # 0 for none
    activation: str  # softmax or sigmoid


@dataclass(frozen=True)
class Backbone:
    """A network that gives embeddings of patches."""

    name: str  # as the caller gave it: a published name, or the path of a model folder
    card: ModelCard
    folder: Path  # with its weights

    @property
    def network(self) -> str:
        """Name of the network; of a classifier, of what is below its own layers."""
        inner: str = self.card.arguments["backbone"] if self.is_classifier else self.card.network
        return inner

    @property
    def arguments(self) -> dict[str, Any]:
        """Its keyword arguments, but for the number of classes."""
        arguments = self.card.arguments.get("backbone_arguments", {}) if self.is_classifier else self.card.arguments
        return {name: value for name, value in arguments.items() if name != "n_classes"}

    @property
    def is_classifier(self) -> bool:
        """Whether it has learned classes of somebody's own already, which new ones take the place of."""
        return self.card.network == "classifier"

    def fingerprint(self) -> str:
        """Identity of the embeddings that it gives."""
        identity = f"{digest_model(self.card, self.folder)}:{__version__}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def with_head(
        self,
        head: Head,
        classes: tuple[str, ...],
        source: Mapping[str, Any],
        calibration: Mapping[str, Any] | None = None,
    ) -> tuple[ModelCard, dict[str, FloatArray]]:
        """Card and weights of this network with new layers; ``source`` is where they come from, as JSON's types."""
        card = ModelCard(
            network="classifier",
            arguments={
                "backbone": self.network,
                "backbone_arguments": self.arguments,
                "n_classes": len(classes),
                "hidden_size": head.hidden_size,
                "activation": head.activation,
            },
            frontend=self.card.frontend,
            labels=list(classes),
            licence=self.card.licence,
            source={**source, "is_published": False, "backbone": {"name": self.name, **self.card.source}},
            calibration=None if calibration is None else dict(calibration),
        )
        own = set(network_shapes(card)) - set(head.weights)
        kept = {name: value for name, value in load_weights(self.card, self.folder).items() if name in own}
        return card, {**kept, **head.weights}


def find_backbone(name: str | os.PathLike[str], longest_s: float | None = None) -> Backbone:
    """A model by its name or folder, as something to put classes upon.

    Most clips last ``longest_s`` seconds at most. A network of whole clips hears clips of less than two seconds better
    with silence after them, up to two seconds, and recordings in windows of as much: it gets the frontend that does so,
    if there is one. UsageError if there is no such model, or it does not give embeddings of patches; AssetError or
    WeightsError if its weights are missing, cannot be fetched, or are not its network's.
    """
    card, folder = prepare_model(os.fspath(name))
    short = f"{card.frontend}{SHORT}"
    if longest_s is not None and longest_s <= SHORT_S and short in FRONTENDS:
        card = replace(card, frontend=short)
    backbone = Backbone(os.fspath(name), card, folder)
    if backbone.network not in BACKBONES:
        raise UsageError(
            f"{os.fspath(name)} is of the network {backbone.network!r}, whose embeddings cannot be built upon; "
            f"expected one of {', '.join(BACKBONES)}. Next step: choose yamnet, or another name that 'audioset models "
            "list' shows"
        )
    return backbone


def linear_head(kernel: FloatArray, bias: FloatArray, activation: str) -> Head:
    """A head of one layer: logits are ``embeddings @ kernel + bias``."""
    return Head({f"{LOGITS}/kernel": kernel, f"{LOGITS}/bias": bias}, 0, activation)


def hidden_head(hidden: tuple[FloatArray, FloatArray], logits: tuple[FloatArray, FloatArray], activation: str) -> Head:
    """A head of two layers, each a kernel and a bias, with a ReLU between them."""
    weights = {
        f"{layer}/{name}": value
        for layer, pair in ((HIDDEN, hidden), (LOGITS, logits))
        for name, value in zip(("kernel", "bias"), pair, strict=True)
    }
    return Head(weights, len(hidden[1]), activation)
