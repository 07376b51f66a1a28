"""What ``tag``, ``events`` and ``embed`` have in common: load the model, run the files, write the rows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

from audioset.audio.limits import Limits
from audioset.cli.inputs import Input
from audioset.cli.options import RunOptions, files_read
from audioset.cli.progress import Progress
from audioset.errors import OutputError, UsageError
from audioset.files import is_folder
from audioset.formats import Recogniser, Stream, Writer, check_output, choose_format, open_output, printable
from audioset.models.model import Model
from audioset.models.prediction import Prediction
from audioset.runs.batch import Part, predict_parts

# Formats that can be one file for each recording, in a folder, and how these files end.
PER_RECORDING = {"audacity": ".txt", "raven": ".txt", "textgrid": ".TextGrid", "webvtt": ".vtt"}
STDIN_NAME = "stdin"
ONE_RECORDING = {"audacity": "Audacity labels belong", "textgrid": "a TextGrid belongs", "webvtt": "captions belong"}


class Run:
    """One run of a command over its inputs.

    ``formats`` are the writers by format, and ``own`` is for each what tells its files from others. ``UsageError`` if
    the output cannot be, is an input, or is there and not one of this command.
    """

    def __init__(
        self,
        inputs: Sequence[Input],
        options: RunOptions,
        limits: Limits,
        format_name: str | None,
        formats: Mapping[str, Callable[[Stream], Writer[Any]]],
        own: Mapping[str, Recogniser],
    ) -> None:
        self.kept: list[Prediction] | None = None  # a list, if the predictions are wanted after the run
        self._inputs, self._options, self._limits = inputs, options, limits
        self._progress: Progress | None = None
        self._target = target = options.output
        self._is_folder = target is not None and (target.endswith("/") or is_folder(target))
        read = files_read(*(item.path for item in inputs))
        check_output(target, read, None)
        self._format = choose_format(None if self._is_folder else target, format_name, formats)
        self._make = formats[self._format]
        self._files: dict[str, Path] | None = None  # one for each recording
        if self._is_folder and self._format in PER_RECORDING:
            self._files = _files_of(inputs, Path(str(target)), PER_RECORDING[self._format])
        self._check()
        for file in [target] if self._files is None else self._files.values():
            check_output(file, read, own[self._format], overwrites=options.overwrite)

    @cached_property
    def model(self) -> Model:
        """The model, loaded when it is first needed."""
        return self._options.load()

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Each part of each file's prediction, with the name to show for the file."""
        names = iter(self._inputs)
        shown = printable(next(names).shown)
        paths = [item.path for item in self._inputs]
        options = self._options
        for part in predict_parts(paths, self.model, **options.patches, limits=self._limits, n_workers=options.workers):
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

    def write(self, rows: Iterable[Any]) -> int:
        """Write all rows where the options say; the number of files that failed."""
        shows_errors = self._format != "table" or self._target is not None
        progress = Progress(len(self._inputs), is_quiet=self._options.quiet, shows_errors=shows_errors)
        self._progress = progress
        with progress:
            if self._files is not None:
                _write_files(rows, self._make, self._files, progress)
            else:
                with open_output(self._target) as stream, closing(self._make(stream)) as writer:
                    for row in rows:
                        writer.write(row)
        return progress.n_failed

    def _check(self) -> None:
        """Refuse an output that cannot be."""
        if self._files is None and self._is_folder:
            raise UsageError(
                f"--output {self._target} is a folder, and {self._format} is one file for all recordings. "
                f"Next step: name a file, such as {Path(str(self._target)) / f'results.{self._format}'}"
            )
        if self._files is None and self._format in ONE_RECORDING and len(self._inputs) > 1:
            raise UsageError(
                f"{ONE_RECORDING[self._format]} to one recording, and the inputs are {len(self._inputs)}. "
                "Next step: --output FOLDER/, for one file each"
            )


def _files_of(inputs: Sequence[Input], folder: Path, suffix: str) -> dict[str, Path]:
    """A file for each recording, by the name it is shown under, placed in ``folder`` as the recordings are."""
    paths = {item: Path(item.path).resolve() for item in inputs if item.path == item.shown}
    base = os.path.commonpath([path.parent for path in paths.values()]) if paths else ""
    names = {item: os.path.relpath(paths[item], base) if item in paths else STDIN_NAME for item in inputs}
    return {printable(item.shown): folder / f"{name}{suffix}" for item, name in names.items()}


def _write_files(
    rows: Iterable[Any], make: Callable[[Stream], Writer[Any]], files: Mapping[str, Path], progress: Progress
) -> None:
    """One file for each recording. One whose name is too long for the disk fails alone."""
    with ExitStack() as stack:
        current, writer = None, None
        for row in rows:
            if row.path != current:
                stack.close()
                current, writer = row.path, None
                try:
                    stream = stack.enter_context(open_output(files[row.path]))
                    writer = stack.enter_context(closing(make(stream)))
                except OutputError as error:
                    if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                        raise
                    progress.refuse(error)
            if writer:
                writer.write(row)
