"""PyTorch checkpoints that are damaged or harmful: refused, never run."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from reference_data import ASSETS
from torch_files import (
    BASE,
    FORMATS,
    MB,
    Call,
    Stored,
    check,
    check_same,
    local_header,
    peak_bytes,
    pickled,
    save,
    tensor,
    zip_bytes,
    zip_file,
)

from audioset.errors import WeightsError
from audioset.weights.torch_zip import open_torch_checkpoint

torch = pytest.importorskip("torch")


def legacy_file(path, program, keys=("0",), storages=b""):
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    path.write_bytes(b"".join(map(pickled, head)) + program + pickled(list(keys)) + storages)
    return path


# ---- What nobody may make us do

GADGETS = {
    "posix.system": Call(os.system, "touch {}"),
    "(__builtin__|builtins).eval": Call(eval, "__import__('os').system('touch {}')"),
    "(__builtin__|builtins).exec": Call(exec, "open({!r}, 'w')"),
    "(__builtin__|builtins).getattr": Call(getattr, "text", "upper"),
    "_?io.open": Call(open, "{}", "w"),
    "torch.serialization.load": Call(torch.load, "{}"),
    "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
    "torch.LongTensor": Call(torch.LongTensor, 1 << 30),
    "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b""),
    "numpy.(core.multiarray.|_core.multiarray.)?frombuffer": Call(np.frombuffer, b"abcd"),
    "pathlib.PosixPath": ASSETS,
}


@pytest.mark.skipif(os.name != "posix", reason="the gadgets are those of a POSIX machine")
@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", GADGETS)
def test_callables_are_refused_by_name_and_do_not_run(tmp_path, monkeypatch, version, protocol, name):
    monkeypatch.chdir(tmp_path)
    program = pickled({"a": tensor("0", 100), "b": [GADGETS[name]]}, protocol)
    path = zip_file(tmp_path / "m.pt", program) if version == "zip" else legacy_file(tmp_path / "m.pt", program)
    pattern = name.replace(".", r"\.")
    with pytest.raises(
        WeightsError, match=rf"it wants to run {pattern}\. Expected tensors and plain data.*nothing of it"
    ):
        open_torch_checkpoint(path)
    assert os.listdir(tmp_path) == ["m.pt"]  # noqa: PTH208


PROGRAMS = {
    # protocol 0 and 1 have opcodes of their own for calls
    "INST": (b"(S'touch x'\niposix\nsystem\n.", r"the opcode b'S'"),
    "INST of text": (b"(Vtouch x\niposix\nsystem\n.", r"wants to run posix\.system"),
    "OBJ": (b"(cposix\nsystem\nVtouch x\no.", r"wants to run posix\.system"),
    "NEWOBJ_EX": (b"\x80\x04cposix\nsystem\n)}\x92.", r"wants to run posix\.system"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", r"wants to run posix\.system"),
    "STACK_GLOBAL of numbers": (b"\x80\x04K\x01K\x02\x93.", r"wants to run 1\.2"),
    "STACK_GLOBAL of an int's attribute": (b"\x80\x04\x8c\x08builtins\x8c\x0fint.__class__.x\x93.", "wants to run"),
    "BUILD of a tensor": (b"\x80\x02}X\x01\x00\x00\x00aK\x01}bs.", "without tensors"),
    "call of a string": (b"\x80\x02X\x01\x00\x00\x00a)R.", "wants to run a with"),
    "call with a list": (b"\x80\x02ccollections\nOrderedDict\n]R.", r"wants to run a function with a list"),
    "call of what a call gave": (b"\x80\x02ccollections\nOrderedDict\n)R)R.", "wants to run a dict"),
    "extension": (b"\x80\x02\x82\x01.", r"the opcode b'\\x82'"),
    "buffer": (b"\x80\x05\x97.", r"the opcode b'\\x97'"),
    "text as a reference": (b"P../../etc/passwd\n.", r"it refers to \.\./\.\./etc/passwd"),
    "number as a reference": (b"\x80\x02K\x05Q.", "it refers to 5"),
    "unicode in a name": ("cpösix\nsystem\n.".encode(), "damaged"),
    "empty": (b"", "ends early"),
    "no end": (b"\x80\x02}", "ends early"),
    "nothing on the stack": (b"\x80\x02.", "damaged"),
    "too few on the stack": (b"\x80\x02K\x01\x86.", "damaged"),
    "no mark": (b"\x80\x02K\x01t.", "damaged"),
    "no memo": (b"\x80\x02h\x05.", "did not memorise"),
    "odd items": (b"\x80\x02}(K\x01u.", "fills a dict"),
    "append to a number": (b"\x80\x02K\x01K\x02a.", "appends to 1"),
    "items of a list": (b"\x80\x02]K\x02K\x02s.", "sets items of a list"),
    "unhashable key": (b"\x80\x02}]K\x02s.", "without tensors"),
    "memo beyond 32 bits": (b"Np99999999999\n.", "beyond 32 bits"),
    "string beyond the end": (b"\x80\x04\x8d" + bytes([255] * 7) + b"\x7f.", "damaged"),
    "negative length": (b"\x80\x02\x8b\xff\xff\xff\xff.", "damaged"),
    "number of many digits": (b"L" + b"9" * 10_000 + b"L\n.", "damaged"),
    "number of many bytes": (b"\x80\x02\x8b\x00\x10\x00\x00" + b"\x01" * 4096 + b".", r"a number of 32,\d+ bits"),
    "pairs that are none": (b"\x80\x02ccollections\nOrderedDict\n](K\x01K\x02e\x85R.", "expected pairs"),
    "tensor of nothing": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
    "tensor of numbers": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor\n(K\x01K\x02K\x03K\x04tR.",
        "a part of 1 with offset 2",
    ),
    "a number": (b"\x80\x02K\x05.", "it holds 5 without tensors"),
    "a list": (b"\x80\x02].", "it holds a list without tensors; expected a state dict"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_no_checkpoint_has(tmp_path, name):
    program, message = PROGRAMS[name]
    with pytest.raises(WeightsError, match=message):
        open_torch_checkpoint(zip_file(tmp_path / "model.pt", program))


CLAIMS = {
    "storage that is not there": (tensor("7", 100), "no values for the storage 7"),
    "storage outside": (
        tensor("../../../../etc/passwd", 100),
        r"no values for the storage \.\./\.\./\.\./\.\./etc/pass",
    ),
    "absolute path": (tensor("/etc/passwd", 100), "no values for the storage /etc/passwd"),
    "larger storage": (tensor("0", 101), "has 400 bytes; its 101 values of float32 need 404"),
    "smaller storage": (tensor("0", 99), "has 400 bytes; its 99 values"),
    "immense storage": (tensor("0", 1 << 62), "need 18446744073709551616"),
    "negative storage": (tensor("0", -1, shape=(1,)), "describes the values of a tensor as storage"),
    "storage of two dtypes": ([tensor("0", 100), tensor("0", 50, kind="DoubleStorage")], "in two ways"),
    "shape beyond": (tensor("0", 100, shape=(101,)), r"'a' has shape \(101,\).*beyond the 100 values"),
    "strides beyond": (tensor("0", 100, shape=(10, 10), strides=(11, 1)), "reach beyond the 100"),
    "offset beyond": (tensor("0", 100, offset=1), "offset 1, which reach beyond the 100"),
    "scalar beyond": (tensor("0", 100, offset=100, shape=(), strides=()), "reach beyond"),
    "immense offset": (tensor("0", 100, offset=1 << 80, shape=(1,)), "reach beyond"),
    "immense stride": (tensor("0", 100, shape=(2,), strides=(1 << 80,)), "reach beyond"),
    "negative shape": (tensor("0", 100, shape=(-1,)), r"shape \(-1,\).*expected counts"),
    "negative stride": (tensor("0", 100, shape=(2,), strides=(-1,)), r"strides \(-1,\); expected counts"),
    "negative offset": (tensor("0", 100, offset=-1), "offset -1.*expected counts"),
    "fractional shape": (tensor("0", 100, shape=(1.0,)), "expected counts"),
    "truth as a shape": (tensor("0", 100, shape=(True,)), "expected counts"),
    "shape in a list": (tensor("0", 100, shape=[1]), "shape a list"),
    "too few strides": (tensor("0", 100, shape=(1, 1)), r"the shape \(1, 1\) and the strides \(1,\)"),
    "too many axes": (tensor("0", 100, shape=(1,) * 33, strides=(1,) * 33), "expected counts"),
    "expanded beyond memory": (tensor("0", 100, shape=(1 << 40,), strides=(0,)), r"claims 4,398,046,511,104 bytes"),
    "expanded beyond numbers": (tensor("0", 100, shape=(1 << 40, 1 << 40), strides=(0, 0)), "claims the shape"),
    "empty beyond numbers": (tensor("0", 100, shape=(0, 1 << 62, 1 << 62), strides=(0, 0, 0)), "claims the shape"),
}


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("name", CLAIMS)
def test_tensors_that_reach_beyond_the_file(tmp_path, version, name):
    value, message = CLAIMS[name]
    program = pickled({"a": value})
    if version == "legacy":
        path = legacy_file(tmp_path / "model.pt", program, storages=struct.pack("<q", 100) + bytes(400))
        message = r"(?i)cannot be read as a PyTorch checkpoint: .*(storage|tensor|'a')"
    else:
        path = zip_file(tmp_path / "model.pt", program)
    with pytest.raises(WeightsError, match=message):
        open_torch_checkpoint(path)


def test_storage_types_that_are_not_read_are_named(tmp_path):
    path = save(tmp_path / "model.pt", {"a": torch.ones(2, dtype=torch.complex64)})
    with pytest.raises(WeightsError, match=r"wants to run torch\.ComplexFloatStorage"):
        open_torch_checkpoint(path)


def test_parts_of_storages_are_refused(tmp_path):
    part = Stored("storage", torch.FloatStorage, "0", "cpu", 100, ("1", 0, 50))
    program = pickled({"a": Call(torch._utils._rebuild_tensor_v2, part, 0, (50,), (1,), False, {})})
    with pytest.raises(WeightsError, match="the storage 0 is a part of another"):
        open_torch_checkpoint(legacy_file(tmp_path / "model.pt", program))


def test_names_that_meet_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"two tensors 'a\.b'"):
        open_torch_checkpoint(save(tmp_path / "model.pt", {"a": {"b": BASE}, "a.b": BASE}))


def test_names_have_an_end(tmp_path):
    with pytest.raises(WeightsError, match="a name has 5,000 characters"):
        open_torch_checkpoint(save(tmp_path / "model.pt", {"a" * 5000: BASE}))


def deep_dict(depth):
    value = {"t": BASE}
    for _ in range(depth):
        value = {"d": value}
    return value


def laughing_dict():
    value = {"t": BASE}
    for _ in range(11):
        value = {"a": value, "b": value}
    return value


def endless_dict():
    value = {"t": BASE}
    value["self"] = value
    return value


@pytest.mark.parametrize("value", [deep_dict(13), laughing_dict(), endless_dict()], ids=["deep", "laughing", "endless"])
def test_dicts_that_do_not_end(tmp_path, value):
    with pytest.raises(WeightsError, match="nested more than 12 deep, or within themselves"):
        open_torch_checkpoint(save(tmp_path / "model.pt", value))


PAIRS = b"](" + b"K\x01K\x02\x86" * 20_000 + b"eq\x01ccollections\nOrderedDict\nq\x02"
BOMBS = {
    "empty dicts": b"}" * 4_000_000,
    "memorised dicts": b"}\x94" * 4_000_000,
    "memorised sets": b"\x8f\x94" * 4_000_000,
    "nested tuples": b")" + b"\x85\x94" * 4_000_000,
    "laughing lists": b"]q\x00" + b"](h\x00h\x00eq\x00" * 500_000,
    "marks": b"(" * 8_000_000,
    "copies": b"}" + b"2" * 8_000_000,
    "ordered dicts": b"ccollections\nOrderedDict\nq\x00)q\x01" + b"h\x00h\x01R\x94" * 1_000_000,
    "pairs again and again": PAIRS + b"h\x02h\x01\x85R" * 200_000,
    "dicts of one item": b"X\x01\x00\x00\x00aq\x00" + b"}h\x00h\x00s\x94" * 1_000_000,
    "wide strings": b"X" + struct.pack("<I", 12 * MB) + b"a" * (12 * MB - 4) + "😀".encode() + b"\x94N." * 2,
    "opcode after opcode": b"N0" * 4_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_more_memory_than_the_file_and_100_mb(tmp_path, name):
    program = b"\x80\x04" + BOMBS[name] + b"."
    path = zip_file(tmp_path / "model.pt", program)

    def read():
        with pytest.raises(WeightsError, match="more objects than a list of tensors needs"):
            open_torch_checkpoint(path)

    assert peak_bytes(read) < path.stat().st_size + 100 * MB


def test_lists_that_laugh_are_not_walked_through(tmp_path):
    value = [1]
    for _ in range(100):
        value = [value, value]
    check(save(tmp_path / "model.pt", {"model": {"a": BASE, "b": value}, "c": (value, value)}), {"a": BASE})


def test_deep_recursion_is_none(tmp_path):
    nested = b")" + b"\x85" * 100_000
    program = b"\x80\x02}(" + nested + b"K\x01X\x01\x00\x00\x00b](" + nested + b"e" + b"u."
    with pytest.raises(WeightsError, match="it holds a dict without tensors"):
        open_torch_checkpoint(zip_file(tmp_path / "model.pt", program))


def test_pickles_have_an_end(tmp_path):
    with pytest.raises(WeightsError, match=r"data\.pkl has 17,\d{3},\d{3} bytes; expected at most 16,777,216"):
        open_torch_checkpoint(zip_file(tmp_path / "model.pt", b"\x80\x02" + b"N0" * (17 * MB // 2 - 200_000)))


# ---- Zip files that are none of PyTorch's


def test_compressed_members(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled({"a": tensor("0", 100)}))
        archive.writestr("archive/data/0", bytes(400))
    with pytest.raises(WeightsError, match=r"member archive/data\.pkl is compressed.*packed again.*Next step"):
        open_torch_checkpoint(path)


PICKLE = pickled({"a": tensor("0", 100)})
MEMBERS = [("archive/data.pkl", PICKLE), ("archive/data/0", bytes(400))]
INNER = local_header("archive/data/1", bytes(100)) + bytes(100)
AROUND = bytes(7) + INNER
AROUND_AT = len(local_header(*MEMBERS[0]) + PICKLE + local_header("archive/data/0", AROUND))
ZIPS = {
    "no pickle": (zip_bytes([("a/b", b"c")]), r"with 0 members \*/data.pkl"),
    "two pickles": (zip_bytes([*MEMBERS, ("other/data.pkl", PICKLE)]), r"with 2 members \*/data.pkl"),
    "torchscript": (zip_bytes([*MEMBERS, ("archive/constants.pkl", b"")]), r"TorchScript.*torch\.jit\.load"),
    "two members of a name": (zip_bytes([*MEMBERS, MEMBERS[1]]), "two members archive/data/0"),
    "overlapping members": (
        zip_bytes([MEMBERS[0], ("archive/data/0", AROUND)], listed=[("archive/data/1", bytes(100), AROUND_AT + 7)]),
        "members overlap",
    ),
    "member within the list": (zip_bytes([MEMBERS[0], ("archive/data/0", b"")])[:-22], "without a list of members"),
    "one header for two": (zip_bytes(MEMBERS, listed=[("archive/data/1", PICKLE, 0)]), "is not the one that is listed"),
    "no header": (zip_bytes(MEMBERS, listed=[("archive/data/1", PICKLE, 1)]), "no member at byte 1"),
    "header beyond": (
        zip_bytes(MEMBERS, listed=[("archive/data/1", b"", 0xFFFF_FFF0)]),
        "no member at byte 4,294,967,280",
    ),
    "other compression": (zip_bytes(MEMBERS, method=93), "is compressed"),
    "byte order": (zip_bytes([*MEMBERS, ("archive/byteorder", b"middle")]), "byte order is b'middle'"),
    "long name": (zip_bytes([*MEMBERS, ("a" * 400, b"")]), "a name of 400 bytes"),
    "many members": (zip_bytes([(f"{i}", b"") for i in range(20_000)]), "has 20,000 members"),
    "cut": (zip_bytes(MEMBERS)[:-30], "without a list of members.*unfinished"),
    "only a beginning": (b"PK\3\4", "without a list of members"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_zip_files_that_torch_does_not_write(tmp_path, name):
    path = tmp_path / "model.pt"
    content, message = ZIPS[name]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_torch_checkpoint(path)


def test_hand_made_zip_files_are_right_if_nothing_is_wrong(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(zip_bytes(MEMBERS))
    check(path, {"a": torch.zeros(100)})


def test_changed_values_are_noticed(tmp_path):
    path = save(tmp_path / "model.pt", {"a": BASE, "b": torch.ones(3)})
    content = bytearray(path.read_bytes())
    content[content.index(BASE.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    checkpoint = open_torch_checkpoint(path)
    check_same(checkpoint.read("b"), np.ones(3, np.float32))
    for _ in range(2):
        with pytest.raises(WeightsError, match="the checksum of the values of 'a' is wrong: its bytes were changed"):
            checkpoint.read("a")


def test_files_without_checksums_are_not_called_changed(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = save(tmp_path / "model.pt", {"a": BASE})
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(WeightsError, match=r"checksum of data\.pkl is missing\. Next step: load and save it again"):
        open_torch_checkpoint(path)


# ---- Other files

OTHERS = {
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is an HDF5 file"),
    "page": (b"<!DOCTYPE html><html>", "it is a web page.*download it again"),
    "json": (b'{"a": 1}', "it is a JSON file"),
    "text": (b"hello, world", "it begins with b'hello, world'"),
    "gzip": (b"\x1f\x8b\x08" + bytes(50), "it is a gzip file"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
    "safetensors": (struct.pack("<q", 20) + b'{"a":{"dtype":"F32"}}', "it is a safetensors file"),
    "tar": (b"a" * 257 + b"ustar" + bytes(300), "it is a tar file"),
    "tensorflow": (bytes(100) + 0xDB4775248B80FB57.to_bytes(8, "little"), "it is a TensorFlow checkpoint"),
    "empty": (b"", "cannot be read.*empty"),
    "one byte": (b"\x80", "its pickle is damaged"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    "pickle that acts": (pickle.dumps(Call(os.system, "touch x")), r"wants to run (posix|nt)\.system"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_called_by_their_name(tmp_path, name):
    path = tmp_path / "model.pt"
    content, message = OTHERS[name]
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_torch_checkpoint(path)


@pytest.mark.parametrize("name", ["missing.pt", ""])
def test_what_is_no_file(tmp_path, name):
    with pytest.raises(WeightsError, match=r"cannot be read \((No such file|it is a folder|Permission)"):
        open_torch_checkpoint(tmp_path / name)


LEGACY = {
    "other keys": ({"keys": ["1"]}, "its list of storages is not that"),
    "no keys": ({"keys": []}, "its list of storages is not that"),
    "key twice": ({"keys": ["0", "0"]}, "its list of storages is not that"),
    "numbers as keys": ({"keys": [0]}, "its list of storages is not that"),
    "no values": ({}, "storage 0 has 0 bytes"),
    "other number of values": ({"storages": struct.pack("<q", 99) + bytes(400)}, "storage 0 has 396 bytes"),
    "negative number of values": ({"storages": struct.pack("<q", -1) + bytes(400)}, "storage 0 has 73,786,976"),
    "too few values": ({"storages": struct.pack("<q", 100) + bytes(399)}, "the storage 0 ends at byte"),
    "more values": ({"storages": struct.pack("<q", 100) + bytes(401)}, "its values end at byte"),
}


@pytest.mark.parametrize("name", LEGACY)
def test_values_that_are_not_those_of_the_pickle(tmp_path, name):
    options, message = LEGACY[name]
    with pytest.raises(WeightsError, match=message):
        open_torch_checkpoint(legacy_file(tmp_path / "model.pt", PICKLE, **options))


# ---- Damage of all kinds

SMALL = {"model": {"a": BASE[0], "b.c": BASE[:, 1], "n": torch.tensor(7), "h": BASE[1].bfloat16()}, "iteration": 3}


def read_all(path):
    checkpoint = open_torch_checkpoint(path)
    return {name: checkpoint.read(name) for name in checkpoint.variables}


def damaged(content, rng):
    """Some bits flipped, or the end or some bytes lost, or some bytes repeated."""
    content = bytearray(content)
    kind = rng.integers(5)
    at, n = int(rng.integers(len(content))), int(rng.integers(1, 64))
    if kind == 0:
        del content[at:]
    elif kind == 1:
        del content[at : at + n]
    elif kind == 2:
        content[at:at] = content[at : at + n]
    else:
        for i in rng.integers(len(content), size=int(rng.integers(1, 4))):
            content[i] ^= 1 << int(rng.integers(8))
    return bytes(content)


def outcome(path, content):
    """The tensors of a damaged file, or None where it is refused."""
    path.write_bytes(content)
    try:
        return read_all(path)
    except WeightsError as error:
        return None if "cannot be read" in str(error) and len(str(error)) < 1500 else {}


def test_damaged_zip_files_give_an_error_or_the_right_values(tmp_path):
    rng = np.random.default_rng(0)
    path = save(tmp_path / "model.pt", SMALL)
    content, expected = path.read_bytes(), read_all(path)
    found = [outcome(path, damaged(content, rng)) for _ in range(600)]
    survivors = [tensors for tensors in found if tensors is not None]
    assert 0 < len(survivors) < 400  # the padding before each member may change
    for tensors in survivors:
        assert list(tensors) == list(expected)
        for name, value in expected.items():
            check_same(tensors[name], value)


def test_damaged_pickles_give_an_error_or_tensors_within_the_file(tmp_path):
    rng = np.random.default_rng(1)
    path = save(tmp_path / "model.pt", SMALL)
    with zipfile.ZipFile(path) as archive:
        parts = {name.split("/data/")[1]: archive.read(name) for name in archive.namelist() if "/data/" in name}
        program = archive.read("model/data.pkl")
    values = b"".join(parts.values())
    n_read = 0
    for _ in range(600):
        zip_file(path, damaged(program, rng), parts)
        tensors = outcome(path, path.read_bytes())
        n_read += tensors is not None
        assert sum(value.nbytes for value in (tensors or {}).values()) <= 8 * len(values)
    assert 0 < n_read < 300


def test_damaged_legacy_files_give_an_error_or_tensors_within_the_file(tmp_path):
    rng = np.random.default_rng(2)
    path = save(tmp_path / "model.pt", SMALL, "legacy")
    content, expected = path.read_bytes(), read_all(path)
    n_right = 0
    for _ in range(600):
        tensors = outcome(path, damaged(content, rng))
        assert sum(value.nbytes for value in (tensors or {}).values()) <= 8 * len(content)
        n_right += tensors is not None and tensors.keys() == expected.keys()
    assert 0 < n_right < 400


@pytest.mark.parametrize("version", FORMATS)
def test_a_file_cut_anywhere_is_refused(tmp_path, version):
    path = save(tmp_path / "model.pt", SMALL, version)
    content = path.read_bytes()
    for n in range(0, len(content), 7):
        assert outcome(path, content[:n]) is None
