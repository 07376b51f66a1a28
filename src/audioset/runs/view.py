"""What is looked at in predictions: some of the labels, rolled up or not, and the events in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioset.errors import UsageError

if TYPE_CHECKING:
    from audioset.labels.events import Event, EventDetector, EventSettings
    from audioset.labels.labels import LabelSet
    from audioset.models.model import Model
    from audioset.models.prediction import Prediction


class View:
    """Predictions as the options ask for them: some of the labels, rolled up or not.

    ``labels`` are the model's; ``classes`` are ids of the ontology, none means all labels.
    """

    def __init__(self, labels: LabelSet, classes: Sequence[str], *, roll_up: bool) -> None:
        self.labels = labels  # those that are left
        self._columns: Any = slice(None)
        self._roll_up = roll_up
        if classes:
            self._columns = _columns(labels, classes)
            self.labels = labels.select(self._columns)

    def __call__(self, prediction: Prediction) -> Prediction:
        """The prediction with the scores that are asked for."""
        return self._of(prediction, prediction.require_scores())

    def calibrated(self, prediction: Prediction) -> Prediction:
        """The same, of the scores that the model's own maps make."""
        return self._of(prediction, prediction.calibrated())

    def _of(self, prediction: Prediction, scores: Any) -> Prediction:
        from audioset.labels.ontology import Ontology

        scores = scores[:, self._columns]
        if self._roll_up:
            scores = Ontology.load().roll_up(scores, self.labels)
        return replace(prediction, scores=scores, segment_scores=None, labels=self.labels, calibration=None)


class EventFinder:
    """Finds the events that the options ask for in the parts of recordings, by a detector of the view's labels."""

    def __init__(self, view: View, detector: EventDetector, leaves: Any = None) -> None:
        self.view = view
        self._detector = detector
        self._leaves = leaves
        self._heard_s = 0.0  # of the recording, so far

    def push(self, prediction: Prediction) -> list[Event]:
        """Take the next part of a recording; the events that are now final."""
        scores, start_s, end_s = prediction.score_track(self._heard_s)
        self._heard_s = prediction.duration_s
        seen = self.view.calibrated(replace(prediction, scores=scores, segment_scores=None))
        return self._without_general(self._detector.push(seen.require_scores(), start_s, end_s))

    def finish(self) -> list[Event]:
        """The events that are left at the end of a recording."""
        self._heard_s = 0.0
        return self._without_general(self._detector.finish())

    def _without_general(self, events: list[Event]) -> list[Event]:
        if self._leaves is None:
            return events
        kept: list[Event] = self._leaves.push(events, self._detector.pending())
        return kept


def view_maker(classes: Iterable[str], *, roll_up: bool) -> Callable[[LabelSet], View]:
    """Make views of models' labels that show some classes; what is misspelt is refused at once."""
    from audioset.labels.ontology import Ontology

    label_ids = [Ontology.load().find(name) for name in classes]
    return lambda labels: View(labels, label_ids, roll_up=roll_up)


def finder_maker(
    make_view: Callable[[LabelSet], View],
    threshold: float | None,
    thresholds: Path | None,
    *,
    leaf_only: bool,
    in_order: bool,
    say: Callable[[str], None],
    **chosen: Any,
) -> Callable[[Model], EventFinder]:
    """Make finders of models' events; what is wrong with the thresholds is said at once.

    ``make_view`` is from ``view_maker``. ``threshold`` is for all labels, ``thresholds`` a table: if it names labels
    that a model does not have, it is to blame. ``say`` is told where a model's own thresholds hold. What else is chosen
    is of ``EventSettings``: low_threshold, median_patches, max_gap_s, min_duration_s.
    """
    from audioset.calibration import NONE
    from audioset.labels.events import EventDetector
    from audioset.labels.labels import LabelSet
    from audioset.labels.leaf_events import LeafEvents
    from audioset.labels.thresholds import read_thresholds

    label_thresholds = read_thresholds(thresholds) if thresholds else {}
    NONE.settings(LabelSet((), ()), threshold, **chosen)  # checks the ranges

    def make_finder(model: Model) -> EventFinder:
        view = make_view(model.labels)
        try:
            settings = (model.calibration or NONE).settings(model.labels, threshold, label_thresholds, **chosen)
            settings.thresholds(model.labels)  # checks the names
        except UsageError as error:
            raise UsageError(f"--thresholds {thresholds}: {error}") from error
        if model.calibration and threshold is None:
            names = f"{len(model.calibration.thresholds)} of {len(model.labels)} labels"
            say(f"thresholds of the model's own for {names}; --threshold T sets one for all")
        detector = EventDetector(view.labels, _of_labels(settings, model.labels, view.labels), in_order=in_order)
        return EventFinder(view, detector, LeafEvents(view.labels, in_order=in_order) if leaf_only else None)

    return make_finder


def _of_labels(settings: EventSettings, all_labels: LabelSet, labels: LabelSet) -> EventSettings:
    """Settings without the thresholds of labels that are not looked at."""
    known = set(labels.ids)
    ids = {label: all_labels.ids[all_labels.index(label)] for label in settings.label_thresholds}
    kept = {label: value for label, value in settings.label_thresholds.items() if ids[label] in known}
    return replace(settings, label_thresholds=kept)


def _columns(labels: LabelSet, classes: Sequence[str]) -> Any:
    """Columns of the labels that are one of the classes, or below one."""
    from audioset.labels.ontology import Ontology

    ontology = Ontology.load()
    columns = ontology.subtree(labels, *classes)
    if not len(columns):
        names = " or ".join(map(ontology.name, classes))
        raise UsageError(
            f"none of the model's {len(labels)} labels is {names}, or below. "
            "Next step: choose a class above; audioset data ontology show CLASS lists them"
        )
    return columns
