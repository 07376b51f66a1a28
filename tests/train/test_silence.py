"""Every training command on clips with silent parts: what does not vary keeps its own, and nothing becomes NaN."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sounds import noise, sine, wav_bytes

from audioset import load_model
from audioset.calibration.fit import Recipe as Calibrating
from audioset.calibration.fit import fit as fit_thresholds
from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.folder import write
from audioset.errors import AssetError
from audioset.frontend.published import EFFICIENTAT, PANNS, VGGISH, YAMNET
from audioset.labels.labels import LabelSet
from audioset.sounds.reading import read_collection
from audioset.train.classifier.fit import Recipe, fit
from audioset.weights.model_folder import WEIGHTS_NAME, ModelCard, write_model_folder

torch = pytest.importorskip("torch")

from audioset.train import TrainConfig, WarmStart, train  # noqa: E402
from audioset.train import fit as fit_warm_start  # noqa: E402
from audioset.train.classifier.classifier import learn_classifier  # noqa: E402
from audioset.train.finetune import augment  # noqa: E402
from audioset.train.finetune.config import FinetuneConfig  # noqa: E402
from audioset.train.finetune.data import log_mel_patches  # noqa: E402
from audioset.train.finetune.finetune import finetune  # noqa: E402

RATE = 16_000
SECONDS = 0.6
SILENCE = np.zeros(round(SECONDS * RATE), np.float32)
SPECS = [EFFICIENTAT, YAMNET, VGGISH, PANNS]


def half_silent(sound):
    return np.concatenate([sound[: len(sound) // 2], SILENCE[len(sound) // 2 :]])


def click(place):
    clicked = SILENCE.copy()
    clicked[place] = 1.0
    return clicked


def quiet_sounds(number):
    """Sounds that are silent in some place, by what they are called."""
    return {
        "half": half_silent(noise(len(SILENCE), seed=number)),
        "steady": np.full(len(SILENCE), 0.3 + 0.05 * number, np.float32),  # no sound, but samples that are not 0
        "tone": sine(440 + 40 * number, RATE, SECONDS),  # of one band
        "click": click(1_000 * (number + 1)),
    }


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A folder of classes whose clips are silent in part, and of background that is silent throughout."""
    folder = tmp_path_factory.mktemp("quiet")
    for number in range(4):
        for kind, sound in quiet_sounds(number).items():
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{number}.wav").write_bytes(wav_bytes(sound, RATE))
    return folder


@pytest.fixture(scope="module")
def small_yamnet(random_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("yamnet")
    write_model_folder(
        folder, ModelCard("yamnet", {"n_classes": 521}, "yamnet", "yamnet-521", "CC0-1.0", {}), random_weights
    )
    return folder


def assert_usable(folder):
    """A model of finite weights, whose scores of silence and of sound are finite."""
    for name, value in load_file(Path(folder) / WEIGHTS_NAME).items():
        assert np.isfinite(value).all(), name
    model = load_model(folder)
    for sound in (np.zeros(RATE, np.float32), noise(RATE), click(5)):
        assert np.isfinite(model.predict(sound, RATE).scores).all()


# augmentation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_silent_parts_stay_finite_and_no_louder_than_the_batch(spec):
    """Clicks in silence beside loud clips, with the defaults: their bands hardly vary, and the others' do."""
    sounds = [*quiet_sounds(0).values(), *quiet_sounds(1).values(), SILENCE, noise(len(SILENCE))]
    clips = [
        torch.from_numpy(log_mel_patches(sound, spec.with_pad("zero"))[0].astype(np.float32))
        for sound in np.tile(sounds, (1, 3))
    ]
    config = FinetuneConfig(style_share=1.0)
    make = augment.Augmentation(config, spec)
    loudest = max(float(clip.max()) for clip in clips)
    scale = augment.MelScale(spec)
    # What may still be added: the gain, five deviations of the filter, and noise as loud as the clip or less.
    highest_db = (
        10 * np.log10(float(scale.energy(torch.tensor(loudest)))) + config.gain_db + 5 * config.equaliser_db + 3
    )
    highest = float(scale.log_mel(torch.tensor(10 ** (highest_db / 10))))
    for seed in range(2):
        made, _ = make(clips, torch.eye(len(clips)), np.random.default_rng(seed))
        assert torch.isfinite(made).all()
        assert made.max() <= highest


def test_a_band_without_deviation_keeps_its_own():
    patches = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    patches[0, :, 1] = -1.4
    patches[0, :, 2] = -11.5 + 0.004 * (patches[0, :, 2] > 0)  # one step of half precision up and down
    made = augment.with_styles(patches, torch.tensor([1, 0]), torch.tensor([0.0, 0.5]))
    assert torch.equal(made[0, :, 1:3], patches[0, :, 1:3])
    torch.testing.assert_close(made[0, :, [0, 3]].std(0), patches[1, :, [0, 3]].std(0))


def test_silence_with_noise_and_mixed_with_silence_is_silence():
    scale = augment.MelScale(EFFICIENTAT)
    silent = torch.zeros(3, 40, 128)
    mixed, _ = augment.mixup(silent, torch.eye(3), torch.tensor([1, 2, 0]), torch.tensor([0.5, 0.7, 1.0]))
    assert torch.equal(scale.log_mel(mixed), torch.full_like(silent, scale.floor))
    noise_of_silence = torch.zeros(40, 128)
    assert augment.noise_factor(torch.rand(40, 128), noise_of_silence, 5.0) == 0


# fits on embeddings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_size", [0, 4])
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_clips_that_are_all_alike_teach_nothing(hidden_size, rounding):
    """As silent clips are: their embeddings differ by rounding, which is not to be enlarged."""
    rng = np.random.default_rng(0)
    x = np.tile(rng.random(50), (6, 1)) * (1 + rounding * rng.normal(size=(6, 50)))
    fitted = fit(x.astype(np.float32), np.eye(2)[[0, 0, 0, 1, 1, 1]], Recipe(hidden_size=hidden_size))
    np.testing.assert_allclose(fitted.scores(x + rng.normal(0, 1, x.shape)), 0.5, atol=1e-3)


def test_a_hidden_layer_learns_from_two_different_embeddings():
    x = np.random.default_rng(0).random((2, 50))[[0, 0, 0, 1, 1, 1]]
    fitted = fit(x, np.eye(2)[[0, 0, 0, 1, 1, 1]], Recipe(hidden_size=8))
    assert (fitted.scores(x)[0].argmax(axis=1) == [0, 0, 0, 1, 1, 1]).all()


@pytest.mark.parametrize("is_rough", [False, True])
def test_strength_is_even_where_clips_of_a_class_are_alike(is_rough):
    """What sums leave within classes has no direction: shrinkage changes nothing."""
    classes = np.repeat(np.arange(5), 3)
    x = np.random.default_rng(0).random((5, 50))[classes]
    recipe = Recipe(l2=(3.0,), shrinkages=(1.0, 0.1))
    even, shrunk = fit(x, np.eye(5)[classes], recipe, is_rough=is_rough).layers[0][0]
    rounding = np.finfo(np.float32 if is_rough else np.float64).eps  # of sums over the clips' numbers, in any order
    np.testing.assert_allclose(even, shrunk, rtol=0, atol=x.shape[1] * rounding * np.abs(even).max())


def test_scores_that_are_all_the_same_have_no_map_and_a_threshold():
    scores, targets = np.full((12, 1), 0.25, np.float32), (np.arange(12) % 2 == 0)[:, None]
    for kind in ("platt", "isotonic"):
        (found,) = fit_thresholds(scores, targets, LabelSet(("a",), ("a",)), recipe=Calibrating(map=kind)).labels
        assert found.score_map is None
        assert (found.threshold, found.before.calibration_error) == (pytest.approx(0.125), 0.25)


# commands ------------------------------------------------------------------------------------------------------------


def audioset(*arguments):
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "audioset", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_finetune_ends_with_a_usable_model(quiet, backbone, tmp_path):
    result = audioset(
        "finetune", quiet, "--model", backbone, "--output", tmp_path / "model", "--n-epochs", 2,
        "--batch-size", 8, "--least-batches", 1, "--threads", 1, "--device", "cpu", "--style-share", 1,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "epoch 2 of 2" in result.stderr
    lines = (tmp_path / "model" / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(np.isfinite(json.loads(line)["loss"]) for line in lines)
    assert_usable(tmp_path / "model")


def test_a_silent_background_is_learned_with_independent_classes(quiet, backbone, tmp_path):
    folder = tmp_path / "quiet"
    for path in quiet.glob("*/*.wav"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    (folder / "background").mkdir()
    for number in range(3):
        silence = np.zeros(RATE // 2 + number, np.float32)
        (folder / "background" / f"{number}.wav").write_bytes(wav_bytes(silence, RATE))
    collection = read_collection(folder)
    assert any(not clip.labels for clip in collection.clips)
    config = FinetuneConfig(
        backbone=str(backbone), n_epochs=2, batch_size=8, least_batches=1, n_threads=1, device="cpu"
    )
    finetune(collection, config, tmp_path / "model")
    assert_usable(tmp_path / "model")


def test_train_classifier_ends_with_a_usable_model(quiet, small_yamnet, tmp_path):
    for hidden_size in (0, 3):  # the second from embeddings that are kept
        learn_classifier(read_collection(quiet), small_yamnet, hidden_size=hidden_size).write(tmp_path / "model")
    assert_usable(tmp_path / "model")


def test_calibrate_takes_silent_recordings(quiet, random_checkpoint, tmp_path):
    (tmp_path / "silent.wav").write_bytes(wav_bytes(np.zeros(RATE, np.float32), RATE))
    rows = [f"{path},Music" for path in sorted(quiet.glob("tone/*"))] + [
        f"{path},Wind" for path in quiet.glob("half/*")
    ]
    (tmp_path / "labels.csv").write_text("path,label\n" + "\n".join([*rows, f"{tmp_path}/silent.wav,"]) + "\n")
    result = audioset(
        "calibrate", tmp_path / "labels.csv", "--weights", random_checkpoint, "--min-positives", 2, "--map", "platt",
        "--output", tmp_path / "model", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    json.loads(result.stdout, parse_constant=pytest.fail)


def test_train_heads_takes_clips_that_are_all_alike(tmp_path):
    """Of silence the released features have one second, again and again; some classes have no clip at all."""
    silence = np.full((10, 128), 128, np.uint8)
    clips = [FeatureClip(f"silent{i:05d}", 0.0, 10.0, (i % 2,), silence, "bal_train") for i in range(12)]
    write(tmp_path / "features", clips)
    for head in ("feature-attention", "logistic"):
        config = TrainConfig(
            features=str(tmp_path / "features"), head=head, batch_size=4, n_iterations=2, holdout=0.3, eval_every=1,
            class_weight_power=0.5, mixup=0.5, ema=0.9, device="cpu",
        )  # fmt: skip
        result = train(config, tmp_path / head)
        assert result["holdout"]["mean_auc"] == pytest.approx(0.5)  # equal scores
        for name, value in load_file(tmp_path / head / WEIGHTS_NAME).items():
            assert np.isfinite(value).all(), name


def test_a_warm_start_takes_silence(model):
    patches = model.patches(np.zeros(2 * RATE, np.float32), RATE, hop_s=0.96)
    warm_start = WarmStart(model, 2, trains_network=True)
    history = fit_warm_start(warm_start, patches, np.eye(2, dtype=np.float32)[[0] * len(patches)], n_epochs=2)
    assert np.isfinite(history).all()
    assert np.isfinite(warm_start.scores(patches)).all()


def test_a_vgg16_from_scratch_takes_silence(quiet, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSET_ASSETS", "")
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("audioset.assets.fetch", fail_to_fetch)
    config = FinetuneConfig(
        backbone="vgg16", backbone_arguments={"hidden_size": 16}, frozen_until="features.28", n_epochs=1,
        head_epochs=0, unfreeze_epochs=0, batch_size=4, least_batches=1, holdout=0.0, ema=0.0, device="cpu",
    )  # fmt: skip
    collection = read_collection(quiet)
    finetune(collection.select(range(0, len(collection), 4)), config, tmp_path / "model")
    assert_usable(tmp_path / "model")


def fail_to_fetch(*_, **__):
    raise AssetError("there is no network")
