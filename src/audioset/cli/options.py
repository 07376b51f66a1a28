"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from audioset.limits import LIMITS, Limits

Command = TypeVar("Command", bound=Callable[..., Any])

ENGINES = ("openvino", "onnxruntime")
PRECISIONS = ("f32", "bf16")


def format_option(formats: Mapping[str, Any]) -> Callable[[Command], Command]:
    """``--format``: one of the keys, the first of which is the default."""
    choices = tuple(formats)
    text = f"Default: by the suffix of --output, or {choices[0]}."
    return click.option("--format", "format_name", type=click.Choice(choices), help=text)


def model_options(command: Command) -> Command:
    """``--model``, ``--weights``, ``--engine``, ``--precision``, ``--threads``."""
    for option in reversed(
        (
            click.option("--model", default="yamnet", show_default=True, help="Name, or a model folder."),
            click.option("--weights", type=click.Path(path_type=Path), help="A checkpoint of your own."),
            click.option("--engine", type=click.Choice(ENGINES), default="openvino", show_default=True),
            click.option(
                "--precision", type=click.Choice(PRECISIONS), default="f32", show_default=True, help="bf16 is faster."
            ),
            click.option("--threads", type=click.IntRange(1), help="Cores for the network. Default: all."),
        )
    ):
        command = option(command)
    return command


def run_options(command: Command) -> Command:
    """``--hop``, ``--workers``, ``--output``, ``--quiet`` and one option for each limit."""
    limits = [
        click.option(
            f"--{field.name.replace('_', '-')}",
            type=type(getattr(LIMITS, field.name)),
            default=getattr(LIMITS, field.name),
            show_default=True,
            help="Limit for one file.",
        )
        for field in fields(Limits)
    ]
    for option in reversed(
        (
            click.option("--hop", "hop_s", type=float, help="Seconds between patches. Default: the model's own."),
            click.option("--workers", type=click.IntRange(1), help="Decoding processes. Default: one a core."),
            click.option("--output", "-o", help="File to write, or a folder for one file each. Default: stdout."),
            click.option("--quiet", "-q", is_flag=True, help="No progress and no summary on stderr."),
            *limits,
        )
    ):
        command = option(command)
    return command


def take_limits(options: dict[str, Any]) -> Limits:
    """Remove the limits from a command's options and return them as one value."""
    return Limits(**{field.name: options.pop(field.name) for field in fields(Limits)})
