"""Heads by definition, and the inputs that tests of heads share."""

from __future__ import annotations

import math

import numpy as np

from audioset.networks.heads import HEADS
from audioset.networks.shapes import trace_shapes
from audioset.weights.model_folder import ModelCard, write_model_folder

SHAPE = (None, 128)
PADDINGS = ("zero", "mask")
LENGTHS = np.array([6, 1, 4, 6])


def mask_of(lengths, n_seconds):
    return (np.arange(n_seconds) < np.asarray(lengths)[:, None]).astype(np.float32)


def random_clips(n_clips=4, n_seconds=6, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n_clips, n_seconds, 128), np.uint8)


def random_tensors(network, arguments):
    """Weights that make scores of all sizes."""
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in trace_shapes(network, SHAPE, arguments)[0].items():
        n_inputs = shape[1] if name.endswith(".weight") and len(shape) > 1 else shape[0]
        scale = math.sqrt(3 / n_inputs) if len(shape) > 1 else 0.1
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        is_near_1 = name.endswith(("var", "variance", "gamma")) or ("bn" in name and name.endswith(".weight"))
        tensors[name] = 1 + abs(values) if is_near_1 else values
    return tensors


def largest(difference):
    return np.abs(difference).max()


def write_head(folder, head="feature-attention", **arguments):
    """A model folder with a head whose weights stand for trained ones."""
    spec = HEADS[head]
    arguments = {**spec.arguments, **arguments}
    card = ModelCard(spec.network.__name__, arguments, "vggish", "audioset-527", "CC0-1.0", {}, backbone="vggish")
    write_model_folder(folder, card, random_tensors(spec.network, arguments))
    return folder
