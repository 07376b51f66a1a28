"""``audioset evaluate`` and ``audioset evaluate compare``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.audio.limits import Limits
from audioset.cli.echo import echo
from audioset.cli.options import (
    OVERWRITE,
    DecodingOptions,
    EngineOptions,
    files_read,
    hold_folder,
    json_flag,
    load_chosen,
    option,
    takes,
)
from audioset.errors import UsageError

if TYPE_CHECKING:
    from audioset.evaluate import Comparison, Evaluation, EvaluationSettings, Scores, Targets
    from audioset.models.model import Model
    from audioset.reports.document import Document

    Source = tuple[Scores, Targets, Path | None]
    Say = Callable[[str], None]

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
# What --output gets; the last one is the record, by which a later run knows the others.
EVALUATION_FILES = ("scores.npz", "report.md", "report.html", "evaluation.json")
COMPARISON_FILES = ("report.md", "report.html", "comparison.json")
REPORT = "report.html"
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


@dataclass(frozen=True)
class ReportOptions:
    """Labels, intervals and the output."""

    labels: str | None = option(
        "A published list, by name (eval) or as a file, or a table with path and label.", "FILE"
    )
    output: Path | None = option("Where the reports go.", "FOLDER", "--output -o")
    overwrite: bool = option(OVERWRITE)
    n_resamples: int = option("Of the clips, for intervals; 0 for none.", "N", "--resamples", default=1000, at_least=0)
    seed: int = option(None, "N", default=0, show_default=True, at_least=0)
    confidence: float = option("Of the intervals.", "P", default=0.95, above=0, below=1)
    as_json: bool = json_flag()

    @property
    def settings(self) -> EvaluationSettings:
        """Of the intervals."""
        from audioset.evaluate import EvaluationSettings

        return EvaluationSettings(self.n_resamples, self.seed, self.confidence)

    def prepare(self, names: tuple[str, ...], kind: str, *inputs: str) -> None:
        """Find out now what would otherwise fail when the work is done: ``names`` are written, the record last."""
        from audioset.evaluate.storage import is_record
        from audioset.formats.output import check_output

        if self.output is None:
            return
        hold_folder(self.output)
        read = files_read(*inputs)
        overwrites = self.overwrite or is_record(self.output / names[-1], kind)
        for path in (self.output, *(self.output / name for name in names)):
            check_output(path, read, lambda file: False, overwrites=overwrites)

    def finish(
        self, record: dict[str, Any], clips: Any, describe: Callable[[], Document], lines: Iterator[str], say: Say
    ) -> None:
        """Write the reports, and print what was measured."""
        from audioset.evaluate import write_folder
        from audioset.reports.document import to_html, to_markdown

        if self.output:
            document = describe()
            texts = {"report.md": to_markdown(document), REPORT: to_html(document)}
            write_folder(self.output, record, clips, texts)
            say(f"{self.output / REPORT} has the report")
        echo(json.dumps(record, indent=2, allow_nan=False) if self.as_json else "\n".join(lines))


@dataclass(frozen=True)
class SourceOptions:
    """Where scores come from."""

    features: str | None = option("Released features: features.tar.gz, or what convert made of it.", "PATH")
    subset: str = option(f"Of the features; {ALL} for all there are.", "NAME", default="eval")
    audio: str | None = option("Recordings named by clip, or where the paths of --labels begin.", "FOLDER")
    scores: str | None = option("Scores made elsewhere: an .npz file with scores and ids.", "FILE")
    training_lists: tuple[str, ...] = option(
        "What the model was trained on, such as balanced_train_segments.csv, for the report. Repeatable.",
        "CSV",
        "--training-list",
    )

    def check(self, model: str | None, labels: str | None) -> str:
        """Say which of the three ways is meant."""
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) != 1:
            raise click.UsageError("expected one of --features PATH, --audio FOLDER and --scores FILE.")
        if given != ["scores"] and model is None:
            raise click.UsageError(f"--{given[0]} needs a MODEL: a name, or a model folder.")
        if given == ["audio"] and not labels:
            raise click.UsageError(
                "--audio needs --labels FILE: a published list of clips, or a table with path and label."
            )
        return given[0]


@dataclass(frozen=True)
class LoadingOptions(EngineOptions):
    """What the model of the argument is loaded with."""

    weights: Path | None = option("A checkpoint of your own.", "FILE")

    def load(self, name: str) -> Model:
        """Load the model, if it has scores: those that only embed are refused before they are compiled."""
        from audioset.models.cards import find_labels
        from audioset.models.folders import prepare_model

        card, _ = prepare_model(name, self.weights)
        if not len(find_labels(card)):
            raise UsageError(f"{name} only embeds: it has no scores. Next step: choose a tagger, such as yamnet")
        return load_chosen(name, self.weights, self)


@click.command(cls=_EvaluateCommand, short_help="Measure models on AudioSet, and compare them.")
@click.argument("model", required=False)
@takes(source=SourceOptions, wanted=ReportOptions, chosen=LoadingOptions, decoding=DecodingOptions, limits=Limits)
def evaluate(
    model: str | None,
    source: SourceOptions,
    wanted: ReportOptions,
    chosen: LoadingOptions,
    decoding: DecodingOptions,
    limits: Limits,
) -> int:
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
    from audioset.evaluate.evaluation import KIND, with_training_counts
    from audioset.evaluate.findings import read_curves
    from audioset.evaluate.sources import count_training_clips

    way, name = source.check(model, wanted.labels), str(model)
    wanted.prepare(EVALUATION_FILES, KIND)
    training_counts = count_training_clips(source.training_lists)
    if way == "features":
        scores, targets, folder = _from_features(name, source, wanted.labels, chosen)
    elif way == "audio":
        scores, targets, folder = _from_audio(name, source, wanted.labels, chosen, decoding, limits)
    else:
        scores, targets, folder = _from_scores(model, source, wanted.labels)
    say = _sayer(is_quiet=decoding.quiet)
    say(f"comparing {len(scores.clip_ids):,} clips with their labels, {wanted.n_resamples:,} resamples")
    evaluation, clips = evaluate_scores(scores, targets, wanted.settings)
    if source.training_lists:
        evaluation = with_training_counts(evaluation, training_counts)
    asked = {"source": way, way: str(getattr(source, way)), **evaluation.settings}
    if way == "features":
        asked["subset"] = source.subset
    evaluation = replace(evaluation, curves=read_curves(folder), settings=asked)
    wanted.finish(evaluation.to_record(), clips, lambda: _describe(evaluation), _evaluation_lines(evaluation), say)
    return SOME_FAILED if set(evaluation.missing["counts"]) - EXPECTED else 0


@dataclass(frozen=True)
class QuietOption:
    """``--quiet``."""

    quiet: bool = option("No progress.", flags="--quiet -q")


@click.command(short_help="Compare evaluations on the clips and classes that all have.")
@click.argument("systems", metavar="EVALUATION...", nargs=-1, required=True)
@takes(talk=QuietOption, wanted=ReportOptions)
def compare(systems: tuple[str, ...], talk: QuietOption, wanted: ReportOptions) -> int:
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
    from audioset.evaluate.comparison import KIND

    if len(systems) < 2:
        raise click.UsageError("there is one evaluation; expected two or more to compare.")
    settings, say = wanted.settings, _sayer(is_quiet=talk.quiet)
    wanted.prepare(COMPARISON_FILES, KIND, *systems)
    files = [read_scores(path) for path in systems]
    targets = read_targets(wanted.labels, files[0].scores.labels) if wanted.labels else None
    say(f"comparing {len(files)} systems, {settings.n_resamples:,} resamples")
    found = compare_scores(files, targets, settings)
    wanted.finish(found.to_record(), None, lambda: _describe_comparison(found), _comparison_lines(found), say)
    return 0


def _from_features(name: str, source: SourceOptions, labels: str | None, chosen: LoadingOptions) -> Source:
    """Tag released features now."""
    from audioset.dataset.features.reading import read_arrays
    from audioset.evaluate import read_targets, score_features
    from audioset.evaluate.sources import describe_model, feature_targets

    model, features = chosen.load(name), str(source.features)
    if not hasattr(model, "predict_embeddings"):
        raise UsageError(
            f"{name} hears audio, and --features has embeddings; expected a model that was trained on features. "
            "Next step: --audio FOLDER with the clips themselves"
        )
    clips = read_arrays(features, None if source.subset == ALL else source.subset)
    shown = f"{Path(features).name}, {source.subset}"
    targets = read_targets(labels, model.labels) if labels else feature_targets(clips, shown)
    ran = describe_model(name, model.card, model.folder, engine=chosen.engine, precision=chosen.precision)
    return score_features(model, clips, name, ran), targets, model.folder


def _from_audio(
    name: str,
    source: SourceOptions,
    labels: str | None,
    chosen: LoadingOptions,
    decoding: DecodingOptions,
    limits: Limits,
) -> Source:
    """Tag recordings now."""
    from audioset.cli.progress import Progress
    from audioset.evaluate import find_audio, read_targets, score_audio
    from audioset.evaluate.sources import describe_model
    from audioset.runs.batch import predict_parts

    model = chosen.load(name)
    targets = read_targets(str(labels), model.labels)
    files, missing = find_audio(str(source.audio), targets)
    ran = {"engine": chosen.engine, "precision": chosen.precision, "pool": "mean", **decoding.patches}
    with Progress(len(files), is_quiet=decoding.quiet, shows_errors=True) as progress:
        parts = predict_parts(files.values(), model, **decoding.patches, limits=limits, n_workers=decoding.workers)
        scores = score_audio(
            model.labels,
            parts,
            tuple(files),
            name,
            missing=missing,
            provenance=describe_model(name, model.card, model.folder, **ran),
            on_part=progress.watch,
        )
    return scores, targets, model.folder


def _from_scores(name: str | None, source: SourceOptions, labels: str | None) -> Source:
    """Read scores that were made elsewhere."""
    from audioset.evaluate import read_scores, read_targets

    file = read_scores(str(source.scores))
    targets = read_targets(labels, file.scores.labels) if labels else file.targets
    if targets is None:
        raise click.UsageError(f"{source.scores} has no labels of its clips: add --labels FILE.")
    return (replace(file.scores, name=name) if name else file.scores), targets, None


def _describe(evaluation: Evaluation) -> Document:
    from audioset.reports.evaluation import describe

    return describe(evaluation)


def _describe_comparison(comparison: Comparison) -> Document:
    from audioset.reports.comparison import describe

    return describe(comparison)


def _sayer(*, is_quiet: bool) -> Say:
    """What says how it goes, on standard error."""
    return lambda text: None if is_quiet else echo(f"audioset: {text}", err=True)


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
