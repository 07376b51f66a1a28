"""What scores get wrong, and whether they mean what they say: confusions, calibration, and the course of training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import BoolArray, FloatArray
from audioset.labels.labels import LabelSet
from audioset.labels.ontology import Ontology
from audioset.metrics import mean_defined
from audioset.records import DAMAGE

N_BINS = 10
N_CONFUSIONS = 100
CURVES_NAME = "metrics.jsonl"
PARTS = ("holdout", "eval")  # of the clips of a training run that are measured


@dataclass(frozen=True)
class Confusion:
    """Clips with one label in which another class, which they do not have, is heard instead."""

    # label_id, label: what the clips have
    label_id: str
    label: str
    # other_id, other: what scores highest among all that they do not have, and higher than the label
    other_id: str
    other: str
    n_clips: int  # how many such clips there are
    share: float  # of the clips with the label, (0, 1]
    # ``"above"`` if the other class is above the label in the ontology, ``"below"`` if it is below, else ``""``
    relation: str


@dataclass(frozen=True)
class Reliability:
    """Whether a score is the share of clips that have the label, over all pairs of clip and class.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015.
    """

    n_pairs: tuple[int, ...]  # in each of ten bins of equal width, from 0 to 1
    # mean_scores, shares: mean score of a bin, and the share of its pairs in which the clip has the label; None for an
    # empty bin
    mean_scores: tuple[float | None, ...]
    shares: tuple[float | None, ...]
    # ECE: mean distance between the two over all pairs, in [0, 1]. As most scores are near 0, so is this.
    calibration_error: float
    calibration_error_of_classes: float  # mean over the classes with positives of the same distance within the class


def find_confusions(scores: FloatArray, targets: BoolArray, labels: LabelSet) -> list[Confusion]:
    """The most frequent confusions, the most frequent first.

    A clip counts for each of its labels that scores lower than the highest class that it does not have.
    """
    has_others = np.logical_not(targets.all(axis=1))
    if len(labels) < 2 or not has_others.any():
        return []
    wrong = np.where(targets, -np.inf, scores)
    highest = wrong.argmax(axis=1)
    clips, classes = np.nonzero(targets & np.expand_dims(has_others, 1))
    others = highest[clips]
    is_outranked = scores[clips, classes] < wrong[clips, others]
    cells, counts = np.unique(classes[is_outranked] * len(labels) + others[is_outranked], return_counts=True)
    order = np.lexsort((cells, -counts))[:N_CONFUSIONS]
    n_positives = targets.sum(axis=0)
    ontology = Ontology.load()
    found = []
    for cell, count in zip(cells[order].tolist(), counts[order].tolist(), strict=True):
        label, other = divmod(cell, len(labels))
        ids = labels.ids[label], labels.ids[other]
        share = count / int(n_positives[label])
        pair = (ids[0], labels.names[label], ids[1], labels.names[other])
        found.append(Confusion(*pair, count, share, _relation(ontology, *ids)))
    return found


def measure_reliability(scores: FloatArray, targets: BoolArray) -> Reliability | None:
    """How far scores and shares are apart; None for scores that are no probabilities."""
    if scores.min() < 0 or scores.max() > 1:
        return None
    n_classes = scores.shape[1]
    n_pairs, score_sums, n_positives = (np.zeros((n_classes, N_BINS)) for _ in range(3))
    for index in range(n_classes):
        column, is_positive = scores[:, index], targets[:, index]
        bins = np.minimum((column * N_BINS).astype(np.intp), N_BINS - 1)
        n_pairs[index] = np.bincount(bins, minlength=N_BINS)
        score_sums[index] = np.bincount(bins, weights=column, minlength=N_BINS)
        n_positives[index] = np.bincount(bins[is_positive], minlength=N_BINS)
    of_classes = np.abs(score_sums - n_positives).sum(axis=1) / len(scores)
    totals = [values.sum(axis=0) for values in (n_pairs, score_sums, n_positives)]
    return Reliability(
        n_pairs=tuple(totals[0].astype(int).tolist()),
        mean_scores=_shares(totals[1], totals[0]),
        shares=_shares(totals[2], totals[0]),
        calibration_error=float(np.abs(totals[1] - totals[2]).sum() / scores.size),
        calibration_error_of_classes=mean_defined(np.where(n_positives.any(axis=1), of_classes, np.nan)),
    )


def read_curves(folder: Path | None) -> list[dict[str, Any]]:
    """Measurements of a training run: for each line the iteration and, where they are, loss and mAP of the parts."""
    path = folder and folder / CURVES_NAME
    if not path or not path.is_file():
        return []
    points = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            point = {"iteration": int(record["iteration"]), **_measured(record)}
        except DAMAGE:
            continue
        if len(point) > 1:
            points.append(point)
    return points


def as_record(reliability: Reliability | None) -> dict[str, Any] | None:
    """For JSON."""
    return None if reliability is None else {name: _listed(value) for name, value in asdict(reliability).items()}


def _measured(record: Mapping[str, Any]) -> dict[str, float]:
    values = {"loss": record.get("loss")}
    values |= {part: record[part].get("mean_ap") for part in PARTS if isinstance(record.get(part), Mapping)}
    return {name: value for name, value in values.items() if isinstance(value, (int, float)) and math.isfinite(value)}


def _relation(ontology: Ontology, label_id: str, other_id: str) -> str:
    if label_id not in ontology or other_id not in ontology:
        return ""
    if other_id in ontology.ancestors(label_id):
        return "above"
    return "below" if other_id in ontology.descendants(label_id) else ""


def _shares(parts: Any, wholes: Any) -> tuple[float | None, ...]:
    return tuple(part / whole if whole else None for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
