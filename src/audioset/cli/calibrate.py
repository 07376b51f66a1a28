"""``audioset calibrate``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import (
    decoding_options,
    files_read,
    hold_folder,
    load_chosen_model,
    model_files,
    model_options,
    take_limits,
)
from audioset.errors import ConflictError, UsageError
from audioset.files import exists
from audioset.folders import find_recordings

if TYPE_CHECKING:
    from audioset.audio.limits import Limits
    from audioset.calibration import Calibration
    from audioset.calibration.clips import LabelTable, Patches
    from audioset.calibration.fit import Fit, LabelFit, Quality
    from audioset.labels.labels import LabelSet
    from audioset.models.model import Model, Prediction
    from audioset.weights.model_folder import ModelCard

N_SHOWN = 3  # of paths, in messages
LABEL_WIDTH = 32
MEASURES = {"f1": "F1", "precision": "precision", "recall": "recall", "brier": "Brier", "calibration_error": "ECE"}
WHY_NOT = {
    "too_few_positives": "too few with it; keeps the common threshold",
    "no_negatives": "all have it; keeps the common threshold",
    "precision_not_reached": "no threshold is precise enough; off",
}


@click.command(short_help="Learn a model's own thresholds from labelled recordings.")
@click.argument("labels", metavar="LABELS", type=click.Path(path_type=Path))
@click.option("--output", "-o", metavar="FOLDER", type=click.Path(path_type=Path), help="Model folder to write.")
@click.option("--audio", metavar="FOLDER", default="", help="Where the paths in LABELS begin. Default: here.")
@click.option(
    "--scores",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take scores from a file of audioset tag --per-patch --top 1000, and compute none.",
)
@click.option("--map", "map", type=click.Choice(["none", "platt", "isotonic"]), default="none", show_default=True)
@click.option(
    "--min-precision",
    metavar="P",
    type=click.FloatRange(0, 1, min_open=True),
    help="Highest recall with at least this precision. Default: highest F1.",
)
@click.option(
    "--min-positives",
    metavar="N",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Leave labels as they are that fewer recordings, or patches, have.",
)
@click.option(
    "--pool",
    type=click.Choice(["max", "mean"]),
    default="max",
    show_default=True,
    help="A recording's score, of those of its patches, if LABELS has no times.",
)
@click.option("--folds", "n_folds", metavar="N", type=click.IntRange(2), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@model_options
@decoding_options
def calibrate(labels: Path, **options: Any) -> int:
    """Learn from LABELS from which score on each label is to be believed, and print how good that is.

    LABELS is a CSV or TSV file with a recording's path, a label and, if wanted, start and end in seconds on each line.
    --output writes a model folder with the thresholds, which audioset events and listen then use.

    \b
    Examples:
      audioset calibrate labels.csv --output my-yamnet/
      audioset events garden.wav --model my-yamnet/
      audioset calibrate labels.csv --scores tags.parquet --min-precision 0.9 --map platt --json
    """
    from audioset.calibration.clips import gather_clips, read_label_table
    from audioset.calibration.fit import Recipe, fit
    from audioset.files import explain_os_errors
    from audioset.models.cards import find_labels
    from audioset.models.folders import copy_model, prepare_model

    limits = take_limits(options)
    recipe = Recipe(*(options[name] for name in ("map", "min_precision", "min_positives", "n_folds")))
    model = None if options["scores"] else load_chosen_model(options)
    card, folder = (model.card, model.folder) if model else prepare_model(options["model"], options["weights"])
    target: Path | None = options["output"]
    if target:
        _check_target(target, card)
        hold_folder(target)
    all_labels = find_labels(card)
    if not len(all_labels):
        raise click.UsageError(f"{options['model']} only embeds: it has no scores to calibrate.")
    table = read_label_table(labels, all_labels)
    source = _TaggedFiles(model, options, limits, table) if model else _ReadScores(options, table)
    clips = gather_clips(table, source.recordings(), options["pool"])
    found = fit(clips.scores, clips.targets, table.labels, recordings=clips.recordings, recipe=recipe)
    calibration = _with_origin(found.calibration, labels, table, options)
    if target and calibration.thresholds:
        with explain_os_errors(str(target)):
            copy_model(card, folder, target, replace(card, calibration=calibration.to_record()))
    _print_report(found, calibration, as_json=options["as_json"])
    if target:
        _check_fit(found)
        if not options["quiet"]:
            echo(f"audioset: {target} has thresholds of its own for {len(calibration.thresholds)} labels", err=True)
    return 3 if source.n_failed else 0


class _TaggedFiles:
    """Labelled recordings, tagged now."""

    def __init__(self, model: Model, options: dict[str, Any], limits: Limits, table: LabelTable) -> None:
        self.n_failed = 0
        self._model = model
        self._options = options
        self._limits = limits
        self._table = table
        self._files = find_recordings(table.sounds, Path(options["audio"]))
        missing = [str(path) for path in self._files.values() if not path.is_file()]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(self._files)} labelled recordings are no files: {_some(missing)}. "
                "Likely cause: --audio is not where the paths begin"
            )

    def recordings(self) -> Iterator[Patches]:
        """Scores of each recording's patches. One that cannot be used is said and left out."""
        from audioset.cli.progress import Progress
        from audioset.runs.batch import predict_parts

        choose = _chooser(self._model.labels, self._table.labels)
        names, parts = iter(self._files), []
        settings = {name: self._options[name] for name in ("hop_s", "window_s", "pad")} | {"limits": self._limits}
        with Progress(len(self._files), is_quiet=self._options["quiet"], shows_errors=True) as progress:
            for part in predict_parts(
                self._files.values(), self._model, **settings, n_workers=self._options["workers"]
            ):
                if part.prediction is not None:
                    parts.append(choose(part.prediction))
                    progress.advance(part.prediction.duration_s)
                if part.is_last:
                    progress.finish_file(part.path, part.error, part.warnings)
                    name = next(names)
                    if part.error is None:
                        yield _joined(name, parts)
                    parts = []
        self.n_failed = progress.n_failed


class _ReadScores:
    """Labelled recordings with scores of an earlier run."""

    def __init__(self, options: dict[str, Any], table: LabelTable) -> None:
        from audioset.formats.scores import read_scores

        self._path, self._table = options["scores"], table
        names = {os.path.normpath(os.path.join(options["audio"], name)): name for name in table.sounds}  # noqa: PTH118
        self._file = read_scores(self._path, table.labels, names)
        self._names = names
        self.n_failed = len(self._file.errors)
        known = {patches.path for patches in self._file.recordings} | set(self._file.errors)
        missing = [path for path in names if path not in known]
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(names)} labelled recordings are not in {self._path}: {_some(missing)}. "
                "Likely cause: --audio is not where the paths begin, as audioset tag was given them"
            )
        for line in self._notes(options["model"]):
            echo(f"audioset: {line}", err=True)

    def recordings(self) -> Iterator[Patches]:
        """Scores of each recording's patches, by its name in the table."""
        for patches in self._file.recordings:
            yield replace(patches, path=self._names[patches.path])

    def _notes(self, model: str) -> Iterator[str]:
        for path, code in self._file.errors.items():
            yield f"error: {path}: it has no scores in {self._path} [{code}]"
        if self._file.models - {model}:
            yield f"warning: {self._path} is of {', '.join(sorted(self._file.models))}; the thresholds are for {model}"
        if len(self._file.recordings) > 1 and all(len(patches.scores) == 1 for patches in self._file.recordings):
            yield (
                f"warning: {self._path} has one row for each recording: means over its patches. Events are found in "
                "patches. Next step: audioset tag --per-patch --top 1000"
            )


def _chooser(labels: LabelSet, wanted: LabelSet) -> Callable[[Prediction], tuple[Any, Any, Any]]:
    """Makes of a prediction the scores of the wanted labels, of patches that are not all padding."""
    from audioset.labels.events import clip_to_audio

    columns = [labels.ids.index(label_id) for label_id in wanted.ids]

    def choose(prediction: Prediction) -> tuple[Any, Any, Any]:
        scores = prediction.require_scores()[:, columns]
        return clip_to_audio(scores, prediction.start_s, prediction.end_s, prediction.duration_s)

    return choose


def _joined(name: str, parts: list[tuple[Any, Any, Any]]) -> Patches:
    import numpy as np

    from audioset.calibration.clips import Patches

    scores, start_s, end_s = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Patches(name, start_s, end_s, scores)


def _check_target(target: Path, card: ModelCard) -> None:
    """Refuse to write over another model, before any work."""
    from audioset.formats.output import check_output, file_ids
    from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME, read_card

    read = files_read() - file_ids(
        model_files(click.get_current_context().params["model"])
    )  # which may be calibrated in place
    for name in (WEIGHTS_NAME, CARD_NAME):
        check_output(target / name, read, lambda file: exists(target / CARD_NAME))
    if not exists(target / CARD_NAME):
        return
    if replace(read_card(target), calibration=None) != replace(card, calibration=None):
        raise ConflictError(
            f"--output {target} holds another model. Next step: choose another folder, or calibrate that model: "
            f"--model {target}"
        )


def _with_origin(calibration: Calibration, labels: Path, table: LabelTable, options: dict[str, Any]) -> Calibration:
    """The calibration, with what else people want to know about it later."""
    origin = {"labels": labels.name, "scores_of": "patches" if table.is_timed else f"{options['pool']} of patches"}
    return replace(calibration, made_from={**calibration.made_from, **origin})


def _check_fit(found: Fit) -> None:
    if not found.calibration.thresholds:
        raise UsageError(
            f"nothing is written: none of the {len(found.labels)} labels has a threshold of its own. "
            "Next step: label more recordings, with and without them, or lower --min-positives"
        )


def _print_report(found: Fit, calibration: Calibration, *, as_json: bool) -> None:
    if as_json:
        records = [_label_record(label) for label in found.labels]
        report = {"made_from": calibration.made_from, "mean": _means(found), "labels": records}
        echo(json.dumps(report, indent=2))
        return
    heading = "".join(f"{name:>14s}" for name in MEASURES.values())
    echo(f"{'label':{LABEL_WIDTH}s} {'with':>6s} {'threshold':>10s}{heading}")
    for label in found.labels:
        threshold = "-" if label.threshold is None else f"{label.threshold:.4g}"
        echo(f"{_short(label.label)} {label.n_positives:6,d} {threshold:>10s}{_cells(label)}")
    means = _means(found)
    if means:
        name = f"mean of {means['n_labels']}"
        echo(f"{name:{LABEL_WIDTH}s} {'':6s} {'':10s}{_changes(means['before'], means['after'])}")


def _cells(label: LabelFit) -> str:
    if label.outcome in WHY_NOT:
        return f"   {WHY_NOT[label.outcome]}"
    if label.after is None:
        return "   not evaluated: one recording alone has it"
    return _changes(asdict(label.before), asdict(label.after))


def _changes(before: dict[str, float], after: dict[str, float]) -> str:
    return "".join(f"{f'{before[name]:.2f} → {after[name]:.2f}':>14s}" for name in MEASURES)


def _means(found: Fit) -> dict[str, Any] | None:
    """Qualities before and after, on average over the labels that have both."""
    pairs = [(label.before, label.after) for label in found.labels if label.after is not None]
    if not pairs:
        return None
    before, after = zip(*pairs, strict=True)
    return {"n_labels": len(pairs), "before": _mean(before), "after": _mean(after)}


def _mean(qualities: tuple[Quality, ...]) -> dict[str, float]:
    return {name: sum(getattr(quality, name) for quality in qualities) / len(qualities) for name in MEASURES}


def _label_record(label: LabelFit) -> dict[str, Any]:
    record = {**vars(label), "before": asdict(label.before), "after": label.after and asdict(label.after)}
    record["map"] = label.score_map and label.score_map.to_record()
    del record["score_map"]
    return record


def _short(label: str) -> str:
    from audioset.errors import one_line

    shown = one_line(label)
    shown = shown if len(shown) <= LABEL_WIDTH else f"{shown[: LABEL_WIDTH - 1]}…"
    return f"{shown:{LABEL_WIDTH}s}"


def _some(paths: list[str]) -> str:
    from audioset.formats import printable

    more = ", …" if len(paths) > N_SHOWN else ""
    return ", ".join(map(printable, paths[:N_SHOWN])) + more
