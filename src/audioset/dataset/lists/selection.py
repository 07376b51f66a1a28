"""Choose clips of a list: by labels, by ids, or at random, and always in the order of the list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from audioset.arrays import BoolArray, IndexArray, UInt64Array
from audioset.dataset.lists.clip_names import clip_names
from audioset.dataset.lists.segments import SegmentList
from audioset.errors import DataError, UsageError
from audioset.files import read_input
from audioset.labels.ontology import Ontology

FIRST_CELL = re.compile(r'[^\s,;"]+')
HEADINGS = frozenset(("audio_name", "file", "filename", "id", "name", "segment_id", "video_id", "youtube_id", "ytid"))


@dataclass(frozen=True)
class Selection:
    """Which clips to keep. Whatever is given has to hold.

    Attributes
    ----------
    any_of : tuple of str
        Ids or display names of classes: a clip has a label that is one of them or, in the ontology, below one.
    all_of : tuple of str
        The same, for each of them.
    is_exact : bool
        Labels below a class do not count.
    video_ids : frozenset of str, optional
        The clip's id is one of them.
    excluded_ids : frozenset of str
        The clip's id is none of them.
    n_random : int, optional
        Of those, this many at random.
    n_per_class : int, optional
        Of those, so many at random that each class has this many, or all there are: see ``balanced_rows``. Classes
        are the labels that ``any_of`` means; if there are none, all.
    seed : int
        For both.
    limit : int, optional
        Of those, the first ones.
    """

    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    is_exact: bool = False
    video_ids: frozenset[str] | None = None
    excluded_ids: frozenset[str] = frozenset()
    n_random: int | None = None
    n_per_class: int | None = None
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.n_random is not None and self.n_per_class is not None:
            raise UsageError("n_random and n_per_class are both given; expected one way to choose at random")
        for name in ("n_random", "n_per_class", "limit"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; expected a number of clips, 0 or more")


def select(segments: SegmentList, selection: Selection) -> SegmentList:
    """The clips of a list that a selection means.

    Parameters
    ----------
    segments : SegmentList
    selection : Selection

    Returns
    -------
    SegmentList
        In the same order; it may be empty.

    Raises
    ------
    UsageError
        If the ontology has no such class.
    """
    chosen = segments.take(_is_meant(segments, selection))
    if selection.n_random is not None:
        ranks = random_ranks(chosen, selection.seed)
        chosen = chosen.take(np.sort(np.argsort(ranks, kind="stable")[: selection.n_random]))
    if selection.n_per_class is not None:
        wanted = _labels_of(selection.any_of, is_exact=selection.is_exact) or None
        chosen = chosen.take(balanced_rows(chosen, selection.n_per_class, selection.seed, wanted))
    return chosen[: selection.limit]


def labels_below(label: str, *, is_exact: bool = False) -> frozenset[str]:
    """Ids of a class and, unless ``is_exact``, of all classes below it."""
    ontology = Ontology.load()
    return frozenset((ontology.find(label), *(() if is_exact else ontology.descendants(label))))


def random_ranks(segments: SegmentList, seed: int) -> UInt64Array:
    """A number for each clip that looks random, and depends on nothing but the seed and the clip's id.

    So the same clips are chosen on every machine and from a list in any order, and 100 are among the 1,000 of the
    same seed. It is the first eight bytes, the highest first, of BLAKE2b of the id, keyed with the seed in decimals.
    """
    state = blake2b(digest_size=8, key=str(seed).encode())

    def digest(video_id: bytes) -> bytes:
        copy = state.copy()
        copy.update(video_id)
        return copy.digest()

    return np.frombuffer(b"".join(map(digest, segments.video_ids.tolist())), ">u8").astype(np.uint64)


def balanced_rows(
    segments: SegmentList, n_per_class: int, seed: int = 0, label_ids: Iterable[str] | None = None
) -> IndexArray:
    """Rows of clips such that each class has at least ``n_per_class`` of them, or all it has.

    Classes take their turns from the rarest to the most frequent, those of equal number by id. Each counts the clips
    that earlier ones have chosen and that have its label, too, and then takes more, in the order of
    ``random_ranks``, until it has enough. So a frequent class may get more clips, along with rarer ones.
    """
    order = np.argsort(random_ranks(segments, seed), kind="stable")
    index = segments.set_index[order]
    occurring = set().union(*segments.label_sets)
    wanted = occurring if label_ids is None else occurring.intersection(label_ids)
    is_with: dict[str, BoolArray] = {label: np.zeros(len(segments.label_sets), bool) for label in wanted}
    for position, labels in enumerate(segments.label_sets):
        for label in wanted.intersection(labels):
            is_with[label][position] = True
    n_clips = {label: int(segments.set_counts[is_set].sum()) for label, is_set in is_with.items()}
    is_chosen = np.zeros(len(segments), bool)
    for label in sorted(wanted, key=lambda label: (n_clips[label], label)):
        has_label = is_with[label][index]
        n_missing = n_per_class - int((has_label & is_chosen).sum())
        if n_missing > 0:
            is_chosen[np.flatnonzero(has_label & ~is_chosen)[:n_missing]] = True
    return np.sort(order[is_chosen])


def read_video_ids(path: str | os.PathLike[str]) -> frozenset[str]:
    """Read a file of ids: one on each line, alone or in the first of several columns.

    A name that is made of an id counts as one, in any of the forms that ``clip_names`` reads: ``ID_30.000_40.000.wav``
    as in the lists of DCASE, ``ID_30000`` as in the labels with times, ``YID.wav`` as in PANNs. Lines that begin with
    ``#`` and empty ones count as nothing, and so does a first line with the name of the column.

    Parameters
    ----------
    path : path

    Returns
    -------
    frozenset of str

    Raises
    ------
    DataError
        If it cannot be read, or a line has no id.
    """
    path = Path(path)
    try:
        lines = read_input(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; expected text with an id on each line") from error
    found = set()
    for number, line in enumerate(lines, 1):
        cell = FIRST_CELL.search(line)
        if cell is None or (line.startswith("#") and not line.startswith("#NAME?")):
            continue
        if name := next(clip_names(cell[0]), None):
            found.add(name.video_id)
        elif number > 1 or cell[0].casefold() not in HEADINGS:
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} has no id of a video; expected 11 letters, digits, '-' and '_'. "
                "Likely cause: a spreadsheet, which takes ids that begin with '-' for formulas. "
                "Next step: write that line anew"
            )
    return frozenset(found)


def _is_meant(segments: SegmentList, selection: Selection) -> BoolArray:
    """Whether each clip has the labels and one of the ids."""
    is_meant = np.ones(len(segments), bool)
    if selection.any_of:
        is_meant &= segments.has_any(_labels_of(selection.any_of, is_exact=selection.is_exact))
    for label in selection.all_of:
        is_meant &= segments.has_any(labels_below(label, is_exact=selection.is_exact))
    if selection.video_ids is not None:
        is_meant &= _is_one_of(segments, selection.video_ids)
    if selection.excluded_ids:
        is_meant &= ~_is_one_of(segments, selection.excluded_ids)
    return is_meant


def _labels_of(classes: Iterable[str], *, is_exact: bool) -> frozenset[str]:
    return frozenset().union(*(labels_below(label, is_exact=is_exact) for label in classes))


def _is_one_of(segments: SegmentList, video_ids: frozenset[str]) -> BoolArray:
    wanted = {video_id.encode() for video_id in video_ids}
    return np.fromiter((video_id in wanted for video_id in segments.video_ids.tolist()), bool, len(segments))
