"""The command line as users run it: in processes of their own, with streams and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sounds import noise, sine, wav_bytes

FAULTS = Path(__file__).parents[1] / "faults"
Run = subprocess.CompletedProcess


def run(*arguments: str | Path, stdin: bytes | None = None, **environment: str) -> Run:
    """Run ``audioset`` and keep what it writes."""
    return subprocess.run(
        [sys.executable, "-m", "audioset", *map(os.fsencode, arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def strict_json(text: bytes) -> object:
    """Parse as the standard says: no NaN, no Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    path.write_bytes(wav_bytes(sine(440, 16_000, 2.0)))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sounds, one of them below, beside things that are no sounds."""
    (tmp_path / "below").mkdir()
    for name in ("b.WAV", "below/a.flac", "._hidden.wav"):
        container = "FLAC" if name.endswith("flac") else "WAV"
        (tmp_path / name).write_bytes(wav_bytes(noise(16_000), container=container))
    (tmp_path / "notes.txt").write_text("nothing to hear")
    return tmp_path


@pytest.fixture
def weights(random_checkpoint: Path) -> list[str]:
    """Options that choose the random weights."""
    return ["--weights", str(random_checkpoint)]


def test_tag_prints_a_table(assets_folder: Path) -> None:
    result = run("tag", assets_folder / "audio" / "dog_975ms.wav")
    assert result.returncode == 0
    text = result.stdout.decode()
    assert "dog_975ms.wav" in text
    assert "Animal" in text
    assert "0.904" in text
    assert "\x1b" not in text


def test_tag_agrees_with_python(weights: list[str], sound: Path, model: object) -> None:
    result = run("tag", sound, *weights, "--format", "json", "--top", "3")
    (record,) = strict_json(result.stdout)
    expected = model.predict_file(sound)
    assert [tag["label"] for tag in record["tags"]] == [name for name, _ in expected.top(3)]
    assert [tag["score"] for tag in record["tags"]] == pytest.approx([score for _, score in expected.top(3)], abs=2e-6)
    assert record["duration_s"] == 2.0


def test_tag_per_patch(weights: list[str], sound: Path, model: object) -> None:
    result = run("tag", sound, *weights, "--per-patch", "--format", "jsonl", "--top", "521", "--hop", "0.24")
    records = [strict_json(line) for line in result.stdout.splitlines()]
    expected = model.predict_file(sound, hop_s=0.24)
    assert [record["start_s"] for record in records] == pytest.approx(expected.start_s)
    assert [record["end_s"] for record in records] == pytest.approx(expected.end_s)
    for record, scores in zip(records, expected.scores, strict=True):
        assert [tag["score"] for tag in record["tags"]] == pytest.approx(np.sort(scores)[::-1], abs=2e-6)


def test_threshold_leaves_labels_out(weights: list[str], sound: Path) -> None:
    every = strict_json(run("tag", sound, *weights, "--format", "json", "--top", "521").stdout)[0]["tags"]
    threshold = every[10]["score"]
    some = strict_json(
        run("tag", sound, *weights, "--format", "json", "--top", "521", "--threshold", str(threshold - 1e-6)).stdout
    )[0]["tags"]
    assert some == [tag for tag in every if tag["score"] >= threshold]


@pytest.mark.parametrize("argument", ["{}", "{}/*", "{}/**/*.*"])
def test_folders_and_globs(weights: list[str], folder: Path, argument: str) -> None:
    result = run("tag", argument.format(folder), *weights, "--format", "jsonl")
    names = {Path(strict_json(line)["path"]).name for line in result.stdout.splitlines()}
    assert {"b.WAV"} <= names
    assert "._hidden.wav" not in names


def test_folder_is_searched_below_and_in_order(weights: list[str], folder: Path) -> None:
    result = run("tag", folder, *weights, "--format", "csv", "--top", "1")
    rows = list(csv.DictReader(io.StringIO(result.stdout.decode())))
    assert [row["path"] for row in rows] == [str(folder / "b.WAV"), str(folder / "below" / "a.flac")]


def test_standard_input(weights: list[str], sound: Path) -> None:
    from_stdin = strict_json(run("tag", "-", *weights, "--format", "json", stdin=sound.read_bytes()).stdout)[0]
    from_file = strict_json(run("tag", sound, *weights, "--format", "json").stdout)[0]
    assert from_stdin == {**from_file, "path": "-"}


@pytest.mark.parametrize("name", ["tags.json", "tags.jsonl", "tags.csv", "tags.parquet"])
def test_suffix_chooses_the_format(weights: list[str], sound: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    result = run("tag", sound, *weights, "--output", target)
    assert (result.returncode, result.stdout) == (0, b"")
    starts = {"tags.json": b"[", "tags.jsonl": b"{", "tags.csv": b"path,", "tags.parquet": b"PAR1"}
    assert target.read_bytes().startswith(starts[name])
    assert set(tmp_path.iterdir()) == {target, sound}


@pytest.mark.parametrize("format_name", ["audacity", "raven"])
def test_one_label_file_for_each_recording(weights: list[str], folder: Path, tmp_path: Path, format_name: str) -> None:
    target = tmp_path / "labels"
    result = run("tag", folder, *weights, "--per-patch", "--format", format_name, "--output", f"{target}/")
    assert result.returncode == 0, result.stderr.decode()
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert found == ["b.WAV.txt", "below/a.flac.txt"]


def test_plot(assets_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "dog.png"
    result = run("tag", assets_folder / "audio" / "dog_975ms.wav", "--plot", picture)
    assert result.returncode == 0, result.stderr.decode()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_plot_takes_one_recording(weights: list[str], folder: Path) -> None:
    result = run("tag", folder, *weights, "--plot", "x.png")
    assert result.returncode == 2
    assert b"--plot draws one recording; the inputs are 2" in result.stderr


@pytest.mark.parametrize("name", ["e.jsonl", "e.npz", "e.parquet"])
def test_embed(weights: list[str], sound: Path, tmp_path: Path, model: object, name: str) -> None:
    target = tmp_path / name
    result = run("embed", sound, *weights, "--output", target)
    assert result.returncode == 0, result.stderr.decode()
    np.testing.assert_allclose(_read_embeddings(target), model.predict_file(sound).embeddings, rtol=1e-4, atol=1e-5)


def _read_embeddings(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        return np.load(path)["embeddings"]
    if path.suffix == ".jsonl":
        return np.array([strict_json(line)["embedding"] for line in path.read_bytes().splitlines()])
    parquet = pytest.importorskip("pyarrow.parquet")
    return np.array(parquet.read_table(path)["embedding"].to_pylist())


def test_bad_files_cost_one_row_each(weights: list[str], sound: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    hostile = tmp_path / os.fsdecode(b"\xff\n\x1b[31m.wav")
    hostile.write_text("#EXTM3U\nhttp://127.0.0.1/x.wav\n")
    inputs = [sound, tmp_path / "empty.wav", hostile, tmp_path / "gone.wav"]
    result = run("tag", *inputs, *weights, "--format", "json")
    assert result.returncode == 3
    records = strict_json(result.stdout)
    codes = [record["error"] and record["error"]["code"] for record in records]
    assert codes == [None, "empty_file", "not_audio", "unreadable"]
    assert records[0]["tags"]
    errors = result.stderr.decode()
    assert "\x1b" not in errors
    assert "1 done" in errors
    assert "3 failed" in errors


def test_json_is_clean_whatever_decoders_print(weights: list[str], tmp_path: Path) -> None:
    names = ["chatter.wav", "segfault.wav", "b_chatter.wav"]
    for name in names:
        (tmp_path / name).write_bytes(wav_bytes(noise(16_000)))
    result = run("tag", *(tmp_path / name for name in names), *weights, "--format", "json", PYTHONPATH=str(FAULTS))
    records = strict_json(result.stdout)
    assert [record["error"] and record["error"]["code"] for record in records] == [None, "worker_died", None]
    assert b"Xing" not in result.stderr


def test_limits_are_flags(weights: list[str], sound: Path) -> None:
    result = run("tag", sound, *weights, "--max-seconds", "1", "--format", "json")
    assert strict_json(result.stdout)[0]["error"]["code"] == "too_long"
    result = run("tag", sound, *weights, "--max-channels", "0")
    assert result.returncode == 2
    assert b"max_channels is 0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tag", "{}/below_nothing"], 3, "No such file"),
        (["tag", "{}/none*.wav"], 4, "no audio in"),
        (["tag"], 2, "Missing argument"),
        (["tag", "{}", "--model", "yamnot"], 2, "did you mean 'yamnet'"),
        (["tag", "{}", "--hop", "0.003"], 2, "hop_s is 0.003"),
        (["tag", "{}", "--output", "{}/b.WAV/tags.csv"], 7, "b.WAV"),
        (["tag", "{}", "--output", "{}"], 2, "is a folder"),
        (["embed", "{}", "--output", "tags.csv"], 2, "does not write"),
        (["tag", "{}", "--weights", "{}/notes.txt"], 5, "cannot be read as HDF5"),
        (["tag", "{}", "--weights", "{}/gone.h5"], 5, "gone.h5"),
        (["models", "info", "yamnot"], 2, "did you mean 'yamnet'"),
        (["nothing"], 2, "No such command"),
    ],
)
def test_exit_codes(folder: Path, arguments: list[str], code: int, message: str, weights: list[str]) -> None:
    filled = [argument.format(folder) for argument in arguments]
    if "--weights" not in filled and arguments[0] in ("tag", "embed") and len(arguments) > 1:
        filled += weights
    result = run(*filled)
    assert result.returncode == code, result.stderr.decode()
    assert message in result.stderr.decode() + result.stdout.decode()


def test_missing_weights_say_where_to_put_them(sound: Path, tmp_path: Path) -> None:
    empty = {"AUDIOSET_ASSETS": str(tmp_path), "AUDIOSET_CACHE": str(tmp_path / "cache"), "AUDIOSET_OFFLINE": "1"}
    result = run("tag", sound, **empty)
    assert result.returncode == 5
    text = result.stderr.decode()
    assert "https://storage.googleapis.com/audioset/yamnet.h5" in text
    assert str(tmp_path) in text
    assert "Traceback" not in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk(weights: list[str], sound: Path) -> None:
    result = run("tag", sound, *weights, "--output", "/dev/full", "--format", "csv")
    assert result.returncode == 7
    assert b"No space left" in result.stderr


def test_reader_that_leaves_early(weights: list[str], sound: Path) -> None:
    command = f"{sys.executable} -m audioset tag {sound} {' '.join(weights)} --per-patch --format csv | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=False)
    assert result.stdout.startswith(b"path,")
    assert b"Traceback" not in result.stderr
    assert b"BrokenPipe" not in result.stderr


def test_interrupt_is_calm(weights: list[str], tmp_path: Path) -> None:
    path = tmp_path / "sleep.wav"
    path.write_bytes(wav_bytes(noise(16_000)))
    command = [sys.executable, "-m", "audioset", "tag", str(path), *weights]
    environment = {**os.environ, "PYTHONPATH": str(FAULTS)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        time.sleep(3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"stopped" in errors
    assert b"Traceback" not in errors


def test_a_model_that_only_embeds_has_nothing_to_tag(vggish_folder: Path, tmp_path: Path) -> None:
    result = run("tag", tmp_path / "a.wav", "--model", vggish_folder, "-o", tmp_path / "tags.csv")
    assert result.returncode == 2
    assert b"only embeds: it has no scores. Next step: audioset embed" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_models_list_info_verify(assets_folder: Path) -> None:
    records = {record["name"]: record for record in strict_json(run("models", "list", "--json").stdout)}
    assert records["yamnet"]["path"] == str(assets_folder / "yamnet.h5")
    assert records["vggish"]["mean_ap"] is None
    assert b"Apache-2.0" in run("models", "info", "yamnet").stdout
    verified = run("models", "verify", "yamnet")
    assert verified.returncode == 0
    assert b"BEYOND" not in verified.stdout
    assert b"tensors" in verified.stdout


def test_doctor(assets_folder: Path) -> None:
    result = run("doctor", "--json")
    assert result.returncode == 0, result.stdout.decode()
    report = strict_json(result.stdout)
    assert {"machine", "engines", "codecs", "files", "limits", "parity"} <= set(report)
    assert report["parity"]["log-mel against its formula in float64"].endswith("within 1e-06")


def test_doctor_without_weights(tmp_path: Path) -> None:
    empty = {"AUDIOSET_ASSETS": "", "AUDIOSET_CACHE": str(tmp_path), "AUDIOSET_OFFLINE": "1"}
    result = run("doctor", **empty)
    assert result.returncode == 5
    assert b"libsndfile" in result.stdout


EXTRAS = ("torch", "keras", "tensorflow", "pyarrow", "matplotlib", "onnxruntime", "usearch", "sounddevice", "yt_dlp")
CORE = ("av", "h5py", "numpy", "onnx", "openvino", "rich", "safetensors", "soundfile", "soxr")
EVERY_HELP = """
import json, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # what is None there cannot be imported
import click
from audioset.cli import cli

def commands(command, names):
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from commands(command.get_command(context, name), [*names, name])

walked = list(commands(cli, []))
for names in walked:
    cli.main([*names, "--help"], prog_name="audioset", standalone_mode=False)
print(json.dumps(walked))
"""


def test_every_help_needs_neither_extras_nor_arrays() -> None:
    """In one child in which nothing but the command line's own packages can be imported."""
    command = [sys.executable, "-c", EVERY_HELP, *EXTRAS, *CORE]
    process = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert (process.returncode, process.stderr) == (0, "")
    *helps, walked = process.stdout.splitlines()
    names = json.loads(walked)
    assert len(names) > 40
    assert {("finetune",), ("train", "heads"), ("data", "ontology", "tree")} <= set(map(tuple, names))
    usages = [line for line in helps if line.startswith("Usage: ")]
    assert [usage.split(" [")[0] for usage in usages] == [" ".join(["Usage: audioset", *each]) for each in names]


def test_help() -> None:
    result = run("--help")
    assert result.returncode == 0
    assert result.stdout.startswith(b"Usage: audioset")
    assert result.stderr == b""
