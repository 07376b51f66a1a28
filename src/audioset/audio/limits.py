"""What one file may cost: the one table of limits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from audioset.arguments import is_number, value_text
from audioset.errors import UsageError


def _limit(default: float, description: str) -> Any:
    return field(default=default, metadata={"description": description})


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
        A worker that delivers nothing for this long, in wall or processor time, is stopped.
    """

    max_seconds: float = _limit(172_800.0, "Longest audio, in seconds.")
    max_channels: int = _limit(64, "Most channels.")
    min_sample_rate: int = _limit(1_000, "Lowest sample rate, in Hz.")
    max_sample_rate: int = _limit(768_000, "Highest sample rate, in Hz.")
    max_expansion: float = _limit(2_000.0, "Most decoded bytes for each byte of file.")
    worker_memory_mb: int = _limit(2_048, "Memory of one decoding process, in MiB.")
    worker_stall_s: float = _limit(60.0, "Seconds without a result after which a decoder is stopped.")

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not is_number(value) or not value > 0:
                raise UsageError(f"the limit {limit.name} is {value_text(value)}; expected a number above 0")


LIMITS = Limits()
