"""``audioset train classifier``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import hold_folder
from audioset.cli.sound_options import export_given, read_given, with_exports, with_sounds
from audioset.concurrency import keep_freed_memory

if TYPE_CHECKING:
    from audioset.sounds.collection import Collection

FROM_SEARCH = "--from-search"


class _FromSearch(click.Command):
    """A command whose ``DATA`` may also be given as ``--from-search FILE``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the file of ``--from-search`` for ``DATA``."""
        args = [part for arg in args for part in (arg.split("=", 1) if arg.startswith(f"{FROM_SEARCH}=") else [arg])]
        if FROM_SEARCH in args:
            place = args.index(FROM_SEARCH)
            args = [*args[:place], *args[place + 2 :], *args[place + 1 : place + 2]]
        return super().parse_args(ctx, args)


@click.command(cls=_FromSearch)
@with_sounds
@click.option(
    "--backbone", metavar="NAME", default="yamnet", show_default=True, help="A published model, or a model folder."
)
@click.option("--output", "-o", metavar="FOLDER", required=True, type=click.Path(path_type=Path), help="Of the model.")
@click.option(
    FROM_SEARCH,
    metavar="FILE",
    expose_value=False,
    help="In place of DATA: moments that 'audioset search' has written.",
)
@click.option(
    "--hidden",
    "hidden_size",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Units of a layer before the classes; 0 for none.",
)
@click.option(
    "--folds",
    "n_folds",
    metavar="N",
    type=click.IntRange(2),
    default=5,
    show_default=True,
    help="Of the cross-validation.",
)
@click.option("--balance", "balances_classes", is_flag=True, help="Rare classes weigh as much as frequent ones.")
@click.option("--seed", metavar="N", type=click.IntRange(0), default=0, show_default=True)
@click.option("--threads", "n_threads", metavar="N", type=click.IntRange(1), help="Cores to use. Default: all.")
@with_exports
@click.option("--json", "as_json", is_flag=True, help="What results.json says, as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def classifier(
    data: Path,
    backbone: str,
    output: Path,
    hidden_size: int,
    n_folds: int,
    balances_classes: bool,
    seed: int,
    n_threads: int | None,
    formats: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Learn your own sounds on the embeddings of a published model.

    DATA is a folder of folders, one for each class; a table with path and label; a folder of recordings with Audacity
    or Raven labels beside them; or a list of AudioSet's clips. --output then has the model, report.html with all that
    was measured on held-out clips, and the same as results.json.

    \b
    Examples:
      audioset train classifier birds/ --output model/
      audioset train classifier birds/ --backbone mn04 --group '_([a-z]+)_' --output model/
      audioset train classifier birds/ --output model/ --export onnx
      audioset events recording.wav --model model/
    """
    import os

    # Before numpy is loaded: folds are computed side by side, and products that share the cores would fight for them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    keep_freed_memory()
    from audioset.train.classifier.classifier import learn_classifier
    from audioset.train.results import check_output

    check_output(output)
    _check_not_backbone(output, backbone)
    hold_folder(output)
    collection: Collection = read_given(data, options)
    progress = _Progress(is_quiet=quiet)
    learned = learn_classifier(
        collection,
        backbone,
        hidden_size=hidden_size,
        n_folds=n_folds,
        seed=seed,
        balances_classes=balances_classes,
        n_threads=n_threads,
        on_progress=progress,
    )
    progress.close()
    for warning in learned.learned.warnings:
        echo(f"audioset: {warning}", err=True)
    record = learned.write(output)
    export_given(output, formats, is_quiet=quiet)
    echo(json.dumps(record, indent=1, allow_nan=False) if as_json else "\n".join(_lines(record)))
    if not quiet:
        echo("\n".join(_next_steps(output)), err=True)


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


def _check_not_backbone(output: Path, backbone: str) -> None:
    from audioset.errors import UsageError
    from audioset.files import is_folder

    if is_folder(output) and is_folder(backbone) and output.samefile(backbone):
        raise UsageError(f"--output and --backbone are both {output}: it would be overwritten. Next step: name another")


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
