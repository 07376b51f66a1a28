"""``audioset events``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import click

from audioset.audio.limits import Limits
from audioset.cli.options import (
    EventOptions,
    RunOptions,
    ViewOptions,
    check_tagger,
    format_option,
    takes,
)
from audioset.formats import EVENT_FORMATS, OWN_EVENTS


@dataclass(frozen=True)
class FormatOption:
    """How events are written."""

    format_name: str | None = format_option(EVENT_FORMATS)


@click.command(short_help="Say when something is heard in audio files.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@takes(wanted=EventOptions, shown=ViewOptions, form=FormatOption, options=RunOptions, limits=Limits)
def events(
    inputs: tuple[str, ...],
    wanted: EventOptions,
    shown: ViewOptions,
    form: FormatOption,
    options: RunOptions,
    limits: Limits,
) -> int:
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
    from audioset.runs.rows import event_rows

    make_finder = wanted.finder_maker(shown, is_quiet=options.quiet)
    with open_inputs(inputs, is_quiet=options.quiet) as recordings:
        run = Run(recordings, options, limits, form.format_name, EVENT_FORMATS, OWN_EVENTS)
        check_tagger(run.model, options.model)
        with closing(event_rows(run.parts(), make_finder(run.model), run.model, options.model)) as rows:
            n_failed = run.write(rows)
    return 3 if n_failed else 0
