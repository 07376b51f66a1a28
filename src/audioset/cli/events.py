"""``audioset events``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import format_option, model_options, run_options, take_limits
from audioset.errors import UsageError
from audioset.formats import EVENT_FORMATS, EventRow

if TYPE_CHECKING:
    from audioset.cli.run import Run
    from audioset.events import EventDetector, EventSettings


@click.command(short_help="Say when something is heard in audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@click.option(
    "--threshold",
    metavar="T",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="An event begins where a label's score reaches this.",
)
@click.option(
    "--low-threshold",
    metavar="T",
    type=click.FloatRange(0, 1),
    help="It goes on while the score reaches this. Default: --threshold.",
)
@click.option(
    "--thresholds",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Labels with thresholds of their own: a CSV, TSV or JSON file.",
)
@click.option(
    "--median",
    "median_patches",
    metavar="N",
    type=click.IntRange(1),
    default=1,
    help="First smooth the scores over N patches, an odd number.",
)
@click.option(
    "--max-gap",
    "max_gap_s",
    metavar="S",
    type=click.FloatRange(0),
    default=0.0,
    help="Join events of a label with at most so many seconds between them.",
)
@click.option(
    "--min-duration",
    "min_duration_s",
    metavar="S",
    type=click.FloatRange(0),
    default=0.0,
    help="Leave out events that are shorter.",
)
@format_option(EVENT_FORMATS)
@model_options
@run_options
def events(**options: Any) -> int:
    """Say when something is heard in INPUTS: files, folders, globs, or - for standard input.

    An event lasts from the start of the first patch whose score for a label reaches the threshold to the end of
    the last. Its score is the highest on the way.

    \b
    Examples:
      audioset events street.wav --threshold 0.3 --max-gap 1
      audioset events recordings/ --low-threshold 0.2 --output events.csv
      audioset events street.wav --format audacity > street.txt
    """
    from audioset.cli.inputs import open_inputs
    from audioset.cli.run import Run

    thresholds: Path | None = options.pop("thresholds")
    settings = _settings(options, thresholds)
    with open_inputs(options.pop("inputs")) as inputs:
        run = Run(inputs, take_limits(options), options)
        if not len(run.model.labels):
            raise click.UsageError(f"{run.name} only embeds: it has no scores. Next step: audioset embed")
        with closing(_rows(run, _detector(run, settings, thresholds))) as rows:
            n_failed = run.write(rows, EVENT_FORMATS)
    return 3 if n_failed else 0


def _settings(options: dict[str, Any], thresholds: Path | None) -> EventSettings:
    """Take the settings out of the options."""
    from audioset.events import EventSettings, read_thresholds

    names = ("threshold", "low_threshold", "median_patches", "max_gap_s", "min_duration_s")
    label_thresholds = read_thresholds(thresholds) if thresholds else {}
    return EventSettings(label_thresholds=label_thresholds, **{name: options.pop(name) for name in names})


def _detector(run: Run, settings: EventSettings, thresholds: Path | None) -> EventDetector:
    """A detector for the run's labels; if the file names others, it is to blame."""
    from audioset.events import EventDetector

    try:
        return EventDetector(run.model.labels, settings)
    except UsageError as error:
        raise UsageError(f"--thresholds {thresholds}: {error}") from error


def _rows(run: Run, detector: EventDetector) -> Generator[EventRow, None, None]:
    """Rows of events as soon as they are final; each file's last row says how it went."""
    from audioset.events import clip_to_audio

    n_events, duration_s = 0, 0.0
    for shown, part in run.parts():
        prediction = part.prediction
        if prediction is not None:
            duration_s = prediction.duration_s
            heard = clip_to_audio(prediction.require_scores(), prediction.start_s, prediction.end_s, duration_s)
            found = tuple(detector.push(*heard))
        else:
            found = tuple(detector.finish())
        n_events += len(found)
        is_last = part.is_last and part.error is None
        if found or is_last:
            yield EventRow(shown, found, n_events, duration_s, run.name, is_last, part.warnings)
        if part.error:
            yield EventRow.failed(shown, part.error, run.name, n_events)
        if part.is_last:
            n_events, duration_s = 0, 0.0
