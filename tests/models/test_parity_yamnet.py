"""YAMNet against the stored outputs of Google's own code, and its frontend against the formula in float64."""

from __future__ import annotations

from functools import lru_cache

import exactness
import numpy as np
import pytest

from audioset.frontend.cutting import patches
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import YAMNET

SYNTHETIC = ("zeros_3s", "uniform_3s", "sine440_3s", "len_1", "len_15360", "len_15600", "len_15601", "len_23280")
NATURAL = ("speech_whistling2", "dog_975ms", "tfl_speech", "two_heads", "torchvggish_test")
CASES = SYNTHETIC + NATURAL
ENGINES = ("yamnet", "yamnet_onnxruntime")


@pytest.fixture(params=ENGINES)
def f32_model(request):
    return request.getfixturevalue(request.param)


@lru_cache(maxsize=1)
def oracle_constants():
    """Window (400,), DFT matrix (512, 257) and mel weights (257, 64), each from its definition."""
    window = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)])
    dft = np.exp(-2j * np.pi * np.array([[n * k % 512 for k in range(257)] for n in range(512)]) / 512)
    edges = mel(125.0) + (mel(7500.0) - mel(125.0)) * np.arange(66) / 65
    weights = np.zeros((257, 64))
    for k in range(1, 257):  # tf.signal gives the bin at 0 Hz no weight
        for band in range(64):
            lower, centre, upper = edges[band : band + 3]
            position = mel(k * 16_000 / 512)
            slopes = (position - lower) / (centre - lower), (upper - position) / (upper - centre)
            weights[k, band] = max(0.0, min(slopes))
    return window, dft, weights


def mel(frequency_hz):
    return 1127.0 * np.log(1 + frequency_hz / 700.0)


def oracle_log_mel(waveform):
    """The YAMNet frontend as its paper and code describe it, in float64 and without shortcuts."""
    window, dft, weights = oracle_constants()
    samples = oracle_padding(waveform)
    rows = []
    for start in range(0, len(samples) - 400 + 1, 160):
        frame = np.zeros(512)
        frame[:400] = samples[start : start + 400] * window
        rows.append(np.log(np.abs(frame @ dft) @ weights + 0.001))
    return np.array(rows)


def oracle_padding(waveform):
    """``pad_waveform`` of features.py: up to one patch, then up to whole hops."""
    patch, hop = 15_600, 7_680  # samples
    length = patch
    while length < len(waveform):
        length += hop
    return np.concatenate([waveform.astype(np.float64), np.zeros(length - len(waveform))])


def largest(difference):
    return np.abs(difference).max()


def relative(ours, theirs):
    return largest(ours - theirs) / largest(theirs)


def run_in_batches(model, examples, n_batch):
    """Scores and embeddings of the examples, repeated up to whole batches of ``n_batch``."""
    order = np.resize(np.arange(len(examples)), -(-len(examples) // n_batch) * n_batch)
    outputs = [model.engine(examples[order[i : i + n_batch]]) for i in range(0, len(order), n_batch)]
    return order, np.concatenate([o.scores for o in outputs]), np.concatenate([o.embeddings for o in outputs])


@pytest.mark.parametrize("n_batch", [1, 64])
@pytest.mark.parametrize("case", CASES)
def test_network_matches_the_original_on_its_own_features(f32_model, reference, case, n_batch):
    expected = reference[case]
    examples = patches(expected["log_mel"], YAMNET)
    order, scores, embeddings = run_in_batches(f32_model, examples, n_batch)
    assert largest(scores - expected["scores"][order]) <= exactness.SCORES["yamnet"]
    assert relative(embeddings, expected["embeddings"][order]) <= exactness.EMBEDDINGS["yamnet"]


@pytest.mark.parametrize("case", CASES)
def test_frontend_is_as_close_to_the_formula_as_the_original(reference, case):
    expected = reference[case]
    formula = oracle_log_mel(expected["waveform"])
    ours = log_mel(oracle_padding(expected["waveform"]).astype(np.float32), YAMNET)
    assert ours.shape == expected["log_mel"].shape
    assert ours.dtype == np.float32
    assert largest(ours - formula) <= 1.2 * largest(expected["log_mel"] - formula) + 1e-7
    assert largest(ours - formula) <= 5e-7  # what log_mel's docstring promises


@pytest.mark.parametrize("case", CASES)
def test_frontend_in_float64_is_the_formula(reference, case):
    waveform = 0.9 * reference[case]["waveform"].astype(np.float64)  # 0.9: no sample fits into float32
    ours = log_mel(oracle_padding(waveform), YAMNET, dtype=np.float64)
    assert ours.dtype == np.float64
    assert largest(ours - oracle_log_mel(waveform)) <= 1e-10


@pytest.mark.parametrize("case", CASES)
def test_prediction_matches_the_original_from_the_waveform(f32_model, reference, case):
    expected = reference[case]
    prediction = f32_model.predict(expected["waveform"], 16_000)
    assert prediction.log_mel.shape == expected["log_mel"].shape
    assert prediction.scores.shape == expected["scores"].shape
    # A tone leaves bands nearly empty, where the original's own float32 rounding moves its scores.
    assert largest(prediction.scores - expected["scores"]) <= 2e-4
    assert relative(prediction.embeddings, expected["embeddings"]) <= 3e-4


@pytest.mark.parametrize("case", NATURAL)
def test_natural_sounds_match_more_closely(f32_model, reference, case):
    limit = 2.5e-5 if case == "torchvggish_test" else 1e-5
    expected = reference[case]
    prediction = f32_model.predict(expected["waveform"], 16_000)
    assert relative(prediction.scores, expected["scores"]) <= limit
    assert relative(prediction.embeddings, expected["embeddings"]) <= limit


@pytest.mark.parametrize("case", CASES)
def test_bf16_keeps_the_top_class(yamnet_bf16, reference, case):
    expected = reference[case]
    prediction = yamnet_bf16.predict(expected["waveform"], 16_000)
    assert prediction.scores.mean(axis=0).argmax() == expected["scores"].mean(axis=0).argmax()
    assert largest(prediction.scores - expected["scores"]) <= 0.07


@pytest.mark.parametrize("case", CASES)
def test_engines_agree(yamnet, yamnet_onnxruntime, reference, case):
    waveform = reference[case]["waveform"]
    one, other = (model.predict(waveform, 16_000) for model in (yamnet, yamnet_onnxruntime))
    np.testing.assert_array_equal(one.log_mel, other.log_mel)
    assert largest(one.scores - other.scores) <= exactness.SCORES["yamnet"]
    assert relative(one.embeddings, other.embeddings) <= exactness.EMBEDDINGS["yamnet"]


@pytest.mark.parametrize(
    ("clip", "label"),
    [("speech_whistling2", "Whistling"), ("dog_975ms", "Dog"), ("tfl_speech", "Speech"), ("torchvggish_test", "Music")],
)
def test_real_clips_are_tagged_as_a_listener_would(yamnet, assets_folder, clip, label):
    names = [name for name, _ in yamnet.predict_file(assets_folder / "audio" / f"{clip}.wav").top(5)]
    assert label in names


def test_every_stored_case_is_tested(reference):
    assert set(reference) == set(CASES)
