"""What ``tag`` and ``embed`` have in common: load the model, run the files, write the rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from audioset.batch import Part, predict_parts
from audioset.cli.inputs import Input
from audioset.cli.progress import Progress
from audioset.errors import UsageError
from audioset.formats import SUFFIXES, make_writer
from audioset.formats.output import open_output
from audioset.formats.rows import Row, Tag, printable
from audioset.limits import Limits
from audioset.predict import Model, load_model

PER_RECORDING = ("audacity", "raven")  # formats that can be one file for each recording, in a folder


class Run:
    """One run of a command over its inputs.

    Parameters
    ----------
    inputs : sequence of Input
    limits : Limits
    options : dict
        The command's options: model, weights, engine, precision, threads, hop_s, workers, output,
        format_name, quiet.
    """

    def __init__(self, inputs: Sequence[Input], limits: Limits, options: dict[str, Any]) -> None:
        self.limits = limits
        self.hop_s: float | None = options["hop_s"]
        self._inputs = inputs
        self._options = options
        self._progress: Progress | None = None

    @cached_property
    def model(self) -> Model:
        """The model, loaded when it is first needed."""
        return load_model(
            self._options["model"],
            weights=self._options["weights"],
            precision=self._options["precision"],
            engine=self._options["engine"],
            n_threads=self._options["threads"],
        )

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Each part of each file's prediction, with the name to show for the file."""
        names = iter(self._inputs)
        shown = printable(next(names).shown)
        paths = [item.path for item in self._inputs]
        workers = self._options["workers"]
        for part in predict_parts(paths, self.model, hop_s=self.hop_s, limits=self.limits, n_workers=workers):
            if part.prediction is not None and self._progress:
                self._progress.advance(part.prediction.duration_s)
            yield shown, part
            if part.is_last:
                if self._progress:
                    self._progress.finish_file(shown, part.error, part.warnings)
                shown = printable(next(names, self._inputs[-1]).shown)

    def row(
        self, shown: str, start_s: float, end_s: float, tags: tuple[Tag, ...], duration_s: float | None, part: Part
    ) -> Row:
        """The row for a stretch of a file, or for its error."""
        row = Row(shown, start_s, end_s, tags, duration_s, self._options["model"], part.warnings)
        if part.error is None:
            return row
        return replace(row, start_s=0.0, end_s=0.0, duration_s=None, error_code=part.error.code, error=str(part.error))

    def write(self, rows: Iterable[Any], formats: Sequence[str]) -> int:
        """Write all rows where the options say; the number of files that failed."""
        target: str | None = self._options["output"]
        format_name = self._format(target, formats)
        is_folder = target is not None and (target.endswith("/") or Path(target).is_dir())
        if is_folder and format_name not in PER_RECORDING:
            raise UsageError(
                f"--output {target} is a folder; only {' and '.join(PER_RECORDING)} write one file for each "
                f"recording, and the format is {format_name}. Next step: name a file"
            )
        progress = Progress(
            len(self._inputs),
            is_quiet=self._options["quiet"],
            shows_errors=format_name != "table" or target is not None,
        )
        self._progress = progress
        with progress:
            if is_folder:
                base = os.path.commonpath([Path(item.path).resolve().parent for item in self._inputs])
                _write_folder(rows, format_name, Path(str(target)), base)
            else:
                with open_output(target) as stream, _closing(make_writer(format_name, stream)) as writer:
                    for row in rows:
                        writer.write(row)
        return progress.n_failed

    def _format(self, target: str | None, formats: Sequence[str]) -> str:
        chosen: str | None = self._options["format_name"]
        chosen = chosen or SUFFIXES.get(Path(target or "").suffix.lower(), formats[0])
        if chosen not in formats:
            raise UsageError(
                f"--output {target} means {chosen}, which this command does not write: {', '.join(formats)}"
            )
        return chosen


def _write_folder(rows: Iterable[Row], format_name: str, folder: Path, base: str) -> None:
    """One file for each recording, placed in ``folder`` as the recording is in ``base``."""
    with ExitStack() as stack:
        current, writer = None, None
        for row in rows:
            if row.path != current:
                stack.close()
                path = folder / os.path.relpath(Path(row.path).resolve(), base)
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = stack.enter_context(open_output(path.with_name(f"{path.name}.txt")))
                writer = stack.enter_context(_closing(make_writer(format_name, stream)))
                current = row.path
            if writer:
                writer.write(row)


class _closing:  # noqa: N801 - a context manager in the style of contextlib's
    """Close a writer at the end, also after an error, so that what is written is complete in itself."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __enter__(self) -> Any:
        return self._writer

    def __exit__(self, *error: object) -> None:
        self._writer.close()
