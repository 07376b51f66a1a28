"""The one table that every format writes: rows of labels, of events, and of embeddings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from audioset.errors import escaped

if TYPE_CHECKING:
    from audioset.arrays import ByteArray, DoubleArray, FloatArray
    from audioset.errors import AudioSetError
    from audioset.labels.events import Event


RowT = TypeVar("RowT", contravariant=True)
Cell = str | float | None

HIGH_HZ = 8_000.0  # what models of 16 kHz hear
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CELLS = ("path", "start_s", "end_s", "rank", "label_id", "label", "score", "model", "error_code", "error")
EVENT_CELLS = ("path", "start_s", "end_s", "label_id", "label", "score", "mean", "model", "error_code", "error")


class Writer(Protocol[RowT]):
    """What every format offers. ``close`` completes the file, but leaves the stream open."""

    def write(self, row: RowT, /) -> None:
        """Write one row; what a flat format has to say about it reaches the stream at once."""
        ...

    def close(self) -> None:
        """Write what is left. Call it once, also after an error: the rows so far then make a valid file."""
        ...


@dataclass(frozen=True)
class Tag:
    """One label with its score in [0, 1]."""

    label_id: str
    label: str
    score: float

    def __post_init__(self) -> None:
        _make_printable(self)


@dataclass(frozen=True)
class Row:
    """Labels of one stretch of one recording, or what went wrong with it. All texts are made ``printable``.

    An error row has both ``error_code`` and ``error``, another neither.
    """

    path: str
    start_s: float  # seconds from the start of the recording, as ``end_s``
    end_s: float
    tags: tuple[Tag, ...]  # best first
    duration_s: float | None  # of the recording, as far as it is known; None where it cannot be read
    model: str
    warnings: tuple[str, ...] = ()
    error_code: str | None = None
    error: str | None = None
    high_hz: float = HIGH_HZ  # the highest frequency that the model hears, for formats that draw frames

    def __post_init__(self) -> None:
        _make_printable(self)

    @classmethod
    def failed(cls, path: str | os.PathLike[str], error: AudioSetError, model: str) -> Row:
        """The row of a recording that could not be used."""
        return cls(printable(path), 0.0, 0.0, (), None, model, (), error.code, str(error))


@dataclass(frozen=True)
class EventRow:
    """Some events of one recording, or what went wrong with it. All texts are made ``printable``.

    A recording has any number of rows, one after the other; the last one says so. An error row has both ``error_code``
    and ``error``, another neither.
    """

    path: str
    events: tuple[Event, ...]  # by onset
    n_events: int  # of the recording so far, these included
    duration_s: float | None  # of the recording, as far as it is known; None where it cannot be read
    model: str
    is_last: bool  # whether the recording ends with this row; then ``duration_s`` is all of it
    warnings: tuple[str, ...] = ()
    error_code: str | None = None
    error: str | None = None
    high_hz: float = HIGH_HZ  # the highest frequency that the model hears, for formats that draw frames

    def __post_init__(self) -> None:
        _make_printable(self)
        events = (
            replace(event, label_id=printable(event.label_id), label=printable(event.label)) for event in self.events
        )
        object.__setattr__(self, "events", tuple(events))

    @classmethod
    def failed(cls, path: str | os.PathLike[str], error: AudioSetError, model: str, n_events: int = 0) -> EventRow:
        """The last row of a recording that could not be used, or not to its end."""
        return cls(printable(path), (), n_events, None, model, True, (), error.code, str(error))


@dataclass(frozen=True, eq=False)
class EmbeddingRow:
    """Embeddings of consecutive patches of one recording, or what went wrong with it. All texts are made ``printable``.

    The consecutive parts of a long recording may come as several rows. An error row has no patches, and both
    ``error_code`` and ``error``; another has neither.
    """

    path: str
    start_s: DoubleArray  # shape (n_patches,), seconds from the start of the recording, as ``end_s``
    end_s: DoubleArray
    embeddings: FloatArray | ByteArray  # shape (n_patches, embedding_size); uint8 if quantised, all rows alike
    duration_s: float | None  # of the recording, as far as it is known; None where it cannot be read
    model: str
    warnings: tuple[str, ...] = ()
    error_code: str | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        _make_printable(self)

    @property
    def is_quantised(self) -> bool:
        """Whether the embeddings are bytes. Those of an error row, of which there are none, are not."""
        return self.embeddings.dtype == "uint8"

    @classmethod
    def failed(cls, path: str | os.PathLike[str], error: AudioSetError, model: str) -> EmbeddingRow:
        """The row of a recording that could not be used."""
        import numpy as np

        none = np.zeros(0)
        embeddings = np.zeros((0, 0), np.float32)
        return cls(printable(path), none, none, embeddings, None, model, (), error.code, str(error))


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path as text that any strict parser takes.

    Bytes that are not UTF-8 become escapes such as ``\xff``. Control characters stay: each format escapes
    them as it must.
    """
    return LONE_SURROGATE.sub(lambda match: escaped(match[0]), os.fspath(path))


def flat_cells(row: Row) -> Iterator[tuple[Cell, ...]]:
    """One tuple of ``CELLS`` for each tag; one without label for a row without tags, so that no file vanishes."""
    before, after = (row.path, row.start_s, row.end_s), (row.model, row.error_code, row.error)
    for rank, tag in enumerate(row.tags, start=1):
        yield (*before, rank, tag.label_id, tag.label, tag.score, *after)
    if not row.tags:
        yield (*before, None, None, None, None, *after)


def flat_event_cells(row: EventRow) -> Iterator[tuple[Cell, ...]]:
    """One tuple of ``EVENT_CELLS`` for each event; one without label for a recording that failed, or has none."""
    after = (row.model, row.error_code, row.error)
    for event in row.events:
        what = (event.label_id, event.label, event.score, event.mean)
        yield (row.path, event.start_s, event.end_s, *what, *after)
    if row.error_code is not None or (row.is_last and row.n_events == 0):
        yield (row.path, 0.0, row.duration_s or 0.0, None, None, None, None, *after)


def clipped_end_s(row: Row) -> float:
    """End of the row in seconds, not past the end of its recording, nor before the row's start."""
    return row.end_s if row.duration_s is None else max(row.start_s, min(row.end_s, row.duration_s))


def _make_printable(row: Tag | Row | EventRow | EmbeddingRow) -> None:
    """Do it for every text of a frozen row: whatever fails to encode in one would end the run."""
    for name, value in vars(row).items():
        if isinstance(value, str):
            object.__setattr__(row, name, printable(value))
        elif name == "warnings":
            object.__setattr__(row, name, tuple(map(printable, value)))
