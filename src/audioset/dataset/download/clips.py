"""What a ledger knows of a clip, and where its file belongs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from audioset.errors import DataError, UsageError
from audioset.files import confined, is_plain_name

SHARD_BITS = 32
SUBSET_SUFFIX = re.compile(r"(?:_segments)?(?:\.csv)?(?:\.\d+)?$")


@dataclass(frozen=True, order=True)
class Key:
    """Which stretch of which video."""

    video_id: str
    # start_ms, end_ms: milliseconds from the start of the video
    start_ms: int
    end_ms: int

    @property
    def name(self) -> str:
        """``<video id>_<start>_<end>``, in milliseconds: the name of the clip's file, without its ending."""
        return f"{self.video_id}_{self.start_ms}_{self.end_ms}"

    @property
    def start_s(self) -> float:
        """Seconds from the start of the video."""
        return self.start_ms / 1000

    @property
    def end_s(self) -> float:
        """Seconds from the start of the video."""
        return self.end_ms / 1000

    @property
    def duration_s(self) -> float:
        """Seconds that the clip should last."""
        return (self.end_ms - self.start_ms) / 1000


@dataclass(frozen=True)
class Clip:
    """One row of a ledger."""

    key: Key
    subset: str
    label_ids: tuple[str, ...]
    state: str  # ``pending``, ``running``, ``done``, or a class of failures
    reason: str  # what was said when it last failed
    attempts: int  # how often it was asked for, with an answer
    due_at: float | None  # Unix time from which it may be asked for; None for never
    owner: str | None  # who is at it
    # file, video_file: path below the dataset's folder with ``/``, or an absolute path
    file: str | None
    # n_bytes, sha256, duration_s, sample_rate, n_channels, codec: of the audio file
    n_bytes: int | None
    sha256: str | None
    duration_s: float | None
    sample_rate: int | None
    n_channels: int | None
    codec: str | None
    source_format: str | None  # what it was made from
    fetched_at: float | None  # Unix time
    host: str | None  # where
    video_file: str | None

    def path(self, folder: Path) -> Path | None:
        """Its audio file, for a dataset in ``folder``."""
        return None if self.file is None else file_path(folder, self.file)


@dataclass(frozen=True)
class Shard:
    """One of ``n`` parts of all videos, by a hash of the id: all clips of a video are in the same part."""

    index: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.n:
            raise UsageError(f"the shard is {self.index}/{self.n}; expected i/N with i from 0 to N - 1")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``"3/40"`` names."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match:
            raise UsageError(f"the shard is {text!r}; expected i/N, such as 3/40")
        return cls(int(match[1]), int(match[2]))

    def has(self, video_id: str) -> bool:
        """Whether a video is in this part."""
        return bucket(video_id) % self.n == self.index


def bucket(video_id: str) -> int:
    """The first 32 bits of the id's SHA-256: evenly spread, and the same everywhere."""
    return int.from_bytes(hashlib.sha256(video_id.encode("utf-8", "surrogatepass")).digest()[: SHARD_BITS // 8], "big")


def file_path(folder: Path, name: str) -> Path:
    """A file that a ledger names: below the dataset's folder, or, of one that was registered where it is, absolute.

    What is absolute is read, and never written or deleted.
    """
    return Path(name) if Path(name).is_absolute() and "\0" not in name else confined(folder, name)


def is_clip_name(name: str) -> bool:
    """Whether a text can be the id of a video or the name of a subset: one plain name."""
    return "/" not in name and is_plain_name(name)


def place(key: Key, subset: str, suffix: str, kind: str = "audio") -> str:
    """Where a clip's file belongs, below the dataset's folder.

    Files are spread over 256 folders for each subset, named by the first two hexadecimal digits of the SHA-256 of
    the video's id. The first two characters of the id itself would not do: ``aB`` and ``Ab`` are one folder on macOS
    and Windows.

    >>> place(Key("--4gqARaEJE", 0, 10_000), "eval", ".flac")
    'audio/eval/bd/--4gqARaEJE_0_10000.flac'
    """
    digits = f"{bucket(key.video_id) >> (SHARD_BITS - 8):02x}"
    for part in (subset, key.name):
        if not is_clip_name(part):
            raise DataError(
                f"{part!r:.100} is no name of a file; expected the id of a video and the name of a subset. Likely "
                "cause: a damaged list or ledger, or one that was made to write elsewhere"
            )
    return str(PurePosixPath(kind, subset, digits, key.name + suffix))


def subset_name(list_name: str) -> str:
    """Subset of a list of clips: ``eval`` for files named ``eval_segments.csv`` and ``eval_segments.csv.07``."""
    name = SUBSET_SUFFIX.sub("", Path(list_name).name)
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
        raise UsageError(f"{list_name!r} gives the subset no name. Next step: --subset NAME")
    return name


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of the sorted names of clips, each with a line end: equal if and only if two sets of clips are."""
    state = hashlib.sha256()
    for name in sorted(names):
        state.update(name.encode() + b"\n")
    return state.hexdigest()
