"""How a run goes, on standard error: a bar where a person watches, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from audioset.cli.echo import echo
from audioset.errors import one_line
from audioset.formats.rows import printable

if TYPE_CHECKING:
    from audioset.runs.batch import Part

LINE_EVERY_S = 10.0


class Progress:
    """Counts files, seconds of audio and errors, and shows them; only errors if ``is_quiet``.

    ``shows_errors``: whether errors are written here, one line each (the table shows them itself).
    """

    def __init__(self, n_files: int, *, is_quiet: bool, shows_errors: bool) -> None:
        self.n_done = self.n_failed = 0
        self._n_files = n_files
        self._audio_s = self._file_audio_s = 0.0
        self._started_at = self._line_at = time.monotonic()
        self._is_quiet = is_quiet
        self._shows_errors = shows_errors
        self._refusal: Exception | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self.begin(self._n_files)
        return self

    def begin(self, n_files: int) -> None:
        """Begin with so many files, where their number is known only now."""
        self._n_files = n_files
        self._started_at = self._line_at = time.monotonic()
        if not self._is_quiet and n_files > 1 and sys.stderr.isatty():
            self._bar, self._task = _make_bar(n_files)
            self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        if not self._is_quiet and (self._n_files > 1 or self.n_failed):
            echo(f"audioset: {'stopped: ' if error else ''}{self._summary()}", err=True)

    def advance(self, audio_s: float) -> None:
        """Note how far into the current file the run has come."""
        self._file_audio_s = audio_s
        self._show()

    def watch(self, part: Part) -> None:
        """Note a part of a file's prediction."""
        if part.prediction is not None:
            self.advance(part.prediction.duration_s)
        if part.is_last:
            self.finish_file(printable(part.path), part.error, part.warnings)

    def refuse(self, error: Exception) -> None:
        """Note that the results of the current file cannot be written."""
        self._refusal = error

    def finish_file(self, shown: str, error: Exception | None, warnings: tuple[str, ...]) -> None:
        """Note that a file is done, or what was wrong with it."""
        error, self._refusal = error or self._refusal, None
        self._audio_s += self._file_audio_s
        self._file_audio_s = 0.0
        if error is None:
            self.n_done += 1
        else:
            self.n_failed += 1
        if error is not None and self._shows_errors:
            self._say(f"error: {shown}: {error} [{getattr(error, 'code', 'error')}]")
        for warning in warnings:
            self._say(f"warning: {shown}: {warning}")
        self._show()

    def _say(self, line: str) -> None:
        text = one_line(line)
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            echo(f"audioset: {text}", err=True)

    def _show(self) -> None:
        if self._bar:
            self._bar.update(self._task, completed=self.n_done + self.n_failed, rate=self._rates())
        elif not self._is_quiet and time.monotonic() - self._line_at > LINE_EVERY_S:
            self._line_at = time.monotonic()
            echo(f"audioset: {self._summary()}", err=True)

    def _rates(self) -> str:
        elapsed_s = max(1e-6, time.monotonic() - self._started_at)
        files_per_s = (self.n_done + self.n_failed) / elapsed_s
        real_time = (self._audio_s + self._file_audio_s) / elapsed_s
        return f"{files_per_s:.1f} files/s · {real_time:,.0f} × real time · {self.n_failed} failed"

    def _summary(self) -> str:
        n_left = self._n_files - self.n_done - self.n_failed
        elapsed_s = time.monotonic() - self._started_at
        left = f" · {n_left:,} left" if n_left else ""
        return f"{self.n_done:,} done{left} · {elapsed_s:.1f} s · {self._rates()}"


def _make_bar(n_files: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
    return bar, bar.add_task("", total=n_files, rate="")
