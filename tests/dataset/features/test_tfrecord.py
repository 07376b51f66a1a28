"""TFRecord output, read back by a naive reader that knows nothing of the writer; real released records say it is right.

The reader takes protobuf apart by field numbers and wire types, and computes its checksums bit by bit.
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_data import ASSETS
from tfrecords import crc32c, embeddings_of, parsed, records

from audioset.dataset.features.examples import encode_clip
from audioset.dataset.features.framing import frame_record, read_records
from audioset.dataset.features.problems import Problems
from audioset.errors import AudioError, DataError, UsageError
from audioset.formats import EMBED_FORMATS, EmbeddingRow, make_writer, printable

N_SHARDS = 8


# The reader


# What is written


def quantised(n_patches: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n_patches, 128), np.uint8)


def row(path: str, embeddings: np.ndarray, first: int = 0, duration_s: float | None = 2.5) -> EmbeddingRow:
    start_s = (first + np.arange(len(embeddings))) * 0.96
    return EmbeddingRow(path, start_s, start_s + 0.96, embeddings, duration_s, "vggish")


def failed(path: str) -> EmbeddingRow:
    return EmbeddingRow.failed(path, AudioError("cut off", code="truncated"), "vggish")


def written(rows: Iterable[EmbeddingRow]) -> bytes:
    stream = io.BytesIO()
    with closing(make_writer("tfrecord", stream, EMBED_FORMATS)) as writer:
        for each in rows:
            writer.write(each)
    return stream.getvalue()


def examples(rows: Iterable[EmbeddingRow]) -> list[dict[str, Any]]:
    return [parsed(payload) for payload in records(written(rows))]


def video_ids(rows: Iterable[EmbeddingRow]) -> list[str]:
    return [example["context"]["video_id"][1][0].decode() for example in examples(rows)]


@pytest.fixture(scope="module")
def released() -> list[bytes]:
    """Records of a few of the released shards."""
    path = ASSETS / "features.tar.gz"
    if not path.is_file():
        pytest.skip(f"no released features: there is no {path}")
    found: list[bytes] = []
    n_shards = 0
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            if member.name.endswith(".tfrecord"):
                found += records(archive.extractfile(member).read())
                n_shards += 1
            if n_shards == N_SHARDS:
                break
    return found


def test_the_reader_has_the_right_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_recording_is_one_example() -> None:
    embeddings = quantised(3)
    (example,) = examples([row("folder/Ab-_9.take 2.wav", embeddings)])
    assert example["context"] == {
        "video_id": ("bytes", [b"Ab-_9.take 2"]),
        "start_time_seconds": ("float", [0.0]),
        "end_time_seconds": ("float", [2.5]),
        "labels": ("int64", []),
    }
    assert list(example["lists"]) == ["audio_embedding"]
    np.testing.assert_array_equal(embeddings_of(example), embeddings)


def test_a_released_record_has_the_same_layout(released: list[bytes]) -> None:
    assert len(released) > N_SHARDS
    (ours,) = examples([row("a.wav", quantised(3))])
    for payload in released:
        theirs = parsed(payload)
        assert list(theirs) == list(ours)
        kinds = {name: kind for name, (kind, _) in theirs["context"].items()}
        assert kinds == {name: kind for name, (kind, _) in ours["context"].items()}
        assert {name: len(values) for name, (_, values) in theirs["context"].items() if name != "labels"} == {
            "video_id": 1,
            "start_time_seconds": 1,
            "end_time_seconds": 1,
        }
        assert list(theirs["lists"]) == list(ours["lists"])
        assert embeddings_of(theirs).shape[1] == embeddings_of(ours).shape[1] == 128


def test_a_released_record_written_again_says_the_same(released: list[bytes]) -> None:
    for payload in released:
        original = parsed(payload)
        context = {name: values for name, (_, values) in original["context"].items()}
        assert context["labels"] == sorted(set(context["labels"])) != []
        again = encode_clip(
            context["video_id"][0].decode(),
            context["start_time_seconds"][0],
            context["end_time_seconds"][0],
            context["labels"],
            map(bytes, embeddings_of(original)),
        )
        assert parsed(again) == original
        assert list(records(frame_record(again))) == [again]


def test_parts_of_a_recording_are_joined_and_time_is_the_whole() -> None:
    embeddings = quantised(70)
    parts = [
        row("a.wav", embeddings[:64], duration_s=61.44),
        row("a.wav", embeddings[64:], first=64, duration_s=67.3),
        row("b.wav", embeddings[:1]),
    ]
    first, second = examples(parts)
    np.testing.assert_array_equal(embeddings_of(first), embeddings)
    assert first["context"]["end_time_seconds"] == ("float", [pytest.approx(67.3)])
    np.testing.assert_array_equal(embeddings_of(second), embeddings[:1])


def test_a_long_recording_is_one_record() -> None:
    embeddings = quantised(20_000)
    stream = io.BytesIO()
    with closing(make_writer("tfrecord", stream, EMBED_FORMATS)) as writer:
        writer.write(row("day.wav", embeddings))
    payload = stream.getvalue()[12:-4]
    assert len(payload) > 128 * 20_000
    np.testing.assert_array_equal(embeddings_of(parsed(payload)), embeddings)


def test_time_without_a_known_duration_ends_with_the_last_patch() -> None:
    (example,) = examples([row("a.wav", quantised(3), duration_s=None)])
    assert example["context"]["end_time_seconds"] == ("float", [pytest.approx(2.88)])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([failed("b")], []),
        ([row("a", quantised(1)), failed("b")], ["a"]),
        ([failed("a"), row("b", quantised(1))], ["b"]),
        ([row("a", quantised(1)), row("b", quantised(64)), failed("b"), row("c", quantised(1))], ["a", "c"]),
        ([row("a", quantised(64)), row("a", quantised(64)), failed("a")], []),
    ],
    ids=["nothing", "one", "last", "first", "middle", "after two parts"],
)
def test_a_recording_that_failed_has_no_record(rows: list[EmbeddingRow], expected: list[str]) -> None:
    assert video_ids(rows) == expected


def interrupted(stream: io.BytesIO) -> None:
    with closing(make_writer("tfrecord", stream, EMBED_FORMATS)) as writer:
        writer.write(row("a.wav", quantised(2)))
        writer.write(row("b.wav", quantised(64)))
        raise KeyboardInterrupt


def test_a_run_that_is_stopped_writes_no_half_recording() -> None:
    stream = io.BytesIO()
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        interrupted(stream)
    (payload,) = records(stream.getvalue())
    assert parsed(payload)["context"]["video_id"] == ("bytes", [b"a"])


def test_a_run_while_an_older_error_is_handled_is_whole() -> None:
    try:
        raise ValueError("an older error")
    except ValueError:
        assert video_ids([row("a.wav", quantised(2))]) == ["a"]


def test_a_record_is_written_as_soon_as_the_next_recording_begins() -> None:
    stream = io.BytesIO()
    writer = make_writer("tfrecord", stream, EMBED_FORMATS)
    writer.write(row("a.wav", quantised(2)))
    assert stream.getvalue() == b""
    writer.write(row("b.wav", quantised(2)))
    assert len(list(records(stream.getvalue()))) == 1
    writer.close()
    assert len(list(records(stream.getvalue()))) == 2


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.zeros((1, 128), np.float32), r"these are 128 values of float32 a patch\. Next step: .*--quantize"),
        (np.zeros((1, 1024), np.float32), "these are 1024 values of float32"),
        (np.zeros((1, 1024), np.uint8), "these are 1024 values of uint8"),
        (np.zeros((1, 128), np.int8), "these are 128 values of int8"),
    ],
)
def test_other_than_quantised_embeddings_are_refused(embeddings: np.ndarray, message: str) -> None:
    writer = make_writer("tfrecord", io.BytesIO(), EMBED_FORMATS)
    with pytest.raises(UsageError, match=rf"holds quantised embeddings, 128 bytes a patch.*{message}"):
        writer.write(row("a.wav", embeddings))


def test_the_same_rows_make_the_same_bytes_in_a_fixed_order() -> None:
    rows = [row("a.wav", quantised(3)), row("b.wav", quantised(2, seed=1))]
    data = written(rows)
    assert data == written(rows)
    (example, _) = map(parsed, records(data))
    assert list(example["context"]) == ["video_id", "start_time_seconds", "end_time_seconds", "labels"]


@given(
    st.text(st.characters(exclude_characters="/\\\0")),
    st.floats(0, 1e6, width=32),
    st.lists(st.integers(0, 2**63 - 1)),
    st.integers(1, 3),
)
def test_any_values_survive(name: str, end_s: float, labels: list[int], n_patches: int) -> None:
    embeddings = quantised(n_patches)
    example = parsed(encode_clip(printable(name), 0.5, end_s, labels, map(bytes, embeddings)))
    assert example["context"] == {
        "video_id": ("bytes", [printable(name).encode()]),
        "start_time_seconds": ("float", [0.5]),
        "end_time_seconds": ("float", [end_s]),
        "labels": ("int64", labels),
    }
    np.testing.assert_array_equal(embeddings_of(example), embeddings)


@pytest.mark.parametrize(
    ("path", "video_id"),
    [("-", "-"), (".hidden", ".hidden"), ("a/é\n\x1b.flac", "é\n\x1b"), ("a/\udcff.wav", "\\xff"), ("a/b", "b")],
)
def test_the_id_is_the_name_without_folder_and_ending(path: str, video_id: str) -> None:
    assert video_ids([row(path, quantised(1))]) == [video_id]


# What is read


class Stream(io.BytesIO):
    """Bytes that remember how much was asked for at once, and give little of it."""

    def __init__(self, data: bytes, most: int = 1 << 30) -> None:
        super().__init__(data)
        self._most = most
        self.asked = 0

    def read(self, n: int | None = -1) -> bytes:
        self.asked = max(self.asked, n or 0)
        assert n is not None
        assert n >= 0
        return super().read(min(n, self._most))


PAYLOADS = [b"first", b"", b"x" * 300_000, b"last"]
FILE = b"".join(map(frame_record, PAYLOADS))


def read(data: bytes, n_bytes: int | None = None, problems: Problems | None = None) -> list[bytes]:
    n_bytes = len(data) if n_bytes is None else n_bytes
    return [payload for _, _, payload in read_records(Stream(data), n_bytes, "a.tfrecord", problems or Problems())]


def test_records_are_read_back_with_their_places() -> None:
    found = list(read_records(Stream(FILE), len(FILE), "a", Problems()))
    assert [payload for _, _, payload in found] == PAYLOADS
    assert [number for number, _, _ in found] == [0, 1, 2, 3]
    assert [offset for _, offset, _ in found] == [0, 21, 37, 37 + 16 + 300_000]


def test_an_empty_file_has_no_records() -> None:
    assert read(b"") == []


@pytest.mark.parametrize("length", [1, 11, 12, 15, 20, 25, 300_000, len(FILE) - 1])
def test_a_cut_file_is_an_error_that_names_the_place(length: int) -> None:
    with pytest.raises(
        DataError, match=r"^a\.tfrecord: record \d at byte [\d,]+: (the file ends|it claims).*Next step: "
    ):
        read(FILE[:length])


def test_a_file_that_ends_before_its_size_is_an_error() -> None:
    with pytest.raises(DataError, match="record 3 at byte 300,053: the file ends in the middle of it"):
        read(FILE[:-1], len(FILE))


@pytest.mark.parametrize("length", [2**20, 2**40, 2**63, 2**64 - 1])
def test_a_huge_claim_is_refused_before_anything_is_allocated(length: int) -> None:
    head = struct.pack("<Q", length)
    stream = Stream(head + frame_record(head)[-4:] + b"x" * 100)
    with pytest.raises(DataError, match=rf"record 0 at byte 0: it claims {length:,} bytes; the file has 96 left"):
        list(read_records(stream, 112, "a", Problems()))
    assert stream.asked <= 112


def test_every_flipped_bit_is_noticed() -> None:
    data = bytearray(frame_record(b"a payload"))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataError, match=r"a\.tfrecord: record 0 at byte 0: the checksum of its"):
            read(bytes(data))
        data[bit // 8] ^= 1 << bit % 8


def test_a_damaged_payload_costs_one_record_and_a_damaged_length_the_rest() -> None:
    data = bytearray(FILE)
    data[14] ^= 1
    data[300_055] ^= 1
    problems = Problems("skip")
    assert read(bytes(data), problems=problems) == PAYLOADS[1:3]
    assert problems.n_skipped == 2
    assert "record 0 at byte 0: the checksum of its 5 bytes is wrong" in str(problems.kept[0])
    assert "record 3 at byte 300,053: the checksum of its length" in str(problems.kept[1])
    assert "the 20 bytes from here on cannot be read" in str(problems.kept[1])


def test_what_is_kept_of_many_problems_is_bounded() -> None:
    problems = Problems("skip")
    for _ in range(3000):
        problems.add("a\x1b[2J", "wrong")
    assert (problems.n_skipped, len(problems.kept)) == (3000, 1000)
    assert str(problems.kept[0]).startswith("a\\x1b[2J: wrong. Likely cause")


def test_problems_are_raised_or_skipped_and_nothing_else() -> None:
    with pytest.raises(UsageError, match="on_error is 'ignore'; expected one of raise, skip"):
        Problems("ignore")
