"""Mend a damaged list of clips with the published one: the order of the rows is what both still share."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from audioset.dataset.lists.segments import ID_LENGTH, Segment, SegmentList, format_row, read_segments
from audioset.errors import DataError
from audioset.files import read_input

VIDEO_ID = re.compile(rf"[A-Za-z0-9_-]{{{ID_LENGTH}}}")
LABEL_ID = re.compile(r"/[a-z]+/\w+")
HEADER = re.compile(r'[\s"]*#(?!NAME|VALUE|REF|N/A|NUM|NULL|DIV)', re.IGNORECASE)
SEPARATOR = re.compile(r"[,;\t]")
TOLERANCE_S = 5e-4
ENCODINGS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True)
class Mend:
    """What was done to one row."""

    line_number: int  # in the damaged file, from 1
    found: str  # what stood for the id there
    video_id: str
    # What was lost and is taken from the published list; ``"form"``: only quotes, blanks and decimals
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Repair:
    """A list that is whole again."""

    segments: SegmentList  # all clips of the published list
    mends: tuple[Mend, ...]  # one for each row of the damaged list that differed
    n_rows: int  # rows of the damaged list
    n_added: int  # rows that it lacked at its end

    @property
    def counts(self) -> dict[str, int]:
        """How many rows had each part mended."""
        counter = Counter(part for mend in self.mends for part in mend.parts)
        return {part: counter[part] for part in ("id", "times", "labels", "form")}

    def report(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        rows = [
            {"line": mend.line_number, "found": mend.found, "video_id": mend.video_id, "mended": list(mend.parts)}
            for mend in self.mends
        ]
        return {
            "n_rows": self.n_rows,
            "n_mended": len(self.mends),
            **{f"n_{part}": count for part, count in self.counts.items()},
            "n_added": self.n_added,
            "rows": rows,
        }


def is_repair_report(file: BinaryIO) -> bool:
    """Whether a file is JSON as ``Repair.report`` has it."""
    record = json.load(file)
    return {"n_rows", "n_mended", "n_added", "rows"} <= set(record)


@dataclass(frozen=True)
class _LooseRow:
    line_number: int
    line: str
    video_id: str
    times: tuple[float, float] | None
    label_ids: frozenset[str]


def repair_segments(damaged_path: str | os.PathLike[str], official_path: str | os.PathLike[str]) -> Repair:
    """Mend a damaged list of clips.

    The n-th row of the published list gives what the n-th row of the damaged one has lost. What is left there has to
    agree: each id that still is one, each pair of times, and each label.

    Parameters
    ----------
    damaged_path : path
    official_path : path
        The published list of the same subset.

    Returns
    -------
    Repair

    Raises
    ------
    DataError
        If the lists do not correspond: the message has the first line that shows it. If the published one is
        damaged, too.
    """
    path = Path(damaged_path)
    official = read_segments(official_path)
    mends, n_rows = [], 0
    expected = iter(official)
    for row in _loose_rows(path):
        segment = next(expected, None)
        if segment is None:
            raise _misfit(path, row, f"the published list ends after {n_rows:,} rows")
        n_rows += 1
        parts = _mended_parts(path, row, segment)
        if parts:
            mends.append(Mend(row.line_number, row.video_id, segment.video_id, parts))
    if n_rows == 0:
        raise DataError(f"{path} has no rows to mend. Likely cause: another file. Next step: use {official_path}")
    return Repair(official, tuple(mends), n_rows, len(official) - n_rows)


def _mended_parts(path: Path, row: _LooseRow, segment: Segment) -> tuple[str, ...]:
    """What the row has lost; refused if what it still has is not the segment's."""
    is_id = VIDEO_ID.fullmatch(row.video_id) is not None
    if is_id and row.video_id != segment.video_id:
        raise _misfit(path, row, f"the published row there is of {segment.video_id}")
    if row.times and any(
        abs(found - published) > TOLERANCE_S
        for found, published in zip(row.times, (segment.start_s, segment.end_s), strict=True)
    ):
        raise _misfit(path, row, f"the published row there is from {segment.start_s:g} to {segment.end_s:g} s")
    if strange := row.label_ids.difference(segment.label_ids):
        raise _misfit(path, row, f"the published row there does not have the label {min(strange)}")
    is_lost = {"id": not is_id, "times": row.times is None, "labels": len(row.label_ids) < len(segment.label_ids)}
    lost = tuple(part for part, is_so in is_lost.items() if is_so)
    return lost or (("form",) if row.line != format_row(segment) else ())


def _misfit(path: Path, row: _LooseRow, what: str) -> DataError:
    return DataError(
        f"{path}, line {row.line_number}: {row.line[:80]!r} does not correspond: {what}. Likely cause: the list of "
        "another subset, or rows were sorted or removed. Next step: give the published list of the same subset, or "
        "fetch it in place of this one"
    )


def _loose_rows(path: Path) -> Iterator[_LooseRow]:
    """Rows of a damaged list, whatever can be read of them. A last line without its end was cut: it is left out."""
    is_header = True
    for number, line in enumerate(_decoded(path).split("\n")[:-1], 1):
        text = line.removesuffix("\r")
        is_header = is_header and HEADER.match(text) is not None
        if is_header or not text.strip(' ,;\t"'):
            continue
        first = SEPARATOR.search(text)
        cells = [cell.strip(' "') for cell in text.split(first[0] if first else ",", maxsplit=3)]
        yield _LooseRow(number, line, cells[0], _times(cells[1:3]), frozenset(LABEL_ID.findall(text)))


def _decoded(path: Path) -> str:
    try:
        data = read_input(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Next step: check its name") from error
    encoding = next((name for mark, name in ENCODINGS if data.startswith(mark)), "utf-8-sig")
    return data.decode(encoding, "replace")


def _times(cells: list[str]) -> tuple[float, float] | None:
    try:
        start_s, end_s = (float(cell.replace(",", ".")) for cell in cells)  # spreadsheets know decimal commas
    except ValueError:
        return None
    return start_s, end_s
