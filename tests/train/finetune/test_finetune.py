"""Fine-tuning: settings, augmentation, the order in which layers learn, and runs that are stopped and go on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import ask_to_stop, torchrun
from safetensors.numpy import load_file
from sounds import wav_bytes

from audioset import load_model
from audioset.errors import ConflictError, DataError, NoInputError, UsageError
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT, PANNS, VGGISH, YAMNET
from audioset.models.cards import NETWORKS
from audioset.networks.shapes import trace_shapes
from audioset.sounds.reading import read_collection
from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME, read_card

torch = pytest.importorskip("torch")

from audioset.train.distributed import Processes  # noqa: E402
from audioset.train.finetune import augment  # noqa: E402
from audioset.train.finetune import loop as finetune_module  # noqa: E402
from audioset.train.finetune.config import FinetuneConfig, read_finetune_config  # noqa: E402
from audioset.train.finetune.data import (  # noqa: E402
    Spectrograms,
    data_digest,
    log_mel_patches,
    make_batches,
    noise_source,
)
from audioset.train.finetune.layers import HEAD, N_STAGES, find_stages, first_epoch, learning_rate  # noqa: E402
from audioset.train.finetune.loop import find_class_weights  # noqa: E402
from audioset.train.finetune.result import finetune  # noqa: E402

RATE = 16_000
KINDS = ("chirp", "hiss", "hum")
PLAIN = {
    **dict.fromkeys(("speed", "stretch", "warp", "shift", "gain_db", "equaliser_db", "noise_share"), 0.0),
    **dict.fromkeys(("mixup", "frequency_mask", "time_mask", "style_share"), 0.0),
    "n_masks": 0,
}
SPECS = [EFFICIENTAT, YAMNET, VGGISH, PANNS]


def sound(kind, seconds, rng):
    times = np.arange(round(seconds * RATE)) / RATE
    if kind == "hiss":
        return rng.normal(0, 0.2, len(times)).astype(np.float32)
    frequency = 150 if kind == "hum" else 800 + 1_500 * times
    return (0.3 * np.sin(2 * np.pi * frequency * rng.uniform(0.9, 1.1) * times)).astype(np.float32)


def write_sounds(folder, counts, seed=0):
    """Folders of classes; the files are ``<speaker>_<number>.wav``."""
    rng = np.random.default_rng(seed)
    for kind, count in counts.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            waveform = sound(kind, rng.uniform(0.2, 0.5), rng)
            (folder / kind / f"{'abc'[number % 3]}_{number}.wav").write_bytes(wav_bytes(waveform, RATE))
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_sounds(tmp_path_factory.mktemp("sounds"), dict.fromkeys(KINDS, 6))


@pytest.fixture
def config(backbone):
    return FinetuneConfig(
        backbone=str(backbone),
        n_epochs=4,
        head_epochs=1,
        unfreeze_epochs=2,
        batch_size=8,
        least_batches=1,
        holdout=0.2,
        n_threads=1,
        device="cpu",
    )


def run(sounds, config, output, on_line=None, **options):
    return finetune(read_collection(sounds, group="([abc])_"), config, output, on_line=on_line, **options)


def weights_of(folder):
    return load_file(Path(folder) / WEIGHTS_NAME)


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(epoch):
    def on_line(line):
        if line["epoch"] == epoch:
            raise Killed("killed")

    return on_line


# settings ------------------------------------------------------------------------------------------------------------


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


# augmentation --------------------------------------------------------------------------------------------------------


def clips_of(spec, n=3):
    rng = np.random.default_rng(1)
    n_samples = spec.min_samples + 4_000
    waveforms = [rng.normal(0, 0.1, n_samples + 700 * k * spec.is_centred).astype(np.float32) for k in range(n)]
    return [torch.from_numpy(log_mel_patches(waveform, spec)[0].astype(np.float32)) for waveform in waveforms]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_energies_become_the_same_log_mel_again(spec):
    rng = np.random.default_rng(0)
    values = torch.from_numpy(log_mel(rng.normal(0, 0.1, 40_000).astype(np.float32), spec))
    scale = augment.MelScale(spec)
    torch.testing.assert_close(scale.log_mel(scale.energy(values)), values, atol=2e-4, rtol=1e-4)
    silence = log_mel(np.zeros(40_000, np.float32), spec)
    assert scale.floor == pytest.approx(silence.min(), abs=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_no_strength_is_no_change(spec):
    clips, targets = clips_of(spec), torch.eye(3)
    made, same = augment.Augmentation(FinetuneConfig(**PLAIN), spec)(clips, targets, np.random.default_rng(0))
    assert torch.equal(same, targets)
    assert made.shape[1] == max(map(len, clips))
    floor = augment.MelScale(spec).floor
    for patch, clip in zip(made, clips, strict=True):
        torch.testing.assert_close(patch[: len(clip)], clip, atol=2e-3, rtol=1e-3)
        assert torch.allclose(patch[len(clip) :], torch.tensor(floor), atol=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_full_strength_gives_patches_that_the_network_takes(spec):
    clips, targets = clips_of(spec), torch.eye(3)
    make = augment.Augmentation(FinetuneConfig(noise_share=1.0), spec)
    made, mixed = make(clips, targets, np.random.default_rng(0))
    assert made.shape[::2] == (3, spec.n_mels)
    assert spec.is_centred or made.shape[1] == spec.patch_frames
    assert torch.isfinite(made).all()
    torch.testing.assert_close(mixed.sum(1), torch.ones(3))
    again, _ = make(clips, targets, np.random.default_rng(0))
    other, _ = make(clips, targets, np.random.default_rng(1))
    assert torch.equal(made, again)
    assert made.shape != other.shape or not torch.equal(made, other)


def test_a_gain_adds_its_decibels_to_every_band():
    (clip,) = clips_of(EFFICIENTAT, 1)
    config = FinetuneConfig(**{**PLAIN, "gain_db": 20.0})
    made, _ = augment.Augmentation(config, EFFICIENTAT)([clip], torch.ones(1, 1), np.random.default_rng(3))
    scale = augment.MelScale(EFFICIENTAT)
    added_db = 10 * torch.log10(scale.energy(made[0]) / scale.energy(clip))
    assert 1 < added_db.mean().abs() <= 20
    assert added_db.std() < 0.05


@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 20.0])
def test_noise_is_as_far_below_the_clip_as_asked(snr_db):
    rng = np.random.default_rng(0)
    energy = torch.zeros(60, 128)
    energy[20:40] = torch.from_numpy(rng.random((20, 128), np.float32))  # silence around does not count
    noise = augment.generated_noise(60, 128, rng)
    added = noise * augment.noise_factor(energy, noise, snr_db)
    assert 10 * np.log10(float(energy[20:40].sum(1).mean() / added.sum(1).mean())) == pytest.approx(snr_db, abs=0.01)
    assert augment.noise_factor(torch.zeros(60, 128), noise, snr_db) == 0


def test_playing_a_clip_faster_is_what_a_warp_and_a_stretch_make_of_it():
    rng = np.random.default_rng(0)
    times = np.arange(32_000) / 32_000
    partials = [(rng.uniform(0.1, 0.2), frequency) for frequency in (300, 900, 1_800, 3_500)]
    slow, fast = (
        sum(a * np.sin(2 * np.pi * f * speed * times[: int(32_000 / speed)]) for a, f in partials)
        for speed in (1.0, 1.25)
    )
    ours, wanted = (torch.from_numpy(log_mel(wave.astype(np.float32), EFFICIENTAT)) for wave in (slow, fast))
    scale = augment.MelScale(EFFICIENTAT)
    bands, factors = scale.warped_bands(np.array([1.25])), np.array([1 / 1.25])
    (made,) = augment.placed([ours], len(wanted), np.zeros(1), factors, bands, scale.floor)
    middle = slice(10, 70)  # the ends of a tone have a spectrum of their own
    distance = (made[middle] - wanted[middle]).abs().mean()
    assert distance < 0.25 * (ours[middle] - wanted[middle]).abs().mean()


def test_a_clip_is_moved_by_whole_frames_exactly():
    clips = clips_of(EFFICIENTAT, 1)
    bands = np.arange(128.0)[np.newaxis]
    (made,) = augment.placed(clips, len(clips[0]) + 9, np.array([5.0]), np.ones(1), bands, -9.0)
    torch.testing.assert_close(made[5:-4], clips[0], atol=1e-4, rtol=1e-4)
    assert set(made[:4].flatten().tolist()) == set(made[-3:].flatten().tolist()) == {-9.0}


def test_mixing_adds_energies_in_their_shares():
    energy, targets = torch.rand(2, 4, 8), torch.eye(2)
    mixed, labels = augment.mixup(energy, targets, torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    torch.testing.assert_close(mixed[0], 0.75 * energy[0] + 0.25 * energy[1])
    assert torch.equal(mixed[1], energy[1])
    assert labels.tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_another_clips_style_is_its_mean_and_deviation_of_every_band():
    patches = torch.randn(2, 50, 8) * torch.tensor([1.0, 3.0])[:, None, None] + torch.arange(8.0)
    made = augment.with_styles(patches, torch.tensor([1, 0]), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(made[0].mean(0), patches[1].mean(0))
    torch.testing.assert_close(made[0].std(0), patches[1].std(0))
    torch.testing.assert_close(made[1], patches[1])
    silent = augment.with_styles(torch.full((2, 50, 8), -1.4), torch.tensor([1, 0]), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(silent, torch.full((2, 50, 8), -1.4))


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mask_hides_one_stripe_and_nothing_else(axis):
    patches = torch.randn(50, 40, 30)
    made = augment.masked(patches, axis, 0.3, np.random.default_rng(0))
    is_hidden = (made != patches).all(dim=3 - axis)
    assert torch.equal((made != patches).any(dim=3 - axis), is_hidden)
    assert is_hidden.sum(1).max() <= 0.3 * patches.shape[axis]
    assert (is_hidden.int().diff(dim=1).abs().sum(1) <= 2).all()
    assert is_hidden.any()


def test_recorded_noise_goes_round_and_bad_files_are_left_out(tmp_path, caplog):
    (tmp_path / "rain.wav").write_bytes(wav_bytes(np.full(3_200, 0.1, np.float32), RATE))
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    noise = noise_source(str(tmp_path), YAMNET)
    assert noise(1_000, np.random.default_rng(0)).shape == (1_000, 64)
    assert "broken.wav is left out of the noise" in caplog.text


@pytest.mark.parametrize(
    ("files", "error", "match"),
    [
        (None, NoInputError, "there is no folder of noise"),
        ({}, NoInputError, "has no audio; expected recordings of noise"),
        ({"a.wav": b"RIFF"}, DataError, "none of the 1 files of noise"),
    ],
)
def test_noise_that_cannot_be_used(tmp_path, files, error, match):
    folder = tmp_path / "noise"
    for name, data in (files or {}).items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    if files == {}:
        folder.mkdir()
    with pytest.raises(error, match=match):
        noise_source(str(folder), YAMNET)


# batches and layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(5, 8), (8, 8), (100, 8), (101, 8)])
def test_a_pass_has_every_clip_once_and_like_lengths_together(n, size):
    rng = np.random.default_rng(0)
    rows, lengths = np.arange(50, 50 + n), rng.integers(10, 1_000, 200)
    batches = make_batches(rows, lengths, size, rng)
    assert sorted(np.concatenate(batches)) == rows.tolist()
    assert max(map(len, batches)) <= size
    assert min(map(len, batches)) >= max(map(len, batches)) - 1  # none is too short for moments
    if n == 100:
        assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 0.35 * np.ptp(lengths)


@pytest.mark.parametrize(("network", "arguments"), [("yamnet", {}), ("mobilenet", {"width": 0.4}), ("vggish", {})])
def test_layers_are_staged_in_the_order_of_the_network(network, arguments):
    shape = (None, 128) if network == "mobilenet" else (96, 64)
    card = {"backbone": network, "backbone_arguments": arguments, "n_classes": 3}
    names = list(trace_shapes(NETWORKS["classifier"], shape, card)[0])
    stages = find_stages(names)
    assert list(stages.values()) == sorted(stages.values())
    assert set(stages.values()) == set(range(N_STAGES + 1))
    assert {name for name in names if stages[name] == HEAD} == {name for name in names if name[:10] == "classifier"}


def test_steps_are_smaller_below_and_begin_later():
    config = FinetuneConfig()
    starts = [first_epoch(config, stage) for stage in range(N_STAGES + 1)]
    assert starts == sorted(starts, reverse=True)
    assert starts[-2:] == [config.head_epochs, 0]
    assert starts[0] == config.head_epochs + config.unfreeze_epochs
    rates = [learning_rate(config, stage, 0.3) for stage in range(N_STAGES + 1)]
    assert rates == sorted(rates)
    assert learning_rate(config, 0, 0.3) == pytest.approx(config.bottom_rate * learning_rate(config, N_STAGES - 1, 0.3))
    course = [learning_rate(config, HEAD, progress) for progress in (0.0, 0.05, 0.1, 0.5, 0.999)]
    assert course[0] == 0 < course[1] < course[2] > course[3] > course[4] > 0


def test_the_networks_own_bits_stay_while_the_new_layers_learn(sounds, config, backbone, tmp_path):
    run(sounds, replace(config, head_epochs=3, unfreeze_epochs=0, n_epochs=3, holdout=0.0), tmp_path / "model")
    ours, published = weights_of(tmp_path / "model"), weights_of(backbone)
    own = {name for name in ours if not name.startswith("classifier/")}
    assert len(own) == len(ours) - 2
    assert_same_weights({name: ours[name] for name in own}, {name: published[name] for name in own})


def test_layers_up_to_a_named_one_stay_as_they_are(sounds, config, backbone, tmp_path):
    config = replace(config, frozen_until="features.9", batch_norms="keep", holdout=0.0, unfreeze_epochs=0)
    run(sounds, config, tmp_path / "model")
    ours, published = weights_of(tmp_path / "model"), weights_of(backbone)
    moved = {name for name in published.keys() & ours.keys() if not np.array_equal(ours[name], published[name])}
    assert {int(name.split(".")[1]) for name in moved} == set(range(10, 17))
    with pytest.raises(UsageError, match=r"there is no such layer; near it: features\."):
        run(sounds, replace(config, frozen_until="features.99"), tmp_path / "other")


@pytest.mark.parametrize("batch_norms", ["adapt", "keep"])
def test_moments_follow_the_clips_only_if_asked(sounds, config, backbone, tmp_path, batch_norms):
    run(sounds, replace(config, batch_norms=batch_norms, holdout=0.0), tmp_path / "model")
    ours, published = weights_of(tmp_path / "model"), weights_of(backbone)
    moments = [name for name in ours if name.endswith(("running_mean", "running_var"))]
    moved = [name for name in moments if not np.array_equal(ours[name], published[name])]
    assert moved == (moments if batch_norms == "adapt" else [])
    kernels = [name for name in ours if name.endswith("0.weight")]
    assert not any(np.array_equal(ours[name], published[name]) for name in kernels)


# spectrograms --------------------------------------------------------------------------------------------------------


def test_clips_beyond_the_memory_are_the_same_when_decoded_again(sounds):
    clips = read_collection(sounds).clips
    kept, decoded = (Spectrograms(clips, EFFICIENTAT, 10.0, memory_mb) for memory_mb in (100.0, 0.0))
    assert kept.load() == decoded.load() == {}
    for row in range(len(clips)):
        np.testing.assert_array_equal(kept.patches(row)[0], decoded.patches(row)[0])
        assert kept.n_frames(row) == decoded.n_frames(row)


def test_of_a_long_clip_a_piece_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "long.wav").write_bytes(wav_bytes(np.zeros(RATE * 3, np.float32), RATE))
    found = Spectrograms(read_collection(tmp_path).clips, EFFICIENTAT, 1.0, 100.0)
    assert found.n_frames(0) == len(found.piece(0, np.random.default_rng(0))) == 100


# runs ----------------------------------------------------------------------------------------------------------------


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

    monkeypatch.setattr(finetune_module, "weighted_loss", loss_with_a_cliff)
    with pytest.raises(
        UsageError, match=r"the loss is 0 in iteration 1 \(.*\), and the norm of its gradient nan, with"
    ):
        run(sounds, config, tmp_path / "model")


def test_a_measure_that_is_not_defined_is_not_the_best(sounds, config, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_module, "clip_balanced_accuracy", lambda *_: float("nan"))
    run(sounds, replace(config, patience=1), tmp_path / "model")
    lines = lines_of(tmp_path / "model")
    assert len(lines) == config.n_epochs  # patience counts what is known
    assert not any("held_out_accuracy" in line for line in lines)


def test_classes_weigh_the_same_where_none_has_clips():
    assert find_class_weights(np.zeros((5, 3), np.float32), 0.5).tolist() == [1, 1, 1]
    weights = find_class_weights(np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0]], np.float32), 1.0)
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
    found = finetune_module.fresh_moments(module, weights, batches, Processes(0, 1, torch.device("cpu")))
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


# results -------------------------------------------------------------------------------------------------------------


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
import sys
from audioset.train import finetune_result
from audioset.train.finetune.config import read_finetune_config
from audioset.sounds.reading import read_collection
import numpy as np

data, config, output, report = sys.argv[1:]
train = finetune_result.train

def train_and_report(task, config, rows, held_out, folder, processes, on_line):
    weights = train(task, config, rows, held_out, folder, processes, on_line)
    arrays = {name: value.numpy() for name, value in weights.items()}
    np.savez(f"{report}{processes.rank}.npz", n=processes.n_processes, **arrays)
    return weights

finetune_result.train = train_and_report
finetune_result.finetune(read_collection(data), read_finetune_config(config), output)
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
