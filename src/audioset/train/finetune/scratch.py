"""Networks whose published weights are not at hand, with weights that are drawn."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.cache import MODELS, is_whole, seal, writable_folder
from audioset.errors import AssetError
from audioset.files import explain_os_errors
from audioset.models.cards import NO_LABELS, network_shapes
from audioset.models.folders import prepare_model
from audioset.models.published import find_model
from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME, ModelCard, write_model_folder

logger = logging.getLogger(__name__)


DRAWN = ("vgg16", "vgg16_keras")  # published for photographs: their weights are a help for sounds, not the point


def prepare_or_draw(name: str, arguments: Mapping[str, Any] | None = None) -> tuple[ModelCard, Path]:
    """As ``models.folders.prepare_model``; a network of ``DRAWN`` may also begin from scratch, with a warning."""
    try:
        return prepare_model(name, arguments=arguments)
    except AssetError as error:
        if name not in DRAWN:
            raise
        logger.warning(
            "%s begins from scratch, which takes many more clips and passes: its weights are not here. %s", name, error
        )
        return _draw(name, arguments or {})


def _draw(name: str, arguments: Mapping[str, Any]) -> tuple[ModelCard, Path]:
    """A model folder in the cache with weights for ReLUs, always the same.

    Source: He et al. 2015 (arXiv 1502.01852), equation 10.
    """
    spec = find_model(name)
    card = ModelCard(
        network=spec.network,
        arguments={**spec.arguments, **arguments},
        frontend=spec.frontend,
        labels=NO_LABELS,
        licence="Apache-2.0",
        source={"file": "drawn", "is_published": False},
    )
    size = "-".join(f"{key}={value}" for key, value in sorted(arguments.items()))
    folder = writable_folder() / MODELS / f"{name}-drawn{size and '-'}{size}"
    files = (folder / WEIGHTS_NAME, folder / CARD_NAME)
    if not all(map(is_whole, files)):
        rng = np.random.default_rng(0)
        with explain_os_errors(folder):
            weights = {key: _he_normal(shape, rng) for key, shape in network_shapes(card).items()}
            write_model_folder(folder, card, weights)
            for path in files:
                seal(path)
    return card, folder


def _he_normal(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Weights with outputs first; zeros for a bias."""
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    drawn = rng.standard_normal(shape, np.float32)
    drawn *= math.sqrt(2 / math.prod(shape[1:]))
    return drawn
