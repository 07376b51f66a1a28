"""Metrics: against the plainest code that says the same, against scikit-learn, and every outcome that is written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audioset import LabelSet, Ontology, metrics
from audioset.errors import UsageError
from audioset.metrics import ranking, resampling

EXACT = 1e-12
LABELS = LabelSet(("/m/0jbk", "/m/0bt9lr", "/m/0ytgt"), ("Animal", "Dog", "Child speech, kid speaking"))
DTYPES = (np.float64, np.float32, np.float16, np.int64, np.uint8)


# The plainest code -----------------------------------------------------------


def naive_ap(scores, targets):
    positives = [score for score, target in zip(scores, targets, strict=True) if target]
    if not positives:
        return math.nan
    return math.fsum(naive_precision(score, scores, positives) for score in positives) / len(positives)


def naive_precision(score, scores, positives):
    return sum(other >= score for other in positives) / sum(other >= score for other in scores)


def naive_auc(scores, targets):
    positives = [score for score, target in zip(scores, targets, strict=True) if target]
    negatives = [score for score, target in zip(scores, targets, strict=True) if not target]
    if not positives or not negatives:
        return math.nan
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    return wins / len(positives) / len(negatives)


def naive_label_precisions(scores, targets):
    """Of each clip and each of its labels."""
    for row, wanted in zip(scores, targets, strict=True):
        own = row[wanted]
        for index in np.flatnonzero(wanted):
            yield index, naive_precision(row[index], row, own)


def naive_top(row, n):
    return sorted(range(len(row)), key=lambda index: (-float(row[index]), index))[:n]


def naive_perr(scores, targets):
    precisions = []
    for row, wanted in zip(scores, targets, strict=True):
        top = naive_top(row, int(wanted.sum()))
        precisions.append(sum(bool(wanted[i]) and row[i] > 0 for i in top) / len(top) if top else 0)
    return sum(precisions) / len(precisions)


def naive_ap_of_pairs(pairs, n_positives):
    """AP of (score, target) pairs where not all positives are among them."""
    scores, hits = [score for score, _ in pairs], [score for score, target in pairs if target]
    return sum(naive_precision(score, scores, hits) for score in hits) / n_positives if n_positives else math.nan


def naive_youtube8m(scores, targets, k):
    kept = [(i, row[i], wanted[i]) for row, wanted in zip(scores, targets, strict=True) for i in naive_top(row, k)]
    n_positives = targets.sum(axis=0)
    of_classes = [
        naive_ap_of_pairs([(score, target) for index, score, target in kept if index == c], n)
        for c, n in enumerate(n_positives)
        if n
    ]
    return {
        "hit_at_1": np.mean([wanted[naive_top(row, 1)[0]] for row, wanted in zip(scores, targets, strict=True)]),
        "perr": naive_perr(scores, targets),
        "gap": naive_ap_of_pairs([pair[1:] for pair in kept], n_positives.sum()),
        "mean_ap_in_top": np.mean(of_classes) if of_classes else math.nan,
    }


def mean_without_nan(values):
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def sample(n_clips=400, n_classes=9, *, seed=0, dtype=np.float64, n_levels=None):
    """Scores that know something of the targets; with ``n_levels`` different values, and so ties."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n_clips, n_classes)) < np.linspace(0.02, 0.9, n_classes)
    scores = 1 / (1 + np.exp(-rng.normal(size=targets.shape) - targets))
    return (np.floor(scores * n_levels) if n_levels else scores).astype(dtype), targets


@st.composite
def scores_and_targets(draw):
    """Small arrays with many ties, negative scores, and classes and clips of every kind."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))
    scores = draw(hnp.arrays(draw(st.sampled_from([np.float32, np.float64])), shape, elements=st.integers(-3, 3)))
    return scores, draw(hnp.arrays(bool, shape))


# Agreement -------------------------------------------------------------------


@given(scores_and_targets())
@settings(max_examples=150, deadline=None)
def test_ranking_metrics_equal_the_plainest_code(arrays):
    scores, targets = arrays
    columns = list(zip(scores.T, targets.T, strict=True))
    ap, auc = [naive_ap(*column) for column in columns], [naive_auc(*column) for column in columns]
    np.testing.assert_allclose(metrics.average_precision(scores, targets), ap, rtol=0, atol=EXACT)
    np.testing.assert_allclose(metrics.roc_auc(scores, targets), auc, rtol=0, atol=EXACT)

    result = metrics.evaluate(scores, targets)
    np.testing.assert_allclose(result.mean_ap, mean_without_nan(ap), rtol=0, atol=EXACT)
    np.testing.assert_allclose(result.mean_auc, mean_without_nan(auc), rtol=0, atol=EXACT)
    np.testing.assert_array_equal(result.classes.ap, metrics.average_precision(scores, targets))
    np.testing.assert_array_equal(result.classes.auc, metrics.roc_auc(scores, targets))
    assert result.n_classes_used == sum(not math.isnan(value) for value in ap)
    assert result.n_classes_used_auc == sum(not math.isnan(value) for value in auc)


@given(scores_and_targets())
@settings(max_examples=150, deadline=None)
def test_lwlrap_equals_the_plainest_code(arrays):
    scores, targets = arrays
    pairs = list(naive_label_precisions(scores, targets))
    overall = mean_without_nan([value for _, value in pairs])
    of_classes = [mean_without_nan([v for index, v in pairs if index == c]) for c in range(targets.shape[1])]
    result = metrics.evaluate(scores, targets)
    for value in (metrics.lwlrap(scores, targets), result.lwlrap):
        np.testing.assert_allclose(value, overall, rtol=0, atol=EXACT)
    for values in (metrics.lwlrap_of_classes(scores, targets), result.classes.lwlrap):
        np.testing.assert_allclose(values, of_classes, rtol=0, atol=EXACT)


@given(scores_and_targets(), st.integers(1, 10))
@settings(max_examples=150, deadline=None)
def test_youtube8m_metrics_equal_the_plainest_code(arrays, top_k):
    scores, targets = arrays
    result = metrics.evaluate_youtube8m(scores, targets, top_k=top_k)
    for name, value in naive_youtube8m(scores, targets, top_k).items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=0, atol=EXACT, err_msg=name)


def test_youtube8m_metrics_of_the_top_20_equal_the_plainest_code():
    scores, targets = sample(60, 45, seed=3, dtype=np.float32)
    result = metrics.evaluate_youtube8m(scores, targets)
    for name, value in naive_youtube8m(scores, targets, 20).items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=0, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("n_levels", [None, 7], ids=["without ties", "with ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metrics_agree_with_scikit_learn(dtype, n_levels):
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, targets = sample(1_500, 40, dtype=dtype, n_levels=n_levels)
    columns = list(zip(targets.T, scores.T, strict=True))
    expected_ap = [sklearn.average_precision_score(*column) for column in columns]
    expected_auc = [sklearn.roc_auc_score(*column) for column in columns]
    expected_lwlrap = sklearn.label_ranking_average_precision_score(targets, scores, sample_weight=targets.sum(axis=1))
    result = metrics.evaluate(scores, targets)
    np.testing.assert_allclose(result.classes.ap, expected_ap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.classes.auc, expected_auc, rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.mean_ap, np.mean(expected_ap), rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.lwlrap, expected_lwlrap, rtol=0, atol=1e-9)


# Kong's table: AUC and d-prime in three decimals.
@pytest.mark.parametrize(("auc", "published"), [(0.959, 2.452), (0.964, 2.536), (0.968, 2.621), (0.969, 2.641)])
def test_d_prime_of_published_areas(auc, published):
    assert metrics.d_prime(auc - 0.0005) <= published <= metrics.d_prime(auc + 0.0005)


def test_d_prime_inverts_the_normal_distribution():
    distances = np.linspace(-8, 5, 53)  # nearer to an area of 1, doubles are too coarse
    areas = np.array([0.5 * math.erfc(-distance / 2) for distance in distances])
    np.testing.assert_allclose(metrics.d_prime(areas), distances, rtol=0, atol=1e-11)


def test_the_two_d_primes_are_those_of_the_mean_and_the_mean_of_those():
    result = metrics.evaluate(*sample())
    assert result.d_prime == metrics.d_prime(result.mean_auc)
    assert result.d_prime_of_classes == pytest.approx(np.mean(metrics.d_prime(result.classes.auc)), abs=EXACT)
    assert abs(result.d_prime - result.d_prime_of_classes) > 1e-4


# Properties ------------------------------------------------------------------


def test_only_the_order_of_the_scores_counts():
    scores, targets = sample(dtype=np.float32)
    probabilities, logits = metrics.evaluate(scores, targets), metrics.evaluate(np.exp2(scores) * 8 - 40, targets)
    assert probabilities.as_dict() == logits.as_dict()


def test_the_order_of_the_clips_does_not_count():
    scores, targets = sample(n_levels=5)
    order = np.random.default_rng(1).permutation(len(scores))
    shuffled = metrics.evaluate(scores[order], targets[order])
    assert shuffled.as_dict() == pytest.approx(metrics.evaluate(scores, targets).as_dict(), abs=EXACT)


def test_scores_turned_around_have_the_other_part_of_the_area():
    scores, targets = sample(n_levels=5)
    np.testing.assert_allclose(metrics.roc_auc(-scores, targets), 1 - metrics.roc_auc(scores, targets), atol=EXACT)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_real_dtype_gives_the_same(dtype):
    scores, targets = sample(n_levels=50, dtype=dtype)
    expected = metrics.evaluate(scores.astype(np.float64), targets).as_dict()
    assert metrics.evaluate(scores, targets).as_dict() == expected
    assert metrics.evaluate_youtube8m(scores, targets).as_dict() == (
        metrics.evaluate_youtube8m(scores.astype(np.float64), targets).as_dict()
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_targets_may_be_numbers(dtype):
    scores, targets = sample()
    assert metrics.evaluate(scores, targets.astype(dtype)).as_dict() == metrics.evaluate(scores, targets).as_dict()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n_classes", [1, 5])
def test_arguments_stay_as_they_are(order, n_classes):
    scores, targets = (np.array(array, order=order) for array in sample(30, n_classes))
    before = scores.copy(), targets.copy()
    for function in (metrics.evaluate, metrics.evaluate_youtube8m, metrics.confusion):
        function(scores, targets)
    metrics.bootstrap(scores, targets, n_resamples=3)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_blocks_of_classes_and_labels_do_not_show(monkeypatch):
    scores, targets = sample(60, 11)
    expected = metrics.evaluate(scores, targets)
    monkeypatch.setattr(ranking, "BLOCK_CLASSES", 4)
    monkeypatch.setattr(ranking, "BLOCK_PAIRS", 7)
    assert metrics.evaluate(scores, targets).as_dict() == expected.as_dict()


# Outcomes --------------------------------------------------------------------


def test_classes_without_positives_are_left_out_and_counted():
    scores, targets = sample(50, 6)
    targets[:, 2], targets[:, 4] = False, True
    result = metrics.evaluate(scores, targets)
    assert np.flatnonzero(np.isnan(result.classes.ap)).tolist() == [2]
    assert np.flatnonzero(np.isnan(result.classes.lwlrap)).tolist() == [2]
    assert np.flatnonzero(np.isnan(result.classes.auc)).tolist() == [2, 4]
    assert np.flatnonzero(np.isnan(result.classes.d_prime)).tolist() == [2, 4]
    assert result.classes.ap[4] == 1
    assert (result.n_classes, result.n_classes_used, result.n_classes_used_auc) == (6, 5, 4)
    assert result.mean_ap == pytest.approx(result.classes.ap[[0, 1, 3, 4, 5]].mean(), abs=EXACT)
    assert result.mean_auc == pytest.approx(result.classes.auc[[0, 1, 3, 5]].mean(), abs=EXACT)


def test_targets_without_any_label_give_nan_and_no_warning():
    scores, targets = np.ones((3, 2)), np.zeros((3, 2), bool)
    result = metrics.evaluate(scores, targets)
    undefined = ("mean_ap", "mean_auc", "d_prime", "d_prime_of_classes", "lwlrap")
    assert all(math.isnan(getattr(result, name)) for name in undefined)
    assert result.as_dict() == dict.fromkeys(undefined) | {
        "n_clips": 3,
        "n_classes": 2,
        "n_clips_without_labels": 3,
        "n_classes_used": 0,
        "n_classes_used_auc": 0,
    }
    youtube8m = metrics.evaluate_youtube8m(scores, targets)
    assert (youtube8m.hit_at_1, youtube8m.perr, youtube8m.n_classes_used) == (0, 0, 0)
    assert youtube8m.as_dict()["gap"] is youtube8m.as_dict()["mean_ap_in_top"] is None
    resamples = metrics.bootstrap(scores, targets, n_resamples=4)
    assert np.isnan(resamples.interval("mean_ap")).all()
    assert np.isnan(resamples.interval("d_prime")).all()


def test_scores_that_are_all_equal_say_nothing():
    _, targets = sample(200, 4)
    result = metrics.evaluate(np.full(targets.shape, 0.3), targets)
    np.testing.assert_allclose(result.classes.ap, result.classes.prevalence, atol=EXACT)
    assert result.classes.auc.tolist() == [0.5] * 4
    assert result.d_prime == 0


def test_one_clip_and_one_class_are_enough():
    assert metrics.average_precision([[0.2]], [[1]]).tolist() == [1]
    assert metrics.lwlrap([[0.2]], [[1]]) == 1
    assert np.isnan(metrics.roc_auc([[0.2]], [[1]])).all()
    assert metrics.evaluate([[0.9], [0.1]], [[1], [0]]).mean_auc == 1


def test_infinite_scores_have_their_place_in_the_order():
    scores = np.array([[np.inf], [2.0], [-np.inf], [-np.inf]])
    targets = np.array([[1], [0], [1], [0]])
    assert metrics.average_precision(scores, targets).tolist() == [0.75]
    assert metrics.roc_auc(scores, targets).tolist() == [0.625]


def test_perfect_classes_have_an_infinite_d_prime_and_a_finite_one_of_the_mean():
    scores = np.array([[3.0, 1.0], [2.0, 2.0], [1.0, 1.5]])
    targets = np.array([[1, 1], [0, 1], [0, 0]])
    result = metrics.evaluate(scores, targets)
    assert result.classes.d_prime.tolist() == [math.inf, 0.0]
    assert result.d_prime_of_classes == math.inf
    assert result.d_prime == metrics.d_prime(0.75)
    assert result.as_dict()["d_prime_of_classes"] is None
    assert metrics.d_prime(0.0) == -math.inf
    assert math.isnan(metrics.mean_defined(np.array([math.inf, -math.inf])))


def test_d_prime_keeps_the_shape():
    assert metrics.d_prime(np.array([[0.5, math.nan]])).shape == (1, 2)
    assert isinstance(metrics.d_prime(0.7), float)
    assert math.isnan(metrics.d_prime(math.nan))


def test_perr_counts_only_scores_above_zero():
    targets = np.array([[1, 1, 0]])
    assert metrics.evaluate_youtube8m(np.array([[0.9, 0.0, -1.0]]), targets).perr == 0.5
    assert metrics.evaluate_youtube8m(np.array([[0.9, 0.1, -1.0]]), targets).perr == 1


def test_positives_outside_the_top_count_as_never_found():
    scores, targets = np.array([[0.9, 0.8], [0.7, 0.6]]), np.array([[1, 1], [0, 1]])
    result = metrics.evaluate_youtube8m(scores, targets, top_k=1)
    assert result.gap == pytest.approx(1 / 3)
    assert result.mean_ap_in_top == pytest.approx((1 + 0) / 2)


def test_of_equal_scores_the_first_class_is_highest():
    scores, targets = np.zeros((2, 3)), np.array([[1, 0, 0], [0, 0, 1]])
    assert metrics.evaluate_youtube8m(scores, targets).hit_at_1 == 0.5
    assert metrics.confusion(scores, targets).tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_confusion_counts_a_clip_for_each_of_its_labels():
    scores = np.array([[0.1, 0.9, 0.2], [0.8, 0.1, 0.3], [0.5, 0.1, 0.6]])
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    matrix = metrics.confusion(scores, targets)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert matrix.sum(axis=1).tolist() == targets.sum(axis=0).tolist()


# Bad input -------------------------------------------------------------------

ZEROS = np.zeros((2, 3))
WITH_NAN = np.array([[0.1, 0.2, 0.3], [0.4, np.nan, np.nan]])
REFUSED = {
    "shapes differ": (ZEROS, np.zeros((2, 4)), r"scores have shape \(2, 3\) and targets \(2, 4\); expected the same"),
    "one dimension": (np.zeros(3), np.zeros(3), r"shape \(3,\); expected \(n_clips, n_classes\).*scores\[:, None\]"),
    "no clips": (np.zeros((0, 3)), np.zeros((0, 3)), r"shape \(0, 3\); expected at least one clip"),
    "no classes": (np.zeros((2, 0)), np.zeros((2, 0)), r"shape \(2, 0\); expected at least one clip and one class"),
    "complex scores": (ZEROS.astype(complex), ZEROS, "scores have dtype complex128; expected real numbers"),
    "texts as targets": (ZEROS, ZEROS.astype(str), "targets have dtype <U32; expected real numbers"),
    "NaN scores": (WITH_NAN, ZEROS, "the score of clip 1, class 1, is NaN, one of 2; expected numbers.*diverged"),
    "mixed targets": (
        ZEROS,
        ZEROS + 0.25,
        "the target of clip 0, class 0, is 0.25; expected 0 or 1.*mixed or smoothed",
    ),
    "NaN targets": (ZEROS, WITH_NAN * 0, "the target of clip 1, class 1, is nan; expected 0 or 1"),
    "negative targets": (ZEROS, np.array([[0, 1, 1], [0, -1, 0]]), "clip 1, class 1, is -1; expected 0 or 1"),
}
FUNCTIONS = {
    function.__name__: function
    for function in (
        metrics.average_precision,
        metrics.roc_auc,
        metrics.lwlrap,
        metrics.lwlrap_of_classes,
        metrics.evaluate,
        metrics.evaluate_youtube8m,
        metrics.bootstrap,
        metrics.confusion,
    )
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_are_refused(name, case):
    scores, targets, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        FUNCTIONS[name](scores, targets)


@pytest.mark.parametrize("area", [-0.1, 1.1])
def test_areas_outside_the_unit_interval_are_refused(area):
    with pytest.raises(UsageError, match=r"an AUC is -?\d.1; expected areas in \[0, 1\]"):
        metrics.d_prime(np.array([0.5, area]))


def test_a_top_of_nothing_is_refused():
    with pytest.raises(UsageError, match="top_k is 0; expected 1 or more"):
        metrics.evaluate_youtube8m(ZEROS, ZEROS, top_k=0)


@pytest.mark.parametrize(("name", "value"), [("n_resamples", 0), ("seed", -1), ("n_threads", -2), ("n_threads", 0)])
def test_bootstrap_refuses_numbers_that_are_too_low(name, value):
    with pytest.raises(UsageError, match=f"{name} is {value}; expected . or more"):
        metrics.bootstrap(ZEROS, ZEROS, **{name: value})


# Bootstrap -------------------------------------------------------------------


@given(scores_and_targets(), st.integers(0, 1_000))
@settings(max_examples=60, deadline=None)
def test_a_resample_has_the_metrics_of_the_clips_that_were_drawn(arrays, seed):
    scores, targets = arrays
    result = metrics.bootstrap(scores, targets, n_resamples=3, seed=seed, n_threads=1)
    weights = resampling.draw(len(scores), seed, range(3))
    assert weights.sum(axis=0).tolist() == [len(scores)] * 3
    for number in range(3):
        drawn = np.repeat(np.arange(len(scores)), weights[:, number])
        expected = metrics.evaluate(scores[drawn], targets[drawn])
        np.testing.assert_allclose(result.ap[number], expected.classes.ap, rtol=0, atol=EXACT)
        np.testing.assert_allclose(result.auc[number], expected.classes.auc, rtol=0, atol=EXACT)
        np.testing.assert_allclose(result.mean_ap[number], expected.mean_ap, rtol=0, atol=EXACT)
        np.testing.assert_allclose(result.mean_auc[number], expected.mean_auc, rtol=0, atol=EXACT)
    np.testing.assert_array_equal(result.sample_ap, metrics.average_precision(scores, targets))
    np.testing.assert_array_equal(result.sample_auc, metrics.roc_auc(scores, targets))


def test_resamples_depend_on_the_seed_alone(monkeypatch):
    scores, targets = sample(300, 5)
    many = metrics.bootstrap(scores, targets, n_resamples=20, seed=7, n_threads=1)
    monkeypatch.setattr(resampling, "BLOCK_RESAMPLES", 3)
    few = metrics.bootstrap(scores, targets, n_resamples=11, seed=7, n_threads=2)
    other = metrics.bootstrap(scores, targets, n_resamples=11, seed=8)
    np.testing.assert_array_equal(few.ap, many.ap[:11])
    np.testing.assert_array_equal(few.auc, many.auc[:11])
    assert (other.mean_ap != few.mean_ap).all()


def test_intervals_hold_the_metrics_and_widen_with_the_confidence():
    scores, targets = sample(300, 6)
    result = metrics.evaluate(scores, targets)
    resamples = metrics.bootstrap(scores, targets, n_resamples=200)
    for name in ("mean_ap", "mean_auc", "d_prime"):
        narrow, wide = resamples.interval(name, 0.5), resamples.interval(name, 0.99)
        assert wide[0] < narrow[0] < getattr(result, name) < narrow[1] < wide[1]
    for name in ("ap", "auc"):
        low, high = resamples.interval(name)
        assert (low <= getattr(result.classes, name)).all()
        assert (getattr(result.classes, name) <= high).all()
        assert low.shape == high.shape == (6,)
    np.testing.assert_allclose(resamples.interval("d_prime"), metrics.d_prime(resamples.interval("mean_auc")))


def test_centred_intervals_are_plain_percentiles_moved_by_the_mean_of_the_resamples():
    scores, targets = sample(300, 6)
    resamples = metrics.bootstrap(scores, targets, n_resamples=100)
    plain = resamples.interval("mean_ap", 0.9, is_centred=False)
    np.testing.assert_array_equal(plain, np.quantile(resamples.mean_ap, [0.05, 0.95]))
    shift = metrics.evaluate(scores, targets).mean_ap - resamples.mean_ap.mean()
    assert shift < 0  # positives that are drawn twice raise average precision
    np.testing.assert_allclose(resamples.interval("mean_ap", 0.9), plain + shift, atol=EXACT)


def test_intervals_stay_within_what_the_metric_can_be():
    scores, targets = np.arange(40.0)[:, None], (np.arange(40) > 30)[:, None]
    resamples = metrics.bootstrap(scores, targets, n_resamples=50)
    assert resamples.interval("ap").tolist() == [[1], [1]]
    assert resamples.interval("d_prime").tolist() == [math.inf, math.inf]
    targets[5] = True
    assert resamples.interval("mean_ap", 0.999)[1] <= 1


def test_a_class_without_positives_has_no_interval():
    scores, targets = sample(80, 3)
    targets[:, 1] = False
    interval = metrics.bootstrap(scores, targets, n_resamples=30).interval("ap")
    assert np.isnan(interval).tolist() == [[False, True, False]] * 2


def test_intervals_that_do_not_exist():
    resamples = metrics.bootstrap(*sample(20, 2), n_resamples=2)
    with pytest.raises(UsageError, match="no interval of 'lwlrap'; expected one of mean_ap, mean_auc"):
        resamples.interval("lwlrap")
    with pytest.raises(UsageError, match=r"confidence is 95; expected a probability in \(0, 1\)"):
        resamples.interval("mean_ap", 95)


# Reports ---------------------------------------------------------------------


def test_the_table_counts_and_names_its_classes():
    scores = np.array([[0.9, 0.8, 0.1], [0.4, 0.7, 0.2], [0.3, 0.1, 0.3], [0.2, 0.2, 0.4]])
    targets = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    result = metrics.evaluate(scores, targets)
    rows = result.classes.rows(LABELS)
    assert (len(result.classes), result.n_clips_without_labels) == (3, 1)
    assert rows[0] == {
        "label_index": 0,
        "label_id": "/m/0jbk",
        "label": "Animal",
        "n_positives": 2,
        "prevalence": 0.5,
        "ap": pytest.approx(5 / 6),
        "auc": 0.75,
        "d_prime": pytest.approx(0.953873, abs=1e-6),
        "lwlrap": 0.75,
    }
    assert (rows[1]["auc"], rows[1]["d_prime"]) == (1, None)
    assert (rows[2]["n_positives"], rows[2]["ap"]) == (0, None)
    assert list(result.classes.rows()[0]) == [name for name in rows[0] if name not in ("label_id", "label")]
    json.dumps([rows, result.as_dict()], allow_nan=False)


def test_labels_of_another_model_are_refused():
    with pytest.raises(UsageError, match="3 labels and 2 classes; expected a label for each class"):
        metrics.evaluate(np.ones((2, 2)), np.ones((2, 2))).classes.rows(LABELS)


def test_rolled_up_labels_imply_those_above_them():
    scores = np.array([[0.1, 0.9, 0.2], [0.5, 0.3, 0.1]])
    targets = np.array([[0, 1, 0], [0, 0, 1]])
    rolled_scores, rolled_targets = metrics.roll_up(scores, targets, LABELS)
    assert rolled_scores.tolist() == [[0.9, 0.9, 0.2], [0.5, 0.3, 0.1]]
    assert rolled_targets.tolist() == [[True, True, False], [False, False, True]]
    assert metrics.evaluate(scores, targets).n_classes_used == 2
    assert metrics.evaluate(rolled_scores, rolled_targets).n_classes_used == 3


def test_roll_up_takes_another_ontology_and_checks_its_arrays():
    scores, targets = np.array([[0.1, 0.9, 0.2]]), np.array([[0, 1, 0]])
    flat = Ontology(())
    np.testing.assert_array_equal(metrics.roll_up(scores, targets, LABELS, flat)[0], scores)
    with pytest.raises(UsageError, match="the target of clip 0, class 1, is 2; expected 0 or 1"):
        metrics.roll_up(scores, targets * 2, LABELS)
    with pytest.raises(UsageError, match=r"expected \(..., 3\), a column for each label"):
        metrics.roll_up(scores[:, :2], targets[:, :2], LABELS)


def test_every_public_name_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    for name in metrics.__all__:
        assert f"audioset.metrics.{name}\n" in page, f"docs/metrics.md does not describe {name}"
