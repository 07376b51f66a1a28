"""How found moments are written: for people, for programs, and for editors of sound."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Container, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from audioset.errors import one_line, plain
from audioset.files import is_folder
from audioset.formats.editors import AudacityWriter, RavenWriter, is_audacity, is_raven
from audioset.formats.output import FileId, Stream, check_output, open_output
from audioset.formats.recognising import Recogniser, begins_with, has_lines, has_records
from audioset.formats.rows import HIGH_HZ, Row, Tag, Writer
from audioset.formats.table import clock
from audioset.search.moments import Moment
from audioset.text import harmless

CELLS = ("rank", "path", "start_s", "end_s", "similarity")
EDITORS: dict[str, Callable[[Stream], Writer[Row]]] = {"audacity": AudacityWriter, "raven": RavenWriter}


def write_found(
    moments: Sequence[Moment],
    target: str | None,
    format_name: str,
    *,
    label: str = "found",
    model: str = "",
    read: Container[FileId] = (),
    overwrites: bool = False,
    high_hz: float = HIGH_HZ,
) -> None:
    """Write moments to a file, to standard output, or as a file for each recording into a folder.

    A ``target`` of None or ``"-"`` is standard output. ``label`` is what ``audacity`` and ``raven`` call each
    moment; ``read`` and ``overwrites`` are as for ``check_output``.
    """
    if format_name not in EDITORS:
        with open_output(target) as stream:
            text = FORMATS[format_name](moments)
            stream.write((plain(text) if stream.isatty() else text).encode(stream.encoding, "replace"))
        return
    rows = [_row(moment, label, model, high_hz) for moment in sorted(moments, key=lambda one: (one.path, one.start_s))]
    if target is None or not is_folder(target):
        _write_rows(rows, target, format_name)
        return
    paths = sorted({row.path for row in rows})
    base = os.path.commonpath([Path(path).parent for path in paths]) if paths else ""
    files = {path: str(Path(target) / f"{os.path.relpath(path, base)}.txt") for path in paths}  # as the recordings lie
    for file in files.values():
        check_output(file, read, OWN[format_name], overwrites=overwrites)
    for path, file in files.items():
        _write_rows([row for row in rows if row.path == path], file, format_name)


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


def to_csv(moments: Sequence[Moment]) -> str:
    """A heading, and one line for each moment."""
    text = io.StringIO(newline="")
    # Quotation marks around every text: before Python 3.13 the module leaves a lone carriage return bare.
    lines = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    text.write(",".join(CELLS) + "\n")
    for record in _records(moments):
        lines.writerow({**record, "path": harmless(record["path"])}.values())
    return text.getvalue()


FORMATS: dict[str, Callable[[Sequence[Moment]], str]] = {
    "table": to_table,
    "json": lambda moments: json.dumps(_records(moments), indent=1) + "\n",
    "jsonl": lambda moments: "".join(json.dumps(record) + "\n" for record in _records(moments)),
    "csv": to_csv,
}


def is_found_json(file: BinaryIO) -> bool:
    """Whether a file is an array of moments."""
    return all(tuple(record) == CELLS for record in json.load(file)[:1])


OWN: dict[str, Recogniser] = {
    "table": has_lines(r" *\d+  -?\d\.\d{3}  [\d:.]+–[\d:.]+  .*|no moment is as similar as that"),
    "json": is_found_json,
    "jsonl": has_records(*CELLS),
    "csv": begins_with((",".join(CELLS) + "\n").encode()),
    "audacity": is_audacity,
    "raven": is_raven,
}


def _records(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    return [moment_to_record(rank, moment) for rank, moment in enumerate(moments, start=1)]


def _row(moment: Moment, label: str, model: str, high_hz: float) -> Row:
    tags = (Tag("", label, moment.similarity),)
    return Row(moment.path, moment.start_s, moment.end_s, tags, moment.end_s, model, high_hz=high_hz)


def _write_rows(rows: Sequence[Row], target: str | None, format_name: str) -> None:
    with open_output(target) as stream, closing(EDITORS[format_name](stream)) as writer:
        for row in rows:
            writer.write(row)
