"""Moments that a person accepted as a class: a table to learn from, ``path,label,start_s,end_s``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from audioset.errors import ConflictError, UsageError
from audioset.files import update
from audioset.formats.csv_lines import decimal
from audioset.formats.rows import printable
from audioset.search.moments import Span
from audioset.text import harmless

COLUMNS = ["path", "label", "start_s", "end_s"]
MOST_DIGITS = 9  # of a number in a list


def parse_numbers(text: str, n: int) -> list[int]:
    """``1,3,5-8`` as [1, 3, 5, 6, 7, 8]; each must be in 1 to ``n``."""
    numbers: dict[int, None] = {}
    for piece in text.split(","):
        first, dash, last = (part.strip() for part in piece.partition("-"))
        ends = [first, last] if dash else [first]
        if not all(end.isascii() and end.isdigit() and len(end) <= MOST_DIGITS for end in ends):
            raise UsageError(f"--accept has {piece.strip()!r}; expected numbers of moments, such as 1,3,5-8")
        low, high = int(ends[0]), int(ends[-1])
        if not 1 <= low <= high <= n:
            raise UsageError(f"--accept has {piece.strip()!r}; expected numbers of the list, 1 to {n}, in order")
        numbers |= dict.fromkeys(range(low, high + 1))
    return list(numbers)


def append_moments(path: str | os.PathLike[str], moments: Iterable[Span], label: str) -> int:
    """Add moments to a table of labelled clips, which ``audioset train classifier`` reads: how many lines are new.

    The table is replaced whole: what it had stays, whatever happens. Several processes may add to it at once.
    """
    if not label.strip():
        raise UsageError("the label is empty; expected the name of a class. Next step: --label NAME")
    lines = dict.fromkeys(
        (harmless(moment.path), harmless(printable(label.strip())), decimal(moment.start_s), decimal(moment.end_s))
        for moment in moments
    )
    new: list[tuple[str, ...]] = []

    def add(before: bytes) -> bytes:
        text = _checked(before, path)
        known = {tuple(row) for row in csv.reader(io.StringIO(text, newline=""))}
        new.extend(line for line in lines if line not in known)
        return (text or _csv([COLUMNS])).encode() + _csv(new).encode() if new else before

    update(Path(path), add)
    return len(new)


def _checked(data: bytes, table: str | os.PathLike[str]) -> str:
    """The table so far, with a line break at its end; empty if there is none."""
    try:
        text = data.decode("utf-8-sig")
        heading = next(csv.reader(io.StringIO(text, newline="")), COLUMNS)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConflictError(f"{table} cannot be added to: {error}. Next step: another name for --output") from error
    if heading != COLUMNS:
        raise ConflictError(
            f"{table} begins with {','.join(heading)!r:.80}; expected {','.join(COLUMNS)!r}. "
            "Likely cause: another kind of table. Next step: another name for --output"
        )
    return text if not text or text.endswith("\n") else text + "\n"


def _csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        # Before Python 3.13 the module leaves a lone carriage return bare, and cannot read it back.
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue()
