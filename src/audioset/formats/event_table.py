"""What a person reads of events in a terminal."""

from __future__ import annotations

from pathlib import Path

from audioset.errors import one_line
from audioset.formats.output import Stream
from audioset.formats.rows import EventRow
from audioset.formats.table import STRETCH_WIDTH, Span, clock

LABEL_WIDTH = 40  # the longest of AudioSet's labels


class EventTableWriter:
    """One line for each event under its recording's name: onset, offset, label and highest score.

    Colour only in a terminal. Nothing in a file's name or an error's message can move the cursor or change a colour.
    """

    def __init__(self, stream: Stream) -> None:
        from rich.console import Console

        self._stream = stream
        self._encoding = getattr(stream, "encoding", "utf-8")
        self._console = Console(force_terminal=stream.isatty())
        self._path: str | None = None

    def write(self, row: EventRow) -> None:
        """Print the row's events; at the end of a recording without any, why it has none."""
        if row.path != self._path:
            self._print((one_line(Path(row.path).name or row.path), "bold"))
            self._path = row.path
        for event in row.events:
            stretch = f"{clock(event.start_s)}–{clock(event.end_s)}"
            self._print(
                (f"  {stretch:{STRETCH_WIDTH}}  ", "dim"),
                (f"{one_line(event.label):{LABEL_WIDTH}}  ", ""),
                (f"{event.score:.2f}", "bold" if event.score >= 0.5 else ""),
            )
        if row.error_code is not None:
            self._print(("  ", ""), (one_line(f"{row.error_code}: {row.error}"), "red"))
        elif row.is_last and row.n_events == 0:
            self._print(("  ", ""), ("no score reaches the threshold", "dim"))

    def close(self) -> None:
        """Nothing is left to write."""

    def _print(self, *spans: Span) -> None:
        from rich.text import Text

        with self._console.capture() as printed:
            self._console.print(Text.assemble(*spans), soft_wrap=True)
        self._stream.write(printed.get().encode(self._encoding, "replace"))
