"""A classifier of one's own sounds: what it learns, and what it says of itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import noise, sine
from tones import RATE, TONES_HZ, tones, write_tone

from audioset import load_model
from audioset.errors import DataError, NoInputError, UsageError
from audioset.reports.document import to_html
from audioset.reports.learned import describe
from audioset.sounds.collection import Clip, Collection
from audioset.sounds.reading import read_collection
from audioset.train.classifier import embeddings as embedding_module
from audioset.train.classifier.classifier import learn_classifier
from audioset.train.classifier.embeddings import embed_collection
from audioset.train.classifier.gaps import find_named_groups, is_gap
from audioset.train.results import BY_FILE, BY_GROUP, GIVEN_TEST


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
