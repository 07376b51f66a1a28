"""A model that costs nearly nothing: YAMNet's patches through a network of 60,000 parameters with drawn weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audioset.models.cards import network_shapes
from audioset.weights.model_folder import ModelCard, write_model_folder

CARD = ModelCard(
    "mobilenet",
    {"width": 0.1, "n_classes": 8},
    "yamnet",
    [f"class {index}" for index in range(8)],
    "CC0-1.0",
    {"file": "drawn", "is_published": False},
)


def tiny_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Weights that keep the network's activations in a sensible range."""
    rng = np.random.default_rng(seed)
    return {name: _tensor(rng, name, shape) for name, shape in network_shapes(CARD).items()}


def write_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A model folder."""
    write_model_folder(folder, CARD, tiny_weights(seed))
    return folder


def _tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("var"):
        return rng.uniform(0.5, 2, shape).astype(np.float32)
    scale = 0.1 if len(shape) < 2 else np.sqrt(2 / np.prod(shape[1:]))
    return rng.normal(0, scale, shape).astype(np.float32)
