"""Log-mels of every published frontend of sounds that a kernel could round otherwise."""

from __future__ import annotations

import numpy as np
from sounds import noise, sine

from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT, EFFICIENTAT_VARIANTS, PANNS, PANNS_VARIANTS, VGG16, VGGISH, YAMNET

SPECS = (YAMNET, VGGISH, EFFICIENTAT, *EFFICIENTAT_VARIANTS, PANNS, *PANNS_VARIANTS, VGG16)


def sounds(sample_rate: int) -> dict[str, np.ndarray]:
    """What a kernel could round otherwise: noise, a loud tone beside nearly empty bands, a swell out of silence."""
    swell = noise(sample_rate, seed=5) * np.geomspace(1e-6, 1, sample_rate)
    tone = sine(440, sample_rate, 1, 1)
    return {"noise": noise(sample_rate), "tone": tone.astype(np.float32), "swell": swell.astype(np.float32)}


def features() -> dict[str, np.ndarray]:
    """Log-mels of every published frontend."""
    return {
        f"{spec.name}/{name}": log_mel(waveform, spec)
        for spec in SPECS
        for name, waveform in sounds(spec.sample_rate).items()
    }
