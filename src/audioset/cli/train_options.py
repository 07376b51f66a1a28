"""A flag for each setting of a training."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, TypeVar, cast

import click

from audioset.cli.options import old_name
from audioset.train.settings import Settings, parse_argument

Command = TypeVar("Command", bound=Callable[..., Any])

TYPES = {"str": str, "int": int, "float": float}
ARGUMENTS = ("head_arguments", "backbone_arguments")  # settings that are arguments of a network
NAMES = {"backbone": "--model", "n_threads": "--threads"}  # of flags that are called as in other commands


def takes_settings(kind: type[Settings]) -> Callable[[Command], Command]:
    """Give a command one flag for each setting of a table, and those that were given as the mapping ``given``."""
    names = [setting.name for setting in fields(kind)]

    def add(command: Command) -> Command:
        @wraps(command)
        def call(**flags: Any) -> Any:
            given = {name: flags[name] for name in names if flags[name] is not None and flags[name] != ()}
            for name in ARGUMENTS:
                if name in given:
                    given[name] = dict(map(parse_argument, given[name]))
            return command(given=given, **{name: value for name, value in flags.items() if name not in names})

        for setting in reversed(fields(kind)):
            if setting.name in NAMES:
                old_name(f"--{setting.name.replace('_', '-')}", NAMES[setting.name], setting.name)(call)
            click.option(_flags(setting), setting.name, **_flag(setting))(call)
        return cast(Command, call)

    return add


def is_first_process() -> bool:
    """Whether this is the process that talks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _flags(setting: Any) -> str:
    if setting.name in ARGUMENTS:
        return "--argument"
    dashed = setting.name.replace("_", "-")
    return f"--{dashed}/--no-{dashed}" if setting.type == "bool" else NAMES.get(setting.name, f"--{dashed}")


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
