"""``audioset train check`` as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from labelled import RATE, table_of, write_folders, write_sound
from sounds import wav_bytes

from audioset.cli import cli
from audioset.cli.options import takes
from audioset.cli.sound_options import SoundOptions
from audioset.errors import DataError, UsageError


def run(*arguments: object) -> Result:
    """In this process: the command line's errors come out as exceptions, and exit codes as return values."""
    return CliRunner().invoke(cli, ["train", "check", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Two classes of six files of two speakers."""
    return write_folders(tmp_path / "good", {"cat": 6, "dog": 6})


def test_good_data_are_counted(good: Path) -> None:
    result = run(good, "--group", "([a-z]+)_", "--workers", 1)
    assert result.return_value == 0
    assert result.stdout.splitlines() == [
        f"{good} (folders)",
        "clips      12",
        "classes    2, one for each clip",
        "length     0.30 s to 0.30 s, median 0.30 s, in all 3.6 s",
        "groups     2: ann 6, bob 6",
        "",
        "class           clips  left out    files   groups   shortest   median   longest",
        "cat                 6         -        6        2     0.30 s   0.30 s    0.30 s",
        "dog                 6         -        6        2     0.30 s   0.30 s    0.30 s",
        "",
        "Nothing is wrong.",
    ]
    assert result.stderr.startswith("audioset: 12 done · ")


def test_findings_come_by_severity_with_their_clips(good: Path) -> None:
    for number in range(7):
        (good / "dog" / f"x{number}.wav").write_bytes(b"no sound")
    write_sound(good / "dog" / "short.wav", 0.1, seed=90)
    result = run(good, "--quiet", "--workers", 1)
    assert result.return_value == 3
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line for line in lines if line in ("Errors", "Warnings", "Notes")] == ["Errors", "Warnings"]
    assert "dog                 7         7" in result.stdout
    start = lines.index("Errors")
    assert lines[start + 1].startswith("  unreadable (left out): 7 files cannot be read. Next step: convert them")
    assert lines[start + 2].startswith("    dog/x0.wav: the file (8 bytes) begins with 'no sound'")
    assert lines[start + 7] == "    and 2 more (--all)"
    assert all(len(line) < 160 for line in lines[start + 2 : start + 7])
    assert "    dog/short.wav: 0.100 s" in lines
    assert "dog/x6.wav" in run(good, "--quiet", "--all", "--workers", 1).stdout


def test_nothing_usable_has_a_report_and_an_exit_code(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").write_bytes(wav_bytes(np.zeros(RATE, np.float32), RATE))
    result = run(tmp_path, "--workers", 1)
    assert result.return_value == 4
    assert "clips      0, and 2 that are left out" in result.stdout
    assert "silent (left out): 2 clips" in result.stdout


def test_one_class_alone_is_an_error(tmp_path: Path) -> None:
    result = run(write_folders(tmp_path, {"dog": 6}), "--workers", 1)
    assert result.return_value == 3
    assert "one_class: there is only one class, 'dog'" in result.stdout


def test_json_has_everything(good: Path) -> None:
    (good / "dog" / "x.wav").write_bytes(b"no sound")
    result = run(good, "--json", "--workers", 1)
    assert result.return_value == 3
    record = json.loads(result.stdout)
    assert (record["n_clips"], record["n_usable"]) == (13, 12)
    (finding,) = record["findings"]
    assert (finding["kind"], finding["severity"], finding["is_left_out"]) == ("unreadable", "error", True)
    assert finding["clips"][0]["labels"] == ["dog"]


def test_all_options_of_a_source_at_once(tmp_path: Path) -> None:
    write_folders(tmp_path / "audio", {"cat": 6, "dog": 6, "cow": 1, "rest": 2})
    rows = [
        f"{path.relative_to(tmp_path / 'audio')},{path.parent.name},{path.name[:3]},"
        f"{'train' if path.name < 'b' else 'test'}"
        for path in sorted((tmp_path / "audio").rglob("*.wav"))
    ]
    table = table_of(tmp_path, "path,label,speaker,part\n" + "\n".join(rows))
    options = ("--audio", tmp_path / "audio", "--group", "speaker", "--split", "part", "--background", "rest")
    result = run(table, *options, "--classes", "dog", "--classes", "cat", "--quiet", "--workers", 1)
    assert result.return_value == 0, result.stdout
    lines = result.stdout.splitlines()
    assert "clips      14" in lines
    assert "splits     2: test 7, train 7" in lines
    assert [line.split()[0] for line in lines if " 6 " in line and "s " in line[40:]] == ["dog", "cat"]
    assert any(line.startswith("(background)") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--group", "nobody"], UsageError, "expected a column, or a regular expression"),
        (["--classes", "dig"], UsageError, "there is no class 'dig'; did you mean 'dog'"),
        (["--background", "noise"], UsageError, "there is no 'noise' for --background"),
        (["--audio", "."], UsageError, "has no label files, so --audio has no meaning"),
        (["--split", "(a)nn"], UsageError, r"the words a \(6\), \(empty\) \(6\); expected train and test"),
    ],
)
def test_wrong_options_are_refused(good: Path, arguments: list[str], error: type[Exception], message: str) -> None:
    result = run(good, *arguments)
    with pytest.raises(error, match=message):
        raise result.exception or AssertionError(result.stdout)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    result = run(table_of(tmp_path, "path,name\n"))
    with pytest.raises(DataError, match="no column label; the columns are path, name"):
        raise result.exception or AssertionError(result.stdout)


def test_a_command_of_ones_own_reads_what_is_given(good: Path) -> None:
    @click.command()
    @click.argument("data", type=Path)
    @takes(sounds=SoundOptions)
    @click.option("--epochs", type=int)
    def learn(data: Path, sounds: SoundOptions, epochs: int) -> None:
        collection = sounds.read(data)
        click.echo(f"{len(collection)} {collection.classes} {epochs}")

    result = CliRunner().invoke(learn, [str(good), "--classes", "dog", "--epochs", "3"])
    assert result.output == "6 ('dog',) 3\n"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode here")
def test_the_program_prints_names_that_are_not_utf8(good: Path) -> None:
    Path(os.fsdecode(os.fsencode(good) + b"/dog/h\xfcnd\n.wav")).write_bytes(b"no sound")
    command = [sys.executable, "-m", "audioset", "train", "check", str(good)]
    done = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 3, done.stderr
    assert rb"dog/h\xfcnd\n.wav: the file" in done.stdout
    assert b"12 done" in done.stderr
    missing = subprocess.run([*command[:-1], "nowhere"], capture_output=True, check=False)
    assert (missing.returncode, missing.stdout) == (4, b"")
    assert missing.stderr.startswith(b"audioset: there is no file or folder nowhere")
