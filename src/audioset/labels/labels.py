"""The label sets: what each column of a score matrix means. They ship with the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources

from audioset.arguments import check_count, check_many, value_text
from audioset.errors import UsageError

# The six AudioSet labels that YAMNet leaves out: male and female speech and singing voices, battle cry,
# funny music. Source: tensorflow/models, research/audioset/yamnet/README.md.
NOT_IN_YAMNET = frozenset(("/m/05zppz", "/m/02zsn", "/t/dd00003", "/t/dd00004", "/t/dd00032", "/m/04gy_2"))

# name -> (table, ids that are in it and not in the set)
SETS = {
    "audioset-527": ("tables/labels.tsv", frozenset[str]()),
    "yamnet-521": ("tables/labels.tsv", NOT_IN_YAMNET),
    "audioset-strong": ("tables/strong_labels.tsv", frozenset[str]()),
}
NAMES = tuple(SETS)


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
        name : {"audioset-527", "yamnet-521", "audioset-strong"}
            The strong set has the 456 labels of the events with times, in the order of their ids. Models that
            were trained on a part of them have an order of their own.

        Raises
        ------
        UsageError
            For any other name.

        Source: class_labels_indices.csv, yamnet_class_map.csv and, for the strong labels, mid_to_display_name.tsv.
        Twelve labels that are also among the 527 have another name there: compare labels by id.
        """
        if not isinstance(name, str) or name not in SETS:
            raise UsageError(f"there is no label set {name!r}; expected one of {', '.join(SETS)}")
        table, left_out = SETS[name]
        rows = [row for row in _table(table) if row[0] not in left_out]
        return cls(tuple(row[0] for row in rows), tuple(row[1] for row in rows))

    def __repr__(self) -> str:
        names = [*map(repr, self.names[:3]), *(["..."] if len(self) > 3 else [])]
        return f"<LabelSet of {len(self)} labels: {', '.join(names) or 'none'}>"

    def __len__(self) -> int:
        return len(self.ids)

    def index(self, label: str) -> int:
        """Column of a label, given its id or its display name in any case.

        Raises
        ------
        UsageError
            If there is no such label; the message names the nearest ones.
        """
        if not isinstance(label, str):
            raise UsageError(f"a label is {value_text(label)}; expected an id or a display name")
        try:
            return self._index[label.casefold()]
        except KeyError:
            near = nearest_names(label, self.names)
            hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(f"there is no label {label!r} among these {len(self)}{hint}") from None

    def select(self, indices: Iterable[int]) -> LabelSet:
        """The labels of some columns, in the order of the indices.

        Raises
        ------
        UsageError
            If an index occurs twice, or is not one of a label.
        """
        chosen = list(check_many("indices", indices))
        for index in chosen:
            if check_count("an index", index, 0) >= len(self):
                raise UsageError(f"an index is {index}; expected less than {len(self)}, the number of labels")
        return LabelSet(tuple(self.ids[index] for index in chosen), tuple(self.names[index] for index in chosen))

    @cached_property
    def _index(self) -> dict[str, int]:
        index: dict[str, int] = {}
        for keys in (self.names, self.ids):  # ids last: they win if a name looks like one
            index.update(_first_positions(keys))
        return index


def _first_positions(keys: Sequence[str]) -> dict[str, int]:
    return {key.casefold(): position for position, key in reversed(list(enumerate(keys)))}


def nearest_names(text: str, names: Sequence[str]) -> list[str]:
    """Up to three of the names that are spelt most like a text, as a whole or between their commas; in any case."""
    by_key = {part.casefold(): name for name in reversed(names) for part in name.split(", ")}
    by_key.update((name.casefold(), name) for name in reversed(names))  # a whole name wins over a part of another
    return list(dict.fromkeys(by_key[key] for key in difflib.get_close_matches(text.casefold(), by_key, n=3)))


@lru_cache(maxsize=len(SETS))
def _table(path: str) -> tuple[tuple[str, str], ...]:
    text = resources.files("audioset").joinpath(path).read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((label_id, label) for label_id, label in rows)
