"""How sure the labels are: the estimates that AudioSet publishes for each class."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from audioset.errors import DataError
from audioset.files import check_regular

N_COLUMNS = 3


@dataclass(frozen=True)
class Quality:
    """What a second look at some clips of a class has found.

    Attributes
    ----------
    n_rated : int
        Clips with the label that were heard again, mostly ten.
    n_true : int
        Those on which the label was right.
    """

    n_rated: int
    n_true: int

    @property
    def share(self) -> float | None:
        """``n_true / n_rated`` in [0, 1], or None if no clip was rated."""
        return self.n_true / self.n_rated if self.n_rated else None


def read_quality(path: str | os.PathLike[str]) -> dict[str, Quality]:
    """Read the published ``qa_true_counts.csv``, by the label's id."""
    path = Path(path)
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(file, skipinitialspace=True)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read: {error}; expected the published qa_true_counts.csv. Next step: fetch it again"
        ) from error
    return {row[0]: _quality(path, number, row) for number, row in enumerate(rows, 2)}


def _quality(path: Path, number: int, row: list[str]) -> Quality:
    is_right = len(row) == N_COLUMNS and row[0].startswith("/") and row[1].isdecimal() and row[2].isdecimal()
    if not is_right or int(row[2]) > int(row[1]):
        raise DataError(
            f"{path}, line {number}: {','.join(row)[:80]!r}; expected a label's id, how many clips were rated, and how "
            "many of those were right. Likely cause: another file. Next step: audioset data fetch qa"
        )
    return Quality(int(row[1]), int(row[2]))
