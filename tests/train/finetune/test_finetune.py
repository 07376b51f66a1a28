"""Fine-tuning: settings, runs that are stopped and go on, and results."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_runs import (
    KINDS,
    PLAIN,
    RATE,
    Killed,
    assert_same_weights,
    kill_at,
    lines_of,
    run,
    weights_of,
    write_sounds,
)
from processes import ask_to_stop, torchrun

from audioset import load_model
from audioset.errors import ConflictError, DataError, NoInputError, UsageError
from audioset.sounds.reading import read_collection
from audioset.weights.model_folder import CARD_NAME, read_card

torch = pytest.importorskip("torch")

from audioset.train.distributed import Processes  # noqa: E402
from audioset.train.finetune import training  # noqa: E402
from audioset.train.finetune.config import FinetuneConfig, read_finetune_config  # noqa: E402
from audioset.train.finetune.data import (  # noqa: E402
    Spectrograms,
    data_digest,
)
from audioset.train.finetune.finetune import finetune  # noqa: E402


def test_a_file_of_settings_comes_back_the_same(tmp_path):
    config = FinetuneConfig(backbone='a "b"', backbone_arguments={"strides": [2, 2, 2, 2]}, ema=0)
    (tmp_path / "run.toml").write_text(config.to_toml())
    assert read_finetune_config(tmp_path / "run.toml") == config
    assert read_finetune_config(tmp_path / "run.toml", seed=3) == replace(config, seed=3)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"learning_rat": 1.0}, "no setting 'learning_rat'. Likely meant: learning_rate"),
        ({"batch_size": 1}, "batch_size is 1; expected a number at least 2"),
        ({"speed": 1.0}, "speed is 1.0; expected a number below 1"),
        ({"least_snr_db": 50.0}, "least_snr_db is 50.0, above most_snr_db"),
        ({"patience": 3, "holdout": 0.0}, "patience needs held-out clips"),
        ({"n_epochs": 2, "head_epochs": 1, "unfreeze_epochs": 2}, "more than all 2 epochs"),
        ({"batch_norms": "none"}, "expected one of adapt, keep"),
    ],
)
def test_settings_that_cannot_be(values, match):
    with pytest.raises(UsageError, match=match):
        read_finetune_config(None, **values)


@pytest.mark.parametrize(
    ("given", "head_epochs", "unfreeze_epochs"),
    [
        ({}, 1, 1),
        ({"n_epochs": 2}, 1, 1),
        ({"n_epochs": 1}, 0, 1),
        ({"n_epochs": 1, "head_epochs": 1}, 1, 0),
        ({"n_epochs": 1, "unfreeze_epochs": 0}, 0, 0),
        ({"n_epochs": 3, "head_epochs": 3}, 3, 0),
    ],
)
def test_the_parts_of_a_run_fit_in_it_by_themselves(given, head_epochs, unfreeze_epochs, tmp_path):
    config = read_finetune_config(None, **given)
    assert (config.head_epochs, config.unfreeze_epochs) == (head_epochs, unfreeze_epochs)
    (tmp_path / "run.toml").write_text(config.to_toml())
    assert read_finetune_config(tmp_path / "run.toml") == config


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_that_was_killed_goes_on_with_the_same_bits(sounds, config, tmp_path, tmp_path_factory, epoch):
    whole = tmp_path_factory.getbasetemp() / "whole-finetune"  # once for all
    run(sounds, config, whole)
    with pytest.raises(Killed, match="killed"):
        run(sounds, config, tmp_path / "model", kill_at(epoch))
    assert not (tmp_path / "model" / CARD_NAME).exists()
    record = run(sounds, config, tmp_path / "model")
    assert_same_weights(weights_of(whole), weights_of(tmp_path / "model"))
    assert lines_of(whole) == lines_of(tmp_path / "model")
    assert [line["epoch"] for line in record["history"]] == list(range(1, config.n_epochs + 1))


def test_a_signal_stops_within_a_pass_and_the_run_goes_on_with_the_same_bits(sounds, config, tmp_path, monkeypatch):
    run(sounds, config, tmp_path / "whole")
    original, seen = Spectrograms.piece, []

    def piece(self, row, rng):
        seen.append(row)
        if len(seen) == 22:  # in the second batch of the second pass
            ask_to_stop()
        return original(self, row, rng)

    monkeypatch.setattr(Spectrograms, "piece", piece)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(sounds, config, tmp_path / "model")
    monkeypatch.undo()
    run(sounds, config, tmp_path / "model")
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "model"))


def test_a_finished_run_is_not_trained_again_and_leaves_no_checkpoints(sounds, config, tmp_path):
    first = run(sounds, config, tmp_path / "model")
    (tmp_path / "model" / "run" / "checkpoints").mkdir()  # of a run that was killed just before its end
    again = run(sounds, config, tmp_path / "model", kill_at(1))
    assert again["evaluations"] == first["evaluations"]
    assert again["history"] == first["history"]
    assert not (tmp_path / "model" / "run" / "checkpoints").exists()


def test_other_settings_and_other_data_are_conflicts(sounds, config, tmp_path):
    with pytest.raises(Killed, match="killed"):
        run(sounds, config, tmp_path / "model", kill_at(2))
    with pytest.raises(ConflictError, match=r"other settings \(seed: 0, now 1\)"):
        run(sounds, replace(config, seed=1), tmp_path / "model")
    other = write_sounds(tmp_path / "other", dict.fromkeys(KINDS, 6), seed=5)
    with pytest.raises(ConflictError, match="on other data than the settings name now"):
        run(other, config, tmp_path / "model")


def test_a_folder_of_something_else_is_left_alone(sounds, config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match=r"holds notes\.txt, which no training wrote"):
        run(sounds, config, tmp_path)


def test_few_clips_are_taken_several_times_in_a_pass(sounds, config, tmp_path):
    run(sounds, replace(config, least_batches=6, n_epochs=1, head_epochs=1, unfreeze_epochs=0), tmp_path / "model")
    assert lines_of(tmp_path / "model")[0]["iteration"] == 6


def test_patience_ends_the_run_with_the_best_weights(sounds, config, tmp_path):
    run(sounds, replace(config, n_epochs=30, patience=2, learning_rate=1e-9, head_rate=1e-3), tmp_path / "model")
    lines = lines_of(tmp_path / "model")
    assert len(lines) == 3  # the first is the best; two more are no better


def test_a_loss_that_is_no_number_ends_the_run(sounds, config, tmp_path):
    with pytest.raises(UsageError, match=r"the loss is nan in iteration .* a learning rate that is too high"):
        run(sounds, replace(config, learning_rate=1e30, clip_norm=0.0, warm_up=0.0), tmp_path / "model")
    assert not (tmp_path / "model" / CARD_NAME).exists()
    assert not (tmp_path / "model" / "run" / CARD_NAME).exists()


def test_a_loss_that_is_no_number_names_the_batch_and_its_clips(sounds, config, tmp_path):
    """A gain of thousands of decibels leaves single precision: no step is taken with it."""
    place = r"the loss is nan in iteration 1 \(epoch 1, batch 1\)"
    with pytest.raises(
        DataError, match=rf"{place}: the log-mels of .*_\d\.wav and \d others? are not finite .* gain_db"
    ):
        run(sounds, replace(config, gain_db=1e5, holdout=0.0), tmp_path / "model")


def test_a_gradient_that_is_no_number_is_no_step(sounds, config, tmp_path, monkeypatch):
    def loss_with_a_cliff(logits, targets, class_weights, activation):
        return (logits - logits.detach()).abs().sqrt().sum(1)  # 0, with a slope that is not finite

    monkeypatch.setattr(training, "weighted_loss", loss_with_a_cliff)
    with pytest.raises(
        UsageError, match=r"the loss is 0 in iteration 1 \(.*\), and the norm of its gradient nan, with"
    ):
        run(sounds, config, tmp_path / "model")


def test_a_measure_that_is_not_defined_is_not_the_best(sounds, config, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "clip_balanced_accuracy", lambda *_: float("nan"))
    run(sounds, replace(config, patience=1), tmp_path / "model")
    lines = lines_of(tmp_path / "model")
    assert len(lines) == config.n_epochs  # patience counts what is known
    assert not any("held_out_accuracy" in line for line in lines)


def test_classes_weigh_the_same_where_none_has_clips():
    assert training.find_class_weights(np.zeros((5, 3), np.float32), 0.5).tolist() == [1, 1, 1]
    weights = training.find_class_weights(np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], np.float32), 1.0)
    assert torch.isfinite(weights).all()
    assert float(weights @ torch.tensor([3.0, 1.0, 0.0])) == pytest.approx(4)  # 1 on average over the labels
    assert weights[2] == weights[1]  # as a class with a single clip


class HalfUsed(torch.nn.Module):
    """A batch norm that the input passes, and one that it does not."""

    def __init__(self):
        super().__init__()
        for name in ("used_mean", "used_var", "unused_mean"):
            self.register_buffer(name, torch.full((2,), 7.0))

    def forward(self, x):
        return torch.nn.functional.batch_norm(x, self.used_mean, self.used_var, training=True)


def test_moments_that_no_batch_changes_keep_their_own():
    module = HalfUsed()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    batches = [torch.zeros(4, 2), torch.full((4, 2), 2.0)]  # constant: moments of no variance
    found = training.fresh_moments(module, weights, batches, Processes(0, 1, torch.device("cpu")))
    assert found["unused_mean"].tolist() == [7, 7]
    torch.testing.assert_close(found["used_mean"], torch.ones(2))
    torch.testing.assert_close(found["used_var"], torch.zeros(2), atol=1e-6, rtol=0)


def test_the_identity_of_data_is_their_content_and_labels(sounds, tmp_path):
    collection = read_collection(sounds)
    moved = tmp_path / "moved"
    moved.symlink_to(sounds)
    assert data_digest(read_collection(moved)) == data_digest(collection)
    clips = (replace(collection.clips[0], labels=("hum",)), *collection.clips[1:])
    assert data_digest(replace(collection, clips=clips)) != data_digest(collection)


def test_the_result_is_a_model_that_predicts_what_was_measured(sounds, config, tmp_path):
    record = run(sounds, config, tmp_path / "model", cross_validates=True)
    (by_group,) = record["evaluations"]
    assert (by_group["name"], by_group["n_clips"], len(by_group["folds"])) == ("by group", 18, 3)
    assert len(record["history"]) == config.n_epochs
    card = read_card(tmp_path / "model")
    assert (card.network, card.labels, card.arguments["backbone"]) == ("classifier", list(KINDS), "mobilenet")
    assert card.source["method"] == "finetune"
    model = load_model(tmp_path / "model")
    assert model.predict(np.zeros(RATE, np.float32), RATE).scores.sum() == pytest.approx(1, abs=1e-4)


def test_the_given_test_is_never_learned(sounds, config, tmp_path):
    collection = read_collection(sounds)
    clips = [replace(clip, split="test" if clip.path.name == "a_0.wav" else "train") for clip in collection.clips]
    record = finetune(replace(collection, clips=tuple(clips)), config, tmp_path / "model")
    first = record["evaluations"][0]
    assert (first["name"], first["n_clips"]) == ("given test", 3)


def test_scores_are_those_of_the_model_folder(sounds, config, tmp_path):
    collection = read_collection(sounds)
    clips = tuple(replace(clip, split="test" if "a_" in clip.path.name else "train") for clip in collection.clips)
    record = finetune(replace(collection, clips=clips), config, tmp_path / "model")
    model = load_model(tmp_path / "model")
    right = []
    for clip in clips:
        if clip.split == "test":
            scores = model.predict_file(clip.path).scores.mean(axis=0)
            right.append(model.labels.names[scores.argmax()] == clip.labels[0])
    assert record["evaluations"][0]["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize(
    ("counts", "error", "match"),
    [({"hum": 6}, DataError, "class"), ({}, (NoInputError, DataError), "no ")],
)
def test_data_that_cannot_be_learned(tmp_path, config, counts, error, match):
    write_sounds(tmp_path / "sounds", counts).mkdir(exist_ok=True)
    with pytest.raises(error, match=match):
        run(tmp_path / "sounds", config, tmp_path / "model")


def test_a_class_of_one_clip_is_learned_and_its_measure_is_said_to_be_unknown(tmp_path, config):
    folder = write_sounds(tmp_path / "sounds", {"hum": 6, "hiss": 6, "chirp": 1})
    record = run(folder, config, tmp_path / "model", cross_validates=True)
    assert any(warning.startswith("chirp: all clips are in one part") for warning in record["warnings"])
    assert record["evaluations"][0]["n_clips"] == 12
    assert read_card(tmp_path / "model").labels == ["chirp", "hiss", "hum"]


def test_where_no_clip_can_be_judged_nothing_is_said_of_the_model(tmp_path, config):
    folder = write_sounds(tmp_path / "sounds", {"hum": 1, "hiss": 1})
    config = replace(config, n_epochs=1, unfreeze_epochs=0)
    record = run(folder, config, tmp_path / "model", cross_validates=True, n_folds=2)
    assert record["evaluations"] == []
    assert not (tmp_path / "model" / "folds").exists()
    assert any("nothing is known of how well they are recognised" in warning for warning in record["warnings"])


def test_corrupt_clips_are_left_out(tmp_path, config):
    folder = write_sounds(tmp_path / "sounds", {"hum": 4, "hiss": 4})
    (folder / "hum" / "a_9.wav").write_bytes(b"RIFF nothing")
    record = run(folder, replace(config, holdout=0.0), tmp_path / "model")
    assert record["n_clips"] == 8
    assert record["evaluations"] == []
    assert "nothing was held out" in record["warnings"][0]


def test_a_full_disk_is_an_output_error(sounds, config, tmp_path, monkeypatch):
    from audioset.errors import OutputError

    def write_bytes(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match="No space left on device"):
        run(sounds, config, tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"backbone": "no-such"}, "no-such"),
        ({"frontend": "efficientat_hop_7"}, "expected one of"),
        ({"frontend": "yamnet"}, "the frontend yamnet does not fit"),
        ({"backbone_arguments": {"strides": [3, 2, 2, 2]}}, "strides"),
        ({"holdout_by": "group"}, "holdout_by is 'group', and there are 0 groups"),
    ],
)
def test_networks_and_splits_that_cannot_be(sounds, config, tmp_path, options, match):
    with pytest.raises(UsageError, match=match):
        finetune(read_collection(sounds), replace(config, **options), tmp_path / "model")


@pytest.mark.parametrize("name", ["yamnet"])
def test_a_network_of_patches_is_trained_too(assets_folder, sounds, tmp_path, name):
    config = FinetuneConfig(
        backbone=name, n_epochs=1, head_epochs=0, unfreeze_epochs=0, batch_size=8, holdout=0.0, least_batches=1
    )
    run(sounds, config, tmp_path / "model")
    assert load_model(tmp_path / "model").predict(np.zeros(RATE, np.float32), RATE).scores.shape[1] == 3


def test_sounds_that_differ_are_learned(assets_folder, sounds, tmp_path):
    config = FinetuneConfig(backbone="mn04", n_epochs=8, batch_size=9, holdout=0.0, ema=0.8, n_threads=1)
    collection = read_collection(sounds)
    clips = tuple(replace(clip, split="test" if "a_" in clip.path.name else "train") for clip in collection.clips)
    record = finetune(replace(collection, clips=clips), config, tmp_path / "model")
    assert record["evaluations"][0]["accuracy"] == 1


WORKER = """
import os, sys
import numpy as np
from audioset.sounds.reading import read_collection
from audioset.train.checkpoint import RunFolder
from audioset.train.finetune.config import read_finetune_config
from audioset.train.finetune.finetune import finetune

data, config, output, report = sys.argv[1:]
finish = RunFolder.finish

def report_and_finish(folder, card, weights, metrics):
    arrays = {name: value.numpy() for name, value in weights.items()}
    np.savez(f"{report}{os.environ['RANK']}.npz", n=int(os.environ["WORLD_SIZE"]), **arrays)
    finish(folder, card, weights, metrics)

RunFolder.finish = report_and_finish
finetune(read_collection(data), read_finetune_config(config), output)
"""


def test_two_processes_have_the_weights_of_one(sounds, config, tmp_path):
    strides = {
        "strides": [2, 2, 2, 1]
    }  # finer maps have gradients of nearly 0, whose rounding Adam makes whole steps of
    config = replace(config, **PLAIN, batch_norms="keep", ema=0.5, n_epochs=3, backbone_arguments=strides)
    run(sounds, config, tmp_path / "one")
    (tmp_path / "run.toml").write_text(config.to_toml())
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun(tmp_path / "worker.py", sounds, tmp_path / "run.toml", tmp_path / "two", tmp_path / "rank")
    first, second = (dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(2))
    assert first["n"] == 2
    assert_same_weights(first, second)
    for name, value in weights_of(tmp_path / "one").items():
        np.testing.assert_allclose(value, first[name], atol=2e-5, err_msg=name)
        np.testing.assert_array_equal(weights_of(tmp_path / "two")[name], first[name])


def test_the_command_trains_and_says_what_it_found(sounds, config, tmp_path):
    (tmp_path / "run.toml").write_text(config.to_toml())
    command = [sys.executable, "-m", "audioset", "finetune", sounds, "--config", tmp_path / "run.toml"]
    process = subprocess.run(
        [*command, "--output", tmp_path / "model", "--n-epochs", "3", "--export", "onnx"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "by file" in process.stdout
    assert "epoch 3 of 3" in process.stderr
    assert (tmp_path / "model" / "run" / "run.toml").is_file()
    assert (tmp_path / "model" / "exports" / "model.onnx").is_file()
