"""``audioset events``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import (
    check_tagger,
    class_options,
    event_options,
    format_option,
    model_options,
    run_options,
    take_limits,
)
from audioset.cli.view import take_event_finder
from audioset.formats import EVENT_FORMATS, OWN_EVENTS, EventRow

if TYPE_CHECKING:
    from audioset.cli.run import Run
    from audioset.cli.view import EventFinder


@click.command(short_help="Say when something is heard in audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@event_options
@class_options
@format_option(EVENT_FORMATS)
@model_options
@run_options
def events(**options: Any) -> int:
    """Say when something is heard in INPUTS: files, folders, globs, or - for standard input.

    An event lasts from the start of the first patch whose score for a label reaches the threshold to the end of
    the last. Its score is the highest on the way. A model that was calibrated brings thresholds of its own.

    \b
    Examples:
      audioset events street.wav --threshold 0.3 --max-gap 1
      audioset events recordings/ --low-threshold 0.2 --output events.csv
      audioset events street.wav --format audacity > street.txt
      audioset events garden.wav --classes Bird --classes Insect --leaf-only
    """
    from audioset.cli.inputs import open_inputs
    from audioset.cli.run import Run

    make_finder = take_event_finder(options)
    with open_inputs(options.pop("inputs"), is_quiet=options["quiet"]) as inputs:
        run = Run(inputs, take_limits(options), options, EVENT_FORMATS, OWN_EVENTS)
        check_tagger(run.model, run.name)
        with closing(_rows(run, make_finder(run.model))) as rows:
            n_failed = run.write(rows)
    return 3 if n_failed else 0


def _rows(run: Run, finder: EventFinder) -> Generator[EventRow, None, None]:
    """Rows of events as soon as they are final; each file's last row says how it went."""
    high_hz = run.model.frontend.sample_rate / 2
    n_events, duration_s = 0, 0.0
    for shown, part in run.parts():
        prediction = part.prediction
        if prediction is not None:
            duration_s = prediction.duration_s
            found = tuple(finder.push(prediction))
        else:
            found = tuple(finder.finish())
        n_events += len(found)
        is_last = part.is_last and part.error is None
        if found or is_last:
            yield EventRow(shown, found, n_events, duration_s, run.name, is_last, part.warnings, high_hz=high_hz)
        if part.error:
            yield EventRow.failed(shown, part.error, run.name, n_events)
        if part.is_last:
            n_events, duration_s = 0, 0.0
