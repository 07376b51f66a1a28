"""``audioset train classifier``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from sounds import noise, sine

from audioset.cli import cli
from audioset.weights.model_folder import ModelCard, write_model_folder

RATE = 16_000
COMMAND = ("train", "classifier")


@pytest.fixture(scope="module")
def backbone(random_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone")
    card = ModelCard("yamnet", {"n_classes": 521}, "yamnet", "yamnet-521", "CC0-1.0", {"file": "random"})
    write_model_folder(folder, card, random_weights)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes of six clips, by two sites."""
    folder = tmp_path_factory.mktemp("data")
    for name, frequency_hz in (("low", 300), ("high", 4000)):
        for number in range(6):
            path = folder / name / f"{name}_{'ab'[number % 2] * 2}_{number}.wav"
            path.parent.mkdir(exist_ok=True)
            tone = sine(frequency_hz + 5 * number, RATE, 0.4) + 0.05 * noise(int(RATE * 0.4), seed=number)
            soundfile.write(path, tone, RATE, subtype="PCM_16")
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, [*COMMAND, *map(str, arguments)])


def test_a_folder_becomes_a_model(data, backbone, tmp_path):
    result = run(data, "--model", backbone, "--output", tmp_path / "model", "--group", "_([a-z]+)_")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "clips", "precision", "recall", "F1"]
    assert any(line.startswith("by group") for line in lines)
    assert any(line.startswith("by file") for line in lines)
    assert f"audioset events recording.wav --model {tmp_path / 'model'}" in result.stderr
    wav = next((data / "high").iterdir())
    tagged = CliRunner().invoke(cli, ["tag", str(wav), "--model", str(tmp_path / "model"), "--format", "jsonl"])
    assert tagged.exit_code == 0, tagged.output
    assert json.loads(tagged.stdout)["tags"][0]["label"] == "high"
    events = CliRunner().invoke(cli, ["events", str(wav), "--model", str(tmp_path / "model"), "--format", "jsonl"])
    assert [json.loads(line)["label"] for line in events.stdout.splitlines()] == ["high"]


def test_json_is_what_results_json_says(data, backbone, tmp_path):
    result = run(data, "--model", backbone, "-o", tmp_path / "model", "--hidden", 4, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((tmp_path / "model" / "results.json").read_text())
    assert record["settings"]["hidden units"] == 4


def test_exports_are_beside_the_model_and_go_with_it(data, backbone, tmp_path):
    arguments = (data, "--model", backbone, "--output", tmp_path / "model")
    result = run(*arguments, "--export", "onnx", "--export", "openvino")
    assert result.exit_code == 0, result.output
    exports = {path.name for path in (tmp_path / "model" / "exports").iterdir()}
    assert exports == {"model.onnx", "model.onnx.json", "model.xml", "model.bin", "model.xml.json"}
    assert "model.onnx: within" in result.stderr
    assert run(*arguments).exit_code == 0
    assert not (tmp_path / "model" / "exports").exists()


def test_another_format_is_refused_before_any_work(data, tmp_path):
    result = run(data, "--output", tmp_path / "model", "--export", "caffe")
    assert result.exit_code == 2
    assert "'caffe' is not one of 'onnx', 'openvino'" in result.stderr
    assert not (tmp_path / "model").exists()


def test_accepted_moments_are_learned(backbone, tmp_path):
    long = np.concatenate([sine((300 if i % 2 else 4000) + 3 * i, RATE, 1.0) for i in range(8)])
    soundfile.write(tmp_path / "long.wav", long, RATE, subtype="PCM_16")
    rows = [f"long.wav,{'low' if i % 2 else 'high'},{i},{i + 1}" for i in range(8)]
    moments = tmp_path / "moments.csv"
    moments.write_text("\n".join(["path,label,start_s,end_s", *rows]) + "\n")
    result = run("--from-search", moments, "--model", backbone, "--output", tmp_path / "model")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "model" / "results.json").read_text())
    assert record["n_clips_of_classes"] == {"high": 4, "low": 4}


def test_a_file_may_be_given_with_an_equals_sign(backbone, tmp_path):
    result = run("--from-search=gone.csv", "--model", backbone, "--output", tmp_path / "model")
    assert "gone.csv" in str(result.exception) + result.output


def test_one_class_is_an_error_that_says_what_to_do(data, backbone, tmp_path):
    result = run(data, "--classes", "low", "--model", backbone, "--output", tmp_path / "model")
    assert result.exit_code != 0
    assert not (tmp_path / "model").exists()


def test_a_folder_of_others_is_refused_before_any_work(data, backbone, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = run(data, "--model", backbone, "--output", tmp_path)
    assert result.exit_code == 6 or "holds notes.txt" in str(result.exception)


def test_the_backbone_is_not_overwritten(data, backbone, tmp_path):
    run(data, "--model", backbone, "--output", tmp_path / "model", "-q")
    result = run(data, "--model", tmp_path / "model", "--output", tmp_path / "model")
    assert result.exit_code != 0
    assert (tmp_path / "model" / "model.json").is_file()


def test_output_must_be_given(data):
    result = run(data)
    assert result.exit_code == 2
    assert "--output" in result.stderr
