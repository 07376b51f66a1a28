"""What one file may cost: the one table of limits."""

from __future__ import annotations

from dataclasses import dataclass, fields

from audioset.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What one file may cost. Every field is a command-line flag of the same name.

    Attributes
    ----------
    max_seconds : float
        Longest audio, by the header's claim and by the samples decoded.
    max_channels : int
    min_sample_rate, max_sample_rate : int
        Hz.
    max_expansion : float
        Largest ratio of decoded float32 bytes to file bytes, once 10 MB are decoded. Digital silence
        in mono FLAC reaches 1,370.
    worker_memory_mb : int
        Address space of one worker process, MiB (POSIX).
    worker_stall_s : float
        A worker that delivers nothing for this long, in wall or processor time, is killed.
    """

    max_seconds: float = 48 * 3600
    max_channels: int = 64
    min_sample_rate: int = 1_000
    max_sample_rate: int = 768_000
    max_expansion: float = 2_000
    worker_memory_mb: int = 2_048
    worker_stall_s: float = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise UsageError(f"the limit {field.name} is {getattr(self, field.name)}; expected a number above 0")


LIMITS = Limits()
