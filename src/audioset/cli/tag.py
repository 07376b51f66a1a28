"""``audioset tag``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audioset.audio.limits import Limits
from audioset.cli.options import (
    RunOptions,
    ViewOptions,
    check_tagger,
    files_read,
    format_option,
    option,
    takes,
)
from audioset.formats import OWN_TAGS, TAG_FORMATS, check_different, check_output

if TYPE_CHECKING:
    from audioset.cli.inputs import Input
    from audioset.cli.run import Run
    from audioset.runs.view import View


@dataclass(frozen=True)
class TagOptions:
    """What rows there are, and of what labels."""

    top: int = option("Labels for each row, at most.", "N", default=5, at_least=1)
    threshold: float = option("Leave out labels that score less.", "T", default=0.0, at_least=0, at_most=1)
    per_patch: bool = option("A row for each patch instead of each file.")
    format_name: str | None = format_option(TAG_FORMATS)
    plot: Path | None = option("Draw one file: waveform, log-mel, classes over time.", "FILE")


@click.command(short_help="Say what is heard in audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@takes(tags=TagOptions, shown=ViewOptions, options=RunOptions, limits=Limits)
def tag(
    inputs: tuple[str, ...],
    tags: TagOptions,
    shown: ViewOptions,
    options: RunOptions,
    limits: Limits,
) -> int:
    """Say what is heard in INPUTS: files, folders, globs, or - for standard input.

    Scores are independent for each label, from 0 to 1; a file's score is the mean over its patches.

    \b
    Examples:
      audioset tag dog.wav --plot dog.png
      audioset tag recordings/ --top 3 --format csv --output tags.csv
      audioset tag street.wav --per-patch --threshold 0.3 --format audacity > street.txt
      audioset tag garden.wav --classes Bird --classes Insect --leaf-only
    """
    from audioset.cli.inputs import open_inputs
    from audioset.cli.run import Run
    from audioset.runs.rows import TagChoice, file_rows, patch_rows

    make_view = shown.view_maker()
    with open_inputs(inputs, is_quiet=options.quiet) as recordings:
        if tags.plot and len(recordings) != 1:
            raise click.UsageError(f"--plot draws one recording; the inputs are {len(recordings)}.")
        run = Run(recordings, options, limits, tags.format_name, TAG_FORMATS, OWN_TAGS)
        if tags.plot:
            _check_plot(tags.plot, options, recordings)
        check_tagger(run.model, options.model)
        view = make_view(run.model.labels)
        run.kept = [] if tags.plot else None
        make_rows = patch_rows if tags.per_patch else file_rows
        choose = TagChoice(view, tags.top, tags.threshold, shown.leaf_only)
        with closing(make_rows(run.parts(), choose, run.model, options.model)) as rows:
            n_failed = run.write(rows)
        if tags.plot and not n_failed:
            _plot(run, view, recordings[0], tags.plot, limits)
    return 3 if n_failed else 0


def _check_plot(plot: Path, options: RunOptions, recordings: list[Input]) -> None:
    """Refuse a plot that cannot be written, before any work."""
    from audioset.formats.picture import check_plot, is_picture

    check_plot(plot)
    check_different(plot=plot, output=options.output)
    read = files_read(*(item.path for item in recordings))
    check_output(plot, read, is_picture, overwrites=options.overwrite, option="--plot")


def _plot(run: Run, view: View, recording: Input, target: Path, limits: Limits) -> None:
    """Draw what the run has found; the recording is decoded once more, in a process of its own again."""
    from audioset.models.prediction import join_predictions
    from audioset.reports.plots import plot_prediction
    from audioset.sounds.audio import read_clip
    from audioset.sounds.collection import Clip

    sample_rate = run.model.frontend.sample_rate
    waveform = read_clip(Clip(Path(recording.path), ()), sample_rate, limits)
    prediction = view(join_predictions(run.kept or []))
    plot_prediction(prediction, waveform, sample_rate, target, title=Path(recording.shown).name)
