"""The label sets: what each column of a score matrix means. They ship with the package."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources

from audioset.errors import UsageError

# The six AudioSet labels that YAMNet leaves out: male and female speech and singing voices, battle cry,
# funny music. Source: tensorflow/models, research/audioset/yamnet/README.md.
NOT_IN_YAMNET = frozenset(("/m/05zppz", "/m/02zsn", "/t/dd00003", "/t/dd00004", "/t/dd00032", "/m/04gy_2"))
NAMES = ("audioset-527", "yamnet-521")


@dataclass(frozen=True)
class LabelSet:
    """Ordered labels: column ``i`` of a score matrix is ``ids[i]``, shown to people as ``names[i]``.

    Attributes
    ----------
    ids : tuple of str
        Machine identifiers such as ``"/m/09x0r"``.
    names : tuple of str
        Display names such as ``"Speech"``.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names) or len(set(self.ids)) != len(self.ids):
            raise UsageError(
                f"{len(self.ids)} label ids ({len(set(self.ids))} of them different) and {len(self.names)} names; "
                "expected as many names as ids, and no id twice"
            )

    @classmethod
    def load(cls, name: str) -> LabelSet:
        """Load a published label set.

        Parameters
        ----------
        name : {"audioset-527", "yamnet-521"}

        Raises
        ------
        UsageError
            For any other name.
        """
        if name not in NAMES:
            raise UsageError(f"there is no label set {name!r}; expected one of {', '.join(NAMES)}")
        left_out = NOT_IN_YAMNET if name == "yamnet-521" else frozenset()
        rows = [row for row in _table() if row[0] not in left_out]
        return cls(tuple(row[0] for row in rows), tuple(row[1] for row in rows))

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, label: str) -> int:
        """Column of a label, given its id or its display name in any case.

        Raises
        ------
        UsageError
            If there is no such label; the message names the nearest ones.
        """
        try:
            return self._index[label.casefold()]
        except KeyError:
            near = difflib.get_close_matches(label, self.names, n=3)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(f"there is no label {label!r} among these {len(self)}{hint}") from None

    @cached_property
    def _index(self) -> dict[str, int]:
        index: dict[str, int] = {}
        for keys in (self.names, self.ids):  # ids last: they win if a name looks like one
            index.update(_first_positions(keys))
        return index


def _first_positions(keys: Sequence[str]) -> dict[str, int]:
    return {key.casefold(): position for position, key in reversed(list(enumerate(keys)))}


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[str, str], ...]:
    text = resources.files("audioset").joinpath("tables/labels.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((label_id, label) for label_id, label in rows)
