"""``audioset calibrate``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.audio.limits import Limits
from audioset.cli.echo import echo
from audioset.cli.options import (
    DecodingOptions,
    ModelOptions,
    files_read,
    hold_folder,
    json_flag,
    model_files,
    option,
    print_result,
    takes,
)
from audioset.errors import ConflictError, UsageError, one_line
from audioset.files import exists

if TYPE_CHECKING:
    from audioset.calibration import Calibration
    from audioset.calibration.clips import LabelledClips, LabelTable
    from audioset.calibration.fit import Fit, LabelFit, Quality
    from audioset.models.model import Model
    from audioset.weights.model_folder import ModelCard

LABEL_WIDTH = 32
MEASURES = {"f1": "F1", "precision": "precision", "recall": "recall", "brier": "Brier", "calibration_error": "ECE"}
WHY_NOT = {
    "too_few_positives": "too few with it; keeps the common threshold",
    "no_negatives": "all have it; keeps the common threshold",
    "precision_not_reached": "no threshold is precise enough; off",
}


@dataclass(frozen=True)
class CalibrationOptions:
    """What thresholds are learned from, and how."""

    output: Path | None = option("Model folder to write.", "FOLDER", "--output -o")
    audio: str = option("Where the paths in LABELS begin. Default: here.", "FOLDER", default="")
    scores: Path | None = option(
        "Take scores from a file of audioset tag --per-patch --top 1000, and compute none.", "FILE"
    )
    map: str = option(choices=("none", "platt", "isotonic"), default="none")
    min_precision: float | None = option(
        "Highest recall with at least this precision. Default: highest F1.", "P", above=0, at_most=1
    )
    min_positives: int = option(
        "Leave labels as they are that fewer recordings, or patches, have.", "N", default=5, at_least=1
    )
    pool: str = option(
        "A recording's score, of those of its patches, if LABELS has no times.", choices=("max", "mean"), default="max"
    )
    n_folds: int = option(None, "N", "--folds", default=5, at_least=2)
    as_json: bool = json_flag()


@click.command(short_help="Learn a model's own thresholds from labelled recordings.")
@click.argument("labels", metavar="LABELS", type=click.Path(path_type=Path))
@takes(wanted=CalibrationOptions, chosen=ModelOptions, decoding=DecodingOptions, limits=Limits)
def calibrate(
    labels: Path, wanted: CalibrationOptions, chosen: ModelOptions, decoding: DecodingOptions, limits: Limits
) -> int:
    """Learn from LABELS from which score on each label is to be believed, and print how good that is.

    LABELS is a CSV or TSV file with a recording's path, a label and, if wanted, start and end in seconds on each line.
    --output writes a model folder with the thresholds, which audioset events and listen then use.

    \b
    Examples:
      audioset calibrate labels.csv --output my-yamnet/
      audioset events garden.wav --model my-yamnet/
      audioset calibrate labels.csv --scores tags.parquet --min-precision 0.9 --map platt --json
    """
    from audioset.calibration.clips import read_label_table
    from audioset.calibration.fit import Recipe, fit
    from audioset.models.cards import find_labels
    from audioset.models.folders import prepare_model

    recipe = Recipe(wanted.map, wanted.min_precision, wanted.min_positives, wanted.n_folds)
    model = None if wanted.scores else chosen.load()
    card, folder = (model.card, model.folder) if model else prepare_model(chosen.model, chosen.weights)
    if wanted.output:
        _check_target(wanted.output, card, chosen.model)
        hold_folder(wanted.output)
    all_labels = find_labels(card)
    if not len(all_labels):
        raise click.UsageError(f"{chosen.model} only embeds: it has no scores to calibrate.")
    table = read_label_table(labels, all_labels)
    if model:
        clips, n_failed = _tag(model, table, wanted, decoding, limits)
    else:
        clips, n_failed = _read(table, wanted, chosen.model)
    found = fit(clips.scores, clips.targets, table.labels, recordings=clips.recordings, recipe=recipe)
    origin = {"labels": labels.name, "scores_of": "patches" if table.is_timed else f"{wanted.pool} of patches"}
    calibration = replace(found.calibration, made_from={**found.calibration.made_from, **origin})
    if wanted.output:
        _write(wanted.output, card, folder, calibration)
    print_result(wanted.as_json, lambda: _record(found, calibration), lambda: _lines(found))
    if wanted.output:
        _check_fit(found)
        if not decoding.quiet:
            n_labels = len(calibration.thresholds)
            echo(f"audioset: {wanted.output} has thresholds of its own for {n_labels} labels", err=True)
    return 3 if n_failed else 0


def _tag(
    model: Model, table: LabelTable, wanted: CalibrationOptions, decoding: DecodingOptions, limits: Limits
) -> tuple[LabelledClips, int]:
    """Tag the labelled recordings now; also how many of them failed, which is said."""
    from audioset.calibration.clips import gather_clips
    from audioset.cli.progress import Progress
    from audioset.evaluate.recordings import find_labelled, score_recordings

    files = find_labelled(table, wanted.audio)
    settings = {**decoding.patches, "limits": limits, "n_workers": decoding.workers}
    with Progress(len(files), is_quiet=decoding.quiet, shows_errors=True) as progress:
        recordings = score_recordings(model, table, files, progress.watch, **settings)
        return gather_clips(table, recordings, wanted.pool), progress.n_failed


def _read(table: LabelTable, wanted: CalibrationOptions, model: str) -> tuple[LabelledClips, int]:
    """Read the scores of an earlier run; also how many of its recordings had failed."""
    from audioset.calibration.clips import gather_clips
    from audioset.evaluate.recordings import read_labelled, score_notes

    path = Path(str(wanted.scores))
    file = read_labelled(path, table, wanted.audio)
    for note in score_notes(file, path, model):
        echo(f"audioset: {note}", err=True)
    return gather_clips(table, file.recordings, wanted.pool), len(file.errors)


def _write(target: Path, card: ModelCard, folder: Path, calibration: Calibration) -> None:
    from audioset.files import explain_os_errors
    from audioset.models.folders import copy_model

    if calibration.thresholds:
        with explain_os_errors(str(target)):
            copy_model(card, folder, target, replace(card, calibration=calibration.to_record()))


def _check_target(target: Path, card: ModelCard, model: str) -> None:
    """Refuse to write over another model, before any work."""
    from audioset.formats.output import check_output, file_ids
    from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME, read_card

    read = files_read() - file_ids(model_files(model))  # which may be calibrated in place
    for name in (WEIGHTS_NAME, CARD_NAME):
        check_output(target / name, read, lambda file: exists(target / CARD_NAME))
    if not exists(target / CARD_NAME):
        return
    if replace(read_card(target), calibration=None) != replace(card, calibration=None):
        raise ConflictError(
            f"--output {target} holds another model. Next step: choose another folder, or calibrate that model: "
            f"--model {target}"
        )


def _check_fit(found: Fit) -> None:
    if not found.calibration.thresholds:
        raise UsageError(
            f"nothing is written: none of the {len(found.labels)} labels has a threshold of its own. "
            "Next step: label more recordings, with and without them, or lower --min-positives"
        )


def _record(found: Fit, calibration: Calibration) -> dict[str, Any]:
    records = [_label_record(label) for label in found.labels]
    return {"made_from": calibration.made_from, "mean": _means(found), "labels": records}


def _lines(found: Fit) -> Iterator[str]:
    heading = "".join(f"{name:>14s}" for name in MEASURES.values())
    yield f"{'label':{LABEL_WIDTH}s} {'with':>6s} {'threshold':>10s}{heading}"
    for label in found.labels:
        threshold = "-" if label.threshold is None else f"{label.threshold:.4g}"
        yield f"{_short(label.label)} {label.n_positives:6,d} {threshold:>10s}{_cells(label)}"
    means = _means(found)
    if means:
        name = f"mean of {means['n_labels']}"
        yield f"{name:{LABEL_WIDTH}s} {'':6s} {'':10s}{_changes(means['before'], means['after'])}"


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
    shown = one_line(label)
    shown = shown if len(shown) <= LABEL_WIDTH else f"{shown[: LABEL_WIDTH - 1]}…"
    return f"{shown:{LABEL_WIDTH}s}"
