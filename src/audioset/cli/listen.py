"""``audioset listen``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import click

from audioset.cli.options import (
    EventOptions,
    ModelOptions,
    PatchOptions,
    ViewOptions,
    check_tagger,
    option,
    takes,
)
from audioset.errors import AudioError, one_line
from audioset.formats import EVENT_FORMATS, EventRow, make_writer, open_output
from audioset.formats.table import clock

if TYPE_CHECKING:
    from audioset.arrays import Array
    from audioset.audio.live import Interruption, LiveAudio
    from audioset.models.prediction import Prediction
    from audioset.models.stream import Stream
    from audioset.runs.view import EventFinder, View

STDIN = "-"
ENCODINGS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
FORMATS = {name: EVENT_FORMATS[name] for name in ("table", "jsonl", "csv")}  # those that write line by line
STATUS_LABELS = 3
STATUS_SCORE = 0.05


@dataclass(frozen=True)
class SourceOptions:
    """What is listened to, and how events are written."""

    sample_rate: int | None = option("Default: the microphone's, or the model's.", "HZ", at_least=1)
    channels: int = option(None, "N", default=1, at_least=1)
    encoding: str = option(
        "Samples of standard input: integers or floats, of so many bits, little-endian.",
        choices=ENCODINGS,
        default="s16le",
    )
    device: str | None = option("Microphone, by number or part of its name. Default: the system's.", "NAME")
    format_name: str = option(flags="--format", choices=FORMATS, default="table")
    quiet: bool = option("No status line.", flags="--quiet -q")


@click.command(short_help="Say when something is heard, while it is heard.")
@click.argument("source", required=False, metavar="[-]")
@takes(wanted=EventOptions, shown=ViewOptions, heard=SourceOptions, patches=PatchOptions, chosen=ModelOptions)
def listen(
    source: str | None,
    wanted: EventOptions,
    shown: ViewOptions,
    heard: SourceOptions,
    patches: PatchOptions,
    chosen: ModelOptions,
) -> int:
    """Say when something is heard by the microphone, or in raw samples from standard input (-).

    Each event is written when it has ended, so events come by offset. In a terminal, a line below shows what is
    heard at the moment. Ctrl-C ends the stream as a file ends: events that still go on are written too.

    \b
    Examples:
      audioset listen --threshold 0.3
      audioset listen --format jsonl > kitchen.jsonl
      arecord -f S16_LE -r 16000 | audioset listen - --sample-rate 16000
      ffmpeg -i rtsp://camera/live -f s16le -ac 1 -ar 16000 - | audioset listen -
    """
    if source not in (None, STDIN):
        raise click.UsageError(f"{source} is not -; files are for: audioset events {source}")
    from audioset.audio.live import Interruption

    make_finder = wanted.finder_maker(shown, is_quiet=heard.quiet, in_order=False)
    status = _Status(is_shown=not heard.quiet and sys.stderr.isatty())
    live = _open(source, heard, status.say)
    model = chosen.load()
    check_tagger(model, chosen.model)
    finder = make_finder(model)
    stream = model.stream(live.sample_rate or model.frontend.sample_rate, **vars(patches))
    with status, closing(live.blocks), Interruption() as interruption:
        parts = _parts(stream, live.blocks, interruption)
        rows = _rows(parts, stream, finder, live.name, chosen.model, model.frontend.sample_rate / 2, status)
        return _write(rows, heard.format_name, status)


def _open(source: str | None, heard: SourceOptions, say: Callable[[str], None]) -> LiveAudio:
    """Standard input, or the microphone."""
    from audioset.audio.live import LiveAudio, open_microphone, raw_blocks

    if source is None:
        return open_microphone(heard.device, heard.sample_rate, heard.channels, say)
    blocks = raw_blocks(sys.stdin.buffer, ENCODINGS[heard.encoding], heard.channels, say)
    return LiveAudio(STDIN, heard.sample_rate, blocks)


def _parts(stream: Stream[Prediction], blocks: Iterator[Array], interruption: Interruption) -> Iterator[Prediction]:
    """What is heard in each block, and in the rest."""
    for block in interruption.until(blocks):
        yield from stream.push(block)
    try:
        yield from stream.finish()
    except AudioError:
        if not interruption.is_asked:  # who stops at once has not heard enough, and knows
            raise


def _rows(
    parts: Iterator[Prediction],
    stream: Stream[Prediction],
    finder: EventFinder,
    name: str,
    model: str,
    high_hz: float,
    status: _Status,
) -> Iterator[EventRow]:
    """Rows of events as soon as they are final; the last row says how it went."""
    n_events, failure = 0, None
    try:
        for part in parts:
            found = finder.push(part)
            n_events += len(found)
            if found:
                yield EventRow(name, tuple(found), n_events, stream.duration_s, model, is_last=False, high_hz=high_hz)
            status.show(finder.view, part)
    except AudioError as error:
        failure = error
    found = finder.finish()
    n_events += len(found)
    yield EventRow(name, tuple(found), n_events, stream.duration_s, model, is_last=failure is None, high_hz=high_hz)
    if failure is not None:
        yield EventRow.failed(name, failure, model, n_events)


def _write(rows: Iterator[EventRow], format_name: str, status: _Status) -> int:
    """Write all rows to standard output; the exit code."""
    failure: str | None = None
    with open_output(None) as output, closing(make_writer(format_name, output, FORMATS)) as writer:
        for row in rows:
            failure = row.error_code and f"error: {row.path}: {row.error} [{row.error_code}]"
            if failure and format_name != "table":  # which shows it itself
                status.say(failure)
            status.hide()
            writer.write(row)
    return AudioError.exit_code if failure else 0


class _Status:
    """One line on standard error that says what is heard at the moment, and gives way to others.

    If it is not ``is_shown``, only ``say`` does anything.
    """

    def __init__(self, *, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._width = 0  # of what is there now

    def __enter__(self) -> _Status:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hide()

    def show(self, view: View, part: Prediction) -> None:
        """Show the labels of the last patch."""
        if not self._is_shown:
            return
        from rich.cells import cell_len, set_cell_size
        from rich.console import Console

        from audioset.models.prediction import top_indices

        part = view.calibrated(part)
        scores = part.require_scores()[-1]
        best = [index for index in top_indices(scores, STATUS_LABELS) if scores[index] >= STATUS_SCORE]
        heard = "   ".join(f"{one_line(part.labels.names[index])} {scores[index]:.2f}" for index in best)
        text = f"  {clock(float(part.end_s[-1]), 0)}  {heard or '…'}"
        text = set_cell_size(text, min(cell_len(text), Console(stderr=True).width - 1))
        self.hide()
        click.echo(text, err=True, nl=False)
        self._width = cell_len(text)

    def hide(self) -> None:
        """Blank the line, for others to be written in its place."""
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", err=True, nl=False)
            self._width = 0

    def say(self, line: str) -> None:
        """Write a line that stays."""
        self.hide()
        click.echo(f"audioset: {one_line(line)}", err=True)
