"""What a run of the downloader is told, and what it tells."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from audioset.dataset.download.clips import Key, Shard
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.media import MediaSettings
from audioset.errors import AudioSetError


@dataclass(frozen=True)
class RunSettings:
    """How to go about it."""

    n_workers: int = 1  # threads; each fetches, and has a process of its own that decodes
    interval_s: float = 15.0  # seconds between two fetches, over all processes that share the ledger
    shard: Shard | None = None  # only this part of the videos
    # How long to wait for clips that are due later, and for a pause to end. A run that would wait longer ends.
    patience_s: float = 900.0
    n_attempts: int | None = None  # in place of the numbers in the table of failures, for those that are tried again
    max_videos: int | None = None  # stop after so many
    min_free_bytes: int = 200_000_000  # stop when the disk has less
    lease_s: float = 120.0  # seconds after which others take over from a process that has died
    seed: int = 0  # of the jitter in back-offs
    wait_scale: float = 1.0  # factor on all back-offs and pauses
    same_failures: int = 20  # stop after so many suspicious failures in a row
    sections: bool = False  # fetch each clip by itself


@dataclass
class Outcome:
    """What a run came to."""

    # n_done, n_failed: clips that this run finished, and attempts that failed
    n_done: int = 0
    n_failed: int = 0
    reason: str = ""  # why it ended before all was done; empty if it did not
    error: AudioSetError | None = None  # what kept this machine from going on
    next_at: float | None = None  # Unix time from which more can be done


@dataclass(frozen=True)
class Report:
    """What became of one clip, for whoever watches."""

    key: Key
    state: str
    reason: str = ""


class Run(Protocol):
    """What a worker sees of the run that it belongs to."""

    ledger: Ledger
    folder: Path
    media: MediaSettings
    settings: RunSettings
    owner: str
    stop: threading.Event

    def take_turn(self) -> None:
        """Wait for the next turn to fetch."""
        ...

    def note(self, report: Report) -> None:
        """Count what became of a clip."""
        ...
