"""Records of features of other shapes, and damaged and hostile ones."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from feature_clips import CLIPS, clip, key
from feature_files import (
    CONTEXT,
    FRAMES,
    LISTS_BYTES,
    OUTPUTS,
    entry,
    example,
    needs_extra,
    same,
    written,
)

from audioset.dataset.features import examples as feature_examples
from audioset.dataset.features.examples import clip_to_example, example_to_clip, parse_clip
from audioset.dataset.features.framing import frame_record
from audioset.dataset.features.problems import Malformed
from audioset.dataset.features.reading import FORMS, convert, read, read_arrays
from audioset.dataset.features.sequence_example import (
    bytes_feature,
    float_feature,
    int64_feature,
    message,
)
from audioset.errors import DataError, NoInputError

# Records of other shapes


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
    outcomes: Counter[str] = Counter()
    for _ in range(400):
        path.write_bytes(mutated(original, choose))
        outcomes[refused_or_read(path)] += 1
    assert outcomes["refused"] > 100


@pytest.mark.parametrize(("kind", "n_runs"), [("parquet", 150), ("hdf5", 150)])
def test_nothing_but_our_errors_comes_out_of_damaged_tables(kind: str, n_runs: int, tmp_path: Path) -> None:
    needs_extra(kind)
    choose = random.Random(3)
    good, path = tmp_path / f"good-{OUTPUTS[kind]}", tmp_path / OUTPUTS[kind]
    FORMS[kind].write(good, CLIPS)
    original = good.read_bytes()
    outcomes: Counter[str] = Counter()
    for _ in range(n_runs):
        path.write_bytes(mutated(original, choose))
        outcomes[refused_or_read(path)] += 1
    assert outcomes["refused"] > n_runs // 4


def refused_or_read(path: Path) -> str:
    """What became of a damaged file; what is read has the form of clips."""
    try:
        clips = list(read(path))
    except (DataError, NoInputError):
        return "refused"
    for each in clips:
        assert each.embeddings.dtype == np.uint8
        assert each.embeddings.shape[1:] == (128,)
        assert all(0 <= index < 527 for index in each.labels)
    return "read"


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
    FORMS["parquet"].write(tmp_path / "a.parquet", clips)
    assert [key(each) for each in read(tmp_path / "a.parquet")] == [key(each) for each in clips]
