"""What a file that is there already was written by, told from its contents: only one's own is replaced unasked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import BinaryIO

# Whether a file, open at its beginning, has what a writer writes. It may fail in any way on what is something else.
Recogniser = Callable[[BinaryIO], bool]

HEAD_BYTES = 1 << 16
MAX_RECORD_BYTES = 1 << 24


def begins_with(head: bytes) -> Recogniser:
    """A recogniser of files with a heading."""
    return lambda file: file.read(len(head)) == head


def has_records(*keys: str) -> Recogniser:
    """A recogniser of JSON Lines, and of an array with an element on each line, by the keys of the first record."""

    def is_ours(file: BinaryIO) -> bool:
        line = file.readline(MAX_RECORD_BYTES).strip()
        if line == b"[]":
            return True
        if line == b"[":
            line = file.readline(MAX_RECORD_BYTES).strip().removesuffix(b",")
        return tuple(json.loads(line)) == keys

    return is_ours


def has_lines(pattern: str) -> Recogniser:
    """A recogniser of texts of which each line, near the beginning, matches a regular expression as a whole."""
    compiled = re.compile(pattern)
    return lambda file: all(map(compiled.fullmatch, head_lines(file)))


def head_lines(file: BinaryIO) -> Iterable[str]:
    """The first lines of a text, without what ends them."""
    head = file.read(HEAD_BYTES + 1)
    lines = head.decode("utf-8", "surrogateescape").split("\n")
    return lines[:-1] if len(head) > HEAD_BYTES or lines[-1] == "" else lines
