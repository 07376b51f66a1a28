"""Which of the 456 strong labels are among the 527, and where the ontology has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from audioset.labels.labels import LabelSet
from audioset.labels.ontology import Ontology

Relation = Literal["same", "renamed", "ontology", "none"]


@dataclass(frozen=True)
class StrongClass:
    """One of the strong labels."""

    # label_id, label: ``label`` is the name that the strong labels have for it
    label_id: str
    label: str
    # {"same", "renamed", "ontology", "none"}; among the 527 with the same name; among them with another; only in the
    # ontology; in neither
    relation: Relation
    label_index: int | None  # its column among the 527
    other_name: str | None  # the name among the 527, or in the ontology
    # If it is only in the ontology: ids of the nearest of the 527 above it. A clip with the label may count for these.
    above: tuple[str, ...]


def map_strong_labels() -> tuple[StrongClass, ...]:
    """All strong labels with their places among the 527 and in the ontology, in the order of ``audioset-strong``.

    Labels are compared by id: *Brief tone* is the name of two.
    """
    strong, weak, ontology = LabelSet.load("audioset-strong"), LabelSet.load("audioset-527"), Ontology.load()
    index = {label_id: position for position, label_id in enumerate(weak.ids)}
    return tuple(
        _strong_class(label_id, name, index, weak, ontology)
        for label_id, name in zip(strong.ids, strong.names, strict=True)
    )


def _strong_class(label_id: str, name: str, index: dict[str, int], weak: LabelSet, ontology: Ontology) -> StrongClass:
    if label_id in index:
        other = weak.names[index[label_id]]
        return StrongClass(label_id, name, "same" if other == name else "renamed", index[label_id], other, ())
    if not any(entry.label_id == label_id for entry in ontology.classes):  # not "in": a name is no id
        return StrongClass(label_id, name, "none", None, None, ())
    return StrongClass(label_id, name, "ontology", None, ontology.name(label_id), _nearest(label_id, index, ontology))


def _nearest(label_id: str, index: dict[str, int], ontology: Ontology) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for parent_id in ontology.parents(label_id):
        found.update(dict.fromkeys((parent_id,) if parent_id in index else _nearest(parent_id, index, ontology)))
    return tuple(found)
