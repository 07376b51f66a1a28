"""``audioset finetune``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import hold_folder
from audioset.cli.sound_options import export_given, read_given, with_exports, with_sounds
from audioset.cli.train_options import given, with_settings
from audioset.concurrency import keep_freed_memory
from audioset.train.finetune.config import FinetuneConfig, read_finetune_config


@click.command(short_help="Train a published network further, on your own sounds.")
@with_sounds
@click.option("--output", "-o", metavar="FOLDER", required=True, type=click.Path(path_type=Path), help="Of the model.")
@click.option("--config", "config_path", metavar="FILE", help="Settings in TOML; flags overrule them.")
@click.option(
    "--cross-validate", "cross_validates", is_flag=True, help="Also hold out each group in turn; takes longer by that."
)
@click.option(
    "--folds", "n_folds", metavar="N", type=click.IntRange(2), default=5, show_default=True, help="Of it, at most."
)
@with_exports
@click.option("--json", "as_json", is_flag=True, help="What results.json says, as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@with_settings(FinetuneConfig)
def finetune(
    data: Path,
    output: Path,
    config_path: str | None,
    cross_validates: bool,
    n_folds: int,
    formats: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a published network further, on your own sounds.

    DATA is a folder of folders, one for each class; a table with path and label; a folder of recordings with Audacity
    or Raven labels beside them; or a list of AudioSet's clips. A run that was stopped goes on by itself when the same
    command is given again, and ends with the same weights. --output then has the model, report.html with what was
    measured on held-out clips, the same as results.json, and in run/ the settings and the course of the training.

    \b
    Examples:
      audioset finetune birds/ --output model/ --export onnx
      audioset finetune digits/ --group '_([a-z]+)_' --cross-validate --output model/
      torchrun --nproc-per-node 2 -m audioset finetune birds/ --config run.toml --output model/
    """
    keep_freed_memory()
    collection = read_given(data, options)
    config = read_finetune_config(config_path, **given(options))
    if _is_first():
        hold_folder(output)
    from audioset.train.finetune.finetune import finetune as finetune_collection

    shown = _Shown(config.n_epochs, is_quiet=quiet or not _is_first())
    record = finetune_collection(
        collection,
        config,
        output,
        cross_validates=cross_validates,
        n_folds=n_folds,
        on_stage=shown.stage,
        on_line=shown,
    )
    if _is_first():
        export_given(output, formats, is_quiet=quiet)
        echo(json.dumps(record, indent=1, allow_nan=False) if as_json else "\n".join(_lines(record)))
        if not quiet:
            echo(
                f"audioset: wrote {output}: report.html has it all. Next: audioset tag FILE --model {output}", err=True
            )


class _Shown:
    """Shows the stages and a line for each epoch on standard error."""

    def __init__(self, n_epochs: int, *, is_quiet: bool) -> None:
        self._n_epochs, self._is_quiet, self._stage = n_epochs, is_quiet, ""

    def stage(self, stage: str, n_done: int, n_all: int) -> None:
        """A stage has come so far."""
        if stage != self._stage and not self._is_quiet:
            echo(f"audioset: {stage}", err=True)
        self._stage = stage

    def __call__(self, line: Mapping[str, Any]) -> None:
        if self._is_quiet:
            return
        held_out = f" · held out {line['held_out_accuracy']:.1%}" if "held_out_accuracy" in line else ""
        epoch = f"epoch {line['epoch']} of {self._n_epochs}"
        echo(f"audioset: {epoch} · loss {line['loss']:.4f}{held_out} · {line['elapsed_s']:.0f} s", err=True)


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Warnings, and a line for each evaluation and each of its folds."""
    for warning in record["warnings"]:
        yield f"note: {warning}"
    for held_out in record["evaluations"]:
        low, high = held_out["accuracy_interval"]
        macro_f1 = held_out["macro_f1"]  # not defined where no clip has a class, and none is said
        yield (
            f"{held_out['name']:12s} {held_out['accuracy']:6.1%} of {held_out['n_clips']:,} clips right "
            f"({low:.1%} to {high:.1%}), macro F1 {'n/a' if macro_f1 is None else f'{macro_f1:.3f}'}"
        )
        if len(held_out["folds"]) > 1:
            yield from (
                f"  {fold['name']:20s} {fold['accuracy']:6.1%} of {fold['n_clips']:,}" for fold in held_out["folds"]
            )


def _is_first() -> bool:
    """Whether this is the process that talks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
