"""VGGish against the stored outputs of Google's own code, from the features and from the waveform."""

from __future__ import annotations

from dataclasses import replace

import exactness
import numpy as np
import pytest

from audioset import load_model
from audioset.errors import AudioError, UsageError
from audioset.frontend.cutting import patches
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import VGGISH, YAMNET
from audioset.models import reproduction as checks

SYNTHETIC = ("sine1k_3s", "noise_3s", "zeros_2s", "len_15600", "len_31000")
NATURAL = ("speech_whistling2", "dog_975ms", "tfl_speech", "torchvggish_test")
CASES = SYNTHETIC + NATURAL
TOO_SHORT = "len_15599"


@pytest.fixture(scope="module")
def vggish_onnxruntime(vggish_folder):
    pytest.importorskip("onnxruntime")
    return load_model(vggish_folder, engine="onnxruntime")


@pytest.fixture(params=("vggish", "vggish_onnxruntime"))
def f32_model(request):
    return request.getfixturevalue(request.param)


def largest(difference):
    return np.abs(difference).max()


def relative(ours, theirs):
    return largest(ours - theirs) / largest(theirs)


def examples_of(waveform, dtype):
    return patches(log_mel(waveform.astype(dtype), VGGISH, dtype=dtype), VGGISH)


def test_the_specification_differs_from_yamnets_where_the_originals_do():
    assert replace(YAMNET, name="vggish", log_offset=0.01, patch_hop_frames=96, pad="error") == VGGISH


@pytest.mark.parametrize("case", CASES)
def test_network_matches_the_original_on_its_own_features(f32_model, vggish_reference, case):
    expected = vggish_reference[case]
    outputs = f32_model.engine(expected["log_mel"])
    assert outputs.scores is None
    assert relative(outputs.embeddings, expected["embedding"]) <= exactness.EMBEDDINGS["vggish"]


@pytest.mark.parametrize("case", CASES)
def test_frontend_in_float64_equals_the_original(vggish_reference, case):
    expected = vggish_reference[case]
    ours = examples_of(expected["waveform"], np.float64)
    assert ours.shape == expected["log_mel"].shape
    assert largest(ours - expected["log_mel"]) <= 1e-6


@pytest.mark.parametrize("case", CASES)
def test_frontend_in_float32_is_near_the_original(vggish_reference, case):
    expected = vggish_reference[case]
    assert largest(examples_of(expected["waveform"], np.float32) - expected["log_mel"]) <= 1e-6


@pytest.mark.parametrize("case", CASES)
def test_prediction_matches_the_original_from_the_waveform(f32_model, vggish_reference, case):
    expected = vggish_reference[case]
    prediction = f32_model.predict(expected["waveform"], 16_000)
    assert prediction.scores is None
    assert len(prediction.labels) == 0
    assert prediction.embeddings.shape == expected["embedding"].shape
    assert prediction.log_mel.shape == (96 * len(expected["embedding"]), 64)
    assert relative(prediction.embeddings, expected["embedding"]) <= 1e-5
    np.testing.assert_allclose(prediction.start_s, 0.96 * np.arange(len(expected["embedding"])), rtol=1e-12)


def test_audio_shorter_than_a_patch(vggish, vggish_reference):
    waveform = vggish_reference[TOO_SHORT]["waveform"]
    assert vggish_reference[TOO_SHORT]["embedding"].shape == (0, 128)
    with pytest.raises(AudioError, match=r"15,599 samples at 16,000 Hz; vggish needs 15,600 .*--pad") as caught:
        vggish.predict(waveform, 16_000)
    assert caught.value.code == "too_short"
    zero, repeated = (vggish.predict(waveform, 16_000, pad=pad) for pad in ("zero", "repeat"))
    by_hand = {"zero": np.append(waveform, 0), "repeat": np.append(waveform, waveform[0])}
    for prediction, padded in zip((zero, repeated), by_hand.values(), strict=True):
        whole = vggish.predict(padded.astype(np.float32), 16_000)
        np.testing.assert_array_equal(prediction.embeddings, whole.embeddings)
        assert prediction.duration_s == 15_599 / 16_000


def test_a_free_hop_reads_the_same_patches(vggish, vggish_reference):
    waveform = vggish_reference["speech_whistling2"]["waveform"]
    fine = vggish.predict(waveform, 16_000, hop_s=0.24)
    published = vggish.predict(waveform, 16_000)
    assert len(fine.embeddings) == 1 + (len(waveform) - 15_600) // 3_840
    assert relative(fine.embeddings[::4], published.embeddings) <= 2e-6


def test_the_older_activation_makes_negative_values_zero(vggish, vggish_folder, vggish_reference):
    older = load_model(vggish_folder, activation="relu")
    waveform = vggish_reference["tfl_speech"]["waveform"]
    expected = np.maximum(vggish.predict(waveform, 16_000).embeddings, 0)
    ours = older.predict(waveform, 16_000).embeddings
    np.testing.assert_array_equal(ours == 0, expected == 0)
    assert relative(ours, expected) <= 5e-6
    assert (expected == 0).any()


def test_unknown_activations_and_arguments_are_refused(vggish_folder):
    with pytest.raises(UsageError, match="activation is 'tanh'; expected None or 'relu'"):
        load_model(vggish_folder, activation="tanh")
    with pytest.raises(UsageError, match=r"'vggish' cannot have the arguments .*n_thread"):
        load_model(vggish_folder, n_thread=2)


def test_it_has_no_scores_to_show(vggish, vggish_reference):
    prediction = vggish.predict(vggish_reference["noise_3s"]["waveform"], 16_000)
    with pytest.raises(UsageError, match="this model only embeds"):
        prediction.top()


def test_the_report_measures_embeddings(vggish):
    rows = {check.name: check for check in checks.parity_report(vggish)}
    assert all(check.is_ok for check in rows.values())
    assert rows["smoke test of the original"].text == "it needs the published weights"
    assert rows["log-mel against its formula in float64"].value <= 1e-6
    assert any(name.startswith("embeddings of onnxruntime f32") for name in rows)


def test_the_smoke_test_tells_other_weights_from_the_published_ones(vggish, monkeypatch):
    monkeypatch.setattr(vggish, "card", replace(vggish.card, source={"is_published": True}))
    rows = {check.name: check for check in checks.parity_report(vggish)}
    assert not rows["smoke test of the original: embedding deviation"].is_ok
    assert rows["smoke test of the original: postprocessed"].text == "vggish_pca_params.npz is not on this machine"


def test_every_stored_case_is_tested(vggish_reference):
    assert set(vggish_reference) == {*CASES, TOO_SHORT}
