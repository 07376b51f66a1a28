"""Models that see a whole clip: windows over any length, clips of any length together, the table of checkpoints."""

from __future__ import annotations

import json
import math
import runpy
import subprocess
import sys
from fnmatch import fnmatch

import numpy as np
import pytest
import soundfile
from reference_data import reference_file
from sounds import noise

from audioset import load_model, tag_files
from audioset.assets import ASSETS
from audioset.errors import AudioError, EngineError, MissingExtraError, UsageError, WeightsError
from audioset.frontend.cutting import patch_waveforms
from audioset.frontend.published import EFFICIENTAT, EFFICIENTAT_VARIANTS, PANNS, PANNS_VARIANTS, YAMNET
from audioset.models.cards import FRONTENDS, NETWORKS, network_shapes
from audioset.models.engines import ENGINE_NAMES
from audioset.models.prediction import join_predictions
from audioset.models.published import MOBILENETS, MODELS, PANNS_MODELS, find_model
from audioset.weights.model_folder import ModelCard, write_model_folder

RATE = 32_000
SMALL = {"n_classes": 527, "channels": [4, 4, 4, 4, 4, 4]}  # of Cnn14's kind


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


def stream_whole(model, waveform, size, sample_rate, **options):
    stream = model.stream(sample_rate, **options)
    blocks = (waveform[start : start + size] for start in range(0, len(waveform), size))
    parts = [part for block in blocks for part in stream.push(block)]
    return join_predictions([*parts, *stream.finish()])


@pytest.mark.parametrize("size", [1, 160, 1_000, 100_000])
@pytest.mark.parametrize("options", [{"window_s": 1, "hop_s": 0.4}, {"window_s": 1, "pad": "error"}, {}], ids=str)
def test_a_stream_of_clips_equals_the_whole_waveform(mn04, size, options):
    waveform = noise(int(2.3 * RATE))
    check_equal(stream_whole(mn04, waveform, size, RATE, **options), mn04.predict(waveform, RATE, **options))


def test_a_window_goes_with_the_sample_after_it(mn04):
    stream = mn04.stream(RATE, window_s=1)
    assert stream.push(noise(RATE)) == []
    (first,) = stream.push(noise(1))
    assert (first.start_s.tolist(), first.end_s.tolist()) == ([0.0], [1.0])
    (last,) = stream.finish()
    assert last.end_s.tolist() == [pytest.approx(1 + 1 / RATE)]


def test_a_resampled_stream_of_clips_equals_the_whole_waveform(mn04):
    waveform = noise(int(2.3 * 44_100))
    check_equal(stream_whole(mn04, waveform, 777, 44_100, window_s=1), mn04.predict(waveform, 44_100, window_s=1))


def test_a_stream_of_samples_equals_the_whole_waveform(small_folder):
    model = load_model(small_folder("panns_wavegram"))
    waveform = noise(int(2.3 * RATE))
    check_equal(stream_whole(model, waveform, 999, RATE, window_s=1), model.predict(waveform, RATE, window_s=1))


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


@pytest.mark.parametrize("spec", PANNS_MODELS, ids=lambda spec: spec.name)
def test_every_tensor_of_a_published_checkpoint_is_read_or_ignored(spec):
    published = json.loads(reference_file("panns_state_dicts.json").read_text()).get(spec.weights.partition("_mAP")[0])
    if published is None:
        pytest.skip("the names in this checkpoint are not known")
    needed = network_shapes(ModelCard(spec.network, spec.arguments, spec.frontend, spec.labels, "", {}))
    ignored = spec.reader.keywords["ignored"]
    assert all(name in needed or any(fnmatch(name, pattern) for pattern in ignored) for name in published["tensors"])
    assert not any(fnmatch(name, pattern) for name in needed for pattern in ignored)


def make_small(folder, network, **arguments):
    """A model folder of a small network on the frontend of PANNs, with generated weights."""
    card = ModelCard(network, {**SMALL, **arguments}, "panns", "audioset-527", "CC0-1.0", {})
    rng = np.random.default_rng(5)
    tensors = {}
    for name, shape in network_shapes(card).items():
        spread = math.sqrt(2 / max(1, math.prod(shape[1:])))
        tensors[name] = rng.normal(0, spread, shape).astype("f") if len(shape) > 1 else np.ones(shape, "f")
    write_model_folder(folder, card, tensors)
    return folder


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    """``small_folder("panns_wavegram")``: a folder, made once."""
    made = {}

    def folder(network, **arguments):
        key = (network, *arguments.values())
        if key not in made:
            made[key] = make_small(tmp_path_factory.mktemp(network), network, **arguments)
        return made[key]

    return folder


# ---- Windows of another length


@pytest.mark.parametrize("window_s", [0.5, 1, 2.56])
def test_windows_of_another_length(mn04, window_s):
    waveform = noise(int(3.3 * RATE))
    prediction = mn04.predict(waveform, RATE, window_s=window_s)
    n_samples = round(window_s * RATE)
    first = [*range(0, len(waveform) - n_samples, n_samples), len(waveform) - n_samples]
    np.testing.assert_array_equal(prediction.start_s, [sample / RATE for sample in first])
    np.testing.assert_array_equal(prediction.end_s, [(sample + n_samples) / RATE for sample in first])
    assert prediction.duration_s == len(waveform) / RATE
    for row, sample in enumerate(first):
        alone = mn04.predict(waveform[sample : sample + n_samples], RATE)
        np.testing.assert_allclose(prediction.scores[row], alone.scores[0], atol=2e-6)


def test_windows_of_another_length_may_overlap(mn04):
    prediction = mn04.predict(noise(3 * RATE), RATE, window_s=1, hop_s=0.5)
    np.testing.assert_array_equal(prediction.start_s, [0, 0.5, 1, 1.5, 2])
    np.testing.assert_array_equal(prediction.end_s, prediction.start_s + 1)


@pytest.mark.parametrize("window_s", [2.0, 2.01, 30.0])
def test_a_clip_no_longer_than_a_window_has_the_published_score(mn04, window_s):
    waveform = noise(2 * RATE)
    check_equal(mn04.predict(waveform, RATE, window_s=window_s), mn04.predict(waveform, RATE))


def test_the_published_window_is_the_default(mn04):
    waveform = noise(12 * RATE)
    check_equal(mn04.predict(waveform, RATE, window_s=10), mn04.predict(waveform, RATE))


def test_files_blocks_patches_and_modules_have_windows_too(mn04, tmp_path):
    waveform, path = noise(int(2.5 * RATE)), tmp_path / "a.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    expected = mn04.predict(waveform, RATE, window_s=1)
    check_equal(mn04.predict_file(path, window_s=1), expected)
    assert [part.end_s[0] for part in mn04.predict_blocks(path, window_s=1)] == [1, 2, 2.5]
    cut = mn04.patches(waveform, RATE, window_s=1)
    assert cut.shape == (3, 100, 128)
    np.testing.assert_array_equal(cut.reshape(-1, 128), expected.log_mel)
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        outputs = mn04.to_torch(input="waveform", window_s=1)(torch.from_numpy(waveform))
    np.testing.assert_allclose(outputs.scores.numpy(), expected.scores, atol=1e-5)


@pytest.mark.parametrize(
    "spec", [EFFICIENTAT, *EFFICIENTAT_VARIANTS, PANNS, *PANNS_VARIANTS], ids=lambda spec: spec.name
)
def test_the_shortest_window_is_what_the_network_takes(spec):
    with pytest.raises(UsageError, match=r"window_s is 0.0; expected a multiple of one hop, .* such as") as caught:
        spec.with_window(0.0)
    shortest = spec.with_window(float(str(caught.value).rpartition(" ")[2]))
    n_samples = shortest.samples(shortest.patch_frames)
    assert shortest.patch_frames >= spec.min_frames
    assert n_samples >= spec.reflected_samples
    assert shortest.n_frames(n_samples) == shortest.patch_frames
    assert shortest.patch_hop_frames * spec.hop_samples == n_samples
    with pytest.raises(UsageError, match="expected a multiple of one hop"):
        spec.with_window(n_samples / spec.sample_rate - spec.frame_hop_s)


@pytest.mark.parametrize("window_s", [-1.0, 0.123, 0.015, float("nan")])
def test_windows_that_there_are_not(mn04, window_s):
    with pytest.raises(
        UsageError, match=f"window_s is {window_s}; expected a multiple of one hop, 0.01 s, from 0.02 s"
    ):
        mn04.predict(noise(RATE), RATE, window_s=window_s)


def test_a_window_longer_than_a_day(mn04):
    with pytest.raises(UsageError, match="window_s is inf; expected seconds, at most 86,400"):
        mn04.predict(noise(RATE), RATE, window_s=float("inf"))


def test_patches_have_one_length(model):
    assert model.frontend.with_window(0.96) == YAMNET
    with pytest.raises(UsageError, match=r"window_s is 2; every patch of yamnet has 0.96 s. Next step: leave window_s"):
        model.predict(noise(RATE), RATE, window_s=2)


# ---- Scores over time


@pytest.fixture(scope="module", params=["max", "mean", "attention"])
def over_time(request, small_folder):
    """A model that decides for segments."""
    return load_model(small_folder("panns_cnn", decision=request.param))


def test_scores_over_time_are_those_of_segments(over_time):
    seconds = 3.21
    prediction = over_time.predict(noise(int(seconds * RATE)), RATE)
    assert prediction.segment_frames == 32
    assert prediction.segment_scores.shape == (1, 322 // 32, 527)
    assert prediction.framewise.shape == (322, 527)
    assert prediction.framewise.dtype == np.float32
    np.testing.assert_array_equal(prediction.frame_start_s, np.arange(322) * 320 / RATE)
    for frame in (0, 31, 32, 319, 320, 321):
        segment = min(frame // 32, 9)
        np.testing.assert_array_equal(prediction.framewise[frame], prediction.segment_scores[0, segment])
    low, high = prediction.segment_scores[0].min(axis=0) - 1e-6, prediction.segment_scores[0].max(axis=0) + 1e-6
    assert ((low <= prediction.scores[0]) & (prediction.scores[0] <= high)).all()


def test_the_largest_segment_decides(small_folder):
    prediction = load_model(small_folder("panns_cnn", decision="max")).predict(noise(3 * RATE), RATE)
    np.testing.assert_allclose(prediction.framewise.max(axis=0), prediction.scores[0], atol=1e-6)


def test_other_models_have_none(mn04):
    prediction = mn04.predict(noise(RATE), RATE)
    assert prediction.framewise is None
    assert prediction.segment_scores is None
    np.testing.assert_array_equal(prediction.score_track()[0], prediction.scores)
    assert len(prediction.frame_start_s) == len(prediction.log_mel)


@pytest.mark.parametrize(
    "options", [{}, {"hop_s": 0.5}, {"hop_s": 2, "window_s": 1.5}, {"pad": "zero"}, {"window_s": 0.5}]
)
@pytest.mark.parametrize("seconds", [0.1, 0.75, 4.2, 12.35])
def test_segments_follow_each_other_once(over_time, seconds, options):
    waveform = noise(int(seconds * RATE))
    prediction = over_time.predict(waveform, RATE, **options)
    scores, start_s, end_s = prediction.score_track()
    assert len(scores) == len(start_s) == len(end_s)
    assert (start_s < end_s).all()
    assert start_s[0] == 0
    assert (start_s[1:] >= end_s[:-1]).all()
    assert end_s[-1] <= prediction.duration_s
    if "pad" not in options:
        assert end_s[-1] == prediction.duration_s
    if options.get("window_s") != 1.5:  # these leave gaps
        np.testing.assert_array_equal(start_s[1:], end_s[:-1])


def test_parts_of_a_recording_have_its_segments(over_time, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(int(5.5 * RATE)), RATE, subtype="FLOAT")
    tracks, heard_s = [], 0.0
    for part in over_time.predict_blocks(path, window_s=2, hop_s=1.5):
        tracks.append(part.score_track(heard_s))
        heard_s = part.duration_s
    whole = over_time.predict_file(path, window_s=2, hop_s=1.5).score_track()
    for parts, array in zip(zip(*tracks, strict=True), whole, strict=True):
        np.testing.assert_allclose(np.concatenate(parts), array, atol=1e-6)


def test_events_are_found_in_segments(over_time):
    prediction = over_time.predict(noise(4 * RATE), RATE)
    label = int(np.argmax(np.ptp(prediction.segment_scores[0], axis=0)))
    low, high = np.sort(prediction.segment_scores[0, :, label])[[0, -1]]
    threshold = float((low + high) / 2)
    events = [event for event in prediction.events(threshold) if event.label_id == prediction.labels.ids[label]]
    is_on = prediction.segment_scores[0, :, label] >= np.float32(threshold)
    n_segments = len(is_on)
    onsets = np.flatnonzero(np.diff(is_on.astype(int), prepend=0) == 1)
    offsets = np.flatnonzero(np.diff(is_on.astype(int), append=0) == -1) + 1
    assert [event.start_s for event in events] == [onset * 10_240 / RATE for onset in onsets]
    ends = [4.0 if offset == n_segments else offset * 10_240 / RATE for offset in offsets]
    assert [event.end_s for event in events] == ends


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_other_engines_have_scores_over_time(engine, over_time):
    pytest.importorskip(engine)
    waveform = noise(2 * RATE)
    ours = load_model(over_time.folder, engine=engine).predict(waveform, RATE)
    np.testing.assert_allclose(ours.framewise, over_time.predict(waveform, RATE).framewise, atol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_exported_graph_has_scores_over_time(engine, over_time, tmp_path):
    waveform = noise(int(12.34 * RATE))
    over_time.to_onnx(tmp_path / "a.onnx")
    expected = over_time.predict(waveform, RATE).segment_scores
    if engine == "onnxruntime":
        session = pytest.importorskip(engine).InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
        (framewise,) = session.run(["framewise"], {"waveform": waveform})
    else:
        from audioset.executors.openvino import openvino_core

        compiled = openvino_core().compile_model(tmp_path / "a.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        framewise = compiled(waveform)["framewise"]
    np.testing.assert_allclose(framewise, expected, atol=2e-5)


@pytest.mark.parametrize("hop_s", [0.24, 0.48, 2.0])
def test_every_frame_of_a_file_and_of_a_stream_has_its_time(model, hop_s):
    waveform = noise(80_000)
    prediction = model.predict(waveform, 16_000, hop_s=hop_s)
    np.testing.assert_array_equal(prediction.frame_start_s, np.arange(len(prediction.log_mel)) * 160 / 16_000)
    stream = model.stream(16_000, hop_s=hop_s)
    parts = [part for block in np.split(waveform, 16) for part in stream.push(block)] + stream.finish()
    frames = np.concatenate([part.frame_start_s for part in parts])
    np.testing.assert_array_equal(frames, prediction.frame_start_s)


# ---- Networks that see samples


@pytest.fixture(scope="module", params=["panns_wavegram", "panns_wavegram_logmel"])
def wavegram(request, small_folder):
    return load_model(small_folder(request.param))


def test_samples_and_frames_make_as_many_rows():
    for n_samples in [*range(9_920, 11_300), 319_999, 320_000]:
        (seen,) = patch_waveforms(np.ones(n_samples, np.float32), PANNS)
        n_steps = (len(seen) - 1) // 5 + 1  # the stride of the first convolution
        for size in (4, 4, 4, 2):
            n_steps //= size
        assert n_steps == PANNS.n_frames(n_samples) // 2
        assert (seen[:n_samples] == 1).all()
        assert not seen[n_samples:].any()
        is_refused_by_the_original = -(-n_samples // 5) // 128 != PANNS.n_frames(n_samples) // 2
        assert is_refused_by_the_original == (len(seen) - n_samples > 4)  # up to 4 change no step


@pytest.mark.parametrize("seconds", [0.2, 1, 1.01, 2.345, 10.7])
def test_every_way_to_compute_gives_the_same(wavegram, seconds, tmp_path):
    torch, onnxruntime = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")
    waveform, path = noise(int(seconds * RATE)), tmp_path / "a.wav"
    expected = wavegram.predict(waveform, RATE)
    assert expected.scores.shape == (2 if seconds > 10 else 1, 527)
    assert np.ptp(expected.scores) > 0.01
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    (result,) = tag_files([path], wavegram)
    check_equal(result.require(), expected)
    with torch.no_grad():
        from_waveform = wavegram.to_torch(input="waveform")(torch.from_numpy(waveform))
    np.testing.assert_allclose(from_waveform.scores.numpy(), expected.scores, atol=1e-5)
    wavegram.to_onnx(tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["scores"], {"waveform": waveform})[0], expected.scores, atol=1e-5)


def test_samples_alone_stay_as_they_are(small_folder):
    model = load_model(small_folder("panns_wavegram"))
    for n_samples in (10_240, 10_241, 33 * 320, 33 * 320 + 7):
        waveform = noise(n_samples)
        np.testing.assert_array_equal(model.predict(waveform, RATE).scores, model.engine(waveform[np.newaxis]).scores)
    shortest = np.pad(waveform[:9_920], (0, 320))
    np.testing.assert_array_equal(
        model.predict(waveform[:9_920], RATE).scores, model.engine(shortest[np.newaxis]).scores
    )


def test_a_batch_of_waveforms(wavegram):
    torch = pytest.importorskip("torch")
    clips = noise(2 * 33_000).reshape(2, -1)
    with torch.no_grad():
        outputs = wavegram.to_torch(input="waveform", window_s=0.5)(torch.from_numpy(clips))
    assert outputs.scores.shape == (2, 3, 527)
    for clip, scores in zip(clips, outputs.scores.numpy(), strict=True):
        np.testing.assert_allclose(scores, wavegram.predict(clip, RATE, window_s=0.5).scores, atol=1e-5)


def test_clips_of_any_lengths_go_together_with_their_samples(wavegram, tmp_path):
    lengths = (0.9, 1, 1, 0.2, 12)
    paths = [tmp_path / f"{index}.wav" for index in range(len(lengths))]
    for index, (path, seconds) in enumerate(zip(paths, lengths, strict=True)):
        soundfile.write(path, noise(int(seconds * RATE), seed=index), RATE, subtype="FLOAT")
    for path, result in zip(paths, tag_files(paths, wavegram), strict=True):
        check_equal(result.require(), wavegram.predict_file(path))


def test_samples_need_a_frontend_of_clips(tmp_path, random_weights):
    card = ModelCard("panns_wavegram", SMALL, "yamnet", "audioset-527", "", {})
    write_model_folder(tmp_path, card, random_weights)
    with pytest.raises(WeightsError, match="'panns_wavegram' sees samples, which 'yamnet' does not give"):
        load_model(tmp_path)


@pytest.mark.parametrize("method", ["waveforms", "to_onnx"])
def test_frontends_of_patches_give_no_samples(method, model, tmp_path):
    pytest.importorskip("torch")
    from audioset.executors.onnx_frontend import waveform_to_onnx
    from audioset.executors.torch_frontend import TorchFrontend

    make = {
        "waveforms": lambda: TorchFrontend(YAMNET).waveforms(None),
        "to_onnx": lambda: waveform_to_onnx(NETWORKS["panns_wavegram"], {}, YAMNET, {}),
    }[method]
    with pytest.raises(UsageError, match="the network sees samples, and the frontend 'yamnet' is not centred"):
        make()


# ---- PyTorch as engine


@pytest.mark.parametrize("name", ["yamnet", "mn04"])
def test_pytorch_has_the_numbers_of_openvino(name, assets_folder, request):
    pytest.importorskip("torch")
    model = request.getfixturevalue(name)
    waveform = noise(3 * RATE)
    prediction = load_model(name, engine="torch").predict(waveform, RATE)
    expected = model.predict(waveform, RATE)
    assert np.abs(prediction.scores - expected.scores).max() <= 1e-5
    assert np.abs(prediction.embeddings - expected.embeddings).max() <= 1e-5 * np.abs(expected.embeddings).max()
    np.testing.assert_array_equal(prediction.log_mel, expected.log_mel)


@pytest.fixture
def torch_engine(random_checkpoint):
    pytest.importorskip("torch")
    return lambda **options: load_model("yamnet", weights=random_checkpoint, engine="torch", **options)


def test_pytorch_keeps_its_number_of_threads(torch_engine):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        model = torch_engine(n_threads=1)
        model.predict(noise(RATE), 16_000)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_pytorch_in_bf16(torch_engine, model):
    try:
        rounded = torch_engine(precision="bf16").predict(noise(RATE), 16_000)
    except EngineError as error:
        pytest.skip(str(error))
    exact = model.predict(noise(RATE), 16_000)
    assert rounded.scores.dtype == np.float32
    assert 1e-5 < np.abs(rounded.scores - exact.scores).max() < 0.1


def test_pytorch_on_a_processor_without_bf16(torch_engine, monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_bf16": False}, raising=False)
    with pytest.raises(EngineError, match=r"PyTorch finds no bfloat16 instructions.*precision=\"f32\"") as caught:
        torch_engine(precision="bf16")
    assert caught.value.code == "precision"


def test_the_engine_without_pytorch(random_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "audioset.executors.torch", raising=False)
    with pytest.raises(MissingExtraError, match=r'needs the package torch.*pip install "audioset\[train\]"'):
        load_model("yamnet", weights=random_checkpoint, engine="torch")


def test_pytorch_is_imported_when_it_is_asked_for():
    assert "torch" in ENGINE_NAMES
    script = "import sys, audioset.models.model; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
