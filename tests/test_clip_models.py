"""Models that see a whole clip: windows over any length, clips of any length together, the table of checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from sounds import noise

from audioset import load_model, tag_files
from audioset.assets import ASSETS
from audioset.errors import AudioError
from audioset.models import FRONTENDS, MOBILENETS, MODELS, find_model

RATE = 32_000


@pytest.fixture(scope="module")
def mn04(assets_folder):
    if not (assets_folder / "mn04_as_mAP_432.pt").is_file():
        pytest.skip(f"no published weights: {assets_folder} has no mn04_as_mAP_432.pt")
    return load_model("mn04")


def check_equal(one, other):
    for name in ("start_s", "end_s", "log_mel"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(one.scores, other.scores, atol=2e-6)


@pytest.mark.parametrize("seconds", [0.1, 0.975, 3.21, 9.99, 10])
def test_a_clip_no_longer_than_the_window_is_one_patch_of_its_own_length(mn04, seconds):
    prediction = mn04.predict(noise(int(seconds * RATE)), RATE)
    assert prediction.scores.shape == (1, 527)
    assert prediction.embeddings.shape == (1, 384)
    assert (prediction.start_s[0], prediction.end_s[0]) == (0, int(seconds * RATE) / RATE)
    assert len(prediction.log_mel) == mn04.frontend.n_frames(int(seconds * RATE))


@pytest.mark.parametrize(
    ("options", "starts", "ends"),
    [
        ({}, [0, 10, 15], [10, 20, 25]),
        ({"hop_s": 5}, [0, 5, 10, 15], [10, 15, 20, 25]),
        ({"pad": "zero"}, [0, 10], [10, 20]),
        ({"hop_s": 12, "pad": "error"}, [0, 12], [10, 22]),
    ],
)
def test_windows_over_a_longer_clip(mn04, options, starts, ends):
    waveform = noise(25 * RATE)
    prediction = mn04.predict(waveform, RATE, **options)
    np.testing.assert_allclose(prediction.start_s, starts)
    np.testing.assert_allclose(prediction.end_s, ends)
    assert prediction.duration_s == 25
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        alone = mn04.predict(waveform[start * RATE : end * RATE], RATE)
        np.testing.assert_allclose(prediction.scores[index], alone.scores[0], atol=2e-6)


def test_clips_of_any_lengths_go_together(mn04, tmp_path):
    lengths = (1, 1, 2.5, 10, 10, 0.7, 23)
    waveforms = [noise(int(seconds * RATE), seed=index) for index, seconds in enumerate(lengths)]
    paths = [tmp_path / f"{index}.wav" for index in range(len(lengths))]
    for path, waveform in zip(paths, waveforms, strict=True):
        soundfile.write(path, waveform, RATE, subtype="FLOAT")
    for result, waveform in zip(tag_files(paths, mn04), waveforms, strict=True):
        check_equal(result.require(), mn04.predict(waveform, RATE))


def test_short_clips_follow_pad(mn04):
    with pytest.raises(AudioError, match="efficientat needs 320,000"):
        mn04.predict(noise(RATE), RATE, pad="error")
    assert mn04.predict(noise(RATE), RATE, pad="repeat").end_s[0] == 1


def test_real_audio_is_tagged_as_a_listener_would(mn04, assets_folder):
    for clip, label in (("dog_975ms", "Dog"), ("speech_whistling2", "Whistling"), ("torchvggish_test", "Music")):
        assert label in [name for name, _ in mn04.predict_file(assets_folder / "audio" / f"{clip}.wav").top(2)]


@pytest.mark.parametrize("spec", MOBILENETS, ids=lambda spec: spec.name)
def test_every_published_checkpoint_has_its_row(spec):
    assert MODELS[spec.name] is spec
    assert ASSETS[spec.weights].url.startswith("https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn")
    assert spec.frontend in FRONTENDS
    assert 0.29 < spec.mean_ap < 0.49
    assert spec.n_parameters > 100_000


def test_short_names():
    assert find_model("mn04") is MODELS["mn04_as"]
    assert sum(asset.name.startswith("mn") for asset in ASSETS.values()) == len(MOBILENETS)
