"""Runs of heads that are stopped and go on bit for bit, and runs in several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from head_runs import Killed, assert_same_weights, kill_at, lines_of, make_clips, weights_of
from processes import ask_to_stop, torchrun

from audioset.dataset.features.folder import write
from audioset.errors import ConflictError, DataError, UsageError
from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME

torch = pytest.importorskip("torch")

from audioset.train import train  # noqa: E402
from audioset.train.checkpoint import CHECKPOINTS, METRICS_NAME  # noqa: E402
from audioset.train.distributed import Processes  # noqa: E402
from audioset.train.heads import training  # noqa: E402

ALONE = Processes(0, 1, torch.device("cpu"))
EVERYTHING = {
    "head": "two-branch",  # it has batch norms and dropout
    "head_arguments": {"n_frame": 64, "n_clip": 32, "n_attention": 32},
    "whole_batches": True,
    "batch_size": 8,
    "n_iterations": 7,
    "ema": 0.9,
    "mixup": 0.5,
    "holdout": 0.2,
    "schedule": "one-cycle",
    "precision": "bf16",
    "average": "scores",
    "average_every": 2,
}


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_run_that_was_stopped_ends_with_the_same_bits(config, tmp_path_factory, tmp_path, stop):
    config = replace(config, **EVERYTHING)
    whole = tmp_path_factory.getbasetemp() / "whole"  # once for all
    train(config, whole)
    with pytest.raises(Killed, match="killed"):
        train(config, tmp_path / "run", kill_at(stop))
    train(config, tmp_path / "run")
    assert_same_weights(weights_of(whole), weights_of(tmp_path / "run"))
    assert lines_of(whole) == lines_of(tmp_path / "run")
    assert (whole / CARD_NAME).read_bytes() == (tmp_path / "run" / CARD_NAME).read_bytes()


def test_a_damaged_checkpoint_is_passed_over(config, tmp_path, caplog):
    train(config, tmp_path / "whole")
    with pytest.raises(Killed, match="killed"):
        train(config, tmp_path / "run", kill_at(5))
    old, new = sorted((tmp_path / "run" / CHECKPOINTS).iterdir())
    new.write_bytes(new.read_bytes()[:1000])
    train(config, tmp_path / "run")
    assert "going on with the one before" in caplog.text
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))
    for path in (old, new):
        path.write_bytes(b"")
    (tmp_path / "run" / CARD_NAME).unlink()
    for path in (tmp_path / "run" / CHECKPOINTS).iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the checkpoints"):
        train(config, tmp_path / "run")


def test_the_last_two_checkpoints_are_kept_and_nothing_else_lies_about(config, tmp_path):
    train(config, tmp_path / "run")
    names = sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*"))
    checkpoints = [f"{CHECKPOINTS}/00000000{i}.safetensors" for i in (4, 6)]
    assert names == sorted([CHECKPOINTS, *checkpoints, METRICS_NAME, CARD_NAME, WEIGHTS_NAME, "run.toml"])


def test_a_finished_run_is_not_trained_again(config, tmp_path):
    result = train(config, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train(config, tmp_path / "run", kill_at(1)) == result
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_a_conflict(config, tmp_path):
    train(config, tmp_path / "run")
    with pytest.raises(ConflictError, match=r"other settings \(seed: 0, now 1; ema: 0\.0, now 0\.5\)"):
        train(replace(config, seed=1, ema=0.5), tmp_path / "run")


@pytest.mark.parametrize("is_finished", [True, False])
def test_other_data_is_a_conflict(config, tmp_path, is_finished):
    write(tmp_path / "arrays", [*make_clips(30, "bal_train", 0), *make_clips(10, "eval", 1)])
    config = replace(config, features=str(tmp_path / "arrays"))
    try:
        train(config, tmp_path / "run", None if is_finished else kill_at(5))
    except Killed:
        assert not is_finished
    (tmp_path / "arrays").rename(tmp_path / "old")
    write(tmp_path / "arrays", [*make_clips(30, "bal_train", 5), *make_clips(10, "eval", 1)])
    with pytest.raises(ConflictError, match="on other data than the settings name now"):
        train(config, tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match="holds something that is no run"):
        train(config, tmp_path)


def test_what_a_killed_process_was_writing_is_cleared_away(config, tmp_path):
    leftovers = [tmp_path / "run" / ".run.toml.7.a", tmp_path / "run" / CHECKPOINTS / ".000000002.safetensors.7.a"]
    (tmp_path / "run").mkdir()
    leftovers[0].write_bytes(b"half")
    train(config, tmp_path / "run")
    leftovers[1].write_bytes(b"half")
    (tmp_path / "run" / CARD_NAME).unlink()
    train(config, tmp_path / "run")
    assert not leftovers[1].exists()


def test_a_full_disk_is_an_output_error_that_leaves_no_half_checkpoint(config, tmp_path, monkeypatch):
    from audioset.errors import OutputError

    def write_bytes(self, data):
        if self.name.startswith(".00"):
            raise OSError(28, "No space left on device")
        return original(self, data)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match="No space left on device"):
        train(config, tmp_path / "run")
    assert list((tmp_path / "run" / CHECKPOINTS).iterdir()) == []


def run_command(config, folder, output, **environment):
    path = folder / "settings.toml"
    path.write_text(config.to_toml())
    command = [sys.executable, "-m", "audioset", "train", "heads", "--config", path, "--output", output]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, **pipes)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
def test_a_killed_process_goes_on_with_the_same_bits(config, tmp_path):
    config = replace(config, n_iterations=600, eval_every=0, checkpoint_every=60, eval_subset="")
    process = run_command(config, tmp_path, tmp_path / "run")
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob(f"{CHECKPOINTS}/*.safetensors")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "run" / CARD_NAME).exists()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the process had: other threads add in another order
    try:
        train(config, tmp_path / "run")
        train(config, tmp_path / "whole")
    finally:
        torch.set_num_threads(n_threads)
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))


def test_a_signal_stops_after_the_iteration_and_leaves_a_checkpoint(config, tmp_path):
    def interrupt(line):
        if line["iteration"] == 3:
            ask_to_stop()

    before = signal.getsignal(signal.SIGTERM)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(config, tmp_path / "run", interrupt)
    assert [path.stem for path in sorted((tmp_path / "run" / CHECKPOINTS).iterdir())] == ["000000002", "000000003"]
    assert signal.getsignal(signal.SIGTERM) == before
    train(config, tmp_path / "run")
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))


WORKER = """
import os, sys
import numpy as np
from audioset.train import read_config, train
from audioset.train.checkpoint import RunFolder

config, output, report = sys.argv[1:]
finish = RunFolder.finish

def report_and_finish(folder, card, weights, metrics):
    arrays = {name: value.numpy() for name, value in weights.items()}
    np.savez(f"{report}{os.environ['RANK']}.npz", n=int(os.environ["WORLD_SIZE"]), **arrays)
    finish(folder, card, weights, metrics)

RunFolder.finish = report_and_finish
lines = []
train(read_config(config), output, lines.append)
assert bool(lines) == (os.environ["RANK"] == "0")
"""


def test_two_processes_have_the_weights_of_one(config, tmp_path):
    train(config, tmp_path / "one")
    (tmp_path / "settings.toml").write_text(config.to_toml())
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun(tmp_path / "worker.py", tmp_path / "settings.toml", tmp_path / "two", tmp_path / "rank")
    first, second = (dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(2))
    assert first["n"] == 2
    assert_same_weights(first, second)
    for name, value in weights_of(tmp_path / "one").items():
        np.testing.assert_allclose(value, first[name], atol=2e-6)
        np.testing.assert_array_equal(weights_of(tmp_path / "two")[name], first[name])
    assert [line["iteration"] for line in lines_of(tmp_path / "two")] == [
        line["iteration"] for line in lines_of(tmp_path / "one")
    ]


def test_a_batch_must_have_two_clips_for_each_process(config):
    with pytest.raises(UsageError, match="batch_size is 5 for 3 processes; expected at least 6"):
        training._check_parts(replace(config, batch_size=5), Processes(0, 3, ALONE.device))
