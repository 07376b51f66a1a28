"""Many files: order, batches across files, and decoders that fail in every way."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from processes import children_of, python_that
from sounds import noise, sine, wav_bytes

from audioset import Limits, Model
from audioset.audio import child
from audioset.errors import EngineError, UsageError
from audioset.frontend.cutting import SLAB_PATCHES
from audioset.runs import batch
from audioset.runs.batch import predict_parts, tag_files

FAULTS = Path(__file__).parents[1] / "faults"
IMPATIENT = Limits(worker_stall_s=1.5)


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """Nine sounds of different lengths and rates."""
    paths = []
    for index, (seconds, rate) in enumerate(itertools.product((0.3, 2.0, 40.0), (8_000, 16_000, 44_100))):
        path = tmp_path / f"{index}.wav"
        path.write_bytes(wav_bytes(noise(round(seconds * rate), seed=index), rate))
        paths.append(str(path))
    return paths


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in which files with telling names fail."""
    monkeypatch.syspath_prepend(str(FAULTS))


def write_sound(folder: Path, name: str, seconds: float = 1.0) -> str:
    path = folder / name
    path.write_bytes(wav_bytes(sine(440, 16_000, seconds)))
    return str(path)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_results_equal_single_files_in_order(model: Model, recordings: list[str], n_workers: int) -> None:
    results = list(tag_files(recordings, model, n_workers=n_workers))
    assert [result.path for result in results] == recordings
    for result in results:
        expected = model.predict_file(result.path)
        assert result.error is None
        np.testing.assert_array_equal(result.prediction.log_mel, expected.log_mel)
        np.testing.assert_allclose(result.prediction.scores, expected.scores, atol=2e-6)
        np.testing.assert_allclose(result.prediction.embeddings, expected.embeddings, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(result.prediction.start_s, expected.start_s)
        assert result.prediction.duration_s == expected.duration_s


def test_hop_is_passed_to_workers(model: Model, recordings: list[str]) -> None:
    (result,) = tag_files(recordings[5:6], model, hop_s=0.1)
    expected = model.predict_file(recordings[5], hop_s=0.1)
    np.testing.assert_array_equal(result.prediction.start_s, expected.start_s)
    np.testing.assert_allclose(result.prediction.scores, expected.scores, atol=2e-6)


def test_hop_is_checked_before_anything_starts(model: Model) -> None:
    with pytest.raises(UsageError, match=r"hop_s is 0\.123"):
        next(tag_files(["x.wav"], model, hop_s=0.123))


def test_no_files_give_no_results(model: Model) -> None:
    assert list(tag_files([], model)) == []


def test_bad_files_cost_one_row_each(model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no sound\n")
    (tmp_path / "nan.wav").write_bytes(wav_bytes(np.full(999, np.nan, np.float32), subtype="FLOAT"))
    names = ["good.wav", "missing.wav", "empty.wav", "text.wav", "nan.wav", "also_good.wav"]
    for name in ("good.wav", "also_good.wav"):
        write_sound(tmp_path, name)
    results = list(tag_files([tmp_path / name for name in names], model))
    codes = [result.error.code if result.error else None for result in results]
    assert codes == [None, "unreadable", "empty_file", "not_audio", "non_finite", None]
    np.testing.assert_array_equal(results[0].prediction.scores, results[-1].prediction.scores)


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("segfault", "worker_died", "SIGSEGV"),
        ("abort", "worker_died", "SIGABRT"),
        ("killed", "worker_died", "SIGKILL"),
        ("exit", "worker_died", "status 7"),
        ("sleep", "timeout", "delivered nothing for 1.5 s"),
        ("spin", "timeout", "1.5 s"),
        ("allocate", "out_of_memory", "--worker-memory-mb"),
        ("unforeseen", "decode_failed", "RuntimeError: a bug in a decoder"),
    ],
)
@pytest.mark.usefixtures("faults")
def test_a_failing_decoder_costs_its_file(model: Model, tmp_path: Path, fault: str, code: str, message: str) -> None:
    names = ["a.wav", f"{fault}.wav", "b.wav", "c.wav"]
    paths = [write_sound(tmp_path, name) for name in names]
    results = list(tag_files(paths, model, limits=IMPATIENT, n_workers=2))
    assert [result.path for result in results] == paths
    assert [result.error is None for result in results] == [True, False, True, True]
    assert results[1].error.code == code
    assert message in str(results[1].error)


@pytest.mark.usefixtures("faults")
def test_many_faults_in_one_run(model: Model, tmp_path: Path) -> None:
    kinds = ["segfault", "abort", "exit", "allocate"]
    names = [f"{index}{kinds[index % 4] if index % 3 == 0 else 'good'}.wav" for index in range(24)]
    results = list(tag_files([write_sound(tmp_path, name) for name in names], model, n_workers=2))
    assert [result.error is not None for result in results] == [index % 3 == 0 for index in range(24)]
    good = [result.prediction.scores for result in results if result.prediction]
    assert len(good) == 16
    for scores in good:
        np.testing.assert_allclose(scores, good[0], atol=2e-6)


@pytest.mark.usefixtures("faults")
def test_decoders_cannot_write_to_the_terminal(model: Model, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    (result,) = tag_files([write_sound(tmp_path, "chatter.wav")], model)
    assert result.error is None
    assert capfd.readouterr() == ("", "")


def test_a_later_long_file_waits_for_the_first(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recordings: list[str]
) -> None:
    """With room for hardly any results, the order still holds and nothing is lost."""
    monkeypatch.setattr(batch, "BUFFER_BYTES", 1)
    long = write_sound(tmp_path, "long.wav", seconds=150)
    paths = [long, *recordings, long]
    results = list(tag_files(paths, model, n_workers=2))
    assert [result.path for result in results] == paths
    np.testing.assert_allclose(results[0].prediction.scores, results[-1].prediction.scores, atol=2e-6)


def test_parts_of_a_file_follow_each_other(model: Model, tmp_path: Path) -> None:
    path = write_sound(tmp_path, "long.wav", seconds=70)
    parts = list(predict_parts([path], model))
    n_slabs = -(-146 // SLAB_PATCHES)
    assert [part.is_last for part in parts] == [False] * n_slabs + [True]
    starts = np.concatenate([part.prediction.start_s for part in parts[:-1]])
    np.testing.assert_allclose(starts, 0.48 * np.arange(len(starts)))


def test_workers_are_renewed(model: Model, recordings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "JOBS_PER_PROCESS", 2)
    results = list(tag_files(recordings, model, n_workers=1))
    assert [result.error for result in results] == [None] * len(recordings)


def test_abandoned_run_leaves_no_process(model: Model, recordings: list[str]) -> None:
    before, others = threading.active_count(), children_of(os.getpid())
    results = tag_files(recordings, model, n_workers=2)
    next(results)
    children = children_of(os.getpid()) - others
    assert children
    results.close()
    assert not children & children_of(os.getpid())
    assert threading.active_count() <= before


def test_broken_installation_is_an_error_of_the_run(
    model: Model, recordings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, "echo no libraries >&2; exit 1"))
    message = r"the decoding process cannot start: .*python3 ended with status 1 \(no libraries\)"
    with pytest.raises(EngineError, match=message):
        list(tag_files(recordings, model))


def test_a_worker_that_dies_while_it_starts_is_started_once_more(
    model: Model, recordings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'[ -e {tmp_path}/seen ] || {{ touch {tmp_path}/seen; exit 1; }}; exec {sys.executable} "$@"'
    monkeypatch.setattr(sys, "executable", python_that(tmp_path, script))
    assert [result.error for result in tag_files(recordings, model, n_workers=1)] == [None] * len(recordings)
    assert (tmp_path / "seen").exists()


def test_worker_ends_with_its_parent() -> None:
    command = [sys.executable, "-c", "from audioset.runs.worker import main; main()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdin.close()
        assert worker.wait(timeout=20) == 0


def test_names_of_any_bytes(model: Model, tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9 \xff.wav"), "new\nline.wav", "-dash.wav", "[bold]=1+1.wav"]
    paths = [write_sound(tmp_path, name) for name in names]
    results = list(tag_files(paths, model))
    assert [(result.path, result.error) for result in results] == [(path, None) for path in paths]
