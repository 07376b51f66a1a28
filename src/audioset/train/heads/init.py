"""Weights to begin training with: drawn as the originals of the heads draw them, with NumPy alone.

>>> weights = init_weights("feature-attention", seed=1)
>>> weights["fc_final.weight"].shape
(527, 1024)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import UsageError
from audioset.models.postprocess import EMBEDDING_SIZE
from audioset.networks.heads import HEADS
from audioset.networks.ops import Network
from audioset.networks.shapes import trace_shapes

Draw = Callable[[np.random.Generator, tuple[int, ...]], Any]


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], limit: float) -> Any:
    return rng.uniform(-limit, limit, shape)


def _he_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Kong's, for (out, in, …)."""
    return _uniform(rng, shape, math.sqrt(6 / math.prod(shape[1:])))


def _torch_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """PyTorch's default, for (out, in)."""
    return _uniform(rng, shape, 1 / math.sqrt(shape[1]))


def _torch_bias(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """PyTorch's default, for the layer on Kong's last hidden one."""
    return _uniform(rng, shape, 1 / math.sqrt(HIDDEN_SIZE))


def _glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """TensorFlow's and Slim's default, for two sizes in any order."""
    return _uniform(rng, shape, math.sqrt(6 / sum(shape)))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """YouTube-8M's bag of frames, for (in, out)."""
    return rng.normal(0, 1 / math.sqrt(shape[0]), shape)


def _zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.zeros(shape)


def _ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.ones(shape)


HIDDEN_SIZE = 1024
# By the name of a tensor; the first that fits.
RULES: tuple[tuple[str, Draw], ...] = (
    ("*bn*.weight", _ones),
    ("*.running_var", _ones),
    ("clip_out.weight", _glorot_uniform),
    ("*/gamma", _ones),
    ("*/moving_variance", _ones),
    ("*.weight", _he_uniform),
    ("*/kernel", _glorot_uniform),
    ("*/weights", _glorot_uniform),
    ("*_weights", _normal),
    ("*", _zeros),  # biases, offsets and means
)
# The original forgets to initialise this head's last layer, so it has PyTorch's default.
AVERAGE_RULES: tuple[tuple[str, Draw], ...] = (
    ("fc_final.weight", _torch_uniform),
    ("fc_final.bias", _torch_bias),
    *RULES,
)


def init_weights(
    head: str | Network, arguments: Mapping[str, Any] | None = None, seed: int = 0
) -> dict[str, FloatArray]:
    """Weights that a head begins with, by published name; ``arguments`` are added to those of a named head.

    Each tensor depends on its name, its shape and the seed alone: heads that share a layer begin with the same one.
    Kong's heads, and our own: uniform within √(6 / fan-in), biases 0. With average pooling, the last layer has
    PyTorch's default, uniform within 1 / √fan-in, its bias too. YouTube-8M's, and the last layer of our own head's clip
    branch: uniform within √(6 / (fan-in + fan-out)), biases 0; the matrices of ``dbof``, normal with a deviation of 1 /
    √fan-in. Batch norms begin as the identity.

    Source: qiuqiangkong/audioset_classification, pytorch/models.py (init_layer, init_bn); google/youtube-8m,
    frame_level_models.py.
    """
    network, arguments = _resolve(head, dict(arguments or {}))
    try:
        shapes, _ = trace_shapes(network, (None, EMBEDDING_SIZE), arguments)
    except TypeError as error:
        raise UsageError(f"{network.__name__!r} cannot have the arguments {arguments}: {error}") from error
    rules = AVERAGE_RULES if arguments.get("pooling") == "average" else RULES
    return {name: _draw(rules, name, shape, seed) for name, shape in shapes.items()}


def _resolve(head: str | Network, arguments: dict[str, Any]) -> tuple[Network, dict[str, Any]]:
    """Network and arguments of a head that may be given by name."""
    if not isinstance(head, str):
        return head, arguments
    if head not in HEADS:
        raise UsageError(f"there is no head {head!r}; expected one of {', '.join(HEADS)}")
    return HEADS[head].network, {**HEADS[head].arguments, **arguments}


def _draw(rules: tuple[tuple[str, Draw], ...], name: str, shape: tuple[int, ...], seed: int) -> FloatArray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    draw = next(rule for pattern, rule in rules if fnmatchcase(name, pattern))
    values: FloatArray = np.asarray(draw(rng, shape), np.float32)
    return values
