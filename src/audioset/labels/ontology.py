"""The AudioSet ontology: which sound is a kind of which. It ships with the package.

>>> from audioset import Ontology
>>> ontology = Ontology.load()
>>> [ontology.name(label_id) for label_id in ontology.parents("Hiss")]
['Cat', 'Snake', 'Steam', 'Onomatopoeia']
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from importlib import resources

import numpy as np

from audioset.arguments import check_type, value_text
from audioset.arrays import Array, BoolArray, IndexArray
from audioset.errors import UsageError
from audioset.labels.labels import LabelSet, nearest_names

TABLE = "tables/ontology.tsv"
N_HINTS = 3


@dataclass(frozen=True)
class OntologyClass:
    """One class of sounds.

    Attributes
    ----------
    label_id : str
        Such as ``"/m/0bt9lr"``.
    label : str
        Display name, such as ``"Dog"``.
    restrictions : tuple of str
        ``"abstract"``: a heading, not meant as a label. ``"blacklist"``: not meant as one either, because people
        hardly recognise the sound or know the word. Neither is kept strictly: twelve of the 527 labels are on
        the blacklist, and 28 classes without restrictions are not among them.
    child_ids : tuple of str
        Ids of the classes right below it.
    """

    label_id: str
    label: str
    restrictions: tuple[str, ...]
    child_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ontology:
    """Classes of sounds from the general to the particular; a class may have several parents.

    Every method takes a class by its id or by its display name in any case, returns ids, and lists them in the
    order of the ontology.

    Attributes
    ----------
    classes : tuple of OntologyClass

    Raises
    ------
    UsageError
        If an id occurs twice, a child does not exist, or a class is above itself.

    Source: Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017, and
    ``ontology.json`` of audioset/ontology: all ids, names, links and restrictions are equal.
    """

    classes: tuple[OntologyClass, ...]

    def __post_init__(self) -> None:
        if len(self._by_id) != len(self.classes):
            raise UsageError(f"{len(self.classes)} classes have {len(self._by_id)} ids; expected no id twice")
        children = {child_id for entry in self.classes for child_id in entry.child_ids}
        if missing := children - self._by_id.keys():
            raise UsageError(f"children that are no classes: {', '.join(sorted(missing))}; expected ids of classes")
        _ = self._descendants  # refuses circles

    @classmethod
    def load(cls) -> Ontology:
        """Load the published ontology, 632 classes. It is read once."""
        return _published()

    def __repr__(self) -> str:
        return f"<Ontology of {len(self)} classes>"

    def __len__(self) -> int:
        return len(self.classes)

    def __contains__(self, label: str) -> bool:
        return bool(self._matches(label))

    def find(self, label: str) -> str:
        """Id of a class.

        Parameters
        ----------
        label : str
            Id, or display name in any case.

        Returns
        -------
        str

        Raises
        ------
        UsageError
            If there is no such class; the message names the nearest ones. If several have this name; the
            message lists their ids.
        """
        match self._matches(label):
            case [label_id]:
                return label_id
            case []:
                near = [repr(self.name(label_id)) for label_id in self.search(label)[:N_HINTS]]
                hint = f"; did you mean {' or '.join(near)}?" if near else ""
                raise UsageError(f"there is no class {label!r} in the ontology{hint}")
            case several:
                raise UsageError(
                    f"{len(several)} classes are named {label!r}: {', '.join(several)}. Next step: give the id of one"
                )

    def search(self, text: str) -> tuple[str, ...]:
        """Ids of the classes whose names contain a text, in any case; if there is none, of similar names.

        Parameters
        ----------
        text : str

        Returns
        -------
        tuple of str
            The best first: equal to the text, then beginning with it, then containing it.
        """
        check_type("text", text, str)
        wanted = text.strip().casefold()
        if not wanted:
            return ()
        if found := [entry for entry in self.classes if wanted in entry.label.casefold()]:
            found.sort(key=lambda entry: _rank(entry.label.casefold(), wanted))
            return tuple(entry.label_id for entry in found)
        near = nearest_names(wanted, [entry.label for entry in self.classes])
        return tuple(label_id for name in near for label_id in self._by_name[name.casefold()])

    def name(self, label: str) -> str:
        """Display name of a class."""
        return self._entry(label).label

    def restrictions(self, label: str) -> tuple[str, ...]:
        """``"abstract"`` or ``"blacklist"``, both, or nothing; see ``OntologyClass``."""
        return self._entry(label).restrictions

    def children(self, label: str) -> tuple[str, ...]:
        """Ids of the classes right below a class."""
        return self._entry(label).child_ids

    def parents(self, label: str) -> tuple[str, ...]:
        """Ids of the classes right above a class."""
        return self._parents[self.find(label)]

    def descendants(self, label: str) -> tuple[str, ...]:
        """Ids of all classes below a class, each once, without the class itself."""
        return self._in_order(self._descendants[self.find(label)])

    def ancestors(self, label: str) -> tuple[str, ...]:
        """Ids of all classes above a class, each once, without the class itself."""
        label_id = self.find(label)
        return tuple(other for other, below in self._descendants.items() if label_id in below)

    def paths(self, label: str) -> tuple[tuple[str, ...], ...]:
        """Every way from a root down to a class: ids, the root first and the class last."""
        label_id = self.find(label)
        above = [path for parent_id in self._parents[label_id] for path in self.paths(parent_id)]
        return tuple((*path, label_id) for path in above) or ((label_id,),)

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """Ids of the classes that have no parents."""
        return tuple(label_id for label_id, above in self._parents.items() if not above)

    def subtree(self, labels: LabelSet, *classes: str) -> IndexArray:
        """Columns of the labels that are one of the classes, or below one.

        Parameters
        ----------
        labels : LabelSet
        *classes : str
            Ids or display names.

        Returns
        -------
        ndarray, shape (n_found,), intp
            Ascending; empty if the label set has none of them.

        Raises
        ------
        UsageError
            If the ontology has no such class.

        Examples
        --------
        >>> labels = LabelSet.load("yamnet-521")
        >>> [labels.names[index] for index in Ontology.load().subtree(labels, "Canidae, dogs, wolves")]
        ['Howl', 'Growling', 'Canidae, dogs, wolves']
        """
        wanted = {self.find(label) for label in classes}
        wanted.update(*(self._descendants[label_id] for label_id in tuple(wanted)))
        return np.flatnonzero([label_id in wanted for label_id in labels.ids])

    def roll_up(self, scores: Array, labels: LabelSet) -> Array:
        """Raise each label's score to the highest one among the labels below it.

        The columns stay as they are: classes without a column get none, but what is below them still counts
        for what is above. Labels that the ontology does not have keep their scores.

        Parameters
        ----------
        scores : ndarray, shape (..., n_labels), any real dtype
            Scores, or targets: of 0 and 1, or booleans, it makes each label imply those above it.
        labels : LabelSet
            What the columns mean.

        Returns
        -------
        ndarray, the same shape and dtype
            Nowhere lower than ``scores``; NaN where a score that counts is NaN.

        Raises
        ------
        UsageError
            For another number of columns, or values that are no real numbers.

        Notes
        -----
        AudioSet's own labels are not rolled up: most clips of a dog are not labelled as an animal, too. Networks
        that learned from them may score a class above its parent, and metrics against such labels change.

        Source: hierarchical label propagation, arXiv:2503.21826.
        """
        scores = _checked(np.asarray(scores), labels, "biuf", "real numbers")
        columns, highest = self._reduce_below(np.maximum, scores, labels)
        rolled: Array = scores.copy()
        rolled[..., columns] = np.maximum(rolled[..., columns], highest)
        return rolled

    def leaf_only(self, is_chosen: BoolArray, labels: LabelSet) -> BoolArray:
        """Of the labels chosen in each row, keep the most specific: those with no chosen one below them.

        Parameters
        ----------
        is_chosen : ndarray, shape (..., n_labels), bool
            Such as ``scores >= 0.3``.
        labels : LabelSet
            What the columns mean. Labels that the ontology does not have are kept.

        Returns
        -------
        ndarray, the same shape, bool

        Raises
        ------
        UsageError
            For another number of columns, or values that are not booleans.
        """
        is_chosen = _checked(np.asarray(is_chosen), labels, "b", "booleans, such as scores >= 0.3")
        columns, is_below = self._reduce_below(np.logical_or, is_chosen, labels)
        is_kept: BoolArray = is_chosen.copy()
        is_kept[..., columns] &= ~is_below
        return is_kept

    def _reduce_below(self, function: np.ufunc, values: Array, labels: LabelSet) -> tuple[IndexArray, Array]:
        """The columns that have others below them, and what ``function`` makes of those."""
        columns, members, starts = _columns_below(self, labels)
        return columns, function.reduceat(values[..., members], starts, axis=-1)

    def _entry(self, label: str) -> OntologyClass:
        return self._by_id[self.find(label)]

    def _matches(self, label: str) -> list[str]:
        """Ids that a text may mean: an id wins over names."""
        if not isinstance(label, str):
            raise UsageError(f"a class is {value_text(label)}; expected an id or a display name")
        key = label.strip()
        return [key] if key in self._by_id else self._by_name.get(key.casefold(), [])

    def _in_order(self, label_ids: Collection[str]) -> tuple[str, ...]:
        return tuple(label_id for label_id in self._by_id if label_id in label_ids)

    @cached_property
    def _by_id(self) -> dict[str, OntologyClass]:
        return {entry.label_id: entry for entry in self.classes}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        ids: dict[str, list[str]] = {}
        for entry in self.classes:
            ids.setdefault(entry.label.casefold(), []).append(entry.label_id)
        return ids

    @cached_property
    def _parents(self) -> dict[str, tuple[str, ...]]:
        above: dict[str, list[str]] = {label_id: [] for label_id in self._by_id}
        for entry in self.classes:
            for child_id in entry.child_ids:
                above[child_id].append(entry.label_id)
        return {label_id: tuple(parent_ids) for label_id, parent_ids in above.items()}

    @cached_property
    def _descendants(self) -> dict[str, frozenset[str]]:
        below: dict[str, frozenset[str]] = {}
        for label_id in self._children_first():
            child_ids = self._by_id[label_id].child_ids
            below[label_id] = frozenset(child_ids).union(*(below[child_id] for child_id in child_ids))
        return {label_id: below[label_id] for label_id in self._by_id}

    def _children_first(self) -> Iterator[str]:
        order = TopologicalSorter({entry.label_id: entry.child_ids for entry in self.classes})
        try:
            yield from order.static_order()
        except CycleError as error:
            circle = " → ".join(reversed(error.args[1]))
            raise UsageError(f"classes are above themselves: {circle}; expected no circles") from error


@lru_cache(maxsize=16)
def _columns_below(ontology: Ontology, labels: LabelSet) -> tuple[IndexArray, IndexArray, IndexArray]:
    """Columns that have others below them, all those others, and where each column's begin among them."""
    column = {label_id: index for index, label_id in enumerate(labels.ids)}
    below = {
        column[label_id]: [column[other] for other in ontology.descendants(label_id) if other in column]
        for label_id in labels.ids
        if label_id in ontology._by_id
    }
    below = {index: others for index, others in below.items() if others}
    ends = np.cumsum([0, *map(len, below.values())], dtype=np.intp)
    members = [index for others in below.values() for index in others]
    return np.array(list(below), np.intp), np.array(members, np.intp), ends[:-1]


@lru_cache(maxsize=1)
def _published() -> Ontology:
    text = resources.files("audioset").joinpath(TABLE).read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return Ontology(
        tuple(
            OntologyClass(label_id, label, tuple(restrictions.split()), tuple(child_ids.split()))
            for label_id, label, restrictions, child_ids in rows
        )
    )


def _rank(name: str, wanted: str) -> int:
    return 0 if name == wanted else 1 if name.startswith(wanted) else 2


def _checked(values: Array, labels: LabelSet, kinds: str, expected: str) -> Array:
    """The values, if they have a column for each label and one of the kinds of dtype."""
    check_type("labels", labels, LabelSet)
    if values.shape[-1:] != (len(labels),):
        raise UsageError(
            f"values have shape {values.shape}; expected (..., {len(labels)}), a column for each label. "
            "Likely cause: the labels of another model"
        )
    if values.dtype.kind not in kinds:
        raise UsageError(f"values have dtype {values.dtype}; expected {expected}")
    return values
