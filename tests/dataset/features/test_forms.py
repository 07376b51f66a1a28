"""The forms that features are converted to, and back."""

from __future__ import annotations

import json
import tarfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from feature_clips import CLIPS, clip, key
from feature_files import (
    OUTPUTS,
    written,
)

from audioset.dataset.features import tfrecord as feature_tfrecord
from audioset.dataset.features.clips import ClipArrays, join_arrays
from audioset.dataset.features.reading import FORMS, read, read_arrays
from audioset.errors import DataError, NoInputError, OutputError, UsageError

# The forms


def test_parquet_has_the_columns_that_are_promised(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    FORMS["parquet"].write(tmp_path / "a.parquet", CLIPS)
    schema = parquet.read_schema(tmp_path / "a.parquet")
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "video_id": "string",
        "start_s": "float",
        "end_s": "float",
        "labels": "list<element: int16>",
        "embeddings": "list<element: binary>",
        "subset": "string",
    }


def test_hdf5_has_kongs_layout(tmp_path: Path) -> None:
    FORMS["hdf5"].write(tmp_path / "a.h5", CLIPS)
    with h5py.File(tmp_path / "a.h5") as file:
        x, y, ids = (file[name][:] for name in ("x", "y", "video_id_list"))
    assert (x.dtype, x.shape, y.dtype, y.shape, ids.dtype.kind) == (np.uint8, (3, 10, 128), np.bool_, (3, 527), "S")
    assert ids.tolist() == [b"--4gqARaEJE", b"-0abcdefghi", b"aBcdefghijk"]
    for row, targets, each in zip(x, y, CLIPS, strict=True):
        assert row[: len(each.embeddings)].tobytes() == each.embeddings.tobytes()
        assert not row[len(each.embeddings) :].any()
        assert np.flatnonzero(targets).tolist() == list(each.labels)


def test_kongs_own_files_have_no_lengths_and_no_times(tmp_path: Path) -> None:
    FORMS["hdf5"].write(tmp_path / "eval.h5", CLIPS)
    with h5py.File(tmp_path / "eval.h5", "a") as file:
        for name in ("lengths", "start_s", "end_s", "subsets"):
            del file[name]
    clips = list(read(tmp_path / "eval.h5", "eval"))
    assert [len(each.embeddings) for each in clips] == [10, 3, 1]
    assert all(np.isnan([each.start_s, each.end_s]).all() for each in clips)


def h5_with(path: Path, **changes: Any) -> Path:
    FORMS["hdf5"].write(path, CLIPS)
    with h5py.File(path, "a") as file:
        for name, value in changes.items():
            del file[name]
            if value is not None:
                file[name] = value
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"x": None}, "it has no dataset 'x'"),
        ({"x": np.zeros((3, 10, 64), np.uint8)}, r"'x' has shape \(3, 10, 64\); expected \(N, 10, 128\)"),
        ({"x": np.zeros((3, 10, 128), np.float32)}, "'x' has dtype float32"),
        ({"x": np.zeros((3, 10, 128), np.uint16)}, "'x' has dtype uint16; expected uint8"),
        ({"y": np.zeros((2, 527), np.bool_)}, "its datasets have different numbers of rows"),
        ({"y": h5py.SoftLink("/x")}, "'y' is a link; expected a dataset in the file itself"),
        ({"y": h5py.ExternalLink("other.h5", "y")}, "'y' is a link"),
        ({"video_id_list": ["a", "b", "c"]}, "'video_id_list' has values of variable length"),
        ({"video_id_list": np.array([b"", b"a", b"b"])}, "row 0: the id is ''"),
        ({"lengths": np.array([11, 1, 1], np.uint8)}, "'lengths' has 11; expected 0 to 10"),
    ],
)
def test_other_hdf5_files_are_refused(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"a\.h5: .*{reason}"):
        list(read(h5_with(tmp_path / "a.h5", **changes)))


def test_an_hdf5_file_cannot_claim_rows_that_it_does_not_store(tmp_path: Path) -> None:
    path = h5_with(tmp_path / "a.h5", x=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("x", (10**9, 10, 128), np.uint8, chunks=(1, 10, 128))
    with pytest.raises(DataError, match="'x' claims 1,280,000,000,000 bytes, of which 0 are stored"):
        list(read(path))


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"video_id": ["a"]}), path)
    with pytest.raises(DataError, match=r"a\.parquet: from row 0 on: it has no column 'start_s'"):
        list(read(path))
    row = {"video_id": ["a", None], "start_s": [0.0] * 2, "end_s": [1.0] * 2, "labels": [[1]] * 2, "subset": [None] * 2}
    table = {**row, "embeddings": pyarrow.array([[bytes(128)]] * 2, pyarrow.list_(pyarrow.binary(128)))}
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    with pytest.raises(DataError, match="the column 'video_id' has nulls"):
        list(read(path))
    pyarrow.parquet.write_table(pyarrow.table({**table, "video_id": ["a", "b"], "labels": [[1], [527]]}), path)
    with pytest.raises(DataError, match=r"row 1: b has the labels \[527\]; expected 0 to 526"):
        list(read(path))
    pyarrow.parquet.write_table(pyarrow.table({**table, "video_id": ["a", "b"], "embeddings": [[b"x"]] * 2}), path)
    with pytest.raises(DataError, match="from row 0 on"):
        list(read(path))


def test_a_folder_of_arrays_is_mapped_and_has_a_card(tmp_path: Path) -> None:
    many = [clip(f"{i:011d}", 1 + i % 10, "eval", i) for i in range(2500)]
    folder = tmp_path / "arrays"
    assert FORMS["arrays"].write(folder, many) == 2500
    card = json.loads((folder / "features.json").read_text())
    assert (card["n_clips"], card["n_labels"], card["subsets"]) == (2500, 7500, {"eval": 2500})
    mapped, plain = read_arrays(folder), ClipArrays.of(many)
    assert isinstance(mapped.embeddings, np.memmap)
    for field in fields(ClipArrays):
        stored = np.load(folder / f"{field.name}.npy")
        np.testing.assert_array_equal(stored, getattr(plain, field.name))
        np.testing.assert_array_equal(getattr(mapped, field.name), stored)
    rows = np.random.default_rng(0).permutation(2500)[:100]
    taken = mapped.take(rows)
    assert [key(taken.clip(i)) for i in range(100)] == [key(many[row]) for row in rows]
    assert [key(mapped[2400:].clip(i)) for i in range(100)] == list(map(key, many[2400:]))


def test_packs_can_be_joined_sliced_and_chosen_from() -> None:
    many = [clip(f"id{i}" * (1 + i % 3), i % 11, None, i) for i in range(50)]
    joined = join_arrays([ClipArrays.of(many[i : i + 7]) for i in range(0, 50, 7)])
    for field in fields(ClipArrays):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(ClipArrays.of(many), field.name))
    assert len(joined[10:5]) == len(join_arrays([])) == 0
    assert joined.take(joined.lengths == 10).lengths.tolist() == [10] * 4
    np.testing.assert_array_equal(joined.take([3, 3, -1]).targets(), joined.targets()[[3, 3, -1]])
    with pytest.raises(UsageError, match=r"the step 2; expected 1\. Next step: take"):
        joined[::2]


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("lengths.npy", lambda path: path.unlink(), "No such file"),
        ("lengths.npy", lambda path: np.save(path, np.zeros(2, np.uint8)), r"lengths\.npy has shape \(2,\)"),
        ("lengths.npy", lambda path: np.save(path, np.full(3, 11, np.uint8)), "lengths.npy has 11"),
        ("start_s.npy", lambda path: np.save(path, np.zeros(3)), "start_s.npy has shape .* float64"),
        ("label_offsets.npy", lambda path: np.save(path, np.array([0, 9, 3, 9])), "does not ascend"),
        ("video_ids.npy", lambda path: np.save(path, np.array([{}] * 3), allow_pickle=True), "allow_pickle=False"),
        ("features.json", lambda path: path.write_text("{}"), "is not the card"),
        ("features.json", lambda path: path.write_text("["), "cannot be read as a folder of features"),
        ("embeddings.npy", lambda path: path.write_bytes(path.read_bytes()[:-1]), "cannot be read as a folder"),
    ],
)
def test_a_damaged_folder_of_arrays_is_refused(name: str, change: Any, reason: str, tmp_path: Path) -> None:
    FORMS["arrays"].write(tmp_path / "arrays", CLIPS)
    change(tmp_path / "arrays" / name)
    with pytest.raises(DataError, match=reason):
        read_arrays(tmp_path / "arrays")
    with pytest.raises(DataError, match=reason):
        list(read(tmp_path / "arrays"))


@pytest.mark.parametrize("kind", ["hdf5", "arrays"])
def test_no_clips_make_an_empty_file(kind: str, tmp_path: Path) -> None:
    assert FORMS[kind].write(tmp_path / OUTPUTS[kind], []) == 0
    with pytest.raises(NoInputError, match="has no clips"):
        list(read(tmp_path / OUTPUTS[kind]))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.tfrecord"])
def test_the_same_clips_make_the_same_bytes(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    assert written(first / name).read_bytes() == written(second / name).read_bytes()


def test_archives_have_the_released_tree(tmp_path: Path) -> None:
    with tarfile.open(written(tmp_path / "a.tar.gz", [*CLIPS, clip(subset=None)])) as archive:
        assert archive.getnames() == [
            "audioset_v1_embeddings/bal_train/-0.tfrecord",
            "audioset_v1_embeddings/bal_train/aB.tfrecord",
            "audioset_v1_embeddings/eval/--.tfrecord",
            "audioset_v1_embeddings/unknown/--.tfrecord",
        ]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_shards_that_outgrow_memory_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_tfrecord, "BUFFERED_BYTES", 4000)
    many = [clip(f"{'abc'[i % 3]}x{i:09d}", 10, "eval", i) for i in range(50)]
    found = {each.video_id: key(each) for each in read(written(tmp_path / "a.tar.gz", many))}
    assert found == {each.video_id: key(each) for each in many}


@pytest.mark.parametrize("video_id", ["../etc/pass", "/abcdefghij", "é1234567890", "a"])
@pytest.mark.parametrize("name", ["a.tar.gz", "shards"])
def test_ids_that_name_no_shard_are_refused(video_id: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"names no shard.*write one file"):
        written(tmp_path / name, [clip(video_id)])
    assert list(tmp_path.iterdir()) == []
    assert [each.video_id for each in read(written(tmp_path / "a.tfrecord", [clip(video_id)]))] == [video_id]


def test_a_disk_that_folds_case_loses_no_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_tfrecord, "_folds_case", lambda folder: True)
    written(tmp_path / "apart")
    colliding = [*CLIPS, clip("AbCDEFGHIJK", 1, "bal_train")]
    with pytest.raises(OutputError, match=r"takes bal_train/Ab\.tfrecord and bal_train/aB\.tfrecord for one.*tar\.gz"):
        written(tmp_path / "together", colliding)
    assert [path.name for path in tmp_path.iterdir()] == ["apart"]
    assert len(list(read(written(tmp_path / "together.tar.gz", colliding)))) == 4


def test_the_disk_is_probed_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probe").mkdir()
    assert feature_tfrecord._folds_case(tmp_path / "probe") == (tmp_path / "PROBE").exists()
    monkeypatch.setattr(Path, "exists", lambda self: True)
    assert feature_tfrecord._folds_case(tmp_path / "probe")
    assert list((tmp_path / "probe").iterdir()) == []
