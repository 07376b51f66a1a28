"""Read rows of one exact form, a chunk of lines at a time, and refuse the first that has another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from audioset.dataset.lists.damage import Damage, Form, explain_row

CHUNK_BYTES = 1 << 22
LINE_BYTES = 1 << 16  # no row has as many; another file may be one endless line

Cells = tuple[bytes, ...]


def strict_rows(
    path: Path, file: BinaryIO, pattern: re.Pattern[bytes], form: Form, n_header_lines: int
) -> Iterator[tuple[int, list[Cells]]]:
    """Rows of a file, many at a time.

    One search over some megabytes is faster than a call for each line, and a row that it skips shows in the count.
    """
    number = n_header_lines + 1
    while chunk := file.read(CHUNK_BYTES):
        chunk += file.readline(LINE_BYTES)
        rows: list[Cells] = pattern.findall(chunk)
        n_lines = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
        if len(rows) != n_lines:
            lines = chunk.removesuffix(b"\n").split(b"\n")
            row = next(row for row, line in enumerate(lines) if not pattern.fullmatch(line))
            is_cut = row == len(lines) - 1 and not chunk.endswith(b"\n")
            raise explain_row(Damage(path, number + row, lines[row], is_cut), form)
        yield number, rows
        number += n_lines
