"""How found moments are written: for people, for programs, and for editors of sound."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from audioset.files import explain_os_errors
from audioset.formats.audacity import AudacityWriter
from audioset.formats.output import Stream, open_output
from audioset.formats.raven import RavenWriter
from audioset.formats.rows import Row, Tag, Writer, one_line
from audioset.formats.table import clock
from audioset.search.moments import Moment

CELLS = ("rank", "path", "start_s", "end_s", "similarity")
EDITORS: dict[str, Callable[[Stream], Writer[Row]]] = {"audacity": AudacityWriter, "raven": RavenWriter}


def write_found(
    moments: Sequence[Moment], target: str | None, format_name: str, *, label: str = "found", model: str = ""
) -> None:
    """Write moments to a file, to standard output, or as a file for each recording into a folder.

    Parameters
    ----------
    moments : sequence of Moment
        Best first.
    target : str or None
        None or ``"-"``: standard output. A folder, for ``audacity`` and ``raven``: a file for each recording.
    format_name : str
        A key of ``FORMATS``.
    label : str
        What ``audacity`` and ``raven`` call each moment.
    model : str
        For Raven's column of that name.

    Raises
    ------
    UsageError
        If Audacity labels of several recordings would go to one file.
    OutputError
        The disk is full, or the place does not allow it.
    """
    if format_name not in EDITORS:
        with open_output(target) as stream:
            stream.write(FORMATS[format_name](moments).encode(stream.encoding, "replace"))
        return
    rows = [_row(moment, label, model) for moment in sorted(moments, key=lambda one: (one.path, one.start_s))]
    if target is None or not Path(target).is_dir():
        _write_rows(rows, target, format_name)
        return
    paths = sorted({row.path for row in rows})
    base = os.path.commonpath([Path(path).parent for path in paths]) if paths else ""
    for path in paths:
        placed = Path(target) / f"{os.path.relpath(path, base)}.txt"  # as the recording is in its folder
        with explain_os_errors(placed.parent):
            placed.parent.mkdir(parents=True, exist_ok=True)
        _write_rows([row for row in rows if row.path == path], str(placed), format_name)


def moment_to_record(rank: int, moment: Moment) -> dict[str, Any]:
    """A moment as JSON has it."""
    values = rank, moment.path, round(moment.start_s, 6), round(moment.end_s, 6), round(moment.similarity, 6)
    return dict(zip(CELLS, values, strict=True))


def to_table(moments: Sequence[Moment]) -> str:
    """For people: rank, similarity, stretch and path."""
    width = len(str(len(moments)))
    lines = [
        f"{rank:{width}}  {moment.similarity:.3f}  {clock(moment.start_s)}–{clock(moment.end_s)}  "
        f"{one_line(moment.path)}\n"
        for rank, moment in enumerate(moments, start=1)
    ]
    return "".join(lines) or "no moment is as similar as that\n"


def to_json(moments: Sequence[Moment]) -> str:
    """One array of records."""
    return json.dumps(_records(moments), ensure_ascii=False, indent=1) + "\n"


def to_jsonl(moments: Sequence[Moment]) -> str:
    """One record on each line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in _records(moments))


def to_csv(moments: Sequence[Moment]) -> str:
    """A heading, and one line for each moment."""
    text = io.StringIO(newline="")
    # Quotation marks around every text: before Python 3.13 the module leaves a lone carriage return bare.
    lines = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    text.write(",".join(CELLS) + "\n")
    for record in _records(moments):
        lines.writerow(record.values())
    return text.getvalue()


FORMATS: dict[str, Callable[[Sequence[Moment]], str]] = {
    "table": to_table,
    "json": to_json,
    "jsonl": to_jsonl,
    "csv": to_csv,
}


def _records(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    return [moment_to_record(rank, moment) for rank, moment in enumerate(moments, start=1)]


def _row(moment: Moment, label: str, model: str) -> Row:
    tags = (Tag("", label, moment.similarity),)
    return Row(moment.path, moment.start_s, moment.end_s, tags, moment.end_s, model)


def _write_rows(rows: Sequence[Row], target: str | None, format_name: str) -> None:
    with open_output(target) as stream, closing(EDITORS[format_name](stream)) as writer:
        for row in rows:
            writer.write(row)
