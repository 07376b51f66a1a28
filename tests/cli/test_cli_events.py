"""``audioset events`` as users run it, and in agreement with Python."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sounds import noise, wav_bytes

from audioset import Event, Model
from audioset.labels.events import EventSettings, clip_to_audio, scores_to_events

Run = subprocess.CompletedProcess


def run(*arguments: str | Path) -> Run[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "audioset", "events", *map(os.fsencode, arguments)],
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy seconds that change every second: more than the network takes at once."""
    path = tmp_path_factory.mktemp("sounds") / "long.wav"
    loudness = np.repeat(np.random.default_rng(1).choice([0.0, 0.01, 1.0], 70), 16_000)
    path.write_bytes(wav_bytes((noise(70 * 16_000) * loudness).astype(np.float32)))
    return path


@pytest.fixture(scope="module")
def threshold(model: Model, sound: Path) -> float:
    """A score that some patches of some labels reach."""
    scores = model.predict_file(sound).scores
    assert scores is not None
    return round(float(np.quantile(scores, 0.97)), 4)


@pytest.fixture
def weights(random_checkpoint: Path) -> list[str]:
    """Options that choose the random weights."""
    return ["--weights", str(random_checkpoint), "--quiet"]


def expected_events(model: Model, path: Path, settings: EventSettings) -> list[Event]:
    p = model.predict_file(path)
    return scores_to_events(*clip_to_audio(p.require_scores(), p.start_s, p.end_s, p.duration_s), p.labels, settings)


def test_events_agree_with_python(weights: list[str], sound: Path, model: Model, threshold: float) -> None:
    low = round(threshold - 0.01, 4)
    options = ["--low-threshold", str(low), "--median", "3", "--max-gap", "0.5", "--min-duration", "1"]
    result = run(sound, *weights, "--format", "jsonl", "--threshold", str(threshold), *options)
    assert result.returncode == 0, result.stderr.decode()
    records = [json.loads(line) for line in result.stdout.splitlines()]
    settings = EventSettings(threshold, low, median_patches=3, max_gap_s=0.5, min_duration_s=1)
    expected = expected_events(model, sound, settings)
    assert len(expected) > 20
    assert [record["label_id"] for record in records] == [event.label_id for event in expected]
    for name in ("start_s", "end_s", "score", "mean"):
        values = [getattr(event, name) for event in expected]
        assert [record[name] for record in records] == pytest.approx(values, abs=2e-6)


def test_prediction_events_are_the_same_by_falling_score(model: Model, sound: Path, threshold: float) -> None:
    events = model.predict_file(sound).events(threshold, max_gap_s=1)
    expected = expected_events(model, sound, EventSettings(threshold, max_gap_s=1))
    assert events == sorted(expected, key=lambda event: (event.start_s, -event.score))
    assert events != expected


def test_thresholds_of_labels_come_from_a_file(weights: list[str], sound: Path, tmp_path: Path) -> None:
    table = tmp_path / "thresholds.csv"
    table.write_text("label,threshold,low\nSpeech,0,0\n/m/0bt9lr,0\n")
    result = run(sound, *weights, "--format", "csv", "--threshold", "1", "--thresholds", table)
    rows = list(csv.DictReader(io.StringIO(result.stdout.decode())))
    assert [(row["start_s"], row["end_s"], row["label"]) for row in rows] == [("0", "70", "Speech"), ("0", "70", "Dog")]


def test_bad_files_cost_one_row_each_and_quiet_ones_are_said(weights: list[str], sound: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "short.wav").write_bytes(wav_bytes(noise(16_000)))
    options = ["--threshold", "1", "--format", "jsonl"]
    result = run(tmp_path / "empty.wav", sound, tmp_path / "short.wav", *weights, *options)
    assert result.returncode == 3
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["error"] and record["error"]["code"] for record in records] == ["empty_file", None, None]
    assert [(record["start_s"], record["end_s"], record["label"]) for record in records] == [
        (0, 0, None),
        (0, 70, None),
        (0, 1, None),
    ]


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("e.jsonl", b'{"path"'),
        ("e.csv", b"path,start_s,end_s,label_id,label,score,mean"),
        ("e.tsv", b"filename\tonset\toffset\tevent_label\n"),
        ("e.TextGrid", b'File type = "ooTextFile"\n'),
        ("e.vtt", b"WEBVTT\n"),
    ],
)
def test_suffix_chooses_the_format(weights: list[str], sound: Path, tmp_path: Path, name: str, begins: bytes) -> None:
    result = run(sound, *weights, "--threshold", "1", "--output", tmp_path / name)
    assert (result.returncode, result.stdout) == (0, b"")
    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize(("name", "suffix"), [("audacity", ".txt"), ("textgrid", ".TextGrid"), ("webvtt", ".vtt")])
def test_a_file_for_each_recording(weights: list[str], sound: Path, tmp_path: Path, name: str, suffix: str) -> None:
    (tmp_path / "short.wav").write_bytes(wav_bytes(noise(16_000)))
    inputs = [sound, tmp_path / "short.wav", *weights, "--threshold", "0.9", "--format", name]
    result = run(*inputs, "--output", f"{tmp_path / 'labels'}/")
    assert result.returncode == 0, result.stderr.decode()
    found = {path.name for path in (tmp_path / "labels").rglob("*.*")}
    assert found == {f"{sound.name}{suffix}", f"short.wav{suffix}"}
    refused = run(*inputs, "--output", tmp_path / "all.txt")
    assert refused.returncode == 2
    assert b"to one recording, and the inputs are 2. Next step: --output FOLDER/" in refused.stderr


def test_one_label_file_for_each_recording(weights: list[str], sound: Path, tmp_path: Path) -> None:
    (tmp_path / "short.wav").write_bytes(wav_bytes(noise(16_000)))
    target = tmp_path / "labels"
    inputs = [sound, tmp_path / "short.wav"]
    result = run(*inputs, *weights, "--threshold", "0", "--format", "audacity", "--output", f"{target}/")
    assert result.returncode == 0, result.stderr.decode()
    found = {path.name: path.read_text() for path in target.rglob("*.txt")}
    assert set(found) == {"long.wav.txt", "short.wav.txt"}
    assert found["short.wav.txt"].startswith("0.000000\t1.000000\tSpeech (")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("Speach,0.5\n", "thresholds.csv: there is no label 'Speach' among these 521; did you mean 'Speech'"),
        ("Speech,0.5\n/m/09x0r,0.4\n", "thresholds.csv: '/m/09x0r' and 'Speech' are the same label"),
        ("Speech,0.5\nSpeech,0.5\n", "thresholds.csv: 'Speech' is there twice"),
        ("Speech,1.5\n", "thresholds.csv: threshold of Speech is 1.5; expected a score in [0, 1]"),
        (None, "thresholds.csv cannot be read: No such file"),
    ],
)
def test_a_bad_table_ends_the_command_before_any_work(
    weights: list[str], sound: Path, tmp_path: Path, table: str | None, message: str
) -> None:
    if table is not None:
        (tmp_path / "thresholds.csv").write_text(table)
    target = tmp_path / "events.csv"
    result = run(sound, *weights, "--thresholds", tmp_path / "thresholds.csv", "--output", target)
    assert result.returncode == 2
    assert message in result.stderr.decode()
    assert b"Traceback" not in result.stderr
    assert not list(tmp_path.glob("events*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "0.3", "--low-threshold", "0.4"], "low_threshold is 0.4; expected a score in [0, 0.3]"),
        (["--threshold", "2"], "2.0 is not in the range"),
        (["--median", "4"], "median_patches is 4; expected an odd number"),
        (["--max-gap", "-1"], "-1.0 is not in the range"),
        (["--min-duration", "nan"], "min_duration_s is nan"),
    ],
)
def test_bad_settings_are_wrong_usage(weights: list[str], sound: Path, options: list[str], message: str) -> None:
    result = run(sound, *weights, *options)
    assert result.returncode == 2
    assert message in result.stderr.decode()


def test_a_model_that_only_embeds_has_no_events(vggish_folder: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "a.wav", "--model", vggish_folder, "-o", tmp_path / "events.csv")
    assert result.returncode == 2
    assert b"only embeds: it has no scores. Next step: audioset embed" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_published_weights_hear_speech_and_then_whistling(assets_folder: Path) -> None:
    result = run(assets_folder / "audio" / "speech_whistling2.wav", "--quiet", "--low-threshold", "0.3")
    first, *lines = result.stdout.decode().splitlines()
    assert first == "speech_whistling2.wav"
    assert lines[0].split() == ["0:00.00–0:01.44", "Speech", "1.00"]
    assert {line.split()[1] for line in lines} == {"Speech", "Whistling", "Whistle", "Alarm"}
    assert "\x1b" not in result.stdout.decode()
