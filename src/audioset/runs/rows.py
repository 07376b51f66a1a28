"""Rows of the parts of files' predictions: labels, events and embeddings, as they come."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from audioset.formats.rows import EmbeddingRow, EventRow, Row, Tag
from audioset.labels.ontology import Ontology
from audioset.models.prediction import top_indices

if TYPE_CHECKING:
    from audioset.models.model import Model
    from audioset.models.postprocess import Postprocessor
    from audioset.runs.batch import Part
    from audioset.runs.view import EventFinder, View

Parts = Iterable[tuple[str, "Part"]]  # with the name that the part's file is shown under


@dataclass(frozen=True)
class TagChoice:
    """Which labels of a score vector a row shows."""

    view: View
    top: int
    threshold: float
    leaf_only: bool

    def tags(self, scores: Any) -> tuple[Tag, ...]:
        """The best labels that reach the threshold, best first."""
        labels = self.view.labels
        chosen = [index for index in top_indices(scores, self.top) if scores[index] >= self.threshold]
        if self.leaf_only:
            is_chosen = np.zeros(len(labels), bool)
            is_chosen[chosen] = True
            is_kept = Ontology.load().leaf_only(is_chosen, labels)
            chosen = [index for index in chosen if is_kept[index]]
        return tuple(Tag(labels.ids[index], labels.names[index], float(scores[index])) for index in chosen)


def file_rows(parts: Parts, choose: TagChoice, model: Model, name: str) -> Generator[Row, None, None]:
    """One row a file, with mean scores that are summed as the parts come."""
    total: Any = 0.0
    n_patches, duration_s = 0, 0.0
    for shown, part in parts:
        if part.prediction is not None:
            scores = choose.view(part.prediction).require_scores()
            total = total + scores.sum(axis=0, dtype=np.float64)
            n_patches += len(scores)
            duration_s = part.prediction.duration_s
        if part.is_last:
            if part.error:
                yield Row.failed(shown, part.error, name)
            else:
                tags = choose.tags(total / n_patches)
                yield Row(shown, 0.0, duration_s, tags, duration_s, name, part.warnings, high_hz=_high_hz(model))
            total, n_patches, duration_s = 0.0, 0, 0.0


def patch_rows(parts: Parts, choose: TagChoice, model: Model, name: str) -> Generator[Row, None, None]:
    """One row a patch, as soon as it is known; a file that fails ends with a row that says so."""
    high_hz = _high_hz(model)
    for shown, part in parts:
        if part.prediction is not None:
            prediction = choose.view(part.prediction)
            columns = (prediction.start_s, prediction.end_s, prediction.require_scores())
            for start_s, end_s, scores in zip(*columns, strict=True):
                tags = choose.tags(scores)
                yield Row(shown, float(start_s), float(end_s), tags, prediction.duration_s, name, high_hz=high_hz)
        elif part.error:
            yield Row.failed(shown, part.error, name)


def event_rows(parts: Parts, finder: EventFinder, model: Model, name: str) -> Generator[EventRow, None, None]:
    """Rows of events as soon as they are final; each file's last row says how it went."""
    high_hz = _high_hz(model)
    n_events, duration_s = 0, 0.0
    for shown, part in parts:
        if part.prediction is not None:
            duration_s = part.prediction.duration_s
        found = tuple(finder.finish() if part.prediction is None else finder.push(part.prediction))
        n_events += len(found)
        is_last = part.is_last and part.error is None
        if found or is_last:
            yield EventRow(shown, found, n_events, duration_s, name, is_last, part.warnings, high_hz=high_hz)
        if part.error:
            yield EventRow.failed(shown, part.error, name, n_events)
        if part.is_last:
            n_events, duration_s = 0, 0.0


def embedding_rows(parts: Parts, name: str, postprocessor: Postprocessor | None) -> Generator[EmbeddingRow, None, None]:
    """One row for each part of a file, so that the longest recording fits in memory."""
    for shown, part in parts:
        prediction = part.prediction
        if prediction is not None:
            values = postprocessor(prediction.embeddings) if postprocessor else prediction.embeddings
            yield EmbeddingRow(shown, prediction.start_s, prediction.end_s, values, prediction.duration_s, name)
        elif part.error:
            yield EmbeddingRow.failed(shown, part.error, name)


def _high_hz(model: Model) -> float:
    return model.frontend.sample_rate / 2
