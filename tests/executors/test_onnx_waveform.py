"""Frontend and network as one ONNX graph: a waveform of any length in, what ``Model.predict`` says out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnx
import pytest
from sounds import noise, sine

from audioset import LabelSet, read_audio
from audioset.errors import OutputError, UsageError
from audioset.executors.onnx_frontend import label_metadata, waveform_to_onnx
from audioset.frontend.cutting import n_patches, patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT, VGGISH, YAMNET
from audioset.frontend.spec import PADS
from audioset.models.cards import NETWORKS
from audioset.models.folders import load_weights
from audioset.networks.ops import Outputs

RATE = 16_000
PATCH = 15_600  # samples
CLIPS = ("dog_975ms", "speech_whistling2", "tfl_speech", "torchvggish_test", "two_heads")
LENGTHS = [(name, seconds) for name in ("noise", "tones", *CLIPS) for seconds in (1, 3.2, 10)]
MINUTES = [(name, 61) for name in ("noise", "tones", "torchvggish_test")]
TONES_HZ = (30, 57.57, 440, 1_000, 3_062.5, 5_875, 7_562.5, 7_750, 7_937.5)  # among them the worst of a sweep
Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def tones(n_samples):
    """Full-scale tones, one after the other, with silence between them."""
    return np.resize(np.concatenate([np.append(sine(hz, RATE, 1, 1), np.zeros(1_000)) for hz in TONES_HZ]), n_samples)


@pytest.fixture(scope="module")
def sound(assets_folder):
    """A sound by its name, as long as need be."""
    clips = {name: read_audio(assets_folder / "audio" / f"{name}.wav")[0][:, 0] for name in CLIPS}
    makers = {"noise": noise, "tones": tones}

    def make(name, n_samples):
        waveform = makers[name](n_samples) if name in makers else np.resize(clips[name], n_samples)
        return waveform.astype(np.float32)

    return make


def run_in_onnxruntime(graph: bytes) -> Run:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda waveform: dict(zip(names, session.run(names, {"waveform": waveform}), strict=True))


def run_in_openvino(graph: bytes) -> Run:
    from audioset.executors.openvino import openvino_core

    core = openvino_core()
    compiled = core.compile_model(core.read_model(graph, b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.any_name for output in compiled.outputs]
    return lambda waveform: dict(zip(names, (value.copy() for value in compiled(waveform).values()), strict=True))


@pytest.fixture(scope="module", params=[run_in_onnxruntime, run_in_openvino], ids=["onnxruntime", "openvino"])
def runtime(request):
    """From a serialised graph to a function of a waveform."""
    return request.param


def graph_of(model, **options):
    weights = load_weights(model.card, model.folder)
    return waveform_to_onnx(NETWORKS[model.card.network], weights, model.frontend, model.card.arguments, **options)


@pytest.fixture(scope="module")
def yamnet_graph(yamnet):
    return graph_of(yamnet, metadata=label_metadata(yamnet.labels))


@pytest.fixture(scope="module")
def vggish_graph(vggish):
    return graph_of(vggish)


@pytest.fixture(scope="module")
def run_yamnet(runtime, yamnet_graph):
    return runtime(yamnet_graph)


@pytest.fixture(scope="module")
def run_vggish(runtime, vggish_graph):
    return runtime(vggish_graph)


@pytest.fixture(scope="module")
def predict():
    """``Model.predict``, once for each sound."""
    return lru_cache(maxsize=None)(lambda model, sound, name, n_samples: model.predict(sound(name, n_samples), RATE))


def patches_as_embeddings(ops, patches):
    """The smallest network: a graph of it shows the patches themselves."""
    return Outputs(embeddings=ops.flatten(patches))


def frontend_graph(spec, hop_frames=None):
    return waveform_to_onnx(patches_as_embeddings, {}, spec, {}, hop_frames)


def expected_frontend(waveform, spec, hop_frames=None):
    """Log-mel spectrogram and patches of a clip that ``audioset.frontend`` pads as the specification says."""
    hop_frames = hop_frames or spec.patch_hop_frames
    if spec.pad == "repeat" and len(waveform) < spec.samples(spec.patch_frames):
        waveform = np.resize(waveform, spec.samples(spec.patch_frames))
    n_frames = (n_patches(len(waveform), spec, hop_frames) - 1) * hop_frames + spec.patch_frames
    n_samples = spec.samples(n_frames)
    features = log_mel(np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform)))), spec)
    return features, patches(features, spec, hop_frames)


def largest(difference):
    return np.abs(difference).max()


def check_outputs(outputs, prediction, limit):
    """Same shapes; scores, and embeddings relative to the largest, within a limit."""
    assert outputs["log_mel"].shape == prediction.log_mel.shape
    assert outputs["embeddings"].shape == prediction.embeddings.shape
    assert largest(outputs["embeddings"] - prediction.embeddings) <= limit * largest(prediction.embeddings)
    assert ("scores" in outputs) == (prediction.scores is not None)
    if prediction.scores is not None:
        assert outputs["scores"].shape == prediction.scores.shape
        assert largest(outputs["scores"] - prediction.scores) <= limit


def limit_for(name):
    """Beside a full-scale tone are bands so quiet that the logarithm shows float32's rounding."""
    return 3e-5 if name == "tones" else 1e-5


@pytest.mark.parametrize(("name", "seconds"), LENGTHS + MINUTES)
def test_yamnet_from_the_waveform_equals_predict(run_yamnet, yamnet, predict, sound, name, seconds):
    n_samples = int(seconds * RATE)
    outputs = run_yamnet(sound(name, n_samples))
    check_outputs(outputs, predict(yamnet, sound, name, n_samples), limit_for(name))


@pytest.mark.parametrize(("name", "seconds"), LENGTHS + MINUTES)
def test_vggish_from_the_waveform_equals_predict(run_vggish, vggish, predict, sound, name, seconds):
    n_samples = int(seconds * RATE)
    outputs = run_vggish(sound(name, n_samples))
    check_outputs(outputs, predict(vggish, sound, name, n_samples), limit_for(name))


@pytest.mark.parametrize("n_samples", [1, 399, 400, 15_359, 15_600, 15_601, 23_280, 23_281])
@pytest.mark.parametrize("name", ["noise", "tones"])
def test_yamnet_at_the_edges_of_a_patch(run_yamnet, yamnet, predict, sound, name, n_samples):
    outputs = run_yamnet(sound(name, n_samples))
    check_outputs(outputs, predict(yamnet, sound, name, n_samples), limit_for(name))


@pytest.mark.parametrize("n_samples", [15_600, 30_959, 30_960, 31_000])
def test_vggish_at_the_edges_of_a_patch(run_vggish, vggish, predict, sound, n_samples):
    outputs = run_vggish(sound("noise", n_samples))
    check_outputs(outputs, predict(vggish, sound, "noise", n_samples), limit_for("noise"))


@pytest.mark.parametrize("n_samples", [0, 1, 15_599])
def test_audio_too_short_for_vggish_gives_empty_arrays(run_vggish, n_samples):
    outputs = run_vggish(noise(n_samples))
    assert {name: value.shape for name, value in outputs.items()} == {"embeddings": (0, 128), "log_mel": (0, 64)}


def test_one_session_serves_all_lengths_in_any_order(run_yamnet):
    waveform = noise(5 * RATE)
    first = run_yamnet(waveform)
    assert len(run_yamnet(waveform[:RATE])["scores"]) == 2
    assert len(run_yamnet(noise(20 * RATE))["scores"]) == 41
    again = run_yamnet(waveform)
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)


@pytest.mark.parametrize("hop_frames", [1, 7, 96, 97, 200])
@pytest.mark.parametrize("pad", PADS)
def test_every_pad_and_hop_cuts_the_patches_of_the_frontend(runtime, pad, hop_frames):
    spec = replace(YAMNET, pad=pad)
    run = runtime(frontend_graph(spec, hop_frames))
    hop = hop_frames * 160
    shorter = [] if pad == "error" else [1, 100, 7_801, PATCH - 1]
    for n_samples in (*shorter, PATCH, PATCH + 1, PATCH + hop - 1, PATCH + hop, PATCH + hop + 1):
        waveform = noise(n_samples)
        features, examples = expected_frontend(waveform, spec, hop_frames)
        outputs = run(waveform)
        np.testing.assert_allclose(outputs["log_mel"], features, rtol=0, atol=5e-5)
        np.testing.assert_allclose(outputs["embeddings"].reshape(-1, 96, 64), examples, rtol=0, atol=5e-5)


@pytest.mark.parametrize("pad", PADS)
def test_no_samples_at_all_are_silence_or_nothing(runtime, pad):
    features = runtime(frontend_graph(replace(VGGISH, pad=pad)))(np.zeros(0, np.float32))["log_mel"]
    assert features.shape == ((0, 64) if pad == "error" else (96, 64))
    np.testing.assert_allclose(features, np.log(0.01), rtol=1e-6)


def test_a_loud_tone_leaves_the_quiet_bands_exact(runtime):
    """A transform in plain float32 is up to 2e-3 away from the frontend."""
    run = runtime(frontend_graph(YAMNET))
    for frequency_hz in np.geomspace(20, 7_999, 40):
        waveform = sine(frequency_hz, RATE, 1, amplitude=1)
        features, _ = expected_frontend(waveform, YAMNET)
        assert largest(run(waveform)["log_mel"] - features) <= 2e-4, frequency_hz


@pytest.mark.parametrize(
    "changes",
    [
        {"window_samples": 401},
        {"window_samples": 480, "hop_samples": 160},
        {"window_samples": 512, "hop_samples": 320, "fft_size": 1_024},
        {"hop_samples": 400},
        {"hop_samples": 500},
        {"n_mels": 20, "mel_min_hz": 50.0, "mel_max_hz": 8_000.0, "log_offset": 0.1, "patch_frames": 10},
        {"is_window_periodic": False, "power": 2, "mel_formula": "kaldi", "log_mean": -4.5, "log_scale": 5.0},
        {"is_window_periodic": False, "window_samples": 401, "power": 2, "log": "decibel"},
    ],
    ids=str,
)
def test_the_graph_follows_the_specification(runtime, changes):
    spec = replace(YAMNET, **changes)
    waveform = noise(3 * RATE + 77)
    features, examples = expected_frontend(waveform, spec)
    outputs = runtime(frontend_graph(spec))(waveform)
    np.testing.assert_allclose(outputs["log_mel"], features, rtol=0, atol=5e-5)
    np.testing.assert_allclose(outputs["embeddings"].reshape(examples.shape), examples, rtol=0, atol=5e-5)


@pytest.mark.parametrize("hop_frames", [7, 20, 33])
@pytest.mark.parametrize("pad", PADS)
def test_a_centred_frontend_cuts_windows_with_features_of_their_own(runtime, pad, hop_frames):
    spec = replace(EFFICIENTAT, patch_frames=20, pad=pad)
    run = runtime(frontend_graph(spec, hop_frames))
    hop = hop_frames * 320
    shorter = [] if pad == "error" else [0, 1, 513, 514, 3_000, 6_399]
    for n_samples in (*shorter, 6_400, 6_401, 6_400 + hop - 1, 6_400 + hop, 6_400 + hop + 1, 20_001):
        waveform = noise(n_samples)
        pieces = slabs([waveform], replace(spec, patch_hop_frames=hop_frames), 64)
        expected = np.stack([log_mel(slab.waveform, spec) for slab in pieces])
        outputs = run(waveform)
        assert outputs["log_mel"].shape == (expected.shape[0] * expected.shape[1], 128)
        np.testing.assert_allclose(outputs["log_mel"].reshape(expected.shape), expected, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(outputs["embeddings"].ravel(), outputs["log_mel"].ravel())


def test_a_centred_frontend_that_refuses_short_audio_gives_nothing(runtime):
    outputs = runtime(frontend_graph(replace(EFFICIENTAT, patch_frames=20, pad="error")))(noise(6_399))
    assert {len(value) for value in outputs.values()} == {0}


def test_a_loud_tone_leaves_the_quiet_bands_of_a_centred_frontend_exact(runtime):
    run = runtime(frontend_graph(EFFICIENTAT))
    for frequency_hz in np.geomspace(20, 15_999, 20):
        waveform = sine(frequency_hz, 32_000, 1, amplitude=1).astype(np.float32)
        assert largest(run(waveform)["log_mel"] - log_mel(waveform, EFFICIENTAT)) <= 2e-4, frequency_hz


def test_the_graph_is_plain_onnx_in_one_file(yamnet_graph):
    model = onnx.load_from_string(yamnet_graph)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    assert {node.domain for node in model.graph.node} == {""}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [value.name for value in model.graph.input] == ["waveform"]
    assert [value.name for value in model.graph.output] == ["embeddings", "scores", "log_mel"]
    (n_samples,) = model.graph.input[0].type.tensor_type.shape.dim
    assert n_samples.dim_param == "n_samples"


def test_the_graph_says_what_it_is(yamnet_graph):
    properties = {entry.key: entry.value for entry in onnx.load_from_string(yamnet_graph).metadata_props}
    labels = json.loads(properties.pop("labels"))
    assert (len(labels), labels[0]) == (521, {"id": "/m/09x0r", "name": "Speech"})
    assert properties == {
        "frontend": "yamnet",
        "sample_rate": "16000",
        "patch_s": "0.96",
        "hop_s": "0.48",
        "pad": "cover",
    }


def test_properties_follow_the_arguments_and_not_the_caller():
    graph = waveform_to_onnx(
        patches_as_embeddings, {}, replace(VGGISH, pad="zero"), {}, 7, {"sample_rate": "8000", "licence": "MIT"}
    )
    properties = {entry.key: entry.value for entry in onnx.load_from_string(graph).metadata_props}
    assert properties == {
        "frontend": "vggish",
        "sample_rate": "16000",
        "patch_s": "0.96",
        "hop_s": "0.07",
        "pad": "zero",
        "licence": "MIT",
    }


def test_labels_keep_their_order_and_letters():
    labels = LabelSet(("/m/b", "/m/a"), ("Bö", "Ä"))
    assert label_metadata(labels) == {"labels": '[{"id": "/m/b", "name": "Bö"}, {"id": "/m/a", "name": "Ä"}]'}


@pytest.mark.parametrize("hop_frames", [0, -48])
def test_a_hop_must_be_positive(hop_frames):
    with pytest.raises(UsageError, match=f"hop_frames is {hop_frames}; expected 1 or more, or None for 48"):
        frontend_graph(YAMNET, hop_frames)


def test_a_frontend_that_the_graph_cannot_have():
    with pytest.raises(UsageError, match="'yamnet' has preemphasis and is not centred; expected both, or neither"):
        frontend_graph(replace(YAMNET, preemphasis=0.97))


# ---- From a model


@pytest.mark.parametrize("given", ["waveform", "patches"])
def test_a_models_file_has_its_numbers(model, tmp_path, given):
    onnxruntime = pytest.importorskip("onnxruntime")
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    expected = model.predict(waveform, 16_000, hop_s=0.24, pad="zero")
    path = tmp_path / "model.onnx"
    model.to_onnx(path, input=given, hop_s=0.24, pad="zero")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = waveform if given == "waveform" else model.patches(waveform, 16_000, hop_s=0.24, pad="zero")
    scores, embeddings = session.run(["scores", "embeddings"], {given: fed})
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(embeddings, expected.embeddings, atol=1e-5 * np.abs(expected.embeddings).max())
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_models_file_says_what_it_takes(model, tmp_path):
    model.to_onnx(tmp_path / "model.onnx")
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert properties["sample_rate"] == "16000"
    assert json.loads(properties["labels"])[0] == {"id": model.labels.ids[0], "name": model.labels.names[0]}


def test_a_models_file_that_cannot_be_written(model, tmp_path):
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OutputError, match=r"model\.onnx cannot be written: Is a directory"):
        model.to_onnx(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="input is 'pcm'; expected one of patches, waveform"):
        model.to_onnx(tmp_path / "other.onnx", input="pcm")
