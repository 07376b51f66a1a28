"""Samplers: which clips make a batch, and that they go on exactly where they stood."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")

from audioset.train.heads.samplers import clip_weights, make_sampler, split, weighted_draw
from audioset.train.heads.sparse_labels import SparseLabels

NAMES = ("balanced", "uniform", "weighted")


def labels_of(clips, n_classes):
    indices = np.array(list(itertools.chain.from_iterable(clips)), np.int16)
    offsets = np.concatenate([[0], np.cumsum([len(clip) for clip in clips])]).astype(np.int64)
    return SparseLabels(indices, offsets, n_classes)


def random_labels(n_clips=400, n_classes=12, seed=0):
    """The first classes are on most clips, the last on few; some clips have none."""
    rng = np.random.default_rng(seed)
    has = rng.random((n_clips, n_classes)) < 0.5 ** np.arange(1, n_classes + 1)
    has[rng.integers(n_clips, size=n_classes), np.arange(n_classes)] = True
    return labels_of([np.flatnonzero(row) for row in has], n_classes)


def batches(sampler, n_batches):
    return [sampler.next_batch() for _ in range(n_batches)]


def test_labels_without_a_matrix_are_the_matrix():
    labels = random_labels()
    targets = labels.targets(np.arange(len(labels)))
    np.testing.assert_array_equal(labels.counts, targets.sum(0))
    for k, clips in enumerate(labels.clips_of_classes()):
        np.testing.assert_array_equal(clips, np.flatnonzero(targets[:, k]))
    rows = np.array([7, 3, 3, 399])
    np.testing.assert_array_equal(labels.take(rows).targets(np.arange(4)), targets[rows])
    np.testing.assert_allclose(labels.sums(np.arange(12.0)), targets @ np.arange(12.0), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_goes_on_exactly_where_it_stood(name):
    labels = random_labels()
    whole, first = (make_sampler(name, labels, 50, 3) for _ in range(2))
    expected = batches(whole, 60)
    for stop in (1, 7, 23):
        batches(first, stop)
        stored = first.state()
        ahead = batches(first, 5)
        other = make_sampler(name, labels, 50, 3)
        other.restore(stored)
        for a, b in zip(ahead, batches(other, 5), strict=True):
            np.testing.assert_array_equal(a, b)
        first.restore(stored)
    for a, b in zip(expected[31:], batches(first, 29), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides(name):
    labels = random_labels()
    a, b, c = (np.concatenate(batches(make_sampler(name, labels, 50, seed), 5)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert len(a) != len(c) or not np.array_equal(a, c)


def test_uniform_passes_have_each_clip_once_and_end_with_a_short_batch():
    labels = random_labels(n_clips=123)
    drawn = batches(make_sampler("uniform", labels, 50, 0), 6)
    assert [len(batch) for batch in drawn] == [50, 50, 23, 50, 50, 23]
    passes = [np.concatenate(drawn[:3]), np.concatenate(drawn[3:])]
    for order in passes:
        np.testing.assert_array_equal(np.sort(order), np.arange(123))
    assert not np.array_equal(*passes)


def test_balanced_serves_classes_in_turn_and_in_ascending_order():
    n_classes = 20
    labels = labels_of([[k] for k in range(n_classes) for _ in range(30)], n_classes)  # 30 clips of one class each
    sampler = make_sampler("balanced", labels, 15, 0)
    served = [batch // 30 for batch in batches(sampler, 80)]
    for batch in served:
        assert (np.diff(batch) >= 0).all()
        assert np.bincount(batch).max() <= 2
    turns = np.bincount(np.concatenate(served), minlength=n_classes)
    np.testing.assert_array_equal(turns, 80 * 15 // n_classes)  # 60 turns each, in 60 passes over the classes


def test_balanced_gives_each_clip_of_a_class_once_in_a_pass_over_it():
    labels = labels_of([[0]] * 5 + [[1]] * 7, 2)
    sampler = make_sampler("balanced", labels, 2, 0)  # one of each class
    drawn = np.array(batches(sampler, 70))
    for column, first, n_clips in ((0, 0, 5), (1, 5, 7)):
        passes = drawn[:, column].reshape(-1, n_clips)
        np.testing.assert_array_equal(np.sort(passes, 1), np.tile(np.arange(first, first + n_clips), (len(passes), 1)))
        assert len({tuple(order) for order in passes}) > 3


def test_balanced_gives_what_is_left_at_the_end_of_a_class_and_no_more():
    labels = labels_of([[0]] * 3, 1)
    assert [len(batch) for batch in batches(make_sampler("balanced", labels, 2, 0), 4)] == [2, 1, 2, 1]


def test_balanced_may_give_a_clip_twice_for_two_classes_and_passes_over_classes_without_clips():
    labels = labels_of([[0, 2]], 3)
    for batch in batches(make_sampler("balanced", labels, 2, 0), 3):
        np.testing.assert_array_equal(batch, [0, 0])


def test_weights_are_those_of_efficientat():
    labels = random_labels()
    targets = labels.targets(np.arange(len(labels)))
    expected = (targets * (1000 / (100 + targets.sum(0)))).sum(1)
    np.testing.assert_allclose(clip_weights(labels), expected, rtol=1e-6, atol=1e-9)


def test_weighted_draws_are_by_weight_and_without_replacement():
    weights = np.array([1.0, 2.0, 5.0, 0.0])
    rng = np.random.default_rng(0)
    draws = np.array([weighted_draw(weights, 3, rng) for _ in range(20_000)])
    assert all(len(set(draw)) == 3 for draw in draws[:100])
    np.testing.assert_allclose(np.bincount(draws[:, 0], minlength=4) / len(draws), weights / 8, atol=0.015)
    second_after_5 = np.bincount(draws[draws[:, 0] == 2, 1], minlength=4)
    np.testing.assert_allclose(second_after_5 / second_after_5.sum(), [1 / 3, 2 / 3, 0, 0], atol=0.02)
    assert 3 not in draws


def test_a_weighted_pass_is_a_twentieth_of_the_clips_or_as_many_as_asked():
    labels = random_labels()
    assert [len(batch) for batch in batches(make_sampler("weighted", labels, 15, 0), 3)] == [15, 5, 15]
    assert [len(batch) for batch in batches(make_sampler("weighted", labels, 15, 0, 40), 3)] == [15, 15, 10]
    assert len(batches(make_sampler("weighted", labels, 500, 0, 1000), 1)[0]) == 400


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_held_out_part_has_its_share_of_every_class(share):
    labels = random_labels(n_clips=2_000)
    trained_on, held_out = split(labels, share, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([trained_on, held_out])), np.arange(2_000))
    held = labels.take(held_out).counts
    assert (np.abs(held - share * labels.counts) <= np.maximum(1.5, 0.1 * share * labels.counts)).all()
    rarest = np.argmin(labels.counts)
    assert held[rarest] == round(share * labels.counts[rarest])
    assert abs(len(held_out) - share * 2_000) < 60


def test_the_held_out_part_depends_on_the_seed_alone():
    labels = random_labels()
    a, b, c = (split(labels, 0.2, seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
