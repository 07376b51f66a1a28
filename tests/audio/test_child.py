"""Processes that decode: how they start, what they import, when they are stalled, and where they are used."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from labelled import write_folders
from processes import python_that
from sounds import noise, sine, wav_bytes

import audioset
from audioset import Model, load_model
from audioset.audio import child, interpreter
from audioset.audio.child import Child, StallClock
from audioset.audio.interpreter import find_interpreter
from audioset.audio.isolation import IsolatedAudio
from audioset.audio.limits import Limits
from audioset.dataset.download.cutter import Cutter
from audioset.errors import AudioError, EngineError, MissingExtraError, UsageError
from audioset.networks.ops import Outputs
from audioset.search.example import embed_example
from audioset.sounds.measuring import measure_files

SOURCE = Path(audioset.__file__).parents[1]
TESTS = Path(__file__).parents[1]
SHADOWS = ("signal", "json", "numpy", "subprocess", "soundfile", "typing_extensions", "sitecustomize")
COMMAND = [sys.executable, "-c", "from audioset.cli import main; main()"]


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    path.write_bytes(wav_bytes(sine(440, 16_000, seconds)))
    return path


# ---- Nothing from the current folder


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a sound beside modules that would leave a mark if they were imported."""
    mark = f"open({str(tmp_path / 'EXECUTED')!r}, 'w').close()\nraise SystemExit(9)\n"
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(mark)
    (tmp_path / "audioset").mkdir()
    (tmp_path / "audioset" / "__init__.py").write_text(mark)
    write_sound(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CHILDREN: dict[str, Callable[[Path, Model], object]] = {
    "tag": lambda path, model: next(audioset.tag_files([path], model)).require(),
    "check": lambda path, model: measure_files([(path, [])])[0].duration_s,
    "cut": lambda path, model: _cut(path),
    "clip": lambda path, model: sum(map(len, IsolatedAudio(path, 16_000, Limits(max_channels=63)).blocks())),
}


def _cut(path: Path) -> float:
    with Cutter() as cutter:
        return cutter.duration_of(path)


@pytest.mark.parametrize("kind", CHILDREN)
@pytest.mark.parametrize("first", [True, False])
def test_no_child_imports_from_the_current_folder(
    traps: Path, model: Model, monkeypatch: pytest.MonkeyPatch, kind: str, first: bool
) -> None:
    entry = "" if first else str(traps)
    monkeypatch.setattr(sys, "path", [entry, *sys.path])  # as with python -c, and with python -m
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", str(traps)]))
    monkeypatch.setenv("PYTHONSTARTUP", str(traps / "signal.py"))
    monkeypatch.setenv("PYTHONINSPECT", "1")
    assert CHILDREN[kind](traps / "a.wav", model)
    assert not (traps / "EXECUTED").exists()


@pytest.mark.usefixtures("assets_folder")
def test_the_command_imports_nothing_from_the_current_folder(traps: Path) -> None:
    (traps / "bin").mkdir()
    script = traps / "bin" / "audioset"  # as pip writes it
    script.write_text("import sys\nfrom audioset.cli import main\nsys.exit(main())\n")
    done = run([sys.executable, str(script), "tag", "a.wav", "--quiet"], traps)
    assert done.returncode == 0, done.stderr
    assert not (traps / "EXECUTED").exists()


@pytest.mark.usefixtures("assets_folder")
def test_run_as_a_module_it_imports_nothing_more_from_the_current_folder(traps: Path) -> None:
    shutil.rmtree(traps / "audioset")  # which Python itself would take; and what it needs to find the package
    for name in ("typing_extensions", "signal", "sitecustomize"):
        (traps / f"{name}.py").unlink()
    done = run([sys.executable, "-m", "audioset", "tag", "a.wav", "--quiet"], traps)
    assert done.returncode == 0, done.stderr
    assert not (traps / "EXECUTED").exists()


def test_a_package_in_the_current_folder_is_found_behind_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(SOURCE)
    monkeypatch.setattr(sys, "path", [str(SOURCE), *(path for path in sys.path if path != str(SOURCE))])
    assert interpreter._import_path()[-1] == str(SOURCE)
    assert measure_files([(write_sound(tmp_path / "a.wav"), [])])[0].duration_s == 1


def test_what_is_above_a_link_is_above_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place" / "inner").mkdir(parents=True)
    write_sound(tmp_path / "place" / "a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "place" / "inner")
    monkeypatch.chdir(tmp_path)
    assert measure_files([(Path("link/../a.wav"), [])])[0].duration_s == 1


def test_children_start_from_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (SOURCE / "audioset").rglob("*"):
            if "__pycache__" not in path.parts and "bundled" not in path.parts:
                file.write(path, path.relative_to(SOURCE))
    write_sound(tmp_path / "a.wav")
    script = (
        "import sys; sys.path[:] = [sys.argv[1], *(p for p in sys.path if p and p != sys.argv[2])]; import audioset\n"
        "from pathlib import Path; from audioset.sounds.measuring import measure_files\n"
        "print(audioset.__file__, measure_files([(Path('a.wav').absolute(), [])])[0].duration_s)"
    )
    done = run([sys.executable, "-c", script, str(archive), str(SOURCE)], tmp_path, PYTHONPATH="")
    assert done.stdout.split() == [str(archive / "audioset" / "__init__.py"), "1.0"], done.stderr


# ---- Closed descriptors

CLOSED = ["".join(kinds) for n in (1, 2, 3) for kinds in itertools.combinations("012", n)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.usefixtures("assets_folder")
@pytest.mark.parametrize("closed", CLOSED)
def test_commands_work_with_closed_descriptors(tmp_path: Path, closed: str) -> None:
    write_sound(tmp_path / "a.wav")
    write_folders(tmp_path / "sounds", {"cat": 2, "dog": 2})
    redirections = " ".join(f"{number}{'<' if number == '0' else '>'}&-" for number in closed)
    cut = (
        "from pathlib import Path; from audioset.dataset.download.cutter import Cutter\n"
        "with Cutter() as cutter: raise SystemExit(round(cutter.duration_of(Path('a.wav'))) - 1)"
    )
    commands = {
        (*COMMAND, "tag", "a.wav", "-q", "--format", "csv", "-o", "out.csv"): 0,
        (*COMMAND, "train", "check", "sounds", "-q"): 7 if "1" in closed else 0,  # its report goes there
        (sys.executable, "-c", cut): 0,
    }
    for command, expected in commands.items() if len(closed) != 2 else [*commands.items()][:1]:
        done = run(["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *command], tmp_path)
        assert done.returncode == expected, done.stderr
    assert (tmp_path / "out.csv").read_text().count("\n") == 6


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.usefixtures("assets_folder")
def test_results_for_a_closed_output_are_an_error(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav")
    done = run(["/bin/sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "tag", "a.wav", "-q"], tmp_path)
    assert done.returncode == 7
    assert done.stderr.endswith(
        "audioset: cannot write standard output: Bad file descriptor. Next step: choose another place\n"
    )


# ---- The interpreter


@pytest.mark.parametrize("executable", ["/usr/sbin/uwsgi", "", None, "/nowhere/python3"])
def test_decoding_works_where_the_executable_is_not_python(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    (result,) = audioset.tag_files([write_sound(tmp_path / "a.wav")], model, n_workers=1)
    assert result.error is None


def test_without_any_interpreter_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prefix", "exec_prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", "/usr/sbin/uwsgi")
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    monkeypatch.setattr(interpreter.sysconfig, "get_config_var", lambda name: None)
    with pytest.raises(EngineError, match=r"sys.executable is '/usr/sbin/uwsgi', .* Next step: set sys.executable"):
        find_interpreter()


def test_a_child_that_dies_while_it_starts_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'[ -e {tmp_path}/seen ] || {{ touch {tmp_path}/seen; exit 1; }}; exec {sys.executable} "$@"'
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, script))
    path = write_sound(tmp_path / "a.wav")
    for kind in ("check", "cut", "clip"):
        (tmp_path / "seen").unlink(missing_ok=True)
        child_of = CHILDREN[kind] if kind != "clip" else _clip_of_its_own
        assert child_of(path, None)
        assert (tmp_path / "seen").exists()


def _clip_of_its_own(path: Path, model: object) -> int:
    return sum(map(len, IsolatedAudio(path, 16_000, Limits(max_channels=62)).blocks()))


# ---- Stalls


class _Clock:
    """Time that a test sets, and waits that the system reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.waited: float | None = 0.0
        monkeypatch.setattr(child.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(child, "_waited_s", lambda pid: self.waited)


def looks(clock: StallClock, times: _Clock, seconds: float, share: float) -> Iterator[bool]:
    """Look ten times a second, while a child waits for a processor during a share of the time."""
    for _ in range(round(seconds * 10)):
        times.now += 0.1001
        if times.waited is not None:
            times.waited += 0.1001 * share
        yield clock.has_run_out()


@pytest.mark.parametrize(
    ("share", "seconds", "runs_out"), [(0.0, 1.9, False), (0.0, 2.3, True), (0.9, 15.0, False), (1.0, 60.0, False)]
)
def test_a_child_that_waits_for_a_processor_is_not_stalled(
    monkeypatch: pytest.MonkeyPatch, share: float, seconds: float, runs_out: bool
) -> None:
    times = _Clock(monkeypatch)
    clock = StallClock(1, 2.0)
    assert any(looks(clock, times, seconds, share)) == runs_out


def test_a_wait_that_is_reported_when_it_is_over_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = _Clock(monkeypatch)
    clock = StallClock(1, 2.0)
    assert not any(looks(clock, times, 1.8, 0.0))
    times.waited = 1.8
    assert not any(looks(clock, times, 1.8, 0.0))


def test_a_parent_that_did_not_look_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    times = _Clock(monkeypatch)
    times.waited = None  # a system that does not say
    clock = StallClock(1, 2.0)
    clock.has_run_out()
    times.now += 3600  # stopped, or asleep
    assert not clock.has_run_out()
    assert any(looks(clock, times, 1.5, 0.0))


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not say how long one waited")
def test_waits_are_read_from_the_system() -> None:
    assert child._waited_s(os.getpid()) >= 0
    assert child._waited_s(2**22 + 1) is None


def test_a_child_that_says_it_is_alive_is_not_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signs.py").write_text(
        "import os, time\n"
        "from audioset.audio.answering import serve\n"
        "def answer(limits, send, word, path):\n"
        "    for _ in range(8): time.sleep(0.25); send('alive')\n"
        "    return {'said': word, 'path': path, 'pid': os.getpid()}\n"
        "def main(): serve(answer)\n"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path / "elsewhere")
    patient = Child("signs", Limits(worker_stall_s=1.5))
    ((first, _),) = patient.ask("first", Path("x"))
    assert (first["said"], first["path"]) == ("first", str(tmp_path / "elsewhere" / "x"))
    assert [fields["pid"] for fields, _ in patient.ask("second", None)] == [first["pid"]]  # it is kept
    patient.close()
    with pytest.raises(EngineError, match="the decoding process was stopped"):
        next(patient.ask("third", None))


# ---- Decoding in a process of its own


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Children in which files with telling names fail, and none that were started before."""
    monkeypatch.syspath_prepend(str(TESTS / "faults"))
    monkeypatch.setattr(child, "_idle", {})
    yield
    child._end_all()


@pytest.mark.usefixtures("faults")
@pytest.mark.parametrize(
    ("fault", "code"), [("segfault", "worker_died"), ("unforeseen", "decode_failed"), ("sleep", "timeout")]
)
def test_an_example_that_crashes_its_decoder_is_an_error(model: Model, tmp_path: Path, fault: str, code: str) -> None:
    path = write_sound(tmp_path / f"{fault}.wav")
    with pytest.raises(AudioError, match="the example") as caught:
        embed_example(model, path, limits=Limits(worker_stall_s=1.0))
    assert caught.value.code == code


def test_isolated_audio_is_that_of_this_process(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.wav"
    data = wav_bytes(noise(22_050 * 70), 22_050)
    path.write_bytes(data[:-1000])
    blocks = list(IsolatedAudio(path, 16_000).blocks())
    waveform, _ = audioset.read_audio(path, sample_rate=16_000, mono=True)
    np.testing.assert_array_equal(np.concatenate(blocks), waveform)
    caplog.clear()  # read_audio says it as well
    with caplog.at_level(logging.WARNING):
        parts = list(model.predict_blocks(path, isolated=True))
        expected = list(model.predict_blocks(path))
    np.testing.assert_array_equal(parts[-1].log_mel, expected[-1].log_mel)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0] == messages[1]
    some = np.concatenate(list(IsolatedAudio(path, 16_000, n_samples=1000).blocks()))
    assert 1000 <= len(some) < len(waveform)
    np.testing.assert_array_equal(some, waveform[: len(some)])


def test_a_process_that_is_kept_follows_to_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.wav").write_bytes(wav_bytes(noise(16_000), 16_000))
        monkeypatch.chdir(tmp_path / name)
        assert sum(len(block) for block in IsolatedAudio(f"{name}.wav", 16_000).blocks()) == 16_000


# ---- Scores that are no numbers


class _Broken:
    """An engine whose scores, or embeddings, of loud patches are not finite."""

    def __init__(self, model: Model, name: str, value: float) -> None:
        self.name, self.n_threads = model.engine.name, model.engine.n_threads
        self._engine, self._output, self._value = model.engine, name, value

    def __call__(self, *inputs: np.ndarray) -> Outputs:
        outputs = self._engine(*inputs)
        is_loud = inputs[0].reshape(len(inputs[0]), -1).max(axis=1) > 0
        getattr(outputs, self._output)[is_loud, 3] = self._value
        return outputs


@pytest.mark.parametrize(("output", "value"), [("scores", np.nan), ("scores", -np.inf), ("embeddings", np.inf)])
def test_scores_that_are_no_numbers_are_an_error_of_their_file(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, value: float
) -> None:
    monkeypatch.setattr(model, "engine", _Broken(model, output, value))
    quiet, loud = tmp_path / "quiet.wav", tmp_path / "loud.wav"
    quiet.write_bytes(wav_bytes(np.zeros(32_000, np.float32)))
    loud.write_bytes(wav_bytes(noise(16_000 * 130)))
    results = list(audioset.tag_files([quiet, loud, quiet], model, n_workers=2))
    assert [result.error and result.error.code for result in results] == [None, "not_finite", None]
    for call in (
        lambda: model.predict(noise(32_000), 16_000),
        lambda: model.predict_file(loud),
        lambda: model.stream(16_000).push(noise(32_000)),
        lambda: embed_example(model, loud),
    ):
        with pytest.raises(AudioError, match=f"the network's {output} .*are not finite numbers") as caught:
            call()
        assert caught.value.code == "not_finite"


# ---- After a fork, and in other processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_a_model_after_a_fork_works_or_says_what_to_do(random_checkpoint: Path, tmp_path: Path, engine: str) -> None:
    if engine != "openvino":
        pytest.importorskip(engine)
    script = (
        "import os, sys, numpy as np, audioset\n"
        "def predict(model): return model.stream(16000).push(np.zeros(32000, np.float32))[0].scores\n"
        "def load(): return audioset.load_model('yamnet', weights=sys.argv[1], engine=sys.argv[2], n_threads=2)\n"
        "model = load(); expected = predict(model)\n"
        "def try_it(make):\n"
        "    try: return str(np.array_equal(predict(make()), expected))\n"
        "    except audioset.AudioSetError as error: return f'{error.code} {error}'\n"
        "pid = os.fork()\n"
        "if pid == 0: print(try_it(lambda: model), try_it(load), sep='\\n', flush=True); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(np.array_equal(predict(model), expected))\n"
    )
    done = run([sys.executable, "-c", script, str(random_checkpoint), engine], tmp_path)
    used, loaded, parent = done.stdout.splitlines()
    assert parent == "True"
    if engine == "onnxruntime":
        assert used == loaded == "True"
    else:
        assert used == loaded
        assert used.startswith("forked this process was forked from one that had used")
        assert "load models after the fork" in used


def test_a_pickled_model_is_loaded_again(
    model: Model, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(model)
    assert len(data) < 1000
    monkeypatch.chdir(random_checkpoint.parent)
    copy = pickle.loads(data)
    assert copy.engine.n_threads == 2
    waveform = noise(16_000)
    np.testing.assert_array_equal(copy.predict(waveform, 16_000).scores, model.predict(waveform, 16_000).scores)
    by_relative_path = load_model("yamnet", weights=random_checkpoint.name, n_threads=1)
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(by_relative_path)).card == model.card


def test_a_pickled_head_is_loaded_again() -> None:
    head = load_model("vggish-audioset527", n_threads=1)
    copy = pickle.loads(pickle.dumps(head))
    embeddings = np.full((10, 128), 99, np.uint8)
    np.testing.assert_array_equal(copy.predict_embeddings(embeddings), head.predict_embeddings(embeddings))


def test_a_model_that_nobody_loaded_says_so(model: Model) -> None:
    made = Model(model.card, model.folder, model.engine)
    with pytest.raises(UsageError, match=r"cannot be sent to another process. Next step: load it with"):
        pickle.dumps(made)


def test_results_and_errors_can_be_pickled(model: Model, tmp_path: Path) -> None:
    results = list(audioset.tag_files([write_sound(tmp_path / "a.wav"), tmp_path / "missing.wav"], model))
    first, second = pickle.loads(pickle.dumps(results))
    np.testing.assert_array_equal(first.prediction.scores, results[0].prediction.scores)
    assert (second.error.code, str(second.error)) == ("unreadable", str(results[1].error))
    for error in (EngineError("a", code="b"), MissingExtraError("a plot", "matplotlib", "plot")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.code) == (type(error), str(error), error.code)


def test_representations_are_short(model: Model, tmp_path: Path) -> None:
    (result,) = audioset.tag_files([write_sound(tmp_path / "a.wav")], model)
    head = load_model("vggish-audioset527", n_threads=1)
    values = (model, head, result, result.prediction, model.labels, audioset.Ontology.load(), head.calibration)
    assert max(len(repr(value)) for value in values) < 400
    assert repr(model) == "<Model of yamnet with 521 labels, 16,000 Hz, openvino>"
    assert repr(model.labels).startswith("<LabelSet of 521 labels: 'Speech', ")
    assert repr(result).startswith(f"<Result of {tmp_path}/a.wav: <Prediction of 2 patches in 1.00 s, ")


# ---- Nothing gets out

WATCH = """
import os, sys
def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        with open(os.environ["SEEN"], "a") as file: file.write(f"{event} {args[1:]}\\n")
sys.addaudithook(note)
"""


@pytest.mark.usefixtures("assets_folder")
def test_commands_open_no_connection_and_write_nothing_at_home(tmp_path: Path) -> None:
    home, hooks = tmp_path / "home", tmp_path / "hooks"
    home.mkdir()
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH)
    sound = str(write_sound(tmp_path / "a.wav"))
    environment = {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "SEEN": str(tmp_path / "seen"),
        "AUDIOSET_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join([str(hooks), str(SOURCE)]),
        "CI": "",
    }
    for command in (["tag", sound], ["embed", sound, "-o", str(tmp_path / "out.npz")], ["doctor"]):
        done = run([*COMMAND, *command], tmp_path, **environment)
        assert done.returncode in (0, 1), done.stderr
    connect = "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('127.0.0.1', 9))"
    assert list(home.rglob("*")) == []
    assert not (tmp_path / "seen").exists()
    run([sys.executable, "-c", connect], tmp_path, **environment)
    assert (tmp_path / "seen").read_text().startswith("socket.connect")  # the hook does see


def test_openvino_is_imported_in_one_place() -> None:
    found = [
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "audioset").rglob("*.py")
        if any(line.strip().startswith(("import openvino", "from openvino")) for line in path.read_text().splitlines())
    ]
    assert found == ["audioset/executors/openvino.py"]


MODELS_THAT_GO = """
import os, signal, sys
from audioset import load_model
models = [load_model("yamnet", weights=sys.argv[1], n_threads=n) for n in (1, 2, 1)]
while models:
    del models[0]  # the first one first
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_models_are_gone_is_no_crash(random_checkpoint: Path, tmp_path: Path) -> None:
    done = run([sys.executable, "-c", MODELS_THAT_GO, str(random_checkpoint)], tmp_path)
    assert (done.returncode, done.stdout) == (0, "asked to stop\n"), done.stderr
