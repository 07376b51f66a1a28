"""Tables of thresholds, as people and ``audioset calibrate`` write them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from audioset.errors import DataError, UsageError
from audioset.labels.events import EventSettings, LabelThreshold
from audioset.text import has_bytes, lines_of, read_text, shown

OFF = "off"  # in place of a threshold


def read_thresholds(path: str | os.PathLike[str]) -> dict[str, LabelThreshold]:
    """Read a table of thresholds for ``EventSettings.label_thresholds``.

    Parameters
    ----------
    path : path
        UTF-8, or with the byte order mark of another Unicode. ``.json``: an object from label ids or names to a number,
        or to a list of a threshold and a low one, or to null. Any other name: id or name, threshold and, if wanted, low
        threshold on each line, or id or name and ``off``, between commas, tabs, or the semicolons of spreadsheets with
        a decimal comma. A first line with ``threshold`` in its second place is a heading.

    Returns
    -------
    dict
        From id or name to a threshold, or to the pair of it and the low one, or to None: the label is off.

    Raises
    ------
    UsageError
        If the file cannot be read, or has a line that is not as described, a label twice or a number outside
        [0, 1]; the message names the file and the label or line.
    """
    path = Path(path)
    try:
        text = read_text(path)
        pairs = list(_json_thresholds(text) if path.suffix.lower() == ".json" else _table_thresholds(text, path.suffix))
        thresholds: dict[str, LabelThreshold] = {}
        for label, value in pairs:
            if label in thresholds:
                raise UsageError(f"{label!r} is there twice; expected one threshold for each label")
            thresholds[label] = value
        EventSettings(label_thresholds=thresholds)  # checks the ranges
    except DataError as error:
        raise UsageError(f"thresholds {error}") from error
    except (ValueError, RecursionError, MemoryError, csv.Error) as error:
        raise UsageError(f"thresholds {path}: {error}") from error
    return thresholds


def _json_thresholds(text: str) -> Iterable[tuple[str, LabelThreshold]]:
    pairs = json.loads(text, object_pairs_hook=tuple)
    if not text.lstrip().startswith("{"):
        raise UsageError("this is no JSON object; expected one from labels to thresholds")
    for label, value in pairs:
        yield label, _threshold(value if isinstance(value, list) else [value], label)


def _table_thresholds(text: str, suffix: str) -> Iterable[tuple[str, LabelThreshold]]:
    delimiter = _delimiter(text, suffix)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for number, cells in enumerate(lines, start=1):
        label, *values = [cell.strip() for cell in cells] or [""]
        if has_bytes(label):
            raise UsageError(f"line {number}: the label {shown(label)} is not UTF-8. Next step: save it as UTF-8")
        values = values if delimiter == "," else [value.replace(",", ".") for value in values]
        if not label and not any(values):
            continue
        if number == 1 and values and values[0].casefold() == "threshold":
            continue
        while values and not values[-1]:
            values.pop()
        yield label, _threshold(values, f"line {number}")


def _delimiter(text: str, suffix: str) -> str:
    """What separates the cells: with it, the first line has a threshold in its second place."""
    usual = "\t" if suffix.lower() == ".tsv" else ","
    first = next((line for line in lines_of(text) if line.strip()), "")
    for delimiter in ("\t", ";", ","):
        second = first.split(delimiter)[-1].strip() if delimiter in first else ""
        if second.casefold() in ("threshold", "low", OFF) or _is_number(second.replace(",", ".")):
            return delimiter
    return usual


def _threshold(values: list[Any], where: str) -> LabelThreshold:
    """A threshold, or the pair of it and the low one, from one or two numbers or their texts; None for one off."""
    if values in ([None], [OFF]):
        return None
    if len(values) not in (1, 2) or not all(map(_is_number, values)):
        raise UsageError(
            f"{where} has {values} behind the label; expected one number in [0, 1], or two, the "
            f"threshold and the low one, or {OFF}"
        )
    return float(values[0]) if len(values) == 1 else (float(values[0]), float(values[1]))


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
