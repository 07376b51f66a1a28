"""A flag for each setting of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import click

from audioset.train.settings import Settings, parse_argument

Command = TypeVar("Command", bound=Callable[..., Any])

TYPES = {"str": str, "int": int, "float": float}
ARGUMENTS = ("head_arguments", "backbone_arguments")  # settings that are arguments of a network


def with_settings(kind: type[Settings]) -> Callable[[Command], Command]:
    """Give a command one flag for each setting of a table."""

    def add(command: Command) -> Command:
        for setting in reversed(fields(kind)):
            command = click.option(*_names(setting), **_flag(setting))(command)
        return command

    return add


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that flags were given for."""
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    return {name: dict(map(parse_argument, value)) if name in ARGUMENTS else value for name, value in given.items()}


def _names(setting: Any) -> tuple[str, ...]:
    if setting.name in ARGUMENTS:
        return ("--argument", setting.name)
    dashed = setting.name.replace("_", "-")
    return (f"--{dashed}/--no-{dashed}" if setting.type == "bool" else f"--{dashed}", setting.name)


def _flag(setting: Any) -> dict[str, Any]:
    """What click needs to know of a setting."""
    text = setting.metadata["help"]
    if setting.name in ARGUMENTS:
        return {"metavar": "NAME=VALUE", "multiple": True, "help": f"{text} May be repeated."}
    if setting.type == "bool":
        return {"default": None, "help": text}
    shown = f"  [default: {setting.default}]" if setting.default not in ("", None, MISSING) else ""
    kind = click.Choice(setting.metadata["choices"]) if "choices" in setting.metadata else TYPES[setting.type]
    return {"type": kind, "default": None, "help": f"{text}{shown}"}
