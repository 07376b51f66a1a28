"""Reading scores back that ``audioset tag`` has written."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from audioset.calibration.clips import Patches
from audioset.errors import MissingExtraError, UsageError
from audioset.files import check_regular, read_input
from audioset.labels.labels import LabelSet
from audioset.records import DAMAGE
from audioset.text import without_apostrophe

CELLS = ("path", "start_s", "end_s", "label_id", "score", "model", "error_code")  # of those in rows.CELLS


@dataclass
class _Row:
    """A row of tags: its scores by label id, or the code of an error."""

    path: str
    start_s: float
    end_s: float
    model: str
    scores: dict[str, float]
    error_code: str | None


@dataclass(frozen=True)
class ScoreFile:
    """Scores that ``audioset tag`` has written."""

    recordings: list[Patches]  # with a column for each label that was asked for
    errors: Mapping[str, str]  # by path: codes of the recordings that failed
    models: set[str]  # what the scores were made with


def read_scores(path: str | os.PathLike[str], labels: LabelSet, wanted: Container[str]) -> ScoreFile:
    """Read scores of some recordings, by their normalised paths, and of some labels.

    The file is a ``.parquet``, ``.csv``, ``.jsonl`` or ``.json`` of ``audioset tag``, in which each row has all these
    labels: made with ``--top`` of at least the model's number of labels, and without ``--threshold``. ``UsageError`` if
    it cannot be read, is not of that kind, or a row lacks one of the labels; ``MissingExtraError`` for ``.parquet``
    without pyarrow.
    """
    path = Path(path)
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise UsageError(f"scores {path}: expected a file of audioset tag that ends in {', '.join(READERS)}")
    try:
        return _gather(read(path), labels, wanted)
    except OSError as error:
        raise UsageError(f"scores {path} cannot be read: {error.strerror or error}") from error
    except (UsageError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"scores {path}: {error}") from error
    except DAMAGE as error:
        raise UsageError(f"scores {path} is not what audioset tag writes: {type(error).__name__}: {error}") from error


def _gather(rows: Iterator[_Row], labels: LabelSet, wanted: Container[str]) -> ScoreFile:
    found: dict[str, list[tuple[float, float, list[float]]]] = {}
    errors: dict[str, str] = {}
    models = set()
    for row in rows:
        path = os.path.normpath(row.path)
        if path not in wanted:
            continue
        models.add(row.model)
        if row.error_code:
            errors[path] = row.error_code
        else:
            found.setdefault(path, []).append((row.start_s, row.end_s, _values(row, labels)))
    recordings = [_patches(path, patches) for path, patches in found.items() if path not in errors]
    return ScoreFile(recordings, errors, models)


def _values(row: _Row, labels: LabelSet) -> list[float]:
    for label_id, label in zip(labels.ids, labels.names, strict=True):
        if not 0 <= row.scores.get(label_id, -1) <= 1:
            raise UsageError(
                f"{row.path} at {row.start_s:g} s has {row.scores.get(label_id, 'no score')} for {label}; expected "
                "scores of all labels in each row. Likely cause: --top, --threshold, --classes or --leaf-only left it "
                "out. Next step: audioset tag --per-patch --top 1000"
            )
    return [row.scores[label_id] for label_id in labels.ids]


def _patches(path: str, rows: list[tuple[float, float, list[float]]]) -> Patches:
    start_s, end_s, scores = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    if len(set(start_s)) != len(start_s):
        raise UsageError(f"{path} has a time twice; expected each once. Likely cause: two runs in one file")
    return Patches(path, np.array(start_s), np.array(end_s), np.array(scores, np.float32))


def _flat_rows(lines: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
    """Rows from lines with one label each."""
    for (path, start_s, end_s), group in groupby(lines, key=itemgetter("path", "start_s", "end_s")):
        members = list(group)
        first = members[0]
        scores = {line["label_id"]: float(line["score"]) for line in members if line["label_id"]}
        if len(scores) != len(members) and scores:
            raise UsageError(f"{path} has a label twice at {start_s} s. Likely cause: two runs in one file")
        yield _Row(path, float(start_s), float(end_s), first["model"], scores, first["error_code"] or None)


def _csv_rows(path: Path) -> Iterator[_Row]:
    check_regular(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, strict=True)
        yield from _flat_rows({**line, "path": without_apostrophe(line["path"])} for line in lines)


def _parquet_rows(path: Path) -> Iterator[_Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("reading .parquet", "pyarrow", "data") from error
    try:
        check_regular(path)
        with parquet.ParquetFile(path) as file:
            batches = file.iter_batches(columns=list(CELLS))
            yield from _flat_rows(line for batch in batches for line in batch.to_pylist())
    except pa.ArrowException as error:
        raise UsageError(f"it cannot be read as Parquet: {error}") from error


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    check_regular(path)
    with path.open(encoding="utf-8") as file:
        yield from (_record_row(json.loads(line)) for line in file if line.strip())


def _json_rows(path: Path) -> Iterator[_Row]:
    yield from map(_record_row, json.loads(read_input(path)))


def _record_row(record: Mapping[str, Any]) -> _Row:
    scores = {tag["label_id"]: float(tag["score"]) for tag in record["tags"]}
    error_code = record["error"] and record["error"]["code"]
    times = (float(record["start_s"]), float(record["end_s"]))
    return _Row(record["path"], *times, record["model"], scores, error_code)


READERS: dict[str, Callable[[Path], Iterator[_Row]]] = {
    ".parquet": _parquet_rows,
    ".csv": _csv_rows,
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
}
