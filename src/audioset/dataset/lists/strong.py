"""AudioSet's labels with times: what is heard from when to when, and what is not heard in a frame.

>>> table = read_strong("audioset_eval_strong.tsv")  # doctest: +SKIP
>>> table[0]  # doctest: +SKIP
StrongLabel(segment_id='s9d-2nhuJCQ_30000', start_s=2.627, end_s=7.237, label_id='/m/053hz1', is_present=True)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from audioset.arrays import BoolArray, DoubleArray, IndexArray, Int32Array
from audioset.dataset.lists.damage import FRAMED_FORM, STRONG_FORM, Form, shown
from audioset.dataset.lists.segments import Segment, SegmentList
from audioset.dataset.lists.strict_rows import Cells, strict_rows
from audioset.errors import DataError, UsageError
from audioset.files import check_regular, read_input, writing
from audioset.labels.events import Event
from audioset.labels.labels import LabelSet

CLIP_S = 10.0
TOLERANCE_S = 1e-6
CHUNK_ROWS = 1 << 16
LINE_BYTES = 4_096
PRESENCE = {b"PRESENT": True, b"NOT_PRESENT": False}
PRESENCE_NAMES = {is_present: name.decode() for name, is_present in PRESENCE.items()}
COLUMNS = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
ROW = rb"^([\w-]{11}_\d{1,9})\t(\d{1,6}(?:\.\d+)?)\t(\d{1,6}(?:\.\d+)?)\t([^\t\n\r]+)"

# header -> (rows, what they should look like)
LAYOUTS: dict[str, tuple[re.Pattern[bytes], Form]] = {
    COLUMNS: (re.compile(ROW + b"$", re.MULTILINE), STRONG_FORM),
    f"{COLUMNS}\tpresent": (re.compile(ROW + rb"\t(PRESENT|NOT_PRESENT)$", re.MULTILINE), FRAMED_FORM),
}


@dataclass(frozen=True)
class StrongLabel:
    """One row: a label with its times, or one frame of it."""

    segment_id: str  # the video's id, ``_``, and the clip's start in the video in milliseconds
    # start_s, end_s: seconds from the start of the clip
    start_s: float
    end_s: float
    label_id: str
    is_present: bool = True  # False: somebody has listened, and does not hear it. Only frames say so.


@dataclass(frozen=True, eq=False)
class StrongTable(Sequence[StrongLabel]):
    """Labels with times, as columns, in the order of their file."""

    segment_ids: tuple[str, ...]  # the clips, in the order of their first rows
    labels: LabelSet
    clip_index: Int32Array  # shape (n_rows,), int32; which of the clips a row is of
    # start_s, end_s: shape (n_rows,), float64; seconds from the start of the clip
    start_s: DoubleArray
    end_s: DoubleArray
    label_index: Int32Array  # shape (n_rows,), int32
    is_present: BoolArray | None = None  # shape (n_rows,), bool, or None; only of frames

    @classmethod
    def of(cls, rows: Iterable[StrongLabel], labels: LabelSet | None = None, *, is_framed: bool = False) -> StrongTable:
        """A table of these rows."""
        labels = labels or LabelSet.load("audioset-strong")
        chosen = list(rows)
        for segment_id in dict.fromkeys(row.segment_id for row in chosen):
            split_segment_id(segment_id)
        clips: dict[str, int] = {}
        return cls(
            labels=labels,
            clip_index=np.array([clips.setdefault(row.segment_id, len(clips)) for row in chosen], np.int32),
            start_s=np.array([row.start_s for row in chosen], np.float64),
            end_s=np.array([row.end_s for row in chosen], np.float64),
            label_index=np.array([labels.index(row.label_id) for row in chosen], np.int32),
            is_present=np.array([row.is_present for row in chosen], bool) if is_framed else None,
            segment_ids=tuple(clips),
        )

    def __len__(self) -> int:
        return len(self.clip_index)

    @overload
    def __getitem__(self, index: int) -> StrongLabel: ...

    @overload
    def __getitem__(self, index: slice) -> StrongTable: ...

    def __getitem__(self, index: int | slice) -> StrongLabel | StrongTable:
        if isinstance(index, slice):
            return self.take(index)
        return StrongLabel(
            self.segment_ids[self.clip_index[index]],
            float(self.start_s[index]),
            float(self.end_s[index]),
            self.labels.ids[self.label_index[index]],
            self.is_present is None or bool(self.is_present[index]),
        )

    def __iter__(self) -> Iterator[StrongLabel]:
        return map(self.__getitem__, range(len(self)))

    def take(self, rows: Any) -> StrongTable:
        """The rows at some places: a slice, indices, or a boolean for each row. Clips without rows are left out."""
        kept, clip_index = np.unique(self.clip_index[rows], return_inverse=True)
        return replace(
            self,
            segment_ids=tuple(self.segment_ids[index] for index in kept.tolist()),
            clip_index=clip_index.astype(np.int32),
            start_s=self.start_s[rows],
            end_s=self.end_s[rows],
            label_index=self.label_index[rows],
            is_present=None if self.is_present is None else self.is_present[rows],
        )

    def clip(self, segment_id: str) -> StrongTable:
        """The rows of one clip."""
        if segment_id not in self._places:
            raise UsageError(
                f"there is no clip {segment_id!r} among these {len(self.segment_ids):,}; expected a video's id, '_' "
                "and the clip's start in milliseconds"
            )
        place = self._places[segment_id]
        order, ends = self._rows_by_clip
        return self.take(order[ends[place] : ends[place + 1]])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {segment_id: place for place, segment_id in enumerate(self.segment_ids)}

    @cached_property
    def _rows_by_clip(self) -> tuple[IndexArray, IndexArray]:
        """All rows, clip by clip, and where each clip's begin."""
        order = np.argsort(self.clip_index, kind="stable")
        return order, np.cumsum([0, *np.bincount(self.clip_index, minlength=len(self.segment_ids))])


def split_segment_id(segment_id: str) -> tuple[str, float]:
    """The video's id and the clip's start in the video in seconds.

    An id may contain ``_`` itself: one of seven does. The last one counts.
    """
    video_id, _, start_ms = segment_id.rpartition("_")
    if not re.fullmatch(r"[A-Za-z0-9_-]{11}", video_id) or not re.fullmatch(r"[0-9]{1,9}", start_ms):
        raise UsageError(f"{segment_id!r} is no clip's id; expected 11 characters of the video's, '_' and milliseconds")
    return video_id, int(start_ms) / 1000


def read_strong(path: str | os.PathLike[str], labels: LabelSet | None = None) -> StrongTable:
    """Read labels with times, or with frames, in the published forms.

    Parameters
    ----------
    path : path
        ``audioset_train_strong.tsv``, ``audioset_eval_strong.tsv``, ``audioset_eval_strong_framed_posneg.tsv``, or
        a file like these.
    labels : LabelSet, optional
        The labels that may occur. Default: ``audioset-strong``.

    Returns
    -------
    StrongTable
        With ``is_present`` if the file has the column ``present``.

    Raises
    ------
    DataError
        The file cannot be read, or a line is not as published: the message has its number.
    """
    path = Path(path)
    labels = labels or LabelSet.load("audioset-strong")
    columns = _Columns(path, labels)
    try:
        check_regular(path)
        with path.open("rb") as file:
            pattern, form = _layout(path, file.readline(LINE_BYTES))
            for number, rows in strict_rows(path, file, pattern, form, 1):
                columns.add(number, rows)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Next step: check its name") from error
    return columns.table(is_framed=form is FRAMED_FORM)


def write_strong(path: str | os.PathLike[str], table: StrongTable) -> None:
    """Write labels with times in the published form, with three decimals; nobody ever sees a part of it."""
    header = COLUMNS if table.is_present is None else f"{COLUMNS}\tpresent"
    with writing(Path(path)) as file:
        file.write(f"{header}\n".encode())
        for first in range(0, len(table), CHUNK_ROWS):
            rows = (_line(row, is_framed=table.is_present is not None) for row in table[first : first + CHUNK_ROWS])
            file.write("".join(rows).encode())


def read_display_names(path: str | os.PathLike[str]) -> LabelSet:
    """Read the published ``mid_to_display_name.tsv``: ids and names with a tab between them, and no header."""
    path = Path(path)
    try:
        lines = read_input(path).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows = [line.split("\t") for line in lines]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not row[0].startswith("/"):
            raise DataError(
                f"{path}, line {number}: {lines[number - 1][:80]!r}; expected an id, a tab and a name. "
                "Next step: audioset data fetch strong"
            )
    return LabelSet(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


def strong_to_segments(table: StrongTable, clips: SegmentList | None = None) -> SegmentList:
    """Clips with the labels that are heard in them at any time; they end as ``clips`` says, or after ten seconds."""
    ends = {segment.name: segment.end_s for segment in clips or ()}
    is_heard = slice(None) if table.is_present is None else table.is_present
    pairs = np.unique(np.stack([table.clip_index[is_heard], table.label_index[is_heard]], axis=1), axis=0)
    label_ids: dict[int, list[str]] = {}
    for clip, label in pairs.tolist():
        label_ids.setdefault(clip, []).append(table.labels.ids[label])
    return SegmentList.of(
        _segment(table.segment_ids[clip], ends, tuple(sorted(found))) for clip, found in label_ids.items()
    )


def strong_events(table: StrongTable, *, is_absolute: bool = False) -> Iterator[tuple[str, tuple[Event, ...]]]:
    """Events of each clip, by onset; frames that touch become one."""
    for segment_id in table.segment_ids:
        offset_s = split_segment_id(segment_id)[1] if is_absolute else 0.0
        spans = sorted((row.start_s, row.end_s, row.label_id) for row in table.clip(segment_id) if row.is_present)
        if table.is_present is not None:
            spans = _joined(spans)
        yield segment_id, tuple(_event(span, offset_s, table.labels) for span in spans)


def _layout(path: Path, header: bytes) -> tuple[re.Pattern[bytes], Form]:
    try:
        return LAYOUTS[header.removesuffix(b"\n").decode("ascii")]
    except (KeyError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}, line 1: {shown(header)}; expected {shown(COLUMNS.encode())}, perhaps with 'present'. "
            "Likely cause: another file, or an editor. Next step: audioset data fetch strong"
        ) from error


class _Columns:
    """Takes rows as they are read, and keeps columns."""

    def __init__(self, path: Path, labels: LabelSet) -> None:
        self._path = path
        self._labels = labels
        self._index = {label_id.encode(): index for index, label_id in enumerate(labels.ids)}
        self._clips: dict[bytes, int] = {}
        self._parts: list[tuple[Any, ...]] = []

    def add(self, number: int, rows: list[Cells]) -> None:
        clips, starts, ends, labels, *present = zip(*rows, strict=True)
        if unknown := next((label for label in dict.fromkeys(labels) if label not in self._index), None):
            raise DataError(
                f"{self._path}, line {number + labels.index(unknown)}: the label {shown(unknown)} is unknown; expected "
                f"ids of these {len(self._labels)} labels. Likely cause: labels of another set, or display names"
            )
        start_s, end_s = (np.array(texts).astype(np.float64) for texts in (starts, ends))
        if (end_s < start_s).any():
            row = int(np.argmax(end_s < start_s))
            raise DataError(
                f"{self._path}, line {number + row}: it begins at {start_s[row]:g} s and ends at {end_s[row]:g} s; "
                "expected an end that is not before the start. Likely cause: columns in another order"
            )
        known = self._clips
        clip_index = np.array([known.setdefault(clip, len(known)) for clip in clips], np.int32)
        label_index = np.array([self._index[label] for label in labels], np.int32)
        is_present = np.array([PRESENCE[text] for text in present[0]], bool) if present else np.ones(len(clips), bool)
        self._parts.append((clip_index, start_s, end_s, label_index, is_present))

    def table(self, *, is_framed: bool) -> StrongTable:
        empty = tuple(np.zeros(0, kind) for kind in (np.int32, np.float64, np.float64, np.int32, bool))
        clip_index, start_s, end_s, label_index, is_present = map(np.concatenate, zip(empty, *self._parts, strict=True))
        return StrongTable(
            tuple(clip.decode() for clip in self._clips),
            self._labels,
            clip_index,
            start_s,
            end_s,
            label_index,
            is_present if is_framed else None,
        )


def _line(row: StrongLabel, *, is_framed: bool) -> str:
    cells = [row.segment_id, f"{row.start_s:.3f}", f"{row.end_s:.3f}", row.label_id]
    return "\t".join([*cells, PRESENCE_NAMES[row.is_present]] if is_framed else cells) + "\n"


def _segment(segment_id: str, ends: dict[str, float], label_ids: tuple[str, ...]) -> Segment:
    video_id, start_s = split_segment_id(segment_id)
    return Segment(video_id, start_s, ends.get(segment_id, start_s + CLIP_S), label_ids)


def _joined(spans: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Spans of one label that touch, as one."""
    joined: list[tuple[float, float, str]] = []
    for start_s, end_s, label_id in sorted(spans, key=lambda span: (span[2], span[0])):
        if joined and joined[-1][2] == label_id and start_s <= joined[-1][1] + TOLERANCE_S:
            joined[-1] = (joined[-1][0], max(end_s, joined[-1][1]), label_id)
        else:
            joined.append((start_s, end_s, label_id))
    return sorted(joined)


def _event(span: tuple[float, float, str], offset_s: float, labels: LabelSet) -> Event:
    start_s, end_s, label_id = span
    return Event(offset_s + start_s, offset_s + end_s, label_id, labels.names[labels.index(label_id)], 1.0, 1.0)
