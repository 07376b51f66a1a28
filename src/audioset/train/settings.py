"""Frozen tables of settings: defined once, checked at once, and written and read as TOML."""

from __future__ import annotations

import difflib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from audioset.errors import NoInputError, UsageError
from audioset.records import read_bounded

tomllib: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

MAX_BYTES = 1 << 14  # tomllib takes memory with the square of the length of a.a.a = 1
KINDS = {"str": str, "int": int, "float": float, "bool": bool, "dict[str, Any]": dict}


def define(default: Any, help: str, **bounds: Any) -> Any:
    """A field with what the flag says about it, and what it may be: choices, at_least, above, at_most, below.

    A default of None is derived from the settings before it, by ``derive``.
    """
    return field(default=default, metadata={"help": help, **bounds})


@dataclass(frozen=True)
class Settings:
    """What the tables of settings have in common.

    UsageError for a value of another type, outside its range, or at odds with another one.
    """

    def __post_init__(self) -> None:
        for setting in fields(self):
            if getattr(self, setting.name) is None and "derive" in setting.metadata:
                object.__setattr__(self, setting.name, setting.metadata["derive"](self))
            _check(setting.name, getattr(self, setting.name), str(setting.type), setting.metadata)
            if setting.type == "float":  # so that 1 and 1.0 are the same run
                object.__setattr__(self, setting.name, float(getattr(self, setting.name)))
        self.check_together()

    def check_together(self) -> None:
        """Refuse values that are at odds with each other."""

    @classmethod
    def recipe(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What settings are where none was given, if that is not the default."""
        return {}

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, in order."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}

    def to_toml(self) -> str:
        """A file that the same settings can be read from."""
        return "".join(f"{name} = {_toml(value)}\n" for name, value in self.as_dict().items())


Table = TypeVar("Table", bound=Settings)


def read_settings(kind: type[Table], path: str | os.PathLike[str] | None, flags: Mapping[str, Any]) -> Table:
    """Settings of a file, and of flags that overrule it; tables of arguments are merged."""
    values = {} if path is None else read_toml(Path(path))
    place = "" if path is None else f"{os.fspath(path)}: "
    _check_names(kind, values, place)
    _check_names(kind, flags)
    given = {**values, **flags}
    tables = [setting.name for setting in fields(kind) if setting.type == "dict[str, Any]"]
    merged = {name: {**values.get(name, {}), **flags.get(name, {})} for name in tables}
    try:
        return kind(**{**kind.recipe(given), **given, **merged})
    except UsageError as error:
        raise UsageError(f"{place}{error}") from error


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What two runs do differently, as ``name: their value, now our value``."""
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        f"{name}: {theirs.get(name)!r}, now {ours.get(name)!r}" for name in names if ours.get(name) != theirs.get(name)
    ]


def parse_argument(text: str) -> tuple[str, Any]:
    """``name=value`` with a TOML value; what is no such value is a string."""
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise UsageError(f"{text!r} is no argument; expected NAME=VALUE, such as n_hidden=512")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # of which numbers of too many digits
        return name, value


def read_toml(path: Path) -> dict[str, Any]:
    """What a file of settings says."""
    try:
        values: dict[str, Any] = tomllib.loads(read_bounded(path, UsageError, MAX_BYTES).decode())
        return values
    except OSError as error:
        raise NoInputError(f"cannot read the settings {path}: {error.strerror}. Next step: check the path") from error
    except UsageError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _check_names(kind: type[Settings], values: Mapping[str, Any], place: str = "") -> None:
    """Refuse names that are no settings of a table, with the setting whose name is nearest."""
    names = [setting.name for setting in fields(kind)]
    for name in values:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1, 0.5)
            hint = f"Likely meant: {nearest[0]}" if nearest else f"Expected one of {', '.join(names)}"
            raise UsageError(f"{place}there is no setting {name!r}. {hint}")


def _check(name: str, value: Any, kind: str, bounds: Mapping[str, Any]) -> None:
    expected: Any = (int, float) if kind == "float" else KINDS[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise UsageError(f"{name} is {value!r}; expected a value of type {kind.split('[')[0]}")
    if "choices" in bounds and value not in bounds["choices"]:
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(bounds['choices'])}")
    if kind == "float" and not math.isfinite(value):
        raise UsageError(f"{name} is {value!r}; expected a finite number")
    holds = {
        "at_least": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "at_most": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
    }
    for relation in holds.keys() & bounds.keys():
        if not holds[relation](bounds[relation]):
            raise UsageError(f"{name} is {value!r}; expected a number {relation.replace('_', ' ')} {bounds[relation]}")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (bool, str)):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return repr(value)
