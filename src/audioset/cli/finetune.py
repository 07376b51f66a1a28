"""``audioset finetune``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import hold_folder, option, takes
from audioset.cli.sound_options import LearnedOptions, SoundOptions
from audioset.cli.train_options import is_first_process, takes_settings
from audioset.concurrency import keep_freed_memory
from audioset.train.finetune.config import FinetuneConfig, read_finetune_config


@dataclass(frozen=True)
class FinetuneOptions:
    """Where the model goes, and what is measured."""

    output: Path = option("Of the model.", "FOLDER", "--output -o", required=True)
    config_path: str | None = option("Settings in TOML; flags overrule them.", "FILE", "--config")
    cross_validates: bool = option("Also hold out each group in turn; takes longer by that.", flags="--cross-validate")
    n_folds: int = option("Of it, at most.", "N", "--folds", default=5, at_least=2)


@click.command(short_help="Train a published network further, on your own sounds.")
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@takes(sounds=SoundOptions, wanted=FinetuneOptions, learned=LearnedOptions)
@takes_settings(FinetuneConfig)
def finetune(
    data: Path,
    sounds: SoundOptions,
    wanted: FinetuneOptions,
    learned: LearnedOptions,
    given: Mapping[str, Any],
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
    collection = sounds.read(data)
    config = read_finetune_config(wanted.config_path, **given)
    is_first = is_first_process()
    if is_first:
        hold_folder(wanted.output)
    from audioset.train.finetune.finetune import finetune as finetune_collection

    shown = _Shown(config.n_epochs, is_quiet=learned.quiet or not is_first)
    record = finetune_collection(
        collection,
        config,
        wanted.output,
        cross_validates=wanted.cross_validates,
        n_folds=wanted.n_folds,
        on_stage=shown.stage,
        on_line=shown,
    )
    if is_first:
        learned.finish(wanted.output, record, _lines(record))
        if not learned.quiet:
            place = f"audioset: wrote {wanted.output}: report.html has it all."
            echo(f"{place} Next: audioset tag FILE --model {wanted.output}", err=True)


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
