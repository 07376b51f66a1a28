"""``audioset export`` as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from audioset import load_model
from audioset.cli.export import SNIPPETS
from audioset.export import FORMATS


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "audioset", "export", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(random_checkpoint: Path) -> Path:
    """A model folder: YAMNet with random weights."""
    return load_model("yamnet", weights=random_checkpoint, n_threads=1).folder


def test_the_table_and_the_next_step_that_runs(folder: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "x.onnx"
    result = run(folder, "--output", path)
    assert result.returncode == 0, result.stderr
    assert "format      ONNX, f32, takes waveform" in result.stdout
    assert str(path) in result.stdout
    assert f"checked in  onnxruntime {onnxruntime.__version__}" in result.stdout
    snippet = [line.strip() for line in result.stderr.splitlines()[-3:]]
    values: dict[str, object] = {"waveform": np.zeros(16_000, np.float32)}
    exec("\n".join(snippet), values)
    assert len(values["outputs"]) == 3


def test_json(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "--format", "openvino", "--output", tmp_path, "--input", "log-mel", "--json")
    record = json.loads(result.stdout)
    assert record["input"] == "patches"
    assert record["parity"]["scores"] < 1e-4
    assert Path(record["path"]).suffix == ".xml"
    assert all(Path(file).is_file() for file in record["files"])
    assert result.stderr.count("To run it") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--output", "x.onnx", "--int8"], 2, "--int8 and --calibration CLIPS belong together"),
        (["--output", "x.onnx", "--calibration", "clips"], 2, "--int8 and --calibration CLIPS belong together"),
        (["--output", "x.zip"], 2, "names no format"),
        (["--format", "onnx"], 2, "Missing option '--output'"),
        (["--output", "/dev/null/x.xml"], 7, "cannot write /dev/null/x.xml"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, message: str, folder: Path) -> None:
    result = run(folder, *arguments)
    assert result.returncode == code
    assert message in result.stderr


def test_a_model_that_there_is_not() -> None:
    result = run("yamnt", "--output", "x.onnx")
    assert result.returncode == 2
    assert "did you mean 'yamnet'" in result.stderr


def test_help_has_examples_and_every_format() -> None:
    text = run("--help").stdout
    assert "audioset export yamnet --output yamnet.onnx" in text
    assert all(name in text for name in FORMATS)


def test_every_format_has_a_next_step() -> None:
    assert set(SNIPPETS) == set(FORMATS)
