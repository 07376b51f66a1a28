"""The fit of a classifier against scikit-learn's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from audioset.errors import UsageError
from audioset.sounds.collection import Clip, Collection
from audioset.train.classifier.choosing import cross_validate
from audioset.train.classifier.embeddings import ClipEmbeddings
from audioset.train.classifier.fit import Recipe, fit, log_losses


def blobs(n=90, d=12, n_classes=3, seed=0, spread=1.5):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    x = rng.normal(size=(n_classes, d))[y] + spread * rng.normal(size=(n, d)) * rng.uniform(0.1, 5, d)
    return x.astype(np.float32), y


@pytest.mark.parametrize(("n", "d"), [(90, 12), (20, 64)], ids=["many clips", "fewer clips than dimensions"])
def test_a_linear_fit_is_scikit_learns(n, d):
    x, y = blobs(n, d)
    fitted = fit(x, np.eye(3)[y], Recipe(l2=(0.5, 10.0), shrinkages=(1.0,)))
    scaler = StandardScaler().fit(x.astype(float))
    for index, l2 in enumerate((0.5, 10.0)):
        reference = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(scaler.transform(x), y)
        expected = reference.predict_proba(scaler.transform(x))
        np.testing.assert_allclose(fitted.scores(x)[index], expected, atol=2e-4)
        kernel = fitted.layers[0][0][index] * scaler.scale_[:, np.newaxis]
        kernel = kernel - kernel.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(kernel, reference.coef_.T, atol=1e-3 * np.abs(reference.coef_).max())


def test_independent_classes_are_scikit_learns_one_by_one():
    x, _ = blobs()
    targets = (np.random.default_rng(1).normal(size=(12, 2)).T @ x.T > 0).T.astype(float)
    fitted = fit(x, targets, Recipe("sigmoid", l2=(2.0,), shrinkages=(1.0,)))
    scaled = StandardScaler().fit_transform(x.astype(float))
    for column in range(2):
        reference = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(scaled, targets[:, column])
        expected = reference.predict_proba(scaled)[:, 1]
        np.testing.assert_allclose(fitted.scores(x)[0][:, column], expected, atol=2e-4)


def test_balanced_classes_are_scikit_learns():
    x, y = blobs(200)
    kept = np.flatnonzero((y == 0) | (np.arange(200) % 5 == 0))
    x, y = x[kept], y[kept]
    fitted = fit(x, np.eye(3)[y], Recipe(l2=(1.0,), shrinkages=(1.0,), balances_classes=True))
    scaled = StandardScaler().fit_transform(x.astype(float))
    reference = LogisticRegression(C=1, class_weight="balanced", tol=1e-10, max_iter=10_000).fit(scaled, y)
    np.testing.assert_allclose(fitted.scores(x)[0], reference.predict_proba(scaled), atol=2e-4)


def test_a_rough_fit_is_close_to_an_exact_one():
    x, y = blobs()
    recipe = Recipe()
    exact, rough = (fit(x, np.eye(3)[y], recipe, is_rough=is_rough).scores(x) for is_rough in (False, True))
    assert np.abs(exact - rough).max() < 0.05


def test_a_hidden_layer_learns_what_no_line_parts():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    y = (x.prod(axis=1) > 0).astype(int)
    linear, deep = (fit(x, np.eye(2)[y], Recipe(hidden_size=size, l2=(0.1,), shrinkages=(1.0,))) for size in (0, 16))
    accuracy = [float((fitted.scores(x)[0].argmax(axis=1) == y).mean()) for fitted in (linear, deep)]
    assert accuracy[0] < 0.7
    assert accuracy[1] > 0.95


def test_a_hidden_fit_is_the_same_for_the_same_seed():
    x, y = blobs()
    scores = [
        fit(x, np.eye(3)[y], Recipe(hidden_size=4, l2=(1.0,), shrinkages=(1.0,), seed=seed)).scores(x)
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


@pytest.mark.parametrize("hidden_size", [0, 5])
def test_the_head_has_the_standardisation_in_its_weights(hidden_size):
    x, y = blobs()
    x = x * 100 + 7
    fitted = fit(x, np.eye(3)[y], Recipe(hidden_size=hidden_size, l2=(1.0,), shrinkages=(1.0,)))
    weights = fitted.head(0).weights
    hidden = x
    if hidden_size:
        hidden = np.maximum(x @ weights["classifier/hidden/kernel"] + weights["classifier/hidden/bias"], 0)
    logits = hidden @ weights["classifier/logits/kernel"] + weights["classifier/logits/bias"]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), fitted.scores(x)[0], atol=1e-4)


def test_a_constant_dimension_does_no_harm():
    x, y = blobs()
    x[:, 0] = 5
    assert np.isfinite(fit(x, np.eye(3)[y], Recipe()).scores(x)).all()


def test_settings_outside_their_ranges():
    with pytest.raises(UsageError, match="hidden_size is -1"):
        Recipe(hidden_size=-1)
    with pytest.raises(UsageError, match="shrinkages are"):
        Recipe(shrinkages=(0.0,))
    with pytest.raises(UsageError, match="there are no clips"):
        fit(np.zeros((0, 3)), np.zeros((0, 2)), Recipe())


def test_log_losses_are_those_of_the_definition():
    scores = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
    targets = np.eye(2)
    np.testing.assert_allclose(log_losses(scores, targets), [-math.log(0.7), -math.log(0.8)], rtol=1e-5)
    independent = np.array([[0.9, 0.9]], np.float32)
    expected = -math.log(0.9) - math.log(0.1)
    np.testing.assert_allclose(log_losses(independent, np.array([[1, 0]])), [expected], rtol=1e-4)


def test_labels_by_chance_are_not_learned():
    """What is measured was not learned: no clip that is scored, and no choice, has seen its label."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 30)).astype(np.float32)
    labels = rng.integers(2, size=120)
    clips = tuple(Clip(Path(f"{row}.wav"), ("ab"[label],)) for row, label in enumerate(labels))
    data = ClipEmbeddings(Collection(clips, ("a", "b")), None, x, x, np.ones(120, np.intp))
    found = cross_validate(data, np.arange(120) % 5, Recipe())
    accuracy = (found.scores.argmax(axis=1) == labels[found.rows]).mean()
    assert 0.3 < accuracy < 0.65
