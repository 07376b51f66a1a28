"""What a decoding process does for a run over many files: log-mel spectrograms, in slabs.

The process is a ``Child``. It answers a path with messages: ``slab`` with a log-mel spectrogram, any number of times,
and ``done`` or ``failed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset.audio.answering import Send, serve
from audioset.audio.limits import Limits
from audioset.audio.reading import mono_blocks, open_audio
from audioset.frontend.cutting import Slab, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.spec import FrontendSpec


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know before its first file."""

    frontend: FrontendSpec
    limits: Limits
    slab_patches: int
    sends_waveform: bool = False  # of a slab, after its features: for a network that sees samples

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> WorkerConfig:
        """Inverse of ``dataclasses.asdict``."""
        frontend, limits = FrontendSpec(**settings["frontend"]), Limits(**settings["limits"])
        return cls(**{**settings, "frontend": frontend, "limits": limits})


def main() -> None:
    """Serve one parent until it closes the pipe."""
    serve(_decode, WorkerConfig.from_settings)


def _decode(config: WorkerConfig, send: Send, path: str) -> dict[str, Any]:
    with open_audio(path, config.limits) as reader:
        blocks = mono_blocks(reader, config.frontend.sample_rate)
        for slab in slabs(blocks, config.frontend, config.slab_patches):
            features = log_mel(slab.waveform, config.frontend)
            seen = np.append(features, slab.waveform) if config.sends_waveform else features
            send("slab", {name: value for name, value in vars(slab).items() if name != "waveform"}, seen)
    return {"warnings": reader.warnings}


def slab_from_fields(fields: dict[str, Any]) -> Slab:
    """The slab of a ``slab`` message, without its samples."""
    return Slab(np.zeros(0, np.float32), **{name: value for name, value in fields.items() if name != "kind"})
