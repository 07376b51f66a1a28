"""Files of formats: empty ones, whole or none, full disks, broken pipes."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from format_rows import ROWS, quantised_rows, strict_json, tsv_dicts, written

from audioset.errors import OutputError, UsageError
from audioset.files import PARTIAL, explain_os_errors
from audioset.formats import (
    EMBED_FORMATS,
    EVENT_FORMATS,
    SUFFIXES,
    TAG_FORMATS,
    make_writer,
    open_output,
)

EMPTY_TAG_FILES = {
    "table": b"",
    "json": b"[]\n",
    "jsonl": b"",
    "csv": b"path,start_s,end_s,rank,label_id,label,score,model,error_code,error\n",
    "audacity": b"",
}

# choosing a format


@pytest.mark.parametrize(("name", "expected"), EMPTY_TAG_FILES.items())
def test_no_rows_are_a_valid_file(name: str, expected: bytes) -> None:
    assert written(name, []) == expected


def test_raven_without_rows_has_a_header() -> None:
    assert tsv_dicts(written("raven", [])) == []


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="format is 'xml'; expected one of table, json, jsonl, csv, parquet, audacity"):
        make_writer("xml", io.BytesIO(), TAG_FORMATS)
    with pytest.raises(UsageError, match="format is 'csv'; expected one of jsonl, npz, parquet, tfrecord"):
        make_writer("csv", io.BytesIO(), EMBED_FORMATS)


def test_suffixes_name_formats() -> None:
    assert set(SUFFIXES.values()) <= {*TAG_FORMATS, *EMBED_FORMATS, *EVENT_FORMATS}


def test_importing_the_formats_is_cheap() -> None:
    code = "import sys, audioset.formats; print(*{'numpy', 'rich', 'pyarrow', 'zipfile'} & set(sys.modules))"
    assert run_python(code).stdout == b"\n"


# where results go


def run_python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments], capture_output=True, timeout=60, **options
    )


def fail_after(target: Path, data: bytes) -> None:
    with open_output(target) as output:
        output.write(data)
        raise RuntimeError("the run fails")


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target, partial = tmp_path / "new" / "a.csv", tmp_path / "new" / f".a.csv.{PARTIAL}"
    with open_output(target) as output:
        output.write(b"one\n")
        assert partial.read_bytes() == b"one\n"
        assert not target.exists()
        output.write(b"two\n")
    assert target.read_bytes() == b"one\ntwo\n"
    assert not partial.exists()


def test_a_failed_run_keeps_what_was_there_before(tmp_path: Path) -> None:
    target = tmp_path / "a.csv"
    target.write_bytes(b"before\n")
    with pytest.raises(RuntimeError, match="the run fails"):
        fail_after(target, b"part\n")
    assert target.read_bytes() == b"before\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill outright")
def test_the_part_of_a_killed_run_goes_with_the_next(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    code = """if True:
        import os, signal, sys
        from audioset.formats import Row, TAG_FORMATS, make_writer, open_output
        with open_output(sys.argv[1]) as output:
            writer = make_writer("jsonl", output, TAG_FORMATS)
            for index in range(3):
                writer.write(Row(f"{index}.wav", 0.0, 1.0, (), 1.0, "yamnet"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_python(code, str(target)).returncode == -signal.SIGKILL
    lines = (tmp_path / f".a.jsonl.{PARTIAL}").read_bytes().splitlines()
    assert [strict_json(line)["path"] for line in lines] == ["0.wav", "1.wav", "2.wav"]
    with open_output(target) as output:
        output.write(b"after\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    link.symlink_to(real)
    with open_output(link) as output:
        output.write(b"x")
    assert link.is_symlink()
    assert real.read_bytes() == b"x"


@pytest.mark.parametrize("target", [None, "-"])
def test_standard_output(target: str | None, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_output(target) as output:
        output.write(b"\xffdata")
    assert capfdbinary.readouterr().out == b"\xffdata"


def fail_to_open(target: Path) -> None:
    with open_output(target):
        raise AssertionError("the place was opened")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", r"cannot write .*: it is a folder\. Next step: name a file in that folder"),
        ("n" * 300, r"cannot write .*nnn: .*name too long\. Next step: choose a shorter name"),
    ],
)
def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message) as caught:
        fail_to_open(tmp_path / name)
    assert caught.value.exit_code == 7


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(OutputError, match=r"Permission denied\. Next step: choose a place that you may write to"):
        fail_to_open(tmp_path / "a.csv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("name", "formats", "rows"),
    [
        *((name, TAG_FORMATS, lambda: ROWS[:1]) for name in TAG_FORMATS),
        *((name, EMBED_FORMATS, quantised_rows) for name in EMBED_FORMATS),
    ],
)
def test_a_full_disk_is_an_output_error_in_every_format(
    name: str, formats: Mapping[str, Any], rows: Callable[[], list[Any]]
) -> None:
    def write() -> None:
        with open_output("/dev/full") as output:
            writer = make_writer(name, output, formats)
            try:
                for row in rows():
                    writer.write(row)
            finally:
                writer.close()

    with pytest.raises(OutputError, match=r"cannot write /dev/full: No space left on device\. Next step: free some"):
        write()
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)
    assert not Path(f"/dev/.full.{PARTIAL}").exists()


@pytest.mark.parametrize("n_bytes", [0, 100])
@pytest.mark.parametrize("name", EMBED_FORMATS)
def test_a_limit_on_the_size_of_files_is_an_output_error_in_every_format(
    name: str, n_bytes: int, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource", reason="file sizes are limited on POSIX only")

    def write() -> None:
        with open_output(tmp_path / "output") as output, closing(make_writer(name, output, EMBED_FORMATS)) as writer:
            for row in quantised_rows():
                writer.write(row)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: File too large\. Next step: "):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_ends_the_run_calmly() -> None:
    code = """if True:
        import sys
        from contextlib import closing
        from audioset.formats import Row, TAG_FORMATS, make_writer, open_output
        with open_output(None) as output, closing(make_writer("json", output, TAG_FORMATS)) as writer:
            while True:
                writer.write(Row("a.wav", 0.0, 1.0, (), 1.0, "yamnet"))
        print("end of run", output.reader_is_gone, file=sys.stderr)
    """
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert os.read(reader, 2) == b"[\n"
    os.close(reader)
    _, talk = process.communicate(timeout=60)
    assert (process.returncode, talk) == (0, b"end of run True\n")


def test_a_pipe_that_breaks_elsewhere_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError, match="a worker"), open_output(tmp_path / "a.csv"):
        raise BrokenPipeError("a worker")


def test_other_failures_of_the_system_say_choose_another_place() -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write x: Input/output error\. Next step: choose another"),
        explain_os_errors("x"),
    ):
        raise OSError(errno.EIO, "Input/output error")
