"""Of events of general and of specific labels at the same time, the specific ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from audioset.labels.events import TOLERANCE_S, Event
from audioset.labels.labels import LabelSet
from audioset.labels.ontology import Ontology

MIN_SHARE = 0.5  # of an event, that more specific ones must fill for it to be left out


class LeafEvents:
    """Leaves out events that are filled, at least by half, by events of more specific labels.

    What is left does not depend on how the stream of events is cut. Events of labels that the ontology does not have
    are never left out. If they are ``in_order``, events that are left keep their order, and each waits for those before
    it; if not, each waits only for the more specific ones that overlap it to end.
    """

    def __init__(self, labels: LabelSet, *, in_order: bool = True) -> None:
        ontology = Ontology.load()
        self._below = {
            label_id: [other for other in ontology.descendants(label_id) if other in labels.ids]
            for label_id in labels.ids
            if label_id in ontology
        }
        self._above: dict[str, list[str]] = {}
        for label_id, below in self._below.items():
            for other in below:
                self._above.setdefault(other, []).append(label_id)
        self._in_order = in_order
        self._waiting: list[Event] = []
        self._specific: dict[str, list[Event]] = {}  # by label id: they may fill others that are not final

    def push(self, events: Iterable[Event], pending: Mapping[str, float]) -> list[Event]:
        """Take the next events, and return those of which it is now known that they stay.

        ``pending`` is ``EventDetector.pending`` at this moment: by label id, from when on, in seconds, events are still
        to come. Empty at the end of a recording.
        """
        for event in events:
            self._waiting.append(event)
            if event.label_id in self._above:
                self._specific.setdefault(event.label_id, []).append(event)
        waiting: list[Event] = []
        left: list[Event] = []
        for event in self._waiting:
            if (waiting and self._in_order) or not self._is_settled(event, pending):
                waiting.append(event)
            elif not self._is_filled(event):
                left.append(event)
        self._waiting = waiting
        self._forget(pending)
        return left

    def _is_settled(self, event: Event, pending: Mapping[str, float]) -> bool:
        """Whether no more specific event is still to come that begins before this one ends."""
        below = self._below.get(event.label_id, ())
        return all(pending.get(label_id, math.inf) >= event.end_s for label_id in below)

    def _is_filled(self, event: Event) -> bool:
        filled_s, until_s = 0.0, event.start_s
        below = (self._specific.get(label_id, ()) for label_id in self._below.get(event.label_id, ()))
        for other in sorted((other for found in below for other in found), key=lambda other: other.start_s):
            start_s, end_s = max(other.start_s, until_s), min(other.end_s, event.end_s)
            filled_s += max(0.0, end_s - start_s)
            until_s = max(until_s, end_s)
        return filled_s > 0 and filled_s >= MIN_SHARE * event.duration_s - TOLERANCE_S

    def _forget(self, pending: Mapping[str, float]) -> None:
        """Drop what ended before any more general event began that waits or is still to come."""
        onset = dict(pending)
        for event in self._waiting:
            onset[event.label_id] = min(event.start_s, onset.get(event.label_id, math.inf))
        for label_id, found in list(self._specific.items()):
            first_s = min((onset.get(other, math.inf) for other in self._above[label_id]), default=math.inf)
            self._specific[label_id] = [event for event in found if event.end_s > first_s]


def leaf_events(events: Iterable[Event], labels: LabelSet) -> list[Event]:
    """Leave out events that are filled, at least by half, by events of more specific labels.

    Parameters
    ----------
    events : iterable of Event
        All of one recording.
    labels : LabelSet
        That they are of.

    Returns
    -------
    list of Event
        Those that are left, in the order given.
    """
    return LeafEvents(labels).push(events, {})
