"""Where labelled sounds are, and what they are told apart by: for every command that learns from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from audioset.cli.echo import echo
from audioset.export.formats import FORMATS

if TYPE_CHECKING:
    from audioset.sounds.collection import Collection

Command = TypeVar("Command", bound=Callable[..., Any])

NAMES = ("audio", "group", "split", "background", "classes")
SOUND_OPTIONS = (
    click.argument("data", metavar="DATA", type=click.Path(path_type=Path)),
    click.option(
        "--audio",
        metavar="FOLDER",
        type=click.Path(path_type=Path),
        help="Where the paths in DATA begin. Default: beside DATA.",
    ),
    click.option(
        "--group",
        metavar="COLUMN|PATTERN",
        help="What clips share, such as the speaker or the site: a column of DATA, or a regular expression with one "
        "group in parentheses, on the names of the files.",
    ),
    click.option(
        "--split", metavar="COLUMN|PATTERN", help="Which clips are to be learned and tested: train and test, likewise."
    ),
    click.option(
        "--background",
        metavar="NAME",
        help="The folder, or label, of sounds that are none of the classes. Default: background, if there is one.",
    ),
    click.option(
        "--classes", metavar="CLASS", multiple=True, help="Only this class. May be repeated; the order is the model's."
    ),
)


def with_exports(command: Command) -> Command:
    """``--export``."""
    return click.option(
        "--export",
        "formats",
        metavar="FORMAT",
        type=click.Choice(list(FORMATS)),
        multiple=True,
        help=f"Also write the model as {', '.join(FORMATS)}, checked, in exports/. May be repeated.",
    )(command)


def export_given(folder: Path, formats: Sequence[str], *, is_quiet: bool) -> None:
    """Export a model that was just written in the formats that ``--export`` named."""
    from audioset.export import export_model
    from audioset.files import explain_os_errors
    from audioset.train.results import EXPORTS

    if not formats:
        return
    exports = folder / EXPORTS
    with explain_os_errors(exports):
        exports.mkdir(exist_ok=True)
    for name in formats:
        result = export_model(folder, exports, to=name)
        if not is_quiet:
            difference = f"within {result.parity.scores:.1e} of its scores" if result.parity.scores is not None else ""
            echo(f"audioset: {f'{result.path}: {difference}'}", err=True)


def with_sounds(command: Command) -> Command:
    """``DATA``, ``--audio``, ``--group``, ``--split``, ``--background``, ``--classes``."""
    for option in reversed(SOUND_OPTIONS):
        command = option(command)
    return command


def read_given(data: Path, options: dict[str, Any]) -> Collection:
    """Remove the options of ``with_sounds`` from a command's options, and read the collection that they mean.

    What was passed over is said on standard error.
    """
    from audioset.sounds.reading import read_collection

    given = {name: options.pop(name) for name in NAMES}
    collection = read_collection(data, **{**given, "classes": given["classes"] or None})
    for note in collection.notes:
        echo(f"audioset: {note}", err=True)
    return collection
