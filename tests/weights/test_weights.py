"""Checkpoints and model folders: what is right is read exactly, what is wrong is refused by its tensor's name."""

from __future__ import annotations

import json
import logging
import shutil

import h5py
import numpy as np
import pytest
from reference_data import YAMNET_SHAPES, keras_name
from sounds import noise

from audioset import load_model
from audioset.errors import UsageError, WeightsError
from audioset.files import write_atomically
from audioset.models.cards import find_labels
from audioset.models.published import MODELS
from audioset.weights.keras_h5 import read_keras_h5
from audioset.weights.model_folder import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    read_card,
    read_weights,
    write_model_folder,
)

SMALL = {
    "layer1/conv/kernel": (3, 3, 1, 4),
    "layer1/conv/bn/beta": (4,),
    "logits/kernel": (4, 5),
    "logits/bias": (5,),
}
TENSORS = {name: noise(int(np.prod(shape)), seed=i).reshape(shape) for i, (name, shape) in enumerate(SMALL.items())}
KERNEL = keras_name("logits/kernel")
CARD = ModelCard("yamnet", {"n_classes": 521}, "yamnet", "yamnet-521", "CC0", {"file": "made for a test"})


def write_keras(path, tensors=TENSORS, prefix=""):
    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            file[prefix + keras_name(name)] = value
    return path


def check_tensors(tensors, expected=TENSORS):
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_array_equal(tensors[name], value)


# ---- Keras HDF5


def test_tensors_are_read_by_their_published_names(tmp_path):
    check_tensors(read_keras_h5(write_keras(tmp_path / "w.h5"), SMALL))


def test_the_order_is_the_networks_not_the_files(tmp_path):
    reverse = dict(reversed(TENSORS.items()))
    check_tensors(read_keras_h5(write_keras(tmp_path / "w.h5", reverse), SMALL))


def test_the_reference_weights(assets_folder):
    tensors = read_keras_h5(assets_folder / "yamnet.h5", YAMNET_SHAPES)
    assert {name: value.shape for name, value in tensors.items()} == YAMNET_SHAPES
    assert sum(value.size for value in tensors.values()) == MODELS["yamnet"].n_parameters


def test_the_last_layer_may_be_called_dense(tmp_path):
    renamed = {name.replace("logits", "dense"): value for name, value in TENSORS.items()}
    check_tensors(read_keras_h5(write_keras(tmp_path / "w.h5", renamed), SMALL))


def test_a_whole_saved_model(tmp_path):
    path = write_keras(tmp_path / "w.h5", prefix="model_weights/")
    with h5py.File(path, "a") as file:
        file["optimizer_weights/iterations:0"] = np.int64(7)
        file.create_group("model_weights/top_level_model_weights")
        file.attrs["keras_version"] = "2.13.1"
    check_tensors(read_keras_h5(path, SMALL))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_widths(tmp_path, dtype):
    rounded = {name: value.astype(dtype) for name, value in TENSORS.items()}
    check_tensors(read_keras_h5(write_keras(tmp_path / "w.h5", rounded), SMALL), rounded)


def link_outside(file, other):
    file[KERNEL] = h5py.ExternalLink(str(other), KERNEL)


def link_inside(file, other):
    file[KERNEL] = h5py.SoftLink("/" + keras_name("logits/bias"))


def link_everything_outside(file, other):
    file["model_weights"] = h5py.ExternalLink(str(other), "/")


def link_to_nothing(file, other):
    file["model_weights"] = h5py.SoftLink("/nothing")


def virtual_dataset(file, other):
    layout = h5py.VirtualLayout((4, 5), "f4")
    layout[:] = h5py.VirtualSource(str(other), KERNEL, shape=(4, 5))
    file.create_virtual_dataset(KERNEL, layout)


def external_dataset(file, other):
    file.create_dataset(KERNEL, (4, 5), "f4", external=[(str(other), 0, 80)])


def shape_bomb(file, other):
    file.create_dataset(KERNEL, (10**6, 10**6), "f4", chunks=(1_000, 1_000))


def deep_groups(file, other):
    file["cycle"] = file


DATA = {
    "shape": (np.zeros((4, 6)), r"'logits/kernel' has shape \(4, 6\); expected \(4, 5\).*another number of classes"),
    "integers": (np.zeros((4, 5), np.int8), "'.*logits/kernel:0' has dtype int8; expected floating-point"),
    "text": ("hello", "'.*logits/kernel:0' has dtype object; expected floating-point"),
    "record": (np.zeros((4, 5), [("a", "f4")]), "'.*logits/kernel:0' has dtype .*; expected floating-point"),
    "type": (np.dtype("f4"), "'.*logits/kernel:0' is neither a group nor a tensor"),
    "nan": (np.full((4, 5), np.nan), "'logits/kernel' holds NaN or infinite values"),
    "infinite": (np.full((4, 5), -np.inf), "'logits/kernel' holds NaN or infinite values"),
    "too large": (np.full((4, 5), 1e300), "'logits/kernel' holds NaN or infinite values"),
    "empty": (h5py.Empty("f4"), "'logits/kernel' has shape None"),
}
TRAPS = {
    link_outside: r"'.*logits/kernel:0' is an external link to '.*other\.h5'",
    link_inside: "'.*logits/kernel:0' is a soft link to '/logits",
    link_everything_outside: r"'model_weights' is an external link to '.*other\.h5'",
    link_to_nothing: "'model_weights' is a soft link to '/nothing'",
    virtual_dataset: "'.*logits/kernel:0' is a virtual or external dataset, which reads other files",
    external_dataset: "'.*logits/kernel:0' is a virtual or external dataset, which reads other files",
    shape_bomb: "'.*logits/kernel:0' claims 4,000,000,000,000 bytes, more than the whole file",
    deep_groups: "nested more than 12 deep at 'cycle/cycle/.*this is no Keras file",
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_nothing_outside_the_file_is_read(tmp_path, trap):
    other = write_keras(tmp_path / "other.h5")
    path = write_keras(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file[KERNEL]
        trap(file, other)
    with pytest.raises(WeightsError, match=TRAPS[trap]):
        read_keras_h5(path, SMALL)


@pytest.mark.parametrize("kind", DATA)
def test_tensors_that_cannot_be_used(tmp_path, kind):
    value, message = DATA[kind]
    path = write_keras(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        del file[KERNEL]
        file[KERNEL] = value
    with pytest.raises(WeightsError, match=message):
        read_keras_h5(path, SMALL)


def test_a_missing_tensor(tmp_path):
    path = write_keras(tmp_path / "w.h5", {name: TENSORS[name] for name in list(TENSORS)[:3]})
    with pytest.raises(WeightsError, match=r"has no tensor 'logits/bias' or 'dense/bias'; it has .*another network"):
        read_keras_h5(path, SMALL)


def test_a_tensor_too_many(tmp_path):
    path = write_keras(tmp_path / "w.h5", {**TENSORS, "layer9/conv/kernel": np.zeros(3)})
    with pytest.raises(
        WeightsError, match="has 1 tensors that the network does not know, such as 'layer9/conv/kernel'"
    ):
        read_keras_h5(path, SMALL)


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: b"<html>" * 100, lambda data: data[: len(data) // 2]]
)
def test_a_file_that_is_no_hdf5(tmp_path, damage):
    path = write_keras(tmp_path / "w.h5")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=r"w\.h5 cannot be read as HDF5 .*an unfinished download or another format"):
        read_keras_h5(path, SMALL)


def test_damage_is_refused_or_harmless(tmp_path):
    """Random bytes in random places: the tensors come out with their shapes, or a WeightsError, and nothing else."""
    original = write_keras(tmp_path / "w.h5").read_bytes()
    rng = np.random.default_rng(0)
    path, n_refused, n_read = tmp_path / "damaged.h5", 0, 0
    for _ in range(200):
        data = bytearray(original)
        for position in rng.integers(0, len(data), 10):
            data[position] = rng.integers(256)
        path.write_bytes(data)
        try:
            tensors = read_keras_h5(path, SMALL)
        except WeightsError:
            n_refused += 1
        else:
            n_read += {name: value.shape for name, value in tensors.items()} == SMALL
    assert n_refused > 0
    assert n_refused + n_read == 200


# ---- model folders


@pytest.fixture
def folder(tmp_path, random_weights):
    write_model_folder(tmp_path / "model", CARD, random_weights)
    return tmp_path / "model"


def change_card(folder, **values):
    card = json.loads((folder / CARD_NAME).read_text())
    (folder / CARD_NAME).write_text(json.dumps({**card, **values}))


def test_a_folder_gives_back_what_was_written(tmp_path):
    write_model_folder(tmp_path / "a" / "b", CARD, {"x": np.asfortranarray(noise(6).reshape(2, 3))})
    assert read_card(tmp_path / "a" / "b") == CARD
    tensors = read_weights(tmp_path / "a" / "b", {"x": (2, 3)})
    np.testing.assert_array_equal(tensors["x"], noise(6).reshape(2, 3))
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [CARD_NAME, WEIGHTS_NAME]


def test_a_folder_is_a_model(folder, model):
    waveform = noise(32_000)
    from_folder = load_model(folder).predict(waveform, 16_000)
    from_checkpoint = model.predict(waveform, 16_000)
    np.testing.assert_array_equal(from_folder.scores, from_checkpoint.scores)
    assert load_model(str(folder)).card == CARD


def test_a_newer_card_may_say_more(folder):
    change_card(folder, thresholds=[0.5])
    assert read_card(folder) == CARD


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"format": 2}, "has format 2; this version reads format 1. Next step: update audioset"),
        ({"network": "resnet"}, "network is 'resnet'; expected one of yamnet"),
        ({"frontend": "mfcc"}, "frontend is 'mfcc'; expected one of yamnet"),
        ({"labels": "birds"}, "label set is 'birds'; expected one of audioset-527, yamnet-521"),
        ({"labels": "audioset-527"}, "the model has 521 classes, and its label set 'audioset-527' has 527"),
        ({"network": ["yamnet"]}, r"'network' is \['yamnet'\]; expected str"),
        ({"arguments": [521]}, r"'arguments' is \[521\]; expected dict"),
        ({"arguments": {"depth": 3}}, "'yamnet' cannot have the arguments {'depth': 3}"),
        ({"arguments": {"n_classes": 10}}, r"'logits/kernel' has shape \(1024, 521\); expected \(1024, 10\)"),
        ({"source": None}, "'source' is None; expected dict"),
    ],
)
def test_cards_that_describe_no_model_here(folder, values, match):
    change_card(folder, **values)
    with pytest.raises(WeightsError, match=match):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'"text"', b'{"network": "yamnet"}'])
def test_cards_that_are_none(folder, content):
    (folder / CARD_NAME).write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.json is not the card of a model"):
        load_model(folder)


def test_a_folder_without_a_card(tmp_path):
    with pytest.raises(WeightsError, match=r"is not a model folder: model\.json cannot be read \(No such file"):
        read_card(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"x" * 1_000, lambda data: data[:-10]])
def test_damaged_safetensors(folder, damage):
    (folder / WEIGHTS_NAME).write_bytes(damage((folder / WEIGHTS_NAME).read_bytes()))
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read as safetensors"):
        load_model(folder)


def test_missing_safetensors(folder):
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read: No such file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("bias", "match"),
    [
        (None, "has no tensor 'logits/bias', which the network needs"),
        (np.zeros(3, np.float32), r"'logits/bias' has shape \(3,\); expected \(521,\)"),
        (np.zeros(521, np.int32), "'logits/bias' has dtype int32; expected floating-point"),
        (np.full(521, np.nan, np.float32), "'logits/bias' holds NaN or infinite values"),
    ],
)
def test_tensors_of_a_folder_that_cannot_be_used(tmp_path, random_weights, bias, match):
    tensors = {name: value for name, value in random_weights.items() if name != "logits/bias"}
    if bias is not None:
        tensors["logits/bias"] = bias
    write_model_folder(tmp_path, CARD, tensors)
    with pytest.raises(WeightsError, match=match):
        load_model(tmp_path)


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def disk_full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


# ---- load_model


def test_weights_of_the_users_own(random_checkpoint, caplog):
    with caplog.at_level(logging.WARNING):
        model = load_model("yamnet", weights=random_checkpoint)
    assert caplog.text == ""  # only what takes the published file's place is worth a word
    assert model.card.source["file"] == "random.h5"
    assert model.card.source["is_published"] is False


def test_a_file_in_place_of_the_published_one_is_told(random_checkpoint, tmp_path, monkeypatch, caplog):
    shutil.copy(random_checkpoint, tmp_path / "yamnet.h5")
    monkeypatch.setenv("AUDIOSET_ASSETS", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        load_model("yamnet")
    assert "yamnet.h5 is not the published file (its hash differs); it is used as it is" in caplog.text


def test_new_weights_under_an_old_name_are_noticed(tmp_path, random_weights):
    path, waveform = tmp_path / "mine.h5", noise(16_000)
    first = load_model("yamnet", weights=write_keras(path, random_weights)).predict(waveform, 16_000)
    changed = {**random_weights, "logits/bias": np.full(521, 3, np.float32)}
    second = load_model("yamnet", weights=write_keras(path, changed)).predict(waveform, 16_000)
    assert (second.scores > first.scores).all()


def test_weights_of_another_network(tmp_path):
    path = write_keras(tmp_path / "small.h5", {"conv1/kernel": np.zeros(3)})
    with pytest.raises(WeightsError, match=r"has no tensor 'layer1/conv/kernel'; .*Likely cause: weights of another"):
        load_model("yamnet", weights=path)


def test_weights_that_are_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "missing.h5"):
        with pytest.raises(WeightsError, match=r"are not a file; expected a checkpoint like yamnet\.h5"):
            load_model("yamnet", weights=path)


def test_a_folder_brings_its_own_weights(folder, random_checkpoint):
    with pytest.raises(
        UsageError, match=r"is a model folder and brings its own weights; leave out weights=.*random\.h5"
    ):
        load_model(folder, weights=random_checkpoint)


def test_both_files_of_a_model_folder_can_be_read_by_the_same_people(tmp_path):
    write_model_folder(tmp_path, CARD, {"x": np.ones(3, np.float32)})
    assert (tmp_path / WEIGHTS_NAME).stat().st_mode == (tmp_path / CARD_NAME).stat().st_mode


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a", "b"], "the model's labels are no set: 3 label ids"),
        (["a", "b"], "the model has 3 classes, and its labels are 2"),
        (["a", "b", 3], "'labels' has entries that are not strings"),
        (3, "'labels' is 3; expected str or list"),
    ],
)
def test_labels_of_ones_own_are_checked(tmp_path, labels, message):
    card = ModelCard("yamnet", {"n_classes": 3}, "yamnet", labels, "CC0", {})
    write_model_folder(tmp_path, card, {"x": np.ones(3, np.float32)})
    with pytest.raises(WeightsError, match=message):
        find_labels(read_card(tmp_path))


def test_a_model_may_have_labels_of_its_own():
    card = ModelCard("yamnet", {"n_classes": 2}, "yamnet", ["owl", "no owl"], "CC0", {})
    assert find_labels(card).names == find_labels(card).ids == ("owl", "no owl")
