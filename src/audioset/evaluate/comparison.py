"""Two models or more on the same clips and classes, and how sure their differences are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from audioset import __version__
from audioset.arrays import Array, BoolArray, FloatArray, IndexArray
from audioset.dataset.download.clips import names_digest
from audioset.errors import UsageError
from audioset.evaluate.clips import NOT_THERE, Scores, Targets, columns, locate, no_shared_clips, shared_labels, take
from audioset.evaluate.evaluation import MEASURES, EvaluationSettings, ends
from audioset.evaluate.storage import ScoreFile
from audioset.labels.labels import LabelSet
from audioset.metrics import Bootstrap, bootstrap, d_prime, evaluate, mean_defined

KIND, FORMAT = "audioset comparison", 1


@dataclass(frozen=True)
class System:
    """One of the models that are compared.

    Attributes
    ----------
    name : str
    metrics : dict
        On the common clips and classes.
    intervals : dict of str to [float, float]
    n_dropped_clips, n_dropped_classes : int
        Of its own, that not all have.
    """

    name: str
    metrics: dict[str, Any]
    intervals: dict[str, list[float | None]]
    n_dropped_clips: int
    n_dropped_classes: int


@dataclass(frozen=True)
class Difference:
    """How much more a model has of a measure than the first one.

    Attributes
    ----------
    value : float
    low, high : float
        Ends of its interval, by resamples of the clips that are the same for both.
    share_ahead : float
        Of the resamples in which it has more, in [0, 1]; a tie counts half.
    """

    value: float | None
    low: float | None
    high: float | None
    share_ahead: float | None


@dataclass(frozen=True)
class Comparison:
    """Models on the clips and classes that all of them have.

    Attributes
    ----------
    n_clips : int
    clips_sha256 : str
        As of an evaluation.
    n_classes : int
    systems : list of System
        The first is the one that others are compared with.
    differences : list of dict of str to Difference
        For each other system, of ``mean_ap``, ``mean_auc`` and ``d_prime``.
    classes : list of dict
        ``label_id``, ``label``, ``n_positives``, and ``ap``: that of each system. For each other system
        ``differences``, with ``value``, ``low`` and ``high``.
    settings : dict
    version : str
        Of this package.
    """

    n_clips: int
    clips_sha256: str
    n_classes: int
    systems: list[System]
    differences: list[dict[str, Difference]]
    classes: list[dict[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": KIND, "format": FORMAT, **asdict(self)}


def compare(
    files: Sequence[ScoreFile], targets: Targets | None = None, settings: EvaluationSettings | None = None
) -> Comparison:
    """Compare models on the clips that all have scores for.

    Parameters
    ----------
    files : sequence of ScoreFile
        Two or more.
    targets : Targets, optional
        Labels. Default: those that the files bring with them.
    settings : EvaluationSettings, optional
        With at least one resample.

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        No clip, or no class, is in all; no labels, or different ones for the same clips.
    DataError
        A clip has two rows of scores.
    """
    settings = settings or EvaluationSettings()
    if len(files) < 2:
        raise UsageError("there is one system; expected two or more to compare")
    if not settings.n_resamples:
        raise UsageError("the bootstrap has 0 resamples; expected 1 or more, for the intervals of the differences")
    targets = targets or _common_targets(files)
    systems = [file.scores for file in files]
    labels = shared_labels(
        [targets.labels, *(scores.labels for scores in systems)], [targets.source, *(scores.name for scores in systems)]
    )
    rows, places = _common_clips(systems, targets)
    chosen = take(targets.values, rows, columns(targets.labels, labels))
    if not chosen.any():
        raise UsageError(f"none of the {len(rows):,} common clips has one of the {len(labels)} common labels")
    values = [
        take(scores.values, place, columns(scores.labels, labels))
        for scores, place in zip(systems, places, strict=True)
    ]
    return _compare(systems, values, chosen, labels, [targets.names[row] for row in rows.tolist()], settings)


def _compare(
    systems: Sequence[Scores],
    values: Sequence[FloatArray],
    targets: BoolArray,
    labels: LabelSet,
    names: Sequence[str],
    settings: EvaluationSettings,
) -> Comparison:
    found = [evaluate(scores, targets) for scores in values]
    draws = [
        bootstrap(scores, targets, n_resamples=settings.n_resamples, seed=settings.seed) for scores in values
    ]  # the same resamples for all
    confidence = settings.confidence
    return Comparison(
        n_clips=len(names),
        clips_sha256=names_digest(names),
        n_classes=len(labels),
        systems=[
            System(
                name=scores.name,
                metrics=metrics.as_dict(),
                intervals={name: ends(draw.interval(name, confidence)) for name in MEASURES},
                n_dropped_clips=len(scores.clip_ids) - len(names),
                n_dropped_classes=len(scores.labels) - len(labels),
            )
            for scores, metrics, draw in zip(systems, found, draws, strict=True)
        ],
        differences=[
            {name: _difference(_means(draw, name), _means(draws[0], name), confidence) for name in MEASURES}
            for draw in draws[1:]
        ],
        classes=_class_rows(labels, found[0].classes.n_positives.tolist(), draws, confidence),
        settings=asdict(settings),
    )


def _common_targets(files: Sequence[ScoreFile]) -> Targets:
    """The labels that the files bring with them, which must be the same where the clips are."""
    own = [file.targets for file in files if file.targets is not None]
    if not own:
        raise UsageError(
            f"neither {files[0].scores.name} nor another has labels of its clips. Next step: --labels, or compare "
            "folders of audioset evaluate"
        )
    first = own[0]
    for other in own[1:]:
        rows = np.array([first.find(name) for name in other.names], np.intp)
        is_shared = rows != NOT_THERE
        ids = frozenset(first.labels.ids) & frozenset(other.labels.ids)
        labels = first.labels.select(index for index, label_id in enumerate(first.labels.ids) if label_id in ids)
        mine = take(first.values, rows[is_shared], columns(first.labels, labels))
        theirs = take(other.values, np.flatnonzero(is_shared), columns(other.labels, labels))
        n_different = int((mine != theirs).any(axis=1).sum()) if len(labels) else 0
        if n_different:
            clip = first.names[int(rows[is_shared][(mine != theirs).any(axis=1).argmax()])]
            raise UsageError(
                f"{first.source} and {other.source} have different labels for {n_different:,} of "
                f"{int(is_shared.sum()):,} common clips, such as {clip}. Likely cause: lists of different versions. "
                "Next step: --labels with the list that counts"
            )
    return first


def _common_clips(systems: Sequence[Scores], targets: Targets) -> tuple[IndexArray, list[IndexArray]]:
    """Rows of the targets that all have scores for, by name, and where each system has them."""
    where = []
    for scores in systems:
        rows = locate(scores, targets)
        place = np.full(len(targets.names), NOT_THERE, np.intp)
        found = np.flatnonzero(rows != NOT_THERE)
        if not len(found):
            raise no_shared_clips(scores, targets)
        place[rows[found]] = found
        where.append(place)
    common = np.flatnonzero(np.all([place != NOT_THERE for place in where], axis=0))
    if not len(common):
        raise UsageError(
            f"no clip has scores of all of {', '.join(scores.name for scores in systems)}, so there is nothing to "
            "compare. Likely cause: evaluations of different subsets"
        )
    common = common[np.argsort(np.array(targets.names)[common])]
    return common, [place[common] for place in where]


def _class_rows(
    labels: LabelSet, n_positives: Sequence[int], draws: Sequence[Bootstrap], confidence: float
) -> list[dict[str, Any]]:
    rows = []
    for index, (label_id, label) in enumerate(zip(labels.ids, labels.names, strict=True)):
        series = [(draw.ap[:, index], float(draw.sample_ap[index])) for draw in draws]
        differences = [asdict(_difference(one, series[0], confidence)) for one in series[1:]]
        rows.append(
            {
                "label_id": label_id,
                "label": label,
                "n_positives": n_positives[index],
                "ap": [_finite(value) for _, value in series],
                "differences": [
                    {name: value for name, value in each.items() if name != "share_ahead"} for each in differences
                ],
            }
        )
    return rows


def _means(draw: Bootstrap, name: str) -> tuple[Array, float]:
    """A measure of each resample, and of the clips themselves."""
    if name == "mean_ap":
        return draw.mean_ap, mean_defined(draw.sample_ap)
    sample = mean_defined(draw.sample_auc)
    return (draw.mean_auc, sample) if name == "mean_auc" else (d_prime(draw.mean_auc), d_prime(sample))


def _difference(one: tuple[Array, float], other: tuple[Array, float], confidence: float) -> Difference:
    """Of paired resamples; centred on the difference of the clips themselves, as intervals of metrics are."""
    with np.errstate(invalid="ignore"):  # infinite less infinite, of a d' that is perfect in both
        differences, value = one[0] - other[0], one[1] - other[1]
    defined = differences[np.isfinite(differences)]
    if not len(defined) or not math.isfinite(value):
        return Difference(_finite(value), None, None, None)
    low, high = np.quantile(defined, ((1 - confidence) / 2, (1 + confidence) / 2)) + value - defined.mean()
    moved = defined + value - defined.mean()
    return Difference(float(value), float(low), float(high), float(((moved > 0) + (moved == 0) / 2).mean()))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
