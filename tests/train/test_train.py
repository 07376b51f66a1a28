"""Warm start: new layers on a published network, alone or together with it."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from sounds import noise

from audioset.errors import AudioError, MissingExtraError, UsageError
from audioset.frontend.cutting import patches

torch = pytest.importorskip("torch")

from audioset.train import WarmStart, fit  # noqa: E402 - it needs torch

CLASSES = 3  # a sine, a ramp and noise, as in the original's demonstration


def sounds(rng):
    """One clip of each class, two seconds long."""
    seconds = np.arange(32_000) / 16_000
    sine = np.sin(2 * np.pi * rng.uniform(100, 1_000) * seconds)
    return [sine, rng.uniform(-1, 1) * seconds / 2, rng.normal(0, 0.5, len(seconds))]


def examples(model, n_clips, seed=0):
    rng = np.random.default_rng(seed)
    clips = [(clip, kind) for _ in range(n_clips) for kind, clip in enumerate(sounds(rng))]
    cut = [model.patches(clip, 16_000, hop_s=0.96) for clip, _ in clips]
    targets = np.eye(CLASSES, dtype=np.float32)[
        [kind for part, (_, kind) in zip(cut, clips, strict=True) for _ in part]
    ]
    return np.concatenate(cut), targets


@pytest.fixture
def warm_start(model):
    torch.manual_seed(0)
    return WarmStart(model, CLASSES)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def test_patches_are_what_the_network_sees(model):
    waveform = noise(100_000)
    prediction = model.predict(waveform, 22_050, hop_s=0.24)
    ours = model.patches(waveform, 22_050, hop_s=0.24)
    np.testing.assert_array_equal(ours, patches(prediction.log_mel, model.frontend, 24))
    assert len(ours) == len(prediction.embeddings)
    with pytest.raises(AudioError, match="it holds no samples"):
        model.patches(np.zeros(0, np.float32), 16_000)


def test_the_classifier_reads_the_networks_embeddings(model, warm_start):
    cut, _ = examples(model, 1)
    embeddings = torch.relu(torch.from_numpy(model.engine(cut).embeddings))
    hidden, _, last = warm_start.classifier
    expected = torch.sigmoid(last(torch.relu(hidden(embeddings)))).detach().numpy()
    np.testing.assert_allclose(warm_start.scores(cut), expected, atol=1e-6)
    np.testing.assert_allclose(warm_start.scores(cut, batch_size=1), expected, atol=1e-6)


def test_new_layers_start_as_in_the_original(warm_start):
    hidden, _, last = warm_start.classifier
    assert (hidden.in_features, hidden.out_features, last.out_features) == (1_024, 100, CLASSES)
    assert hidden.weight.abs().max() <= 0.02
    assert hidden.weight.std().item() == pytest.approx(0.0088, rel=0.05)  # of a normal of 0.01 cut at 0.02
    assert not hidden.bias.any()


def test_a_linear_classifier_has_one_layer(model):
    (layer,) = WarmStart(model, 2, n_hidden=0).classifier
    assert (layer.in_features, layer.out_features) == (1_024, 2)


def test_training_the_new_layers_leaves_the_network_as_it_is(yamnet):
    torch.manual_seed(0)
    warm_start = WarmStart(yamnet, CLASSES)
    cut, targets = examples(yamnet, 2)
    network, classifier = state(warm_start.network), state(warm_start.classifier)
    history = fit(warm_start, cut, targets, n_epochs=5, batch_size=2, learning_rate=1e-3)
    assert history[-1] < 0.8 * history[0]
    assert changed(warm_start.network, network) == set()
    assert changed(warm_start.classifier, classifier) == set(classifier)


def test_what_is_learnt_holds_for_new_sounds(yamnet):
    torch.manual_seed(0)
    warm_start = WarmStart(yamnet, CLASSES)
    fit(warm_start, *examples(yamnet, 5), n_epochs=10, batch_size=8, learning_rate=1e-3)
    cut, targets = examples(yamnet, 5, seed=1)
    assert (warm_start.scores(cut).argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.9


def test_training_the_network_moves_every_weight_but_no_moments(model):
    torch.manual_seed(0)
    warm_start = WarmStart(model, CLASSES, trains_network=True)
    cut, targets = examples(model, 1)
    before = state(warm_start)
    fit(warm_start, cut, targets, n_epochs=2)
    kept = set(before) - changed(warm_start, before)
    # The network's own classifier takes no part: the new layers read the embeddings before it.
    assert {name for name in kept if "/moving_" not in name} == {"network.logits/kernel", "network.logits/bias"}
    assert {name for name in before if "/moving_" in name} <= kept


def test_the_same_seeds_give_the_same_result(model):
    cut, targets = examples(model, 2)
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        warm_start = WarmStart(model, CLASSES)
        results.append((fit(warm_start, cut, targets, n_epochs=2, batch_size=4, seed=seed), warm_start.scores(cut)))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert results[0][0] != results[2][0]


def test_the_loss_of_an_epoch_is_the_mean_over_its_patches(model, warm_start):
    cut, targets = examples(model, 1)
    scores = warm_start.scores(cut).astype(np.float64)
    expected = -(targets * np.log(scores) + (1 - targets) * np.log(1 - scores)).mean()
    (loss,) = fit(warm_start, cut, targets, n_epochs=1, batch_size=4, learning_rate=0.0)
    assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "value", "match"),
    [
        ((3, CLASSES), 0, r"targets have shape \(3, 3\) for 2 patches and 3 classes; expected \(2, 3\)"),
        ((2,), 0, r"targets have shape \(2,\)"),
        ((2, CLASSES), 2, r"outside \[0, 1\]"),
        ((2, CLASSES), np.nan, r"outside \[0, 1\]"),
    ],
)
def test_targets_that_do_not_fit(warm_start, shape, value, match):
    with pytest.raises(UsageError, match=match):
        fit(warm_start, np.zeros((2, 96, 64), np.float32), np.full(shape, value, np.float32))


def test_patches_and_losses_that_are_no_numbers(model):
    patches = np.zeros((2, 96, 64), np.float32)
    targets = np.zeros((2, CLASSES), np.float32)
    warm_start = WarmStart(model, CLASSES)
    with pytest.raises(UsageError, match=r"patch 1 is not finite, as are 1 of 2; expected log-mel values"):
        fit(warm_start, np.concatenate([patches[:1], np.full_like(patches[1:], np.nan)]), targets)
    with pytest.raises(
        UsageError, match=r"the loss is .* in epoch \d, batch 1.*, with patch \d, patch \d. Likely cause"
    ):
        fit(warm_start, patches, targets, learning_rate=1e36, n_epochs=4)


def test_nothing_to_train_on(warm_start):
    with pytest.raises(UsageError, match="there are no patches to train on"):
        fit(warm_start, np.zeros((0, 96, 64), np.float32), np.zeros((0, CLASSES), np.float32))


@pytest.mark.parametrize("options", [{"n_classes": 0}, {"n_classes": 2, "n_hidden": -1}])
def test_numbers_that_make_no_network(model, options):
    with pytest.raises(UsageError, match="expected 1 or more classes and 0 or more units"):
        WarmStart(model, **options)


def test_without_torch(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("audioset.train", "audioset.executors.torch"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    trainer = importlib.import_module("audioset.train")
    assert trainer.TrainConfig().n_iterations > 0  # settings are words and numbers
    for name in ("train", "fit", "WarmStart"):
        with pytest.raises(MissingExtraError, match=r'pip install "audioset\[train\]"'):
            getattr(trainer, name)
