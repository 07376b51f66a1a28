"""Folds in which nothing that belongs together is learned and tested apart.

Source: the order of assignment is iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011): the rarest class
first, each time to the fold that lacks it most. What is assigned here is a whole file or group, not a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from audioset.arrays import Array, DoubleArray, IndexArray
from audioset.errors import DataError, UsageError
from audioset.sounds.collection import Collection

UNASSIGNED = -1
N_SHOWN = 3  # names in messages


def fold_by_file(
    collection: Collection, n_folds: int, seed: int = 0, *, digests: Sequence[str] | None = None
) -> IndexArray:
    """Give each clip a fold, from 0; all clips of a file, and of files with the same content, have one.

    Each class is spread as evenly as whole files allow, and no fold is empty. Another seed gives other folds; the order
    of the clips does not matter. ``digests`` are of the content of each clip's file, as ``Check.digests``.
    ``UsageError`` if there are fewer different files than folds, or fewer than two folds.
    """
    names = _file_names(collection)
    units = _connected([names] if digests is None else [names, digests])
    return _stratified(collection, units, n_folds, seed, "different files")


def fold_by_group(collection: Collection, n_folds: int, seed: int = 0) -> IndexArray:
    """Give each clip a fold, from 0; all clips of a group have one.

    With at most ``n_folds`` groups each is a fold of its own, in the order of their names: leave one group out. Clips
    without a group are spread over the folds, whole files at a time; the seed is for these, and for more groups than
    folds. ``UsageError`` if there are fewer than two groups, or fewer than two folds.
    """
    # An unnamed group is a file's own; the marker keeps a group named as a file apart.
    names = [
        f"group {clip.group}" if clip.group is not None else f"file {name}"
        for clip, name in zip(collection.clips, _file_names(collection), strict=True)
    ]
    units = _connected([names, _file_names(collection)])
    groups = sorted({clip.group for clip in collection.clips if clip.group is not None})
    named = {unit: clip.group for unit, clip in zip(units, collection.clips, strict=True) if clip.group is not None}
    if len(named) < 2:
        found = f"the group {groups[0]!r} alone" if len(groups) == 1 else f"{len(groups)} groups that share files"
        raise UsageError(
            f"the clips have {found if groups else 'no groups'}; expected two or more to learn from one and test on "
            "another. Next step: --group COLUMN, or --group PATTERN with one group in parentheses"
        )
    _check_n_folds(n_folds)
    if len(named) > n_folds:
        return _stratified(collection, units, n_folds, seed, "groups")
    fold_of = {unit: fold for fold, unit in enumerate(dict.fromkeys(_by_group(units, collection)))}
    fixed = np.array([fold_of.get(unit, UNASSIGNED) for unit in units], np.intp)
    return _stratified(collection, units, len(named), seed, "groups", fixed)


def check_no_leak(collection: Collection, parts: Array, *, digests: Sequence[str] | None = None) -> None:
    """Refuse parts that share what must not be learned and tested apart.

    ``parts`` says, for each clip, its fold, or whether it is tested; ``digests`` are of the content of each clip's
    file. ``DataError`` with code ``leak``, if a group, a file or a content is in two parts; the message names some.
    """
    leaks = find_leaks(collection, parts, digests=digests)
    if not leaks:
        return
    found = []
    for kind, names in leaks.items():
        more = f" and {len(names) - N_SHOWN:,} more" if len(names) > N_SHOWN else ""
        found.append(f"{len(names):,} {kind} ({', '.join(names[:N_SHOWN])}{more})")
    raise DataError(
        f"the same {' and '.join(found)} in more than one part of the data: what is tested has been learned. "
        "Next step: give each group to one part, or let --group make the parts",
        code="leak",
    )


def find_leaks(collection: Collection, parts: Array, *, digests: Sequence[str] | None = None) -> dict[str, list[str]]:
    """What is in more than one part: names of ``groups``, ``files`` and ``contents`` (``a.wav = b.wav``)."""
    files = _file_names(collection)
    keys: dict[str, Sequence[str | None]] = {"groups": [clip.group for clip in collection.clips], "files": files}
    leaks = {kind: sorted(_in_several(names, parts)) for kind, names in keys.items()}
    if digests is not None:
        contents = set(_in_several(digests, parts))
        copies: dict[str, set[str]] = {}
        for file, digest in zip(files, digests, strict=True):
            if digest in contents:
                copies.setdefault(digest, set()).add(file)
        leaks["contents"] = sorted(" = ".join(sorted(names)) for names in copies.values() if len(names) > 1)
    return {kind: names for kind, names in leaks.items() if names}


def _in_several(names: Sequence[str | None], parts: Array) -> Iterator[str]:
    """Names that are in more than one part."""
    parts_of: dict[str, set[Any]] = {}
    for name, part in zip(names, parts.tolist(), strict=True):
        if name:
            parts_of.setdefault(name, set()).add(part)
    return (name for name, found in parts_of.items() if len(found) > 1)


def _file_names(collection: Collection) -> list[str]:
    return [str(clip.path) for clip in collection.clips]


def _by_group(units: Sequence[str], collection: Collection) -> list[str]:
    """Units that have a group, in the order of its name."""
    named = [(clip.group, unit) for unit, clip in zip(units, collection.clips, strict=True) if clip.group is not None]
    return [unit for _, unit in sorted(named)]


def _connected(keys: Sequence[Sequence[str]]) -> list[str]:
    """A name for each row; rows that share any of the keys, directly or through others, have the same one.

    An empty key is shared with nobody; the first keys are never empty. The name is the smallest of the last keys, so
    that it does not depend on the order of the rows.
    """
    parents: dict[tuple[int, str], tuple[int, str]] = {}

    def root(node: tuple[int, str]) -> tuple[int, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent]
            node = parent
        return node

    rows = [[(kind, key) for kind, key in enumerate(row) if key] for row in zip(*keys, strict=True)]
    for first, *others in rows:
        for other in others:
            parents[root(other)] = root(first)
    smallest: dict[tuple[int, str], str] = {}
    for nodes in rows:
        name = nodes[-1][1]
        smallest[root(nodes[0])] = min(name, smallest.get(root(nodes[0]), name))
    return [smallest[root(nodes[0])] for nodes in rows]


def _stratified(
    collection: Collection, units: Sequence[str], n_folds: int, seed: int, what: str, fixed: IndexArray | None = None
) -> IndexArray:
    """Fold of each clip; clips with a fold in ``fixed`` keep it."""
    _check_n_folds(n_folds)
    names, rows = np.unique(np.array(units, object), return_inverse=True)
    if len(names) < n_folds:
        raise UsageError(
            f"{len(names)} {what} cannot make {n_folds} folds. Next step: add recordings, or ask for {len(names)} "
            "folds or fewer"
        )
    counts = np.zeros((len(names), len(collection.classes) + 1))  # the last column counts clips
    np.add.at(counts, rows, np.column_stack([collection.targets(), np.ones(len(collection))]))
    folds = np.full(len(names), UNASSIGNED, np.intp)
    if fixed is not None:
        folds[rows] = fixed
    _assign(counts, folds, n_folds, np.random.default_rng(seed))
    found: IndexArray = folds[rows]
    return found


def _assign(counts: DoubleArray, folds: IndexArray, n_folds: int, rng: np.random.Generator) -> None:
    """Give every unit a fold that has none; ``counts`` is (n_units, n_classes + 1), with clips in the last column."""
    lacks = np.repeat(counts.sum(axis=0, keepdims=True) / n_folds, n_folds, axis=0)
    for unit in np.flatnonzero(folds != UNASSIGNED):
        lacks[folds[unit]] -= counts[unit]
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]  # large units first: small ones even them out
    n_left, sizes = np.count_nonzero(folds == UNASSIGNED), np.bincount(folds[folds != UNASSIGNED], minlength=n_folds)
    while (left := order[folds[order] == UNASSIGNED]).size:
        n_having = np.count_nonzero(counts[left], axis=0)
        column = int(np.argmin(np.where(n_having > 0, n_having, np.iinfo(np.intp).max)))
        for unit in left[counts[left, column] > 0]:
            is_empty = sizes == 0
            allowed = is_empty if n_left <= np.count_nonzero(is_empty) else ~np.zeros(n_folds, bool)
            fold = folds[unit] = _neediest(lacks, column, allowed, rng)
            lacks[fold] -= counts[unit]
            sizes[fold] += 1
            n_left -= 1


def _neediest(lacks: DoubleArray, column: int, allowed: Array, rng: np.random.Generator) -> int:
    """The fold that lacks a class most; of several, that which lacks most clips; of several, any."""
    for values in (lacks[:, column], lacks[:, -1]):
        most = np.max(values[allowed])
        allowed = allowed & (values > most - 1e-9)
    return int(rng.choice(np.flatnonzero(allowed)))


def _check_n_folds(n_folds: int) -> None:
    if n_folds < 2:
        raise UsageError(f"the number of folds is {n_folds}; expected 2 or more")
