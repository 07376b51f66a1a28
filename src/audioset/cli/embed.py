"""``audioset embed``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click

from audioset.cli.options import model_options, run_options, take_limits

FORMATS = ("jsonl", "npz", "parquet")


@click.command(short_help="Write the embeddings of audio files.")
@click.argument("inputs", nargs=-1, required=True)
@click.option("--format", "format_name", type=click.Choice(FORMATS), help="Default: by --output's suffix, or jsonl.")
@model_options
@run_options
def embed(**options: Any) -> int:
    r"""Write one embedding for each patch of INPUTS: files, folders, globs, or - for standard input.

    \b
    Examples:
      audioset embed dog.wav --output dog.npz
      audioset embed recordings/ --hop 0.96 --output embeddings.parquet
      audioset embed dog.wav | head -n 1
    """
    from audioset.cli.inputs import open_inputs
    from audioset.cli.run import Run

    with open_inputs(options.pop("inputs")) as inputs:
        run = Run(inputs, take_limits(options), options)
        with closing(_rows(run, options["model"])) as rows:
            n_failed = run.write(rows, FORMATS)
    return 3 if n_failed else 0


def _rows(run: Any, model: str) -> Iterator[Any]:
    """One row for each part of a file, so that the longest recording fits in memory."""
    import numpy as np

    from audioset.formats.rows import EmbeddingRow

    nothing = np.zeros(0)
    for shown, part in run.parts():
        prediction = part.prediction
        if prediction is not None:
            yield EmbeddingRow(
                shown, prediction.start_s, prediction.end_s, prediction.embeddings, prediction.duration_s, model
            )
        elif part.error:
            empty = np.zeros((0, 0), np.float32)
            yield EmbeddingRow(
                shown, nothing, nothing, empty, None, model, part.warnings, part.error.code, str(part.error)
            )
