"""``audioset tag``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import (
    check_tagger,
    class_options,
    files_read,
    format_option,
    model_options,
    run_options,
    take_limits,
)
from audioset.cli.view import take_view
from audioset.formats import OWN_TAGS, TAG_FORMATS, Row, Tag, check_different, check_output

if TYPE_CHECKING:
    from audioset.cli.inputs import Input
    from audioset.cli.run import Run
    from audioset.cli.view import View


@click.command(short_help="Say what is heard in audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@click.option(
    "--top", metavar="N", type=click.IntRange(1), default=5, show_default=True, help="Labels for each row, at most."
)
@click.option(
    "--threshold", metavar="T", type=click.FloatRange(0, 1), default=0.0, help="Leave out labels that score less."
)
@class_options
@click.option("--per-patch", is_flag=True, help="A row for each patch instead of each file.")
@format_option(TAG_FORMATS)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Draw one file: waveform, log-mel, classes over time.",
)
@model_options
@run_options
def tag(**options: Any) -> int:
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
    from audioset.formats.picture import check_plot, is_picture

    plot = options.pop("plot")
    make_view = take_view(options)
    with open_inputs(options.pop("inputs"), is_quiet=options["quiet"]) as inputs:
        if plot and len(inputs) != 1:
            raise click.UsageError(f"--plot draws one recording; the inputs are {len(inputs)}.")
        run = Run(inputs, take_limits(options), options, TAG_FORMATS, OWN_TAGS)
        if plot:
            check_plot(plot)
            check_different(plot=plot, output=options["output"])
            read = files_read(*(item.path for item in inputs))
            check_output(plot, read, is_picture, overwrites=options["overwrite"], option="--plot")
        check_tagger(run.model, run.name)
        view = make_view(run.model.labels)
        choose = _Choice(view, options["top"], options["threshold"], options["leaf_only"])
        run.kept = [] if plot else None
        make_rows = _patch_rows if options["per_patch"] else _file_rows
        with closing(make_rows(run, choose)) as rows:
            n_failed = run.write(rows)
        if plot and not n_failed:
            _plot(run, view, inputs[0], plot)
    return 3 if n_failed else 0


class _Choice:
    """Which labels of a score vector a row shows."""

    def __init__(self, view: View, top: int, threshold: float, leaf_only: bool) -> None:
        self.view = view
        self._top = top
        self._threshold = threshold
        self._leaf_only = leaf_only

    def tags(self, scores: Any) -> tuple[Tag, ...]:
        from audioset.models.prediction import top_indices

        labels = self.view.labels
        chosen = [index for index in top_indices(scores, self._top) if scores[index] >= self._threshold]
        if self._leaf_only:
            chosen = self._leaves(chosen)
        return tuple(Tag(labels.ids[index], labels.names[index], float(scores[index])) for index in chosen)

    def _leaves(self, chosen: list[int]) -> list[int]:
        import numpy as np

        from audioset.labels.ontology import Ontology

        is_chosen = np.zeros(len(self.view.labels), bool)
        is_chosen[chosen] = True
        is_kept = Ontology.load().leaf_only(is_chosen, self.view.labels)
        return [index for index in chosen if is_kept[index]]


def _file_rows(run: Run, choose: _Choice) -> Generator[Row, None, None]:
    """One row a file, with mean scores that are summed as the parts come."""
    import numpy as np

    high_hz = run.model.frontend.sample_rate / 2
    total: Any = 0.0
    n_patches, duration_s = 0, 0.0
    for shown, part in run.parts():
        if part.prediction is not None:
            scores = choose.view(part.prediction).require_scores()
            total = total + scores.sum(axis=0, dtype=np.float64)
            n_patches += len(scores)
            duration_s = part.prediction.duration_s
        if part.is_last:
            if part.error:
                yield Row.failed(shown, part.error, run.name)
            else:
                tags = choose.tags(total / n_patches)
                yield Row(shown, 0.0, duration_s, tags, duration_s, run.name, part.warnings, high_hz=high_hz)
            total, n_patches, duration_s = 0.0, 0, 0.0


def _patch_rows(run: Run, choose: _Choice) -> Generator[Row, None, None]:
    """One row a patch, as soon as it is known; a file that fails ends with a row that says so."""
    high_hz = run.model.frontend.sample_rate / 2
    for shown, part in run.parts():
        if part.prediction is not None:
            prediction = choose.view(part.prediction)
            columns = (prediction.start_s, prediction.end_s, prediction.require_scores())
            for start_s, end_s, scores in zip(*columns, strict=True):
                tags = choose.tags(scores)
                yield Row(shown, float(start_s), float(end_s), tags, prediction.duration_s, run.name, high_hz=high_hz)
        elif part.error:
            yield Row.failed(shown, part.error, run.name)


def _plot(run: Run, view: View, recording: Input, target: Path) -> None:
    """Draw what the run has found; the recording is decoded once more, in a process of its own again."""
    from audioset.models.prediction import join_predictions
    from audioset.reports.plots import plot_prediction
    from audioset.sounds.audio import read_clip
    from audioset.sounds.collection import Clip

    sample_rate = run.model.frontend.sample_rate
    waveform = read_clip(Clip(Path(recording.path), ()), sample_rate, run.limits)
    prediction = view(join_predictions(run.kept or []))
    plot_prediction(prediction, waveform, sample_rate, target, title=Path(recording.shown).name)
