"""``audioset calibrate`` as users run it, from labels to events, and ``--classes`` and its kin for events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sounds import noise, sine, wav_bytes

from audioset import LabelSet, load_model
from audioset.calibration.fit import fit
from audioset.weights.model_folder import ModelCard, read_card, write_model_folder

LABELS = LabelSet.load("yamnet-521")
CLIPS = 14


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "audioset", *map(os.fsencode, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)


def records_of(result: subprocess.CompletedProcess[bytes]) -> list[dict]:
    assert result.returncode == 0, result.stderr.decode()
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones, called music, and noises, called wind; the last two have both, and neither."""
    folder = tmp_path_factory.mktemp("recordings")
    lines = ["path,label"]
    for index in range(CLIPS):
        loudness = 10 ** -(index / 10)
        is_tone = index % 2 == 0
        sound = sine(300 + 40 * index, 16_000, 1.5) if is_tone else noise(24_000, seed=index)
        (folder / f"{index}.wav").write_bytes(wav_bytes(sound * np.float32(loudness)))
        lines.append(f"{index}.wav,{'Music' if is_tone else 'Wind'}")
    for name, sound, label in (
        ("both", sine(500, 16_000, 1.5) + noise(24_000), "Music;Wind"),
        ("none", [0] * 9_000, ""),
    ):
        (folder / f"{name}.wav").write_bytes(wav_bytes(np.asarray(sound, np.float32) * np.float32(0.5)))
        lines.append(f"{name}.wav,{label}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def weights(random_checkpoint: Path) -> list[str]:
    """Options that choose the random weights."""
    return ["--weights", str(random_checkpoint)]


@pytest.fixture(scope="module")
def calibrated(recordings: Path, weights: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with thresholds and maps of two labels."""
    folder = tmp_path_factory.mktemp("models") / "mine"
    result = run(
        "calibrate", recordings / "labels.csv", "--audio", recordings, *weights, "--map", "isotonic", "-o", folder
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stderr.decode().splitlines()[-1] == f"audioset: {folder} has thresholds of its own for 2 labels"
    return folder


def test_from_labels_to_events(recordings: Path, calibrated: Path, weights: list[str]) -> None:
    model = load_model(calibrated, n_threads=2)
    assert model.calibration is not None
    assert {LABELS.names[LABELS.index(label_id)] for label_id in model.calibration.thresholds} == {"Music", "Wind"}
    assert model.calibration.made_from["n_recordings"] == CLIPS + 2
    assert model.calibration.made_from["labels"] == "labels.csv"
    sound = recordings / "both.wav"
    expected = model.predict_file(sound).events()
    found = run("events", sound, "--model", calibrated, "--format", "jsonl")
    assert {(record["label"], record["start_s"]) for record in records_of(found)} == {
        (event.label, event.start_s) for event in expected
    }
    (note,) = found.stderr.decode().splitlines()
    assert note == "audioset: thresholds of the model's own for 2 of 521 labels; --threshold T sets one for all"
    listened = run("listen", "-", "--model", calibrated, "--format", "jsonl", "-q", stdin=pcm_of(sound))
    assert listened.stderr == b""
    assert {record["label"] for record in records_of(listened)} == {event.label for event in expected}
    overridden = run("events", sound, "--model", calibrated, "--format", "jsonl", "--threshold", "1")
    assert overridden.stderr == b""
    ones = {event.label for event in model.predict_file(sound).events(1.0)}
    assert {record["label"] for record in records_of(overridden)} == (ones or {None})


def pcm_of(path: Path) -> bytes:
    return path.read_bytes()[44:]


def test_a_table_of_thresholds_wins_over_the_stored_ones(recordings: Path, calibrated: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Music,off\nSpeech,0\n")
    options = ["--model", calibrated, "--format", "jsonl", "-q", "--thresholds", tmp_path / "t.csv"]
    labels = {record["label"] for record in records_of(run("events", recordings / "both.wav", *options))}
    assert "Speech" in labels
    assert "Music" not in labels


def test_scores_stay_those_of_the_network(recordings: Path, calibrated: Path, weights: list[str]) -> None:
    options = [recordings / "both.wav", "--top", "521", "--format", "jsonl", "-q"]
    (ours,) = records_of(run("tag", *options, "--model", calibrated))
    (theirs,) = records_of(run("tag", *options, *weights))
    assert ours["tags"] == theirs["tags"]


def test_the_same_is_learned_from_stored_scores(
    recordings: Path, calibrated: Path, weights: list[str], tmp_path: Path
) -> None:
    table = ["calibrate", recordings / "labels.csv", "--audio", recordings, "--map", "isotonic", "--json", *weights]
    expected = json.loads(run(*table, "-q").stdout)
    assert [label["label"] for label in expected["labels"]] == ["Music", "Wind"]
    for name in ("tags.csv", "tags.jsonl", "tags.json", "tags.parquet"):
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow")
        tagged = run("tag", recordings, "--per-patch", "--top", "521", *weights, "-q", "-o", tmp_path / name)
        assert tagged.returncode == 0, tagged.stderr.decode()
        result = run(*table, "--scores", tmp_path / name)
        assert (result.returncode, result.stderr) == (0, b"")
        actual = json.loads(result.stdout)
        assert actual["made_from"] == expected["made_from"]
        for ours, theirs in zip(actual["labels"], expected["labels"], strict=True):
            assert ours["threshold"] == pytest.approx(theirs["threshold"], abs=2e-3)
            assert ours["before"] == pytest.approx(theirs["before"], abs=1e-5)


def test_the_command_says_what_python_says(recordings: Path, weights: list[str], model) -> None:
    names = [*map(str, range(CLIPS)), "both", "none"]
    columns = [LABELS.index("Music"), LABELS.index("Wind")]
    scores = [model.predict_file(recordings / f"{name}.wav").scores[:, columns].max(axis=0) for name in names]
    targets = np.array([[k % 2 == 0, k % 2 == 1] for k in range(CLIPS)] + [[True, True], [False, False]])
    found = fit(np.array(scores), targets, LABELS.select(columns))
    result = run("calibrate", recordings / "labels.csv", "--audio", recordings, *weights, "--json", "-q")
    report = json.loads(result.stdout)
    assert [label["threshold"] for label in report["labels"]] == [label.threshold for label in found.labels]
    for ours, theirs in zip(report["labels"], found.labels, strict=True):
        assert ours["after"] == pytest.approx(vars(theirs.after))
    assert report["mean"]["n_labels"] == 2


def test_a_model_folder_is_calibrated_in_place_and_again(recordings: Path, calibrated: Path, tmp_path: Path) -> None:
    table = ["calibrate", recordings / "labels.csv", "--audio", recordings, "--model", calibrated, "-q"]
    other = tmp_path / "other"
    assert run(*table, "-o", other).returncode == 0
    before = (other / "model.safetensors").stat()
    again = run(*table[:-2], other, "-q", "--min-precision", "0.5", "-o", other)
    assert again.returncode == 0, again.stderr.decode()
    assert (other / "model.safetensors").stat().st_ino == before.st_ino
    card = read_card(other)
    assert card.calibration is not None
    assert card.calibration["made_from"]["best_for"] == "recall at precision 0.5"
    assert card.calibration["maps"] == {}  # what was learned from raw scores replaces all that was there
    assert read_card(calibrated).calibration != card.calibration


def test_the_table_for_people(recordings: Path, weights: list[str], tmp_path: Path) -> None:
    lines = (recordings / "labels.csv").read_text() + "0.wav,Speech\n"
    (tmp_path / "labels.csv").write_text(lines)
    result = run("calibrate", tmp_path / "labels.csv", "--audio", recordings, *weights)
    heading, speech, music, wind, mean = result.stdout.decode().splitlines()
    assert heading.split()[:4] == ["label", "with", "threshold", "F1"]
    assert speech.split()[:3] == ["Speech", "1", "-"]
    assert speech.endswith("too few with it; keeps the common threshold")
    assert music.split()[:2] == ["Music", "8"]
    assert wind.count("→") == 5
    assert mean.startswith("mean of 2")
    assert result.stderr.decode().startswith("audioset: 16 done")


def test_labels_with_times_make_clips_of_patches(recordings: Path, weights: list[str], tmp_path: Path) -> None:
    lines = [f"{k}.wav,{'Music' if k % 2 == 0 else 'Wind'},0,{1.0 if k < 8 else 1.5}" for k in range(CLIPS)]
    (tmp_path / "labels.csv").write_text("\n".join([*lines, "none.wav"]) + "\n")
    result = run("calibrate", tmp_path / "labels.csv", "--audio", recordings, *weights, "--json", "-q")
    made_from = json.loads(result.stdout)["made_from"]
    assert made_from["scores_of"] == "patches"
    assert (made_from["n_recordings"], made_from["n_clips"]) == (CLIPS + 1, 3 * CLIPS + 1)


def test_a_recording_that_cannot_be_read_is_left_out_and_said(
    recordings: Path, weights: list[str], tmp_path: Path
) -> None:
    (recordings / "bad.wav").touch()
    (tmp_path / "labels.csv").write_text((recordings / "labels.csv").read_text() + "bad.wav,Music\n")
    target = tmp_path / "mine"
    result = run("calibrate", tmp_path / "labels.csv", "--audio", recordings, *weights, "-q", "-o", target)
    (recordings / "bad.wav").unlink()
    assert result.returncode == 3
    assert b"bad.wav: " in result.stderr
    assert b"[empty_file]" in result.stderr
    assert read_card(target).calibration["made_from"]["n_recordings"] == CLIPS + 2


def test_what_cannot_be_done_is_said_before_any_work(
    recordings: Path, weights: list[str], vggish_folder: Path, tmp_path: Path
) -> None:
    table = recordings / "labels.csv"
    (tmp_path / "other").mkdir()
    other = ModelCard("yamnet", {"n_classes": 3}, "yamnet", "none", "CC0", {})
    write_model_folder(tmp_path / "other", other, {"x": np.ones(1, np.float32)})
    (tmp_path / "file").touch()
    here = [table, "--audio", recordings, *weights]
    for arguments, code, message in (
        (
            [table, *weights],
            2,
            "16 of 16 labelled recordings are no files: 0.wav, 1.wav, 2.wav, …. Likely cause: --aud",
        ),
        ([*here, "-o", tmp_path / "other"], 6, "other holds another model. Next step: choose another folder"),
        ([*here, "-o", tmp_path / "file"], 2, "file is a file; expected a folder"),
        ([table, "--model", vggish_folder], 2, "only embeds: it has no scores to calibrate"),
        ([tmp_path / "none.csv", *weights], 2, "none.csv cannot be read: No such file"),
        ([*here, "--min-precision", "0"], 2, "0.0 is not in the range"),
        ([*here, "--folds", "1"], 2, "1 is not in the range"),
        ([*here, "--min-positives", "99", "-o", tmp_path / "new"], 2, "nothing is written: none of the 2 labels has"),
    ):
        result = run("calibrate", *arguments, "-q")
        assert (result.returncode, b"Traceback" in result.stderr) == (code, False), result.stderr.decode()
        assert message in result.stderr.decode()
    assert not (tmp_path / "new").exists()
    assert read_card(tmp_path / "other") == other


HEADER = "path,start_s,end_s,rank,label_id,label,score,model,error_code,error\n"
MUSIC, WIND = (LABELS.ids[LABELS.index(name)] for name in ("Music", "Wind"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.csv", f"{HEADER}a.wav,0,1,1,{MUSIC},Music,0.5,yamnet,,\n", "a.wav at 0 s has no score for Wind"),
        ("s.csv", f"{HEADER}a.wav,0,1,,,,,yamnet,,\n", "has no score for Music; expected scores of all labels"),
        ("s.csv", f"{HEADER}a.wav,0,1,1,{MUSIC},Music,nan,yamnet,,\n", "a.wav at 0 s has nan for Music"),
        ("s.csv", f"{HEADER}a.wav,0,1,1,{MUSIC},Music,x,yamnet,,\n", "is not what audioset tag writes: ValueError"),
        ("s.csv", HEADER, "2 of 2 labelled recordings are not in"),
        ("s.csv", "a,b\n1,2\n", "is not what audioset tag writes: KeyError: 'path'"),
        ("s.csv", "", "2 of 2 labelled recordings are not in"),
        ("s.jsonl", "{}\n", "is not what audioset tag writes: KeyError"),
        ("s.json", "[", "is not what audioset tag writes: JSONDecodeError"),
        ("s.parquet", "PAR1", "s.parquet: it cannot be read as Parquet"),
        ("s.npz", "", "expected a file of audioset tag that ends in .parquet, .csv, .jsonl, .json"),
    ],
)
def test_bad_files_of_scores(weights: list[str], tmp_path: Path, name: str, text: str, message: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / "labels.csv").write_text("a.wav,Music\nb.wav,Wind\n")
    (tmp_path / name).write_text(text)
    result = run("calibrate", tmp_path / "labels.csv", "--scores", tmp_path / name, *weights)
    assert (result.returncode, b"Traceback" in result.stderr) == (2, False), result.stderr.decode()
    assert message in result.stderr.decode()


def test_scores_of_whole_recordings_and_of_another_model_are_warned_of(weights: list[str], tmp_path: Path) -> None:
    rows = [
        f"{k}.wav,0,1,{rank},{label_id},x,{score},cnn14,,\n"
        for k in range(12)
        for rank, (label_id, score) in enumerate([(MUSIC, k / 12), (WIND, 0.5)], start=1)
    ]
    (tmp_path / "s.csv").write_text(HEADER + "".join(rows) + "bad.wav,0,0,,,,,cnn14,decode_failed,it broke\n")
    lines = [f"{k}.wav,{'Music' if k > 5 else 'Wind'}\n" for k in range(12)]
    (tmp_path / "labels.csv").write_text("".join(lines) + "bad.wav,Music\n")
    result = run("calibrate", tmp_path / "labels.csv", "--scores", tmp_path / "s.csv", *weights, "--json")
    assert result.returncode == 3
    said = result.stderr.decode()
    assert "error: bad.wav: it has no scores in" in said
    assert "is of cnn14; the thresholds are for yamnet" in said
    assert "has one row for each recording: means over its patches" in said
    music, wind = json.loads(result.stdout)["labels"]
    assert (music["threshold"], music["after"]["f1"]) == (0.458, 1.0)
    assert wind["after"]["f1"] == pytest.approx(2 / 3, abs=0.01)  # called everywhere
    (tmp_path / "s.csv").write_text(HEADER + "".join(rows) * 2)
    (tmp_path / "labels.csv").write_text("".join(lines))
    twice = run("calibrate", tmp_path / "labels.csv", "--scores", tmp_path / "s.csv", *weights)
    assert twice.returncode == 2
    assert b"has a time twice; expected each once. Likely cause: two runs in one file" in twice.stderr


def test_real_clips_from_labels_to_events(assets_folder: Path, tmp_path: Path) -> None:
    audio = assets_folder / "audio"
    labels = {"tfl_speech": "Speech", "speech_whistling2": "Speech;Whistling", "dog_975ms": "Dog", "two_heads": ""}
    lines = [f"{name}.wav,{label}\n" for name, label in {**labels, "torchvggish_test": "Music"}.items()]
    (tmp_path / "labels.csv").write_text("".join(lines))
    target = tmp_path / "mine"
    result = run("calibrate", tmp_path / "labels.csv", "--audio", audio, "--min-positives", "1", "-q", "-o", target)
    assert result.returncode == 0, result.stderr.decode()
    scores = [load_model("yamnet").predict_file(audio / f"{name}.wav").scores.max(axis=0) for name in labels]
    whistling = LABELS.index("Whistling")
    threshold = load_model(target).calibration.thresholds[LABELS.ids[whistling]]
    ordered = sorted((column[whistling] for column in scores), reverse=True)
    assert ordered[1] < threshold < ordered[0]
    found = records_of(run("events", audio / "speech_whistling2.wav", "--model", target, "--format", "jsonl", "-q"))
    assert {"Speech", "Whistling"} <= {record["label"] for record in found}
    elsewhere = records_of(run("events", audio / "tfl_speech.wav", "--model", target, "--format", "jsonl", "-q"))
    assert "Whistling" not in {record["label"] for record in elsewhere}


# -- some classes only


def test_events_of_some_classes(recordings: Path, weights: list[str]) -> None:
    sound = recordings / "both.wav"
    options = [sound, *weights, "--threshold", "0", "--format", "jsonl", "-q"]
    labels = [record["label"] for record in records_of(run("events", *options, "--classes", "Canidae, dogs, wolves"))]
    assert labels == ["Howl", "Growling", "Canidae, dogs, wolves"]
    leaves = run("events", *options, "--classes", "Canidae, dogs, wolves", "--leaf-only")
    assert [record["label"] for record in records_of(leaves)] == ["Howl", "Growling"]
    listened = run("listen", "-", *options[1:], "--classes", "/m/01z5f", "--leaf-only", stdin=pcm_of(sound))
    assert [record["label"] for record in records_of(listened)] == ["Howl", "Growling"]
    for refused, message in (("Dgo", "there is no class 'Dgo' in the ontology"), ("Yawn", "none of the model's 521")):
        result = run("events", *options, "--classes", refused)
        assert result.returncode == 2
        assert message in result.stderr.decode()


def test_rolled_up_events_are_those_of_rolled_up_scores(recordings: Path, weights: list[str], model) -> None:
    sound = recordings / "both.wav"
    prediction = model.predict_file(sound)
    threshold = round(float(np.quantile(prediction.scores, 0.9)), 4)
    options = [
        "events",
        sound,
        *weights,
        "--threshold",
        str(threshold),
        "--format",
        "jsonl",
        "-q",
        "--classes",
        "Animal",
    ]
    plain = {record["label"] for record in records_of(run(*options))}
    rolled = records_of(run(*options, "--roll-up"))
    assert plain < {record["label"] for record in rolled}
    animal = max(record["score"] for record in rolled if record["label"] == "Animal")
    assert animal == max(record["score"] for record in rolled)


def test_a_table_may_name_labels_that_are_not_looked_at(recordings: Path, weights: list[str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Speech,0\nHowl,0\n")
    options = [*weights, "--threshold", "1", "--thresholds", tmp_path / "t.csv", "--format", "jsonl", "-q"]
    found = records_of(run("events", recordings / "both.wav", *options, "--classes", "Canidae, dogs, wolves"))
    assert [record["label"] for record in found] == ["Howl"]
