"""Lists of clips as AudioSet publishes them: which ten seconds of which video, with which labels.

>>> segments = read_segments("eval_segments.csv")  # doctest: +SKIP
>>> segments[0]  # doctest: +SKIP
Segment(video_id='--4gqARaEJE', start_s=0.0, end_s=10.0, label_ids=('/m/068hy', '/m/07q6cd_', '/m/0bt9lr', '/m/0jbk'))
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, overload

import numpy as np

from audioset.arrays import BoolArray, IndexArray, Int32Array, TextArray
from audioset.dataset.lists.damage import HEADER_WORDS, SEGMENTS_FORM, explain_count, explain_header, shown
from audioset.dataset.lists.strict_rows import Cells, strict_rows
from audioset.errors import DataError, UsageError
from audioset.files import check_regular, writing
from audioset.labels.labels import LabelSet

ID_LENGTH = 11
CHUNK_ROWS = 1 << 16
LINE_BYTES = 4_096  # a header's line has fewer
N_HEADER_LINES = 3
CREATED = "# Segments csv created "
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
HEADLINE = re.compile(rb"# Segments csv created ([ -~]*)")
COLUMNS = b"# YTID, start_seconds, end_seconds, positive_labels"
COUNTS = re.compile(
    rb"# num_ytids=(?P<num_ytids>\d+), num_segs=(?P<num_segs>\d+), "
    rb"num_unique_labels=(?P<num_unique_labels>\d+), num_positive_labels=(?P<num_positive_labels>\d+)"
)
# The strict form, and no other: whatever differs has been through some other program. Note that "$" takes no "\r".
ROW = re.compile(rb'^([\w-]{11}), (\d{1,6}\.\d{3}), (\d{1,6}\.\d{3}), "([^"\n]*)"$', re.MULTILINE)


@dataclass(frozen=True)
class Segment:
    """One clip.

    Attributes
    ----------
    video_id : str
        Of YouTube: eleven letters, digits, ``-`` and ``_``, and it may begin with any of them.
    start_s, end_s : float
        Seconds from the start of the video, to the millisecond.
    label_ids : tuple of str
        Such as ``("/m/068hy", "/m/0bt9lr")``, in the order of the file: by id.
    """

    video_id: str
    start_s: float
    end_s: float
    label_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The clip's id in the labels with times, and a good name for its file: ``--4gqARaEJE_0``."""
        return f"{self.video_id}_{round(self.start_s * 1000)}"

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True, eq=False)
class SegmentList(Sequence[Segment]):
    """Clips in the order of their file, as columns: two million take about 40 bytes each.

    An item is a ``Segment``; a slice, or ``take``, is another list.

    Attributes
    ----------
    video_ids : ndarray, shape (n_segments,), bytes
    start_ms, end_ms : ndarray, shape (n_segments,), int32
        Milliseconds from the start of the video.
    label_sets : tuple of tuple of str
        The different sets of labels that clips have; some may be unused.
    set_index : ndarray, shape (n_segments,), int32
        Which of the sets each clip has.
    created : str
        What the first line of the file says of its making.
    """

    video_ids: TextArray
    start_ms: Int32Array
    end_ms: Int32Array
    label_sets: tuple[tuple[str, ...], ...]
    set_index: Int32Array
    created: str = ""

    @classmethod
    def of(cls, segments: Iterable[Segment], created: str = "") -> SegmentList:
        """A list of these clips.

        Raises
        ------
        UsageError
            If a clip cannot be written as a row: an id that is none, no labels, or an end that is not after the start;
            if two clips are of one video.
        """
        if isinstance(segments, SegmentList):
            return replace(segments, created=created or segments.created)
        chosen = list(segments)
        codes: dict[tuple[str, ...], int] = {}
        index = [codes.setdefault(segment.label_ids, len(codes)) for segment in chosen]
        for segment in chosen:
            _check_segment(segment)
        video_ids = np.array([segment.video_id.encode() for segment in chosen], f"S{ID_LENGTH}")
        if (rows := first_repeat(video_ids)) is not None:
            raise UsageError(f"{chosen[rows[0]].video_id} is there twice; expected one clip of each video")
        return cls(
            video_ids,
            np.array([round(segment.start_s * 1000) for segment in chosen], np.int32),
            np.array([round(segment.end_s * 1000) for segment in chosen], np.int32),
            tuple(codes),
            np.array(index, np.int32),
            created,
        )

    def __len__(self) -> int:
        return len(self.video_ids)

    @overload
    def __getitem__(self, index: int) -> Segment: ...

    @overload
    def __getitem__(self, index: slice) -> SegmentList: ...

    def __getitem__(self, index: int | slice) -> Segment | SegmentList:
        if isinstance(index, slice):
            return self.take(index)
        return Segment(
            self.video_ids[index].decode(),
            int(self.start_ms[index]) / 1000,
            int(self.end_ms[index]) / 1000,
            self.label_sets[self.set_index[index]],
        )

    def __iter__(self) -> Iterator[Segment]:
        columns = (self.video_ids, self.start_ms, self.end_ms, self.set_index)
        for first in range(0, len(self), CHUNK_ROWS):
            chunk = (column[first : first + CHUNK_ROWS].tolist() for column in columns)
            for video_id, start_ms, end_ms, index in zip(*chunk, strict=True):
                yield Segment(video_id.decode(), start_ms / 1000, end_ms / 1000, self.label_sets[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SegmentList) and len(self) == len(other) and all(map(operator.eq, self, other))

    def take(self, rows: Any) -> SegmentList:
        """The clips at some rows: a slice, indices, or a boolean for each row."""
        return replace(
            self,
            video_ids=self.video_ids[rows],
            start_ms=self.start_ms[rows],
            end_ms=self.end_ms[rows],
            set_index=self.set_index[rows],
        )

    @cached_property
    def set_counts(self) -> IndexArray:
        """How many clips have each of ``label_sets``, shape (n_sets,)."""
        return np.bincount(self.set_index, minlength=len(self.label_sets))

    def has_any(self, label_ids: Iterable[str]) -> BoolArray:
        """Whether each clip has one of the labels, or several."""
        wanted = frozenset(label_ids)
        is_chosen = np.fromiter((not wanted.isdisjoint(labels) for labels in self.label_sets), bool)
        found: BoolArray = is_chosen[self.set_index]
        return found


def concatenate(lists: Sequence[SegmentList]) -> SegmentList:
    """The clips of several lists, one list after the other."""
    if not lists:
        raise UsageError("there are no lists of clips to join; expected one or more")
    offsets = np.cumsum([0, *(len(part.label_sets) for part in lists)])
    joined = SegmentList(
        np.concatenate([part.video_ids for part in lists]),
        np.concatenate([part.start_ms for part in lists]),
        np.concatenate([part.end_ms for part in lists]),
        tuple(labels for part in lists for labels in part.label_sets),
        np.concatenate([part.set_index + offset for part, offset in zip(lists, offsets, strict=False)]).astype(
            np.int32
        ),
        lists[0].created,
    )
    if (rows := first_repeat(joined.video_ids)) is not None:
        raise UsageError(
            f"{joined.video_ids[rows[0]].decode()} is in two of the lists; expected no clip twice. "
            "Likely cause: one list is a part of another"
        )
    return joined


def begins_as_list(path: Path) -> bool:
    """Whether a file begins as the published lists do, or as what other programs make of them."""
    check_regular(path)
    with path.open("rb") as file:
        head = file.read(LINE_BYTES)
    text = head.decode("utf-16" if head.startswith(UTF16_MARKS) else "utf-8-sig", "replace")
    begins_as_header = text.lstrip('" ').startswith("#") and HEADER_WORDS.search(text.encode()) is not None
    return begins_as_header or ROW.match(head) is not None


def read_segments(path: str | os.PathLike[str], labels: LabelSet | None = None) -> SegmentList:
    """Read a list of clips in the published form. A copy that is damaged in any way is refused.

    Parameters
    ----------
    path : path
    labels : LabelSet, optional
        The labels that may occur. Default: ``audioset-527``.

    Returns
    -------
    SegmentList
        Written again, it has the same bytes.

    Raises
    ------
    DataError
        The file cannot be read, or a row or the header is not as published: the message has the line's number, what
        is there, the likely cause and the next step.
    """
    path = Path(path)
    known = frozenset((labels or LabelSet.load("audioset-527")).ids)
    columns = _Columns(path, known)
    try:
        check_regular(path)
        with path.open("rb") as file:
            header = [file.readline(LINE_BYTES) for _ in range(N_HEADER_LINES)]
            created, counts = _read_header(path, header)
            for number, rows in strict_rows(path, file, ROW, SEGMENTS_FORM, N_HEADER_LINES):
                columns.add(number, rows)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Next step: check its name") from error
    segments = columns.segments(created)
    _check_unique(path, segments)
    for name, count in _counts(segments).items():
        if count != counts[name]:
            raise explain_count(path, name, count, counts[name], len(segments) + N_HEADER_LINES)
    return segments


def write_segments(path: str | os.PathLike[str], segments: Iterable[Segment], created: str | None = None) -> None:
    """Write a list of clips in the published form; nobody ever sees a part of it.

    Parameters
    ----------
    path : path
        Replaced if it exists.
    segments : SegmentList, or iterable of Segment
    created : str, optional
        What the first line says of the file's making. Default: the list's own, so that equal lists have equal bytes.

    Raises
    ------
    OutputError
        If it cannot be written.
    UsageError
        If a clip cannot be written as a row.
    """
    with writing(Path(path)) as file:
        for data in format_segments(segments, created):
            file.write(data)


def format_segments(segments: Iterable[Segment], created: str | None = None) -> Iterator[bytes]:
    """The file that ``write_segments`` writes, in pieces."""
    chosen = segments if isinstance(segments, SegmentList) else SegmentList.of(segments)
    created = chosen.created if created is None else created
    headline = f"{CREATED}{created}"
    if not HEADLINE.fullmatch(headline.encode()):
        raise UsageError(f"created is {created!r}; expected one line of ASCII")
    yield f"{headline}\n".encode()
    yield ("# " + ", ".join(f"{name}={count}" for name, count in _counts(chosen).items()) + "\n").encode()
    yield COLUMNS + b"\n"
    for first in range(0, len(chosen), CHUNK_ROWS):
        yield "".join(f"{format_row(segment)}\n" for segment in chosen[first : first + CHUNK_ROWS]).encode()


def is_segment_list(file: BinaryIO) -> bool:
    """Whether a file begins as the lists that ``write_segments`` writes, and as those that are published."""
    lines = [file.readline(LINE_BYTES) for _ in range(3)]
    return lines[0].startswith(CREATED.encode()) and lines[2].rstrip() == COLUMNS


def format_row(segment: Segment) -> str:
    """A clip's row, without the end of the line."""
    labels = ",".join(segment.label_ids)
    return f'{segment.video_id}, {segment.start_s:.3f}, {segment.end_s:.3f}, "{labels}"'


def first_repeat(video_ids: TextArray) -> tuple[int, int] | None:
    """Rows of the first id that occurs twice, or None."""
    width = video_ids.dtype.itemsize
    # Sorting whole numbers is ten times as fast as sorting texts, and the first eight bytes rarely agree.
    heads = np.zeros((len(video_ids), 8), np.uint8)
    heads[:] = np.ascontiguousarray(video_ids).view(np.uint8).reshape(-1, width)[:, :8]
    keys = heads.view(np.uint64)[:, 0]
    order = np.argsort(keys, kind="stable")
    is_shared = np.flatnonzero(np.diff(keys[order]) == 0)
    candidates = np.unique(order[np.union1d(is_shared, is_shared + 1)]) if len(is_shared) else order[:0]
    seen: dict[bytes, int] = {}
    for row in candidates.tolist():
        earlier = seen.setdefault(video_ids[row], row)
        if earlier != row:
            return earlier, row
    return None


class _Columns:
    """Takes rows as they are read, and keeps columns."""

    def __init__(self, path: Path, known: frozenset[str]) -> None:
        self._path = path
        self._known = known
        self._codes: dict[bytes, int] = {}
        self._sets: list[tuple[str, ...]] = []
        self._parts: list[tuple[TextArray, Int32Array, Int32Array, Int32Array]] = []

    def add(self, number: int, rows: list[Cells]) -> None:
        ids, starts, ends, texts = zip(*rows, strict=True)
        for text in dict.fromkeys(texts):
            if text not in self._codes:
                self._codes[text] = len(self._sets)
                self._sets.append(tuple(text.decode("utf-8", "backslashreplace").split(",")))
                if damage := self._label_damage(self._sets[-1]):
                    raise self._error(number + texts.index(text), *damage)
        start_ms, end_ms = _milliseconds(starts), _milliseconds(ends)
        if (end_ms <= start_ms).any():
            row = int(np.argmax(end_ms <= start_ms))
            raise self._error(
                number + row,
                f"the clip begins at {starts[row].decode()} s and ends at {ends[row].decode()} s",
                "expected an end after the start. Likely cause: columns in another order",
            )
        index = np.array([self._codes[text] for text in texts], np.int32)
        self._parts.append((np.array(ids, f"S{ID_LENGTH}"), start_ms, end_ms, index))

    def segments(self, created: str) -> SegmentList:
        if not self._parts:
            empty = np.zeros(0, np.int32)
            return SegmentList(np.zeros(0, f"S{ID_LENGTH}"), empty, empty, (), empty, created)
        ids, start_ms, end_ms, index = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return SegmentList(ids, start_ms, end_ms, tuple(self._sets), index, created)

    def _label_damage(self, labels: tuple[str, ...]) -> tuple[str, str] | None:
        """What is wrong with the labels of a row, and what was expected."""
        if not self._known.issuperset(labels):
            unknown = next(label for label in labels if label not in self._known)
            cause = "Likely cause: labels of another set, or display names"
            return (
                f"the label {shown(unknown.encode())} is unknown",
                f"expected ids of these {len(self._known)} labels. {cause}",
            )
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            return f"the label {twice} is there twice", "expected it once. Likely cause: an edited row"
        return None

    def _error(self, number: int, what: str, hint: str) -> DataError:
        return DataError(f"{self._path}, line {number}: {what}; {hint}")


def _read_header(path: Path, lines: Sequence[bytes]) -> tuple[str, dict[str, int]]:
    first, second, third = (line.removesuffix(b"\n") for line in lines)
    headline, counts = HEADLINE.fullmatch(first), COUNTS.fullmatch(second)
    if headline is None or counts is None or third != COLUMNS:
        raise explain_header(path, lines)
    return headline[1].decode(), {name: int(count) for name, count in counts.groupdict().items()}


def _counts(segments: SegmentList) -> dict[str, int]:
    """What the header says of the rows. No id occurs twice, so there are as many videos as clips."""
    used = [labels for labels, count in zip(segments.label_sets, segments.set_counts, strict=True) if count]
    n_labels = sum(len(labels) * int(n) for labels, n in zip(segments.label_sets, segments.set_counts, strict=True))
    return {
        "num_ytids": len(segments),
        "num_segs": len(segments),
        "num_unique_labels": len(frozenset().union(*used)),
        "num_positive_labels": n_labels,
    }


def _check_unique(path: Path, segments: SegmentList) -> None:
    if (rows := first_repeat(segments.video_ids)) is not None:
        earlier, later = (row + N_HEADER_LINES + 1 for row in rows)
        raise DataError(
            f"{path}, line {later}: the id {segments.video_ids[rows[1]].decode()} is in line {earlier}, too; "
            "expected one clip of each video. Likely cause: two copies were joined. Next step: fetch it again"
        )


def _check_segment(segment: Segment) -> None:
    is_row = ROW.fullmatch(format_row(segment).encode("utf-8", "replace"))
    has_labels = bool(segment.label_ids) and all(segment.label_ids)
    if not is_row or not has_labels or not 0 <= segment.start_s < segment.end_s < 1e6:
        raise UsageError(
            f"{segment} is no clip; expected an id of {ID_LENGTH} letters, digits, '-' and '_', an end after the "
            "start, and labels"
        )


def _milliseconds(texts: Sequence[bytes]) -> Int32Array:
    """Of texts with three decimals, exactly."""
    return np.round(np.array(texts).astype(np.float64) * 1000).astype(np.int32)
