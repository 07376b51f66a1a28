"""Folds in which nothing that belongs together is learned and tested apart."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audioset.errors import DataError, UsageError
from audioset.sounds.collection import Clip, Collection
from audioset.sounds.splits import check_no_leak, find_leaks, fold_by_file, fold_by_group

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ---- Folds


def collection_of(rows: Sequence[tuple[str, str, str | None]]) -> Collection:
    """Clips of (path, labels with ``;``, group)."""
    clips = tuple(Clip(Path(path), tuple(filter(None, labels.split(";"))), group=group) for path, labels, group in rows)
    return Collection(clips, tuple(sorted({label for clip in clips for label in clip.labels})))


ROWS = st.lists(
    st.tuples(
        st.sampled_from([f"{index:02d}.wav" for index in range(25)]),
        st.lists(st.sampled_from("abcd"), unique=True, max_size=3).map(";".join),
        st.sampled_from([None, "x", "y", "z", "w", "v", "u"]),
    ),
    min_size=8,
    max_size=60,
)


def naive_units(keys: Sequence[tuple[str | None, ...]]) -> list[set[int]]:
    """Sets of rows that share a key, merged until none share one."""
    sets = [{index} for index in range(len(keys))]
    changed = True
    while changed:
        changed = False
        for one, other in itertools.combinations(sets, 2):
            if any(a is not None and a == b for i in one for j in other for a, b in zip(keys[i], keys[j], strict=True)):
                sets.remove(other)
                one |= other
                changed = True
                break
    return sets


@QUICK
@given(rows=ROWS, n_folds=st.integers(2, 6), seed=st.integers(0, 99), n_contents=st.integers(3, 40))
def test_files_and_contents_stay_together_and_no_fold_is_empty(
    rows: list[tuple[str, str, str | None]], n_folds: int, seed: int, n_contents: int
) -> None:
    digests = [str((7 * int(path[:2]) + seed) % n_contents) for path, _, _ in rows]
    collection = collection_of(rows)
    units = naive_units(list(zip([path for path, _, _ in rows], digests, strict=True)))
    if len(units) < n_folds:
        with pytest.raises(UsageError, match=f"{len(units)} different files cannot make {n_folds} folds"):
            fold_by_file(collection, n_folds, seed, digests=digests)
        return
    folds = fold_by_file(collection, n_folds, seed, digests=digests)
    assert set(folds.tolist()) == set(range(n_folds))
    assert all(len({folds[row] for row in unit}) == 1 for unit in units)
    assert set(find_leaks(collection, folds, digests=digests)) <= {"groups"}


@QUICK
@given(rows=ROWS, n_folds=st.integers(2, 6), seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_folds_do_not_depend_on_the_order_of_clips(
    rows: list[tuple[str, str, str | None]], n_folds: int, seed: int, order: random.Random
) -> None:
    if len({path for path, _, _ in rows}) < n_folds:
        return
    shuffled = list(range(len(rows)))
    order.shuffle(shuffled)
    folds = fold_by_file(collection_of(rows), n_folds, seed)
    again = fold_by_file(collection_of([rows[index] for index in shuffled]), n_folds, seed)
    np.testing.assert_array_equal(again, folds[shuffled])


@QUICK
@given(rows=ROWS, n_folds=st.integers(2, 7), seed=st.integers(0, 9))
def test_groups_stay_together(rows: list[tuple[str, str, str | None]], n_folds: int, seed: int) -> None:
    # A file is of one group here; what happens else has a test of its own.
    groups = {path: group for path, _, group in rows}
    rows = [(path, labels, groups[path]) for path, labels, _ in rows]
    collection = collection_of(rows)
    names = sorted({group for group in groups.values() if group is not None})
    if len(names) < 2:
        with pytest.raises(UsageError, match="expected two or more to learn from one and test on another"):
            fold_by_group(collection, n_folds, seed)
        return
    folds = fold_by_group(collection, n_folds, seed)
    check_no_leak(collection, folds)
    assert set(folds.tolist()) == set(range(min(n_folds, len(names))))
    if len(names) <= n_folds:
        for fold, name in enumerate(names):
            assert {fold} == {found for found, clip in zip(folds, collection.clips, strict=True) if clip.group == name}


@pytest.mark.parametrize("n_folds", [2, 5, 7])
def test_single_labels_are_spread_to_within_one(n_folds: int) -> None:
    counts = {"a": 23, "b": 8, "c": 3, "d": 41}
    rows = [(f"{label}{index}.wav", label, None) for label, count in counts.items() for index in range(count)]
    folds = fold_by_file(collection_of(rows), n_folds)
    for label in counts:
        found = np.bincount(folds[[row[1] == label for row in rows]], minlength=n_folds)
        assert found.max() - found.min() <= 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 2


def test_several_labels_are_spread_better_than_by_chance() -> None:
    rng = np.random.default_rng(0)
    frequencies = np.array([0.5, 0.2, 0.05, 0.02])
    rows = [
        (f"{index}.wav", ";".join(np.array(list("abcd"))[rng.random(4) < frequencies]), None) for index in range(400)
    ]
    collection = collection_of(rows)
    targets = collection.targets()

    def spreads(folds: np.ndarray) -> np.ndarray:
        counts = np.stack([targets[folds == fold].sum(axis=0) for fold in range(5)])
        return counts.max(axis=0) - counts.min(axis=0)

    stratified = spreads(fold_by_file(collection, 5))
    chance = np.mean([spreads(rng.permutation(400) % 5) for _ in range(20)], axis=0)
    assert stratified.max() <= 2
    assert stratified.sum() < 0.3 * chance.sum()


def test_seeds_make_folds_and_nothing_else_does() -> None:
    rows = [(f"{index}.wav", "ab"[index % 2], None) for index in range(40)]
    first = fold_by_file(collection_of(rows), 5, seed=1)
    np.testing.assert_array_equal(first, fold_by_file(collection_of(rows), 5, seed=1))
    assert (first != fold_by_file(collection_of(rows), 5, seed=2)).any()


def test_clips_without_a_group_are_spread_beside_the_groups() -> None:
    rows = [(f"{group}{index}.wav", "a", group) for group in "xy" for index in range(5)]
    rows += [(f"free{index}.wav", "", None) for index in range(20)]
    folds = fold_by_group(collection_of(rows), 5)
    assert np.bincount(folds[10:]).tolist() == [10, 10]


def test_groups_that_share_a_file_are_one() -> None:
    rows = [("1.wav", "a", "x"), ("1.wav", "b", "y"), ("2.wav", "a", "y"), ("3.wav", "b", "z")]
    assert fold_by_group(collection_of(rows), 5).tolist() == [0, 0, 0, 1]
    with pytest.raises(UsageError, match="2 groups that share files"):
        fold_by_group(collection_of(rows[:3]), 5)


@pytest.mark.parametrize("fold", [fold_by_file, fold_by_group])
def test_one_fold_is_none(fold) -> None:
    rows = [(f"{index}.wav", "a", str(index)) for index in range(4)]
    with pytest.raises(UsageError, match="the number of folds is 1; expected 2 or more"):
        fold(collection_of(rows), 1)


def test_unreadable_files_without_a_digest_do_not_belong_together() -> None:
    rows = [(f"{index}.wav", "a", None) for index in range(6)]
    folds = fold_by_file(collection_of(rows), 3, digests=[""] * 6)
    assert np.bincount(folds).tolist() == [2, 2, 2]


def test_leaks_are_named(tmp_path: Path) -> None:
    collection = collection_of([("1.wav", "a", "x"), ("1.wav", "a", "y"), ("2.wav", "a", "x"), ("3.wav", "a", "z")])
    parts = np.array([False, True, True, False])
    digests = ["p", "p", "q", "q"]
    assert find_leaks(collection, parts, digests=digests) == {
        "groups": ["x"],
        "files": ["1.wav"],
        "contents": ["2.wav = 3.wav"],
    }
    with pytest.raises(DataError, match=r"1 groups \(x\) and 1 files \(1.wav\) in more than one part") as caught:
        check_no_leak(collection, parts)
    assert caught.value.code == "leak"
