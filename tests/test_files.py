"""Files and folders that are written: whole, by one process at a time, and nothing left of killed ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from audioset.errors import ConflictError, OutputError
from audioset.files import (
    LOCK,
    PARTIAL,
    locked,
    locked_folder,
    output_file,
    output_folder,
    partial_folder,
    replacing,
    sweep,
    temporary_folder,
    write_atomically,
    writing,
)

PATIENCE_S = 120


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that says ``ready`` when it is where it should be, and then waits for its end."""
    waiting = 'print("ready", flush=True); sys.stdin.read()'
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys\nfrom pathlib import Path\n{code.replace('WAIT', waiting)}"]
        + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


WRITES = """
from audioset.files import writing
with writing(Path(sys.argv[1])) as file:
    file.write(b"theirs")
    file.flush()
    WAIT
"""


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.csv"
    with writing(path) as file:
        file.write(b"one")
        assert names(path.parent) == [f".a.csv.{LOCK}", f".a.csv.{PARTIAL}"]
    assert names(path.parent) == ["a.csv"]
    assert path.read_bytes() == b"one"


def test_a_second_process_with_one_output_is_refused_while_the_first_lives(tmp_path):
    path = tmp_path / "a.csv"
    first = start(WRITES, path)
    with pytest.raises(ConflictError, match=r"another run is writing .*a\.csv\. Next step: wait"), writing(path):
        raise AssertionError("it began")
    first.communicate(timeout=PATIENCE_S)
    assert path.read_bytes() == b"theirs"
    with writing(path) as file:
        file.write(b"ours")
    assert names(tmp_path) == ["a.csv"]


def test_a_killed_process_leaves_no_lock_and_its_part_is_deleted_by_the_next(tmp_path):
    path = tmp_path / "a.csv"
    first = start(WRITES, path)
    first.kill()
    first.communicate(timeout=PATIENCE_S)
    assert names(tmp_path) == [f".a.csv.{LOCK}", f".a.csv.{PARTIAL}"]
    write_atomically(path, b"ours")
    assert names(tmp_path) == ["a.csv"]
    assert path.read_bytes() == b"ours"


def test_a_killed_process_leaves_no_half_folder_after_the_next(tmp_path):
    first = start(
        "from audioset.files import output_folder\nwith output_folder(Path(sys.argv[1])) as f:\n (f/'a').touch(); WAIT",
        tmp_path / "made",
    )
    with pytest.raises(ConflictError, match="another run is writing"), output_folder(tmp_path / "made"):
        raise AssertionError("it began")
    first.kill()
    first.communicate(timeout=PATIENCE_S)
    with output_folder(tmp_path / "made") as folder:
        (folder / "below").mkdir()
        (folder / "below" / "b").write_bytes(b"1")
    assert names(tmp_path) == ["made"]
    assert names(tmp_path / "made") == ["below"]


def test_a_folder_is_filled_by_one_run_and_swept_of_killed_ones(tmp_path):
    folder = tmp_path / "run"
    first = start(
        "from audioset.files import locked_folder, output_file\n"
        "with locked_folder(Path(sys.argv[1])), output_file(Path(sys.argv[1]) / 'x-123.bin') as part:\n WAIT",
        folder,
    )
    with pytest.raises(ConflictError, match="another run is writing"), locked_folder(folder):
        raise AssertionError("it began")
    first.kill()
    first.communicate(timeout=PATIENCE_S)
    assert len(names(folder)) == 3
    with locked_folder(folder):
        assert names(folder) == [f".run.{LOCK}"]
        write_atomically(folder / "a", b"1")
    assert names(folder) == ["a"]


def test_a_folder_that_was_made_and_not_filled_goes(tmp_path):
    with pytest.raises(ValueError, match="no"), locked_folder(tmp_path / "run"):
        raise ValueError("no")
    assert names(tmp_path) == []


def test_what_a_living_process_writes_is_not_swept(tmp_path):
    first = start(WRITES, tmp_path / "a.csv")
    sweep(tmp_path)
    assert names(tmp_path) == [f".a.csv.{LOCK}", f".a.csv.{PARTIAL}"]
    first.communicate(timeout=PATIENCE_S)
    assert names(tmp_path) == ["a.csv"]


def test_only_what_is_ours_by_its_name_is_swept(tmp_path):
    others = [".a.csv.1234.deadbeef", ".a.csv.lock", "a.csv.partial", f"a.csv.{PARTIAL}", ".hidden"]
    for name in others:
        (tmp_path / name).write_bytes(b"theirs")
    sweep(tmp_path)
    write_atomically(tmp_path / "a.csv", b"ours")
    assert names(tmp_path) == sorted([*others, "a.csv"])


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links are followed on this system")
def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / f".a.{PARTIAL}").symlink_to(victim)
    write_atomically(tmp_path / "a", b"1")
    (tmp_path / f".b.{LOCK}").symlink_to(victim)
    with pytest.raises(OutputError, match="cannot write"), output_file(tmp_path / "b"):
        raise AssertionError("it began")
    assert victim.read_bytes() == b"mine"
    assert not (tmp_path / "a").is_symlink()


def test_a_waiting_process_comes_next(tmp_path):
    path = tmp_path / "a"
    first = start(WRITES, path)
    second = start(
        "from audioset.files import write_atomically\nprint('ready', flush=True)\n"
        "write_atomically(Path(sys.argv[1]), b'second')",
        path,
    )
    first.communicate(timeout=PATIENCE_S)
    second.communicate(timeout=PATIENCE_S)
    assert path.read_bytes() == b"second"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["x" * 255, "ä" * 127, os.fsdecode(b"\xff" * 250), "x" * 237, "x" * 238])
def test_any_name_that_the_disk_takes_can_be_written(tmp_path, name):
    try:
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this disk does not take the name")
    with writing(tmp_path / name) as file:
        file.write(b"1")
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"1"


def test_a_name_that_is_too_long_is_said(tmp_path):
    expected = pytest.raises(OutputError, match=r"File name too long\. Next step: choose a shorter name")
    with expected, writing(tmp_path / ("x" * 256)):
        raise AssertionError("it began")
    assert names(tmp_path) == []


@pytest.mark.parametrize("begin", [replacing, output_file, output_folder, partial_folder])
def test_a_failure_leaves_nothing(tmp_path, begin):
    with pytest.raises(ValueError, match="mine"), begin(tmp_path / "a"):
        raise ValueError("mine")
    assert names(tmp_path) == []


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path):
    theirs = tmp_path / "a" / "theirs"
    with pytest.raises(ConflictError, match="is there already"), output_folder(tmp_path / "a"):
        write_atomically(theirs, b"1")
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["theirs"]


def test_temporary_folders_of_killed_processes_are_deleted_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = "from audioset.files import temporary_folder\nwith temporary_folder() as f:\n (f/'a').touch(); WAIT"
    killed, living = start(code), start(code)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=PATIENCE_S)
    (tmp_path / "audioset-mine").mkdir()
    (tmp_path / f".audioset-{0:012x}.{LOCK}").touch()  # of one killed before it had its folder
    with temporary_folder() as folder:
        assert folder.parent == tmp_path
    [living_folder] = {name for name in names(tmp_path) if not name.startswith(".")} - {"audioset-mine"}
    assert names(tmp_path) == sorted(["audioset-mine", living_folder, f".{living_folder}.{LOCK}"])
    living.communicate(timeout=PATIENCE_S)
    assert names(tmp_path) == ["audioset-mine"]


def test_a_lock_is_free_again(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "a") as is_sure:
            assert is_sure
            with pytest.raises(ConflictError, match="another run is writing"), locked(tmp_path / "a"):
                raise AssertionError("it began")
    assert names(tmp_path) == []


def test_a_folder_that_is_there_is_refused_and_what_a_killed_run_left_beside_it_goes(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("whole")
    (tmp_path / f".out.{LOCK}").touch()
    (tmp_path / f".out.{PARTIAL}").mkdir()
    with pytest.raises(ConflictError, match="out is there already"), output_folder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a.txt").read_text() == "whole"
