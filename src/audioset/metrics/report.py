"""All metrics of scores and targets in one call, and each class by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from audioset.arrays import Array, BoolArray, DoubleArray, IndexArray
from audioset.errors import UsageError
from audioset.labels.labels import LabelSet
from audioset.labels.ontology import Ontology
from audioset.metrics.ranking import checked, d_prime, lwlrap_both, mean_defined, ranks_of_classes


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Each class by itself; every attribute has shape (n_classes,).

    Attributes
    ----------
    n_positives : ndarray, intp
        Clips with the label.
    prevalence : ndarray, float64
        Their share of all clips: the AP of scores that say nothing.
    ap, lwlrap : ndarray, float64
        NaN without positives.
    auc, d_prime : ndarray, float64
        NaN without positives, and without negatives. ``d_prime`` is infinite where ``auc`` is 0 or 1.
    """

    n_positives: IndexArray
    prevalence: DoubleArray
    ap: DoubleArray
    auc: DoubleArray
    d_prime: DoubleArray
    lwlrap: DoubleArray

    def __len__(self) -> int:
        return len(self.n_positives)

    def rows(self, labels: LabelSet | None = None) -> list[dict[str, Any]]:
        """One dictionary for each class, as JSON can hold it: None where not defined or infinite.

        Parameters
        ----------
        labels : LabelSet, optional
            What the classes are: adds ``label_id`` and ``label`` to ``label_index``.

        Returns
        -------
        list of dict

        Raises
        ------
        UsageError
            For another number of labels.
        """
        if labels is not None:
            _check_labels(labels, len(self))
        columns: dict[str, Sequence[Any]] = {"label_index": range(len(self))}
        if labels is not None:
            columns |= {"label_id": labels.ids, "label": labels.names}
        for field in fields(self):
            columns[field.name] = [_finite(value) for value in getattr(self, field.name).tolist()]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True, eq=False)
class Metrics:
    """How good the scores of some clips are.

    Attributes
    ----------
    n_clips, n_classes : int
    n_clips_without_labels : int
        They count as negatives of every class. Missing recordings that a packed file keeps as empty rows show here.
    n_classes_used : int
        Classes with positives: ``mean_ap`` is their mean.
    n_classes_used_auc : int
        Classes with positives and negatives: ``mean_auc`` and ``d_prime_of_classes`` are their means.
    mean_ap : float
        Mean average precision, mAP.
    mean_auc : float
        Mean area under the ROC curve.
    d_prime : float
        √2 Φ⁻¹ of ``mean_auc``: d′ as Kong et al. and PANNs report it.
    d_prime_of_classes : float
        Mean of √2 Φ⁻¹ of each class's AUC: balanced d′, as for YAMNet. Infinite if the AUC of a class is 0 or 1.
    lwlrap : float
        Label-weighted label-ranking average precision.
    classes : ClassTable

    Notes
    -----
    A mean is NaN if there is no class to take it of. No two of them can be compared that come from different clips.
    """

    n_clips: int
    n_classes: int
    n_clips_without_labels: int
    n_classes_used: int
    n_classes_used_auc: int
    mean_ap: float
    mean_auc: float
    d_prime: float
    d_prime_of_classes: float
    lwlrap: float
    classes: ClassTable

    def as_dict(self) -> dict[str, float | int | None]:
        """All but the table by name, as JSON can hold them: None where not defined or infinite."""
        return {field.name: _finite(getattr(self, field.name)) for field in fields(self) if field.name != "classes"}


def evaluate(scores: Array, targets: Array) -> Metrics:
    """All metrics that depend on the order of the scores alone.

    Parameters
    ----------
    scores : ndarray, shape (n_clips, n_classes), any real dtype
        Probabilities, logits or any other numbers of which more means likelier. Infinities are allowed.
    targets : ndarray, shape (n_clips, n_classes), bool or 0 and 1
        Which clip has which label.

    Returns
    -------
    Metrics

    Raises
    ------
    UsageError
        For arrays that are empty or whose shapes differ, scores that are NaN or no real numbers, and targets other
        than 0 and 1.
    """
    scores, targets = checked(scores, targets)
    ranks = [(r.n_positives, r.average_precision, r.roc_auc) for r in ranks_of_classes(scores, targets)]
    n_positives, ap, auc = (np.array(column) for column in zip(*ranks, strict=True))
    d_primes = d_prime(auc)
    lwlrap, lwlrap_of_classes = lwlrap_both(scores, targets)
    mean_auc = mean_defined(auc)
    return Metrics(
        n_clips=len(scores),
        n_classes=len(ranks),
        n_clips_without_labels=int(np.count_nonzero(~targets.any(axis=1))),
        n_classes_used=int(np.count_nonzero(~np.isnan(ap))),
        n_classes_used_auc=int(np.count_nonzero(~np.isnan(auc))),
        mean_ap=mean_defined(ap),
        mean_auc=mean_auc,
        d_prime=d_prime(mean_auc),
        d_prime_of_classes=mean_defined(d_primes),
        lwlrap=lwlrap,
        classes=ClassTable(n_positives, n_positives / len(scores), ap, auc, d_primes, lwlrap_of_classes),
    )


def roll_up(
    scores: Array, targets: Array, labels: LabelSet, ontology: Ontology | None = None
) -> tuple[Array, BoolArray]:
    """Scores and targets in which each label implies those above it in the ontology.

    A class then has the highest score of itself and the classes below it, and a clip has it if it has any of these.
    ``evaluate(*roll_up(scores, targets, labels))`` is the evaluation in the sense of hierarchical label propagation.

    Parameters
    ----------
    scores, targets : ndarray, shape (n_clips, n_classes)
        As for ``evaluate``.
    labels : LabelSet
        What the columns mean.
    ontology : Ontology, optional
        Default: the published one.

    Returns
    -------
    scores : ndarray, the same shape and dtype
    targets : ndarray, the same shape, bool

    Raises
    ------
    UsageError
        For arrays that ``evaluate`` refuses, or another number of labels.

    Notes
    -----
    Not OmAP (arXiv:2211.12195), which weighs false positives by their distance in the ontology instead.

    Source: hierarchical label propagation, arXiv:2503.21826.
    """
    scores, targets = checked(scores, targets)
    ontology = Ontology.load() if ontology is None else ontology
    return ontology.roll_up(scores, labels), ontology.roll_up(targets, labels)


def confusion(scores: Array, targets: Array) -> IndexArray:
    """Which class scores highest in the clips of each label.

    Parameters
    ----------
    scores, targets : ndarray, shape (n_clips, n_classes)
        As for ``evaluate``. A clip with several labels counts once for each, even where the highest class is
        another of them. Of equal scores, that of the first class counts as highest.

    Returns
    -------
    ndarray, shape (n_classes, n_classes), intp
        In row i and column j, the clips with label i whose highest class is j. A row sums to the label's clips.

    Raises
    ------
    UsageError
        As ``evaluate``.
    """
    scores, targets = checked(scores, targets)
    n_classes = scores.shape[1]
    clips, classes = np.nonzero(targets)
    cells = classes * n_classes + scores.argmax(axis=1)[clips]
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def _check_labels(labels: LabelSet, n_classes: int) -> None:
    if len(labels) != n_classes:
        raise UsageError(f"there are {len(labels)} labels and {n_classes} classes; expected a label for each class")


def _finite(value: float) -> float | int | None:
    return value if math.isfinite(value) else None
