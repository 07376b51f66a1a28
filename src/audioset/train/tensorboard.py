"""Measurements as TensorBoard reads them, written without it. What is not defined is left out.

Source: tensorflow/core/util/event.proto and framework/summary.proto.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from audioset.dataset.features.framing import frame_record
from audioset.dataset.features.sequence_example import message, varint
from audioset.files import explain_os_errors

VERSION = b"brain.Event:2"
# Tags of fields, their wire types included: Event.wall_time, Event.step, Summary.Value.simple_value.
WALL_TIME, STEP, SIMPLE_VALUE = b"\x09", b"\x10", b"\x15"
FILE_VERSION, SUMMARY, VALUE, TAG = 3, 5, 1, 1


class EventFile:
    """A file of events; each run, and each time that it goes on, has one of its own.

    Parameters
    ----------
    folder : Path
        Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._append(_event(message(FILE_VERSION, VERSION)))

    def write(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a line of the measurements, by their names: ``eval/mean_ap``."""
        values = b"".join(
            message(VALUE, message(TAG, name.encode()) + SIMPLE_VALUE + struct.pack("<f", value))
            for name, value in numbers(line)
            if name != "iteration"
        )
        self._append(_event(STEP + varint(line["iteration"]) + message(SUMMARY, values)))

    def _append(self, event: bytes) -> None:
        with explain_os_errors(self._path), self._path.open("ab") as file:
            file.write(frame_record(event))


def numbers(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dictionaries, by the path to each; not those that are None, NaN or infinite."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif value is not None and math.isfinite(value):
            yield f"{prefix}{name}", value


def _event(content: bytes) -> bytes:
    return WALL_TIME + struct.pack("<d", time.time()) + content
