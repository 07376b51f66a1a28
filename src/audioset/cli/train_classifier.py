"""``audioset train classifier``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import hold_folder, option, takes
from audioset.cli.sound_options import LearnedOptions, SoundOptions
from audioset.concurrency import keep_freed_memory


@dataclass(frozen=True)
class ClassifierOptions:
    """What is learned, and where it goes."""

    model: str = option("A published model, or a model folder.", "NAME", default="yamnet", old="--backbone")
    output: Path = option("Of the model.", "FOLDER", "--output -o", required=True)
    from_search: Path | None = option("In place of DATA: moments that 'audioset search' has written.", "FILE")
    hidden_size: int = option(
        "Units of a layer before the classes; 0 for none.", "N", "--hidden", default=0, show_default=True, at_least=0
    )
    n_folds: int = option("Of the cross-validation.", "N", "--folds", default=5, at_least=2)
    balances_classes: bool = option("Rare classes weigh as much as frequent ones.", flags="--balance")
    seed: int = option(None, "N", default=0, show_default=True, at_least=0)
    threads: int | None = option("Cores to use. Default: all.", "N", at_least=1)


@click.command()
@click.argument("data", required=False, metavar="DATA", type=click.Path(path_type=Path))
@takes(sounds=SoundOptions, wanted=ClassifierOptions, learned=LearnedOptions)
def classifier(data: Path | None, sounds: SoundOptions, wanted: ClassifierOptions, learned: LearnedOptions) -> None:
    """Learn your own sounds on the embeddings of a published model.

    DATA is a folder of folders, one for each class; a table with path and label; a folder of recordings with Audacity
    or Raven labels beside them; or a list of AudioSet's clips. --output then has the model, report.html with all that
    was measured on held-out clips, and the same as results.json.

    \b
    Examples:
      audioset train classifier birds/ --output model/
      audioset train classifier birds/ --model mn04 --group '_([a-z]+)_' --output model/
      audioset train classifier birds/ --output model/ --export onnx
      audioset events recording.wav --model model/
    """
    import os

    # Before numpy is loaded: folds are computed side by side, and products that share the cores would fight for them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    keep_freed_memory()
    from audioset.train.classifier.classifier import learn_classifier
    from audioset.train.results import check_output

    source = _source(data, wanted.from_search)
    check_output(wanted.output)
    _check_not_model(wanted.output, wanted.model)
    hold_folder(wanted.output)
    collection = sounds.read(source)
    progress = _Progress(is_quiet=learned.quiet)
    found = learn_classifier(
        collection,
        wanted.model,
        hidden_size=wanted.hidden_size,
        n_folds=wanted.n_folds,
        seed=wanted.seed,
        balances_classes=wanted.balances_classes,
        n_threads=wanted.threads,
        on_progress=progress,
    )
    progress.close()
    for warning in found.learned.warnings:
        echo(f"audioset: {warning}", err=True)
    record = found.write(wanted.output)
    learned.finish(wanted.output, record, _lines(record))
    if not learned.quiet:
        echo("\n".join(_next_steps(wanted.output)), err=True)


def _source(data: Path | None, from_search: Path | None) -> Path:
    """``DATA``, or what ``--from-search`` has in its place."""
    if data is not None and from_search is not None:
        raise click.UsageError(f"Got unexpected extra argument ({from_search})")
    source = data or from_search
    if source is None:
        raise click.UsageError("Missing argument 'DATA'.")
    return source


class _Progress:
    """One line on standard error for each stage; counts only where a person watches."""

    def __init__(self, *, is_quiet: bool) -> None:
        import sys

        self._is_quiet, self._is_watched = is_quiet, sys.stderr.isatty()
        self._stage, self._has_counts = "", False

    def __call__(self, stage: str, n_done: int, n_all: int) -> None:
        if self._is_quiet:
            return
        if stage != self._stage:
            self.close()
            self._stage = stage
            echo(f"audioset: {stage}", err=True, nl=not self._is_watched)
        if self._is_watched and (n_done % 10 == 0 or n_done == n_all):
            self._has_counts = True
            click.echo(f"\raudioset: {stage} {n_done:,} of {n_all:,} ", err=True, nl=False)

    def close(self) -> None:
        """End the line."""
        if self._stage and self._is_watched and not self._is_quiet:
            echo("", err=True)
        self._stage = ""


def _check_not_model(output: Path, model: str) -> None:
    from audioset.errors import UsageError
    from audioset.files import is_folder

    if is_folder(output) and is_folder(model) and output.samefile(model):
        raise UsageError(f"--output and --model are both {output}: it would be overwritten. Next step: name another")


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    """The first evaluation class by class, and one line for each evaluation."""
    evaluations = record["evaluations"]
    if not evaluations:
        yield "nothing could be held out: nothing is known of how good this model is"
        return
    first = evaluations[0]
    rows = first["classes"]
    width = max(5, *(len(row["class"]) for row in rows))
    yield f"{'class':{width}s}{'clips':>8s}{'precision':>11s}{'recall':>9s}{'F1':>8s}"
    for row in rows:
        cells = (_number(row[name] if row["n_clips"] else None) for name in ("precision", "recall", "f1"))
        precision, recall, f1 = cells
        yield f"{row['class']:{width}s}{row['n_clips']:>8,d}{precision:>11s}{recall:>9s}{f1:>8s}"
    yield ""
    yield f"{'':12s}{'clips':>8s}{'right':>9s}{'balanced':>10s}   interval"
    for found in evaluations:
        ends = found["balanced_accuracy_interval"]
        shown = "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
        yield (
            f"{found['name']:12s}{found['n_clips']:>8,d}{_number(found['accuracy']):>9s}"
            f"{_number(found['balanced_accuracy']):>10s}   {shown}"
        ).rstrip()
        for fold in found["folds"] if found["name"] == "by group" else ():
            yield f"  {fold['name'][:28]:28s}{fold['n_clips']:>8,d}{_number(fold['accuracy']):>9s}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _next_steps(output: Path) -> Iterator[str]:
    yield f"audioset: {output / 'report.html'} has the report"
    yield f"audioset: audioset events recording.wav --model {output}"
    yield f"audioset: audioset tag recording.wav --model {output}"
