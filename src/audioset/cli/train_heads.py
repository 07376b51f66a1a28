"""``audioset train heads``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import hold_folder, json_flag, option, takes
from audioset.cli.train_options import is_first_process, takes_settings
from audioset.concurrency import keep_freed_memory
from audioset.errors import ConflictError
from audioset.files import is_file
from audioset.train.heads.config import TrainConfig, read_config

if TYPE_CHECKING:
    from audioset.train.checkpoint import Record

LINE_EVERY_S = 10.0
COLUMNS = {"mean_ap": "mAP", "mean_auc": "AUC", "d_prime": "d'", "lwlrap": "lwlrap"}


@dataclass(frozen=True)
class HeadsOptions:
    """Where the run is, and what is said of it."""

    config_path: str | None = option("Settings in TOML; flags overrule them.", "FILE", "--config")
    output: str | None = option("Of the run. In the end it is a model folder.", "FOLDER", "--output -o")
    resume: bool = option("Refuse to begin: only go on with the run in --output.")
    lists_heads: bool = option("List the heads, and do nothing.", flags="--list")
    as_json: bool = json_flag("The result as JSON.")
    quiet: bool = option("No progress.", flags="--quiet -q")


@click.command()
@takes(wanted=HeadsOptions)
@takes_settings(TrainConfig)
def heads(wanted: HeadsOptions, given: Mapping[str, Any]) -> None:
    """Train a head on released features, and measure it.

    Flags win over the file that --config names, the file over the head's own recipe, if it has one, and that over the
    defaults shown here. run.toml in --output has what came of it.

    A run that was stopped goes on by itself where it stood when the same command is given again, and ends with the
    same weights. --output then has model.safetensors and model.json; run.toml, all settings; metrics.jsonl, the
    measurements; and checkpoints/, the last two.

    \b
    Examples:
      audioset data features convert features.tar.gz features/ --format arrays
      audioset train heads --features features/ --eval-subset eval --head feature-attention \\
        --n-iterations 1000 --output model/
      torchrun --nproc-per-node 2 -m audioset train heads --config run.toml --output model/
    """
    if wanted.lists_heads:
        _list_heads()
        return
    output = wanted.output
    if output is None:
        raise click.UsageError("Missing option '--output' / '-o'.")
    config = read_config(wanted.config_path, **given)
    if wanted.resume and not is_file(Path(output) / "run.toml"):
        raise ConflictError(f"--resume: {output} holds no run. Next step: check the path, or leave out --resume")
    if is_first_process():
        hold_folder(Path(output))
    from audioset.train.heads.training import train as train_head

    keep_freed_memory()
    result = train_head(config, output, None if wanted.quiet else _Lines(config.n_iterations))
    if is_first_process():
        echo(json.dumps(result, indent=2) if wanted.as_json else "\n".join(_result_lines(result)))


class _Lines:
    """Shows measurements on standard error, and the loss now and then."""

    def __init__(self, n_iterations: int) -> None:
        self._n_iterations = n_iterations
        self._shown_at = time.monotonic()
        self._loss: float | None = None

    def __call__(self, line: Record) -> None:
        self._loss = line.get("loss", self._loss)
        measured = {name: line[name]["mean_ap"] for name in ("holdout", "eval") if name in line}
        if not measured and ("loss" not in line or time.monotonic() - self._shown_at < LINE_EVERY_S):
            return
        self._shown_at = time.monotonic()
        loss = [] if self._loss is None else [f"loss {self._loss:.5f}"]
        parts = [
            *loss,
            *(f"{name} mAP {_number(value)}" for name, value in measured.items()),
            f"{line['elapsed_s']:.0f} s",
        ]
        iteration = f"iteration {line['iteration']:,} of {self._n_iterations:,}"
        echo(f"audioset: {iteration} · {' · '.join(parts)}", err=True)


def _result_lines(result: Record) -> list[str]:
    rows = {name.replace("_", " "): values for name, values in result.items() if isinstance(values, Mapping)}
    if not rows:
        return []
    width = max(map(len, rows))
    head = f"{'':{width}s}" + "".join(f"{title:>9s}" for title in COLUMNS.values())
    return [
        head,
        *(f"{name:{width}s}" + "".join(f"{_number(row[key]):>9s}" for key in COLUMNS) for name, row in rows.items()),
    ]


def _number(value: float | None) -> str:
    """A measurement; not defined if no clip has a label."""
    return "n/a" if value is None else f"{value:.4f}"


def _list_heads() -> None:
    from audioset.networks.heads import HEADS

    for head in HEADS.values():
        echo(f"{head.name:20s}{head.summary}")
