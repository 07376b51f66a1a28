"""``audioset embed --quantize`` as users run it: the original's bytes in every format, mistakes said before any work.

VGGish's published checkpoint is large and not at hand: a model folder with stand-in weights takes its place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from reference_data import ASSETS
from tfrecords import embeddings_of, parsed, records

REFERENCE = ASSETS.parent / "reference"
PARAMETERS = REFERENCE / "vggish_pca_params_test.npz"
CASES = ("speech_whistling2", "noise_3s", "dog_975ms")
Run = subprocess.CompletedProcess


def embed(*arguments: str | Path, **environment: str) -> Run:
    """Run ``audioset embed`` and keep what it writes."""
    return subprocess.run(
        [sys.executable, "-m", "audioset", "embed", *map(os.fsencode, arguments)],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="session")
def expected() -> dict[str, np.ndarray]:
    """The original's bytes."""
    with np.load(REFERENCE / "vggish_reference.npz") as stored:
        return {name: stored[f"{name}/quantized"] for name in CASES}


@pytest.fixture(scope="session")
def recordings(vggish_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the reference was made of, as files; one that is empty in the middle."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = [folder / f"{name}.wav" for name in CASES]
    with np.load(REFERENCE / "vggish_reference.npz") as stored:
        for name, path in zip(CASES, paths, strict=True):
            soundfile.write(path, stored[f"{name}/waveform"], 16_000, subtype="FLOAT")
    (folder / "empty.wav").touch()
    return [*paths[:2], folder / "empty.wav", paths[2]]


def options(vggish_folder: Path) -> list[str | Path]:
    return ["--model", vggish_folder, "--quantize", "--pca", PARAMETERS, "--quiet"]


def assert_near(found: Any, expected: np.ndarray) -> None:
    """Equal but for values next to a step, which another order of float32 additions may carry over it."""
    found = np.array(found)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.mean(found != expected) < 0.01


def test_tfrecords_hold_the_originals_bytes(
    vggish_folder: Path, recordings: list[Path], expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    target = tmp_path / "features.tfrecord"
    result = embed(*recordings, *options(vggish_folder), "--output", target)
    assert result.returncode == 3
    assert b"empty.wav: " in result.stderr
    examples = [parsed(payload) for payload in records(target.read_bytes())]
    assert [example["context"]["video_id"][1] for example in examples] == [[name.encode()] for name in CASES]
    for example, path, name in zip(examples, [*recordings[:2], recordings[3]], CASES, strict=True):
        assert_near(embeddings_of(example), expected[name])
        assert example["context"]["end_time_seconds"] == ("float", [pytest.approx(soundfile.info(path).duration)])


@pytest.mark.parametrize("name", ["e.npz", "e.jsonl", "e.parquet"])
def test_every_format_holds_the_originals_bytes(
    vggish_folder: Path, recordings: list[Path], expected: dict[str, np.ndarray], tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    result = embed(*recordings[:2], *options(vggish_folder), "--output", target)
    assert result.returncode == 0, result.stderr.decode()
    assert_near(read_bytes(target), np.concatenate([expected[case] for case in CASES[:2]]))


def read_bytes(path: Path) -> Any:
    if path.suffix == ".npz":
        embeddings = np.load(path)["embeddings"]
        assert embeddings.dtype == np.uint8
        return embeddings
    if path.suffix == ".jsonl":
        return [json.loads(line)["embedding"] for line in path.read_bytes().splitlines()]
    column = pytest.importorskip("pyarrow.parquet").read_table(path)["embedding"]
    assert str(column.type.value_type) == "uint8"
    return column.to_pylist()


def test_the_published_parameters_are_looked_for_and_others_under_their_name_are_noted(
    vggish_folder: Path, recordings: list[Path], expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    shutil.copy(PARAMETERS, tmp_path / "vggish_pca_params.npz")
    arguments = [recordings[0], "--model", vggish_folder, "--quantize", "--format", "tfrecord"]
    result = embed(*arguments, AUDIOSET_ASSETS=str(tmp_path))
    assert result.returncode == 0, result.stderr.decode()
    assert b"vggish_pca_params.npz is not the published file" in result.stderr
    (example,) = map(parsed, records(result.stdout))
    assert_near(embeddings_of(example), expected[CASES[0]])


def test_missing_parameters_say_where_to_put_them(vggish_folder: Path, tmp_path: Path) -> None:
    nowhere = {"AUDIOSET_ASSETS": str(tmp_path), "AUDIOSET_CACHE": str(tmp_path / "cache"), "AUDIOSET_OFFLINE": "1"}
    result = embed(tmp_path / "a.wav", "--model", vggish_folder, "--quantize", **nowhere)
    assert result.returncode == 5
    assert b"https://storage.googleapis.com/audioset/vggish_pca_params.npz" in result.stderr
    assert b"Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--quantize"], 2, "network yamnet has no published quantisation; expected a model with the network vggish"),
        (["--quantize", "--model", "yamnot"], 2, "did you mean 'yamnet'"),
        (["--quantize", "--model", "vggish", "--pca", "gone.npz"], 5, "gone.npz: it cannot be read as an .npz file"),
        (["--quantize", "--model", "{}"], 5, "model.json is not the card of a model"),
        (["--pca", "x.npz"], 2, "--pca x.npz is for quantised embeddings. Next step: add --quantize"),
        ([], 2, "holds quantised embeddings, 128 bytes a patch"),
        (["--format", "tfrecord"], 2, "Next step: --model vggish --quantize"),
    ],
)
def test_mistakes_are_said_before_any_work(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "model.json").write_text("no card")
    filled = [argument.format(tmp_path) for argument in arguments]
    result = embed("no such recording.wav", *filled, "--output", tmp_path / "e.tfrecord")
    assert result.returncode == code, result.stderr.decode()
    assert message in result.stderr.decode()
    assert b"no such recording" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]


def test_floats_are_as_before_without_the_flag(vggish_folder: Path, recordings: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "e.npz"
    assert embed(recordings[0], "--model", vggish_folder, "--output", target).returncode == 0
    with np.load(target) as found, np.load(REFERENCE / "vggish_reference.npz") as stored:
        assert found["embeddings"].dtype == np.float32
        np.testing.assert_allclose(found["embeddings"], stored[f"{CASES[0]}/embedding"], atol=1e-3)
