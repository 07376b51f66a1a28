"""TensorFlow checkpoints with right checksums and wrong contents."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from checkpoints import (
    TENSORS,
    WRITERS,
    block_of,
    entry_message,
    extents_message,
    field,
    masked_crc,
    packed,
    shape_message,
    slice_key,
    snappy,
    table_of,
    v1_entries,
    v2_parts,
    varint,
    write_parts,
)
from tf_files import FOLDER, V1, V2, is_refused

from audioset.errors import WeightsError
from audioset.weights.tf_checkpoint import open_tf_checkpoint

V2_DATA = f"{V2}.data-00000-of-00001"

# ---- Files whose checksums are right and whose contents are not

ONE_RESTART = b"\0\0\0\0\1\0\0\0"
A = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
A_BYTES = A["a"].tobytes()
A_KEY = slice_key("a", ((0, -1), (0, -1)))
TWO_AXES = [((row, 1), column) for row in (0, 1) for column in ((0, 1), (1, 2))]


def meta_of(name=b"a", shape=(2, 3), dtype=1, slices=(((0, -1), (0, -1)),)):
    described = field(1, name) + field(2, shape_message(shape)) + field(3, dtype)
    return field(1, described + b"".join(field(4, extents_message(extents)) for extents in slices))


def value_of(data, name=b"a"):
    return field(2, field(1, name) + field(3, data))


WRONG_V1 = {
    "values missing": ({A_KEY: None}, "'a' is listed, but its values are not there"),
    "values of another": ({A_KEY: value_of(packed(A["a"]), b"b")}, "the values of 'a' belong to 'b'"),
    "too few": ({A_KEY: value_of(packed(A["a"][0]))}, "'a' has 3 values; its shape needs 6"),
    "too many": ({A_KEY: value_of(packed(A["a"]) * 2)}, "'a' has 12 values; its shape needs 6"),
    "half a value": ({A_KEY: value_of(field(5, bytes(23)))}, "'a' has 23 bytes, no whole number of values"),
    "no values": ({A_KEY: b""}, "the values of 'a' belong to ''"),
    "a field too long": ({A_KEY: b"\x12\x7fabc"}, "a field does not fit into its message"),
    "a field of wire type 3": ({A_KEY: b"\x13abc"}, "a message has a field of wire type 3"),
    "a number without end": ({A_KEY: b"\x12" + b"\xff" * 11}, "a number does not end"),
    "a message cut off": ({A_KEY: b"\x12"}, "a number does not end"),
    "huge shape": ({b"": field(1, meta_of(shape=(2**40, 2**40)))}, "a tensor claims the shape"),
    "huge empty shape": ({b"": field(1, meta_of(shape=(0, 2**62)))}, "a tensor claims the shape"),
    "large shape": ({b"": field(1, meta_of(shape=(2**20, 2**20)))}, "'a' has 6 values; its shape needs 1,099,511"),
    "negative shape": ({b"": field(1, meta_of(shape=(-1, 3)))}, "the shape of a tensor is unknown"),
    "rank 40": ({b"": field(1, meta_of(shape=(1,) * 40))}, "the shape of a tensor is unknown"),
    "no such type": ({b"": field(1, meta_of(dtype=99))}, "'a' has dtype type 99; expected one of float32"),
    "another type": ({b"": field(1, meta_of(dtype=9))}, "'a' has 0 values; its shape needs 6"),
    "a value without end": (
        {b"": field(1, meta_of(shape=(1, 1), dtype=9)), A_KEY: value_of(field(10, b"\xff" * 10 + b"\1"))},
        "the values of 'a' do not end",
    ),
    "a name of bytes": ({b"": field(1, meta_of(name=b"\xff\xfe"))}, "a name is not text"),
    "twice": ({b"": field(1, meta_of() * 2)}, "'a' is listed twice"),
    "a slice of one axis": ({b"": field(1, meta_of(slices=[((0, -1),)]))}, "a slice of 'a' has 1 axes; expected 2"),
    "a slice outside": ({b"": field(1, meta_of(slices=[((1, 2), (0, -1))]))}, "lies outside its shape"),
    "a slice before": ({b"": field(1, meta_of(slices=[((-1, 2), (0, -1))]))}, "lies outside its shape"),
    "a slice backwards": ({b"": field(1, meta_of(slices=[((2, -2), (0, -1))]))}, "lies outside its shape"),
    "a gap": ({b"": field(1, meta_of(slices=[((1, 1), (0, -1))]))}, "the slices of 'a' overlap or leave gaps"),
    "an overlap": (
        {b"": field(1, meta_of(slices=[((0, 2), (0, -1)), ((1, 1), (0, -1))]))},
        "the slices of 'a' overlap or leave gaps",
    ),
    "stored twice": (
        {b"": field(1, meta_of(slices=[((0, -1), (0, -1)), ((0, 2), (0, -1))]))},
        "'a' is stored 2 times; expected once",
    ),
    "cut along two axes": (
        {b"": field(1, meta_of(slices=TWO_AXES))},
        r"'a' is cut along the axes \[0, 1\]; expected one axis. Next step: load and save it again with TensorFlow",
    ),
    "a long key": ({b"x" * 5000: b""}, "an entry does not fit into its block"),
}


@pytest.mark.parametrize("kind", WRONG_V1)
def test_wrong_contents_of_version_1(tmp_path, kind):
    changes, message = WRONG_V1[kind]
    entries = {**v1_entries(A), **changes}
    path = tmp_path / "model"
    path.write_bytes(table_of([(key, value) for key, value in entries.items() if value is not None]))
    check_refused(path, message)


def entry(shape=(2, 3), shard=0, offset=0, data=A_BYTES, slices=()):
    return entry_message("float32", shape, shard, offset, data, slices)


HALVES = [((0, 1), (0, -1)), ((1, 1), (0, -1))]
WRONG_V2 = {
    "big-endian": ({b"": field(1, 1) + field(2, 1)}, "its byte order is big-endian; expected little-endian. Next step"),
    "no data files": ({b"": b""}, "it names data file 0 of 0"),
    "too high a data file": ({b"a": entry(shard=5)}, "it names data file 5 of 1"),
    "too small": ({b"a": entry(shape=(2, 4))}, r"'a' has 24 bytes, which do not make shape \(2, 4\)"),
    "huge": ({b"a": entry(shape=(2**22, 2**22))}, "'a' has 24 bytes, which do not make shape"),
    "after the end": ({b"a": entry(offset=2**62)}, "'a' ends at byte 4,611,686,018,427,387,928 of 24"),
    "shared bytes": ({b"b": entry(offset=20)}, "two tensors share the bytes from 20 of data file 0"),
    "slices missing": ({b"a": entry(slices=HALVES)}, "the values of its slice .* are not there"),
    "slices of another shape": (
        {b"a": entry(slices=HALVES), **{slice_key("a", half): entry(offset=24 * i) for i, half in enumerate(HALVES)}},
        r"a slice of 'a' is float32 of shape \(2, 3\); expected float32 of shape \(1, 3\)",
    ),
    "a number that does not end": ({b"a": b"\x08\xff"}, "a number does not end"),
    "a name of bytes": ({b"\xff\xfe": entry()}, "a name is not text"),
}


@pytest.mark.parametrize("kind", WRONG_V2)
def test_wrong_contents_of_version_2(tmp_path, kind):
    changes, message = WRONG_V2[kind]
    entries, shards = v2_parts(A)
    check_refused(write_parts(tmp_path / "model", {**entries, **changes}, shards), message)


def block_of_long_keys():
    """A header, and short entries that stand for long keys."""
    data = b"\0\0\2" + field(1, 1) + varint(0) + varint(4000) + varint(0) + b"/" * 4000
    for i in range(9000):
        data += varint(3996) + varint(4) + varint(0) + b"%04d" % i
    return data + ONE_RESTART


PLAIN_BLOCKS = {
    "nothing": (b"", "a block of 0 bytes has 0 restarts"),
    "no entries": (ONE_RESTART, "the table has no header"),
    "many restarts": (b"\0\0\0\xff\xff\xff\xff", "a block of 7 bytes has 4,294,967,295 restarts"),
    "shared with nothing": (b"\5\0\0" + ONE_RESTART, "an entry does not fit into its block"),
    "value too long": (b"\0\0\x7f" + ONE_RESTART, "an entry does not fit into its block"),
    "out of order": (b"\0\1\0b\0\1\0a" + ONE_RESTART, "the key b'a' follows b'b'"),
    "the same key": (b"\0\1\0b\0\1\0b" + ONE_RESTART, "the key b'b' follows b'b'"),
}


@pytest.mark.parametrize("kind", PLAIN_BLOCKS)
def test_wrong_blocks(tmp_path, kind):
    block, message = PLAIN_BLOCKS[kind]
    path = tmp_path / "model"
    path.write_bytes(one_block(block, 0))
    check_refused(path, message)


SNAPPY_BLOCKS = {
    "claims too much": (varint(2**40) + b"\0a", "8 compressed bytes claim to be 1,099,511,627,776"),
    "claims more than it has": (varint(20) + b"\0a", "a compressed block has 1 bytes; expected 20"),
    "has more than it claims": (varint(1) + b"\4ab", "a compressed block has 2 bytes; expected 1"),
    "refers to nothing": (varint(5) + b"\0a\x05\x09", "refer to what is not there"),
    "refers to itself": (varint(5) + b"\0a\x05\x00", "refer to what is not there"),
    "ends in a literal": (varint(3) + b"\x08ab", "a compressed block has 2 bytes; expected 3"),
    "ends in a length": (varint(3) + b"\xfc\1", "a compressed block has 0 bytes; expected 3"),
    "ends in a reference": (varint(5) + b"\0a\x0e\x01", "a compressed block has 5 bytes; expected 5"),
    "is empty": (b"", "a number does not end"),
}


@pytest.mark.parametrize("kind", SNAPPY_BLOCKS)
def test_wrong_snappy(tmp_path, kind):
    block, message = SNAPPY_BLOCKS[kind]
    path = tmp_path / "model"
    path.write_bytes(one_block(block, 1))
    check_refused(path, message)


def test_another_compression(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(one_block(b"abc", 4))
    check_refused(path, "has compression 4; expected none or snappy")


def one_block(block, kind, handles=1):
    """A table with one given block, which the index may list several times."""
    tail = bytes([kind])
    data = block + tail + masked_crc(block + tail)
    places = [(b"%05d" % i, varint(0) + varint(len(block))) for i in range(handles - 1)]
    index = block_of([*places, (b"zzzzz", varint(0) + varint(len(block)))], 1)
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index))
    data += index + b"\0" + masked_crc(index + b"\0")
    return data + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def test_a_block_listed_many_times(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(one_block(block_of([(b"", field(1, 1))]), 0, handles=50))
    check_refused(path, "two blocks share the bytes from 0")


def test_no_header(tmp_path):
    path = tmp_path / "model"
    path.write_bytes(table_of([(b"a", b"b")]))
    check_refused(path, "the table has no header")


def check_refused(path, message):
    with pytest.raises(WeightsError, match=message):
        open_and_read(path, ("a",))


def open_and_read(path, names):
    checkpoint = open_tf_checkpoint(path)
    return [checkpoint.read(name) for name in names]


def hostile_v1(changes, **options):
    return lambda path: path.write_bytes(table_of({**v1_entries(A), **changes}.items(), **options))


def hostile_slices(path):
    """A thousand slices that are all the same bytes."""
    tile = np.ones((1, 50_000), np.float32).tobytes()
    slices = [((i, 1), (0, -1)) for i in range(1000)]
    entries = {b"": field(1, 1), b"a": entry(shape=(1000, 50_000), slices=slices)}
    entries |= {slice_key("a", extents): entry(shape=(1, 50_000), data=tile) for extents in slices}
    write_parts(path, entries, [tile])


HOSTILE = {
    "a large shape": (hostile_v1({b"": field(1, meta_of(shape=(2**20, 2**10)))}), "its shape needs 1,073,741,824"),
    "a large claim of snappy's": (
        lambda path: path.write_bytes(one_block(varint(2**31) + b"\0a", 1)),
        "7 compressed bytes claim to be 2,147,483,648",
    ),
    "a large entry": (
        lambda path: write_parts(
            path, {b"": field(1, 1), b"a": entry(shape=(2**15, 2**15), data=b"1") + field(5, 2**32)}, [b"1234"]
        ),
        "'a' ends at byte 4,294,967,296 of 4",
    ),
    "the same bytes a thousand times": (hostile_slices, "two tensors share the bytes from 0 of data file 0"),
    "long keys": (
        lambda path: path.write_bytes(one_block(block_of_long_keys(), 0)),
        "its keys take more than 16,777,216 bytes",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_claims_take_no_memory(tmp_path, kind):
    path = tmp_path / "model"
    write, message = HOSTILE[kind]
    write(path)
    n_bytes = sum(file.stat().st_size for file in tmp_path.iterdir())
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=message):
        open_and_read(path, ("a",))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n_bytes + 24e6
    assert time.perf_counter() - start < 10


# ---- Chance


@pytest.mark.parametrize("name", [V1, f"{V2}.index", V2_DATA])
def test_damage_is_refused_or_harmless(expected, tmp_path, name):
    """TensorFlow's files with random flips and cuts: the very values, or a WeightsError, and nothing else."""
    for file in (V1, f"{V2}.index", V2_DATA):
        (tmp_path / file).write_bytes((FOLDER / file).read_bytes())
    original = (FOLDER / name).read_bytes()
    rng = np.random.default_rng(0)
    start, n_refused = time.perf_counter(), 0
    for i in range(200):
        data = bytearray(original)
        if i % 4 == 0:
            data = data[: rng.integers(len(data))]
        elif i % 4 == 1:  # the footer, which is small and decides where everything is
            data[-rng.integers(1, 49)] ^= rng.integers(1, 256)
        for at in rng.integers(len(data), size=rng.integers(1, 4)) if i % 4 > 1 else ():
            data[at] ^= rng.integers(1, 256)
        (tmp_path / name).write_bytes(data)
        n_refused += is_refused(tmp_path / (V1 if name == V1 else V2), expected)
    assert n_refused > 150
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("compress", [None, snappy])
def test_damage_behind_right_checksums(tmp_path, version, compress):
    """Blocks are damaged before they are checksummed, so that the damage reaches what decodes them."""
    rng = np.random.default_rng(1)
    tensors = {name: TENSORS[name] for name in ("net/conv/biases", "net/double", "net/steps", "scalar", "ids")}
    n_refused = 0

    def damage(block):
        data = bytearray(compress(block) if compress else block)
        if rng.random() < 0.3:
            data[rng.integers(len(data))] ^= rng.integers(1, 256)
        return bytes(data)

    for _ in range(300):
        path = WRITERS[version](
            tmp_path / "model", tensors, compress=damage, kind=1 if compress else 0, block_bytes=80, interval=4
        )
        try:
            found = open_and_read(path, tensors)
        except WeightsError:
            n_refused += 1
        else:
            assert all(isinstance(value, np.ndarray) for value in found)
    assert n_refused > 100
