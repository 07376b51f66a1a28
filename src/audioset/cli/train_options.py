"""A flag for each setting of a training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import click

from audioset.train.config import TrainConfig, parse_argument

Command = TypeVar("Command", bound=Callable[..., Any])

TYPES = {"str": str, "int": int, "float": float}
ARGUMENTS = "head_arguments"


def with_settings(command: Command) -> Command:
    """Give a command one flag for each setting."""
    for setting in reversed(fields(TrainConfig)):
        command = click.option(*_names(setting), **_flag(setting))(command)
    return command


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that flags were given for."""
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    if ARGUMENTS in given:
        given[ARGUMENTS] = dict(map(parse_argument, given[ARGUMENTS]))
    return given


def _names(setting: Any) -> tuple[str, ...]:
    if setting.name == ARGUMENTS:
        return ("--argument", ARGUMENTS)
    dashed = setting.name.replace("_", "-")
    return (f"--{dashed}/--no-{dashed}" if setting.type == "bool" else f"--{dashed}", setting.name)


def _flag(setting: Any) -> dict[str, Any]:
    """What click needs to know of a setting."""
    text = setting.metadata["help"]
    if setting.name == ARGUMENTS:
        return {"metavar": "NAME=VALUE", "multiple": True, "help": f"{text} May be repeated."}
    if setting.type == "bool":
        return {"default": None, "help": text}
    shown = f"  [default: {setting.default}]" if setting.default not in ("", MISSING) else ""
    kind = click.Choice(setting.metadata["choices"]) if "choices" in setting.metadata else TYPES[setting.type]
    return {"type": kind, "default": None, "help": f"{text}{shown}"}
