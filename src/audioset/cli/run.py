"""What ``tag``, ``events`` and ``embed`` have in common: load the model, run the files, write the rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from audioset.batch import Part, predict_parts
from audioset.cli.inputs import Input
from audioset.cli.options import load_chosen_model
from audioset.cli.progress import Progress
from audioset.errors import UsageError
from audioset.files import explain_os_errors
from audioset.formats import SUFFIXES, Stream, Writer, make_writer, open_output, printable
from audioset.limits import Limits
from audioset.predict import Model, Prediction

# Formats that can be one file for each recording, in a folder, and how these files end.
PER_RECORDING = {"audacity": ".txt", "raven": ".txt", "textgrid": ".TextGrid", "webvtt": ".vtt"}
ONE_RECORDING = {"audacity": "Audacity labels belong", "textgrid": "a TextGrid belongs", "webvtt": "captions belong"}


class Run:
    """One run of a command over its inputs.

    Parameters
    ----------
    inputs : sequence of Input
    limits : Limits
    options : dict
        The command's options: model, weights, engine, precision, threads, hop_s, window_s, pad, workers, output,
        format_name, quiet.
    """

    def __init__(self, inputs: Sequence[Input], limits: Limits, options: dict[str, Any]) -> None:
        self.limits = limits
        self.hop_s: float | None = options["hop_s"]
        self.window_s: float | None = options["window_s"]
        self.pad: str | None = options["pad"]
        self.name: str = options["model"]
        self._inputs = inputs
        self._options = options
        self._progress: Progress | None = None
        self.kept: list[Prediction] | None = None  # a list, if the predictions are wanted after the run

    @cached_property
    def model(self) -> Model:
        """The model, loaded when it is first needed."""
        return load_chosen_model(self._options)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Each part of each file's prediction, with the name to show for the file."""
        names = iter(self._inputs)
        shown = printable(next(names).shown)
        paths = [item.path for item in self._inputs]
        settings: dict[str, Any] = {
            "hop_s": self.hop_s,
            "window_s": self.window_s,
            "pad": self.pad,
            "limits": self.limits,
        }
        for part in predict_parts(paths, self.model, **settings, n_workers=self._options["workers"]):
            if part.prediction is not None:
                self._note(part.prediction)
            yield shown, part
            if part.is_last:
                if self._progress:
                    self._progress.finish_file(shown, part.error, part.warnings)
                shown = printable(next(names, self._inputs[-1]).shown)

    def _note(self, prediction: Prediction) -> None:
        if self._progress:
            self._progress.advance(prediction.duration_s)
        if self.kept is not None:
            self.kept.append(prediction)

    def write(self, rows: Iterable[Any], formats: Mapping[str, Callable[[Stream], Writer[Any]]]) -> int:
        """Write all rows where the options say; the number of files that failed."""
        target: str | None = self._options["output"]
        format_name = self._format(target, formats)
        is_folder = target is not None and (target.endswith("/") or Path(target).is_dir())
        if is_folder and format_name not in PER_RECORDING:
            raise UsageError(
                f"--output {target} is a folder, and {format_name} is one file for all recordings. "
                f"Next step: name a file, such as {Path(str(target)) / f'results.{format_name}'}"
            )
        if format_name in ONE_RECORDING and not is_folder and len(self._inputs) > 1:
            raise UsageError(
                f"{ONE_RECORDING[format_name]} to one recording, and the inputs are {len(self._inputs)}. "
                "Next step: --output FOLDER/, for one file each"
            )
        _ = self.model  # what is wrong with it is said before any output is opened
        shows_errors = format_name != "table" or target is not None
        progress = Progress(len(self._inputs), is_quiet=self._options["quiet"], shows_errors=shows_errors)
        self._progress = progress
        with progress:
            if is_folder:
                base = os.path.commonpath([Path(item.path).resolve().parent for item in self._inputs])
                _write_folder(rows, formats[format_name], Path(str(target)), base, PER_RECORDING[format_name])
            else:
                with open_output(target) as stream, closing(make_writer(format_name, stream, formats)) as writer:
                    for row in rows:
                        writer.write(row)
        return progress.n_failed

    def _format(self, target: str | None, formats: Iterable[str]) -> str:
        chosen: str | None = self._options["format_name"]
        chosen = chosen or SUFFIXES.get(Path(target or "").suffix.lower(), next(iter(formats)))
        if chosen not in formats:
            known = ", ".join(formats)
            raise UsageError(f"--output {target} means {chosen}, which this command does not write; expected {known}")
        return chosen


def _write_folder(
    rows: Iterable[Any], make: Callable[[Stream], Writer[Any]], folder: Path, base: str, suffix: str
) -> None:
    """One file for each recording, placed in ``folder`` as the recording is in ``base``."""
    with ExitStack() as stack:
        current, writer = None, None
        for row in rows:
            if row.path != current:
                stack.close()
                path = folder / os.path.relpath(Path(row.path).resolve(), base)
                with explain_os_errors(str(path.parent)):
                    path.parent.mkdir(parents=True, exist_ok=True)
                stream = stack.enter_context(open_output(path.with_name(f"{path.name}{suffix}")))
                writer = stack.enter_context(closing(make(stream)))
                current = row.path
            if writer:
                writer.write(row)
