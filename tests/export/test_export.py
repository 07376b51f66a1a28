"""Models in other formats: what is written says what the model says, and what cannot be kept leaves nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sounds import noise, sine, wav_bytes

from audioset import Model, load_model
from audioset.errors import (
    EngineError,
    ExportError,
    MissingExtraError,
    NoInputError,
    OutputError,
    UsageError,
    WeightsError,
)
from audioset.export import FORMATS, export_model, exporting
from audioset.export.check import Accuracy, sound
from audioset.export.clips import read_calibration
from audioset.export.job import Job
from audioset.models.cards import network_shapes
from audioset.networks.heads import HEADS
from audioset.networks.shapes import trace_shapes
from audioset.weights.model_folder import WEIGHTS_NAME, ModelCard, write_model_folder

CLASSES = ["low", "high", "noise"]
CLIP_RATE = 16_000
BACKBONE = {"width": 0.1}
CLASSIFIER = ModelCard(
    "classifier",
    {"backbone": "mobilenet", "backbone_arguments": BACKBONE, "n_classes": len(CLASSES), "hidden_size": 8},
    "efficientat",
    CLASSES,
    "CC0-1.0",
    {"file": "generated"},
)
WITH_FRONTEND = ("onnx", "openvino", "torchscript")
NEEDS = {"onnx": "onnxruntime", "torchscript": "torch", "keras": "keras", "tflite": "tensorflow"}


def generated(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights that keep activations in range."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in shapes.items():
        scale = 1 / np.sqrt(max(1, np.prod(shape) // max(shape)))
        value = rng.normal(0, scale, shape)
        weights[name] = np.abs(value) + 0.5 if name.endswith(("var", "variance")) else value
    return {name: value.astype(np.float32) for name, value in weights.items()}


@pytest.fixture(scope="module", autouse=True)
def keras_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keras on PyTorch, unless KERAS_BACKEND names another; its configuration is kept out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        yield


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of whole clips with three classes of its own."""
    folder = tmp_path_factory.mktemp("models") / "tones"
    write_model_folder(folder, CLASSIFIER, generated(network_shapes(CLASSIFIER)))
    return folder


@pytest.fixture(scope="module")
def classifier(classifier_folder: Path) -> Model:
    return load_model(classifier_folder, n_threads=1)


@pytest.fixture(scope="module")
def head_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on embeddings."""
    spec = HEADS["average-pooling"]
    arguments = {**spec.arguments}
    shapes, _ = trace_shapes(spec.network, (None, 128), arguments)
    folder = tmp_path_factory.mktemp("models") / "head"
    name = spec.network.__name__
    card = ModelCard(name, arguments, "vggish", "audioset-527", "CC0-1.0", {}, backbone="vggish")
    write_model_folder(folder, card, generated(shapes))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sounds for each class, of different lengths."""
    folder = tmp_path_factory.mktemp("clips")
    makers = {
        "low": lambda index: sine(200 + 20 * index, CLIP_RATE, 0.4 + 0.1 * index),
        "high": lambda index: sine(3000 + 50 * index, CLIP_RATE, 0.4 + 0.1 * index),
        "noise": lambda index: noise(6000 + 1000 * index, seed=index),
    }
    for name, make in makers.items():
        (folder / name).mkdir()
        for index in range(4):
            (folder / name / f"{index}.wav").write_bytes(wav_bytes(make(index), CLIP_RATE))
    return folder


def needs(format_name: str) -> None:
    if format_name in NEEDS:
        pytest.importorskip(NEEDS[format_name])


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read_metadata(path: Path, format_name: str) -> dict[str, str]:
    """What a file says of itself, read as its own runtime does."""
    if format_name == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if format_name == "openvino":
        from audioset.executors.openvino import openvino_core

        section = openvino_core().read_model(str(path)).get_rt_info(["audioset"]).value
        return {key: str(value) for key, value in section.items()}
    import torch

    extra = {"audioset.json": ""}
    torch.jit.load(str(path), _extra_files=extra)
    return json.loads(extra["audioset.json"])


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("kind", ["clips", "patches", "head"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_exports_agree_with_their_model(
    format_name: str, kind: str, classifier_folder: Path, model: Model, head_folder: Path, tmp_path: Path
) -> None:
    needs(format_name)
    source = {"clips": classifier_folder, "patches": model, "head": head_folder}[kind]
    path = tmp_path / f"x{FORMATS[format_name].suffix}"
    result = export_model(source, path, to=format_name)
    assert result.parity.greatest <= FORMATS[format_name].bound == 1e-4
    assert result.parity.scores is not None
    if format_name != "openvino":  # which may be exactly what the model runs in
        assert result.parity.scores > 0
    assert result.size_bytes == sum(file.stat().st_size for file in result.files)
    assert result.latency.export_ms > 0
    assert leftovers(tmp_path) == sorted([*(file.name for file in result.files), f"{path.name}.json"])


@pytest.mark.parametrize("format_name", [name for name in FORMATS if name != "tflite"])
def test_log_mel_in(format_name: str, classifier: Model, tmp_path: Path) -> None:
    needs(format_name)
    result = export_model(classifier, tmp_path / f"x{FORMATS[format_name].suffix}", input="log-mel")
    assert (result.format, result.input) == (format_name, "patches")
    assert "3 clips" in result.parity.cases
    assert result.parity.greatest <= 1e-4


@pytest.mark.parametrize("format_name", WITH_FRONTEND)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_waveforms_of_any_length(format_name: str, model: Model, tmp_path: Path) -> None:
    needs(format_name)
    path = export_model(model, tmp_path / f"x{FORMATS[format_name].suffix}").path
    runner = exporting.import_module(f"audioset.export.{format_name}").load(path)
    for n_samples in (1, 7_777, 15_600, 15_601, 55_555):
        waveform = sound(4, 16_000, seed=3)[:n_samples]
        expected = model.predict(waveform, 16_000)
        outputs = runner.run({"waveform": waveform})
        np.testing.assert_allclose(outputs["scores"], expected.scores, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_takes_batches_and_needs_no_audioset(classifier: Model, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = export_model(classifier, tmp_path / "x.pt").path
    waveforms = np.stack([sound(1.7, 32_000, seed) for seed in range(2)])
    np.save(tmp_path / "waveforms.npy", waveforms)
    code = (
        "import sys, numpy, torch; sys.modules['audioset'] = None\n"
        f"model = torch.jit.load({str(path)!r})\n"
        f"outputs = model(torch.from_numpy(numpy.load({str(tmp_path / 'waveforms.npy')!r})))\n"
        f"numpy.save({str(tmp_path / 'scores.npy')!r}, outputs['scores'].numpy())\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
    expected = np.stack([classifier.predict(waveform, 32_000).scores for waveform in waveforms])
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_refuses_no_samples(classifier: Model, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = export_model(classifier, tmp_path / "x.pt").path
    with pytest.raises(torch.jit.Error, match="the waveform holds no samples"):
        torch.jit.load(str(path))(torch.zeros(0))


@pytest.mark.parametrize("format_name", WITH_FRONTEND)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_file_says_what_it_is(format_name: str, classifier: Model, tmp_path: Path) -> None:
    needs(format_name)
    path = export_model(classifier, tmp_path / f"x{FORMATS[format_name].suffix}").path
    metadata = read_metadata(path, format_name)
    assert [label["name"] for label in json.loads(metadata["labels"])] == CLASSES
    assert metadata["frontend"] == "efficientat"
    assert json.loads(metadata["frontend_spec"])["fft_size"] == classifier.frontend.fft_size
    assert metadata["sample_rate"] == "32000"
    assert metadata["licence"] == "CC0-1.0"


def test_the_card_says_what_was_measured(classifier: Model, tmp_path: Path) -> None:
    result = export_model(classifier, tmp_path / "x.xml")
    card = json.loads(result.card.read_text(encoding="utf-8"))
    assert [label["name"] for label in card["labels"]] == CLASSES
    assert card["parity"]["scores"] == result.parity.scores
    assert card["bound"] == 1e-4
    assert set(card["digests"]) == {"x.xml", "x.bin"}
    assert card["latency"]["audioset_ms"] > 0
    assert card["source"] == {"file": "generated"}
    assert card["frontend"]["sample_rate"] == 32_000


def test_a_folder_as_output_names_the_file_after_the_model(classifier_folder: Path, tmp_path: Path) -> None:
    assert export_model(classifier_folder, tmp_path, to="openvino").path == tmp_path / "tones.xml"
    made = export_model(classifier_folder, f"{tmp_path}/new/", to="openvino").path
    assert made == tmp_path / "new" / "tones.xml"


@pytest.mark.parametrize("format_name", ["onnx", "openvino"])
def test_int8_is_not_held_to_the_bound_and_its_accuracy_is_measured(
    format_name: str, classifier: Model, clips: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / f"int8{FORMATS[format_name].suffix}"
    result = export_model(classifier, path, calibration=clips, max_accuracy_drop=100)
    assert 1e-4 < result.parity.scores < 0.5
    assert result.precision == "int8"
    assert result.accuracy.n_clips == 12
    audioset = load_accuracy(classifier, clips)
    assert result.accuracy.audioset == pytest.approx(audioset)


def load_accuracy(model: Model, clips: Path) -> float:
    """Computed in another way: file by file, by name."""
    files = sorted(clips.rglob("*.wav"))
    return float(np.mean([model.predict_file(path).top(1)[0][0] == path.parent.name for path in files]))


def test_int8_leaves_the_frontend_in_float32_and_others_logging_alone(
    classifier: Model, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxruntime")
    import onnx

    monkeypatch.setattr(logging.root, "setLevel", pytest.fail)
    path = export_model(classifier, tmp_path / "x.onnx", calibration=clips, max_accuracy_drop=100).path
    nodes = onnx.load(path).graph.node
    made_by = {output: node for node in nodes for output in node.output}
    is_int8 = {
        node.name: made_by[node.input[1]].op_type == "DequantizeLinear"
        for node in nodes
        if node.op_type in ("Conv", "MatMul", "Gemm") and node.input[1] in made_by
    }
    assert caplog.messages == []
    assert any(is_int8.values())
    assert not any(name.startswith("frontend/") for name, quantised in is_int8.items() if quantised)


def test_unreadable_calibration_clips_are_left_out(
    classifier: Model, clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "low" / "damaged.wav").write_bytes(b"RIFF not a sound")
    (tmp_path / "low" / "good.wav").write_bytes((clips / "low" / "0.wav").read_bytes())
    read = read_calibration(tmp_path, classifier.labels, classifier.frontend)
    assert (len(read.ranges), read.n_failed) == (1, 1)
    assert read.ranges[0].column == CLASSES.index("low")
    assert "1 clips of" in caplog.text
    assert "damaged.wav" in caplog.text


def test_calibration_clips_without_labels(classifier: Model, clips: Path, tmp_path: Path) -> None:
    for index, path in enumerate(sorted(clips.rglob("*.wav"))):
        (tmp_path / f"{index}.wav").write_bytes(path.read_bytes())
    read = read_calibration(tmp_path, classifier.labels, classifier.frontend, max_calibration=5, max_measured=3)
    assert [clip.column for clip in read.ranges] == [None] * 5
    assert len(read.measured) == 3
    assert max(len(clip.waveform) for clip in read.ranges) <= 10 * 32_000


def test_no_usable_calibration_clip_is_an_error(classifier: Model, tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    with pytest.raises(NoInputError, match=r"there is no audio in .*sounds"):
        export_model(classifier, tmp_path / "x.onnx", calibration=sounds)
    (sounds / "damaged.wav").write_bytes(b"RIFF not a sound")
    with pytest.raises(NoInputError, match=r"none of .*sounds can be used; the first: .*damaged\.wav"):
        export_model(classifier, tmp_path / "x.onnx", calibration=sounds)
    assert leftovers(tmp_path) == ["sounds"]


def test_an_export_that_differs_is_not_kept(classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.xml"
    path.write_text("what was there")
    monkeypatch.setitem(FORMATS, "openvino", replace(FORMATS["openvino"], bound=1e-12))
    with pytest.raises(ExportError, match=r"the OpenVINO IR file is .* from .*; the bound is 1e-12\. It was not kept"):
        export_model(classifier, path, overwrite=True)
    with pytest.raises(UsageError, match=r"x\.xml is there already, and is not an export's"):
        export_model(classifier, path)
    assert leftovers(tmp_path) == ["x.xml"]
    assert path.read_text() == "what was there"


def test_outputs_that_are_not_numbers_fail(classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audioset.export import openvino as module

    whole = module.load

    def load(path: Path) -> object:
        runner = whole(path)
        return replace(runner, run=lambda inputs: {key: value * np.nan for key, value in runner.run(inputs).items()})

    monkeypatch.setattr(module, "load", load)
    with pytest.raises(ExportError, match="the OpenVINO IR file is nan from"):
        export_model(classifier, tmp_path / "x.xml")
    assert leftovers(tmp_path) == []


def test_a_file_that_does_not_load_again_is_not_kept(
    classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audioset.export import openvino as module

    monkeypatch.setattr(module, "write", lambda job, path: path.write_text("<net/>"))
    with pytest.raises(ExportError, match="what was written cannot be loaded again"):
        export_model(classifier, tmp_path / "x.xml")
    assert leftovers(tmp_path) == []


def test_int8_that_loses_accuracy_is_not_kept(
    classifier: Model, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exporting, "measure_accuracy", lambda *_: Accuracy(0.875, 0.9, 40))
    with pytest.raises(ExportError, match=r"int8 loses 2\.5 points of accuracy on 40 clips \(90\.0 % to 87\.5 %\); 2"):
        export_model(classifier, tmp_path / "x.onnx", calibration=clips)
    assert leftovers(tmp_path) == []
    assert export_model(classifier, tmp_path / "x.onnx", calibration=clips, max_accuracy_drop=3).path.is_file()


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("x.onnx", {"to": "coreml"}, "to is 'coreml'; expected one of onnx, openvino"),
        ("x.mlmodel", {}, r"the suffix of .*x\.mlmodel names no format; expected one of \.onnx \(onnx\)"),
        ("x.onnx", {"to": "keras"}, r"the file is x\.onnx; expected a name that ends in \.keras"),
        ("x.keras", {"input": "waveform"}, "Keras of this model takes patches; waveform is asked for. waveform exist"),
        ("x.onnx", {"input": "spectrogram"}, "input is 'spectrogram'; expected one of waveform, patches"),
        ("x.onnx", {"input": "embeddings"}, "ONNX of this model takes waveform or patches; embeddings is asked for"),
        ("x.pt", {"calibration": "clips"}, "TorchScript has no int8 here; it exists for onnx, openvino, tflite"),
    ],
)
def test_what_there_is_not(
    output: str, settings: dict[str, str], message: str, classifier: Model, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        export_model(classifier, tmp_path / output, **settings)
    assert leftovers(tmp_path) == []


def test_heads_take_embeddings_only_and_have_no_int8(head_folder: Path, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ONNX of this model takes embeddings; waveform is asked for"):
        export_model(head_folder, tmp_path / "x.onnx", input="waveform")
    with pytest.raises(UsageError, match="a head is small, and stays float32"):
        export_model(head_folder, tmp_path / "x.onnx", calibration=clips)
    assert leftovers(tmp_path) == []


def test_missing_extras(classifier: Model, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r'TFLite needs the package tensorflow.*"audioset\[tflite\]"'):
        export_model(classifier, tmp_path / "x.tflite")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"int8 needs the package onnxruntime"):
        export_model(classifier, tmp_path / "x.onnx", calibration=clips)
    assert leftovers(tmp_path) == []
    assert export_model(classifier, tmp_path / "x.onnx").runtime.startswith("openvino")


def test_choosing_a_backend_leaves_the_environment_alone() -> None:
    pytest.importorskip("keras")
    pytest.importorskip("torch")
    script = """
import os
from audioset.export.keras import choose_backend
choose_backend(("torch",))
import keras
print(keras.backend.backend(), os.environ.get("KERAS_BACKEND"))
"""
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout == "torch None\n", done.stderr


def test_tflite_wants_keras_on_tensorflow(classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("keras")
    if keras.backend.backend() == "tensorflow":
        pytest.skip("it has it")
    monkeypatch.setitem(sys.modules, "tensorflow", sys)  # which is there
    with pytest.raises(EngineError, match=f"Keras's backend is {keras.backend.backend()}. Next step: set"):
        export_model(classifier, tmp_path / "x.tflite")


def test_a_disk_that_fills_leaves_nothing(classifier: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(OutputError, match=r"cannot write .*x\.xml: No space left.* Next step: free some space"):
        export_model(classifier, tmp_path / "x.xml")
    assert leftovers(tmp_path) == []


def test_a_place_that_cannot_be_written_to(classifier: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*x\.xml"):
        export_model(classifier, tmp_path / "file" / "x.xml")


def test_a_damaged_model_folder(classifier_folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.json").write_bytes((classifier_folder / "model.json").read_bytes())
    (damaged / WEIGHTS_NAME).write_bytes((classifier_folder / WEIGHTS_NAME).read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        export_model(damaged, tmp_path / "x.onnx")
    assert leftovers(tmp_path) == ["damaged"]


def test_patches_of_an_export_are_those_of_predict(model: Model) -> None:
    waveform = sound(40, 16_000, seed=1)
    calls = Job(model, "x", "patches").inputs_of(waveform)
    assert len(calls) == 2
    seen = np.concatenate([call["patches"] for call in calls])
    np.testing.assert_array_equal(seen, model.patches(waveform, 16_000))
