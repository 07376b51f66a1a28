"""A classifier of one's own sounds: the fit, the embeddings, what is measured, and what is written."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import struct
import zlib
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sounds import noise, sine

from audioset import load_model
from audioset.cache import check_path
from audioset.errors import ConflictError, DataError, NoInputError, OutputError, UsageError
from audioset.frontend.mel import MEL_SCALES
from audioset.frontend.published import EFFICIENTAT, EFFICIENTAT_2S, PANNS, VGG16, YAMNET
from audioset.reports.document import to_html
from audioset.reports.examples import hear_examples, png, spectrogram_png
from audioset.reports.learned import describe
from audioset.sounds.collection import Clip, Collection
from audioset.sounds.reading import read_collection
from audioset.train.backbones import find_backbone
from audioset.train.classifier import embeddings as embedding_module
from audioset.train.classifier.choosing import cross_validate
from audioset.train.classifier.classifier import learn_classifier
from audioset.train.classifier.embeddings import ClipEmbeddings, embed_collection
from audioset.train.classifier.fit import Recipe, fit, log_losses
from audioset.train.classifier.gaps import find_named_groups, is_gap
from audioset.train.measures import Decision, measure, wilson
from audioset.train.results import BY_FILE, BY_GROUP, GIVEN_TEST, HeldOut, Learned, check_output, write_result
from audioset.weights.model_folder import ModelCard, write_model_folder

RATE = 16_000
TONES_HZ = {"low": 300.0, "middle": 1200.0, "high": 4000.0}


@pytest.fixture(scope="module")
def backbone(random_weights, tmp_path_factory):
    """Folder of a small-scale YAMNet: random weights, which tell tones apart."""
    folder = tmp_path_factory.mktemp("backbone")
    card = ModelCard("yamnet", {"n_classes": 521}, "yamnet", "yamnet-521", "CC0-1.0", {"file": "random"})
    write_model_folder(folder, card, random_weights)
    return folder


def write_tone(path, frequency_hz, seed, seconds=0.3):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    tone = sine(frequency_hz * rng.uniform(0.95, 1.05), RATE, seconds, rng.uniform(0.2, 0.6))
    soundfile.write(path, tone + 0.05 * noise(len(tone), seed=seed), RATE, subtype="PCM_16")
    return path


def tones(folder, n=6, classes=tuple(TONES_HZ)):
    """A collection of n clips for each class."""
    clips = [
        Clip(write_tone(folder / name / f"{name}_{number}.wav", TONES_HZ[name], 100 * row + number), (name,))
        for row, name in enumerate(classes)
        for number in range(n)
    ]
    return Collection(tuple(clips), tuple(classes), "tones")


@pytest.fixture(scope="module")
def learned(backbone, tmp_path_factory):
    """A classifier of tones."""
    return learn_classifier(tones(tmp_path_factory.mktemp("tones"), n=8), backbone)


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


def test_embeddings_are_those_of_the_model(backbone, tmp_path):
    collection = tones(tmp_path, n=1)
    long = Clip(write_tone(tmp_path / "long.wav", 500, 9, seconds=3), ("low",))
    collection = replace(collection, clips=(*collection.clips, long, replace(long, start_s=0.5, end_s=2.0)))
    found = embed_collection(collection, backbone)
    model = load_model(backbone)
    for row, clip in enumerate(collection.clips[:4]):
        expected = model.predict_file(clip.path).embeddings
        np.testing.assert_allclose(found.means[row], expected.mean(axis=0), atol=1e-5)
        assert found.counts[row] == len(expected)
    waveform, _ = soundfile.read(long.path, dtype="float32")
    expected = model.predict(waveform[RATE // 2 : 2 * RATE], RATE).embeddings
    np.testing.assert_allclose(found.means[4], expected.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.mean_over_patches(found.patches), found.means, atol=1e-5)


def test_embeddings_are_computed_once(backbone, tmp_path, monkeypatch):
    collection = tones(tmp_path, n=2)
    first = embed_collection(collection, backbone)
    monkeypatch.setattr(embedding_module, "Model", None)  # a second run needs no network
    again = embed_collection(collection, backbone)
    assert again.n_computed == 0
    np.testing.assert_array_equal(first.means, again.means)
    moved = tmp_path / "moved.wav"
    moved.write_bytes(collection.clips[0].path.read_bytes())
    other = embed_collection(Collection((Clip(moved, ("low",)),), ("low",)), backbone)
    np.testing.assert_array_equal(other.means[0], first.means[0])


@pytest.mark.parametrize("what", ["embeddings", "checksum"])
def test_embeddings_that_were_damaged_are_computed_again(backbone, tmp_path, monkeypatch, caplog, what):
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    collection = tones(tmp_path, n=2)
    first = embed_collection(collection, backbone)
    (shard,) = (tmp_path / "cache").rglob("*.npz")
    damaged = shard if what == "embeddings" else check_path(shard)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    again = embed_collection(collection, backbone)
    assert again.n_computed == first.n_computed > 0
    np.testing.assert_array_equal(again.patches, first.patches)
    assert f"{shard} is damaged" in caplog.text
    assert {path.name.removesuffix(".crc32c") for path in shard.parent.iterdir()}.isdisjoint({shard.name})


def test_a_bad_clip_costs_one_warning(backbone, tmp_path):
    collection = tones(tmp_path, n=2)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not a sound")
    clips = (*collection.clips, Clip(bad, ("low",)), Clip(tmp_path / "gone.wav", ("low",)))
    found = embed_collection(replace(collection, clips=clips), backbone)
    assert len(found.collection) == 6
    assert len(found.warnings) == 2
    assert "bad.wav" in found.warnings[0]
    assert "gone.wav" in found.warnings[1]


def test_a_full_disk_costs_only_the_next_run(backbone, tmp_path, monkeypatch):
    def fill(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(embedding_module.np, "savez", fill)
    found = embed_collection(tones(tmp_path, n=2, classes=("low", "high")), backbone)
    assert len(found.collection) == 4
    assert len(found.warnings) == 1
    assert "No space left on device" in found.warnings[0]
    assert "AUDIOSET_CACHE" in found.warnings[0]


def test_a_damaged_shard_is_computed_again(backbone, tmp_path, session_cache, caplog):
    collection = tones(tmp_path, n=2, classes=("low", "middle"))
    first = embed_collection(collection, backbone)
    folder = session_cache / "embeddings" / find_backbone(backbone).fingerprint()
    for shard in folder.glob("*.npz"):
        shard.write_bytes(shard.read_bytes()[:200])
    again = embed_collection(collection, backbone)
    assert again.n_computed == 4
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(first.means, again.means)


def test_a_run_that_is_stopped_keeps_what_it_had_done(backbone, tmp_path):
    collection = tones(tmp_path, n=4)

    def stop(n_done, _n_all):
        if n_done >= 8:
            raise KeyboardInterrupt("stopped")

    with pytest.raises(KeyboardInterrupt, match="stopped"):
        embed_collection(collection, backbone, on_progress=stop)
    assert 0 < embed_collection(collection, backbone).n_computed <= 4


def test_there_must_be_clips(backbone, tmp_path):
    with pytest.raises(NoInputError, match="has no clips"):
        embed_collection(Collection((), ("a",), "nothing"), backbone)
    with pytest.raises(NoInputError, match="none of the 1 clips can be read"):
        embed_collection(Collection((Clip(tmp_path / "gone.wav", ("a",)),), ("a",)), backbone)


def test_a_head_of_embeddings_is_no_backbone(tmp_path):
    with pytest.raises(UsageError, match="there is no model 'nothing'"):
        find_backbone("nothing")


def test_tones_are_learned_and_the_model_says_so(learned, tmp_path):
    folder = tmp_path / "model"
    record = learned.write(folder)
    found = record["evaluations"][0]
    assert found["name"] == BY_FILE
    assert found["balanced_accuracy"] > 0.9
    model = load_model(folder)
    assert model.labels.names == tuple(TONES_HZ)
    path = write_tone(tmp_path / "new.wav", TONES_HZ["middle"], 77)
    prediction = model.predict_file(path)
    assert prediction.top(1)[0][0] == "middle"
    assert prediction.scores.sum() == pytest.approx(len(prediction.scores), abs=1e-4)
    assert set(model.calibration.thresholds) == set(TONES_HZ)
    assert [event.label for event in prediction.events()] == ["middle"]


def test_a_model_of_ones_own_is_a_backbone_too(learned, tmp_path):
    learned.write(tmp_path / "model")
    again = learn_classifier(tones(tmp_path / "data", n=4, classes=("low", "high")), tmp_path / "model")
    assert again.card.arguments["backbone"] == "yamnet"
    assert again.card.labels == ["low", "high"]
    again.write(tmp_path / "second")
    assert load_model(tmp_path / "second").labels.names == ("low", "high")


def test_the_same_seed_makes_the_same_model(learned, backbone):
    again = learn_classifier(replace(tones_of(learned), source="tones"), backbone)
    for name, value in learned.weights.items():
        np.testing.assert_array_equal(value, again.weights[name])


def tones_of(learned):
    return Collection(learned.learned.clips, learned.learned.classes)


def test_an_hour_and_a_tenth_of_a_second(backbone, tmp_path):
    collection = tones(tmp_path, n=3, classes=("low", "high"))
    short = Clip(write_tone(tmp_path / "short.wav", 300, 5, seconds=0.1), ("low",))
    long = tmp_path / "long.wav"
    soundfile.write(long, np.tile(sine(4000, 8000, 10), 30), 8000, subtype="PCM_16")  # five minutes
    collection = replace(collection, clips=(*collection.clips, short, Clip(long, ("high",))))
    found = embed_collection(collection, backbone)
    assert found.counts[-2] == 1
    assert found.counts[-1] == embedding_module.MAX_PATCHES
    assert learn_classifier(collection, backbone).learned.held_out


def voices(folder, n=6):
    """Each voice has a tone of its own for each class: who has not heard it cannot know."""
    rng = np.random.default_rng(0)
    frequencies = iter(rng.permutation(np.geomspace(200, 6000, 12)))
    clips = [
        Clip(write_tone(folder / word / f"{word}_{voice}_{number}.wav", frequency, number), (word,), group=voice)
        for word in ("yes", "no")
        for voice in ("ann", "bob", "cat", "dan")
        for frequency in [next(frequencies)]
        for number in range(n)
    ]
    return Collection(tuple(clips), ("yes", "no"), "voices")


def test_a_split_that_flatters_is_said_first(backbone, tmp_path):
    found = learn_classifier(voices(tmp_path), backbone).learned
    by_group, by_file = (found.held_out_by(name) for name in (BY_GROUP, BY_FILE))
    accuracies = [float((each.scores.argmax(1) == each.targets.argmax(1)).mean()) for each in (by_group, by_file)]
    assert accuracies[1] - accuracies[0] > 0.3
    assert found.held_out[0] is by_group
    assert by_group.fold_names == ("ann", "bob", "cat", "dan")
    assert found.warnings[0].startswith(f"Expect {accuracies[0]:.0%} on new groups, not {accuracies[1]:.0%}")
    page = to_html(describe(found.to_record()))
    assert page.index("Expect ") < page.index("class='headline'")


def test_groups_in_the_names_are_found_without_being_asked_for(backbone, tmp_path):
    given = voices(tmp_path)
    plain = replace(given, clips=tuple(replace(clip, group=None) for clip in given.clips))
    found = learn_classifier(plain, backbone).learned
    assert [each.name for each in found.held_out] == [BY_FILE]
    assert "--group '_([a-z]+)_'" in found.warnings[0]


def test_names_without_groups_are_left_alone(tmp_path):
    clips = tuple(Clip(Path(f"{name}/{name}_{number:03d}.wav"), (name,)) for name in "ab" for number in range(50))
    assert list(find_named_groups(Collection(clips, ("a", "b")))) == []


def test_a_pattern_finds_the_group_in_every_name(tmp_path):
    names = [f"{word}-{site}-{number}.wav" for word in "ab" for site in ("N1", "S2") for number in range(5)]
    clips = tuple(Clip(Path(name), (name[0],)) for name in names)
    patterns = [named.pattern for named in find_named_groups(Collection(clips, ("a", "b")))]
    assert any(all(re.search(each, name)[1] == name.split("-")[1] for name in names) for each in patterns)


def test_a_gap_is_large_and_no_chance():
    assert is_gap({"accuracy": 0.9, "n_clips": 500}, {"accuracy": 0.4, "n_clips": 500})
    assert not is_gap({"accuracy": 0.9, "n_clips": 500}, {"accuracy": 0.85, "n_clips": 500})
    assert not is_gap({"accuracy": 0.8, "n_clips": 10}, {"accuracy": 0.6, "n_clips": 10})


def test_a_given_test_is_measured_and_not_learned(backbone, tmp_path):
    collection = tones(tmp_path, n=6)
    clips = [replace(clip, split="test" if row % 3 == 0 else "train") for row, clip in enumerate(collection.clips)]
    found = learn_classifier(replace(collection, clips=tuple(clips)), backbone).learned
    assert [each.name for each in found.held_out] == [GIVEN_TEST, BY_FILE]
    assert found.held_out[0].rows.tolist() == [row for row in range(18) if row % 3 == 0]
    assert not set(found.held_out[1].rows) & set(found.held_out[0].rows)


def test_a_split_that_leaks_a_group_is_said_first(backbone, tmp_path):
    collection = tones(tmp_path, n=4)
    clips = [
        replace(clip, split="test" if row % 2 else "train", group=f"site{row % 3}")
        for row, clip in enumerate(collection.clips)
    ]
    found = learn_classifier(replace(collection, clips=tuple(clips)), backbone).learned
    assert any("shares 3 groups with what was learned" in warning for warning in found.warnings)


def test_five_clips_of_a_class_are_held_out_one_by_one(backbone, tmp_path):
    found = learn_classifier(tones(tmp_path, n=5), backbone).learned
    assert found.settings["folds"] == {BY_FILE: 15}
    assert len(found.held_out[0].rows) == 15


def test_a_class_with_one_clip_is_learned_and_not_judged(backbone, tmp_path):
    collection = tones(tmp_path, n=4, classes=("low", "high"))
    single = Clip(write_tone(tmp_path / "one.wav", TONES_HZ["middle"], 8), ("middle",))
    collection = Collection((*collection.clips, single), ("low", "high", "middle"), "tones")
    found = learn_classifier(collection, backbone)
    assert found.card.labels == ["low", "high", "middle"]
    row = found.learned.to_record()["evaluations"][0]["classes"][2]
    assert row["n_clips"] == 0
    assert any(warning.startswith("middle: all clips are of one file") for warning in found.learned.warnings)


def test_two_files_make_a_model_of_which_nothing_is_known(backbone, tmp_path):
    found = learn_classifier(tones(tmp_path / "data", n=1, classes=("low", "high")), backbone)
    record = found.write(tmp_path / "model")
    assert record["evaluations"] == []
    assert "nothing is known of how good this model is" in (tmp_path / "model" / "report.html").read_text()
    assert load_model(tmp_path / "model").labels.names == ("low", "high")


def test_one_class_cannot_be_told_from_anything(backbone, tmp_path):
    with pytest.raises(DataError, match="only one class"):
        learn_classifier(tones(tmp_path, classes=("low",)), backbone)


def test_one_class_left_to_learn_cannot_either(backbone, tmp_path):
    collection = tones(tmp_path, n=3, classes=("low", "high"))
    clips = [replace(clip, split="test" if clip.labels == ("high",) else "train") for clip in collection.clips]
    with pytest.raises(DataError, match="the clips to learn from are of one class"):
        learn_classifier(replace(collection, clips=tuple(clips)), backbone)


def test_silence_alone_is_nothing_to_learn(backbone, tmp_path):
    for name in ("a", "b"):
        for number in range(3):
            path = tmp_path / name / f"{number}.wav"
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, np.zeros(RATE // 2 + number), RATE, subtype="PCM_16")
    with pytest.raises(NoInputError, match="silen"):
        learn_classifier(read_collection(tmp_path), backbone)


def test_background_makes_classes_independent(backbone, tmp_path):
    collection = tones(tmp_path, n=6, classes=("low", "high"))
    hiss = []
    for number in range(6):
        path = tmp_path / f"hiss_{number}.wav"
        soundfile.write(path, 0.5 * noise(RATE // 3, seed=number), RATE, subtype="PCM_16")
        hiss.append(Clip(path, ()))
    found = learn_classifier(replace(collection, clips=(*collection.clips, *hiss)), backbone)
    assert found.card.arguments["activation"] == "sigmoid"
    evaluation = found.learned.to_record()["evaluations"][0]
    assert evaluation["confusion"]["names"] == ["low", "high", "(no class)"]
    assert evaluation["balanced_accuracy"] > 0.8


def test_clips_of_several_classes(backbone, tmp_path):
    collection = tones(tmp_path, n=6, classes=("low", "high"))
    both = []
    for number in range(6):
        path = tmp_path / f"both_{number}.wav"
        mixed = sine(300 + number, RATE, 0.3, 0.3) + sine(4000, RATE, 0.3, 0.3)
        soundfile.write(path, mixed, RATE, subtype="PCM_16")
        both.append(Clip(path, ("low", "high")))
    found = learn_classifier(replace(collection, clips=(*collection.clips, *both)), backbone).learned
    assert found.activation == "sigmoid"
    assert found.to_record()["evaluations"][0]["confusion"] is None


def test_too_few_folds(backbone, tmp_path):
    with pytest.raises(UsageError, match="n_folds is 1"):
        learn_classifier(tones(tmp_path, n=2), backbone, n_folds=1)


def test_measures_are_those_of_their_definitions():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]], np.float32)
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    found = measure(scores, targets, np.array([0, 0, 1, 1]), ("a", "b"), Decision("softmax"))
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.75
    first, second = found["classes"]
    assert (first["precision"], first["recall"]) == (2 / 3, 1.0)
    assert first["f1"] == pytest.approx(0.8)
    assert (second["precision"], second["recall"]) == (1.0, 0.5)
    assert found["confusion"]["counts"] == [[2, 0], [1, 1]]
    assert [fold["accuracy"] for fold in found["folds"]] == [1.0, 0.5]


def test_wilson_intervals():
    """Source: Wilson 1927, as computed by hand: 7 of 10 are within 0.397 and 0.892."""
    assert wilson(7, 10) == pytest.approx([0.3968, 0.8922], abs=1e-4)
    assert wilson(0, 0) == [0, 1]


def test_a_folder_of_others_is_refused(learned, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter.txt").write_text("mine")
    with pytest.raises(ConflictError, match=r"holds chapter\.txt, which no training wrote"):
        learned.write(folder)
    assert [path.name for path in folder.iterdir()] == ["chapter.txt"]
    with pytest.raises(UsageError, match="is a file"):
        check_output(folder / "chapter.txt")


def test_a_model_without_results_is_not_overwritten(learned, backbone):
    with pytest.raises(ConflictError, match=r"holds model\.json"):
        learned.write(backbone)


def test_an_earlier_result_is_replaced(learned, tmp_path):
    learned.write(tmp_path / "model")
    record = learned.write(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "results.json").read_text()) == record
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"model.json", "model.safetensors", "results.json", "report.html", "report.md"}


def test_a_full_disk_leaves_the_earlier_result(learned, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    learned.write(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fill(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("audioset.train.results.write_model_folder", fill)
    with pytest.raises(OutputError, match="No space left on device"):
        learned.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_report_has_no_scripts_and_escapes_what_others_wrote(tmp_path):
    evil = "<script>alert(1)</script>"
    path = write_tone(tmp_path / "x.wav", 440, 0)
    clips = tuple(Clip(path, (name,)) for name in (evil, "b", evil, "b"))
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32)
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]], np.float32)
    held = HeldOut(BY_FILE, np.arange(4), scores, targets, np.array([0, 0, 1, 1]))
    learned = Learned(evil, "yamnet", (evil, "b"), "softmax", clips, (held,), warnings=(evil,))
    record = learned.to_record()
    assert [mistake["said"] for mistake in record["evaluations"][0]["mistakes"]] == [["b"]]
    page = to_html(describe(record, hear_examples(record, EFFICIENTAT)))
    assert "<script" not in page
    assert page.count("<audio") == page.count("<img") == 1
    assert "alt='log-mel spectrogram, 0 to 15,000 Hz'" in page
    assert "img-src data:; media-src data:" in page
    sound = b64decode(re.search(r"data:audio/wav;base64,([^']+)", page)[1])
    assert sound[:4] == b"RIFF"
    assert struct.unpack("<I", sound[24:28]) == (EFFICIENTAT.sample_rate,)


@pytest.mark.parametrize("spec", [YAMNET, EFFICIENTAT_2S, PANNS, VGG16], ids=lambda spec: spec.name)
@pytest.mark.parametrize("duration_s", [0.1, 0.3, 4.0])
def test_pictures_of_a_report_show_what_the_model_saw(spec, duration_s):
    """A tone amid the bands: the lightest row of each picture is its band."""
    samples = np.sin(2 * np.pi * 2000 * np.arange(round(duration_s * spec.sample_rate)) / spec.sample_rate)
    data = spectrogram_png(samples.astype(np.float32), spec)
    width, height = struct.unpack(">II", data[16:24])
    n_hops = round(len(samples) / spec.hop_samples)
    assert n_hops - spec.window_samples / spec.hop_samples <= width <= max(8, n_hops)
    assert height == spec.n_mels
    pixels = np.frombuffer(zlib.decompress(data[41:]), np.uint8).reshape(height, 1 + 3 * width)[:, 1:]
    edges = np.linspace(*MEL_SCALES[spec.mel_formula](np.array([spec.mel_min_hz, spec.mel_max_hz])), spec.n_mels + 2)
    band = np.argmin(np.abs(edges[1:-1] - MEL_SCALES[spec.mel_formula](2000)))
    lightest = spec.n_mels - 1 - np.argmax(pixels.sum(axis=1, dtype=int))
    assert abs(lightest - band) <= 1


def test_a_page_without_sounds_allows_none():
    learned = Learned("tones", "yamnet", ("a", "b"), "softmax", (), ())
    assert "media-src" not in to_html(describe(learned.to_record()))


def test_a_clip_that_is_gone_is_named_without_a_picture():
    mistake = {"path": "gone.wav", "start_s": 0.0, "end_s": None, "labels": ["a"], "said": [], "scores": {"a": 0.1}}
    example = hear_examples({"evaluations": [{"mistakes": [mistake]}]}, YAMNET)[0]
    assert example.title == "a, heard as no class"
    assert (example.picture, example.sound) == ("", "")


def test_a_png_holds_its_pixels():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = png(pixels)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (3, 2)
    length = struct.unpack(">I", data[33:37])[0]
    rows = zlib.decompress(data[41 : 41 + length])
    assert rows == b"\0" + pixels[0].tobytes() + b"\0" + pixels[1].tobytes()


def test_what_is_not_defined_is_null_in_the_results(learned, tmp_path):
    first = learned.learned.held_out[0]
    empty = replace(learned.learned, held_out=(replace(first, scores=first.scores * 0),))
    record = write_result(tmp_path / "model", empty, learned.card, learned.weights)
    assert record["evaluations"][0]["classes"][2]["precision"] is None
