"""What arrives as an argument of a public function, checked: what has another type or is out of bounds is refused."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Iterable
from typing import Any, TypeVar

from audioset.errors import UsageError

Item = TypeVar("Item")


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """A whole number of at least ``minimum``."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < minimum:
        raise UsageError(f"{name} is {shown(value)}; expected a whole number, {minimum} or more")
    return operator.index(value)


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, unit: str = "") -> float:
    """A finite number from ``low`` to ``high``; text is none."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        bounds = {
            (True, True): f" from {low:,g} to {high:,g}",
            (True, False): f", {low:,g} or more",
            (False, True): f", {high:,g} or less",
            (False, False): "",
        }[math.isfinite(low), math.isfinite(high)]
        unit = f" {unit}" if unit else ""
        raise UsageError(f"{name} is {shown(value)}{unit}; expected a number{bounds}{unit}")
    return float(value)


def check_path(name: str, value: Any) -> str:
    """A path as text."""
    if not isinstance(value, (str, os.PathLike)):
        raise UsageError(f"{name} is {shown(value)}; expected a path or name, as str or pathlib.Path")
    path = os.fspath(value)
    return path if isinstance(path, str) else os.fsdecode(path)


def check_many(name: str, values: Iterable[Item]) -> Iterable[Item]:
    """Several of something: a single text or path, whose letters or parts are no items, is refused."""
    if isinstance(values, (str, bytes, os.PathLike)) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is {shown(values)}; expected several. Next step: put it into a list")
    return values


def shown(value: Any, n_max: int = 60) -> str:
    """A value as a message names it: its representation where that is short, and its type where it says more."""
    text = repr(value)
    if len(text) > n_max:
        return f"a {type(value).__name__}"
    return text if isinstance(value, (str, bytes, int, float, type(None))) else f"{text} ({type(value).__name__})"
