"""How good a model is on some clips, as a record that says exactly which clips, and how sure the numbers are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from audioset import __version__
from audioset.dataset.download.clips import names_digest
from audioset.errors import DataError, UsageError
from audioset.evaluate.clips import ScoredClips, Scores, Targets, join
from audioset.evaluate.findings import as_record, find_confusions, measure_reliability
from audioset.metrics import bootstrap, evaluate
from audioset.records import DAMAGE, decode_json, read_bounded

KIND, FORMAT = "audioset evaluation", 1
CARD_NAME = "evaluation.json"
MEASURES = ("mean_ap", "mean_auc", "d_prime")


@dataclass(frozen=True)
class EvaluationSettings:
    """How the intervals are computed.

    Attributes
    ----------
    n_resamples : int
        Of the bootstrap; 0 for no intervals.
    seed : int
    confidence : float
        In (0, 1).

    Raises
    ------
    UsageError
        For values outside these.
    """

    n_resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.n_resamples < 0 or self.seed < 0 or not 0 < self.confidence < 1:
            raise UsageError(
                f"the bootstrap has {self.n_resamples} resamples, the seed {self.seed} and the confidence "
                f"{self.confidence}; expected 0 or more, 0 or more, and a number between 0 and 1"
            )


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. ``docs/evaluate.md`` describes its JSON, which has these names.

    Attributes
    ----------
    name : str
        Of the model, or of the file of scores.
    metrics : dict
        Those of ``metrics.Metrics.as_dict``.
    intervals : dict of str to [float, float]
        Of ``mean_ap``, ``mean_auc`` and ``d_prime``; empty without resamples.
    classes : list of dict
        Rows of ``metrics.ClassTable``, each with ``ap_interval``, and ``n_training_clips`` where these are known.
    n_clips : int
    clips_sha256 : str
        SHA-256 of the clips' sorted names, each with a line end, as in ``audioset data report``.
    missing : dict
        ``n_clips``, ``counts`` by reason, and ``clips``: the reason by name, of clips with labels and without scores.
    n_extra_clips : int
        Clips with scores and without labels; they are left out.
    classes_left_out : dict
        ``only_in_labels`` and ``only_in_model``: ids of labels that are not shared.
    confusions : list of dict
        See ``findings.Confusion``.
    reliability : dict or None
        See ``findings.Reliability``; None for scores that are no probabilities.
    curves : list of dict
        The course of the training, for a model that was trained here.
    model : dict or None
        ``name``, ``card`` and how it ran; None for scores that were made elsewhere.
    settings : dict
        What was asked for.
    version : str
        Of this package.
    """

    name: str
    metrics: dict[str, Any]
    intervals: dict[str, list[float | None]]
    classes: list[dict[str, Any]]
    n_clips: int
    clips_sha256: str
    missing: dict[str, Any]
    n_extra_clips: int
    classes_left_out: dict[str, list[str]]
    confusions: list[dict[str, Any]]
    reliability: dict[str, Any] | None
    curves: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        return {"kind": KIND, "format": FORMAT, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Evaluation:
        """From JSON.

        Raises
        ------
        DataError
            If it is another thing.
        """
        if not isinstance(record, Mapping) or (record.get("kind"), record.get("format")) != (KIND, FORMAT):
            raise DataError(f"this is no record of an evaluation in format {FORMAT}")
        try:
            return cls(**{name: value for name, value in record.items() if name not in ("kind", "format")})
        except TypeError as error:
            raise DataError(f"this is no record of an evaluation: {error}") from error


def evaluate_scores(
    scores: Scores, targets: Targets, settings: EvaluationSettings | None = None
) -> tuple[Evaluation, ScoredClips]:
    """Compare scores with labels.

    Parameters
    ----------
    scores : Scores
    targets : Targets
    settings : EvaluationSettings, optional

    Returns
    -------
    evaluation : Evaluation
        Of the clips, and the classes, that both have.
    clips : ScoredClips
        Which these are, with their scores.

    Raises
    ------
    UsageError
        No clip, or no class, is in both; no clip has a label.
    DataError
        A clip has two rows of scores.
    """
    settings = settings or EvaluationSettings()
    clips = join(scores, targets)
    if not clips.targets.any():
        raise UsageError(
            f"none of the {len(clips.names):,} clips has a label that {scores.name} knows, so there is nothing to "
            "evaluate. Likely cause: labels of other clips"
        )
    found = evaluate(clips.scores, clips.targets)
    rows = found.classes.rows(clips.labels)
    intervals, of_classes = _intervals(clips, settings)
    for row, interval in zip(rows, of_classes, strict=True):
        row["ap_interval"] = interval
    return Evaluation(
        name=scores.name,
        metrics=found.as_dict(),
        intervals=intervals,
        classes=rows,
        n_clips=len(clips.names),
        clips_sha256=names_digest(clips.names),
        missing={
            "n_clips": len(clips.missing),
            "counts": dict(Counter(clips.missing.values()).most_common()),
            "clips": clips.missing,
        },
        n_extra_clips=clips.n_extra,
        classes_left_out={
            "only_in_labels": list(clips.only_in_targets),
            "only_in_model": list(clips.only_in_scores),
        },
        confusions=[asdict(pair) for pair in find_confusions(clips.scores, clips.targets, clips.labels)],
        reliability=as_record(measure_reliability(clips.scores, clips.targets)),
        model=scores.model,
        settings={"labels": targets.source, **asdict(settings)},
    ), clips


def with_training_counts(evaluation: Evaluation, counts: Mapping[str, int]) -> Evaluation:
    """The same, with the number of clips that each class was trained on, by the label's id."""
    rows = [{**row, "n_training_clips": counts.get(row["label_id"], 0)} for row in evaluation.classes]
    return replace(evaluation, classes=rows)


def read_evaluation(folder: Path) -> Evaluation:
    """The record in a folder that ``storage.write_folder`` made.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    path = folder / CARD_NAME
    try:
        return Evaluation.from_record(decode_json(read_bounded(path, DataError), str(path), DataError))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise DataError(f"{path}: {error}") from error


def _intervals(
    clips: ScoredClips, settings: EvaluationSettings
) -> tuple[dict[str, list[float | None]], Sequence[list[float | None] | None]]:
    """Intervals of the means, and of each class's AP."""
    if not settings.n_resamples:
        return {}, [None] * len(clips.labels)
    resamples = bootstrap(clips.scores, clips.targets, n_resamples=settings.n_resamples, seed=settings.seed)
    of_means = {name: ends(resamples.interval(name, settings.confidence)) for name in MEASURES}
    return of_means, [ends(pair) for pair in resamples.interval("ap", settings.confidence).T]


def ends(interval: Any) -> list[float | None]:
    """Two numbers as JSON can hold them."""
    return [value if math.isfinite(value) else None for value in interval.tolist()]
