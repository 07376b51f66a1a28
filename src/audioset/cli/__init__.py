"""The ``audioset`` command: one file for each group of commands, imported when it is called."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from contextlib import suppress

import click

from audioset import __version__
from audioset.audio.interpreter import fill_standard_descriptors
from audioset.cli.echo import echo
from audioset.cli.lazy import LazyGroup
from audioset.errors import AudioSetError, OutputError, plain
from audioset.stopping import signal_of, stop_when_asked

# command -> (module, one line for the list of commands)
COMMANDS = {
    "tag": ("tag", "Say what is heard in audio files."),
    "events": ("events", "Say when something is heard in audio files."),
    "listen": ("listen", "Say when something is heard, while it is heard."),
    "embed": ("embed", "Write the embeddings of audio files."),
    "calibrate": ("calibrate", "Learn a model's own thresholds from labelled recordings."),
    "models": ("models", "List, describe, fetch and check the published models."),
    "data": ("data", "Work with AudioSet itself."),
    "train": ("train", "Train classifiers: on AudioSet's features, or of your own sounds."),
    "finetune": ("finetune", "Train a published network further, on your own sounds."),
    "evaluate": ("evaluate", "Measure models on AudioSet, and compare them."),
    "export": ("export", "Write a model as ONNX, OpenVINO, TorchScript, Keras or TFLite."),
    "index": ("index", "Store the embeddings of recordings, to be searched."),
    "search": ("search", "Find the moments that sound most like an example."),
    "doctor": ("doctor", "Show what works here, and how exactly."),
}


@click.command(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="audioset")
def cli() -> None:
    """Tag and embed audio with the published AudioSet models: exact, fast, offline.

    \b
    Examples:
      audioset tag dog.wav
      audioset tag recordings/ --format csv --output tags.csv
      audioset embed recordings/ --output embeddings.parquet

    Results go to standard output, everything else to standard error. Exit codes: 0 all done, 2 wrong
    usage, 3 some inputs failed, 4 no input, 5 weights missing or wrong, 6 an earlier run does not fit, or another
    one is writing the same output, 7 results cannot be written, 128 and a signal's number: stopped by it.
    """


def _open_standard_streams() -> None:
    """Give a process that was started with closed descriptors its streams: no input, and an output that says so."""
    fill_standard_descriptors()
    sys.stdin = sys.stdin or open(0)  # noqa: SIM115 - they last as long as the process
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115


def _is_output_lost() -> bool:
    """Whether standard output takes nothing any more; what is left in its buffer then goes nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - no path but a device
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return True
    return False


class _PlainFormatter(logging.Formatter):
    """Writes warnings without what moves a terminal's cursor, wherever they have it from."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def main() -> None:
    """Run the command line; errors become one line and an exit code."""
    _open_standard_streams()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainFormatter("audioset: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        stop_when_asked()
        exit_code = cli.main(prog_name="audioset", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        exit_code = error.exit_code
    except (Exception, KeyboardInterrupt) as error:
        exit_code = _report(error)
    sys.exit(exit_code)


def _report(error: BaseException) -> int:
    """Say what ended the command, and return its exit code; what no one foresaw is raised again."""
    stopped_by = signal_of(error)
    if stopped_by is not None or isinstance(error, (click.Abort, KeyboardInterrupt)):
        with suppress(OSError):  # a terminal that is gone
            echo("audioset: stopped", err=True)
        return 128 + (stopped_by or signal.SIGINT)
    if isinstance(error, click.ClickException):
        words = io.StringIO()
        error.show(words)
        echo(words.getvalue(), err=True, nl=False)
        return error.exit_code
    if isinstance(error, AudioSetError):
        echo(f"audioset: {error}", err=True)
        return error.exit_code
    if isinstance(error, OSError) and _is_output_lost():
        echo(f"audioset: cannot write standard output: {error.strerror}. Next step: choose another place", err=True)
        return OutputError.exit_code
    raise error
