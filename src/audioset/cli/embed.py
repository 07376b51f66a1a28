"""``audioset embed``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import format_option, model_options, run_options, take_limits
from audioset.formats import EMBED_FORMATS, EmbeddingRow

if TYPE_CHECKING:
    from audioset.cli.run import Run


@click.command(short_help="Write the embeddings of audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@format_option(EMBED_FORMATS)
@model_options
@run_options
def embed(**options: Any) -> int:
    """Write one embedding for each patch of INPUTS: files, folders, globs, or - for standard input.

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
        with closing(_rows(run)) as rows:
            n_failed = run.write(rows, EMBED_FORMATS)
    return 3 if n_failed else 0


def _rows(run: Run) -> Generator[EmbeddingRow, None, None]:
    """One row for each part of a file, so that the longest recording fits in memory."""
    for shown, part in run.parts():
        prediction = part.prediction
        if prediction is not None:
            start_s, end_s, embeddings = prediction.start_s, prediction.end_s, prediction.embeddings
            yield EmbeddingRow(shown, start_s, end_s, embeddings, prediction.duration_s, run.name)
        elif part.error:
            yield EmbeddingRow.failed(shown, part.error, run.name)
