"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from audioset.audio.limits import LIMITS, Limits

if TYPE_CHECKING:
    from audioset.models.model import Model

Command = TypeVar("Command", bound=Callable[..., Any])

model_option = click.option(
    "--model", metavar="NAME", default="yamnet", show_default=True, help="Name, or a model folder."
)
weights_option = click.option(
    "--weights", metavar="FILE", type=click.Path(path_type=Path), help="A checkpoint of your own."
)

overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace an output file that is there already, whatever wrote it."
)
# Options that name what a command reads, and never writes.
READ = ("weights", "thresholds", "pca", "labels", "scores", "ids", "exclude_ids", "quality", "ends", "features", "like")

MODEL_OPTIONS = (
    model_option,
    weights_option,
    click.option(
        "--engine", type=click.Choice(["openvino", "onnxruntime", "torch"]), default="openvino", show_default=True
    ),
    click.option(
        "--precision",
        type=click.Choice(["f32", "bf16"]),
        default="f32",
        show_default=True,
        help="bf16 is faster and moves scores by up to 0.06.",
    ),
    click.option("--threads", metavar="N", type=click.IntRange(1), help="Cores for the network. Default: all."),
)

DECODING_OPTIONS = (
    click.option("--hop", "hop_s", metavar="S", type=float, help="Seconds between patches. Default: the model's own."),
    click.option(
        "--window", "window_s", metavar="S", type=float, help="Seconds of a patch of a model of clips. Default: 10."
    ),
    click.option(
        "--pad",
        type=click.Choice(["cover", "error", "zero", "repeat"]),
        help="What happens to audio that does not fill a patch. Default: the model's own.",
    ),
    click.option("--workers", metavar="N", type=click.IntRange(1), help="Decoding processes. Default: one a core."),
    click.option("--quiet", "-q", is_flag=True, help="No progress and no summary."),
    *(
        click.option(
            f"--{limit.name.replace('_', '-')}",
            metavar="N",
            type=type(getattr(LIMITS, limit.name)),
            default=getattr(LIMITS, limit.name),
            show_default=True,
            help=limit.metadata["description"],
        )
        for limit in fields(Limits)
    ),
)
RUN_OPTIONS = (
    click.option("--output", "-o", metavar="PATH", help="File to write, or a folder. Default: standard output."),
    overwrite_option,
    *DECODING_OPTIONS,
)

CLASS_OPTIONS = (
    click.option(
        "--classes",
        metavar="CLASS",
        multiple=True,
        help="Only labels of this class of the ontology, by id or name: itself and what is below. May be repeated.",
    ),
    click.option("--roll-up", is_flag=True, help="Raise each label to the highest score of those below it."),
    click.option("--leaf-only", is_flag=True, help="Leave out labels where a more specific one is shown."),
)

EVENT_OPTIONS = (
    click.option(
        "--threshold",
        metavar="T",
        type=click.FloatRange(0, 1),
        help="An event begins where a label's score reaches this. Default: the model's own thresholds, or 0.5.",
    ),
    click.option(
        "--low-threshold",
        metavar="T",
        type=click.FloatRange(0, 1),
        help="It goes on while the score reaches this. Default: --threshold.",
    ),
    click.option(
        "--thresholds",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Labels with thresholds of their own: a CSV, TSV or JSON file.",
    ),
    click.option(
        "--median",
        "median_patches",
        metavar="N",
        type=click.IntRange(1),
        default=1,
        help="First smooth the scores over N patches, an odd number.",
    ),
    click.option(
        "--max-gap",
        "max_gap_s",
        metavar="S",
        type=click.FloatRange(0),
        default=0.0,
        help="Join events of a label with at most so many seconds between them.",
    ),
    click.option(
        "--min-duration",
        "min_duration_s",
        metavar="S",
        type=click.FloatRange(0),
        default=0.0,
        help="Leave out events that are shorter.",
    ),
)


def model_options(command: Command) -> Command:
    """``--model``, ``--weights``, ``--engine``, ``--precision``, ``--threads``."""
    return _apply(MODEL_OPTIONS, command)


def run_options(command: Command) -> Command:
    """``--output``, ``--overwrite``, ``--hop``, ``--pad``, ``--workers``, ``--quiet`` and one option for each limit."""
    return _apply(RUN_OPTIONS, command)


def decoding_options(command: Command) -> Command:
    """The same without ``--output``."""
    return _apply(DECODING_OPTIONS, command)


def class_options(command: Command) -> Command:
    """``--classes``, ``--roll-up``, ``--leaf-only``."""
    return _apply(CLASS_OPTIONS, command)


def event_options(command: Command) -> Command:
    """``--threshold``, ``--low-threshold``, ``--thresholds``, ``--median``, ``--max-gap``, ``--min-duration``."""
    return _apply(EVENT_OPTIONS, command)


def format_option(formats: Mapping[str, Any]) -> Callable[[Command], Command]:
    """``--format``: one of the keys, the first of which is the default."""
    choices = tuple(formats)
    text = f"Default: by the suffix of --output, or {choices[0]}."
    return click.option("--format", "format_name", type=click.Choice(choices), help=text)


def take_limits(options: dict[str, Any]) -> Limits:
    """Remove the limits from a command's options and return them as one value."""
    return Limits(**{limit.name: options.pop(limit.name) for limit in fields(Limits)})


def load_chosen_model(options: Mapping[str, Any]) -> Model:
    """The model that ``model_options`` ask for."""
    from audioset.models.loading import load_model

    return load_model(
        options["model"],
        weights=options["weights"],
        precision=options["precision"],
        engine=options["engine"],
        n_threads=options["threads"],
    )


def files_read(*inputs: str | os.PathLike[str]) -> set[tuple[int, int]]:
    """``file_ids`` of a command's inputs, and of all that its options name to be read: the model, lists, tables."""
    from audioset.formats.output import file_ids

    params = click.get_current_context().params
    named: list[str | os.PathLike[str]] = [*inputs, *model_files(params.get("model") or "")]
    for value in filter(None, map(params.get, READ)):
        named += [value] if isinstance(value, (str, Path)) else value
    return file_ids(named)


def model_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a model folder."""
    from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME

    return [Path(folder) / name for name in (CARD_NAME, WEIGHTS_NAME)] if os.fspath(folder) else []


def hold_folder(folder: Path) -> None:
    """Be the only run that fills an output folder, until the command ends.

    Raises
    ------
    UsageError
        It is a file.
    ConflictError
        Another run is filling it.
    """
    from audioset.files import locked_folder

    click.get_current_context().with_resource(locked_folder(folder))


def check_tagger(model: Model, name: str) -> None:
    """Refuse a model without labels, for a command that needs scores."""
    if not len(model.labels):
        raise click.UsageError(f"{name} only embeds: it has no scores. Next step: audioset embed")


def _apply(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
