"""What arrives as an argument of a public function, checked: what has another type or is out of bounds is refused."""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

from audioset.errors import UsageError

Item = TypeVar("Item")

HUGE = 1e300  # whole numbers of Python may be larger than any float


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < minimum:
        raise UsageError(f"{name} is {value_text(value)}; expected a whole number, {minimum} or more")
    return operator.index(value)


def check_number(name: str, value: Any, low: float, high: float, unit: str = "") -> float:
    """A number from ``low`` to ``high``; text is none."""
    if not is_number(value) or not low <= value <= high:
        unit = f" {unit}" if unit else ""
        given = f"{value:g}{unit}" if is_number(value) and abs(value) < HUGE else value_text(value)
        raise UsageError(f"{name} is {given}; expected a number from {low:,.12g} to {high:,.12g}{unit}")
    return float(value)


def is_number(value: Any) -> bool:
    """Whether it is a real number, as text and truth values are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_path(name: str, value: Any) -> str:
    """A path as text."""
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"{name} is {value_text(value)}; expected a path or name, as str or pathlib.Path")
    path = os.fspath(value)
    return path if isinstance(path, str) else os.fsdecode(path)


def check_many(name: str, values: Iterable[Item]) -> Iterable[Item]:
    """Several of something: a single text or path, whose letters or parts are no items, is refused."""
    try:
        is_many = not isinstance(values, (str, bytes, os.PathLike)) and iter(values) is not None
    except TypeError:
        is_many = False
    if not is_many:
        raise UsageError(f"{name} is {value_text(values)}; expected several. Next step: put it into a list")
    return values


def check_type(name: str, value: Any, kind: type) -> None:
    """An object of a class."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {value_text(value)}; expected {kind.__name__}")


def check_choice(name: str, value: Any, choices: Iterable[object]) -> None:
    """One of some values, of which none is an array or a list."""
    known = tuple(choices)
    if not isinstance(value, Hashable) or value not in known:
        raise UsageError(f"{name} is {value_text(value)}; expected one of {', '.join(map(str, known))}")


def value_text(value: Any, n_max: int = 60) -> str:
    """A value as a message names it: its representation where that is short, and its type where it says more."""
    text = repr(value)
    if len(text) > n_max:
        return f"a {type(value).__name__}"
    says_type = isinstance(value, (str, bytes, int, float, type(None))) or type(value).__name__ in text
    return text if says_type else f"{text} ({type(value).__name__})"
