"""Hostile data: arrays, features, tables, settings, accounts and indexes."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import sqlite3
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import h5py
import numpy as np
from hostile_place import (
    DEEP,
    REFUSALS,
    Gadget,
    Place,
    Write,
    hostile,
)
from sounds import noise, wav_bytes

from audioset.dataset.download.ledger import Ledger

# arrays --------------------------------------------------------------------------------------------------------------


def _npy(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text) if length is None else length) + text + data


ARRAYS: dict[str, Callable[[Place], bytes]] = {
    "pickled": lambda place: _npy(
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps(Gadget(place))
    ),
    "a shape of 2^60": lambda place: _npy(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1073741824, 1073741824)}"
    ),
    "a negative shape": lambda place: _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 527)}", bytes(8)),
    "a header of 4 GiB": lambda place: _npy("{}", length=2**32 - 16),
    "a header of lists": lambda place: _npy("[" * 9_000),
    "code in the header": lambda place: _npy(f"open({place.canary!r}, 'w')"),
    "a dtype of a thousand fields": lambda place: _npy(
        f"{{'descr': {[(str(n), '<f4') for n in range(100)]}, 'fortran_order': False, 'shape': (1,)}}", bytes(400)
    ),
    "a boundless string": lambda place: _npy("{'descr': '<U2147483647', 'fortran_order': False, 'shape': (1,)}"),
}


def _npz(make: Callable[[Place], bytes]) -> Write:
    def write(place: Place) -> list[str]:
        with zipfile.ZipFile(place.path("scores.npz"), "w") as archive:
            for name in ("scores.npy", "ids.npy"):
                archive.writestr(name, make(place))
        return _evaluate(place)

    return write


def _evaluate(place: Place) -> list[str]:
    place.write("labels.csv", '# YTID, start, end, labels\nabcdefghijk, 0.0, 10.0, "/m/09x0r"\n')
    return ["evaluate", "--scores", "scores.npz", "--labels", "labels.csv", "--json"]


for _name, _make in ARRAYS.items():
    hostile(f"npz: {_name}")(_npz(_make))


@hostile("npz: a bomb")
def _npz_bomb(place: Place) -> list[str]:
    header = _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 527)}")
    with zipfile.ZipFile(place.path("scores.npz"), "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("scores.npy", "w", force_zip64=True) as file:
            file.write(header)
            for _ in range(2_010):
                file.write(bytes(1 << 20))
        archive.writestr("ids.npy", _npy("{'descr': '<U11', 'fortran_order': False, 'shape': (1,)}", bytes(44)))
    return _evaluate(place)


# features ------------------------------------------------------------------------------------------------------------


def _features(name: str, make: Callable[[Place], bytes]) -> Write:
    def write(place: Place) -> list[str]:
        place.write(name, make(place))
        return ["data", "features", "convert", name, "out.parquet", "--format", "parquet"]

    return write


def _tar_gz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


RECORD = struct.pack("<Q", 2**63) + bytes(4)
SHARD = "audioset_v1_embeddings/eval/ab.tfrecord"
for _name, _file, _make in (
    ("a record of 2^63", "x.tfrecord", lambda place: RECORD),
    ("zeros", "x.tfrecord", lambda place: bytes(100_000)),
    ("names that lead out", "x.tar.gz", lambda place: _tar_gz((_member("../outside/victim.txt"), b"owned"))),
    ("absolute names", "x.tar.gz", lambda place: _tar_gz((_member(str(place.work.parent / "CANARY")), b"owned"))),
    (
        "links that lead out",
        "x.tar.gz",
        lambda place: _tar_gz(
            (_member("audioset_v1_embeddings/eval", tarfile.SYMTYPE, "../../outside"), b""),
            (_member(SHARD), b"owned"),
        ),
    ),
    ("a device", "x.tar.gz", lambda place: _tar_gz((_member(SHARD, tarfile.CHRTYPE), b""))),
    ("an archive of 2 GB of zeros", "x.tar.gz", lambda place: gzip.compress(bytes(1 << 25)) * 64),
    ("a record of 2^63 in an archive", "x.tar.gz", lambda place: _tar_gz((_member(SHARD), RECORD))),
    ("Parquet without an end", "x.parquet", lambda place: b"PAR1" + bytes(1000) + b"\xff\xff\xff\x7fPAR1"),
    ("Parquet of ones", "x.parquet", lambda place: b"PAR1" + b"\xff" * 400 + struct.pack("<I", 300) + b"PAR1"),
    ("HDF5 of nothing", "x.h5", lambda place: b"\x89HDF\r\n\x1a\n" + bytes(1000)),
):
    hostile(f"features: {_name}", outputs=("out.parquet",))(_features(_file, _make))


def _feature_hdf5(fill: Callable[[h5py.File, Place], Any]) -> Write:
    def write(place: Place) -> list[str]:
        with h5py.File(place.path("x.h5"), "w") as file:
            fill(file, place)
        return ["data", "features", "convert", "x.h5", "out.parquet", "--format", "parquet"]

    return write


for _name, _fill in {
    "external links": lambda file, place: [
        file.__setitem__(name, h5py.ExternalLink("../outside/x.h5", "/")) for name in ("x", "y", "video_id_list")
    ],
    "a shape of 2^40": lambda file, place: [
        file.create_dataset(name, (2**30, *shape), kind, chunks=True)
        for name, shape, kind in (("x", (10, 128), "u1"), ("y", (527,), "?"), ("video_id_list", (), "S11"))
    ],
}.items():
    hostile(f"features: HDF5 with {_name}", outputs=("out.parquet",))(_feature_hdf5(_fill))


def _feature_folder(**changes: Any) -> Write:
    def write(place: Place) -> list[str]:
        card = {"kind": "audioset features", "format": 1, "n_clips": 1, "files": {}, "digests": {}}
        place.write("arrays/features.json", json.dumps({**card, **changes}))
        return ["data", "features", "convert", "arrays", "out.parquet", "--format", "parquet"]

    return write


for _name, _changes in {
    "names that lead out": {"files": {"../../outside/victim.txt": "sha256:0"}},
    "a negative count": {"n_clips": -(10**30)},
    "text for a count": {"n_clips": "many", "files": 7, "digests": None},
}.items():
    hostile(f"features: a card with {_name}", outputs=("out.parquet",))(_feature_folder(**_changes))


# tables, settings, accounts ------------------------------------------------------------------------------------------


def _calibrate(text: str | bytes) -> Write:
    def write(place: Place) -> list[str]:
        place.write("labels.csv", text)
        return ["calibrate", "labels.csv", "--model", "model", "-q", "-o", "calibrated"]

    return write


for _name, _text in {
    "NUL": b"path,label\na.wav,\0\0\0\n",
    "an open quotation": 'path,label\n"a.wav,class 1\n' * 3,
    "one line of 50 MB": "path,label\n" + "x" * 50_000_000,
    "a million columns": "path,label" + "," * 1_000_000 + "\na.wav,class 1\n",
    "times that are none": "path,label,start_s,end_s\na.wav,class 1,nan,inf\n",
    "times beyond floats": "path,label,start_s,end_s\na.wav,class 1,1e308,1e309\n",
    "escape sequences": "path,label\na.wav,\x1b]0;owned\x07\x1b[31mclass 1\n",
    "half of UTF-16": "path,label\n".encode("utf-16")[:-1],
    "paths that lead to devices": "path,label\n/dev/zero,class 1\n/dev/stdin,class 2\n",
    "formulas": "path,label\n=cmd|'/c calc'!A1,class 1\n@SUM(1),class 2\n",
}.items():
    hostile(f"labels: {_name}", outputs=("calibrated",))(_calibrate(_text))


@hostile("labels: Raven times without end", statuses=(0, *REFUSALS))
def _raven(place: Place) -> list[str]:
    place.write("birds/a.wav", wav_bytes(noise(16_000), 16_000))
    heading = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    place.write("birds/a.selections.txt", heading + "1\tS\t1\t-inf\tnan\t0\t1e999\t\x1b[31mowl\n" * 3)
    return ["train", "check", "birds"]


@hostile("segments: ids that lead out", outputs=("set",))
def _segments(place: Place) -> list[str]:
    place.write(
        "eval_segments.csv", '# YTID, start_seconds, end_seconds, positive_labels\n../../../out, 0, 10, "/m/09x0r"\n'
    )
    return [
        "data",
        "download",
        "--rate",
        "none",
        "--url-template",
        "http://127.0.0.1:9/{video_id}",
        "set",
        "eval_segments.csv",
    ]


@hostile("ontology: lists in lists", statuses=(0, *REFUSALS))
def _ontology(place: Place) -> list[str]:
    place.write("assets/ontology.json", "[" * DEEP)
    return ["data", "ontology", "show", "Speech"]


@hostile("ontology: other types", statuses=(0, *REFUSALS))
def _ontology_types(place: Place) -> list[str]:
    place.write("assets/ontology.json", '[{"id": [], "name": {}, "child_ids": 7}, 3, null]')
    return ["data", "ontology", "show", "Speech"]


def _settings(text: str) -> Write:
    def write(place: Place) -> list[str]:
        place.write("run.toml", text)
        return ["train", "heads", "--config", "run.toml", "-q", "-o", "run"]

    return write


for _name, _text in {
    "lists in lists": "features = " + "[" * 50_000,
    "tables in tables": "a" + ".a" * 50_000 + " = 1",
    "a number of a million digits": "seed = " + "9" * 1_000_000,
    "other types": 'features = 7\nbatch_size = "many"\nseed = []\n',
    "a batch of 10^18": 'features = "x"\nbatch_size = 1000000000000000000\n',
}.items():
    hostile(f"settings: {_name}", outputs=("run",))(_settings(_text))


def _ledger(*statements: str) -> Write:
    def write(place: Place) -> list[str]:
        place.path("set/x").touch()
        Ledger(place.path("set/ledger.sqlite")).close()
        with closing(sqlite3.connect(place.path("set/ledger.sqlite"))) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return ["data", "status", "set", "--json"]

    return write


CLIP = "INSERT INTO clips (video_id, start_ms, end_ms, bucket, subset, label_ids, state, file, due_at) VALUES "
for _name, _statements in {
    "files that lead out": [CLIP + "('abcdefghijk', 0, 10000, 1, 'eval', '', 'done', '../outside/victim.wav', NULL)"],
    "text for numbers": [CLIP + "('abcdefghijk', 'x', 'y', 'z', 1, 2, 3, 4, 'when')"],
    "a state of its own": [CLIP + "('\x1b[2Jghijk', 0, 1, 1, 'e\x1b[2J', '', '\x1b[2J', NULL, 0)"],
    "no tables": ["DROP TABLE clips", "DROP TABLE history"],
    "a view without end": [
        "DROP TABLE clips",
        "CREATE VIEW clips AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) "
        "SELECT x AS video_id, x AS start_ms, x AS end_ms, x AS subset, 'done' AS state, NULL AS due_at FROM c",
    ],
    "a version of its own": ["PRAGMA user_version = 2147483647"],
}.items():
    hostile(f"ledger: {_name}", statuses=(0, *REFUSALS), outputs=("set",))(_ledger(*_statements))


@hostile("ledger: files that lead out, merged", statuses=(0, *REFUSALS), outputs=("set", "other"))
def _merged(place: Place) -> list[str]:
    _ledger(CLIP + "('abcdefghijk', 0, 10000, 1, '../../outside', '', 'done', '../outside/victim.wav', NULL)")(place)
    place.path("set/ledger.sqlite").rename(place.path("other/ledger.sqlite"))
    return ["data", "merge", "set", "other/ledger.sqlite"]


@hostile("ledger: damaged at random", statuses=(0, *REFUSALS), outputs=("set",))
def _damaged_ledger(place: Place) -> list[str]:
    arguments = _ledger(CLIP + "('abcdefghijk', 0, 10000, 1, 'eval', '', 'done', 'x', NULL)")(place)
    path = place.path("set/ledger.sqlite")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(place.seed)
    for at in rng.integers(16, len(data), 300):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    return arguments


# indexes -------------------------------------------------------------------------------------------------------------


def _index(command: Sequence[str], text: str | None = None, **changes: Any) -> Write:
    def write(place: Place) -> list[str]:
        settings = {"model": "model", "weights": None, "precision": "f32", "hop_s": None, "window_s": None, "pad": None}
        card = {"settings": settings, "model_digest": "0" * 64, "embedding_size": 96, "shards": {}, "n_recordings": 0}
        place.write("index/index.json", text or json.dumps({**card, "version": "0.1.0", "format": 1, **changes}))
        return [*command]

    return write


SEARCH = ("search", "index", "--like", "a.wav")
PRUNE = ("index", "a.wav", "-o", "index", "--prune", "-q")
for _name, _write in {
    "shards that lead out, searched": _index(SEARCH, shards={"../../outside/victim.parquet": 10}),
    "shards that lead out, pruned": _index(PRUNE, shards={"../../outside/victim.parquet": 10}),
    "absolute shards": _index(SEARCH, shards={"/etc/passwd": 10}),
    "a count of 10^18": _index(SEARCH, shards={"embeddings-0.parquet": 10**18}, embedding_size=10**18),
    "a count below 0": _index(SEARCH, shards={"embeddings-0.parquet": -1}),
    "lists in lists": _index(SEARCH, "[" * DEEP),
    "other types": _index(SEARCH, settings=7, shards=[1], embedding_size="x", n_recordings=None),
    "a model that leads out": _index(SEARCH, settings={"model": "../outside", "weights": "/dev/zero"}),
    "shards with escape sequences": _index(SEARCH, shards={"\x1b[2J\x1b]0;owned\x07": 1}),
}.items():
    hostile(f"index: {_name}", outputs=("index/.lock", "index/index.json", "index/embeddings"))(_write)
