"""Tables of labelled recordings, and what they make of scored patches: clips for ``calibration.fit.fit``."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.errors import UsageError
from audioset.labels import LabelSet

Array = np.ndarray[Any, Any]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
FloatArray = np.ndarray[Any, np.dtype[np.float32]]

COLUMNS = ("path", "label", "start_s", "end_s")  # of a table without a heading
LABEL_COLUMNS = ("label_id", "label", "labels")  # of one with a heading, the first that is there
MIN_OVERLAP = 0.5  # of the patch or of the sound, whichever is shorter
POOLS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "max": lambda scores: scores.max(axis=0),
    "mean": lambda scores: scores.mean(axis=0, dtype=np.float64).astype(np.float32),
}


@dataclass(frozen=True)
class Sound:
    """A label of a recording, from ``start_s`` to ``end_s``; 0 to infinity if it is of the whole recording."""

    label_id: str
    start_s: float = 0.0
    end_s: float = math.inf


@dataclass(frozen=True)
class LabelTable:
    """What people heard in recordings.

    Attributes
    ----------
    sounds : mapping of str to list of Sound
        By path, in the order of the table; an empty list for a recording with none of the labels.
    labels : LabelSet
        Those that occur, in the order of the model.
    is_timed : bool
        Whether sounds have a start and an end.
    """

    sounds: Mapping[str, Sequence[Sound]]
    labels: LabelSet
    is_timed: bool

    def targets(self, path: str, start_s: Array, end_s: Array) -> BoolArray:
        """Which labels each patch of a recording has.

        Parameters
        ----------
        path : str
        start_s, end_s : ndarray, shape (n_patches,)
            Seconds.

        Returns
        -------
        ndarray, shape (n_patches, n_labels), bool
            True where patch and sound share at least half of the shorter one.
        """
        targets = np.zeros((len(start_s), len(self.labels)), bool)
        for sound in self.sounds[path]:
            shared_s = np.minimum(end_s, sound.end_s) - np.maximum(start_s, sound.start_s)
            shorter_s = np.minimum(end_s - start_s, sound.end_s - sound.start_s)
            targets[:, self.labels.ids.index(sound.label_id)] |= shared_s >= MIN_OVERLAP * shorter_s
        return targets


@dataclass(frozen=True)
class Patches:
    """Scored patches of one recording: seconds (n_patches,) and scores (n_patches, n_labels), float32."""

    path: str
    start_s: Array
    end_s: Array
    scores: FloatArray


@dataclass(frozen=True)
class LabelledClips:
    """What ``calibration.fit.fit`` takes: ``scores`` and ``targets`` (n_clips, n_labels), and each clip's recording."""

    scores: FloatArray
    targets: BoolArray
    recordings: list[str]


def gather_clips(table: LabelTable, recordings: Iterable[Patches], pool: str = "max") -> LabelledClips:
    """Make one clip of each patch if the sounds have times, and of each recording if not.

    Parameters
    ----------
    table : LabelTable
    recordings : iterable of Patches
        Their scores have a column for each of the table's labels.
    pool : {"max", "mean"}
        How a recording's score is made from those of its patches.

    Returns
    -------
    LabelledClips

    Raises
    ------
    UsageError
        If there are no recordings.
    """
    scores: list[FloatArray] = []
    targets: list[BoolArray] = []
    names: list[str] = []
    for patches in recordings:
        found = table.targets(patches.path, patches.start_s, patches.end_s)
        if table.is_timed:
            scores.append(patches.scores)
            targets.append(found)
        else:
            scores.append(POOLS[pool](patches.scores)[None])
            targets.append(found[:1])
        names += [patches.path] * len(scores[-1])
    if not scores:
        raise UsageError("none of the labelled recordings has scores; expected at least one. See the lines above")
    return LabelledClips(np.concatenate(scores), np.concatenate(targets), names)


def read_label_table(path: str | os.PathLike[str], labels: LabelSet) -> LabelTable:
    """Read a table of labelled recordings.

    Parameters
    ----------
    path : path
        UTF-8, separated by tabs if its name ends in ``.tsv``, else by commas. On each line a recording's path, a
        label by id or name and, if wanted, start and end in seconds. A recording may have several lines, and a
        line several labels, with ``;`` between them, or ``,``. Without a label, it was listened to and has none.
        With a heading, the columns ``path``, ``label_id``, ``label`` or ``labels``, ``start_s`` and ``end_s`` may
        have any order, and others are passed over.
    labels : LabelSet
        Of the model.

    Returns
    -------
    LabelTable

    Raises
    ------
    UsageError
        If the file cannot be read, is empty, or has a line that is not as described; the message names it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(_rows(text, "\t" if path.suffix.lower() == ".tsv" else ","))
        return _make_table(rows, labels)
    except OSError as error:
        raise UsageError(f"labels {path} cannot be read: {error.strerror or error}") from error
    except (UsageError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"labels {path}: {error}") from error


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Number of each line that is not empty, and its cells by name of column."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: Sequence[str] = COLUMNS
    is_first = True
    for cells in lines:
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if is_first and "path" in map(str.casefold, stripped):
            names = _headings(stripped)
        elif len(stripped) > len(names) or (is_first and len(stripped) == 1):
            raise UsageError(f"line {lines.line_num} has {len(stripped)} cells; expected {', '.join(names)}")
        else:
            yield lines.line_num, dict(zip(names, stripped, strict=False))
        is_first = False


def _headings(cells: Sequence[str]) -> list[str]:
    names = [cell.casefold() for cell in cells]
    of_labels = next((name for name in LABEL_COLUMNS if name in names), None)
    if of_labels is None:
        raise UsageError(f"the heading has {', '.join(names)}; expected a column label beside path")
    return ["label" if name == of_labels else f"other {name}" if name == "label" else name for name in names]


def _make_table(rows: Sequence[tuple[int, Mapping[str, str]]], labels: LabelSet) -> LabelTable:
    sounds: dict[str, list[Sound]] = {}
    untimed: list[int] = []  # lines
    is_timed = False
    for line, cells in rows:
        if not cells["path"]:
            raise UsageError(f"line {line} has no path")
        label_ids = _label_ids(cells.get("label", ""), labels, line)
        times = _times(cells.get("start_s", ""), cells.get("end_s", ""), line) if label_ids else ()
        found = [Sound(label_id, *times) for label_id in label_ids]
        sounds.setdefault(os.path.normpath(cells["path"]), []).extend(found)
        is_timed |= bool(found and times)
        untimed += [line] * bool(found and not times)
    if not sounds:
        raise UsageError("there are no rows; expected a path and a label on each line")
    if is_timed and untimed:
        raise UsageError(
            f"line {untimed[0]} has a label without start and end, and other lines have them; expected all or none. "
            "Next step: give a sound that fills a recording its length"
        )
    occurring = {sound.label_id for found in sounds.values() for sound in found}
    columns = [index for index, label_id in enumerate(labels.ids) if label_id in occurring]
    if not columns:
        raise UsageError("no line has a label; expected recordings with labels among them")
    return LabelTable(sounds, labels.select(columns), is_timed)


def _times(start: str, end: str, line: int) -> tuple[float, float] | tuple[()]:
    """Start and end in seconds, or nothing where the cells are empty."""
    if not start and not end:
        return ()
    try:
        start_s, end_s = float(start), float(end)
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s < end_s < math.inf:
        raise UsageError(f"line {line} has the times {start!r} and {end!r}; expected seconds, the end after the start")
    return start_s, end_s


def _label_ids(cell: str, labels: LabelSet, line: int) -> list[str]:
    """Ids of the labels in a cell. A label may have commas in its name, so the cell as a whole is tried first."""
    for separator in (None, ";", ","):
        parts = [part.strip() for part in cell.split(separator)] if separator else [cell]
        named = [part for part in parts if part]
        if separator and separator not in cell:
            continue
        try:
            return [labels.ids[labels.index(part)] for part in named]
        except UsageError as error:
            unknown = error
            if separator == ";":
                break
    raise UsageError(f"line {line}: {unknown}")
