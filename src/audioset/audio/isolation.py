"""Decode a file in a process of its own, which is kept for the next one, for a caller that wants samples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.audio.answering import Send, serve
from audioset.audio.child import kept_child
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reading import mono_blocks, open_audio


class IsolatedAudio:
    """A file that another process decodes, mixes down and resamples to ``sample_rate``, Hz.

    If ``n_samples`` are wanted, at least so many come, if the file has them; by default all.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int,
        limits: Limits = LIMITS,
        *,
        n_samples: int | None = None,
    ) -> None:
        self._job = Path(path), sample_rate, n_samples
        self._limits = limits
        self.warnings: tuple[str, ...] = ()  # what the file promised and did not keep; known after its last block

    def blocks(self) -> Iterator[FloatArray]:
        """Mono float32 blocks, those of ``reading.mono_blocks``.

        ``AudioError``: those of ``open_audio`` and ``checked_blocks``; ``timeout``, ``worker_died`` or
        ``out_of_memory``. ``EngineError`` with code ``worker``, if no process can be started.
        """
        with (
            kept_child("audioset.audio.isolation", self._limits) as child,
            closing(child.ask(*self._job)) as messages,
        ):
            for fields, samples in messages:
                if fields["kind"] == "block":
                    yield np.frombuffer(samples, np.float32)
                else:
                    self.warnings = tuple(fields["warnings"])


def main() -> None:
    """Serve one parent until it closes the pipe."""
    serve(_decode)


def _decode(limits: Limits, send: Send, path: str, sample_rate: int, n_samples: int | None) -> dict[str, Any]:
    n_sent = 0
    with open_audio(path, limits) as reader:
        for block in mono_blocks(reader, sample_rate):
            send("block", samples=np.ascontiguousarray(block))
            n_sent += len(block)
            if n_samples is not None and n_sent >= n_samples:
                break
    return {"warnings": reader.warnings}
