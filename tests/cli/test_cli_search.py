"""``audioset index`` and ``audioset search`` as users run them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sounds import noise, wav_bytes

pytest.importorskip("pyarrow")
RATE = 16_000


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "audioset", *map(os.fsencode, arguments)], capture_output=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for number, seconds in enumerate((2.0, 3.3, 0.4)):
        (folder / f"-{number}.wav").write_bytes(wav_bytes(noise(int(seconds * RATE), seed=number)))
    return folder


@pytest.fixture(scope="module")
def index(recordings: Path, random_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    done = run("index", recordings, "-o", folder, "--weights", random_checkpoint, "--json", "--quiet")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["n_added"] == 3
    return folder


def test_a_second_run_keeps_model_and_settings_of_the_first(index: Path, recordings: Path) -> None:
    done = run("index", recordings, "-o", index, "--quiet")
    assert done.returncode == 0, done.stderr
    assert b"3 recordings, " in done.stdout
    assert b"(3 as before)" in done.stdout
    refused = run("index", recordings, "-o", index, "--hop", "0.1")
    assert refused.returncode == 6
    assert b"hop_s was None and is now 0.1" in refused.stderr


def test_the_moment_of_the_example_comes_first_if_it_may(index: Path, recordings: Path) -> None:
    where = ("search", index, "--like", recordings / "-1.wav", "--at", "1.5")
    done = run(*where, "--include-self", "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout.splitlines()[0])
    assert best["path"] == str(recordings / "-1.wav")
    assert best["start_s"] <= 1.5 < best["end_s"]
    assert best["similarity"] == pytest.approx(1, abs=1e-3)
    [others] = [json.loads(run(*where, "--format", "json", "--per-file", "1").stdout)]
    assert len(others) == 3
    assert all(
        one["path"] != best["path"] or one["start_s"] >= best["end_s"] or one["end_s"] <= best["start_s"]
        for one in others
    )


def test_accepted_moments_go_to_a_table(index: Path, recordings: Path, tmp_path: Path) -> None:
    where = ("search", index, "--like", recordings / "-0.wav", "-n", "3")
    listed = list(csv.DictReader(io.StringIO(run(*where, "--format", "csv").stdout.decode())))
    table = tmp_path / "moments.csv"
    done = run(*where, "--accept", "1,3", "--label", "dog", "--output", table)
    assert done.returncode == 0
    assert b"2 moments of dog added to" in done.stderr
    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert [(row["path"], row["label"], float(row["start_s"])) for row in rows] == [
        (listed[i]["path"], "dog", float(listed[i]["start_s"])) for i in (0, 2)
    ]


def test_editors_get_labels(index: Path, recordings: Path, tmp_path: Path) -> None:
    where = ("search", index, "--like", recordings / "-0.wav", "--label", "dog")
    raven = run(*where, "--format", "raven").stdout.decode()
    assert raven.count("dog") == raven.count("\n") - 1 >= 3
    assert run(*where, "--format", "audacity").returncode == 2
    done = run(*where, "--format", "audacity", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"-1.wav.txt", "-2.wav.txt"}
    assert "\tdog (" in (tmp_path / "-1.wav.txt").read_text()


def test_a_bad_file_is_one_line_and_exit_code_3(random_checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    done = run(
        "index", tmp_path / "bad.wav", recordings / "-2.wav", "-o", tmp_path / "index", "--weights", random_checkpoint
    )
    assert done.returncode == 3
    assert b"1 recordings, 1 moments (1 new, 1 failed)" in done.stdout
    assert done.stderr.count(b"bad.wav") == 1


def test_a_folder_without_audio_is_exit_code_4(tmp_path: Path) -> None:
    done = run("index", tmp_path, "-o", tmp_path / "index")
    assert done.returncode == 4
    assert b"no audio in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--like", "{0}", "--at", "99"], 2, b"--at 99 is not in"),
        (["--like", "{0}", "--at", "1", "--at", "2"], 2, b"--at is given 2 times, and --like 1 times"),
        (["--like", "{0}", "--accept", "1"], 2, b"Next step: --label NAME"),
        (["--like", "{0}", "--accept", "99", "--label", "x"], 2, b"expected numbers of the list"),
        (["--like", "{0}", "--accept", "1", "--label", "x", "-o", "-"], 2, b"--accept adds to a table"),
        (["--like", "missing.wav"], 3, b"the example missing.wav: "),
    ],
)
def test_what_cannot_be_searched_for(
    index: Path, recordings: Path, arguments: list[str], status: int, message: bytes
) -> None:
    done = run("search", index, *(one.format(recordings / "-0.wav") for one in arguments))
    assert done.returncode == status
    assert message in done.stderr


def test_another_model_is_refused(index: Path, recordings: Path, assets_folder: Path) -> None:
    done = run("search", index, "--like", recordings / "-0.wav", "--model", "yamnet")
    assert done.returncode == 2
    assert b"this is another model" in done.stderr


def test_a_folder_that_is_no_index(tmp_path: Path, recordings: Path) -> None:
    done = run("search", tmp_path, "--like", recordings / "-0.wav")
    assert done.returncode == 2
    assert b"is not an index" in done.stderr
