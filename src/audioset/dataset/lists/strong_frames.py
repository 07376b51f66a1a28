"""Labels with times as frames of equal length, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from audioset.arrays import BoolArray, Int8Array
from audioset.dataset.lists.strong import CLIP_S, StrongLabel, StrongTable
from audioset.errors import UsageError
from audioset.labels.labels import LabelSet

FRAME_S = 0.96
TOLERANCE_S = 0.005  # published times have three decimals, some perhaps two


class Timed(Protocol):
    """A label with times: an ``Event`` or a ``StrongLabel``."""

    @property
    def start_s(self) -> float:
        """Seconds."""

    @property
    def end_s(self) -> float:
        """Seconds."""

    @property
    def label_id(self) -> str:
        """Such as ``"/m/0bt9lr"``."""


def events_to_frames(
    events: Iterable[Timed], labels: LabelSet, *, hop_s: float = FRAME_S, duration_s: float = CLIP_S
) -> BoolArray:
    """In which frames each label is heard.

    Parameters
    ----------
    events : iterable of Event or StrongLabel
        With times from the start of the clip. What is outside the clip is cut off.
    labels : LabelSet
        The columns; events with other labels are left out.
    hop_s : float
        Length of a frame in seconds.
    duration_s : float
        Of the clip. A last frame that is not full counts.

    Returns
    -------
    ndarray, shape (n_frames, n_labels), bool
        Frame ``k`` is from ``k * hop_s`` to ``(k + 1) * hop_s``. It is True if an event reaches into it, however
        little: the onset is rounded down and the offset up, as in sed_eval. An event without length has no frame.

    Raises
    ------
    UsageError
        If ``hop_s`` or ``duration_s`` is not above 0.
    """
    _check_positive(hop_s=hop_s, duration_s=duration_s)
    n_frames = _ceil(duration_s / hop_s)
    column = {label_id: index for index, label_id in enumerate(labels.ids)}
    is_heard: BoolArray = np.zeros((n_frames, len(labels)), bool)
    for event in events:
        if event.label_id in column and event.end_s > event.start_s:
            first, end = max(0, _floor(event.start_s / hop_s)), max(0, _ceil(event.end_s / hop_s))
            is_heard[first:end, column[event.label_id]] = True
    return is_heard


def strong_to_frames(table: StrongTable, segment_id: str, *, hop_s: float = FRAME_S) -> Int8Array:
    """The frames of one clip of the framed file.

    Parameters
    ----------
    table : StrongTable
        With ``is_present``.
    segment_id : str
    hop_s : float
        Length of a frame in seconds.

    Returns
    -------
    ndarray, shape (n_frames, n_labels), int8
        1: heard; -1: listened to, and not heard; 0: nobody says. ``n_frames`` is up to the clip's last row.

    Raises
    ------
    UsageError
        If the table has no frames, or no such clip; if a row is no frame of this length.
    """
    _check_positive(hop_s=hop_s)
    rows = table.clip(segment_id)
    if rows.is_present is None:
        raise UsageError("the table has times, not frames; expected the framed file. Next step: events_to_frames")
    index = np.round(rows.start_s / hop_s).astype(int)
    is_off = (np.abs(rows.start_s - index * hop_s) > TOLERANCE_S) | (rows.end_s - rows.start_s > hop_s + TOLERANCE_S)
    if is_off.any():
        row = rows[int(np.argmax(is_off))]
        raise UsageError(
            f"{segment_id} has a row from {row.start_s:g} to {row.end_s:g} s, which is no frame of {hop_s:g} s. "
            "Likely cause: frames of another length. Next step: give their hop_s"
        )
    frames: Int8Array = np.zeros((int(index.max()) + 1, len(table.labels)), np.int8)
    frames[index, rows.label_index] = np.where(rows.is_present, 1, -1)
    return frames


def frames_to_strong(
    clips: Mapping[str, Int8Array], labels: LabelSet, *, hop_s: float = FRAME_S, duration_s: float = math.inf
) -> StrongTable:
    """A framed table of clips, ready for ``write_strong``.

    Of each clip, by segment id, (n_frames, n_labels) int8: 1 heard, -1 not heard, 0 nobody says. The last frame
    ends at ``duration_s`` at the latest.
    """
    rows = []
    for segment_id, frames in clips.items():
        if frames.ndim != 2 or frames.shape[1] != len(labels) or not np.isin(frames, (-1, 0, 1)).all():
            raise UsageError(
                f"the frames of {segment_id} have shape {frames.shape} and values {np.unique(frames)[:5]}; expected "
                f"(n_frames, {len(labels)}) of -1, 0 and 1"
            )
        for frame, label in np.argwhere(frames).tolist():
            times = (round(frame * hop_s, 6), round(min((frame + 1) * hop_s, duration_s), 6))
            rows.append(StrongLabel(segment_id, *times, labels.ids[label], bool(frames[frame, label] == 1)))
    return StrongTable.of(rows, labels, is_framed=True)


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise UsageError(f"{name} is {value}; expected seconds above 0")


def _floor(value: float) -> int:
    """Rounded down, but up if it is a whole number but for its last bits."""
    return math.floor(value + 1e-6)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-6)
