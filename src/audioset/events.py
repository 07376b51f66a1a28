"""From scores over time to events with onset and offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset.errors import UsageError
from audioset.labels import LabelSet


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
    """

    start_s: float
    end_s: float
    label_id: str
    label: str
    score: float


def scores_to_events(
    scores: np.ndarray[Any, Any],
    start_s: np.ndarray[Any, Any],
    end_s: np.ndarray[Any, Any],
    labels: LabelSet,
    threshold: float,
) -> list[Event]:
    """Join neighbouring patches that reach a threshold.

    Parameters
    ----------
    scores : ndarray, shape (n_patches, n_classes)
    start_s, end_s : ndarray, shape (n_patches,)
        Seconds.
    labels : LabelSet
    threshold : float
        In [0, 1]; a patch whose score is at least this belongs to an event.

    Returns
    -------
    list of Event
        By onset, then by falling score.

    Raises
    ------
    UsageError
        If the threshold is outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise UsageError(f"threshold is {threshold}; expected a score in [0, 1]")
    is_on = np.zeros((len(scores) + 2, scores.shape[1]), np.int8)
    is_on[1:-1] = scores >= threshold
    change = np.diff(is_on, axis=0).T
    classes, onsets = np.nonzero(change == 1)
    _, offsets = np.nonzero(change == -1)  # row by row, so each pairs with its onset
    events = [
        Event(
            float(start_s[onset]),
            float(end_s[offset - 1]),
            labels.ids[index],
            labels.names[index],
            float(scores[onset:offset, index].max()),
        )
        for index, onset, offset in zip(classes, onsets, offsets, strict=True)
    ]
    return sorted(events, key=lambda event: (event.start_s, -event.score))
