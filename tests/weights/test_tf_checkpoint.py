"""TensorFlow checkpoints: what TensorFlow wrote is read bit by bit, and damage of any kind is refused by name."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from checkpoints import (
    RNG,
    TENSORS,
    WRITERS,
    content,
    entry_message,
    in_pieces,
    ordered,
    packed,
    snappy,
    unpacked,
    v2_parts,
    write_parts,
    write_v1,
    write_v2,
)
from sounds import noise
from tf_files import FOLDER, V1, V2, check_same, is_refused

from audioset.errors import WeightsError
from audioset.weights.tf_checkpoint import _ordered_number, open_tf_checkpoint, read_tf_checkpoint
from audioset.weights.tf_table import unsnappy


def check(path, expected=TENSORS):
    checkpoint = open_tf_checkpoint(path)
    described = {name: (value.shape, value.dtype.name) for name, value in expected.items()}
    assert checkpoint.variables == described
    for name, value in expected.items():
        check_same(checkpoint.read(name), value)


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
