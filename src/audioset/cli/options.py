"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from audioset.limits import LIMITS, Limits

Command = TypeVar("Command", bound=Callable[..., Any])

model_option = click.option(
    "--model", metavar="NAME", default="yamnet", show_default=True, help="Name, or a model folder."
)
weights_option = click.option(
    "--weights", metavar="FILE", type=click.Path(path_type=Path), help="A checkpoint of your own."
)

MODEL_OPTIONS = (
    model_option,
    weights_option,
    click.option("--engine", type=click.Choice(["openvino", "onnxruntime"]), default="openvino", show_default=True),
    click.option(
        "--precision",
        type=click.Choice(["f32", "bf16"]),
        default="f32",
        show_default=True,
        help="bf16 is faster and moves scores by up to 0.06.",
    ),
    click.option("--threads", metavar="N", type=click.IntRange(1), help="Cores for the network. Default: all."),
)

RUN_OPTIONS = (
    click.option("--hop", "hop_s", metavar="S", type=float, help="Seconds between patches. Default: the model's own."),
    click.option(
        "--pad",
        type=click.Choice(["cover", "error", "zero", "repeat"]),
        help="What happens to audio that does not fill a patch. Default: the model's own.",
    ),
    click.option("--workers", metavar="N", type=click.IntRange(1), help="Decoding processes. Default: one a core."),
    click.option("--output", "-o", metavar="PATH", help="File to write, or a folder. Default: standard output."),
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


def model_options(command: Command) -> Command:
    """``--model``, ``--weights``, ``--engine``, ``--precision``, ``--threads``."""
    return _apply(MODEL_OPTIONS, command)


def run_options(command: Command) -> Command:
    """``--hop``, ``--pad``, ``--workers``, ``--output``, ``--quiet`` and one option for each limit."""
    return _apply(RUN_OPTIONS, command)


def format_option(formats: Mapping[str, Any]) -> Callable[[Command], Command]:
    """``--format``: one of the keys, the first of which is the default."""
    choices = tuple(formats)
    text = f"Default: by the suffix of --output, or {choices[0]}."
    return click.option("--format", "format_name", type=click.Choice(choices), help=text)


def take_limits(options: dict[str, Any]) -> Limits:
    """Remove the limits from a command's options and return them as one value."""
    return Limits(**{limit.name: options.pop(limit.name) for limit in fields(Limits)})


def _apply(options: tuple[Callable[[Command], Command], ...], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command
