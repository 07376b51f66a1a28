"""Models that see a whole clip: windows over any length, clips of any length together, the table of checkpoints."""

from __future__ import annotations

import json
import runpy

import numpy as np
import pytest
import soundfile
from conftest import reference_file
from sounds import noise

from audioset import load_model, tag_files
from audioset.assets import ASSETS
from audioset.errors import AudioError
from audioset.models import FRONTENDS, MOBILENETS, MODELS, PANNS_MODELS, find_model

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


@pytest.fixture(scope="module")
def panns_checkpoint(tmp_path_factory):
    """A checkpoint of MobileNetV1 as its authors saved theirs, with the frontend's tensors and generated weights."""
    torch = pytest.importorskip("torch")
    published = json.loads(reference_file("panns_state_dicts.json").read_text())["MobileNetV1"]["tensors"]
    tensor_for = runpy.run_path(str(reference_file("panns_weights.py")))["tensor_for"]
    tensors = {
        name: torch.from_numpy(np.array(tensor_for(name, tuple(shape), 0)))
        if not name.endswith("num_batches_tracked")
        else torch.tensor(7)
        for name, shape in published.items()
    }
    path = tmp_path_factory.mktemp("panns") / "MobileNetV1.pth"
    torch.save({"iteration": 1, "model": tensors, "sampler": {"pointer": 3}}, path)
    return path


@pytest.fixture(scope="module")
def panns(panns_checkpoint):
    return load_model("mobilenet_v1", weights=panns_checkpoint)


@pytest.mark.parametrize("clip", ["speech_whistling2", "dog_975ms"])
def test_a_checkpoint_of_ones_own_gives_the_originals_scores(panns, clip):
    with np.load(reference_file("panns_reference.npz")) as reference:
        prediction = panns.predict(reference[f"waveform/{RATE}/{clip}"], RATE)
        expected = reference[f"MobileNetV1/{clip}/embedding"]
        np.testing.assert_allclose(prediction.scores[0], reference[f"MobileNetV1/{clip}/scores"].ravel(), atol=1e-3)
        np.testing.assert_allclose(prediction.embeddings[0], expected.ravel(), atol=1e-3 * np.abs(expected).max())


def test_clips_that_a_network_cannot_pool_are_padded(panns):
    n_samples = panns.frontend.min_samples
    assert panns.frontend.n_frames(n_samples) == 32
    waveform = noise(n_samples)
    padded = np.append(waveform[:1_000], np.zeros(n_samples - 1_000, np.float32))
    np.testing.assert_array_equal(panns.predict(waveform[:1_000], RATE).scores, panns.predict(padded, RATE).scores)


@pytest.mark.parametrize("spec", MOBILENETS + PANNS_MODELS, ids=lambda spec: spec.name)
def test_every_published_checkpoint_has_its_row(spec):
    assert MODELS[spec.name] is spec
    url = ASSETS[spec.weights].url
    assert url.startswith(("https://github.com/fschmid56/EfficientAT/releases/", "https://zenodo.org/record/3987831/"))
    assert spec.frontend in FRONTENDS
    assert 0.29 < spec.mean_ap < 0.49
    assert spec.n_parameters > 100_000


def test_short_names():
    assert find_model("mn04") is MODELS["mn04_as"]
    assert sum(asset.name.startswith("mn") for asset in ASSETS.values()) == len(MOBILENETS)
