"""What a sound file holds: how long, how loud and which samples, of the file and of its pieces, in constant memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audioset.arrays import FloatArray
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reading import mono_blocks, open_audio

Span = tuple[float, "float | None"]  # seconds; None for the end of the file

FULL_SCALE_PEAK = 0.9995  # samples from here on touch full scale: 32,767 / 32,768 and what dither makes of it
DIGEST_BYTES = 16


@dataclass(frozen=True)
class PieceMeasures:
    """What a piece of a file holds, its channels mixed down."""

    n_samples: int  # 0 if the file ends before the piece begins
    peak: float  # largest absolute sample, 0 to 1
    n_clipped: int  # samples at full scale
    digest: str  # of samples and sample rate: equal if and only if two pieces sound the same


@dataclass(frozen=True)
class FileMeasures:
    """What a file holds."""

    sample_rate: int  # Hz
    n_channels: int
    whole: PieceMeasures
    pieces: tuple[PieceMeasures, ...]  # in the order in which they were asked for
    warnings: tuple[str, ...] = ()  # what the file promised and did not keep

    @property
    def duration_s(self) -> float:
        """Seconds that were decoded."""
        return self.whole.n_samples / self.sample_rate


def measure_file(
    path: Path, spans: Sequence[Span] = (), limits: Limits = LIMITS, on_block: Callable[[], None] = lambda: None
) -> FileMeasures:
    """Decode a file once, and measure it and its pieces, from start to end in seconds.

    ``on_block`` is called after each block of samples. ``AudioError``: those of ``read_audio``.
    """
    with open_audio(path, limits) as reader:
        rate = reader.sample_rate
        whole = _Meter(0, math.inf, rate)
        meters = [_Meter(round(start_s * rate), _last(end_s, rate), rate) for start_s, end_s in spans]
        waiting = sorted((meter for meter in meters if not meter.is_whole), key=lambda meter: -meter.start)
        active: list[_Meter] = []
        n_seen = 0
        for block in mono_blocks(reader, rate):
            end = n_seen + len(block)
            while waiting and waiting[-1].start < end:
                active.append(waiting.pop())
            for meter in (whole, *active):
                meter.take(block, n_seen)
            active = [meter for meter in active if meter.stop > end]
            n_seen = end
            on_block()
        found = tuple((whole if meter.is_whole else meter).measures() for meter in meters)
        return FileMeasures(rate, reader.n_channels, whole.measures(), found, tuple(reader.warnings))


def _last(end_s: float | None, sample_rate: int) -> float:
    return math.inf if end_s is None else round(end_s * sample_rate)


class _Meter:
    """Measures the samples from ``start`` to ``stop`` of a stream of blocks."""

    def __init__(self, start: int, stop: float, sample_rate: int) -> None:
        self.start, self.stop = start, stop
        self.is_whole = start == 0 and stop == math.inf
        self._n_samples = self._n_clipped = 0
        self._peak = 0.0
        self._state = hashlib.blake2b(str(sample_rate).encode(), digest_size=DIGEST_BYTES)

    def take(self, block: FloatArray, n_seen: int) -> None:
        samples = np.ascontiguousarray(block[max(0, self.start - n_seen) : int(min(len(block), self.stop - n_seen))])
        if not len(samples):
            return
        peak = max(float(samples.max()), -float(samples.min()))
        if peak >= FULL_SCALE_PEAK:
            self._n_clipped += int(np.count_nonzero(np.abs(samples) >= FULL_SCALE_PEAK))
        self._peak = max(self._peak, peak)
        self._n_samples += len(samples)
        self._state.update((samples + np.float32(0)).data)  # -0 becomes 0

    def measures(self) -> PieceMeasures:
        return PieceMeasures(self._n_samples, self._peak, self._n_clipped, self._state.hexdigest())
