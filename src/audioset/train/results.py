"""What a training tells, and the folder that it leaves: the model, its measurements, and a report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioset import __version__
from audioset.arrays import FloatArray, IndexArray
from audioset.errors import ConflictError, UsageError
from audioset.files import exists, explain_os_errors, flush, flush_tree, is_folder, partial_folder
from audioset.models.cards import find_frontend
from audioset.sounds.collection import Clip
from audioset.train.measures import Decision, measure
from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME, ModelCard, write_model_folder

BY_FILE, BY_GROUP, GIVEN_TEST = "by file", "by group", "given test"
RESULTS_NAME, PAGE_NAME, TEXT_NAME = "results.json", "report.html", "report.md"
FILES = (WEIGHTS_NAME, PAGE_NAME, TEXT_NAME, RESULTS_NAME, CARD_NAME)  # the card last: it makes the folder a model
EXPORTS = "exports"  # a folder beside them, for the same model in other formats
FORMAT = 1


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of clips by models that have never seen them."""

    # What was kept apart. "by file": whole files; "by group": whole groups, such as speakers; "given test": the part
    # that the data call test.
    name: str
    rows: IndexArray  # (n_held_out,): which of ``Learned.clips`` they are
    # (n_held_out, n_classes), in [0, 1]; the mean over a clip's patches, as ``audioset tag`` shows it.
    scores: FloatArray
    targets: FloatArray  # (n_held_out, n_classes): 1 where a clip has the class
    # (n_held_out,): which of the models scored the clip, from 0; those of one fold were held out together.
    folds: IndexArray
    fold_names: tuple[str, ...] = ()  # for people: the names of its groups, or "fold 1"


@dataclass(frozen=True)
class CurvePoint:
    """How good a model of fewer clips is."""

    split: str  # as ``HeldOut.name``
    n_clips_per_class: float  # that it learned from, on average
    balanced_accuracy: float  # in [0, 1]


@dataclass(frozen=True, eq=False)
class Learned:
    """What a training tells."""

    name: str  # what was learned from, for people
    backbone: str  # name of the published model, or path of the model folder
    classes: tuple[str, ...]
    activation: str  # softmax or sigmoid
    clips: tuple[Clip, ...]  # all that were used, for training or for testing
    held_out: tuple[HeldOut, ...]  # the most telling one comes first: a given test, then by group, then by file
    # Recommended for each class; None where no score is good enough.
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    curve: Sequence[CurvePoint] = ()
    history: Sequence[Mapping[str, Any]] = ()  # of a training in epochs: epoch, loss and other numbers
    findings: Sequence[Mapping[str, Any]] = ()  # of the check: kind, severity, message, clips
    settings: Mapping[str, Any] = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()  # what a reader must know before the numbers

    @property
    def decision(self) -> Decision:
        """How scores become classes."""
        return decide(self.clips, self.classes, self.activation, self.thresholds)

    def held_out_by(self, name: str) -> HeldOut | None:
        """The evaluation of a name, if there is one."""
        return next((each for each in self.held_out if each.name == name), None)

    def to_record(self) -> dict[str, Any]:
        """As JSON's own types, for ``results.json`` and the report; NaN becomes None."""
        counts = {name: sum(name in clip.labels for clip in self.clips) for name in self.classes}
        return {
            "format": FORMAT,
            "audioset": __version__,
            "name": self.name,
            "backbone": self.backbone,
            "activation": self.activation,
            "n_clips": len(self.clips),
            "n_clips_of_classes": counts,
            "n_background_clips": sum(not clip.labels for clip in self.clips),
            "warnings": list(self.warnings),
            "evaluations": [self._evaluated(each) for each in self.held_out],
            "thresholds": dict(self.thresholds),
            "curve": [asdict(point) for point in self.curve],
            "history": [dict(epoch) for epoch in self.history],
            "findings": [dict(finding) for finding in self.findings],
            "settings": dict(self.settings),
            "timings_s": {name: round(seconds, 3) for name, seconds in self.timings_s.items()},
        }

    def _evaluated(self, held: HeldOut) -> dict[str, Any]:
        measured = measure(held.scores, held.targets, held.folds, self.classes, self.decision)
        for fold, name in zip(measured["folds"], held.fold_names, strict=False):
            fold["name"] = name
        return {"name": held.name, **measured, "mistakes": self._mistakes(held)}

    def _mistakes(self, held: HeldOut) -> list[dict[str, Any]]:
        """Clips that got other classes than they have, the most certain first."""
        called = self.decision(held.scores)
        wrong = np.flatnonzero((called != held.targets.astype(bool)).any(axis=1))
        margins = (held.scores * (1 - held.targets)).max(axis=1) - (held.scores * held.targets).max(axis=1)
        order = wrong[np.argsort(-margins[wrong], kind="stable")]
        return [self._mistake(held, int(place), called[place]) for place in order]

    def _mistake(self, held: HeldOut, place: int, called: Any) -> dict[str, Any]:
        clip = self.clips[held.rows[place]]
        said = [name for name, is_called in zip(self.classes, called, strict=True) if is_called]
        scores = {name: round(float(held.scores[place, self.classes.index(name)]), 4) for name in [*said, *clip.labels]}
        where = {"path": str(clip.path), "start_s": clip.start_s, "end_s": clip.end_s}
        return {**where, "group": clip.group, "labels": list(clip.labels), "said": said, "scores": scores}


def decide(
    clips: Sequence[Clip], classes: Sequence[str], activation: str, thresholds: Mapping[str, float | None]
) -> Decision:
    """How scores become classes, where these are all clips."""
    is_multi_label = any(len(clip.labels) > 1 for clip in clips)
    has_background = any(not clip.labels for clip in clips)
    return Decision(activation, is_multi_label, has_background, tuple(map(thresholds.get, classes)))


def check_output(folder: Path, own_names: Sequence[str] = ()) -> None:
    """Refuse, before any work is done, a folder that holds what a training did not write.

    It may be missing, be empty, or hold an earlier result; ``own_names`` are files and folders of a run, such as
    checkpoints, that also mark it as a training's own.
    """
    if not exists(folder):
        return
    if not is_folder(folder):
        raise UsageError(f"{folder} is a file; expected the name of a folder, which is made if need be")
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    foreign = sorted(found - {*FILES, EXPORTS, *own_names})
    if foreign or (found and not found & {RESULTS_NAME, *own_names}):
        shown = foreign[0] if foreign else sorted(found)[0]
        raise ConflictError(
            f"{folder} is there already and holds {shown}, which no training wrote. Next step: name another folder"
        )


def write_result(
    folder: Path,
    learned: Learned,
    card: ModelCard,
    weights: Mapping[str, FloatArray],
    own_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the model folder with its measurements and its report, and return what ``results.json`` says.

    All is made beside the folder first, and moved into it at the end. A folder with ``model.json`` is complete: an
    earlier one is taken away first, and the new one comes last. ConflictError if the folder holds something else;
    OutputError if the disk is full, or the place does not allow it.
    """
    from audioset.reports.document import to_html, to_markdown
    from audioset.reports.examples import hear_examples
    from audioset.reports.learned import describe

    check_output(folder, own_names)
    record: dict[str, Any] = _finite(learned.to_record())
    document = describe(record, hear_examples(record, find_frontend(card)))
    texts = {
        TEXT_NAME: to_markdown(document),
        PAGE_NAME: to_html(document),
        RESULTS_NAME: json.dumps(record, indent=1, allow_nan=False) + "\n",
    }
    with explain_os_errors(folder), partial_folder(folder / "result") as made:
        write_model_folder(made, card, weights)
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8", newline="\n")
        flush_tree(made)
        (folder / CARD_NAME).unlink(missing_ok=True)
        shutil.rmtree(folder / EXPORTS, ignore_errors=True)  # of the model before
        for name in FILES:
            (made / name).replace(folder / name)
        flush(folder)
    return record


def _finite(value: Any) -> Any:
    """The same with numbers that JSON knows; what is not defined becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value
