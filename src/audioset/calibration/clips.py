"""Tables of labelled recordings, and what they make of scored patches: clips for ``calibration.fit.fit``."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audioset.arrays import Array, BoolArray, FloatArray
from audioset.errors import DataError, UsageError
from audioset.labels.labels import LabelSet
from audioset.labels.tables import Table, TableRow, read_table
from audioset.text import has_bytes, shown

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
    """What people heard in recordings."""

    sounds: Mapping[str, Sequence[Sound]]  # by path, in the table's order; empty for one with none of the labels
    labels: LabelSet  # those that occur, in the order of the model
    is_timed: bool  # whether sounds have a start and an end

    def targets(self, path: str, start_s: Array, end_s: Array) -> BoolArray:
        """Which labels each patch of a recording has, as an array of shape (n_patches, n_labels).

        Starts and ends are in seconds, of shape (n_patches,). True where patch and sound share at least half
        of the shorter one.
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

    The recordings' scores have a column for each of the table's labels; ``pool``, ``"max"`` or ``"mean"``, is how a
    recording's score is made from those of its patches. ``UsageError`` if there are no recordings.
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
        As ``labels.tables.read_table`` reads it: CSV or TSV with a recording's path, a label by id or name and, if
        wanted, start and end in seconds on each line. A recording may have several lines, and a line several labels,
        with ``;`` between them, or ``,``. Without a label, it was listened to and has none. Of a table with a column
        of ids and one of names, the ids count.
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
        table = read_table(path)
    except DataError as error:
        raise UsageError(f"labels {error}") from error
    try:
        return _make_table(table, labels)
    except UsageError as error:
        raise UsageError(f"labels {path}: {error}") from error


def _make_table(table: Table, labels: LabelSet) -> LabelTable:
    sounds: dict[str, list[Sound]] = {}
    untimed: list[int] = []  # lines
    is_timed = False
    for row in table.rows:
        label_ids = _label_ids(row.label_id.strip() or row.label.strip(), labels, row.line)
        times = _times(row) if label_ids else ()
        found = [Sound(label_id, *times) for label_id in label_ids]
        sounds.setdefault(os.path.normpath(row.path.strip()), []).extend(found)
        is_timed |= bool(found and times)
        untimed += [row.line] * bool(found and not times)
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


def _times(row: TableRow) -> tuple[float, float] | tuple[()]:
    """Start and end in seconds, or nothing where the cells are empty."""
    if row.start_s is None and row.end_s is None:
        return ()
    if row.start_s is None or row.end_s is None or row.start_s == row.end_s:
        start, end = ("" if time_s is None else f"{time_s:g}" for time_s in (row.start_s, row.end_s))
        raise UsageError(
            f"line {row.line} has the times {start!r} and {end!r}; expected seconds, the end after the start"
        )
    return row.start_s, row.end_s


def _label_ids(cell: str, labels: LabelSet, line: int) -> list[str]:
    """Ids of the labels in a cell. A label may have commas in its name, so the cell as a whole is tried first."""
    if has_bytes(cell):
        raise UsageError(f"line {line}: the label {shown(cell)} is not UTF-8. Next step: save the table as UTF-8")
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
