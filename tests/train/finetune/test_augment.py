"""Augmentation of spectrograms: what each change does, and what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from finetune_runs import PLAIN, RATE
from sounds import wav_bytes

from audioset.errors import DataError, NoInputError
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT, PANNS, VGGISH, YAMNET

torch = pytest.importorskip("torch")

from audioset.train.finetune import augment  # noqa: E402
from audioset.train.finetune.config import FinetuneConfig  # noqa: E402
from audioset.train.finetune.data import log_mel_patches, noise_source  # noqa: E402

SPECS = [EFFICIENTAT, YAMNET, VGGISH, PANNS]


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
