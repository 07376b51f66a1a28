"""How tests decode a sound, and look at what came out."""

from __future__ import annotations

import numpy as np
import pytest

from audioset.audio.limits import LIMITS
from audioset.audio.reading import open_audio, read_audio
from audioset.errors import AudioError


def decode(source, limits=LIMITS):
    """All samples, and what the reader warns of."""
    with open_audio(source, limits) as reader:
        samples = np.concatenate(list(reader.blocks()))
    return samples, reader.warnings


def check_refused(source, code, match, limits=LIMITS):
    with pytest.raises(AudioError, match=match) as caught:
        read_audio(source, limits=limits)
    assert caught.value.code == code


def dominant_hz(samples, sample_rate):
    spectrum = np.abs(np.fft.rfft(samples))
    return spectrum.argmax() * sample_rate / len(samples)
