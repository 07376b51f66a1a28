"""Models of heads: folders, embeddings in windows, and audio through the backbone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from head_oracle import LENGTHS, largest, mask_of, random_clips, random_tensors
from reference_data import read_cases

from audioset import load_model, tag_files
from audioset.errors import AssetError, UsageError, WeightsError
from audioset.models.head_model import HeadModel, cut_windows
from audioset.models.postprocess import Postprocessor
from audioset.models.prediction import join_predictions
from audioset.networks.heads import kong
from audioset.weights.model_folder import ModelCard, read_card, write_model_folder

# Keras turns its variables into arrays by way of PyTorch's Tensor.__array__, which lacks a keyword that numpy 2 wants.

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# ---- Folders, and scores of embeddings


def test_a_folder_with_a_head_loads_as_one(head_folders):
    model = load_model(head_folders["mask"])
    assert isinstance(model, HeadModel)
    assert model.padding == "mask"
    assert model.backbone.name == "vggish"
    assert model.embedding_size == 1024
    assert len(model.labels) == 527
    assert read_card(head_folders["mask"]).backbone == "vggish"
    assert load_model(head_folders["mask"], padding="zero").padding == "zero"


def test_a_card_without_a_backbone_means_vggish_and_its_padding_is_the_networks(tmp_path):
    arguments = {"pooling": "max"}
    card = ModelCard("kong", arguments, "vggish", "audioset-527", "CC0-1.0", {})
    write_model_folder(tmp_path, card, random_tensors(kong, arguments))
    assert "backbone" not in json.loads((tmp_path / "model.json").read_text())
    model = load_model(tmp_path)
    assert model.backbone.name == "vggish"
    assert model.padding == "zero"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "yamnet"}, "backbone is 'yamnet'; expected one of vggish"),
        ({"backbone": "wav2vec"}, "backbone is 'wav2vec'; expected one of vggish"),
        ({"frontend": "yamnet"}, "frontend is 'yamnet'; expected 'vggish', as vggish's"),
        ({"labels": "yamnet-521"}, "the model has 527 classes, and its label set 'yamnet-521' has 521"),
        ({"arguments": {"pooling": "mean"}}, r"'kong' cannot have the arguments \{'pooling': 'mean'\}"),
    ],
)
def test_cards_that_do_not_fit_a_head_are_refused(changes, message, head_folders, tmp_path):
    card = read_card(head_folders["zero"])
    write_model_folder(tmp_path, replace(card, **changes), random_tensors(kong, card.arguments))
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path)


def test_a_backbone_that_is_no_name_is_refused(head_folders, tmp_path):
    values = json.loads((head_folders["zero"] / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**values, "backbone": 7}))
    with pytest.raises(WeightsError, match="'backbone' is 7; expected str"):
        load_model(tmp_path)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_engines_agree_on_embeddings(engine, head, request):
    request.getfixturevalue("torch") if engine == "torch" else pytest.importorskip(engine)
    other = load_model(head.folder, engine=engine)
    clips = random_clips(9, 12)
    lengths = [12, 1, 3, 10, 11, 12, 7, 2, 12]
    ours = head.predict_embeddings(clips, lengths)
    assert largest(other.predict_embeddings(clips, lengths) - ours) <= 1e-5


def test_a_batch_of_clips_is_each_clip(head):
    clips, lengths = random_clips(300, 13), np.random.default_rng(0).integers(1, 14, 300)
    scores = head.predict_embeddings(clips, lengths)
    assert scores.shape == (300, 527)
    assert scores.dtype == np.float32
    for index in (0, 1, 2, 150, 299):
        alone = head.predict_embeddings(clips[index, : lengths[index]])
        assert alone.shape == (527,)
        assert largest(alone - scores[index]) <= 1e-5
    shuffled = np.random.default_rng(1).permutation(300)
    assert largest(head.predict_embeddings(clips[shuffled], lengths[shuffled]) - scores[shuffled]) <= 1e-5


def test_what_comes_after_a_clip_is_not_seen(head):
    clips, other = random_clips(), random_clips(seed=2)
    other[mask_of(LENGTHS, 6) == 1] = clips[mask_of(LENGTHS, 6) == 1]
    ours, theirs = (head.predict_embeddings(values, LENGTHS) for values in (clips, other))
    np.testing.assert_array_equal(ours, theirs)
    assert largest(head.predict_embeddings(clips) - ours) > 1e-4


def test_short_clips_are_padded_as_in_training(head):
    short = random_clips(1, 7)[0]
    padded = head.predict_embeddings(np.pad(short, ((0, 3), (0, 0))))
    assert (largest(head.predict_embeddings(short) - padded) <= 1e-5) == (head.padding == "zero")


def test_no_clips_have_no_scores(head):
    assert head.predict_embeddings(np.zeros((0, 10, 128), np.uint8)).shape == (0, 527)
    assert head.predict_embeddings(np.zeros((0, 10, 128), np.uint8), []).shape == (0, 527)


@pytest.mark.parametrize(
    ("clips", "lengths", "message"),
    [
        (random_clips().astype("f"), None, "dtype float32; expected .* and uint8. Likely cause: .*not quantised"),
        (random_clips().astype(np.int8), None, "dtype int8; expected"),
        (random_clips()[..., :64], None, r"shape \(4, 6, 64\).*expected \(n_seconds, 128\)"),
        (random_clips()[0, 0], None, r"shape \(128,\)"),
        (random_clips()[np.newaxis], None, r"shape \(1, 4, 6, 128\)"),
        (np.zeros((0, 128), np.uint8), None, "clips without a second"),
        (np.zeros((2, 0, 128), np.uint8), [0, 0], "clips without a second"),
        (random_clips(), [6, 6, 7, 6], "length of clip 2 is 7; expected 1 to 6"),
        (random_clips(), [6, 0, 6, 6], "length of clip 1 is 0; expected 1 to 6"),
        (random_clips(), [6, 6, 6], r"lengths have shape \(3,\).*expected \(4,\)"),
        (random_clips(), 6, r"lengths have shape \(\)"),
        (random_clips(), [6.0, 6.0, 6.0, 6.0], "dtype float64; expected .* whole numbers"),
        (random_clips(), [True] * 4, "dtype bool; expected .* whole numbers"),
    ],
)
def test_what_is_not_embeddings_is_refused(clips, lengths, message, head):
    with pytest.raises(UsageError, match=message):
        head.predict_embeddings(clips, lengths)


def test_an_exported_head_takes_embeddings_and_their_mask(head, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    head.to_onnx(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "head.onnx"))
    assert [value.name for value in session.get_inputs()] == ["input_embeddings", "mask"]
    feeds = {"input_embeddings": random_clips(2, 10).astype("f"), "mask": np.ones((2, 10), "f")}
    (scores,) = session.run(["scores"], feeds)
    assert largest(scores - head.predict_embeddings(random_clips(2, 10))) <= 1e-5


def test_a_head_in_keras_has_its_scores(keras, head):
    feeds = {"embeddings": random_clips(2, 10).astype("f"), "mask": np.ones((2, 10), "f")}
    scores = head.to_keras().predict(feeds, verbose=0)["scores"]
    assert largest(scores - head.predict_embeddings(random_clips(2, 10))) <= 1e-5


def test_heads_are_not_exported_with_audio(head, tmp_path):
    with pytest.raises(UsageError, match="input is 'waveform'; expected one of embeddings"):
        head.to_onnx(tmp_path / "head.onnx", input="waveform")
    with pytest.raises(UsageError, match="hop_s are settings of audio"):
        head.to_torch(hop_s=0.96)


# ---- Audio


@pytest.mark.parametrize(("n", "lengths"), [(1, [1]), (10, [10]), (11, [10, 1]), (26, [10, 10, 6])])
def test_windows_of_ten_embeddings_follow_each_other(n, lengths):
    embeddings = random_clips(1, n)[0]
    windows, n_real = cut_windows(embeddings)
    assert n_real.tolist() == lengths
    np.testing.assert_array_equal(windows.reshape(-1, 128)[:n], embeddings)
    assert not windows.reshape(-1, 128)[n:].any()


@pytest.fixture
def backbone_files(vggish_assets, monkeypatch):
    monkeypatch.setenv("AUDIOSET_ASSETS", str(vggish_assets))
    return vggish_assets


@pytest.fixture(scope="module")
def speech():
    """Twenty-six patches of sounds, at VGGish's rate."""
    cases = read_cases("vggish_reference.npz")
    waveform = np.concatenate([cases[name]["waveform"] for name in ("speech_whistling2", "torchvggish_test")])
    return np.resize(waveform, 25 * 16_000 + 400).astype(np.float32)


def test_audio_becomes_windows_of_quantised_embeddings(head, backbone_files, speech):
    prediction = head.predict(speech, 16_000)
    postprocessor = Postprocessor.load(backbone_files / "vggish_pca_params.npz")
    embeddings = postprocessor(load_model("vggish").predict(speech, 16_000).embeddings)
    assert len(embeddings) == 26
    expected = np.stack([head.predict_embeddings(embeddings[start : start + 10]) for start in (0, 10, 20)])
    assert prediction.scores.shape == (3, 527)
    assert largest(prediction.scores - expected) <= 1e-5
    np.testing.assert_allclose(prediction.start_s, [0, 9.6, 19.2], rtol=1e-12)
    np.testing.assert_allclose(prediction.end_s, [9.6, 19.2, 24.96], rtol=1e-12)
    assert prediction.embeddings.shape == (3, 1024)
    assert prediction.log_mel.shape == (26 * 96, 64)
    assert prediction.framewise is None
    assert len(prediction.top(3)) == 3
    assert all(event.end_s <= prediction.duration_s for event in prediction.events(0.5))


def test_files_have_the_scores_of_their_samples(head, backbone_files, speech, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    lengths = {"long.wav": 60 * 16_000, "short.wav": 3 * 16_000, "clip.wav": 10 * 16_000}
    for name, n_samples in lengths.items():
        soundfile.write(tmp_path / name, np.resize(speech, n_samples), 16_000, subtype="FLOAT")
    results = list(tag_files([tmp_path / name for name in lengths], head, n_workers=1))
    for (name, n_samples), result in zip(lengths.items(), results, strict=True):
        expected = head.predict(np.resize(speech, n_samples), 16_000)
        for prediction in (result.require(), head.predict_file(tmp_path / name)):
            assert largest(prediction.scores - expected.scores) <= 1e-5
            np.testing.assert_array_equal(prediction.start_s, expected.start_s)
            np.testing.assert_array_equal(prediction.end_s, expected.end_s)
    assert [len(result.require().scores) for result in results] == [7, 1, 1]


def test_live_audio_becomes_the_same_windows(head, backbone_files, speech):
    stream = head.stream(16_000)
    pieces = [stream.push(block) for block in np.array_split(speech, 40)]
    assert sorted({len(part.scores) for parts in pieces for part in parts}) == [
        1
    ]  # each when its ten seconds are there
    together = join_predictions([part for parts in [*pieces, stream.finish()] for part in parts])
    whole = head.predict(speech, 16_000)
    assert largest(together.scores - whole.scores) <= 1e-5
    np.testing.assert_array_equal(together.log_mel, whole.log_mel)
    np.testing.assert_array_equal(together.start_s, whole.start_s)
    np.testing.assert_array_equal(together.end_s, whole.end_s)


def test_audio_with_another_hop_or_window_is_refused(head, backbone_files, speech):
    with pytest.raises(UsageError, match=r"a hop of 0\.48 s is asked for.*0\.96 s apart"):
        head.predict(speech, 16_000, hop_s=0.48)
    with pytest.raises(UsageError, match="window_s is 5"):
        head.predict(speech, 16_000, window_s=5)


@pytest.mark.parametrize("missing", ["vggish_model.ckpt", "vggish_pca_params.npz"])
def test_without_the_backbones_files_audio_has_no_scores(missing, head_folders, vggish_assets, tmp_path, monkeypatch):
    for name in {"vggish_model.ckpt", "vggish_pca_params.npz"} - {missing}:
        (tmp_path / name).symlink_to(vggish_assets / name)
    monkeypatch.setenv("AUDIOSET_ASSETS", str(tmp_path))
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    head = load_model(head_folders["zero"])
    assert head.predict_embeddings(random_clips(1, 10)).shape == (1, 527)
    with pytest.raises(AssetError, match=rf"files vggish_model\.ckpt and vggish_pca_params\.npz.*{missing}"):
        head.predict(np.zeros(16_000, np.float32), 16_000)
