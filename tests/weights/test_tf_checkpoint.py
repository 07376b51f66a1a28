"""TensorFlow checkpoints: what TensorFlow wrote is read bit by bit, and damage of any kind is refused by name.

The files that TensorFlow made are small and plain. For the rest of the two formats there is a writer in
``checkpoints.py``.
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from checkpoints import (
    RNG,
    TENSORS,
    WRITERS,
    block_of,
    content,
    entry_message,
    extents_message,
    field,
    in_pieces,
    masked_crc,
    ordered,
    packed,
    shape_message,
    slice_key,
    snappy,
    table_of,
    unpacked,
    v1_entries,
    v2_parts,
    varint,
    write_parts,
    write_v1,
    write_v2,
)
from originals import ASSETS
from sounds import noise

from audioset.errors import WeightsError
from audioset.weights.tf_checkpoint import _ordered_number, open_tf_checkpoint, read_tf_checkpoint
from audioset.weights.tf_table import unsnappy

FOLDER = ASSETS.parent / "reference" / "tf_checkpoints"
V1, V2 = "tiny_v1.ckpt", "tiny_v2.ckpt"
V2_DATA = f"{V2}.data-00000-of-00001"


def check(path, expected=TENSORS):
    checkpoint = open_tf_checkpoint(path)
    described = {name: (value.shape, value.dtype.name) for name, value in expected.items()}
    assert checkpoint.variables == described
    for name, value in expected.items():
        check_same(checkpoint.read(name), value)


def check_same(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    assert found.flags.owndata
    assert found.flags.writeable


# ---- What TensorFlow wrote


@pytest.fixture(scope="module")
def expected():
    if not (FOLDER / "expected.npz").is_file():
        pytest.skip(f"no checkpoints of TensorFlow's: there is no {FOLDER / 'expected.npz'}")
    with np.load(FOLDER / "expected.npz") as arrays:
        return {name.replace("|", "/"): value for name, value in arrays.items()}


@pytest.mark.parametrize("name", [V1, V2, f"{V2}.index"])
def test_tensorflows_own_files(expected, name):
    check(FOLDER / name, expected)


@pytest.mark.parametrize("name", [V1, V2])
def test_only_what_the_network_needs(expected, name):
    shapes = {"vggish/fc2/weights": (96, 128), "a/double": (5, 7), "scalar": (), "vggish/conv1/weights": (3, 3, 1, 64)}
    weights = read_tf_checkpoint(FOLDER / name, shapes)
    assert list(weights) == list(shapes)
    for key, value in weights.items():
        check_same(value, expected[key].astype(np.float32))


# ---- What TensorFlow may write


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("block_bytes", [0, 100, 1000, 1 << 18])
@pytest.mark.parametrize("interval", [1, 16])
def test_blocks_and_shared_keys(tmp_path, version, block_bytes, interval):
    check(WRITERS[version](tmp_path / "model", block_bytes=block_bytes, interval=interval))


@pytest.mark.parametrize("encode", [packed, unpacked, in_pieces, content])
def test_encodings_of_values(tmp_path, encode):
    check(write_v1(tmp_path / "model", encode=encode))


CUTS = {
    "net/long": [((0, 100), (0, -1)), ((270, 30), (0, -1)), ((100, 170), (0, -1))],
    "net/conv/weights": [((0, -1), (0, -1), (0, -1), (0, 2)), ((0, -1), (0, -1), (0, -1), (2, 3))],
    "net/conv/biases": [((0, 5),)],  # all of it, though said in numbers
}


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("block_bytes", [100, 1 << 18])
def test_slices(tmp_path, version, block_bytes):
    check(WRITERS[version](tmp_path / "model", cuts=CUTS, block_bytes=block_bytes))


@pytest.mark.parametrize("cuts", [None, CUTS])
def test_shards(tmp_path, cuts):
    path = write_v2(tmp_path / "model", cuts=cuts, n_shards=3)
    assert len(list(tmp_path.iterdir())) == 4
    check(path)


@pytest.mark.parametrize("version", WRITERS)
def test_snappy(tmp_path, version):
    tensors = {**TENSORS, "zeros": np.zeros((70, 500), np.float32), "ramp": np.arange(40_000, dtype=np.float32) // 300}
    path = WRITERS[version](tmp_path / "model", tensors, compress=snappy)
    if version == "version 1":
        assert path.stat().st_size < sum(value.nbytes for value in tensors.values()) / 4
    check(path, tensors)


@pytest.mark.parametrize("compress", ["ours", "pyarrow"])
def test_snappy_of_all_kinds(compress):
    if compress == "pyarrow":
        arrow = pytest.importorskip("pyarrow")
    text = b"".join(bytes([n % 251]) * (n % 97) for n in range(900))
    far = RNG.bytes(70_000)
    for data in (b"", b"a", text, RNG.bytes(61), RNG.bytes(300), far + far[:5000] + b"ab" * 200):
        compressed = snappy(data) if compress == "ours" else arrow.compress(data, codec="snappy", asbytes=True)
        assert unsnappy(memoryview(compressed)) == data


def test_numbers_in_keys():
    """The examples in TensorFlow's ordered_code.cc, and the ends of each width."""
    assert _ordered_number(0x424242).hex() == "f0424242"
    assert _ordered_number(-0x800).hex() == "3800"
    assert _ordered_number(2**63 - 1).hex() == "ffc0" + "7f" + "ff" * 7
    assert _ordered_number(-(2**63)).hex() == "003f" + "80" + "00" * 7
    for number in (0, -1, 63, 64, -64, -65, 8191, 8192, -8192, -8193, 2**20, 2**27 - 1):
        assert _ordered_number(number) == ordered(number)


def test_a_version_1_file_of_any_name(tmp_path):
    for name in ("model", "vggish_model.ckpt", "model.index"):
        check(write_v1(tmp_path / name))


def test_what_cannot_be_read_is_listed(tmp_path):
    entries, shards = v2_parts({"a": np.ones(3, np.float32)})
    entries[b"graph"] = entry_message("string", (), 0, len(shards[0]), b"text")
    entries[b"half"] = entry_message("bfloat16", (2,), 0, len(shards[0]) + 4, b"1234")
    shards[0] += b"text1234"
    checkpoint = open_tf_checkpoint(write_parts(tmp_path / "model", entries, shards))
    assert checkpoint.variables == {"a": ((3,), "float32"), "graph": ((), "string"), "half": ((2,), "bfloat16")}
    check_same(checkpoint.read("a"), np.ones(3, np.float32))
    with pytest.raises(WeightsError, match="'half' has dtype bfloat16; expected one of float32, float64, int32, int64"):
        checkpoint.read("half")


def test_memory_of_a_large_file(tmp_path):
    tensors = {"a": noise(1_500_000).astype(np.float32), "b": noise(4_000_000).reshape(4000, 1000).astype(np.float32)}
    for write in WRITERS.values():
        path = write(tmp_path / "model", tensors)
        tracemalloc.start()
        weights = read_tf_checkpoint(path, {name: value.shape for name, value in tensors.items()})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        path.unlink(missing_ok=True)
        for name, value in tensors.items():
            check_same(weights[name], value)
        assert peak < 1.3 * sum(value.nbytes for value in tensors.values())


# ---- What does not fit the network


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("net/fc", (3,), r"has no tensor 'net/fc'; it has 10 tensors, such as .*Likely cause: weights of another net"),
        ("net/long", (7, 300), r"'net/long' has shape \(300, 7\); expected \(7, 300\).*Likely cause"),
        ("ids", (5,), "'ids' has dtype int64; expected floating-point weights"),
        ("net/steps", (3, 3), "'net/steps' has dtype int32; expected floating-point weights"),
    ],
)
def test_tensors_that_the_network_cannot_use(tmp_path, version, name, shape, message):
    path = WRITERS[version](tmp_path / "model")
    with pytest.raises(WeightsError, match=message):
        read_tf_checkpoint(path, {"scalar": (), name: shape})


SIGNALLING_NAN = np.array(0x7FF0_0000_0000_0001, np.uint64).view(np.float64)


@pytest.mark.parametrize("value", [np.float32("nan"), np.float32("-inf"), np.float64(1e300), SIGNALLING_NAN])
def test_values_that_are_not_finite(tmp_path, value):
    values = np.ones(3, value.dtype)
    values[1] = value
    path = write_v1(tmp_path / "model", {"a": values})
    with pytest.raises(WeightsError, match="'a' holds NaN or infinite values; expected finite weights"):
        read_tf_checkpoint(path, {"a": (3,)})


def test_a_missing_variable(tmp_path):
    with pytest.raises(WeightsError, match="has no tensor 'nothing'; it has 10 tensors"):
        open_tf_checkpoint(write_v1(tmp_path / "model")).read("nothing")


# ---- Files that are not there, or not whole


def test_no_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no checkpoint .*: neither that file nor model\.index beside it"):
        open_tf_checkpoint(tmp_path / "model")
    (tmp_path / "model").mkdir()
    with pytest.raises(WeightsError, match="there is no checkpoint"):
        open_tf_checkpoint(tmp_path / "model")


def test_the_data_file_instead_of_the_index(tmp_path):
    write_v2(tmp_path / "model")
    with pytest.raises(WeightsError, match=r"holds the values .*Next step: give .*model\.index"):
        open_tf_checkpoint(tmp_path / "model.data-00000-of-00001")


def test_a_missing_data_file(tmp_path):
    path = write_v2(tmp_path / "model", n_shards=2)
    (tmp_path / "model.data-00001-of-00002").unlink()
    with pytest.raises(WeightsError, match=r"model\.data-00001-of-00002 cannot be read \(No such file"):
        read_tf_checkpoint(path, {name: value.shape for name, value in TENSORS.items() if value.dtype == np.float32})


@pytest.mark.parametrize("data", [b"", b"<html>" * 100, b"\x89HDF\r\n\x1a\n" + bytes(4096), b"short"])
def test_another_format(tmp_path, data):
    path = tmp_path / "model.ckpt"
    path.write_bytes(data)
    with pytest.raises(
        WeightsError, match=r"model\.ckpt cannot be read .*Likely cause: an unfinished or damaged downl"
    ):
        open_tf_checkpoint(path)


def test_the_wrong_magic_number(tmp_path):
    path = write_v1(tmp_path / "model")
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(WeightsError, match="it ends in 57fb808b24754700; expected 57fb808b247547db"):
        open_tf_checkpoint(path)


@pytest.mark.parametrize("version", WRITERS)
def test_every_flipped_byte(tmp_path, version):
    """Whatever byte is changed: the values are right, or the file is refused."""
    tensors = {name: TENSORS[name] for name in ("net/conv/biases", "scalar", "ids", "net/double")}
    WRITERS[version](tmp_path / "model", tensors, block_bytes=60)
    n_refused = n_bytes = 0
    for path in sorted(tmp_path.iterdir()):
        original = path.read_bytes()
        for i in range(len(original)):
            path.write_bytes(original[:i] + bytes([original[i] ^ 0x10]) + original[i + 1 :])
            n_refused += is_refused(tmp_path / "model", tensors)
        path.write_bytes(original)
        n_bytes += len(original)
    # the footer's padding, and a block that is always empty
    assert n_bytes - 53 <= n_refused <= n_bytes


@pytest.mark.parametrize("version", WRITERS)
def test_every_truncation(tmp_path, version):
    WRITERS[version](tmp_path / "model", block_bytes=500)
    for path in sorted(tmp_path.iterdir()):
        original = path.read_bytes()
        for n_bytes in range(0, len(original), 37):
            path.write_bytes(original[:n_bytes])
            assert is_refused(tmp_path / "model", TENSORS)
        path.write_bytes(original)
    check(tmp_path / "model")


def test_the_message_names_what_is_damaged(tmp_path):
    path = write_v2(tmp_path / "model", {"a": np.ones(4, np.float32), "b": np.ones(4, np.float32)})
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(bytes(16) + data.read_bytes()[16:])
    checkpoint = open_tf_checkpoint(path)
    check_same(checkpoint.read("b"), np.ones(4, np.float32))
    with pytest.raises(WeightsError, match=r"00001 cannot be read .*: the checksum of 'a' is wrong: its bytes were"):
        checkpoint.read("a")
    data.write_bytes(data.read_bytes()[:20])
    with pytest.raises(WeightsError, match=r"00001 cannot be read .*: 'b' ends at byte 32 of 20"):
        open_tf_checkpoint(path).read("b")


def is_refused(path, tensors):
    """Whether a damaged checkpoint is refused; if it is not, its values are right."""
    try:
        checkpoint = open_tf_checkpoint(path)
        found = {name: checkpoint.read(name) for name in tensors}
    except WeightsError:
        return True
    assert list(checkpoint.variables) == sorted(tensors)
    for name, value in tensors.items():
        check_same(found[name], value)
    return False


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
