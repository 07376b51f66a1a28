"""Learn three new classes on top of a published network, alone and together with it.

The classes are sines, ramps and noise, made here, as in the demonstration that came with VGGish. Once the
network only extracts features, and once it is part of a larger model and is trained with it.

    python examples/warm_start.py            # on YAMNet: 15 MB of weights
    python examples/warm_start.py vggish     # on VGGish: 289 MB
"""

from __future__ import annotations

import sys

import numpy as np
import torch

import audioset
from audioset.train import WarmStart, fit

CLASSES = ("sine", "ramp", "noise")
SAMPLE_RATE = 44_100
CLIP_S = 5


def make_clip(kind: str, rng: np.random.Generator) -> np.ndarray:
    """One clip of a class, unlike any other."""
    seconds = np.arange(CLIP_S * SAMPLE_RATE) / SAMPLE_RATE
    if kind == "sine":
        return np.sin(2 * np.pi * rng.uniform(100, 1_000) * seconds)
    if kind == "ramp":
        return rng.uniform(-1, 1) * seconds / CLIP_S
    return rng.normal(0, 0.5, len(seconds))


def make_examples(model: audioset.Model, n_clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Patches (n, 96, 64) of so many clips of each class, and their targets (n, 3)."""
    rng = np.random.default_rng(seed)
    patches, targets = [], []
    for index, kind in enumerate(CLASSES * n_clips):
        cut = model.patches(make_clip(kind, rng), SAMPLE_RATE, hop_s=0.96)
        patches.append(cut)
        targets.append(np.tile(np.eye(len(CLASSES))[index % len(CLASSES)], (len(cut), 1)))
    return np.concatenate(patches), np.concatenate(targets).astype(np.float32)


def main(name: str) -> None:
    """Train both ways, and say how many new patches each names rightly."""
    torch.manual_seed(0)
    model = audioset.load_model(name)
    training, held_out = make_examples(model, 6, seed=0), make_examples(model, 3, seed=1)
    print(f"{name}: {len(training[0])} patches to learn from, {len(held_out[0])} new ones\n")
    for title, trains_network, learning_rate, n_epochs in (
        ("a feature extractor", False, 1e-3, 10),
        ("part of a larger model", True, 1e-4, 3),
    ):
        warm_start = WarmStart(model, len(CLASSES), n_hidden=100, trains_network=trains_network)
        losses = fit(warm_start, *training, n_epochs=n_epochs, learning_rate=learning_rate)
        is_right = warm_start.scores(held_out[0]).argmax(axis=1) == held_out[1].argmax(axis=1)
        print(f"{title:24s} loss {losses[0]:.3f} to {losses[-1]:.3f}, {is_right.mean():.0%} of the new patches right")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["yamnet"]))
