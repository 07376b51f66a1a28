"""The cache: weights once, everything checked, made again where it does not fit, and never in the way."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from audioset import Model, cache, load_model
from audioset.assets import hash_file
from audioset.cli.models import models
from audioset.errors import UsageError, WeightsError
from audioset.executors.openvino import OpenVinoEngine
from audioset.models.folders import copy_model, digest_weights, hash_weights, load_weights, prepare_graph
from audioset.weights.model_folder import WEIGHTS_NAME

SOUND = np.random.default_rng(0).uniform(-1, 1, 16_000).astype(np.float32)
LOAD = "import sys; from audioset import load_model; load_model('yamnet', weights=sys.argv[1], n_threads=1)"


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache of the test's own."""
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    cache._warned.clear()
    yield tmp_path / "cache"
    cache._warned.clear()


def scores_of(checkpoint: Path) -> np.ndarray:
    scores = load_model("yamnet", weights=checkpoint, n_threads=2).predict(SOUND, 16_000).scores
    assert scores is not None
    return scores


def derived(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != cache.CHECK_SUFFIX)


def overwrite_some(path: Path) -> None:
    data = bytearray(path.read_bytes())
    places = np.random.default_rng(0).integers(0, len(data), 50)
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(data)


def become_a_folder(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def lead_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def lose_the_checksum(path: Path) -> None:
    cache.check_path(path).unlink()


def long_checksum(path: Path) -> None:
    cache.check_path(path).write_bytes(cache.check_path(path).read_bytes() + bytes(10_000))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "bytes": overwrite_some,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
    "folder": become_a_folder,
    "link": lead_nowhere,
    "pipe": become_a_pipe,
    "pipe for a checksum": lambda path: become_a_pipe(cache.check_path(path)),
    "no checksum": lose_the_checksum,
    "folder for a checksum": lambda path: become_a_folder(cache.check_path(path)),
    "long checksum": long_checksum,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_does_not_fit_is_made_again(
    damage: Callable[[Path], object], own_cache: Path, session_cache: Path, model: Model, random_checkpoint: Path
) -> None:
    shutil.copytree(model.folder, own_cache / "models" / model.folder.name)
    files = derived(own_cache)
    assert {path.suffix for path in files} == {".json", ".xml", ".bin", ".blob"}
    contents = {path: path.read_bytes() for path in files}
    for path in files:
        damage(path)
    expected = model.predict(SOUND, 16_000).scores
    np.testing.assert_array_equal(scores_of(random_checkpoint), expected)
    made = derived(own_cache)
    assert all(map(cache.is_whole, made))
    for path in made:
        if path.suffix == ".json":  # the others depend on where and when they were made
            assert path.read_bytes() == contents[path]


@pytest.mark.parametrize("is_writable", [True, False])
def test_what_a_killed_run_left_where_it_compiled_is_deleted(
    is_writable: bool, own_cache: Path, tmp_path: Path, random_checkpoint: Path
) -> None:
    place = tmp_path / "temporary"
    (place / f"audioset-{0:012x}").mkdir(parents=True)
    if not is_writable:
        own_cache.touch()
    environment = {**os.environ, "TMPDIR": str(place)}
    subprocess.run([sys.executable, "-c", LOAD, str(random_checkpoint)], check=True, env=environment)
    assert list(place.iterdir()) == []


def test_files_that_were_swapped_are_made_again(own_cache: Path, model: Model, random_checkpoint: Path) -> None:
    folder = own_cache / "models" / model.folder.name
    shutil.copytree(model.folder, folder)
    graph = next(folder.glob("*/*.xml"))
    (folder / "model.json").replace(folder / "other")
    graph.replace(folder / "model.json")
    (folder / "other").replace(graph)
    np.testing.assert_array_equal(scores_of(random_checkpoint), model.predict(SOUND, 16_000).scores)


def test_weights_are_kept_once(own_cache: Path, model: Model, random_checkpoint: Path, tmp_path: Path) -> None:
    copy_model(model.card, model.folder, tmp_path / "copy", model.card)
    n_bytes = (tmp_path / "copy" / WEIGHTS_NAME).stat().st_size
    for engine in ("openvino", "torch", "onnxruntime"):
        load_model("yamnet", weights=random_checkpoint, engine=engine, n_threads=1)
    assert 0.9 * n_bytes < sum(path.stat().st_size for path in derived(own_cache)) < 1.1 * n_bytes


def test_weights_of_a_model_folder_are_copied_once(own_cache: Path, model: Model, tmp_path: Path) -> None:
    copy_model(model.card, model.folder, tmp_path / "my model \x1b[31m", model.card)
    loaded = load_model(tmp_path / "my model \x1b[31m", n_threads=2)
    np.testing.assert_array_equal(loaded.predict(SOUND, 16_000).scores, model.predict(SOUND, 16_000).scores)
    (entry,) = cache.entries()
    assert (entry.name, entry.state) == ("my_model_31m", "whole")
    assert entry.n_bytes < 1.1 * (loaded.folder / WEIGHTS_NAME).stat().st_size


def test_weights_of_a_checkpoint_are_those_of_its_model_folder(
    model: Model, random_weights: dict[str, np.ndarray], tmp_path: Path
) -> None:
    copy_model(model.card, model.folder, tmp_path, model.card)
    assert digest_weights(model.card, model.folder) == hash_file(tmp_path / WEIGHTS_NAME)
    states = [hashlib.sha256(), hashlib.sha256()]
    for state, folder in zip(states, (model.folder, tmp_path), strict=True):
        hash_weights(state, model.card, folder)
    assert states[0].digest() == states[1].digest()
    for name, value in load_weights(model.card, model.folder).items():
        np.testing.assert_array_equal(value, random_weights[name])


def test_a_folder_of_the_cache_is_a_model_as_long_as_its_checkpoint_is_there(
    own_cache: Path, random_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copy(random_checkpoint, tmp_path / "mine.h5"))
    folder = load_model("yamnet", weights=checkpoint, n_threads=1).folder
    assert load_model(folder, n_threads=1).folder == folder
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    with pytest.raises(WeightsError, match=r"checkpoint .*mine\.h5 is not the one that .* was made from.*by its name"):
        load_model(folder, n_threads=1)


def test_a_model_folder_cannot_claim_a_checkpoint(model: Model, tmp_path: Path) -> None:
    copy_model(model.card, model.folder, tmp_path, model.card)
    (tmp_path / WEIGHTS_NAME).unlink()
    (tmp_path / "checkpoint.json").write_text(json.dumps({"model": "yamnet", "path": "/etc/hostname"}))
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read: No such file"):
        load_model(tmp_path)


def test_a_full_disk_costs_time_and_one_line(
    own_cache: Path,
    model: Model,
    random_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def disk_full(path: Path, data: bytes) -> None:
        if own_cache in path.parents:
            raise OSError(28, "No space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    monkeypatch.setattr("audioset.cache.write_atomically", disk_full)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(scores_of(random_checkpoint), model.predict(SOUND, 16_000).scores)
        scores_of(random_checkpoint)
    assert [record.getMessage() for record in caplog.records] == [
        f"the cache folder {own_cache} cannot be written (No space left on device): models are prepared again at every "
        "start. Next step: free some space, or set AUDIOSET_CACHE to a folder of yours"
    ]
    assert not any(map(cache.is_sealed, derived(own_cache)))


def test_a_cache_that_is_no_folder(
    own_cache: Path, model: Model, random_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_cache.write_bytes(b"mine")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(scores_of(random_checkpoint), model.predict(SOUND, 16_000).scores)
    assert len(caplog.records) == 1
    assert own_cache.read_bytes() == b"mine"


def test_a_full_cache_that_may_only_be_read_is_used(
    own_cache: Path,
    model: Model,
    random_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(model.folder, own_cache / "models" / model.folder.name)

    def refuse(*arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("audioset.cache.write_atomically", refuse)
    monkeypatch.setattr("audioset.models.folders.load_weights", refuse)  # nothing is converted again
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(scores_of(random_checkpoint), model.predict(SOUND, 16_000).scores)
    assert caplog.records == []


def test_two_processes_fill_an_empty_cache(own_cache: Path, model: Model, random_checkpoint: Path) -> None:
    command = [sys.executable, "-c", LOAD, str(random_checkpoint)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(300) for process in processes] == [0, 0]
    np.testing.assert_array_equal(scores_of(random_checkpoint), model.predict(SOUND, 16_000).scores)
    assert {entry.state for entry in cache.entries()} == {"whole"}
    assert not list(own_cache.rglob(".*"))


def made_folder(place: Path, text: str) -> Path:
    place.mkdir()
    (place / "network.xml").write_text(text)
    return place


def test_a_folder_that_another_process_made_first_stays_since_it_may_be_reading_it(tmp_path: Path) -> None:
    cache.put_folder(made_folder(tmp_path / "a", "first"), tmp_path / "graph")
    cache.put_folder(made_folder(tmp_path / "b", "other"), tmp_path / "graph")
    assert (tmp_path / "graph" / "network.xml").read_text() == "first"


@pytest.mark.parametrize("kind", ["damaged", "partial", "file", "link"])
def test_what_is_not_a_whole_folder_makes_way(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "graph"
    if kind == "file":
        target.write_text("x")
    elif kind == "link":
        target.symlink_to(made_folder(tmp_path / "elsewhere", "x"))
    else:
        cache.put_folder(made_folder(tmp_path / "a", "first"), target)
        (target / "network.xml").write_text("xxxxx") if kind == "damaged" else (target / "network.xml").unlink()
    cache.put_folder(made_folder(tmp_path / "b", "other"), target)
    assert (target / "network.xml").read_text() == "other"
    assert cache.is_whole(target / "network.xml")
    assert not list(tmp_path.glob(".*"))


def test_a_graph_that_cannot_be_kept_runs_as_one_that_is(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = prepare_graph(model.card, model.folder)
    patches = np.zeros((1, 96, 64), np.float32)
    first = OpenVinoEngine(graph, "f32", 1)(patches).scores
    monkeypatch.setenv("AUDIOSET_CACHE", "/dev/null/cache")
    np.testing.assert_array_equal(OpenVinoEngine(graph, "f32", 1)(patches).scores, first)


def test_the_newest_whole_files_are_kept(own_cache: Path) -> None:
    for number in range(5):
        cache.put(own_cache / f"{number}.blob", b"1234")
        os.utime(own_cache / f"{number}.blob", (number, number))
    overwrite_some(own_cache / "4.blob")
    (own_cache / "2.blob").unlink()
    cache.drop_damaged(own_cache, ".blob", 2)
    assert sorted(path.name for path in own_cache.iterdir()) == ["1.blob", "1.blob.crc32c", "3.blob", "3.blob.crc32c"]


# ---- audioset models cache


def run(*arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(models, ["cache", *arguments, "--json"], catch_exceptions=False, standalone_mode=False)
    records: list[dict[str, object]] = json.loads(result.stdout)
    return records


def fill(folder: Path) -> None:
    cache.put(folder / "assets" / "thing.bin", b"123456")
    (folder / "assets" / "mine.h5").write_bytes(b"12")
    (folder / "assets" / "half.pt.part").write_bytes(b"1")
    for name in ("yamnet-0123456789abcdef", "yamnet-fedcba9876543210", "vggish-0123456789abcdef"):
        cache.put(folder / "models" / name / "graph.onnx", b"1234")
    (folder / "graphs").mkdir()
    (folder / "graphs" / "old.onnx").write_bytes(b"12345678")
    (folder / "notes.txt").write_text("mine")


def test_the_cache_is_shown(own_cache: Path) -> None:
    fill(own_cache)
    (own_cache / "models" / "vggish-0123456789abcdef" / "graph.onnx").write_bytes(b"1334")
    found = [(record["name"], record["n_bytes"], record["state"]) for record in run()]
    assert found == [
        ("mine.h5", 2, "unchecked"),
        ("thing.bin", 6, "whole"),
        ("vggish", 4, "damaged"),
        ("yamnet", 4, "whole"),
        ("yamnet", 4, "whole"),
        ("graphs", 8, "unchecked"),
    ]
    assert [record["name"] for record in run("vggish")] == ["vggish"]
    text = CliRunner().invoke(models, ["cache"], standalone_mode=False)
    assert f"vggish          0.0 MB  damaged   {own_cache}/models/vggish-0123456789abcdef\n" in text.stdout
    assert text.stderr == f"audioset: 0.0 MB in {own_cache}\n"


def test_the_cache_is_cleared(own_cache: Path) -> None:
    fill(own_cache)
    assert [record["is_cleared"] for record in run("yamnet", "--clear")] == [True, True]
    assert sorted(path.name for path in (own_cache / "models").iterdir()) == ["vggish-0123456789abcdef"]
    run("--clear")
    left = sorted(str(path.relative_to(own_cache)) for path in own_cache.rglob("*") if path.is_file())
    assert left == ["assets/half.pt.part", "notes.txt"]  # a download that goes on, and what is not ours
    assert run() == []


def test_a_link_in_the_cache_is_deleted_and_not_followed(own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"mine")
    (own_cache / "models").mkdir(parents=True)
    (own_cache / "models" / "yamnet-0123456789abcdef").symlink_to(tmp_path / "precious")
    run("--clear")
    assert (tmp_path / "precious" / "file").read_bytes() == b"mine"
    assert list((own_cache / "models").iterdir()) == []


def test_a_name_that_the_cache_has_not(own_cache: Path) -> None:
    with pytest.raises(UsageError, match="the cache has no yamnet; it has nothing"):
        cache.clear(("yamnet",))
    fill(own_cache)
    with pytest.raises(UsageError, match=r"the cache has no panns; it has graphs, mine\.h5, thing"):
        cache.entries(("panns",))
