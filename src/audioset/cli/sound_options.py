"""Where labelled sounds are, and what they are told apart by: for every command that learns from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audioset.cli.echo import echo
from audioset.cli.options import json_flag, option
from audioset.export.formats import FORMATS

if TYPE_CHECKING:
    from audioset.export import ExportResult
    from audioset.sounds.collection import Collection


@dataclass(frozen=True)
class SoundOptions:
    """What is to be known of labelled sounds."""

    audio: Path | None = option("Where the paths in DATA begin. Default: beside DATA.", "FOLDER")
    group: str | None = option(
        "What clips share, such as the speaker or the site: a column of DATA, or a regular expression with one group "
        "in parentheses, on the names of the files.",
        "COLUMN|PATTERN",
    )
    split: str | None = option("Which clips are to be learned and tested: train and test, likewise.", "COLUMN|PATTERN")
    background: str | None = option(
        "The folder, or label, of sounds that are none of the classes. Default: background, if there is one.", "NAME"
    )
    classes: tuple[str, ...] = option("Only this class. May be repeated; the order is the model's.", "CLASS")

    def read(self, data: Path) -> Collection:
        """Read a collection; what was passed over is said on standard error."""
        from audioset.sounds.reading import read_collection

        collection = read_collection(data, **{**vars(self), "classes": self.classes or None})
        for note in collection.notes:
            echo(f"audioset: {note}", err=True)
        return collection


@dataclass(frozen=True)
class LearnedOptions:
    """What is made of a model that was learned, and what is said of it."""

    formats: tuple[str, ...] = option(
        f"Also write the model as {', '.join(FORMATS)}, checked, in exports/. May be repeated.",
        "FORMAT",
        "--export",
        choices=FORMATS,
    )
    as_json: bool = json_flag("What results.json says, as JSON.")
    quiet: bool = option("No progress.", flags="--quiet -q")

    def finish(self, folder: Path, record: Any, lines: Iterable[str]) -> None:
        """Export the model that was just written, and print what was measured."""
        for result in self._exports(folder):
            difference = f"within {result.parity.scores:.1e} of its scores" if result.parity.scores is not None else ""
            if not self.quiet:
                echo(f"audioset: {result.path}: {difference}", err=True)
        echo(json.dumps(record, indent=1, allow_nan=False) if self.as_json else "\n".join(lines))

    def _exports(self, folder: Path) -> Iterator[ExportResult]:
        from audioset.export import export_model
        from audioset.files import explain_os_errors
        from audioset.train.results import EXPORTS

        exports = folder / EXPORTS
        if self.formats:
            with explain_os_errors(exports):
                exports.mkdir(exist_ok=True)
        for name in self.formats:
            yield export_model(folder, exports, to=name)
