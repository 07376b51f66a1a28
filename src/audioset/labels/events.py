"""From scores over time to events with onset and offset, of whole arrays or of a stream."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from audioset.arguments import is_number, value_text
from audioset.arrays import Array
from audioset.errors import UsageError
from audioset.labels.labels import LabelSet

LabelThreshold = float | tuple[float, float | None] | None

BLOCK_PATCHES = 1_024  # looked at together; more only costs memory
TOLERANCE_S = 1e-6  # seconds that differ by less are equal: a sum of floats misses its mark
FIXED_POINT = 2.0**40  # scores are summed as integers, so a sum does not depend on how it was cut into blocks


@dataclass(frozen=True)
class Event:
    """One sound, from onset to offset.

    Attributes
    ----------
    start_s, end_s : float
        Seconds from the start of the audio.
    label_id, label : str
        ``"/m/0bt9lr"`` and ``"Dog"``.
    score : float
        The highest score of the patches it spans.
    mean : float
        The mean score of its patches, without those of the gaps that were bridged.

    Notes
    -----
    With a median filter, both are of the filtered scores, so that neither is below the threshold that found it.
    """

    start_s: float
    end_s: float
    label_id: str
    label: str
    score: float
    mean: float

    @property
    def duration_s(self) -> float:
        """Seconds from onset to offset."""
        return self.end_s - self.start_s


def _as_pair(value: float | tuple[float, float | None]) -> tuple[float, float | None]:
    return value if isinstance(value, tuple) else (value, None)


def _check_pair(whose: str, high: float, low: float | None) -> None:
    if not is_number(high) or not 0 <= high <= 1:
        raise UsageError(f"threshold{whose} is {value_text(high)}; expected a score in [0, 1]")
    if low is not None and (not is_number(low) or not 0 <= low <= high):
        raise UsageError(f"low_threshold{whose} is {low}; expected a score in [0, {high}], up to the threshold")


@dataclass(frozen=True)
class EventSettings:
    """How scores become events: median filter, thresholds, joining, and leaving out what is short, in this order.

    Attributes
    ----------
    threshold : float
        In [0, 1]. An event begins with the patch whose score is at least this.
    low_threshold : float, optional
        In [0, ``threshold``]. The event goes on while the score is at least this. Default: ``threshold``.
    label_thresholds : mapping
        Thresholds of labels, by id or name, that differ: one number, or a pair ``(threshold, low_threshold)``.
        Where a label has no low one, ``low_threshold`` holds, but never more than the label's threshold. None:
        the label has no events.
    median_patches : int
        Odd. The scores of each label pass a median filter of this many patches; 1 leaves them as they are.
        Before the first patch and after the last, these two are repeated.
    max_gap_s : float
        Events of one label with a gap of at most this are joined. 0 joins only those that overlap, as they can
        with a hop below half a patch; so events of one label never overlap.
    min_duration_s : float
        Events that are shorter, after joining, are left out.

    Raises
    ------
    UsageError
        If a value is outside its range.
    """

    threshold: float = 0.5
    low_threshold: float | None = None
    label_thresholds: Mapping[str, LabelThreshold] = field(default_factory=dict)
    median_patches: int = 1
    max_gap_s: float = 0.0
    min_duration_s: float = 0.0

    def __post_init__(self) -> None:
        _check_pair("", self.threshold, self.low_threshold)
        for label, value in self.label_thresholds.items():
            if value is not None:
                _check_pair(f" of {label}", *_as_pair(value))
        if not is_number(self.median_patches) or self.median_patches < 1 or self.median_patches % 2 != 1:
            raise UsageError(f"median_patches is {self.median_patches}; expected an odd number of patches, from 1")
        for name in ("max_gap_s", "min_duration_s"):
            if not is_number(getattr(self, name)) or not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"{name} is {value_text(getattr(self, name))}; expected seconds, 0 or more")

    def thresholds(self, labels: LabelSet) -> tuple[Array, Array]:
        """Thresholds and low thresholds of all labels.

        Parameters
        ----------
        labels : LabelSet

        Returns
        -------
        high, low : ndarray, shape (n_classes,), float64
            Infinite for labels that have no events.

        Raises
        ------
        UsageError
            If ``label_thresholds`` names a label that is not among these, or one label twice.
        """
        low = self.threshold if self.low_threshold is None else self.low_threshold
        highs, lows = np.full(len(labels), self.threshold), np.full(len(labels), low)
        named: dict[int, str] = {}
        for label, value in self.label_thresholds.items():
            index = labels.index(label)
            if index in named:
                raise UsageError(f"{label!r} and {named[index]!r} are the same label; expected one threshold for it")
            named[index] = label
            if value is None:
                highs[index] = lows[index] = math.inf
                continue
            high, own_low = _as_pair(value)
            fallback = high if self.low_threshold is None else min(high, self.low_threshold)
            highs[index], lows[index] = high, fallback if own_low is None else own_low
        return highs, lows


DEFAULTS = EventSettings()


class EventDetector:
    """Find events in a stream of scores, in constant memory.

    The result does not depend on how the stream is cut into blocks, and equals that of ``scores_to_events``.

    Parameters
    ----------
    labels : LabelSet
        What the columns of the scores mean.
    settings : EventSettings
    in_order : bool
        Whether events come by onset, then label index, over the whole stream. An event then waits while one that
        began before it is still going on. If False, it comes as soon as it is final, and only the events of
        one call are in order.

    Raises
    ------
    UsageError
        If the settings name a label that is not among ``labels``.

    Notes
    -----
    An event is final when no later patch can change it: with the first patch that begins more than ``max_gap_s``
    after its end (at its end, if that is 0); with a median filter, ``median_patches // 2`` patches later.
    """

    def __init__(self, labels: LabelSet, settings: EventSettings = DEFAULTS, *, in_order: bool = True) -> None:
        self._labels = labels
        self._high, self._low = settings.thresholds(labels)
        self._width = settings.median_patches
        self._gap_s = settings.max_gap_s + math.copysign(TOLERANCE_S, settings.max_gap_s or -1)
        self._min_s = settings.min_duration_s - TOLERANCE_S
        self._in_order = in_order
        self._reset()

    def _reset(self) -> None:
        self._rows: Array | None = None  # scores that the median filter still needs
        self._start_s = self._end_s = np.zeros(0)  # of the patches that it has not passed yet
        self._is_on = np.zeros(len(self._labels), bool)
        self._open: dict[int, _OpenEvent] = {}  # by label index; not final
        self._final: list[tuple[float, int, Event]] = []  # a heap
        self._last_start_s = -math.inf

    def push(self, scores: Array, start_s: Array, end_s: Array) -> list[Event]:
        """Take the next patches.

        Parameters
        ----------
        scores : ndarray, shape (n_patches, n_classes)
            In [0, 1]; of one dtype in all calls, to which the thresholds are rounded.
        start_s, end_s : ndarray, shape (n_patches,)
            Seconds; starts rise, ends do not fall.

        Returns
        -------
        list of Event
            Those that have become final, by onset, then label index.

        Raises
        ------
        UsageError
            If shapes, scores or times are not as described.
        """
        scores, start_s, end_s = np.asarray(scores), np.asarray(start_s), np.asarray(end_s)
        if scores.dtype.kind != "f":  # a threshold as integer would be another one
            scores = scores.astype(np.float64)
        self._check(scores, start_s, end_s)
        events: list[Event] = []
        for first in range(0, len(scores), BLOCK_PATCHES):
            block = slice(first, first + BLOCK_PATCHES)
            events += self._push_block(scores[block], start_s[block], end_s[block])
        return events

    def finish(self) -> list[Event]:
        """Return the events that are left, in the same order. The detector is then as new."""
        if self._rows is not None:
            self._detect(np.concatenate([self._rows, np.repeat(self._rows[-1:], self._width // 2, axis=0)]))
        for index in list(self._open):
            self._close(index)
        events = self._release()
        self._reset()
        return events

    def pending(self) -> dict[str, float]:
        """Labels with events that are still to come and have begun already: the earliest onset of each, by id."""
        onsets = [(event.start_s, index) for index, event in self._open.items()]
        onsets += [(start_s, index) for start_s, index, _ in self._final]
        return {self._labels.ids[index]: start_s for start_s, index in sorted(onsets, reverse=True)}

    def _check(self, scores: Array, start_s: Array, end_s: Array) -> None:
        n_classes = len(self._labels)
        if scores.ndim != 2 or scores.shape[1] != n_classes or not start_s.shape == end_s.shape == scores.shape[:1]:
            raise UsageError(
                f"scores have the shape {scores.shape}, their times {start_s.shape} and {end_s.shape}; expected "
                f"(n_patches, {n_classes}), one column for each label, and (n_patches,) twice"
            )
        if scores.size and not 0 <= scores.min() <= scores.max() <= 1:
            raise UsageError(f"scores reach from {scores.min()} to {scores.max()}; expected [0, 1]. Are they logits?")
        is_rising = (np.diff(start_s, prepend=self._last_start_s) > 0).all()
        if not is_rising or not (end_s >= start_s).all() or (np.diff(end_s) < 0).any():
            raise UsageError(
                "the patches are not in the order of time; expected starts that rise and ends that do not fall, each "
                "end after its start. Likely cause: blocks of several recordings without finish() between them"
            )

    def _push_block(self, scores: Array, start_s: Array, end_s: Array) -> list[Event]:
        half = self._width // 2
        before = np.repeat(scores[:1], half, axis=0) if self._rows is None else self._rows
        rows = np.concatenate([before, scores])
        self._start_s = np.concatenate([self._start_s, start_s])
        self._end_s = np.concatenate([self._end_s, end_s])
        self._last_start_s = float(start_s[-1])
        n_done = self._detect(rows)
        self._rows = rows[n_done:]
        return self._release()

    def _detect(self, rows: Array) -> int:
        """Take the patches in the middle of ``rows``, those that the median filter can pass; how many these are."""
        n_patches = len(rows) - 2 * (self._width // 2)
        if n_patches <= 0:
            return 0
        high, low = self._high.astype(rows.dtype), self._low.astype(rows.dtype)
        active = np.flatnonzero((rows.max(axis=0) >= high) | self._is_on)  # nothing begins in any other column
        values = _median(rows[:, active], self._width)
        was_on = self._is_on[active]
        is_on = _switch(values >= high[active], values >= low[active], was_on)
        for column, first, stop, peak, total in _runs(values, is_on):
            run = _OpenEvent(float(self._start_s[first]), float(self._end_s[stop - 1]), peak, total, stop - first)
            self._add(int(active[column]), run, goes_on=first == 0 and bool(was_on[column]))
        self._is_on[active] = is_on[-1]
        self._close_final(float(self._start_s[n_patches - 1]))
        self._start_s, self._end_s = self._start_s[n_patches:], self._end_s[n_patches:]
        return n_patches

    def _add(self, index: int, run: _OpenEvent, *, goes_on: bool) -> None:
        """Join a run of patches to the label's last one, or begin a new event with it."""
        event = self._open.get(index)
        if event is not None and (goes_on or run.start_s - event.end_s <= self._gap_s):
            event.join(run)
            return
        if event is not None:
            self._close(index)
        self._open[index] = run

    def _close_final(self, now_s: float) -> None:
        """Close what no patch that begins after ``now_s`` can be joined to."""
        is_final = [i for i, event in self._open.items() if not self._is_on[i] and now_s - event.end_s > self._gap_s]
        for index in is_final:
            self._close(index)

    def _close(self, index: int) -> None:
        run = self._open.pop(index)
        if run.end_s - run.start_s < self._min_s:
            return
        mean = run.total / FIXED_POINT / run.n_patches
        label_id, label = self._labels.ids[index], self._labels.names[index]
        event = Event(run.start_s, run.end_s, label_id, label, run.peak, mean)
        heapq.heappush(self._final, (run.start_s, index, event))

    def _release(self) -> list[Event]:
        """Final events, if in order up to the first that is still open."""
        waits_for = (math.inf, 0)
        if self._in_order and self._open:
            waits_for = min((event.start_s, index) for index, event in self._open.items())
        events = []
        while self._final and self._final[0][:2] < waits_for:
            events.append(heapq.heappop(self._final)[2])
        return events


def scores_to_events(
    scores: Array, start_s: Array, end_s: Array, labels: LabelSet, settings: EventSettings = DEFAULTS
) -> list[Event]:
    """Find all events in an array of scores.

    Parameters
    ----------
    scores : ndarray, shape (n_patches, n_classes)
        In [0, 1].
    start_s, end_s : ndarray, shape (n_patches,)
        Seconds; starts rise, ends do not fall.
    labels : LabelSet
        What the columns mean.
    settings : EventSettings

    Returns
    -------
    list of Event
        By onset, then label index.

    Raises
    ------
    UsageError
        If the settings name an unknown label, or the arrays are not as described.

    Notes
    -----
    An event lasts from the start of its first patch to the end of its last: it holds all the audio that gave it its
    scores, so a sound is not cut off, and the stretch can be listened to or tagged again by itself. As a sound need
    not fill a patch, the onset may be up to a patch too early and the offset as much too late.
    """
    detector = EventDetector(labels, settings)
    return [*detector.push(scores, start_s, end_s), *detector.finish()]


def clip_to_audio(scores: Array, start_s: Array, end_s: Array, duration_s: float) -> tuple[Array, Array, Array]:
    """Patches without padding: those that begin within the audio, ending where it ends.

    Parameters
    ----------
    scores : ndarray, shape (n_patches, n_classes)
    start_s, end_s : ndarray, shape (n_patches,)
        Seconds.
    duration_s : float
        Of the audio, in seconds.

    Returns
    -------
    scores, start_s, end_s : ndarray
    """
    is_heard = start_s < duration_s  # with hops longer than a patch, the last one may be all padding
    return scores[is_heard], start_s[is_heard], np.minimum(end_s, duration_s)[is_heard]


@dataclass
class _OpenEvent:
    """Patches of one label that are, or may become, one event."""

    start_s: float
    end_s: float
    peak: float
    total: int  # sum of scores, as fixed-point number
    n_patches: int

    def join(self, later: _OpenEvent) -> None:
        self.end_s = max(self.end_s, later.end_s)
        self.peak = max(self.peak, later.peak)
        self.total += later.total
        self.n_patches += later.n_patches


def _median(rows: Array, width: int) -> Array:
    """Median of each ``width`` successive rows."""
    if width == 1:
        return rows
    windows = np.lib.stride_tricks.sliding_window_view(rows, width, axis=0)
    medians: Array = np.partition(windows, width // 2, axis=-1)[..., width // 2]
    return medians


def _switch(reaches: Array, stays: Array, was_on: Array) -> Array:
    """Hysteresis down each column: on from where it ``reaches``, until it no longer ``stays``."""
    patch = np.arange(1, len(reaches) + 1)[:, None]
    last_reach = np.maximum.accumulate(np.where(reaches, patch, 0))
    last_break = np.maximum.accumulate(np.where(stays, 0, patch))
    is_on: Array = (last_reach > last_break) | (was_on & (last_break == 0))
    return is_on


def _runs(values: Array, is_on: Array) -> Iterable[tuple[int, int, int, float, int]]:
    """Column, first row, row after the last, maximum and fixed-point sum of each run, column by column."""
    n_rows, n_columns = values.shape
    padded = np.zeros((n_columns, n_rows + 2), np.int8)
    padded[:, 1:-1] = is_on.T
    change = np.diff(padded)
    columns, first = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)  # row by row, so each pairs with its start
    bounds = (columns * n_rows + np.stack([first, stop])).T.ravel()
    flat = np.append(values.T, np.zeros(1, values.dtype))  # the last run's end is then an index too
    fixed = np.rint(flat * FIXED_POINT).astype(np.int64)
    peaks, totals = np.maximum.reduceat(flat, bounds)[::2], np.add.reduceat(fixed, bounds)[::2]
    return zip(*(column.tolist() for column in (columns, first, stop, peaks, totals)), strict=True)
