"""``audioset train heads``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import hold_folder
from audioset.cli.train_options import given, with_settings
from audioset.concurrency import keep_freed_memory
from audioset.files import is_file
from audioset.train.heads.config import TrainConfig, read_config

if TYPE_CHECKING:
    from audioset.train.checkpoint import Record

LINE_EVERY_S = 10.0
COLUMNS = {"mean_ap": "mAP", "mean_auc": "AUC", "d_prime": "d'", "lwlrap": "lwlrap"}


@click.command()
@click.option("--config", "config_path", metavar="FILE", help="Settings in TOML; flags overrule them.")
@click.option("--output", "-o", metavar="FOLDER", help="Of the run. In the end it is a model folder.")
@click.option("--resume", is_flag=True, help="Refuse to begin: only go on with the run in --output.")
@click.option("--list", "lists_heads", is_flag=True, help="List the heads, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@with_settings(TrainConfig)
def heads(
    config_path: str | None,
    output: str | None,
    resume: bool,
    lists_heads: bool,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train a head on released features, and measure it.

    Flags win over the file that --config names, the file over the head's own recipe, if it has one, and that over the
    defaults shown here. run.toml in --output has what came of it.

    A run that was stopped goes on by itself where it stood when the same command is given again, and ends with the
    same weights. --output then has model.safetensors and model.json; run.toml, all settings; metrics.jsonl, the
    measurements; and checkpoints/, the last two.

    \b
    Examples:
      audioset data features convert features.tar.gz features/ --to arrays
      audioset train heads --features features/ --eval-subset eval --head feature-attention \\
        --n-iterations 1000 --output model/
      torchrun --nproc-per-node 2 -m audioset train heads --config run.toml --output model/
    """
    if lists_heads:
        _list_heads()
        return
    if output is None:
        raise click.UsageError("Missing option '--output' / '-o'.")
    config = read_config(config_path, **given(flags))
    if resume:
        _check_is_run(output)
    if _is_first():
        hold_folder(Path(output))
    from audioset.train.heads.training import train as train_head

    keep_freed_memory()
    result = train_head(config, output, None if quiet else _Lines(config.n_iterations))
    if _is_first():
        echo(json.dumps(result, indent=2) if as_json else "\n".join(_result_lines(result)))


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


def _check_is_run(output: str) -> None:
    from audioset.errors import ConflictError

    if not is_file(Path(output) / "run.toml"):
        raise ConflictError(f"--resume: {output} holds no run. Next step: check the path, or leave out --resume")


def _is_first() -> bool:
    """Whether this is the process that talks, of those that torchrun started."""
    import os

    return os.environ.get("RANK", "0") == "0"
