"""Records that come from outside: read within bounds, and checked against a table of kinds before they are used."""

from __future__ import annotations

import json
import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from audioset.errors import AudioSetError
from audioset.files import open_input

MAX_BYTES = 1 << 26  # of a file that is read whole
MAX_CHARS = 1 << 16
MAX_SHOWN = 60
MAX_CHUNK_BYTES = 1 << 27  # of a piece of an HDF5 file that is read into memory whole
MOST_COMPRESSED = 1100  # deflate makes at most 1,032 bytes of one
# What Python's readers, NumPy's and zipfile's raise for damaged files and for malicious ones.
DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, SyntaxError),
    *(RecursionError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


@dataclass(frozen=True)
class Kind:
    """What a value may be: words for it, and a test."""

    expected: str
    fits: Callable[[Any], bool]


Schema = Mapping[str, Kind]


def text(most: int = MAX_CHARS) -> Kind:
    """Text of so many characters at most."""
    return Kind(f"text of at most {most:,} characters", lambda value: isinstance(value, str) and len(value) <= most)


def whole(low: int, high: int) -> Kind:
    """A whole number within limits."""
    return Kind(f"a whole number from {low:,} to {high:,}", lambda value: type(value) is int and low <= value <= high)


def number(low: float, high: float) -> Kind:
    """A number within limits, which may be infinite, but not the number; one that fits a float in any case."""

    def fits(value: Any) -> bool:
        return type(value) in (int, float) and low <= value <= high and abs(value) <= sys.float_info.max

    return Kind(f"a finite number from {low:g} to {high:g}", fits)


def map_of(kind: Kind, most: int) -> Kind:
    """An object of so many values at most, under any names."""

    def fits(values: Any) -> bool:
        return isinstance(values, dict) and len(values) <= most and all(map(kind.fits, values.values()))

    return Kind(f"an object of at most {most:,} values, each {kind.expected}", fits)


def optional(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.expected}, or null", lambda value: value is None or kind.fits(value))


TEXT = text()
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
WHOLE = whole(0, 2**53)
NUMBER = number(-math.inf, math.inf)


def read_json(path: Path, schema: Schema, error: type[AudioSetError], hint: str = "") -> dict[str, Any]:
    """A JSON file with one object, whose fields are of the kinds that a table says; others are left as they are.

    What is raised is of the type ``error``, with the name of the file and ``hint`` at its end: the file is too large,
    is no JSON, is nested too deeply, or a field is missing or of another kind. A file that is not there or may not be
    read stays an ``OSError``.
    """
    data = read_bounded(path, error)
    return parse_json(data, str(path), schema, error, hint)


def parse_json(
    data: bytes | str, name: str, schema: Schema, error: type[AudioSetError], hint: str = ""
) -> dict[str, Any]:
    """As ``read_json``, of what was read already; ``name`` says where."""
    values = decode_json(data, name, error, hint)
    check_record(values, name, schema, error, hint)
    record: dict[str, Any] = values
    return record


def decode_json(data: bytes | str, name: str, error: type[AudioSetError], hint: str = "") -> Any:
    """What a text of JSON says, of any kind; NaN and infinite numbers, which JSON has not, are refused."""
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError) as cause:
        reason = "it is nested too deeply" if isinstance(cause, RecursionError) else cause
        raise error(f"{name} is damaged: it is no JSON ({reason}).{_then(hint)}") from cause


def check_record(values: Any, name: str, schema: Schema, error: type[AudioSetError], hint: str = "") -> None:
    """Refuse what is no object with fields of these kinds; the message names the field."""
    if not isinstance(values, dict):
        raise error(f"{name} is damaged: it holds {shown(values)}; expected an object.{_then(hint)}")
    for field, kind in schema.items():
        if field not in values:
            raise error(f"{name} is damaged: it has no {field!r}; expected {kind.expected}.{_then(hint)}")
        if not kind.fits(values[field]):
            raise error(f"{name}: {field!r} is {shown(values[field])}; expected {kind.expected}.{_then(hint)}")


def read_bounded(path: Path, error: type[AudioSetError], most: int = MAX_BYTES) -> bytes:
    """The bytes of a file, if they are not more than expected; a pipe or device is never read without end."""
    with open_input(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise error(f"{path} has more than {most:,} bytes; expected a small file. Likely cause: a file of another kind")
    return data


def check_unfolded(archive: zipfile.ZipFile, most: int) -> None:
    """Refuse an archive whose members have more bytes than expected: deflate makes gigabytes of a megabyte.

    ``ValueError`` if they have.
    """
    n_bytes = sum(entry.file_size for entry in archive.infolist())
    if n_bytes > most:
        raise ValueError(f"what is folded into it has {n_bytes:,} bytes; expected at most {most:,}")


def problem_of(dataset: Any) -> str | None:
    """Why a dataset of an HDF5 file must not be read, in words, or None.

    It may point at other files, hold values of any length, or claim terabytes in a few bytes.
    """
    if dataset.is_virtual or dataset.external:
        return "is a virtual or external dataset, which reads other files"
    if dataset.dtype.kind == "O":
        return "has values of variable length; expected a fixed one"
    stored, n_file = dataset.id.get_storage_size(), dataset.file.id.get_filesize()
    if dataset.nbytes > stored * MOST_COMPRESSED or stored > n_file:
        return f"claims {dataset.nbytes:,} bytes, of which {stored:,} are stored"
    if math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize > MAX_CHUNK_BYTES:
        return f"is stored in chunks of {dataset.chunks}, which is too much at once"
    return None


def shown(value: Any) -> str:
    """A value for a message: short, and without what moves a terminal's cursor."""
    try:
        words = repr(value)
    except (RecursionError, ValueError):
        words = f"a deep {type(value).__name__}"
    return words if len(words) <= MAX_SHOWN else f"{words[: MAX_SHOWN - 1]}…"


def _then(hint: str) -> str:
    return f" {hint}" if hint else ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
