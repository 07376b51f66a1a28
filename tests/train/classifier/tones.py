"""Tones to be learned."""

from __future__ import annotations

import numpy as np
import soundfile
from sounds import noise, sine

from audioset.sounds.collection import Clip, Collection

RATE = 16_000
TONES_HZ = {"low": 300.0, "middle": 1200.0, "high": 4000.0}


def write_tone(path, frequency_hz, seed, seconds=0.3):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tone = sine(frequency_hz * rng.uniform(0.95, 1.05), RATE, seconds, rng.uniform(0.2, 0.6))
    soundfile.write(path, tone + 0.05 * noise(len(tone), seed=seed), RATE, subtype="PCM_16")
    return path


def tones(folder, n=6, classes=tuple(TONES_HZ)):
    """A collection of n clips for each class."""
    clips = [
        Clip(write_tone(folder / name / f"{name}_{number}.wav", TONES_HZ[name], 100 * row + number), (name,))
        for row, name in enumerate(classes)
        for number in range(n)
    ]
    return Collection(tuple(clips), tuple(classes), "tones")
