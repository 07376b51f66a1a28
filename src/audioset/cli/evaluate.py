"""``audioset evaluate`` and ``audioset evaluate compare``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import (
    MODEL_OPTIONS,
    decoding_options,
    files_read,
    hold_folder,
    load_chosen_model,
    overwrite_option,
    take_limits,
)
from audioset.errors import UsageError

if TYPE_CHECKING:
    from audioset.evaluate import Comparison, Evaluation, EvaluationSettings, Scores, Targets
    from audioset.models.model import Model
    from audioset.reports.document import Document
    from audioset.runs.batch import Part

COMPARE = "compare"
ALL = "all"  # subsets
SOURCES = ("features", "audio", "scores")
SOME_FAILED = 3  # exit code
EXPECTED = {"no_file", "no_scores", "no_embeddings"}  # of missing clips; other reasons are faults of files
MEASURES = {
    "mean_ap": "mAP",
    "mean_auc": "AUC",
    "d_prime": "d'",
    "d_prime_of_classes": "balanced d'",
    "lwlrap": "lwlrap",
}
COMPARED = ("mean_ap", "mean_auc", "d_prime")
N_CHANGED = 5  # classes with gains, and with losses, that the terminal shows


class _EvaluateCommand(click.Command):
    """A command that leaves its arguments to another if the first one is ``compare``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that is meant; the caller invokes that one."""
        if args[:1] == [COMPARE]:
            return compare.make_context(f"{info_name} {COMPARE}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def _common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the intervals and the output."""
    options = (
        click.option(
            "--labels",
            metavar="FILE",
            help="A published list, by name (eval) or as a file, or a table with path and label.",
        ),
        click.option("--output", "-o", metavar="FOLDER", type=click.Path(path_type=Path), help="Where the reports go."),
        overwrite_option,
        click.option(
            "--resamples",
            "n_resamples",
            metavar="N",
            type=click.IntRange(0),
            default=1000,
            show_default=True,
            help="Of the clips, for intervals; 0 for none.",
        ),
        click.option("--seed", metavar="N", type=click.IntRange(0), default=0, show_default=True),
        click.option(
            "--confidence",
            metavar="P",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            default=0.95,
            show_default=True,
            help="Of the intervals.",
        ),
        click.option("--json", "as_json", is_flag=True, help="As JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``model_options`` less ``--model``, which is the argument here."""
    for option in reversed(MODEL_OPTIONS[1:]):
        command = option(command)
    return command


@click.command(cls=_EvaluateCommand, short_help="Measure models on AudioSet, and compare them.")
@click.argument("model", required=False)
@click.option("--features", metavar="PATH", help="Released features: features.tar.gz, or what convert made of it.")
@click.option(
    "--subset", metavar="NAME", default="eval", show_default=True, help=f"Of the features; {ALL} for all there are."
)
@click.option("--audio", metavar="FOLDER", help="Recordings named by clip, or where the paths of --labels begin.")
@click.option("--scores", metavar="FILE", help="Scores made elsewhere: an .npz file with scores and ids.")
@click.option(
    "--training-list",
    "training_lists",
    metavar="CSV",
    multiple=True,
    help="What the model was trained on, such as balanced_train_segments.csv, for the report. Repeatable.",
)
@_common_options
@_model_options
@decoding_options
def evaluate(model: str | None, **options: Any) -> int:
    """Measure how well MODEL tags clips: mAP, AUC, d' and lwlrap, with intervals, on clips that are named.

    --output writes evaluation.json, report.md, report.html and scores.npz. Two or more of such folders compare with:
    audioset evaluate compare FOLDER FOLDER... (see audioset evaluate compare --help).

    \b
    Examples:
      audioset evaluate model/ --features features.tar.gz --labels eval --output eval/
      audioset evaluate yamnet --audio dataset/ --labels eval_segments.csv --output yamnet-eval/
      audioset evaluate --scores theirs.npz --labels eval_segments.csv --json
    """
    from audioset.evaluate import evaluate_scores
    from audioset.evaluate.evaluation import with_training_counts
    from audioset.evaluate.findings import read_curves
    from audioset.evaluate.sources import count_training_clips

    chosen = _check_source(model, options)
    settings = _settings(options)
    _prepare_output(options, EVALUATION_FILES)
    training_counts = count_training_clips(options["training_lists"])
    scores, targets, folder = READERS[chosen](model, options)
    _say(options, f"comparing {len(scores.clip_ids):,} clips with their labels, {settings.n_resamples:,} resamples")
    evaluation, clips = evaluate_scores(scores, targets, settings)
    if options["training_lists"]:
        evaluation = with_training_counts(evaluation, training_counts)
    asked = {"source": chosen, chosen: str(options[chosen]), **evaluation.settings}
    if chosen == "features":
        asked["subset"] = options["subset"]
    evaluation = replace(evaluation, curves=read_curves(folder), settings=asked)
    if options["output"]:
        from audioset.evaluate import write_folder
        from audioset.reports.evaluation import describe

        write_folder(options["output"], evaluation.to_record(), clips, _texts(describe(evaluation)))
        _say(options, f"{options['output'] / REPORT} has the report")
    _print(evaluation.to_record(), _evaluation_lines(evaluation), as_json=options["as_json"])
    return SOME_FAILED if set(evaluation.missing["counts"]) - EXPECTED else 0


@click.command(short_help="Compare evaluations on the clips and classes that all have.")
@click.argument("systems", metavar="EVALUATION...", nargs=-1, required=True)
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@_common_options
def compare(systems: tuple[str, ...], **options: Any) -> int:
    """Compare two or more evaluations on the clips and classes that all of them have.

    EVALUATION is a folder that audioset evaluate wrote, or an .npz file with scores and ids. The first is the one that
    the others are compared with. Files without labels of their own need --labels.

    \b
    Examples:
      audioset evaluate compare before/ after/ --output comparison/
      audioset evaluate compare mine/ theirs.npz --labels eval_segments.csv
    """
    from audioset.evaluate import compare as compare_scores
    from audioset.evaluate import read_scores, read_targets

    if len(systems) < 2:
        raise click.UsageError("there is one evaluation; expected two or more to compare.")
    settings = _settings(options)
    _prepare_output(options, COMPARISON_FILES, *systems)
    files = [read_scores(path) for path in systems]
    targets = read_targets(options["labels"], files[0].scores.labels) if options["labels"] else None
    _say(options, f"comparing {len(files)} systems, {settings.n_resamples:,} resamples")
    comparison = compare_scores(files, targets, settings)
    if options["output"]:
        from audioset.evaluate import write_folder
        from audioset.reports.comparison import describe

        write_folder(options["output"], comparison.to_record(), None, _texts(describe(comparison)))
        _say(options, f"{options['output'] / REPORT} has the report")
    _print(comparison.to_record(), _comparison_lines(comparison), as_json=options["as_json"])
    return 0


Source = tuple["Scores", "Targets", Path | None]


def _from_features(name: str | None, options: dict[str, Any]) -> Source:
    """Tag released features now."""
    from audioset.dataset.features.reading import read_arrays
    from audioset.evaluate import read_targets, score_features
    from audioset.evaluate.sources import describe_model, feature_targets

    model = _load(name, options)
    if not hasattr(model, "predict_embeddings"):
        raise UsageError(
            f"{name} hears audio, and --features has embeddings; expected a model that was trained on features. "
            "Next step: --audio FOLDER with the clips themselves"
        )
    subset = None if options["subset"] == ALL else options["subset"]
    clips = read_arrays(options["features"], subset)
    source = f"{Path(options['features']).name}, {options['subset']}"
    targets = read_targets(options["labels"], model.labels) if options["labels"] else feature_targets(clips, source)
    ran = describe_model(str(name), model.card, model.folder, engine=options["engine"], precision=options["precision"])
    return score_features(model, clips, str(name), ran), targets, model.folder


def _from_audio(name: str | None, options: dict[str, Any]) -> Source:
    """Tag recordings now."""
    from audioset.cli.progress import Progress
    from audioset.evaluate import find_audio, read_targets, score_audio
    from audioset.evaluate.sources import describe_model
    from audioset.runs.batch import predict_parts

    model = _load(name, options)
    targets = read_targets(options["labels"], model.labels)
    files, missing = find_audio(options["audio"], targets)
    settings = {key: options[key] for key in ("hop_s", "window_s", "pad")}
    ran = {"engine": options["engine"], "precision": options["precision"], "pool": "mean", **settings}
    with Progress(len(files), is_quiet=options["quiet"], shows_errors=True) as progress:
        parts = predict_parts(
            files.values(), model, **settings, limits=take_limits(options), n_workers=options["workers"]
        )
        scores = score_audio(
            model.labels,
            parts,
            tuple(files),
            str(name),
            missing=missing,
            provenance=describe_model(str(name), model.card, model.folder, **ran),
            on_part=lambda part: _show(progress, part),
        )
    return scores, targets, model.folder


def _from_scores(name: str | None, options: dict[str, Any]) -> Source:
    """Read scores that were made elsewhere."""
    from audioset.evaluate import read_scores, read_targets

    file = read_scores(options["scores"])
    targets = read_targets(options["labels"], file.scores.labels) if options["labels"] else file.targets
    if targets is None:
        raise click.UsageError(f"{options['scores']} has no labels of its clips: add --labels FILE.")
    return (replace(file.scores, name=name) if name else file.scores), targets, None


# What --output gets; the last one is the record, by which a later run knows the others.
EVALUATION_FILES = ("scores.npz", "report.md", "report.html", "evaluation.json")
COMPARISON_FILES = ("report.md", "report.html", "comparison.json")
READERS = {"features": _from_features, "audio": _from_audio, "scores": _from_scores}
REPORT = "report.html"


def _check_source(model: str | None, options: dict[str, Any]) -> str:
    """Which of the three ways is meant."""
    given = [name for name in SOURCES if options[name]]
    if len(given) != 1:
        raise click.UsageError("expected one of --features PATH, --audio FOLDER and --scores FILE.")
    if given != ["scores"] and model is None:
        raise click.UsageError(f"--{given[0]} needs a MODEL: a name, or a model folder.")
    if given == ["audio"] and not options["labels"]:
        raise click.UsageError(
            "--audio needs --labels FILE: a published list of clips, or a table with path and label."
        )
    return given[0]


def _load(name: str | None, options: dict[str, Any]) -> Model:
    """The model, if it has scores: those that only embed are refused before they are compiled."""
    from audioset.models.cards import find_labels
    from audioset.models.folders import prepare_model

    card, _ = prepare_model(str(name), options["weights"])
    if not len(find_labels(card)):
        raise UsageError(f"{name} only embeds: it has no scores. Next step: choose a tagger, such as yamnet")
    return load_chosen_model({**options, "model": name})


def _settings(options: dict[str, Any]) -> EvaluationSettings:
    from audioset.evaluate import EvaluationSettings

    return EvaluationSettings(*(options[name] for name in ("n_resamples", "seed", "confidence")))


def _prepare_output(options: dict[str, Any], names: tuple[str, ...], *inputs: str) -> None:
    """Find out now what would otherwise fail when the work is done: files of ``names`` are written, the record last."""
    from audioset.evaluate import comparison, evaluation
    from audioset.evaluate.storage import is_record
    from audioset.formats.output import check_output

    folder: Path | None = options["output"]
    if folder is None:
        return
    hold_folder(folder)
    read = files_read(*inputs)
    kind = evaluation.KIND if names is EVALUATION_FILES else comparison.KIND
    overwrites = options["overwrite"] or is_record(folder / names[-1], kind)
    for path in (folder, *(folder / name for name in names)):
        check_output(path, read, lambda file: False, overwrites=overwrites)


def _texts(document: Document) -> dict[str, str]:
    from audioset.reports.document import to_html, to_markdown

    return {"report.md": to_markdown(document), REPORT: to_html(document)}


def _show(progress: Any, part: Part) -> None:
    if part.prediction is not None:
        progress.advance(part.prediction.duration_s)
    if part.is_last:
        progress.finish_file(part.path, part.error, part.warnings)


def _say(options: dict[str, Any], text: str) -> None:
    if not options["quiet"]:
        echo(f"audioset: {text}", err=True)


def _print(record: dict[str, Any], lines: Iterator[str], *, as_json: bool) -> None:
    if as_json:
        echo(json.dumps(record, indent=2, allow_nan=False))
        return
    for line in lines:
        echo(line)


def _evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    from audioset.reports.evaluation import interval, number, summary_lines

    for name, shown in MEASURES.items():
        ends = interval(evaluation.intervals.get(name), 4)
        yield f"{shown:12s}{number(evaluation.metrics[name], 4):>9s}   {ends}".rstrip()
    yield ""
    yield from summary_lines(evaluation)


def _comparison_lines(comparison: Comparison) -> Iterator[str]:
    from audioset.reports.comparison import between, signed, summary_lines
    from audioset.reports.evaluation import number

    first, *others = comparison.systems
    width = max(len(system.name) for system in comparison.systems)
    yield f"{'':{width}s}" + "".join(f"{MEASURES[name]:>10s}" for name in COMPARED)
    for system in comparison.systems:
        yield f"{system.name:{width}s}" + "".join(f"{number(system.metrics[name], 4):>10s}" for name in COMPARED)
    for index, (system, found) in enumerate(zip(others, comparison.differences, strict=True)):
        yield f"\n{system.name} less {first.name}"
        for name in COMPARED:
            ahead = "" if found[name].share_ahead is None else f"ahead in {found[name].share_ahead:.1%}"
            yield f"{MEASURES[name]:12s}{signed(found[name].value):>9s}   {between(found[name]):20s}  {ahead}".rstrip()
        rows = [row for row in comparison.classes if row["differences"][index]["value"] is not None]
        rows.sort(key=lambda row: -row["differences"][index]["value"])
        shown = rows if len(rows) <= 2 * N_CHANGED else [*rows[:N_CHANGED], *rows[-N_CHANGED:]]
        for row in shown:
            change = row["differences"][index]["value"]
            yield f"  {change:+.3f}  {row['label']} ({row['n_positives']:,} clips)"
    yield ""
    yield from summary_lines(comparison)
