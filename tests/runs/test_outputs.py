"""One rule for outputs: never an input, nothing foreign replaced, one writer, calm ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
import pytest
from click.testing import CliRunner
from processes import children_of
from sounds import noise, wav_bytes

from audioset.cli import cli
from audioset.dataset.features import tfrecord as feature_tfrecord
from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.reading import convert, recogniser
from audioset.dataset.lists.segments import Segment, is_segment_list, write_segments
from audioset.errors import AudioSetError, UsageError
from audioset.formats import (
    EMBED_FORMATS,
    EVENT_FORMATS,
    OWN_EMBEDDINGS,
    OWN_EVENTS,
    OWN_TAGS,
    TAG_FORMATS,
    EmbeddingRow,
    EventRow,
    Row,
    Tag,
    check_different,
    check_output,
    choose_format,
    file_ids,
    make_writer,
)
from audioset.labels.events import Event
from audioset.search.accepted import append_moments
from audioset.search.found import FORMATS as FOUND_FORMATS
from audioset.search.found import OWN as OWN_FOUND
from audioset.search.moments import Moment, Span
from audioset.stopping import ASKING

SPEECH, DOG = Tag("/m/09x0r", "Speech", 0.987), Tag("/m/0bt9lr", "Dog, 0.5", 0.25)
BARK = Event(0.48, 1.44, "/m/0bt9lr", "Dog", 0.75, 0.5)
TAG_ROWS = [Row("a b.wav", 0.0, 4.92, (SPEECH, DOG), 4.92, "yamnet"), Row("a b.wav", 1.0, 2.0, (), 4.92, "yamnet")]
EVENT_ROWS = [EventRow("a b.wav", (BARK,), 1, 4.92, "yamnet", True)]
BYTES = np.arange(256, dtype=np.uint8).reshape(2, 128)
EMBEDDING_ROWS = [EmbeddingRow("a b.wav", np.zeros(2), np.ones(2), BYTES, 4.92, "vggish")]
KINDS = {
    "tag": (TAG_FORMATS, OWN_TAGS, TAG_ROWS),
    "events": (EVENT_FORMATS, OWN_EVENTS, EVENT_ROWS),
    "embed": (EMBED_FORMATS, OWN_EMBEDDINGS, EMBEDDING_ROWS),
}
CASES = [(kind, name) for kind, (formats, _, _) in KINDS.items() for name in formats]
SAME = {  # files of these are alike, whoever wrote them
    frozenset({("tag", "json"), ("tag", "jsonl")}),
    frozenset({("tag", "audacity"), ("events", "audacity")}),
    frozenset({("tag", "raven"), ("events", "raven")}),
    frozenset({("tag", "table"), ("events", "table")}),
}
FOREIGN = {
    "notes": b"Milk, eggs\n\nCall Ann at 10:30.\n  - and Bob\n",
    "labels of Audacity": b"0.480000\t1.440000\tDog\n",
    "labels of Audacity, edited": b"0.480000\t1.440000\tDog (0.75)\n2.000000\t3.000000\tcat\n",
    "table": b"path,label\na.wav,dog\n",
    "TextGrid": b'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 1 \ntiers? <exists> \n',
    "subtitles": b"WEBVTT\n\n00:00:00.480 --> 00:00:01.440\nHello.\n",
    "JSON": b'{"name": "mine"}\n',
    "list": b'["mine"]\n',
    "recording": wav_bytes(noise(1600)),
    "zip": b"PK\x03\x04",
    "Parquet": b"PAR1PAR1",
}


def written(kind: str, name: str, rows: list[Any] | None = None) -> bytes:
    formats, _, some = KINDS[kind]
    stream = io.BytesIO()
    writer = make_writer(name, stream, formats)
    for row in some if rows is None else rows:
        writer.write(row)
    writer.close()
    return stream.getvalue()


def is_taken(path: Path, data: bytes, is_ours: Callable[[BinaryIO], bool] | None) -> bool:
    path.write_bytes(data)
    try:
        check_output(path, (), is_ours)
    except UsageError as error:
        assert "is there already, and holds something else than this command writes" in str(error)  # noqa: PT017
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_each_format_has_a_recogniser(kind: str) -> None:
    formats, own, _ = KINDS[kind]
    assert list(formats) == list(own)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_a_writer_writes_is_taken_for_its_own(kind: str, name: str, tmp_path: Path) -> None:
    is_ours = KINDS[kind][1][name]
    assert is_taken(tmp_path / "a", written(kind, name), is_ours)
    assert is_taken(tmp_path / "a", written(kind, name, []), is_ours)
    assert is_taken(tmp_path / "a", b"", is_ours)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_what_others_write_is_not(kind: str, name: str, tmp_path: Path) -> None:
    is_ours = KINDS[kind][1][name]
    taken = {what for what, data in FOREIGN.items() if is_taken(tmp_path / "a", data, is_ours)}
    assert taken == set()
    alike = {other for other in CASES if is_taken(tmp_path / "a", written(*other), is_ours)}
    allowed = {(kind, name), *(other for pair in SAME if (kind, name) in pair for other in pair)}
    assert alike == allowed


@pytest.mark.parametrize("name", FOUND_FORMATS)
def test_lists_of_moments_are_recognised(name: str, tmp_path: Path) -> None:
    moments = [Moment("a b.wav", 0.0, 0.96, 0.987), Moment("c.wav", 61.0, 61.96, -0.5)]
    for some in (moments, []):
        assert is_taken(tmp_path / "a", FOUND_FORMATS[name](some).encode(), OWN_FOUND[name])
    assert not [what for what, data in FOREIGN.items() if is_taken(tmp_path / "a", data, OWN_FOUND[name])]


def clips(n: int = 3) -> list[FeatureClip]:
    rng = np.random.default_rng(3)
    return [
        FeatureClip(f"abcdefghij{i}", 30.0, 40.0, (0, 5), rng.integers(0, 256, (10, 128), np.uint8), "eval")
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("name", "to"),
    [("a.parquet", "parquet"), ("a.h5", "hdf5"), ("a.tfrecord", "tfrecord"), ("a.tfrecord", "youtube8m"),
     ("a.tar.gz", "tfrecord"), ("a.tar", "tfrecord")],
)  # fmt: skip
def test_converted_features_are_recognised_and_no_input_is_replaced(name: str, to: str, tmp_path: Path) -> None:
    feature_tfrecord.write(tmp_path / "eval.tfrecord", clips())
    convert(tmp_path / "eval.tfrecord", tmp_path / name, to)
    data = (tmp_path / name).read_bytes()
    is_ours = recogniser(tmp_path / name, to)
    assert is_taken(tmp_path / "b", data, is_ours)
    assert not [what for what, other in FOREIGN.items() if is_taken(tmp_path / "b", other, is_ours)]
    arguments = ["data", "features", "convert", str(tmp_path / "eval.tfrecord"), str(tmp_path / name), "--format", to]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    (tmp_path / name).unlink()
    (tmp_path / name).hardlink_to(tmp_path / "eval.tfrecord")
    failed = CliRunner().invoke(cli, [*arguments, "--overwrite"])
    assert isinstance(failed.exception, UsageError)
    assert "OUTPUT" in str(failed.exception)
    assert "is one of the inputs" in str(failed.exception)


def test_the_released_features_are_not_taken_for_converted_ones(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "released.tar.gz", "w:gz") as archive:
        feature_tfrecord.write(tmp_path / "00.tfrecord", clips())
        archive.add(tmp_path / "00.tfrecord", "audioset_v1_embeddings/eval/00.tfrecord")
    data = (tmp_path / "released.tar.gz").read_bytes()
    assert not is_taken(tmp_path / "a.tar.gz", data, feature_tfrecord.is_written_archive)


def test_lists_of_clips_are_recognised(tmp_path: Path) -> None:
    write_segments(tmp_path / "list.csv", [Segment("abcdefghijk", 0.0, 10.0, ("/m/09x0r",))])
    assert is_taken(tmp_path / "a", (tmp_path / "list.csv").read_bytes(), is_segment_list)
    assert not [what for what, data in FOREIGN.items() if is_taken(tmp_path / "a", data, is_segment_list)]


# inputs


@pytest.mark.parametrize("how", ["itself", "link", "second name", "below a linked folder"])
def test_an_input_is_never_an_output(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    recording = folder / "a.csv"
    recording.write_bytes(written("tag", "csv"))
    target = {"itself": recording, "below a linked folder": tmp_path / "also" / "a.csv"}.get(how, tmp_path / "b.csv")
    if how == "link":
        target.symlink_to(recording)
    elif how == "second name":
        target.hardlink_to(recording)
    elif how == "below a linked folder":
        (tmp_path / "also").symlink_to(folder)
    with pytest.raises(UsageError, match="is one of the inputs, and would be written over"):
        check_output(target, file_ids([recording]), OWN_TAGS["csv"], overwrites=True)


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a.png")
    check_different(plot=tmp_path / "a.png", output=None)
    check_different(plot="-", output="-")
    with pytest.raises(UsageError, match=r"--plot and --output are both .*link\. Next step: name another file"):
        check_different(plot=tmp_path / "a.png", output=tmp_path / "link")


@pytest.mark.parametrize("arguments", [["b.wav"], ["c.txt", "--format", "table", "--thresholds", "c.txt"]])
def test_the_command_refuses_an_input_before_anything_is_opened(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = wav_bytes(noise(16_000))
    Path("b.wav").write_bytes(sound)
    Path("c.txt").write_bytes(b"label,threshold\nDog,0.5\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = "events" if "--thresholds" in arguments else "tag"
    failed = CliRunner().invoke(cli, [name, "b.wav", "-o", *arguments, "--model", "none", "--overwrite"])
    assert isinstance(failed.exception, UsageError), failed.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("option", ["--output", "--plot"])
def test_what_others_wrote_is_replaced_only_when_asked(
    option: str, tmp_path: Path, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_bytes(wav_bytes(noise(16_000)))
    target = Path({"--output": "t.csv", "--plot": "t.svg"}[option])
    target.write_bytes(b"mine")
    arguments = ["tag", "a.wav", option, str(target), "--weights", str(random_checkpoint), "-q", "--workers", "1"]
    failed = CliRunner().invoke(cli, arguments)
    assert isinstance(failed.exception, UsageError)
    assert f"{option} {target} is there already" in str(failed.exception)
    assert target.read_bytes() == b"mine"
    for more in (["--overwrite"], []):  # and then it is its own
        result = CliRunner().invoke(cli, [*arguments, *more], catch_exceptions=False)
        assert result.exit_code == 0
        assert target.read_bytes() != b"mine"


# names


@pytest.mark.parametrize("name", ["tags.xlsx", "tags.pdf", "tags.foo", "tags.csv.gz"])
def test_an_ending_without_a_writer_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"ends in \.\w+, which no format has; expected \.json, \.jsonl, \.csv"):
        choose_format(name, None, TAG_FORMATS)
    assert choose_format(name, "csv", TAG_FORMATS) == "csv"


@pytest.mark.parametrize("name", [None, "-", "tags", "tags.txt", "/dev/null"])
def test_a_name_that_says_nothing_has_the_default(name: str | None) -> None:
    assert choose_format(name, None, TAG_FORMATS) == "table"


def test_the_ending_of_another_command_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--output a\.vtt means webvtt, which this command does not write"):
        choose_format("a.vtt", None, TAG_FORMATS)


@pytest.mark.skipif(sys.platform == "win32", reason="names of bytes")
def test_a_name_that_is_too_long_fails_alone(tmp_path: Path, random_checkpoint: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    long, byte = "x" * 250 + ".wav", os.fsdecode(b"b\xff.wav")
    for name in ("a.wav", byte, long, "z.wav"):
        (folder / name).write_bytes(wav_bytes(noise(16_000)))
    arguments = ["events", str(folder), "--format", "audacity", "-o", f"{tmp_path / 'new' / 'out'}/"]
    result = CliRunner().invoke(cli, [*arguments, "--weights", str(random_checkpoint), "--workers", "1"])
    assert result.exit_code == 0  # what a command returns is its exit code only outside of standalone mode
    assert {path.name for path in (tmp_path / "new" / "out").iterdir()} == {"a.wav.txt", f"{byte}.txt", "z.wav.txt"}
    assert result.output.count("File name too long. Next step: choose a shorter name [output]") == 1
    assert "3 done" in result.output
    assert "1 failed" in result.output


# several processes


def test_moments_accepted_by_eight_processes_are_all_there(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom audioset.search.accepted import append_moments\nfrom audioset.search.moments import Span\n"
        "sys.stdin.read()\n"
        "for i in range(20): append_moments(sys.argv[1], [Span(f'{sys.argv[2]}-{i}.wav', 0.0, 1.0)], 'dog')"
    )
    table = tmp_path / "moments.csv"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(table), str(number)], stdin=subprocess.PIPE)
        for number in range(8)
    ]
    for process in processes:
        process.communicate(timeout=180)
    assert [process.returncode for process in processes] == [0] * 8
    heading, *lines = table.read_text().splitlines()
    assert heading == "path,label,start_s,end_s"
    assert sorted(lines) == sorted(f"{number}-{i}.wav,dog,0,1" for number in range(8) for i in range(20))
    assert list(tmp_path.iterdir()) == [table]
    assert append_moments(table, [Span("0-0.wav", 0.0, 1.0)], "dog") == 0


LONG_S = 4 * 3600
LISTENING = """if True:  # the command, which listens to signals also where the tests were told not to
    import signal
    from audioset.cli import main
    from audioset.stopping import ASKING
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in ASKING:
        signal.signal(number, signal.SIG_DFL)
    main()
"""


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hours of silence, which take longer than any test waits."""
    import soundfile

    path = tmp_path_factory.mktemp("long") / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(LONG_S // 60):
            file.write(np.zeros(16_000 * 60, np.int16))
    return path


@pytest.fixture
def running(long_recording: Path, random_checkpoint: Path, tmp_path: Path) -> Any:
    """A command that is writing ``out.csv``, and how it was called."""
    command = [sys.executable, "-c", LISTENING, "tag", str(long_recording), "--per-patch"]
    command += ["-o", str(tmp_path / "out.csv")]
    command += ["--weights", str(random_checkpoint), "--workers", "1", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    part = tmp_path / ".out.csv.audioset-partial"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size > 200):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process, command
    if process.poll() is None:
        process.kill()
        process.communicate()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_ended(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)


def test_a_second_run_with_one_output_is_refused(running: Any, tmp_path: Path) -> None:
    _, command = running
    second = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert second.returncode == 6
    assert b"another run is writing" in second.stderr
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, *ASKING])
def test_a_signal_ends_a_run_calmly(running: Any, tmp_path: Path, number: int) -> None:
    process, _ = running
    pids = children_of(process.pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors.endswith(b"audioset: stopped\n")
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    assert_ended(pids)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_children_and_what_it_leaves_goes_with_the_next(running: Any, tmp_path: Path) -> None:
    process, command = running
    pids = children_of(process.pid)
    assert pids
    process.kill()
    process.communicate()
    assert_ended(pids)
    assert len(list(tmp_path.iterdir())) == 2
    sound = tmp_path / "a.wav"
    sound.write_bytes(wav_bytes(noise(16_000)))
    again = [str(sound) if part.endswith("long.flac") else part for part in command]
    assert subprocess.run(again, capture_output=True, timeout=120, check=False).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "out.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
def test_a_command_that_was_told_to_ignore_a_signal_does(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from audioset.stopping import stop_when_asked\nstop_when_asked()\n"
        "os.kill(os.getpid(), signal.SIGHUP)\nprint('on')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, b"on")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals on Windows")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_in_a_callback_where_nothing_can_be_raised_is_not_lost(name: str) -> None:
    code = (
        "import os, signal, time, weakref\nfrom audioset.stopping import stop_when_asked\nstop_when_asked()\n"
        f"def back(reference):\n os.kill(os.getpid(), signal.{name})\n for _ in range(1000): pass\n"
        "thing = {1}\nreference = weakref.ref(thing, back)\n"
        "try:\n del thing\n time.sleep(60)\nexcept KeyboardInterrupt: print('stopped')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, b"stopped", b"")


# ---- Names that no disk takes


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        assert found is not None
        yield from commands(found, (*path, name))


NO_FILES = {("listen",), ("doctor",), ("models", "pull"), ("data", "fetch")}  # a microphone, and the network
COMMANDS = {" ".join(path): command for path, command in commands(cli) if path not in NO_FILES}


@pytest.mark.parametrize("line", COMMANDS)
def test_a_name_that_no_disk_takes_is_an_error_of_ours(line: str, tmp_path: Path) -> None:
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "a.wav").write_bytes(wav_bytes(noise(1600)))
    parameters = COMMANDS[line].params
    given = [parameter for parameter in parameters if isinstance(parameter, click.Argument)]
    named = [each for each in parameters if isinstance(each.type, click.Path) or each.name in ("output", "model")]
    for parameter in dict.fromkeys([*given, *named]):
        values = ["m" * 300 if each is parameter else str(tmp_path / "sounds") for each in given]
        options = [] if parameter in given else [parameter.opts[-1], "m" * 300]
        result = CliRunner().invoke(cli, [*line.split(), *values, *options])
        assert isinstance(result.exception, (AudioSetError, SystemExit, type(None))), parameter.name
