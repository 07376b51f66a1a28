"""Thresholds and maps: learned, measured, stored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audioset import LabelSet, Model, Prediction, load_model
from audioset.calibration import Calibration
from audioset.calibration.fit import Recipe, best_threshold, fit, measure
from audioset.calibration.score_maps import (
    MAX_BLOCKS,
    IsotonicMap,
    PlattMap,
    fit_isotonic,
    fit_platt,
    map_from_record,
)
from audioset.errors import UsageError, WeightsError
from audioset.labels.events import scores_to_events
from audioset.models.folders import copy_model
from audioset.weights.model_folder import ModelCard, copy_model_folder, read_card, write_model_folder

LABELS = LabelSet(("/m/a", "/m/b", "/m/c"), ("A", "B", "C"))
some_scores = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0**-30, 1 - 2.0**-24]),
    st.floats(0, 1, width=32),
)
labelled = st.lists(st.tuples(some_scores, st.booleans()), min_size=1, max_size=40)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([score for score, _ in pairs], np.float32), np.array([is_there for _, is_there in pairs], bool)


def f1_precision_recall(scores: np.ndarray, is_positive: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """By counting, one clip at a time, as ``EventDetector`` compares."""
    called = [score >= np.float32(threshold) for score in scores]
    found = sum(a and b for a, b in zip(called, is_positive, strict=True))
    n_wrong = sum(called) + sum(is_positive)
    return 2 * found / n_wrong, found / max(1, sum(called)), found / sum(is_positive)


def random_clips(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of three labels that mean less than they say, and whether the labels are there."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.5, 1.5, (n, 3)).astype(np.float32)
    return scores, rng.random((n, 3)) < scores**2


# -- thresholds


@given(labelled)
def test_the_threshold_has_the_best_f1_of_all(pairs: list[tuple[float, bool]]) -> None:
    scores, is_positive = arrays([*pairs, (0.5, True)])
    threshold = best_threshold(scores, is_positive)
    everywhere = [0.0, *scores.tolist(), *np.nextafter(scores, np.float32(2)).tolist()]
    best = max(f1_precision_recall(scores, is_positive, other)[0] for other in everywhere)
    assert 0 <= threshold <= 1
    assert f1_precision_recall(scores, is_positive, threshold)[0] == best


@given(labelled, st.sampled_from([0.3, 0.5, 0.9, 1.0]))
def test_the_threshold_has_the_highest_recall_at_a_precision(pairs: list[tuple[float, bool]], floor: float) -> None:
    scores, is_positive = arrays([*pairs, (0.5, True)])
    threshold = best_threshold(scores, is_positive, floor)
    qualities = [f1_precision_recall(scores, is_positive, score) for score in scores.tolist()]
    recalls = [recall for _, precision, recall in qualities if precision >= floor]
    if not recalls:
        assert threshold is None
        return
    _, precision, recall = f1_precision_recall(scores, is_positive, threshold)
    assert precision >= floor
    assert recall == max(recalls)


@given(labelled, st.randoms(use_true_random=False))
def test_the_threshold_does_not_depend_on_the_order(pairs: list[tuple[float, bool]], random: Any) -> None:
    pairs = [*pairs, (0.5, True)]
    shuffled = random.sample(pairs, len(pairs))
    assert best_threshold(*arrays(pairs)) == best_threshold(*arrays(shuffled))


@pytest.mark.parametrize(
    ("scores", "targets", "threshold"),
    [
        ([0.2, 0.6], [0, 1], 0.4),
        ([0.2, 0.6, 0.6], [0, 1, 0], 0.4),
        ([0.1, 0.3, 0.7], [1, 1, 1], 0.05),  # all have it
        ([0.0, 0.0], [1, 0], 0.0),
        ([0.5, 0.5 + 2**-24], [0, 1], 0.5 + 2**-24),  # neighbours in float32
        ([0.3, 0.6, 0.9], [0, 1, 1], 0.45),
        ([0.3, 0.6, 0.7, 0.9], [1, 0, 0, 1], 0.8),  # as good as 0.15, and higher
    ],
)
def test_thresholds_that_are_known(scores: list[float], targets: list[int], threshold: float) -> None:
    assert best_threshold(np.array(scores), np.array(targets, bool)) == pytest.approx(threshold, abs=6e-8)


def test_a_threshold_is_as_short_as_it_can_be() -> None:
    scores = np.array([0.123456, 0.456789])
    assert best_threshold(scores, np.array([False, True])) == 0.29


# -- maps


@settings(deadline=None)
@given(labelled)
def test_platt_is_where_the_loss_is_flat(pairs: list[tuple[float, bool]]) -> None:
    scores, is_positive = arrays(pairs)
    platt = fit_platt(scores, is_positive)
    if platt is None:
        return
    n_positives, n = is_positive.sum(), len(scores)
    targets = np.where(is_positive, (n_positives + 1) / (n_positives + 2), 1 / (n - n_positives + 2))
    inside = np.clip(scores.astype(float), 1e-7, 1 - 1e-7)
    logits = np.log(inside / (1 - inside))
    excess = 1 / (1 + np.exp(-(platt.slope * logits + platt.offset))) - targets
    assert abs(excess.sum()) < 1e-6 * n
    assert abs((excess * (logits - logits.mean()) / logits.std()).sum()) < 1e-6 * n


def test_platt_equals_scikit_learn_on_the_same_targets() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    scores, is_positive = (column[:, 0] for column in random_clips(2_000))
    inside = np.clip(scores.astype(float), 1e-7, 1 - 1e-7)
    logits = np.log(inside / (1 - inside))[:, None]
    high = (is_positive.sum() + 1) / (is_positive.sum() + 2)
    low = 1 / ((~is_positive).sum() + 2)
    targets = np.where(is_positive, high, low)
    theirs = linear_model.LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    twice = (np.tile(logits, (2, 1)), np.repeat([1, 0], len(scores)), np.concatenate([targets, 1 - targets]))
    theirs.fit(*twice)
    ours = fit_platt(scores, is_positive)
    assert ours is not None
    assert ours.slope == pytest.approx(theirs.coef_[0, 0], rel=1e-4)
    assert ours.offset == pytest.approx(theirs.intercept_[0], rel=1e-4)


@pytest.mark.parametrize("fit_map", [fit_platt, fit_isotonic])
@pytest.mark.parametrize(
    ("scores", "targets"),
    [([0.4, 0.4, 0.4], [0, 1, 0]), ([0.1, 0.9], [1, 0]), ([0.3], [1]), ([0.2, 0.8, 0.5], [1, 0, 0])],
)
def test_no_map_where_higher_scores_do_not_mean_the_label(
    fit_map: Any, scores: list[float], targets: list[int]
) -> None:
    assert fit_map(np.array(scores, np.float32), np.array(targets, bool)) is None


def test_platt_finds_neighbouring_scores_and_perfect_separation() -> None:
    close = fit_platt(np.array([0.5, 0.5 + 2**-24]), np.array([False, True]))
    apart = fit_platt(np.array([0.0] * 500 + [1.0] * 500), np.repeat([False, True], 500))
    assert close is not None
    assert close.slope > 1e6
    assert apart is not None
    assert 0 < apart.slope < 1


def naive_pav(scores: np.ndarray, is_positive: np.ndarray) -> dict[float, float]:
    """For each score the largest, over lower bounds, of the smallest, over upper bounds, mean between them."""
    values = sorted(set(scores.tolist()))

    def mean(low: float, high: float) -> float:
        return float(is_positive[(scores >= low) & (scores <= high)].mean())

    return {
        value: max(min(mean(low, high) for high in values if high >= value) for low in values if low <= value)
        for value in values
    }


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(some_scores, st.booleans()), min_size=1, max_size=15))
def test_isotonic_equals_the_min_max_formula(pairs: list[tuple[float, bool]]) -> None:
    scores, is_positive = arrays(pairs)
    expected = naive_pav(scores, is_positive)
    isotonic = fit_isotonic(scores, is_positive)
    if isotonic is None:
        assert len(set(expected.values())) == 1
        return
    assert isotonic(np.array(list(expected))) == pytest.approx(list(expected.values()), abs=1e-12)


def test_isotonic_equals_scikit_learn() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    scores, is_positive = (column[:, 1] for column in random_clips(1_000))
    theirs = isotonic.IsotonicRegression().fit(scores.astype(float), is_positive)
    ours = fit_isotonic(scores, is_positive)
    assert ours is not None
    assert ours(scores) == pytest.approx(theirs.predict(scores.astype(float)), abs=1e-9)


def test_isotonic_keeps_a_bounded_number_of_breakpoints_and_the_mean() -> None:
    n_blocks = 3 * MAX_BLOCKS  # share of positives k / n_blocks at the k-th score
    scores = np.repeat(np.linspace(0, 1, n_blocks), n_blocks)
    is_positive = np.concatenate([np.arange(n_blocks) < k for k in range(n_blocks)])
    isotonic = fit_isotonic(scores, is_positive)
    assert isotonic is not None
    assert MAX_BLOCKS < len(isotonic.scores) <= 2 * MAX_BLOCKS
    assert isotonic(scores).mean() == pytest.approx(is_positive.mean(), abs=1e-9)
    assert isotonic(scores) == pytest.approx(scores, abs=2 / MAX_BLOCKS)


@settings(deadline=None)
@given(labelled, st.lists(some_scores, min_size=2, max_size=20), st.sampled_from([fit_platt, fit_isotonic]))
def test_maps_never_fall_stay_within_0_and_1_and_are_read_back(
    pairs: list[tuple[float, bool]], others: list[float], fit_map: Any
) -> None:
    score_map = fit_map(*arrays(pairs))
    if score_map is None:
        return
    mapped = score_map(np.sort(np.array(others)))
    assert (np.diff(mapped) >= 0).all()
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    assert map_from_record(json.loads(json.dumps(score_map.to_record()))) == score_map


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "a map of scores is None; expected kind 'platt'"),
        ({"kind": "beta"}, r"a map of scores is \['kind'\]"),
        ({"kind": "platt", "slope": 1}, r"is \['kind', 'slope'\]"),
        ({"kind": "platt", "slope": 1, "offset": 0, "more": 0}, "'more'"),
        ({"kind": "platt", "slope": -1, "offset": 0}, "slope is -1.0 and offset 0.0"),
        ({"kind": "platt", "slope": 1, "offset": float("nan")}, "offset nan"),
        ({"kind": "platt", "slope": "1", "offset": 0}, "'1' is no number"),
        ({"kind": "platt", "slope": True, "offset": 0}, "True is no number"),
        ({"kind": "isotonic", "scores": [], "values": []}, "0 breakpoints have 0 values"),
        ({"kind": "isotonic", "scores": [0, 1], "values": [0]}, "2 breakpoints have 1 values"),
        ({"kind": "isotonic", "scores": [0, 1], "values": [0, 1.5]}, r"all in \[0, 1\]"),
        ({"kind": "isotonic", "scores": [0, 1], "values": [1, 0]}, "never falls"),
        ({"kind": "isotonic", "scores": [1, 1], "values": [0, 1]}, "do not rise"),
        ({"kind": "isotonic", "scores": [0] * 300, "values": [0] * 300}, "300 breakpoints"),
    ],
)
def test_bad_maps_are_refused(record: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        map_from_record(record)


# -- fit


@pytest.mark.parametrize("kind", ["none", "platt", "isotonic"])
def test_thresholds_keep_the_f1_that_they_were_chosen_for(kind: str) -> None:
    scores, targets = random_clips()
    found = fit(scores, targets, LABELS, recipe=Recipe(kind))
    mapped = found.calibration.apply(scores, LABELS)
    for index, label in enumerate(found.labels):
        column = mapped[:, index]
        best = max(f1_precision_recall(column, targets[:, index], value)[0] for value in column.tolist())
        heard = np.zeros((800, 3), np.float32)
        heard[::2, index] = column  # with silence between the clips, each is an event or none
        start_s = np.arange(800.0)
        events = scores_to_events(heard, start_s, start_s + 1, LABELS, found.calibration.settings(LABELS))
        called = np.isin(start_s[::2], [event.start_s for event in events])
        quality = measure(column, called, targets[:, index])
        assert quality.f1 == pytest.approx(best)
        assert label.outcome == "calibrated"
        assert (label.score_map is None) == (kind == "none")


def test_maps_make_scores_honest_on_clips_that_they_have_not_seen() -> None:
    found = fit(*random_clips(2_000), LABELS, recipe=Recipe("platt"))
    for label in found.labels:
        assert label.after is not None
        assert label.after.calibration_error < 0.5 * label.before.calibration_error
        assert label.after.brier < label.before.brier
        assert label.after.f1 >= label.before.f1 - 0.02


def test_a_fit_does_not_depend_on_the_order_of_the_clips() -> None:
    scores, targets = random_clips()
    order = np.random.default_rng(1).permutation(len(scores))
    one = fit(scores, targets, LABELS, recipe=Recipe("isotonic")).calibration
    other = fit(scores[order], targets[order], LABELS, recipe=Recipe("isotonic")).calibration
    assert one == other
    assert one.made_from["labels_digest"].startswith("sha256:")
    less = fit(scores, targets & (scores < 0.9), LABELS, recipe=Recipe("isotonic")).calibration
    assert less.made_from["labels_digest"] != one.made_from["labels_digest"]


def test_the_evaluation_never_learns_from_the_recording_it_looks_at() -> None:
    rng = np.random.default_rng(0)
    recordings = np.repeat(np.arange(40), 10)
    level = rng.random(40)[recordings].astype(np.float32)  # each recording has a score of its own, by chance
    is_there = (rng.random(40) < 0.5)[recordings]
    scores, targets = np.stack([level] * 3, axis=1), np.stack([is_there] * 3, axis=1)
    apart = fit(scores, targets, LABELS, recordings=recordings, recipe=Recipe("isotonic")).labels[0].after
    mixed = fit(scores, targets, LABELS, recipe=Recipe("isotonic")).labels[0].after
    assert apart is not None
    assert mixed is not None
    assert apart.brier > mixed.brier + 0.02


def test_what_cannot_be_learned_is_said() -> None:
    scores = np.tile(np.array([[0.9, 0.5, 0.5]], np.float32), (20, 1))
    scores[:, 0] = np.linspace(0.1, 0.9, 20)
    targets = np.zeros((20, 3), bool)
    targets[0, 0] = True  # the lowest score
    targets[:, 1] = True
    targets[:3, 2] = True
    strict = Recipe(min_precision=0.9, min_positives=1)
    found = fit(scores, targets, LABELS, recipe=strict)
    assert [label.outcome for label in found.labels] == [
        "precision_not_reached",
        "no_negatives",
        "precision_not_reached",
    ]
    assert found.labels[0].after is None  # one clip alone has it
    assert found.calibration.thresholds == {"/m/a": None, "/m/c": None}
    few = fit(scores, targets, LABELS, recipe=Recipe(min_positives=4))
    assert [label.outcome for label in few.labels] == ["too_few_positives", "no_negatives", "too_few_positives"]
    assert few.calibration.thresholds == {}
    with_one = fit(scores[:1], targets[:1], LABELS)
    assert {label.outcome for label in with_one.labels} == {"too_few_positives"}


def test_labels_that_no_clip_has_are_left_alone() -> None:
    scores, targets = random_clips()
    targets[:, 1] = False
    found = fit(scores, targets, LABELS)
    assert [label.label for label in found.labels] == ["A", "C"]
    assert set(found.calibration.thresholds) == {"/m/a", "/m/c"}


def test_quality_is_as_its_definitions_say() -> None:
    scores = np.array([0.05, 0.15, 0.15, 0.95], np.float32)
    is_there = np.array([False, True, False, True])
    quality = measure(scores, scores >= 0.1, is_there)
    assert (quality.f1, quality.precision, quality.recall) == pytest.approx((0.8, 2 / 3, 1))
    assert quality.brier == pytest.approx((0.05**2 + 0.85**2 + 0.15**2 + 0.05**2) / 4)
    assert quality.calibration_error == pytest.approx((0.05 + 2 * abs(0.15 - 0.5) + 0.05) / 4)
    nothing = measure(scores, np.zeros(4, bool), np.zeros(4, bool))
    assert (nothing.f1, nothing.precision, nothing.recall) == (0, 0, 0)


def test_brier_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, targets = (column[:, 0] for column in random_clips())
    quality = measure(scores, scores >= 0.5, targets)
    assert quality.brier == pytest.approx(metrics.brier_score_loss(targets, scores))
    assert quality.f1 == pytest.approx(metrics.f1_score(targets, scores >= 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores, targets: (scores[:, :2], targets), r"the shape \(400, 2\) and targets \(400, 3\)"),
        (lambda scores, targets: (scores[:9], targets), r"the shape \(9, 3\)"),
        (lambda scores, targets: (scores[:0], targets[:0]), r"the shape \(0, 3\)"),
        (lambda scores, targets: (scores[0], targets[0]), r"the shape \(3,\)"),
        (lambda scores, targets: (np.where(targets, np.nan, scores), targets), "NaN, or logits"),
        (lambda scores, targets: (scores * 9, targets), r"not all in \[0, 1\]"),
        (lambda scores, targets: (scores.astype(str), targets), r"not all in \[0, 1\]"),
        (lambda scores, targets: (scores, targets * 2), "not all 0 or 1"),
        (lambda scores, targets: (scores, np.where(targets, np.nan, 0)), "not all 0 or 1"),
        (lambda scores, targets: (scores, targets & False), "none of the 400 clips has any of the 3 labels"),
    ],
)
def test_bad_arrays(change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(*change(*random_clips()), LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map": "beta"}, "map is 'beta'; expected one of none, platt, isotonic"),
        ({"min_precision": 0}, r"min_precision is 0; expected a share in \(0, 1\]"),
        ({"min_precision": 90}, "min_precision is 90"),
        ({"min_precision": float("nan")}, "min_precision is nan"),
        ({"min_positives": 0}, "min_positives is 0"),
        ({"n_folds": 1}, "n_folds 1; expected at least 1 and 2"),
    ],
)
def test_bad_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe(**changes)


def test_recordings_are_one_for_each_clip() -> None:
    with pytest.raises(UsageError, match="400 clips have 2 recordings"):
        fit(*random_clips(), LABELS, recordings=["a", "b"])


# -- the record, the model folder, and what uses them

STORED = Calibration(
    {"/m/a": 0.25, "/m/b": None}, {"/m/a": PlattMap(2.0, -1.0), "/m/c": IsotonicMap((0.2, 0.8), (0.1, 0.6))}, {"n": 1}
)


def test_a_record_is_read_back() -> None:
    assert Calibration.from_record(json.loads(json.dumps(STORED.to_record())), LABELS) == STORED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: [], r"calibration is \[\]; expected an object with a version"),
        (lambda record: {}, "is an object without one; expected an object with a version"),
        (lambda record: {**record, "version": 2}, "has version 2; .* Next step: update audioset"),
        (lambda record: {**record, "version": True}, "has version True"),
        (lambda record: {**record, "more": 1}, "has the fields made_from, maps, more"),
        (lambda record: {**record, "maps": []}, "three of them objects"),
        (lambda record: {**record, "thresholds": {"/m/a": "0.5"}}, "the threshold '0.5' of /m/a"),
        (lambda record: {**record, "thresholds": {"/m/a": True}}, "the threshold True of /m/a"),
        (lambda record: {**record, "thresholds": {"/m/a": 1.5}}, "threshold of /m/a is 1.5"),
        (lambda record: {**record, "thresholds": {"/m/a": float("nan")}}, "threshold of /m/a is nan"),
        (lambda record: {**record, "thresholds": {"/m/x": 0.5}}, "is of '/m/x', which is none of its 3 labels"),
        (lambda record: {**record, "maps": {"/m/x": {}}}, "is of '/m/x'"),
        (lambda record: {**record, "maps": {"/m/a": {"kind": "beta"}}}, "a map of scores is"),
    ],
)
def test_bad_records_are_refused(change: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        Calibration.from_record(change(STORED.to_record()), LABELS)


def test_maps_change_only_the_labels_that_have_one() -> None:
    scores = np.full((2, 3), 0.5, np.float32)
    mapped = STORED.apply(scores, LABELS)
    assert mapped[0] == pytest.approx([1 / (1 + np.e), 0.5, 0.35])
    assert (scores == 0.5).all()
    assert mapped.dtype == np.float32
    assert STORED.apply(scores[:, 2:], LABELS.select([2]))[0] == pytest.approx([0.35])


def test_stored_thresholds_hold_unless_others_are_given() -> None:
    inf = np.inf
    assert STORED.settings(LABELS).thresholds(LABELS)[0].tolist() == [0.25, inf, 0.5]
    assert STORED.settings(LABELS, 0.4).thresholds(LABELS)[0].tolist() == [0.4, 0.4, 0.4]
    assert STORED.settings(LABELS, None, {"a": 0.9, "/m/c": 0.1}).thresholds(LABELS)[0].tolist() == [0.9, inf, 0.1]
    high, low = STORED.settings(LABELS, low_threshold=0.3, max_gap_s=1).thresholds(LABELS)
    assert (high.tolist(), low.tolist()) == ([0.25, inf, 0.5], [0.25, inf, 0.3])
    part = LABELS.select([0])
    assert STORED.settings(part).thresholds(part)[0].tolist() == [0.25]
    with pytest.raises(UsageError, match="there is no label 'X'"):
        STORED.settings(LABELS, None, {"X": 0.5})


def test_a_prediction_keeps_its_scores_and_uses_the_calibration_for_events() -> None:
    scores = np.array([[0.9, 0.9, 0.9], [0.5, 0.0, 0.0]], np.float32)
    prediction = Prediction(
        scores, np.zeros((2, 1), np.float32), np.zeros((0, 64), np.float32), *np.array([[0, 1], [1, 2.0]]), 2.0, LABELS
    )
    assert [event.label for event in prediction.events()] == ["A", "B", "C"]
    calibrated = replace(prediction, calibration=STORED)
    assert calibrated.scores is scores
    assert calibrated.calibrated()[1] == pytest.approx([1 / (1 + np.e), 0, 0.1])
    assert [(event.label, event.end_s) for event in calibrated.events()] == [("A", 2.0), ("C", 1.0)]
    assert calibrated.events()[1].score == pytest.approx(0.6)
    assert [event.label for event in calibrated.events(0.8)] == ["A", "B"]
    assert (prediction.calibrated() == scores).all()


def test_a_model_folder_keeps_its_calibration(model: Model, tmp_path: Path) -> None:
    stored = Calibration({"/m/09x0r": 0.5}, made_from={"n_clips": 3})
    card = replace(model.card, calibration=stored.to_record())
    copy_model(model.card, model.folder, tmp_path / "a" / "mine", card)
    loaded = load_model(tmp_path / "a" / "mine", n_threads=2)
    assert loaded.calibration == stored
    assert model.calibration is None
    sound = np.random.default_rng(0).uniform(-1, 1, 32_000)
    assert (loaded.predict(sound, 16_000).scores == model.predict(sound, 16_000).scores).all()
    assert loaded.predict(sound, 16_000).calibration == stored
    assert {path.name for path in (tmp_path / "a" / "mine").iterdir()} == {"model.json", "model.safetensors"}


CARD = ModelCard("yamnet", {"n_classes": 3}, "yamnet", "none", "CC0", {})


def test_a_copy_shares_nothing_with_the_original_and_can_be_written_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    write_model_folder(source, CARD, {"x": np.ones(3, np.float32)})
    assert "calibration" not in json.loads((source / "model.json").read_text())
    calibrated = replace(CARD, calibration=STORED.to_record())
    copy_model_folder(source, target, calibrated)
    weights = target / "model.safetensors"
    assert weights.read_bytes() == (source / "model.safetensors").read_bytes()
    assert weights.stat().st_ino != (source / "model.safetensors").stat().st_ino
    assert read_card(target) == calibrated
    before = weights.stat()
    copy_model_folder(target, target, CARD)  # in place, only the card changes
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert read_card(target) == CARD
    assert repr(calibrated) == repr(CARD)  # so the cached graph, named by it, stays the same


def test_a_copy_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model_folder(tmp_path / "source", CARD, {"x": np.ones(3, np.float32)})

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        copy_model_folder(tmp_path / "source", tmp_path / "target", CARD)
    assert list((tmp_path / "target").iterdir()) == []
    with pytest.raises(WeightsError, match=r"is not a model folder: it has no model\.safetensors"):
        copy_model_folder(tmp_path / "nothing", tmp_path / "target", CARD)


def test_a_card_with_a_calibration_that_is_none_is_refused(tmp_path: Path) -> None:
    write_model_folder(tmp_path, CARD, {"x": np.ones(3, np.float32)})
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**card, "calibration": [1]}))
    with pytest.raises(WeightsError, match=r"'calibration' is \[1\]; expected dict"):
        read_card(tmp_path)
