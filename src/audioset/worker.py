"""The process that decodes: it may crash, hang or run out of memory, and costs nobody but one file.

Decoders have open memory bugs and print what they like, so commands run them here: with limits on memory
and processor time, with standard output and error closed, and with nothing but a pipe to the parent.

The parent writes lines of JSON, first a ``WorkerConfig`` and then one path a line. The worker answers each
path with messages: ``slab`` with a log-mel spectrogram, any number of times, and ``done`` or ``failed``.
A message is two lengths, that many bytes of JSON, and that many bytes of float32 samples.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import sys
import threading
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np

from audioset.audio import mono_blocks, open_audio
from audioset.child import limit_cpu, limit_memory, take_output
from audioset.errors import AudioSetError
from audioset.frontend import FrontendSpec, Slab, log_mel, slabs
from audioset.limits import Limits

HEADER = struct.Struct("<II")
Message = tuple[dict[str, Any], memoryview]


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


def write_message(pipe: IO[bytes], fields: dict[str, Any], samples: Any = b"") -> None:
    """Send one message; ``samples`` is bytes or a contiguous array."""
    text = json.dumps(fields).encode()
    payload = memoryview(samples).cast("B")
    pipe.write(HEADER.pack(len(text), len(payload)))
    pipe.write(text)
    pipe.write(payload)
    pipe.flush()


def read_message(pipe: Any) -> Message | None:
    """Receive one message from a buffered pipe, or None where the other side is gone. Its samples may be written to."""
    header = pipe.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    n_text, n_payload = HEADER.unpack(header)
    text, payload = pipe.read(n_text), np.empty(n_payload, np.uint8).data
    if len(text) < n_text or pipe.readinto(payload) < n_payload:
        return None
    return json.loads(text), payload


def main() -> None:
    """Serve one parent until it closes the pipe."""
    results = take_output()
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(lines,), daemon=True).start()
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
    except AudioSetError as error:
        write_message(results, {"kind": "failed", "code": error.code, "message": str(error)})
    except MemoryError:
        message = (
            f"decoding needs more than the {config.limits.worker_memory_mb:,} MiB of one worker "
            "(--worker-memory-mb). Likely cause: a damaged header"
        )
        write_message(results, {"kind": "failed", "code": "out_of_memory", "message": message})
    except Exception as error:  # the boundary of the process: whatever a decoder throws becomes a row
        message = f"the decoder failed with {type(error).__name__}: {error}"
        write_message(results, {"kind": "failed", "code": "decode_failed", "message": message})


def _slab_fields(slab: Slab) -> dict[str, Any]:
    fields = {name: value for name, value in vars(slab).items() if name != "waveform"}
    return {"kind": "slab", **fields}


def slab_from_fields(fields: dict[str, Any]) -> Slab:
    """The slab of a ``slab`` message, without its samples."""
    return Slab(np.zeros(0, np.float32), **{name: value for name, value in fields.items() if name != "kind"})


def _read_lines(lines: queue.SimpleQueue[str]) -> None:
    """Pass the parent's lines on; end the process when the parent is gone, whatever it is doing."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)
