"""``audioset listen``: the same events as of a file, from standard input and from a (pretended) microphone."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from sounds import noise, sine, wav_bytes

from audioset import Model
from audioset.cli import cli
from audioset.errors import AudioError, MissingExtraError, UsageError

COMMAND = [sys.executable, "-m", "audioset"]
NAMES = ("start_s", "end_s", "score", "mean")


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *map(str, arguments)], input=stdin, capture_output=True, timeout=120, check=False)


def records_of(output: bytes) -> list[dict]:
    return sorted(map(json.loads, output.splitlines()), key=lambda record: (record["start_s"], record["label"] or ""))


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    """Twenty seconds that change every second, int16."""
    loudness = np.repeat(np.random.default_rng(1).choice([0.0, 0.01, 1.0], 20), 16_000)
    return np.round(noise(20 * 16_000) * loudness * 32_767).astype(np.int16)


@pytest.fixture(scope="module")
def threshold(model: Model, samples: np.ndarray) -> str:
    """A score that some patches of some labels reach."""
    return str(round(float(np.quantile(model.predict(samples, 16_000).scores, 0.97)), 4))


@pytest.fixture
def weights(random_checkpoint: Path) -> list[str]:
    """Options that choose the random weights."""
    return ["--weights", str(random_checkpoint)]


@pytest.mark.parametrize(
    ("encoding", "subtype", "dtype", "rate", "channels"),
    [
        ("s16le", "PCM_16", "<i2", 16_000, 1),
        ("s32le", "PCM_32", "<i4", 22_050, 2),
        ("f32le", "FLOAT", "<f4", 16_000, 2),
    ],
)
def test_raw_samples_have_the_events_of_their_file(
    weights: list[str],
    samples: np.ndarray,
    threshold: str,
    tmp_path: Path,
    encoding: str,
    subtype: str,
    dtype: str,
    rate: int,
    channels: int,
) -> None:
    stereo = np.stack([samples, samples[::-1]], axis=1)[:, :channels].astype(np.float64) / 2**15
    scale = {"<i2": 2**15, "<i4": 2**31, "<f4": 1}[dtype]
    pcm = (stereo * scale).astype(dtype)
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_bytes(pcm, rate, subtype))
    options = [*weights, "--format", "jsonl", "--threshold", threshold, "--low-threshold", threshold, "--median", "3"]
    options += ["--max-gap", "0.5", "--min-duration", "0.5", "--hop", "0.24"]
    raw = ["--sample-rate", str(rate), "--channels", str(channels), "--encoding", encoding]
    expected = run("events", path, *options)
    actual = run("listen", "-", *raw, *options, stdin=pcm.tobytes())
    assert (actual.returncode, actual.stderr) == (0, b"")
    heard, known = records_of(actual.stdout), records_of(expected.stdout)
    assert len(known) > 5
    assert {record.pop("path") for record in heard} == {"-"}
    assert {record.pop("path") for record in known} == {str(path)}
    for ours, theirs in zip(heard, known, strict=True):
        for name in NAMES:
            assert ours.pop(name) == pytest.approx(theirs.pop(name), abs=2e-6)
        assert ours == theirs


def test_an_event_is_written_when_it_ends_and_ctrl_c_ends_those_that_go_on(
    weights: list[str], samples: np.ndarray, threshold: str, tmp_path: Path
) -> None:
    always = tmp_path / "always.csv"
    always.write_text("Speech,0\n")
    options = [*weights, "--format", "jsonl", "--threshold", threshold, "--thresholds", str(always)]
    process = subprocess.Popen(
        [*COMMAND, "listen", "-", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        process.stdin.write(samples.tobytes())
        process.stdin.flush()
        first = json.loads(process.stdout.readline())  # while standard input is still open
        process.send_signal(signal.SIGINT)
        rest = [json.loads(line) for line in process.stdout.read().splitlines()]
        errors = process.stderr.read()
        process.wait(timeout=10)
    assert (process.returncode, errors) == (0, b"")
    assert first["label"] != "Speech"
    (speech,) = (record for record in rest if record["label"] == "Speech")
    assert speech["start_s"] == 0
    assert first["end_s"] < speech["end_s"] <= 20


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no pseudo-terminals")
def test_a_terminal_shows_what_is_heard_at_the_moment(weights: list[str], samples: np.ndarray, tmp_path: Path) -> None:
    always = tmp_path / "always.csv"
    always.write_text("Speech,0\n")
    terminal, end = os.openpty()
    try:
        options = [*weights, "--threshold", "1", "--thresholds", str(always)]
        result = subprocess.run(
            [*COMMAND, "listen", "-", *options],
            input=samples[:48_000].tobytes(),
            stdout=subprocess.PIPE,
            stderr=end,
            timeout=60,
            check=False,
        )
        shown = os.read(terminal, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(end)
    assert result.returncode == 0
    assert "0:00.00–0:03.00" in result.stdout.decode()
    lines = [piece for piece in shown.split("\r") if piece.strip()]
    assert lines
    assert all(line.startswith("  0:0") and len(line) < 80 for line in lines)
    assert shown.endswith(" \r")  # nothing is left of the line
    assert "\x1b" not in shown


def test_a_sample_that_was_cut_costs_a_warning(weights: list[str], samples: np.ndarray) -> None:
    options = [*weights, "--threshold", "1", "--format", "csv"]
    whole = run("listen", "-", *options, stdin=samples[:16_000].tobytes())
    cut = run("listen", "-", *options, stdin=samples[:16_001].tobytes()[:-1])
    assert (whole.returncode, whole.stderr, cut.returncode) == (0, b"", 0)
    assert cut.stdout == whole.stdout
    assert cut.stderr.startswith(b"audioset: warning: -: the stream ends within a sample, whose 1 bytes of 2")
    (row,) = csv.DictReader(io.StringIO(cut.stdout.decode()))
    assert (row["start_s"], row["end_s"], row["label"]) == ("0", "1", "")


@pytest.mark.parametrize(("samples_in", "code"), [(np.zeros(0), "no_samples"), (np.array([0, np.nan]), "non_finite")])
def test_a_stream_that_cannot_be_used_is_a_row_with_an_error(
    weights: list[str], samples_in: np.ndarray, code: str
) -> None:
    data = samples_in.astype("<f4").tobytes()
    result = run("listen", "-", *weights, "--encoding", "f32le", "--format", "jsonl", stdin=data)
    assert result.returncode == 3
    (record,) = records_of(result.stdout)
    assert record["error"]["code"] == code
    assert result.stderr.decode().startswith("audioset: error: -: ")
    assert f"[{code}]" in result.stderr.decode()


def test_the_events_before_a_fault_stay(weights: list[str], samples: np.ndarray, tmp_path: Path) -> None:
    always = tmp_path / "always.csv"
    always.write_text("Speech,0\n")
    options = [*weights, "--threshold", "1", "--thresholds", str(always), "--format", "jsonl", "--encoding", "f32le"]
    data = np.append(samples / np.float32(2**15), np.float32(np.inf)).astype("<f4").tobytes()
    result = run("listen", "-", *options, stdin=data)
    assert result.returncode == 3
    failed, event = sorted(map(json.loads, result.stdout.splitlines()), key=lambda record: record["error"] is None)
    assert failed["error"]["code"] == "non_finite"
    assert (event["label"], event["start_s"]) == ("Speech", 0)
    assert event["end_s"] > 10


class Microphone:
    """Stands for ``sounddevice.InputStream``: gives its sound in blocks, then someone presses Ctrl-C."""

    def __init__(self, sound: np.ndarray, *, breaks: bool = False) -> None:
        self.sound = sound
        self.breaks = breaks
        self.is_open = False
        self.settings: dict[str, object] = {}

    def __call__(self, **settings: object) -> Microphone:
        self.settings = settings
        return self

    def __enter__(self) -> Microphone:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def read(self, n_samples: int) -> tuple[np.ndarray, bool]:
        if not len(self.sound):
            if self.breaks:
                raise LookupError("the cable was pulled")
            signal.raise_signal(signal.SIGINT)
        block, self.sound = self.sound[:n_samples], self.sound[n_samples:]
        return block, len(self.sound) == 0


def pretend_sounddevice(monkeypatch: pytest.MonkeyPatch, microphone: Microphone) -> None:
    """Put a module in the place of ``sounddevice``: there is no microphone where tests run."""
    module = ModuleType("sounddevice")

    def query_devices(device: int | str | None, kind: str) -> dict[str, float]:
        if device not in (None, 3):
            raise ValueError(f"No {kind} device matching {device!r}")
        return {"default_samplerate": 32_000.0}

    vars(module).update(InputStream=microphone, query_devices=query_devices, PortAudioError=LookupError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.fixture
def sound(samples: np.ndarray) -> np.ndarray:
    """What the microphone hears: float32 (n, 1) at 32 kHz."""
    return (np.repeat(samples[: 5 * 16_000], 2) / np.float32(2**15)).reshape(-1, 1)


@pytest.fixture
def shell(random_checkpoint: Path) -> Iterator[SimpleNamespace]:
    """Runs the command in this process, where the pretended microphone is."""
    before = signal.getsignal(signal.SIGINT)
    options = ["--weights", str(random_checkpoint), "--format", "jsonl"]

    def listen(*arguments: str) -> tuple[int | None, list[dict], str]:
        result = CliRunner().invoke(
            cli, ["listen", *options, *arguments], standalone_mode=False, catch_exceptions=False
        )
        return result.return_value, records_of(result.stdout_bytes), result.stderr

    yield SimpleNamespace(listen=listen)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_a_microphone_hears_has_the_events_of_its_samples(
    monkeypatch: pytest.MonkeyPatch, shell: SimpleNamespace, model: Model, sound: np.ndarray
) -> None:
    microphone = Microphone(sound)
    pretend_sounddevice(monkeypatch, microphone)
    prediction = model.predict(sound, 32_000)
    threshold = round(float(np.quantile(prediction.scores, 0.97)), 4)
    code, records, errors = shell.listen("--device", "3", "--threshold", str(threshold))
    assert code == 0
    assert microphone.settings == {"device": 3, "samplerate": 32_000, "channels": 1, "dtype": "float32"}
    assert not microphone.is_open
    expected = sorted(prediction.events(threshold), key=lambda event: (event.start_s, event.label))
    assert len(expected) > 5
    assert [record["label"] for record in records] == [event.label for event in expected]
    for name in NAMES:
        assert [record[name] for record in records] == pytest.approx(
            [getattr(event, name) for event in expected], abs=2e-6
        )
    assert "audioset: listening at 32,000 Hz; Ctrl-C ends" in errors
    assert "samples were lost" in errors
    assert {record["path"] for record in records} == {"microphone"}


def test_ctrl_c_before_the_first_sample_is_no_error(monkeypatch: pytest.MonkeyPatch, shell: SimpleNamespace) -> None:
    pretend_sounddevice(monkeypatch, Microphone(np.zeros((0, 1), np.float32)))
    code, (record,), _ = shell.listen()
    assert (code, record["label"], record["error"]) == (0, None, None)


def test_a_microphone_that_fails_ends_with_an_error(
    monkeypatch: pytest.MonkeyPatch, shell: SimpleNamespace, sound: np.ndarray
) -> None:
    microphone = Microphone(sound, breaks=True)
    pretend_sounddevice(monkeypatch, microphone)
    code, records, errors = shell.listen("--threshold", "1", "--sample-rate", "48000")
    assert (code, microphone.settings["samplerate"]) == (3, 48_000)
    assert records[-1]["error"]["code"] == "unreadable"
    assert "the microphone cannot be used: the cable was pulled. Next step: python -m sounddevice" in errors


def test_a_microphone_that_is_not_there_is_said_before_the_model_loads(
    monkeypatch: pytest.MonkeyPatch, shell: SimpleNamespace
) -> None:
    pretend_sounddevice(monkeypatch, Microphone(sine(440, 16_000, 1)))
    with pytest.raises(AudioError, match="No input device matching 'kitchen'"):
        shell.listen("--device", "kitchen", "--model", "no-such-model")


def test_a_missing_sounddevice_names_the_extra(monkeypatch: pytest.MonkeyPatch, shell: SimpleNamespace) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r'pip install "audioset\[listen\]"'):
        shell.listen()


def test_labels_that_the_model_does_not_have_are_refused(shell: SimpleNamespace, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("Unheard of,0.5\n")
    with pytest.raises(UsageError, match=r"--thresholds .*t\.csv: .*Unheard of"):
        shell.listen("-", "--thresholds", str(table))


def test_files_and_models_that_only_embed_are_refused(vggish_folder: Path) -> None:
    for arguments, message in (
        (["street.wav"], b"street.wav is not -; files are for: audioset events street.wav"),
        (["-", "--model", vggish_folder], b"only embeds: it has no scores"),
    ):
        result = run("listen", *arguments)
        assert (result.returncode, result.stdout) == (2, b"")
        assert message in result.stderr
