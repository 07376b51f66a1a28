"""``audioset listen``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from audioset.cli.options import check_tagger, class_options, event_options, load_chosen_model, model_options
from audioset.cli.view import take_event_finder
from audioset.errors import AudioError, MissingExtraError, one_line
from audioset.formats import EVENT_FORMATS, EventRow, make_writer, open_output
from audioset.formats.table import clock
from audioset.stopping import ASKING

if TYPE_CHECKING:
    from audioset.arrays import Array
    from audioset.cli.view import EventFinder, View
    from audioset.models.model import Prediction
    from audioset.models.stream import Stream

STDIN, MICROPHONE = "-", "microphone"
ENCODINGS = {"s16le": "<i2", "s32le": "<i4", "f32le": "<f4"}
FORMATS = {name: EVENT_FORMATS[name] for name in ("table", "jsonl", "csv")}  # those that write line by line
READ_BYTES = 65_536
BLOCKS_PER_S = 10
STATUS_LABELS = 3
STATUS_SCORE = 0.05


@click.command(short_help="Say when something is heard, while it is heard.")
@click.argument("source", required=False, metavar="[-]")
@event_options
@class_options
@click.option("--sample-rate", metavar="HZ", type=click.IntRange(1), help="Default: the microphone's, or the model's.")
@click.option("--channels", metavar="N", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--encoding",
    type=click.Choice(list(ENCODINGS)),
    default="s16le",
    show_default=True,
    help="Samples of standard input: integers or floats, of so many bits, little-endian.",
)
@click.option("--device", metavar="NAME", help="Microphone, by number or part of its name. Default: the system's.")
@click.option("--format", "format_name", type=click.Choice(list(FORMATS)), default="table", show_default=True)
@click.option("--hop", "hop_s", metavar="S", type=float, help="Seconds between patches. Default: the model's own.")
@click.option(
    "--window", "window_s", metavar="S", type=float, help="Seconds of a patch of a model of clips. Default: 10."
)
@click.option("--quiet", "-q", is_flag=True, help="No status line.")
@model_options
def listen(source: str | None, **options: Any) -> int:
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
    make_finder = take_event_finder(options, in_order=False)
    status = _Status(is_shown=not options["quiet"] and sys.stderr.isatty())
    live = (_open_stdin if source else _open_microphone)(options, status.say)
    model = load_chosen_model(options)
    check_tagger(model, options["model"])
    finder = make_finder(model)
    settings = {name: options[name] for name in ("hop_s", "window_s")}
    stream = model.stream(live.sample_rate or model.frontend.sample_rate, **settings)
    with status, closing(live.blocks), _Interrupt() as interrupt:
        parts = _parts(stream, live.blocks, interrupt)
        rows = _rows(parts, stream, finder, live.name, options["model"], model.frontend.sample_rate / 2, status)
        return _write(rows, options["format_name"], status)


@dataclass(frozen=True)
class _Source:
    """Where samples come from; without a rate, they have the model's."""

    name: str
    sample_rate: int | None
    blocks: Generator[Array, None, None]


def _open_stdin(options: Mapping[str, Any], say: Callable[[str], None]) -> _Source:
    """Raw samples from standard input."""
    blocks = _raw_blocks(sys.stdin.buffer, ENCODINGS[options["encoding"]], options["channels"], say)
    return _Source(STDIN, options["sample_rate"], blocks)


def _raw_blocks(
    file: BinaryIO, dtype: str, n_channels: int, say: Callable[[str], None]
) -> Generator[Array, None, None]:
    """Samples (n, n_channels) as they arrive."""
    import numpy as np

    read: Callable[[int], bytes] = getattr(file, "read1", file.read)  # does not wait until all are there
    frame_bytes = np.dtype(dtype).itemsize * n_channels
    rest = b""
    while data := read(READ_BYTES):
        data = rest + data
        n_whole = len(data) // frame_bytes * frame_bytes
        rest = data[n_whole:]
        yield np.frombuffer(data[:n_whole], dtype).reshape(-1, n_channels)
    if rest:
        say(
            f"warning: {STDIN}: the stream ends within a sample, whose {len(rest)} bytes of {frame_bytes} are not "
            "used. Likely cause: it was cut, or --encoding or --channels is not what it has"
        )


def _open_microphone(options: Mapping[str, Any], say: Callable[[str], None]) -> _Source:
    """The microphone, at its own rate unless the options say another."""
    sounddevice = _import_sounddevice()
    name = options["device"]
    device = int(name) if name and name.isdigit() else name
    try:
        found = sounddevice.query_devices(device, "input")
    except (ValueError, sounddevice.PortAudioError) as error:
        raise _no_microphone(error) from error
    sample_rate = options["sample_rate"] or round(found["default_samplerate"])
    settings = {"device": device, "samplerate": sample_rate, "channels": options["channels"], "dtype": "float32"}
    return _Source(MICROPHONE, sample_rate, _microphone_blocks(sounddevice, settings, say))


def _microphone_blocks(
    sounddevice: Any, settings: Mapping[str, Any], say: Callable[[str], None]
) -> Generator[Array, None, None]:
    """Samples (n, n_channels) as they are recorded, without end."""
    try:
        with sounddevice.InputStream(**settings) as microphone:
            say(f"listening at {settings['samplerate']:,} Hz; Ctrl-C ends")
            while True:
                block, is_overflown = microphone.read(max(1, settings["samplerate"] // BLOCKS_PER_S))
                if is_overflown:
                    say("warning: samples were lost: this machine computes more slowly than it records")
                yield block
    except sounddevice.PortAudioError as error:
        raise _no_microphone(error) from error


def _import_sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtraError("a microphone", "sounddevice", "listen") from error
    except OSError as error:  # its own library, which pip does not bring on Linux
        raise _no_microphone(error) from error
    return sounddevice


def _no_microphone(error: Exception) -> AudioError:
    return AudioError(
        f"the microphone cannot be used: {error}. Next step: python -m sounddevice lists what there is, for --device; "
        "on Linux, the package libportaudio2 has to be installed",
        code="unreadable",
    )


class _Interrupt:
    """Ctrl-C, and what acts like it, as a wish to end: it cuts short a wait, never the work. The second one kills."""

    def __init__(self) -> None:
        self.is_asked = False
        self._is_waiting = False

    def __enter__(self) -> _Interrupt:
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, *ASKING)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        was_asked, self.is_asked = self.is_asked, True
        if was_asked or self._is_waiting:
            raise KeyboardInterrupt

    def until(self, blocks: Iterator[Array]) -> Iterator[Array]:
        """The blocks up to the first Ctrl-C."""
        while not self.is_asked:
            try:
                self._is_waiting = True
                block = next(blocks, None)
                self._is_waiting = False
            except KeyboardInterrupt:
                self._is_waiting = False
                return
            if block is None:
                return
            yield block


def _parts(stream: Stream[Prediction], blocks: Iterator[Array], interrupt: _Interrupt) -> Iterator[Prediction]:
    """What is heard in each block, and in the rest."""
    for block in interrupt.until(blocks):
        yield from stream.push(block)
    try:
        yield from stream.finish()
    except AudioError:
        if not interrupt.is_asked:  # who stops at once has not heard enough, and knows
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

    Parameters
    ----------
    is_shown : bool
        If not, only ``say`` does anything.
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

        from audioset.models.model import top_indices

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
