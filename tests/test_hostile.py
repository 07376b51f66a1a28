"""Files that were made to do harm: refused in words, in no time, and nothing beside them changes."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

import audioset.cli
from audioset.cli import main
from audioset.dataset.download.adopt import Adopter
from audioset.dataset.download.clips import Key, file_path, place
from audioset.dataset.download.ledger import Ledger
from audioset.dataset.download.ledger_merge import merge
from audioset.dataset.download.media import MediaSettings
from audioset.dataset.features.folder import open_arrays
from audioset.dataset.features.reading import read as read_features
from audioset.dataset.lists.quality import read_quality
from audioset.dataset.lists.segments import read_segments
from audioset.dataset.lists.selection import read_video_ids
from audioset.dataset.lists.strong import read_display_names, read_strong
from audioset.errors import AudioSetError, DataError, UsageError, WeightsError, plain
from audioset.evaluate.evaluation import read_evaluation
from audioset.evaluate.storage import read_scores
from audioset.files import confined, is_plain_name
from audioset.labels.thresholds import read_thresholds
from audioset.models.cards import network_shapes
from audioset.models.postprocess import Postprocessor
from audioset.records import NUMBER, TEXT, WHOLE, map_of, number, optional, read_json, whole
from audioset.search.manifest import NAME, read_manifest
from audioset.text import read_text
from audioset.train.settings import parse_argument, read_toml
from audioset.weights.keras_h5 import read_keras_h5
from audioset.weights.model_folder import WEIGHTS_NAME, read_card, read_weights
from audioset.weights.tf_checkpoint import open_tf_checkpoint
from audioset.weights.torch_zip import open_torch_checkpoint

DEEP = '{"a":' * 100_000
ESCAPE = "\x1b]0;owned\x07\x1b[2J"

# ---- names

PLAIN = ("a", "a/b.flac", ".hidden", "--4gqARaEJE_0_10000.flac", "ü (2)=1", "ab:c", "console", "COM", "x..y")
PATHS = (
    *("", "/etc/passwd", "..", "../x", "a/../../x", "a/./b", "a//b", "a/", "./a", "a\\b", "C:", "C:x", "c:/x"),
    *("\\\\host\\x", "a\0b", "a\nb", "\x1b[2J", "NUL", "nul.txt", "a/CON.flac", "com1", "LPT9.wav", "AUX .txt"),
    *("a.", "a ", "a" * 5000, 3, None),
)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    assert confined(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("name", PATHS, ids=repr)
def test_other_names_become_no_paths(tmp_path: Path, name: Any) -> None:
    assert not is_plain_name(name)
    with pytest.raises(DataError, match=r"is no name of a file below .*; expected plain names"):
        confined(tmp_path, name)


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inside").mkdir(parents=True)
    (folder / "in").symlink_to("inside")
    (folder / "out").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    assert confined(folder, "in/x") == folder / "in" / "x"
    for name in ("out", "out/x", "circle/x"):
        with pytest.raises(DataError, match=r"leads out of .* by a link"):
            confined(folder, name)


# ---- indexes

MANIFEST: dict[str, Any] = {
    "settings": {"model": "yamnet", "weights": None, "precision": "f32", "hop_s": None, "window_s": None, "pad": None},
    "model_digest": "0" * 64,
    "embedding_size": 1024,
    "shards": {},
    "n_recordings": 0,
    "version": "1",
    "format": 1,
}


@pytest.mark.parametrize(
    "name",
    ["../precious", "/precious", "embeddings-a.parquet/../../precious", "precious", "embeddings-..parquet", NAME],
)
def test_an_index_names_files_of_its_own_only(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / NAME).write_text(json.dumps({**MANIFEST, "shards": {name: 1}}))
    with pytest.raises(DataError, match=r"names the file .*; expected embeddings-….parquet"):
        read_manifest(folder)
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_an_index_reads_nothing_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / "index" / "embeddings-a.parquet").symlink_to(tmp_path / "precious")
    (tmp_path / "index" / NAME).write_text(json.dumps({**MANIFEST, "shards": {"embeddings-a.parquet": 1}}))
    with pytest.raises(DataError, match=r"leads out of .* by a link"):
        read_manifest(tmp_path / "index")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"embedding_size": 0}, "'embedding_size' is 0; expected a whole number from 1 to 65,536"),
        ({"embedding_size": 10**18}, "'embedding_size' is 10+; expected a whole number"),
        ({"shards": {"embeddings-a.parquet": -1}}, "'shards' is .*; expected an object of at most"),
        ({"shards": [1]}, r"'shards' is \[1\]; expected an object"),
        ({"settings": {**MANIFEST["settings"], "hop_s": "x"}}, "'hop_s' is 'x'; expected a finite number"),
        ({"settings": {"model": ["yamnet"]}}, r"'model' is \['yamnet'\]; expected text"),
        ({"model_digest": None}, "'model_digest' is None; expected text"),
    ],
)
def test_a_manifest_is_checked_before_it_is_used(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    (tmp_path / NAME).write_text(json.dumps({**MANIFEST, **change}))
    with pytest.raises(DataError, match=match):
        read_manifest(tmp_path)


# ---- ledgers


def make_ledger(path: Path, **values: Any) -> Path:
    """A ledger with one row, in which some values are those of a stranger."""
    Ledger(path).close()
    row = {"video_id": "--4gqARaEJE", "start_ms": 0, "end_ms": 10_000, "bucket": 0, "subset": "eval", "label_ids": ""}
    row |= values
    with sqlite3.connect(path) as database:
        names = ", ".join(row)
        database.execute(f"INSERT INTO clips ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
    database.close()
    return path


@pytest.mark.parametrize(
    "values",
    [
        {"subset": "../../outside"},
        {"subset": "/outside"},
        {"video_id": "../../../outside"},
        {"video_id": "a/b"},
        {"start_ms": "many"},
        {"label_ids": b"\xff"},
        {"due_at": "never"},
        {"n_bytes": "x"},
        {"end_ms": 0.5},
    ],
    ids=str,
)
def test_a_merged_ledger_names_no_paths(tmp_path: Path, values: dict[str, Any]) -> None:
    source = make_ledger(tmp_path / "other.sqlite", **values)
    with Ledger(tmp_path / "own.sqlite") as own:
        with pytest.raises(DataError, match=r"a ledger has the row .*; expected the id of a video"):
            merge(own, tmp_path / "data", [source])
        assert own.counts() == {}
    assert {path.name for path in tmp_path.iterdir()} == {"other.sqlite", "own.sqlite"}


@pytest.mark.parametrize("column", ["file", "video_file"])
def test_a_merged_ledger_names_no_files_elsewhere(tmp_path: Path, column: str) -> None:
    for name in ("set/a.flac", "elsewhere/a.flac"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"12345")
    files = {"file": str(tmp_path / "set/a.flac"), column: str(tmp_path / "elsewhere/a.flac")}
    (tmp_path / "other").mkdir()
    source = make_ledger(tmp_path / "other/ledger.sqlite", state="done", n_bytes=5, **files)
    with Ledger(tmp_path / "set/ledger.sqlite") as own:
        result = merge(own, tmp_path / "set", [source])
        assert (result.n_new, result.n_outside) == (1, 1)
        assert [(clip.state, clip.file, clip.video_file) for clip in own.clips()] == [("pending", None, None)]


@pytest.mark.parametrize("name", ["../../precious", "audio/../../precious", "audio/x\0y"])
def test_a_file_of_a_ledger_is_below_the_dataset_or_absolute(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"is no name of a file below"):
        file_path(tmp_path, name)
    assert file_path(tmp_path, "/elsewhere/a.flac") == Path("/elsewhere/a.flac")


@pytest.mark.parametrize(("video_id", "subset"), [("../x", "eval"), ("x" * 11, "../eval"), ("a\\b", "eval"), ("a", "")])
def test_the_place_of_a_clip_is_below_the_dataset(video_id: str, subset: str) -> None:
    with pytest.raises(DataError, match="is no name of a file; expected the id of a video"):
        place(Key(video_id, 0, 1), subset, ".flac")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER UPDATE ON clips BEGIN DELETE FROM history; END",
        "CREATE VIEW v AS SELECT 1",
        "ALTER TABLE clips ADD COLUMN more TEXT",
        "DROP TABLE history",
    ],
)
def test_a_ledger_has_the_tables_of_a_ledger(tmp_path: Path, statement: str) -> None:
    path = make_ledger(tmp_path / "ledger.sqlite")
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    with pytest.raises(DataError, match=r"has other tables than a ledger of version 1"):
        Ledger(path)


@pytest.mark.parametrize(
    "value", [DEEP, "no JSON", "[1]", "{}", '{"until": "never", "state": "", "reason": "", "trips": 1}']
)
def test_settings_of_a_ledger_are_checked(tmp_path: Path, value: str) -> None:
    path = make_ledger(tmp_path / "ledger.sqlite")
    with sqlite3.connect(path) as database:
        database.executemany("INSERT INTO settings VALUES (?, ?)", [("breaker", value), ("next_slot", value)])
    database.close()
    with Ledger(path) as ledger:
        with pytest.raises(DataError, match=r"is damaged|expected"):
            ledger.breaker()
        with pytest.raises(DataError, match=r"is damaged|expected a finite number"):
            ledger.reserve_slot(1.0)


# ---- cards of models

CARD: dict[str, Any] = {
    "network": "panns_resnet",
    "arguments": {},
    "frontend": "panns",
    "labels": "audioset-527",
    "licence": "CC0",
    "source": {},
}
NESTED: dict[str, Any] = {"backbone": "classifier"}
for _ in range(20):
    NESTED = {"backbone": "classifier", "backbone_arguments": NESTED}


@pytest.mark.parametrize(
    "change",
    [
        {"arguments": {"n_blocks": [10**9] * 4}},
        {"arguments": {"n_blocks": [10**6] * 4}},
        {"arguments": {"channels": [10**6] * 5}},
        {"arguments": {"n_blocks": [-1, 1, 1, 1]}},
        {"arguments": {"n_blocks": [1.5, 1, 1, 1]}},
        {"arguments": {"n_classes": 0}},
        {"arguments": {"n_classes": 1 << 20, "embedding_size": 1 << 20}, "network": "panns_cnn"},
        {"arguments": {"n_blocks": "1111"}},
        {"arguments": {"n_blocks": [3] * 10**6}},
        {"arguments": {"width": 1e300}, "network": "mobilenet", "frontend": "efficientat"},
        {"arguments": {"x" * 10: "y" * 10**7}},
        {"arguments": NESTED, "network": "classifier"},
        {"network": "../../network"},
        {"frontend": "/etc/passwd"},
        {"source": []},
    ],
    ids=lambda change: str(change)[:40],
)
def test_what_a_card_asks_for_is_bounded(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "model.json").write_text(json.dumps({**CARD, **change}))
    with pytest.raises(WeightsError, match=r"expected|cannot have the arguments"):
        network_shapes(read_card(tmp_path))


# ---- readers of JSON and TOML

TEXTS = {
    "deep": DEEP,
    "deep lists": "[" * 100_000,
    "huge number": '{"format": ' + "9" * 10_000 + "}",
    "no JSON": "{'a': 1}",
    "another kind": "[1, 2]",
    "not UTF-8": b"\xff\xfe\x00",
    "nothing": "",
}
READERS: dict[str, tuple[str, Callable[[Path], object], type[AudioSetError]]] = {
    "card": ("model.json", read_card, WeightsError),
    "manifest": (NAME, read_manifest, DataError),
    "evaluation": ("evaluation.json", read_evaluation, DataError),
    "features": ("features.json", open_arrays, DataError),
    "thresholds": ("t.json", lambda folder: read_thresholds(folder / "t.json"), UsageError),
    "settings": ("run.toml", lambda folder: read_toml(folder / "run.toml"), UsageError),
    "record": ("r.json", lambda folder: read_json(folder / "r.json", {"a": WHOLE}, DataError), DataError),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(("name", "read", "error"), READERS.values(), ids=READERS)
def test_readers_of_text_refuse_in_words(
    tmp_path: Path, name: str, read: Callable[[Path], object], error: type[AudioSetError], text: str | bytes
) -> None:
    if name == "run.toml" and text == "":
        pytest.skip("an empty file is TOML")
    if name == "run.toml" and text == TEXTS["deep lists"]:
        text = "a = " + str(text)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(error, match=name.partition(".")[0]):
        read(tmp_path)


def test_a_small_file_that_is_huge_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audioset.records.MAX_BYTES", 10)
    with (tmp_path / "model.json").open("wb") as file:
        file.truncate(1 << 40)  # with holes
    with pytest.raises(WeightsError, match=r"has more than 67,108,864 bytes; expected a small file"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (TEXT, ["", "a"], [1, None, "a" * 70_000]),
        (WHOLE, [0, 2**53], [-1, True, 1.0, "1", 2**60]),
        (NUMBER, [0, -1.5, 10**9], [True, "1", float("nan"), float("inf"), 10**400, None]),
        (number(0, 1), [0, 0.5, 1], [-0.1, 2]),
        (whole(1, 3), [1, 3], [0, 4]),
        (optional(whole(1, 3)), [None, 1], [0]),
        (map_of(WHOLE, 1), [{}, {"a": 1}], [{"a": 1, "b": 2}, {"a": "b"}, [1]]),
    ],
)
def test_kinds(kind: Any, good: list[Any], bad: list[Any]) -> None:
    assert all(map(kind.fits, good))
    assert not any(map(kind.fits, bad))


# ---- HDF5 and NumPy


def test_a_few_links_do_not_make_a_billion_paths(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group = file.create_group("g0")
        for depth in range(1, 11):
            below = file.create_group(f"hidden/{depth}")
            for number_ in range(20):
                group[f"{number_}"] = below
            group = below
        del file["hidden"]
    assert (tmp_path / "w.h5").stat().st_size < 100_000
    with pytest.raises(WeightsError, match=r"it has more than 10,000 groups and tensors; this is no Keras file"):
        read_keras_h5(tmp_path / "w.h5", {"a/b": (1,)})


def test_a_chunk_is_not_larger_than_it_may_be(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("a/b", (1,), "f4", maxshape=(None,), chunks=(1 << 28,), compression="gzip")[0] = 1
    with pytest.raises(WeightsError, match=r"'a/b' is stored in chunks of \(268435456,\), which is too much at once"):
        read_keras_h5(tmp_path / "w.h5", {"a/b": (1,)})


def test_rows_that_are_not_there_are_not_adopted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("audio_name", (10**12,), "S20", chunks=(1024,))
        file.create_dataset("waveform", (10**12, 320_000), "i2", chunks=(1, 320_000))
        file.attrs["sample_rate"] = 32_000
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        adopter = Adopter(ledger, tmp_path / "data", MediaSettings())
        with pytest.raises(DataError, match=r"audio_name claims 20,000,000,000,000 bytes, of which 0 are stored"):
            adopter.adopt(tmp_path / "w.h5")


@pytest.mark.parametrize(
    "header", ["{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", "(" * 5000, "x"]
)
def test_scores_that_are_not_there_are_not_read(tmp_path: Path, header: str) -> None:
    import zipfile

    data = header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("scores.npy", b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data)
    with pytest.raises(DataError, match=r"s\.npz cannot be read"):
        read_scores(tmp_path / "s.npz")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", scores=np.zeros((1, 527), np.float32), ids=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match=r"save ids as texts, not as objects"):
        read_scores(tmp_path / "s.npz")


@pytest.mark.parametrize("read", [Postprocessor.load, read_scores])
def test_a_few_bytes_do_not_unfold_to_gigabytes(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "s.npz"
    np.savez_compressed(path, scores=np.zeros((1 << 18, 527), np.uint8))
    assert path.stat().st_size < 1 << 18
    with pytest.raises(AudioSetError, match=r"what is folded into it has 138,\d{3},\d{3} bytes; expected at most"):
        read(path)


def test_scores_of_clips_that_are_all_the_same_are_read(tmp_path: Path) -> None:
    arrays = {"scores": np.zeros((9000, 527), np.float32), "ids": np.arange(9000).astype(str)}
    np.savez_compressed(tmp_path / "s.npz", **arrays)
    assert read_scores(tmp_path / "s.npz").targets is None


# ---- what is no file

STREAMS: dict[str, Callable[[Path], object]] = {
    "weights.safetensors": lambda path: read_weights(path.parent, {"a": (1,)}),
    "weights.h5": lambda path: read_keras_h5(path, {"a": (1,)}),
    "weights.pt": open_torch_checkpoint,
    "weights.ckpt": open_tf_checkpoint,
    "pca.npz": Postprocessor.load,
    "model.json": lambda path: read_card(path.parent),
    "scores.npz": read_scores,
    "run.toml": read_toml,
    "segments.csv": read_segments,
    "strong.tsv": read_strong,
    "names.tsv": read_display_names,
    "ids.txt": read_video_ids,
    "counts.csv": read_quality,
    "table.csv": read_text,
    "features.parquet": lambda path: list(read_features(path)),
    "features.h5": lambda path: list(read_features(path)),
    "features.tfrecord": lambda path: list(read_features(path)),
    "features.tar": lambda path: list(read_features(path)),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", STREAMS)
def test_a_pipe_lets_no_reader_wait(tmp_path: Path, name: str) -> None:
    path = tmp_path / (WEIGHTS_NAME if name == "weights.safetensors" else name)
    os.mkfifo(path)
    with pytest.raises(AudioSetError, match=r"it is a pipe|there is no|says no format"):
        STREAMS[name](path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no devices")
@pytest.mark.parametrize("name", STREAMS)
def test_a_device_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / (WEIGHTS_NAME if name == "weights.safetensors" else name)
    path.symlink_to("/dev/zero")
    with pytest.raises(AudioSetError, match=r"it is a device|there is no|says no format"):
        STREAMS[name](path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_text_in_a_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    holder = os.open(tmp_path / "t.csv", os.O_RDWR)  # so that neither end waits for the other
    os.write(holder, b"path,label\n")
    writer = os.open(tmp_path / "t.csv", os.O_WRONLY)
    threading.Timer(0.2, lambda: (os.close(holder), os.write(writer, b"a.wav,Dog\n"), os.close(writer))).start()
    assert read_text(tmp_path / "t.csv") == "path,label\na.wav,Dog\n"


def test_names_of_a_million_tensors_are_looked_through_once(tmp_path: Path) -> None:
    names = {f"{number:x}": np.zeros(0, np.float32) for number in range(20_000)}
    save_file(names, tmp_path / WEIGHTS_NAME)
    assert len(read_weights(tmp_path, dict.fromkeys(names, (0,)))) == 20_000


def test_a_number_of_too_many_digits_is_a_text_where_an_argument_is(tmp_path: Path) -> None:
    assert parse_argument("n=" + "9" * 5000) == ("n", "9" * 5000)


# ---- terminals


def test_every_word_of_a_command_is_plain() -> None:
    """Lines that a command writes again and again may move the cursor, and hold words of this package only."""
    own = {"echo.py": 1, "listen.py": 3, "doctor.py": 1, "train_classifier.py": 1}
    paths = Path(audioset.cli.__file__).parent.glob("*.py")
    found = {path.name: path.read_text(encoding="utf-8").count("click.echo(") for path in paths}
    assert {name: n for name, n in found.items() if n} == own


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Wörter\n\tand lines", "Wörter\n\tand lines"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m\x7f\r", r"\x9b31m\x7f\r"),
        ("\udcff.wav", r"\xff.wav"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
    ],
)
def test_text_for_people_moves_no_cursor(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert str(DataError(text)) == shown


def test_names_of_tensors_reach_no_terminal(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file[f"a{ESCAPE}/b"] = np.zeros(1, np.float32)
    with pytest.raises(WeightsError, match=r"such as a\\x1b\]0;owned\\x07") as caught:
        read_keras_h5(tmp_path / "w.h5", {"layer/kernel": (1,)})
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["tag", f"/nowhere/{ESCAPE}.wav"], ["models", "info", ESCAPE], ["tag", f"--{ESCAPE}"], [ESCAPE]]
)
def test_the_command_writes_no_escapes(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["audioset", *arguments])
    with pytest.raises(SystemExit, match=r"[24]"):
        main()
    shown = capsys.readouterr()
    assert "owned" in shown.err
    assert "\x1b" not in shown.err + shown.out
