"""``audioset evaluate`` and ``audioset evaluate compare`` as users run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sounds import noise, sine, wav_bytes

from audioset import LabelSet, load_model, metrics
from audioset.cli import cli
from audioset.dataset.features import reading as features
from audioset.dataset.features.reading import FeatureClip
from audioset.dataset.lists.segments import Segment, write_segments
from audioset.models.cards import network_shapes
from audioset.networks.heads import HEADS
from audioset.weights.model_folder import ModelCard, write_model_folder

ALL = LabelSet.load("audioset-527")
QUICK = ("--resamples", 20)
MUSIC, SPEECH, DOG = "/m/04rlf", "/m/09x0r", "/m/0bt9lr"
MALE_SPEECH = "/m/05zppz"  # not among YAMNet's classes


def run(*arguments: object) -> Result:
    """In this process: the command line's errors come out as exceptions, and exit codes as return values."""
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], standalone_mode=False)


def done(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exception is None, result.exception
    return result


def record_of(*arguments: object) -> dict:
    return json.loads(done(*arguments, "--json", "--quiet").stdout)


def message_of(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exception is not None
    return getattr(result.exception, "message", None) or str(result.exception)


@pytest.fixture(scope="module")
def clips() -> list[FeatureClip]:
    """Forty clips: loud ones are music, and every fourth is speech too."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(40):
        is_loud = index % 2 == 0
        labels = [ALL.ids.index(MUSIC if is_loud else DOG)] + [ALL.ids.index(SPEECH)] * (index % 4 == 0)
        bytes_ = rng.integers(128 if is_loud else 0, 256 if is_loud else 128, (10, 128)).astype(np.uint8)
        found.append(
            FeatureClip(f"-clip{index:06d}", index * 10.0, index * 10.0 + 10, tuple(sorted(labels)), bytes_, "eval")
        )
    return found


@pytest.fixture(scope="module")
def folder(clips: list[FeatureClip], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features, a list of the same clips and one more, a head, and scores of two systems."""
    folder = tmp_path_factory.mktemp("evaluate")
    features.FORMS["arrays"].write(folder / "features", clips)
    rows = [
        Segment(clip.video_id, clip.start_s, clip.end_s, tuple(sorted(ALL.ids[index] for index in clip.labels)))
        for clip in clips
    ]
    write_segments(folder / "eval_segments.csv", [*rows, Segment("gone_______", 0, 10, (MUSIC,))], "today")
    write_head(folder / "head")
    rng = np.random.default_rng(1)
    targets = np.zeros((40, 527))
    for row, clip in zip(targets, clips, strict=True):
        row[list(clip.labels)] = 1
    ids = np.array([f"Y{clip.video_id}.wav" for clip in clips])
    for name, strength in (("weak", 1.0), ("strong", 3.0)):
        logits = rng.normal(size=targets.shape) + strength * targets - 2
        np.savez(folder / f"{name}.npz", scores=1 / (1 + np.exp(-logits)), ids=ids)
    return folder


def write_head(folder: Path) -> None:
    """A model folder with a head on embeddings, and what its training noted."""
    spec = HEADS["logistic"]
    card = ModelCard(
        spec.network.__name__, dict(spec.arguments), "vggish", "audioset-527", "CC0-1.0", {"file": "run.toml"}
    )
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in network_shapes(card).items()}
    write_model_folder(folder, card, weights)
    lines = [{"iteration": index * 10, "loss": 1 / index, "eval": {"mean_ap": index / 20}} for index in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def evaluations(folder: Path) -> list[Path]:
    """Folders of evaluations of the two systems."""
    paths = [folder / "evaluated" / name for name in ("weak", "strong")]
    for path in paths:
        done("--scores", folder / f"{path.name}.npz", "--labels", folder / "eval_segments.csv", "-o", path, *QUICK)
    return paths


# ---- Features


def test_a_head_is_evaluated_on_features(folder: Path, clips: list[FeatureClip], tmp_path: Path) -> None:
    found = record_of(folder / "head", "--features", folder / "features", "-o", tmp_path / "out", *QUICK)
    scores = load_model(folder / "head").predict_embeddings(np.array([clip.embeddings for clip in clips]))
    targets = np.zeros((40, 527), bool)
    for row, clip in zip(targets, clips, strict=True):
        row[list(clip.labels)] = True
    expected = metrics.evaluate(scores, targets).as_dict()
    assert found["metrics"] == pytest.approx(expected, nan_ok=True)
    assert found["model"]["card"]["frontend"] == "vggish"
    assert found["model"]["engine"] == "openvino"
    assert found["model"]["weights_digest"].startswith("sha256:")
    assert found["settings"]["source"] == "features"
    assert found["settings"]["features"] == str(folder / "features")
    assert found["settings"]["subset"] == "eval"
    assert [point["iteration"] for point in found["curves"]] == [10, 20, 30]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Course of the training" in page
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "evaluation.json",
        "report.html",
        "report.md",
        "scores.npz",
    ]


def test_a_list_says_which_features_are_missing(folder: Path) -> None:
    found = record_of(
        folder / "head", "--features", folder / "features", "--labels", folder / "eval_segments.csv", *QUICK
    )
    assert (found["n_clips"], found["missing"]["n_clips"]) == (40, 1)
    assert found["missing"]["clips"] == {"gone________0_10000": "no_scores"}


def test_other_subsets_are_not_evaluated_by_accident(folder: Path) -> None:
    arguments = (folder / "head", "--features", folder / "features")
    assert "there is no" in message_of("no-such-model", "--features", folder / "features")
    assert "the subset is 'dev'" in message_of(*arguments, "--subset", "dev")
    assert record_of(*arguments, "--subset", "all", *QUICK)["n_clips"] == 40


# ---- Scores made elsewhere


def test_the_terminal_shows_the_numbers_and_the_clips(folder: Path) -> None:
    result = done("--scores", folder / "strong.npz", "--labels", folder / "eval_segments.csv", *QUICK)
    lines = result.stdout.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:5]] == ["mAP", "AUC", "d'", "balanced d'", "lwlrap"]
    assert "40 of 41 labelled clips were evaluated; missing: 1 without scores." in lines
    assert "SHA-256 of the clips' names: " in result.stdout
    assert "audioset: comparing 40 clips with their labels, 20 resamples" in result.stderr


def test_the_output_may_be_called_as_the_published_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOSET_ASSETS", str(folder))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        done("--scores", folder / "strong.npz", "--labels", "eval", "--output", "eval/", *QUICK)
    assert Path("eval/evaluation.json").is_file()


def test_a_name_may_be_given_to_scores(folder: Path) -> None:
    found = record_of(
        "theirs", "--scores", folder / "strong.npz", "--labels", folder / "eval_segments.csv", "--resamples", 0
    )
    assert (found["name"], found["model"], found["intervals"]) == ("theirs", None, {})


def test_training_lists_give_the_number_of_training_clips(folder: Path) -> None:
    segments = folder / "eval_segments.csv"
    found = record_of("--scores", folder / "weak.npz", "--labels", segments, "--training-list", segments, *QUICK)
    counts = {row["label_id"]: row["n_training_clips"] for row in found["classes"]}
    assert (counts[MUSIC], counts[SPEECH], counts[DOG], counts[MALE_SPEECH]) == (21, 10, 20, 0)


def test_an_evaluation_can_be_evaluated_again_without_labels(evaluations: list[Path]) -> None:
    first = json.loads((evaluations[0] / "evaluation.json").read_text())
    again = record_of("--scores", evaluations[0], *QUICK)
    assert again["metrics"] == first["metrics"]
    assert again["clips_sha256"] == first["clips_sha256"]


def test_tables_of_paths_are_labels_too(tmp_path: Path) -> None:
    ids, targets = np.array(["a.wav", "b.wav", "c.wav"]), np.array([[0.9, 0.2], [0.1, 0.8], [0.4, 0.3]])
    np.savez(tmp_path / "s.npz", scores=targets, ids=ids, label_ids=np.array([SPEECH, MUSIC]))
    (tmp_path / "labels.csv").write_text("path,label\na.wav,Speech\nb.wav,Music\nc.wav,Speech\nd.wav,Dog\n")
    found = record_of("--scores", tmp_path / "s.npz", "--labels", tmp_path / "labels.csv", *QUICK)
    assert found["metrics"]["mean_ap"] == 1
    assert found["missing"]["clips"] == {"d.wav": "no_scores"}
    assert found["classes_left_out"] == {"only_in_labels": [DOG], "only_in_model": []}


# ---- Audio


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings named by clip: tones that are music, noises that are dogs; a broken one; a list with one more."""
    folder = tmp_path_factory.mktemp("recordings")
    rows = []
    for index in range(6):
        labels = (MALE_SPEECH, MUSIC) if index % 2 == 0 else (DOG,)
        rows.append(Segment(f"-sound{index:05d}", 10.0 * index, 10.0 * index + 10, tuple(sorted(labels))))
        sound = sine(300 + 100 * index, 16_000, 2.2) if index % 2 == 0 else noise(16_000, seed=index)
        path = folder / "audio" / "eval" / f"{index:02x}" / f"{rows[-1].name}_{10_000 * index + 10_000}.wav"
        path.parent.mkdir(parents=True)
        path.write_bytes(wav_bytes(sound) if index < 5 else b"RIFF broken")
    write_segments(folder / "list.csv", [*rows, Segment("gone_______", 0, 10, (MUSIC,))], "today")
    return folder


def test_a_model_is_evaluated_on_audio(recordings: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    result = run(
        *("yamnet", "--weights", random_checkpoint, "--audio", recordings, "--labels", recordings / "list.csv"),
        *("--output", tmp_path, "--json", "--workers", 1, "--threads", 1, *QUICK),
    )
    assert result.exception is None
    assert result.return_value == 3  # one recording is broken
    assert "list.csv" not in result.stderr
    assert "[decode_failed]" in result.stderr or "[" in result.stderr.split("error: ")[1]
    found = json.loads(result.stdout)
    assert found["n_clips"] == 5
    reasons = found["missing"]["clips"]
    assert reasons.pop("gone________0_10000") == "no_file"
    assert len(reasons) == 1
    assert len(found["classes_left_out"]["only_in_labels"]) == 6
    assert found["model"]["pool"] == "mean"
    model = load_model("yamnet", weights=random_checkpoint, n_threads=1)
    with np.load(tmp_path / "scores.npz") as scores:
        assert scores["scores"].shape == (5, 521)
        name = str(scores["ids"][2])
        path = next((recordings / "audio").rglob(f"{name}.wav"))
        expected = model.predict_file(path).scores.mean(axis=0)
        shared = [model.labels.ids.index(label_id) for label_id in scores["label_ids"]]
        np.testing.assert_allclose(scores["scores"][2], expected[shared], atol=1e-5)
        assert scores["targets"].sum() == 5  # three music and two dogs; nobody hears male speech here


def test_a_table_says_where_recordings_are(recordings: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    paths = sorted((recordings / "audio").rglob("*.wav"))[:4]
    for path in paths:
        shutil.copy(path, tmp_path / path.parent.name)
    lines = [f"{path.parent.name},{'Music' if index % 2 == 0 else 'Dog'}" for index, path in enumerate(paths)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    found = record_of(
        *("yamnet", "--weights", random_checkpoint, "--audio", tmp_path, "--labels", tmp_path / "labels.csv"),
        *("--workers", 1, "--threads", 1, *QUICK),
    )
    assert (found["n_clips"], found["metrics"]["n_classes"]) == (4, 2)
    assert len(found["classes_left_out"]["only_in_model"]) == 519


# ---- Comparisons


def test_two_evaluations_are_compared(evaluations: list[Path], tmp_path: Path) -> None:
    result = done("compare", *evaluations, "--output", tmp_path, "--resamples", 100)
    weak, strong = (json.loads((path / "evaluation.json").read_text()) for path in evaluations)
    change = strong["metrics"]["mean_ap"] - weak["metrics"]["mean_ap"]
    assert change > 0
    assert f"mAP           {change:+.4f}" in result.stdout
    assert f"{evaluations[1]} less {evaluations[0]}" in result.stdout
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert found["clips_sha256"] == weak["clips_sha256"]
    assert found["differences"][0]["mean_ap"]["low"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.json", "report.html", "report.md"]
    assert "The largest gains in AP" in (tmp_path / "report.html").read_text()


def test_scores_made_elsewhere_are_compared(folder: Path, evaluations: list[Path]) -> None:
    with_own = record_of("compare", evaluations[0], folder / "strong.npz", *QUICK)
    with_list = record_of(
        "compare", folder / "weak.npz", folder / "strong.npz", "--labels", folder / "eval_segments.csv", *QUICK
    )
    assert with_own["systems"][0]["metrics"] == with_list["systems"][0]["metrics"]
    assert with_own["differences"] == with_list["differences"]
    assert with_list["n_clips"] == 40


def test_three_evaluations_are_compared_with_the_first(folder: Path, evaluations: list[Path]) -> None:
    found = record_of("compare", *evaluations, folder / "weak.npz", *QUICK)
    assert [len(found["systems"]), len(found["differences"])] == [3, 2]
    assert found["differences"][1]["mean_ap"]["value"] == 0


# ---- What goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one of --features PATH, --audio FOLDER and --scores FILE"),
        (("yamnet",), "expected one of --features PATH"),
        (("yamnet", "--audio", "x", "--scores", "y"), "expected one of --features PATH"),
        (("--features", "x"), "--features needs a MODEL"),
        (("yamnet", "--audio", "x"), "--audio needs --labels FILE"),
        (("--scores", "weak.npz"), "weak.npz has no labels of its clips: add --labels FILE"),
        (("--scores", "none.npz", "--labels", "eval_segments.csv"), "there is no none.npz"),
        (("--scores", "weak.npz", "--labels", "none.csv"), "none.csv cannot be read: No such file"),
        (("--scores", "weak.npz", "--labels", "eval_segments.csv", "-o", "weak.npz"), "weak.npz is a file"),
        (("--scores", "weak.npz", "--labels", "eval_segments.csv", "-o", "weak.npz/x"), "cannot write weak.npz/x"),
        (("compare", "weak.npz"), "expected two or more to compare"),
        (("compare", "weak.npz", "strong.npz"), "neither weak.npz nor another has labels of its clips"),
        (("compare", "weak.npz", "strong.npz", "--labels", "eval_segments.csv", "--resamples", 0), "0 resamples"),
    ],
)
def test_wrong_usage_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple, message: str) -> None:
    monkeypatch.chdir(folder)
    assert message in message_of(*arguments)


def test_models_that_hear_audio_see_no_features(folder: Path, random_checkpoint: Path) -> None:
    text = message_of("yamnet", "--weights", random_checkpoint, "--features", folder / "features")
    assert "hears audio, and --features has embeddings" in text


def test_models_without_scores_are_refused(folder: Path, tmp_path: Path) -> None:
    write_model_folder(tmp_path, ModelCard("vggish", {"activation": None}, "vggish", "", "CC0-1.0", {}), {})
    text = message_of(tmp_path, "--audio", folder, "--labels", folder / "eval_segments.csv")
    assert "only embeds: it has no scores" in text


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "audioset", "evaluate", *map(os.fspath, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_exit_codes_and_help(folder: Path) -> None:
    missing = shell("--scores", folder / "none.npz", "--labels", folder / "eval_segments.csv")
    assert (missing.returncode, missing.stdout) == (4, "")
    assert missing.stderr.startswith("audioset: there is no ")
    usage = shell()
    assert usage.returncode == 2
    assert "Usage: audioset evaluate [OPTIONS] [MODEL]" in usage.stderr
    explained = shell("compare", "--help")
    assert explained.returncode == 0
    assert "Usage: audioset evaluate compare [OPTIONS] EVALUATION..." in explained.stdout
