"""The released features: every record read, what hostile ones do, and the forms they are converted to and back."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import random
import struct
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ASSETS
from feature_clips import CLIPS, clip, key
from tfrecords import parsed, records

from audioset.cli.data_features import features as command
from audioset.dataset.features import examples as feature_examples
from audioset.dataset.features import tfrecord as feature_tfrecord
from audioset.dataset.features.checks import summarise, verify
from audioset.dataset.features.clips import ClipArrays, FeatureClip, join_arrays
from audioset.dataset.features.examples import clip_to_example, encode_clip, example_to_clip, parse_clip
from audioset.dataset.features.framing import frame_record, read_records
from audioset.dataset.features.problems import Malformed, Problems
from audioset.dataset.features.reading import WRITERS, convert, read, read_arrays
from audioset.dataset.features.sequence_example import (
    bytes_feature,
    float_feature,
    int64_feature,
    message,
    sequence_example,
    varint,
)
from audioset.errors import AudioSetError, ConflictError, DataError, NoInputError, OutputError, UsageError
from audioset.labels.labels import LabelSet

# Counted independently of this code, in the published shards.
LENGTHS = {
    "bal_train": {10: 21782, 9: 87, 7: 69, 8: 57, 6: 47, 4: 39, 5: 38, 3: 22, 2: 15, 1: 4},
    "eval": {10: 19976, 9: 90, 8: 78, 7: 77, 6: 64, 5: 33, 4: 19, 2: 17, 3: 15, 1: 2},
}
LISTS = {"bal_train": "balanced_train_segments.csv", "eval": "eval_segments.csv"}
OUTPUTS = {
    "parquet": "a.parquet",
    "hdf5": "a.h5",
    "arrays": "arrays",
    "tfrecord": "a.tar.gz",
    "folder": "shards",
    "file": "a.tfrecord",
    "youtube8m": "y.tar.gz",
}
WRITER_OF = {"folder": "tfrecord", "file": "tfrecord"}


@pytest.fixture(scope="session")
def archive() -> Path:
    path = ASSETS / "features.tar.gz"
    if not path.is_file():
        pytest.skip(f"no released features: there is no {path}")
    return path


@pytest.fixture(scope="session")
def released(archive: Path) -> list[FeatureClip]:
    """All released clips of the balanced and the evaluation set, read once."""
    return list(read(archive))


def needs_extra(kind: str) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")


def same(a: FeatureClip, b: FeatureClip) -> bool:
    return key(a) == key(b)


def written(path: Path, clips: list[FeatureClip] = CLIPS) -> Path:
    feature_tfrecord.write(path, clips)
    return path


# Every released record


def test_all_released_clips_are_there_with_their_lengths(released: list[FeatureClip]) -> None:
    for subset, lengths in LENGTHS.items():
        assert Counter(len(each.embeddings) for each in released if each.subset == subset) == lengths


def test_all_labels_and_starts_equal_the_published_lists(released: list[FeatureClip]) -> None:
    index_of = {label_id: i for i, label_id in enumerate(LabelSet.load("audioset-527").ids)}
    listed = {}
    for subset, name in LISTS.items():
        with (ASSETS / name).open(newline="") as file:
            for video_id, start_s, _, labels in itertools.islice(csv.reader(file, skipinitialspace=True), 3, None):
                labels = tuple(sorted(index_of[label_id] for label_id in labels.split(",")))
                listed[video_id] = (subset, np.float32(start_s), labels)
    assert {each.video_id: (each.subset, each.start_s, each.labels) for each in released} == listed
    assert len(released) == len(listed) == 42_531


def test_a_clip_has_one_embedding_for_each_of_its_seconds(released: list[FeatureClip]) -> None:
    for each in released:
        assert abs(each.end_s - each.start_s - len(each.embeddings)) < 1


def test_both_parsers_read_the_same(archive: Path, released: list[FeatureClip]) -> None:
    with tarfile.open(archive, "r|gz") as shards:
        files = ((member, shards.extractfile(member)) for member in shards if member.isfile())
        payloads = (
            payload
            for member, file in itertools.islice(files, 600)
            for _, _, payload in read_records(file, member.size, "", Problems())
        )
        count = 0
        for payload, expected in zip(payloads, released, strict=False):
            assert same(parse_clip(payload, expected.subset), expected)
            count += 1
    assert count > 2000


def test_nearly_all_records_take_the_short_way(released: list[FeatureClip], archive: Path) -> None:
    n_long = sum(len(encode_labels(each.labels)) > feature_examples.MAX_USUAL_LABEL_BYTES for each in released)
    assert n_long == 5
    assert all(feature_examples._usual_clip(clip_to_example(each), None) for each in released[:500])


def encode_labels(labels: tuple[int, ...]) -> bytes:
    return b"".join(map(varint, labels))


def test_a_naive_reader_agrees(archive: Path, released: list[FeatureClip]) -> None:
    with tarfile.open(archive, "r|gz") as shards:
        member = next(member for member in shards if member.isfile())
        payloads = list(records(shards.extractfile(member).read()))
    for payload, ours in zip(payloads, released, strict=False):
        theirs = parsed(payload)
        context = {name: values for name, (_, values) in theirs["context"].items()}
        assert context["video_id"] == [ours.video_id.encode()]
        assert (context["start_time_seconds"], context["end_time_seconds"]) == ([ours.start_s], [ours.end_s])
        assert tuple(context["labels"]) == ours.labels
        frames = [value for _, (value,) in theirs["lists"]["audio_embedding"]]
        assert b"".join(frames) == ours.embeddings.tobytes()


def test_the_released_features_are_sound(archive: Path) -> None:
    report = verify(archive, [ASSETS / name for name in LISTS.values()])
    assert (report.n_clips, report.n_listed, report.is_sound) == (42_531, 42_531, True)
    assert report.n_short == 79


def test_statistics_of_the_released_features(released: list[FeatureClip]) -> None:
    summary = summarise(released)
    assert summary.n_clips == 42_531
    assert summary.subsets == {"bal_train": 22_160, "eval": 20_371}
    assert summary.n_seconds == sum(n * count for lengths in LENGTHS.values() for n, count in lengths.items())
    everything = np.concatenate([each.embeddings for each in released])
    assert summary.mean == pytest.approx(everything.mean(), abs=1e-9)
    assert summary.sd == pytest.approx(everything.std(), abs=1e-9)
    assert summary.share_0 == pytest.approx((everything == 0).mean())
    assert summary.share_255 == pytest.approx((everything == 255).mean())
    assert len(summary.n_clips_of_class) == 527
    assert min(summary.n_clips_of_class) > 0


@pytest.mark.parametrize("kind", ["parquet", "hdf5", "arrays", "tfrecord"])
def test_all_released_clips_survive_a_round_trip(kind: str, released: list[FeatureClip], tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind].removesuffix(".gz")
    assert WRITERS[kind](path, released) == 42_531
    again = {each.video_id: key(each) for each in read(path)}
    assert again == {each.video_id: key(each) for each in released}


def test_arrays_of_a_subset(archive: Path, released: list[FeatureClip]) -> None:
    arrays = read_arrays(archive, "eval")
    expected = [each for each in released if each.subset == "eval"]
    assert arrays.embeddings.shape == (20_371, 10, 128)
    assert arrays.lengths.tolist() == [len(each.embeddings) for each in expected]
    assert arrays.video_ids.tolist() == [each.video_id.encode() for each in expected]
    assert arrays.targets().sum() == 51_804
    for i in (0, 4095, 4096, 20_370):
        assert same(arrays.clip(i), expected[i])
        assert not arrays.embeddings[i, arrays.lengths[i] :].any()


# Where they are


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_every_form_is_read_by_the_same_call(kind: str, tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind]
    assert WRITERS[WRITER_OF.get(kind, kind)](path, CLIPS) == 3
    expected = {each.video_id: each for each in CLIPS}
    for each in read(path):
        subset = None if kind == "file" else expected[each.video_id].subset
        assert key(each)[:-1] == key(expected.pop(each.video_id))[:-1]
        assert each.subset == subset
    assert not expected
    arrays = read_arrays(path)
    assert (len(arrays), arrays.embeddings.dtype, arrays.lengths.sum()) == (3, np.uint8, 14)


@pytest.mark.parametrize("kind", [kind for kind in OUTPUTS if kind != "file"])
@pytest.mark.parametrize("name", ["bal_train", "balanced_train_segments"])
def test_one_subset_of_every_form(kind: str, name: str, tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind]
    WRITERS[WRITER_OF.get(kind, kind)](path, CLIPS)
    assert [each.video_id for each in read(path, name)] == ["-0abcdefghi", "aBcdefghijk"]
    assert read_arrays(path, name).lengths.tolist() == [3, 1]
    with pytest.raises(NoInputError, match="no clips of unbal_train, only of bal_train, eval"):
        list(read(path, "unbal_train"))


def test_folders_files_and_globs_know_their_subset(tmp_path: Path) -> None:
    folder = written(tmp_path / "shards") / "audioset_v1_embeddings"
    assert {each.subset for each in read(folder / "eval")} == {"eval"}
    assert {each.subset for each in read(folder / "eval" / "--.tfrecord")} == {"eval"}
    assert [each.video_id for each in read(folder / "*" / "a*.tfrecord")] == ["aBcdefghijk"]
    assert len(list(read(folder / "**" / "*.tfrecord"))) == 3


def test_a_file_that_says_no_subset_is_not_taken_for_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord")
    with pytest.raises(UsageError, match=r"a\.tfrecord does not say what subset .* leave the subset out"):
        list(read(path, "eval"))


def test_clips_can_be_read_twice(tmp_path: Path) -> None:
    clips = read(written(tmp_path / "a.tar"))
    assert [key(each) for each in clips] == [key(each) for each in clips] != []


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder = written(tmp_path / "shards") / "audioset_v1_embeddings" / "eval"
    (folder / "._--.tfrecord").write_bytes(b"macOS")
    (folder / "readme.txt").write_bytes(b"text")
    assert len(list(read(tmp_path / "shards"))) == 3


@pytest.mark.parametrize("name", ["nothing.tar.gz", "no*.tfrecord", "no/such/folder"])
def test_nothing_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"there is no .*; expected features\.tar\.gz as released"):
        list(read(tmp_path / name))


def test_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="has no clips; expected"):
        list(read(tmp_path))
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(NoInputError, match=r"a\.txt has a name that says no format"):
        list(read(tmp_path / "a.txt"))


def test_an_unknown_subset_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="the subset is 'train'; expected one of bal_train, eval, unbal_train"):
        read("features.tar.gz", "train")


# Records of other shapes


def entry(name: str, feature: bytes) -> bytes:
    return message(1, message(1, name.encode()) + message(2, feature))


CONTEXT = {
    "video_id": bytes_feature(b"--4gqARaEJE"),
    "start_time_seconds": float_feature(30.0),
    "end_time_seconds": float_feature(32.0),
    "labels": int64_feature((0, 74, 526)),
}
FRAMES = [bytes(range(128)), bytes(range(128, 256))]
LISTS_BYTES = message(2, entry("audio_embedding", b"".join(message(1, bytes_feature(frame)) for frame in FRAMES)))


def example(**changes: bytes | None) -> bytes:
    context = {name: feature for name, feature in {**CONTEXT, **changes}.items() if feature is not None}
    return message(1, b"".join(itertools.starmap(entry, context.items()))) + LISTS_BYTES


def check_usual(payload: bytes) -> None:
    found = example_to_clip(payload, "eval")
    assert (found.video_id, found.start_s, found.end_s, found.labels) == ("--4gqARaEJE", 30.0, 32.0, (0, 74, 526))
    assert found.embeddings.tobytes() == b"".join(FRAMES)


@pytest.mark.parametrize("order", list(itertools.permutations(CONTEXT)), ids=" ".join)
def test_the_context_may_have_any_order(order: tuple[str, ...]) -> None:
    payload = message(1, b"".join(entry(name, CONTEXT[name]) for name in order)) + LISTS_BYTES
    assert feature_examples._usual_clip(payload, None)
    check_usual(payload)


def test_other_ways_to_say_the_same() -> None:
    unpacked = message(3, b"\x08\x00\x08\x4a\x08\x8e\x04")
    check_usual(example(labels=unpacked))
    check_usual(example(labels=message(3, b"\x08\x00" + message(1, b"\x4a\x8e\x04"))))  # both
    check_usual(example(labels=message(3, message(1, b"\x8e\x04\x00\x4a\x00"))))  # out of order, one twice
    check_usual(example(start_time_seconds=message(2, b"\x0d" + struct.pack("<f", 30))))
    check_usual(example(extra=bytes_feature(b"unknown")))
    check_usual(LISTS_BYTES + example()[: -len(LISTS_BYTES)])  # parts in the other order
    check_usual(example() + message(15, b"?") + b"\x78\x05" + b"\x7d1234" + b"\x7912345678")  # unknown fields
    check_usual(example(video_id=message(3, b"")) + example()[: -len(LISTS_BYTES)])  # the last of two is meant
    check_usual(message(1, b"") + example())
    one_at_a_time = b"".join(message(1, entry(name, feature)) for name, feature in CONTEXT.items())
    check_usual(one_at_a_time + LISTS_BYTES)  # parts of a message are merged


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "it has no video_id and no id"),
        (example(video_id=None), "it has no video_id and no id; expected the id of a video"),
        (example(start_time_seconds=None), "it has no start_time_seconds; expected seconds"),
        (example(end_time_seconds=None), "it has no end_time_seconds"),
        (example()[: -len(LISTS_BYTES)], "it has no audio_embedding; expected a list"),
        (example(video_id=float_feature(1)), "a feature holds floats; expected bytes"),
        (example(video_id=int64_feature([1])), "a feature holds integers; expected bytes"),
        (example(video_id=message(1, b"")), "video_id is nothing; expected one byte string"),
        (example(video_id=message(1, message(1, b"a") * 2)), "video_id is several byte strings"),
        (example(video_id=bytes_feature(b"")), "video_id has 0 bytes"),
        (
            example(video_id=bytes_feature(b"x" * 256)),
            "video_id has 256 bytes, 'x{20}'; expected 1 to 255",
        ),
        (example(video_id=bytes_feature(b"a\0bcdefghij")), "video_id has 11 bytes"),
        (example(video_id=bytes_feature(b"\xff" * 11)), "video_id is not UTF-8"),
        (example(start_time_seconds=bytes_feature(b"30")), "a feature holds bytes; expected floats"),
        (
            example(start_time_seconds=float_feature(float("nan"))),
            r"start_time_seconds is \[nan\]; expected one",
        ),
        (example(end_time_seconds=float_feature(float("inf"))), r"end_time_seconds is \[inf\]"),
        (example(end_time_seconds=message(2, message(1, bytes(8)))), r"end_time_seconds is \[0.0, 0.0\]"),
        (example(end_time_seconds=message(2, message(1, bytes(3)))), "floats are stored as bytes of any length"),
        (example(end_time_seconds=message(2, b"\x09" + bytes(8))), "floats are stored as 8 bytes"),
        (example(labels=int64_feature([527])), "a label is 527; expected 0 to 526"),
        (example(labels=int64_feature([2**64 - 1])), "a label is -1; expected 0 to 526"),
        (example(labels=message(3, message(1, b"\x80"))), "a field goes beyond the end"),
        (example(labels=message(3, message(1, b"\xff" * 10 + b"\1"))), "a number has more than 64 bits"),
        (example(labels=message(3, b"\x0d" + bytes(4))), "integers are stored as 4 bytes; expected numbers"),
        (example(labels=b"\x18\x05"), "a feature holds a number; expected integers"),
        (example() + b"\x0b", "field 1 of wire type 3 is none of protobuf's"),
        (example() + b"\x00", "field 0 of wire type 0"),
        (example() + b"\x12\xff\xff\xff\xff\x0f", "a field goes beyond the end of the record"),
        (example() + b"\x08\x05", "field 1 has a number; expected bytes of any length"),
        (example() + message(1, message(1, b"\x08\x01")), "an entry of a map has a number"),
        (
            example() + message(2, entry("audio_embedding", message(1, bytes_feature(bytes(127))))),
            "127 bytes; expected 128",
        ),
        (example() + message(2, entry("audio_embedding", message(1, b""))), "an embedding is nothing"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(payload: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        example_to_clip(payload, None)


def test_a_label_that_takes_more_bytes_than_needed_is_read() -> None:
    check_usual(example(labels=message(3, message(1, b"\x80\x00\xca\x00\x8e\x04"))))


def mutated(payload: bytes, choose: random.Random) -> bytes:
    data = bytearray(payload)
    for _ in range(choose.choice((1, 1, 1, 2, 5))):
        at = choose.randrange(len(data)) if choose.random() < 0.5 else choose.randrange(min(len(data), 170))
        kind = choose.randrange(4)
        if kind == 0:
            data[at] = choose.randrange(256)
        elif kind == 1:
            del data[at : at + choose.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = choose.randbytes(choose.randrange(1, 9))
        else:
            del data[at:]
        if not data:
            return b""
    return bytes(data)


def test_nothing_but_a_clip_or_a_data_error_comes_out_of_damaged_records() -> None:
    choose = random.Random(0)
    originals = [clip_to_example(clip(n_seconds=n)) for n in (1, 10)] + [
        example(labels=message(3, b"\x08\x00\x08\x4a"))
    ]
    outcomes: Counter[str] = Counter()
    for _ in range(20_000):
        payload = mutated(choose.choice(originals), choose)
        try:
            found = example_to_clip(payload, "eval")
        except Malformed:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        assert found.embeddings.dtype == np.uint8
        assert found.embeddings.shape[1:] == (128,)
        assert all(0 <= index < 527 for index in found.labels)
        assert same(found, parse_clip(payload, "eval"))  # both ways agree on what is readable
    assert min(outcomes.values()) > 1000


def test_nothing_but_data_errors_comes_out_of_damaged_files(tmp_path: Path) -> None:
    choose = random.Random(1)
    path, original = tmp_path / "a.tfrecord", b"".join(frame_record(clip_to_example(each)) for each in CLIPS)
    for _ in range(500):
        path.write_bytes(mutated(original, choose))
        clips = read(path, on_error="skip")
        n_read = len(list(clips)) if path.stat().st_size else 0
        assert n_read + clips.problems.n_skipped >= min(1, path.stat().st_size)
        assert all(isinstance(error, DataError) for error in clips.problems.kept)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_nothing_but_our_errors_comes_out_of_damaged_archives(suffix: str, tmp_path: Path) -> None:
    choose = random.Random(2)
    original = written(tmp_path / f"good{suffix}").read_bytes()
    path = tmp_path / f"a{suffix}"
    for _ in range(400):
        path.write_bytes(mutated(original, choose))
        try:
            list(read(path))
        except (DataError, NoInputError):
            continue


@pytest.mark.parametrize(("kind", "n_runs"), [("parquet", 150), ("hdf5", 150)])
def test_nothing_but_our_errors_comes_out_of_damaged_tables(kind: str, n_runs: int, tmp_path: Path) -> None:
    needs_extra(kind)
    choose = random.Random(3)
    good, path = tmp_path / f"good-{OUTPUTS[kind]}", tmp_path / OUTPUTS[kind]
    WRITERS[kind](good, CLIPS)
    original = good.read_bytes()
    for _ in range(n_runs):
        path.write_bytes(mutated(original, choose))
        try:
            list(read(path))
        except (DataError, NoInputError):
            continue


def test_an_error_names_file_record_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    good = frame_record(example())
    path.write_bytes(good + frame_record(example(labels=int64_feature([600]))) + good)
    place = rf"x\.tfrecord: record 1 at byte {len(good)}: a label is 600; expected 0 to 526\. Likely.*Next step: "
    with pytest.raises(DataError, match=place):
        list(read(path))
    clips = read(path, on_error="skip")
    assert [each.video_id for each in clips] == ["--4gqARaEJE"] * 2
    assert clips.problems.n_skipped == 1


def test_an_error_in_an_archive_names_the_member(tmp_path: Path) -> None:
    path = tmp_path / "f.tar"
    with tarfile.open(path, "w") as archive:
        header = tarfile.TarInfo("top/eval/--.tfrecord")
        header.size = 100
        archive.addfile(header, io.BytesIO(bytes(100)))
    with pytest.raises(DataError, match=r"f\.tar:top/eval/--\.tfrecord: record 0 at byte 0: the checksum"):
        list(read(path))


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.999])
def test_a_cut_archive_is_an_error(cut: float, tmp_path: Path) -> None:
    whole = written(tmp_path / "a.tar.gz").read_bytes()
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(DataError, match=r"cut\.tar\.gz"):
        list(read(path))


def test_the_checksum_at_the_end_of_an_archive_is_compared(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"it cannot be read to its end .*CRC"):
        list(read(path))


def test_an_archive_cannot_make_its_reader_swallow_a_huge_header(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 33
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(DataError, match="a header claims 8,589,934,592 bytes; expected at most 1,048,576"):
        list(read(path))


def test_clips_of_any_length_are_read_and_written(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord", [clip(n_seconds=300), clip(n_seconds=0)])
    assert [len(each.embeddings) for each in read(path)] == [300, 0]
    with pytest.raises(DataError, match="--4gqARaEJE has 300 embeddings; there is room for 10"):
        read_arrays(path)
    for to in ("hdf5", "arrays"):
        with pytest.raises(DataError, match=r"has 300 embeddings; there is room for 10.*parquet or tfrecord"):
            convert(path, tmp_path / OUTPUTS[to], to)
        assert not (tmp_path / OUTPUTS[to]).exists()


def test_long_clips_fit_into_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    clips = [clip(n_seconds=300), clip(n_seconds=0), clip(n_seconds=10)]
    WRITERS["parquet"](tmp_path / "a.parquet", clips)
    assert [key(each) for each in read(tmp_path / "a.parquet")] == [key(each) for each in clips]


# The forms


def test_parquet_has_the_columns_that_are_promised(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    WRITERS["parquet"](tmp_path / "a.parquet", CLIPS)
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
    WRITERS["hdf5"](tmp_path / "a.h5", CLIPS)
    with h5py.File(tmp_path / "a.h5") as file:
        x, y, ids = (file[name][:] for name in ("x", "y", "video_id_list"))
    assert (x.dtype, x.shape, y.dtype, y.shape, ids.dtype.kind) == (np.uint8, (3, 10, 128), np.bool_, (3, 527), "S")
    assert ids.tolist() == [b"--4gqARaEJE", b"-0abcdefghi", b"aBcdefghijk"]
    for row, targets, each in zip(x, y, CLIPS, strict=True):
        assert row[: len(each.embeddings)].tobytes() == each.embeddings.tobytes()
        assert not row[len(each.embeddings) :].any()
        assert np.flatnonzero(targets).tolist() == list(each.labels)


def test_kongs_own_files_have_no_lengths_and_no_times(tmp_path: Path) -> None:
    WRITERS["hdf5"](tmp_path / "eval.h5", CLIPS)
    with h5py.File(tmp_path / "eval.h5", "a") as file:
        for name in ("lengths", "start_s", "end_s", "subsets"):
            del file[name]
    clips = list(read(tmp_path / "eval.h5", "eval"))
    assert [len(each.embeddings) for each in clips] == [10, 3, 1]
    assert all(np.isnan([each.start_s, each.end_s]).all() for each in clips)


def h5_with(path: Path, **changes: Any) -> Path:
    WRITERS["hdf5"](path, CLIPS)
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
    assert WRITERS["arrays"](folder, many) == 2500
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
    WRITERS["arrays"](tmp_path / "arrays", CLIPS)
    change(tmp_path / "arrays" / name)
    with pytest.raises(DataError, match=reason):
        read_arrays(tmp_path / "arrays")
    with pytest.raises(DataError, match=reason):
        list(read(tmp_path / "arrays"))


@pytest.mark.parametrize("kind", ["hdf5", "arrays"])
def test_no_clips_make_an_empty_file(kind: str, tmp_path: Path) -> None:
    assert WRITERS[kind](tmp_path / OUTPUTS[kind], []) == 0
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


# Writing


def failing() -> Iterator[FeatureClip]:
    yield CLIPS[0]
    raise RuntimeError("the source fails")


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_a_failure_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    needs_extra(kind)
    path = tmp_path / OUTPUTS[kind]
    with pytest.raises(RuntimeError, match="the source fails"):
        WRITERS[WRITER_OF.get(kind, kind)](path, failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_a_full_disk_is_said_and_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    needs_extra(kind)
    resource = pytest.importorskip("resource", reason="file sizes are limited on POSIX only")
    many = [clip(f"ab{i:09d}", 10, "eval", i) for i in range(600)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*Next step: "):
            WRITERS[WRITER_OF.get(kind, kind)](tmp_path / OUTPUTS[kind], many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["arrays", "folder"])
def test_a_folder_that_is_there_is_kept(kind: str, tmp_path: Path) -> None:
    path = tmp_path / OUTPUTS[kind]
    path.mkdir()
    WRITERS[WRITER_OF.get(kind, kind)](path, CLIPS)  # an empty one is filled
    before = sorted(path.rglob("*"))
    with pytest.raises(ConflictError, match=r"is there already\. Next step: choose another name"):
        WRITERS[WRITER_OF.get(kind, kind)](path, CLIPS[:1])
    assert sorted(path.rglob("*")) == before


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot convert to 'csv'; expected one of parquet, hdf5, arrays, tfrecord"):
        convert("features.tar.gz", "a.csv", "csv")


# Checks


LIST = '# a\n# b\n# c\n--4gqARaEJE, 30.000, 40.000, "{ids}"\n'
IDS = ",".join(LabelSet.load("audioset-527").ids[index] for index in (526, 0, 74))


def faults(clips: list[FeatureClip], rows: str, tmp_path: Path, name: str = "eval_segments.csv") -> dict[str, int]:
    (tmp_path / name).write_text(rows)
    path = tmp_path / "a.tar"
    report = verify(written(path, clips), [tmp_path / name])
    return {kind: count for kind, count in report.faults.items() if count}


def test_a_sound_file_has_no_faults(tmp_path: Path) -> None:
    assert faults([clip()], LIST.format(ids=IDS), tmp_path) == {}


def changed(**changes: Any) -> FeatureClip:
    names = [field.name for field in fields(FeatureClip)]
    return FeatureClip(**{**{name: getattr(clip(), name) for name in names}, **changes})


@pytest.mark.parametrize(
    ("clips", "expected"),
    [
        ([changed(labels=(0, 74))], {"wrong_labels": 1}),
        ([changed(start_s=31.0)], {"wrong_times": 1, "wrong_length": 1}),
        ([changed(end_s=39.0, embeddings=clip(n_seconds=9).embeddings)], {}),
        ([changed(end_s=39.0)], {"wrong_length": 1}),
        ([changed(embeddings=clip(n_seconds=8).embeddings)], {"wrong_length": 1}),
        ([clip(), clip()], {"duplicate": 1}),
        ([clip(), changed(video_id="--unlisted-")], {"unlisted": 1}),
        ([clip(), changed(video_id="--unlisted-", subset="bal_train")], {}),
        ([changed(video_id="--unlisted-")], {"missing": 1, "unlisted": 1}),
    ],
)
def test_faults_are_counted(clips: list[FeatureClip], expected: dict[str, int], tmp_path: Path) -> None:
    found = faults(clips, LIST.format(ids=IDS), tmp_path)
    assert found == expected


def test_a_clip_in_the_wrong_shard_and_damaged_records_are_found(tmp_path: Path) -> None:
    folder = written(tmp_path / "shards") / "audioset_v1_embeddings"
    (folder / "eval" / "--.tfrecord").rename(folder / "eval" / "zz.tfrecord")
    with (folder / "bal_train" / "aB.tfrecord").open("ab") as file:
        file.write(b"half a record")
    report = verify(tmp_path / "shards")
    assert {kind: n for kind, n in report.faults.items() if n} == {"wrong_shard": 1, "damaged": 1}
    assert "--4gqARaEJE in" in report.examples["wrong_shard"][0]
    assert "record 1 at byte" in report.examples["damaged"][0]


def test_a_changed_value_in_a_folder_of_arrays_is_found(tmp_path: Path) -> None:
    WRITERS["arrays"](tmp_path / "arrays", CLIPS)
    assert verify(tmp_path / "arrays").is_sound
    embeddings = np.load(tmp_path / "arrays" / "embeddings.npy")
    embeddings[0, 0, 0] ^= 1
    np.save(tmp_path / "arrays" / "embeddings.npy", embeddings)
    report = verify(tmp_path / "arrays")
    assert "embeddings.npy: its values do not have the digest" in report.examples["damaged"][0]


@pytest.mark.parametrize("rows", ["a,b\n", LIST.format(ids="/m/nothing"), LIST.format(ids=IDS).replace("30.000", "x")])
def test_a_list_that_is_none_is_refused(rows: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"eval_segments\.csv, line \d: .*expected id, start, end and label ids"):
        faults([clip()], rows, tmp_path)


def test_a_list_of_another_subset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the list of eval; the subset asked for is bal_train"):
        verify(tmp_path, [tmp_path / "eval_segments.csv"], "bal_train")


# The command


def run(*arguments: object) -> SimpleNamespace:
    result = CliRunner().invoke(command, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, (SystemExit, AudioSetError)):
        raise result.exception
    code = getattr(result.exception, "exit_code", result.exit_code)
    return SimpleNamespace(code=code, out=result.stdout, err=result.stderr)


def test_info_prints_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz")
    result = run("info", path)
    assert result.code == 0
    assert "clips          3\n  bal_train    2\n  eval         1\nseconds        14\n" in result.out
    assert "1 of 10 s, 1 of 3 s, 1 of 1 s" in result.out
    summary = json.loads(run("info", path, "--subset", "eval", "--json").out)
    assert (summary["n_clips"], summary["n_seconds"], summary["lengths"]) == (1, 10, {"10": 1})


def test_verify_says_what_is_wrong_and_exits_with_3(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", [clip()])
    assert run("verify", path).out == "clips          1\nsound\n"
    (tmp_path / "eval_segments.csv").write_text(LIST.format(ids=IDS) + LIST.format(ids=IDS).replace("--4g", "-34g"))
    result = run("verify", path, "--segments", tmp_path / "eval_segments.csv")
    assert result.code == 3
    assert (
        "missing        1 clips of the list that are not there\n               -34gqARaEJE\nnot sound\n" in result.out
    )
    report = json.loads(run("verify", path, "--segments", tmp_path / "eval_segments.csv", "--json").out)
    assert (report["is_sound"], report["faults"]["missing"], report["n_listed"]) == (False, 1, 2)


def test_convert_writes_and_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz")
    result = run("convert", path, tmp_path / "a.h5", "--format", "hdf5", "--subset", "eval")
    assert (result.code, result.out) == (0, "")
    assert f"audioset: 1 clips in {tmp_path / 'a.h5'}" in result.err
    answer = json.loads(run("convert", path, tmp_path / "b.h5", "--format", "hdf5", "--json").out)
    assert answer == {"output": str(tmp_path / "b.h5"), "to": "hdf5", "n_clips": 3, "n_skipped": 0}


def test_convert_stops_at_damage_unless_told_to_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    path.write_bytes(frame_record(b"?") + frame_record(example()))
    assert run("convert", path, tmp_path / "b.h5", "--format", "hdf5").code == 3
    assert not (tmp_path / "b.h5").exists()
    result = run("convert", path, tmp_path / "b.h5", "--format", "hdf5", "--skip-damaged")
    assert result.code == 3
    assert "left out: " in result.err
    assert "1 clips in" in result.err
    assert len(list(read(tmp_path / "b.h5"))) == 1


def test_a_path_may_begin_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(Path("--.tfrecord"), [clip()])
    assert run("info", "--json", "--", "--.tfrecord").code == 0


def test_sequence_examples_keep_the_order_of_their_names() -> None:
    payload = encode_clip("a", 0.0, 1.0, (5,), [bytes(128)])
    assert list(parsed(payload)["context"]) == ["video_id", "start_time_seconds", "end_time_seconds", "labels"]
    assert parsed(sequence_example({}, {"audio": []})) == {"context": {}, "lists": {"audio": []}}
