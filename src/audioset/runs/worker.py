"""The process that decodes: it may crash, hang or run out of memory, and costs nobody but one file.

Decoders have open memory bugs and print what they like, so commands run them here: with limits on memory
and processor time, with standard output and error closed, and with nothing but a pipe to the parent.

The parent writes lines of JSON, first a ``WorkerConfig`` and then one path a line. The worker answers each
path with messages (``isolation.py``): ``slab`` with a log-mel spectrogram, any number of times, and ``done`` or
``failed``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np

from audioset.audio.child import limit_cpu, limit_memory, parent_lines, take_output
from audioset.audio.isolation import failure, write_message
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
    hop_frames: int
    slab_patches: int
    sends_waveform: bool = False  # of a slab, after its features: for a network that sees samples

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> WorkerConfig:
        """Inverse of ``to_json``."""
        values = json.loads(line)
        return cls(
            FrontendSpec(**values["frontend"]),
            Limits(**values["limits"]),
            values["hop_frames"],
            values["slab_patches"],
            values["sends_waveform"],
        )


def main() -> None:
    """Serve one parent until it closes the pipe."""
    results = take_output()
    lines = parent_lines()
    config = WorkerConfig.from_json(lines.get())
    limit_memory(config.limits.worker_memory_mb)
    write_message(results, {"kind": "ready"})
    while True:
        _serve_file(json.loads(lines.get()), config, results)


def _serve_file(path: str, config: WorkerConfig, results: IO[bytes]) -> None:
    limit_cpu(config.limits.worker_stall_s)
    try:
        with open_audio(path, config.limits) as reader:
            blocks = mono_blocks(reader, config.frontend.sample_rate)
            for slab in slabs(blocks, config.frontend, config.hop_frames, config.slab_patches):
                limit_cpu(config.limits.worker_stall_s)
                features = log_mel(slab.waveform, config.frontend)
                seen = np.append(features, slab.waveform) if config.sends_waveform else features
                write_message(results, _slab_fields(slab), seen)
            write_message(results, {"kind": "done", "warnings": reader.warnings})
    except Exception as error:  # the boundary of the process: whatever a decoder throws becomes a row
        write_message(results, {"kind": "failed", **failure(error, config.limits)})


def _slab_fields(slab: Slab) -> dict[str, Any]:
    fields = {name: value for name, value in vars(slab).items() if name != "waveform"}
    return {"kind": "slab", **fields}


def slab_from_fields(fields: dict[str, Any]) -> Slab:
    """The slab of a ``slab`` message, without its samples."""
    return Slab(np.zeros(0, np.float32), **{name: value for name, value in fields.items() if name != "kind"})
