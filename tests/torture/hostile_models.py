"""Hostile models: cards, and weights of every format."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
from checkpoints import TENSORS, varint, write_v1, write_v2
from hostile_place import (
    DEEP,
    REFUSALS,
    TAG_MODEL,
    Gadget,
    Place,
    Write,
    hostile,
)

# model folders -------------------------------------------------------------------------------------------------------

CARD = "model/model.json"
WEIGHTS = "model/model.safetensors"


def _card(**changes: Any) -> Write:
    def write(place: Place) -> list[str]:
        values = json.loads((place.work / CARD).read_text())
        place.write(CARD, json.dumps({**values, **changes}))
        return TAG_MODEL

    return write


CARDS: dict[str, dict[str, Any]] = {
    "a billion classes": {"arguments": {"width": 0.1, "n_classes": 10**9}},
    "a width of a billion": {"arguments": {"width": 1e9, "n_classes": 8}},
    "a negative width": {"arguments": {"width": -1, "n_classes": 8}},
    "a width that is none": {"arguments": {"width": float("nan"), "n_classes": 8}},
    "a width that is text": {"arguments": {"width": "0.1", "n_classes": 8}},
    "a width beyond floats": {"arguments": {"width": 10**400, "n_classes": 8}},
    "classes of half": {"arguments": {"width": 0.1, "n_classes": 8.5}},
    "no classes at all": {"arguments": {"width": 0.1, "n_classes": -8}},
    "strides of a billion": {"arguments": {"width": 0.1, "n_classes": 8, "strides": [10**9] * 4}},
    "strides of zero": {"arguments": {"width": 0.1, "n_classes": 8, "strides": [0, 0, 0, 0]}},
    "strides in lists": {"arguments": {"width": 0.1, "n_classes": 8, "strides": [[[]]]}},
    "arguments that are dunder": {"arguments": {"__class__": 1, "ops": None, "patches": None}},
    "a billion blocks": {"network": "panns_resnet", "frontend": "panns", "arguments": {"n_blocks": [10**9] * 4}},
    "channels of a billion": {"network": "panns_cnn", "frontend": "panns", "arguments": {"channels": [10**9] * 6}},
    "a million layers": {"network": "panns_cnn", "frontend": "panns", "arguments": {"channels": [64] * 10**6}},
    "a kernel of a billion": {"network": "panns_cnn", "frontend": "panns", "arguments": {"kernel": 10**9}},
    "a classifier of a classifier": {
        "network": "classifier",
        "arguments": {"backbone": "classifier", "backbone_arguments": {"backbone": "classifier"}},
    },
    "a hidden layer of a billion": {
        "network": "classifier",
        "arguments": {"backbone": "mobilenet", "backbone_arguments": {"width": 0.1}, "hidden_size": 10**12},
    },
    "a network with a path": {"network": "../../outside/victim"},
    "a frontend with a path": {"frontend": "../../outside/victim"},
    "labels with a path": {"labels": "../../outside/victim"},
    "labels that are numbers": {"labels": list(range(8))},
    "labels that are the same": {"labels": ["one"] * 8},
    "labels that are too many": {"labels": [f"{number}" for number in range(100_000)]},
    "a calibration that is garbage": {"calibration": {"thresholds": "yes", "maps": [[[[1]]]], "kind": None}},
    "a backbone with a path": {"backbone": "../../outside", "network": "logistic"},
    "another format": {"format": 10**30},
}
for _name, _changes in CARDS.items():
    hostile(f"card: {_name}")(_card(**_changes))

hostile("card: labels with escape sequences", statuses=(0, *REFUSALS))(
    _card(labels=[f"\x1b]0;owned\x07\x1b[31m{number}" for number in range(8)])
)


def _raw_card(text: str | bytes) -> Write:
    def write(place: Place) -> list[str]:
        place.write(CARD, text)
        return TAG_MODEL

    return write


for _name, _text in {
    "lists in lists": "[" * DEEP,
    "objects in objects": '{"arguments":' * DEEP,
    "lists in arguments": '{"network":"yamnet","arguments":' + "[" * DEEP + "]" * DEEP + "}",
    "null": "null",
    "a list": "[1, 2]",
    "a number of a million digits": '{"format": ' + "9" * 1_000_000 + "}",
    "UTF-16": '{"network": "yamnet"}'.encode("utf-16"),
    "bytes": bytes(range(256)),
    "nothing": "",
}.items():
    hostile(f"card: {_name}")(_raw_card(_text))


@hostile("card: gigabytes of nothing")
def _huge_card(place: Place) -> list[str]:
    with place.path(CARD).open("wb") as file:
        file.truncate(4 << 30)
    return TAG_MODEL


@hostile("card: a pipe")
def _pipe_card(place: Place) -> list[str]:
    place.path(CARD).unlink()
    os.mkfifo(place.path(CARD))
    return TAG_MODEL


@hostile("card: a device without end")
def _endless_card(place: Place) -> list[str]:
    place.path(CARD).unlink()
    place.path(CARD).symlink_to("/dev/zero")
    return TAG_MODEL


# safetensors ---------------------------------------------------------------------------------------------------------


def _safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> Write:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()

    def write(place: Place) -> list[str]:
        place.write(WEIGHTS, struct.pack("<Q", len(text) if length is None else length) + text + data)
        return TAG_MODEL

    return write


def _tensor(dtype: str = "F32", shape: Sequence[int] = (1,), offsets: Sequence[int] = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


for _name, _write in {
    "a header of 2^63 bytes": _safetensors({}, length=2**63),
    "a header longer than the file": _safetensors({}, length=10**8),
    "a deep header": _safetensors(b'{"a":' * 100_000),
    "offsets that overlap": _safetensors({"a": _tensor(), "b": _tensor()}, bytes(4)),
    "offsets that go back": _safetensors({"a": _tensor(offsets=(4, 0))}, bytes(4)),
    "a shape beyond 64 bits": _safetensors({"a": _tensor(shape=(2**32, 2**32, 4))}, bytes(4)),
    "an unknown dtype": _safetensors({"a": _tensor("F8_SUPER")}, bytes(4)),
    "a name with escape sequences": _safetensors({"\x1b[2J\x1b]0;owned\x07": _tensor()}, bytes(4)),
    "no file at all": lambda place: place.path(WEIGHTS).unlink() or TAG_MODEL,
    "a million empty tensors": _safetensors(
        json.dumps({f"{number:x}": _tensor(shape=(0,), offsets=(0, 0)) for number in range(300_000)}).encode()
    ),
}.items():
    hostile(f"safetensors: {_name}")(_write)


@hostile("safetensors: a pipe")
def _pipe_weights(place: Place) -> list[str]:
    place.path(WEIGHTS).unlink()
    os.mkfifo(place.path(WEIGHTS))
    return TAG_MODEL


@hostile("safetensors: a link to itself")
def _looping_weights(place: Place) -> list[str]:
    place.path(WEIGHTS).unlink()
    place.path(WEIGHTS).symlink_to("model.safetensors")
    return TAG_MODEL


# HDF5 ----------------------------------------------------------------------------------------------------------------

KERNEL = "layer1/conv/layer1/conv/kernel:0"


def _hdf5(fill: Callable[[h5py.File, Place], Any]) -> Write:
    def write(place: Place) -> list[str]:
        with h5py.File(place.path("weights.h5"), "w", libver="latest") as file:
            fill(file, place)
        return ["tag", "a.wav", "--model", "yamnet", "--weights", "weights.h5", "-q"]

    return write


def _external(file: h5py.File, place: Place) -> None:
    secret = str(place.work.parent / "outside" / "victim.txt")
    file.create_dataset(KERNEL, (3, 3, 1, 32), "f4", external=[(secret, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, place: Place) -> None:
    layout = h5py.VirtualLayout((3, 3, 1, 32), "f4")
    layout[...] = h5py.VirtualSource(str(place.work.parent / "outside" / "x.h5"), "d", (3, 3, 1, 32))
    file.create_virtual_dataset(KERNEL, layout)


def _group_loop(file: h5py.File, place: Place) -> None:
    group = file.create_group("layer1")
    group["conv"] = group
    group["up"] = file["/"]


def _chain(file: h5py.File, place: Place) -> None:
    group = file
    for _ in range(3_000):
        group = group.create_group("a")


for _name, _fill in {
    "a shape of 2^40": lambda file, place: file.create_dataset(KERNEL, (2**20, 2**20), "f4", chunks=(1024, 1024)),
    "a right name of 2^36": lambda file, place: file.create_dataset(
        KERNEL, (3, 3, 2**16, 2**16), "f4", chunks=(1, 1, 256, 256), compression="gzip"
    ),
    "external storage": _external,
    "an external link": lambda file, place: file.__setitem__("layer1", h5py.ExternalLink("../outside/x.h5", "/")),
    "a link to itself": lambda file, place: file.__setitem__("layer1", h5py.SoftLink("/layer1")),
    "a virtual dataset": _virtual,
    "groups in themselves": _group_loop,
    "three thousand groups deep": _chain,
    "text for numbers": lambda file, place: file.create_dataset(KERNEL, data=[b"x" * 100] * 10),
    "a type of many fields": lambda file, place: file.create_dataset(
        KERNEL, (3,), np.dtype([(f"f{number}", "f4") for number in range(500)])
    ),
    "a name with escape sequences": lambda file, place: file.create_dataset("\x1b[2J\x1b]0;owned\x07/x:0", data=[1.0]),
    "an object reference": lambda file, place: file.create_dataset(KERNEL, data=file.ref, dtype=h5py.ref_dtype),
    "a hundred thousand names": lambda file, place: [file.create_group(f"g{number}") for number in range(100_000)],
}.items():
    hostile(f"HDF5: {_name}")(_hdf5(_fill))


@hostile("HDF5: damaged at random")
def _damaged_hdf5(place: Place) -> list[str]:
    arguments = _hdf5(lambda file, place: file.create_dataset(KERNEL, data=np.zeros((3, 3, 1, 32), "f4")))(place)
    path = place.path("weights.h5")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(place.seed)
    for at in rng.integers(8, 1_000, 60):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    return arguments


# torch ---------------------------------------------------------------------------------------------------------------

TAG_TORCH = ["tag", "a.wav", "--model", "mn04", "--weights", "weights.pt", "-q"]


def _torch(pickled: Callable[[Place], bytes], extra: Sequence[tuple[str, bytes]] = ()) -> Write:
    def write(place: Place) -> list[str]:
        with zipfile.ZipFile(place.path("weights.pt"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickled(place))
            archive.writestr("archive/version", "3\n")
            for name, data in extra:
                archive.writestr(name, data)
        return TAG_TORCH

    return write


def _storage_pickle(n_elements: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """A state dict of one tensor, as PyTorch pickles it, with any numbers in it."""
    text = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01ctorch._utils\n_rebuild_tensor_v2\n(("
    text += b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    text += _integer(n_elements) + b"tQ" + _integer(offset)
    for numbers in (shape, strides):
        text += b"(" + b"".join(_integer(number) for number in numbers) + b"t"
    return text + b"\x89ccollections\nOrderedDict\n)RtRs."


def _integer(number: int) -> bytes:
    data = number.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


ZEROS = ("archive/data/0", bytes(64))
for _name, _write in {
    "a command in the pickle": _torch(lambda place: pickle.dumps({"a": Gadget(place)})),
    "a command by an extension": _torch(
        lambda place: (
            b"cposix\nsystem\n(X" + struct.pack("<I", len(place.canary) + 6) + f"touch {place.canary}".encode() + b"tR."
        )
    ),
    "eval in the pickle": _torch(lambda place: b"cbuiltins\neval\n(Vopen(%r, 'w')\ntR." % place.canary),
    "tuples a million deep": _torch(lambda place: b"\x80\x02" + b")" + b"\x85" * 1_000_000 + b"."),
    "lists that laugh": _torch(
        lambda place: (
            b"\x80\x02]q\x000"
            + b"".join(b"(h%ch%ctq%c0" % (number, number, number + 1) for number in range(200))
            + b"h%c." % 200
        )
    ),
    "a string of 4 GiB": _torch(lambda place: b"\x80\x02X" + struct.pack("<I", 0xFFFFFFF0) + b"x."),
    "bytes of 2^62": _torch(lambda place: b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x."),
    "a number of 2 GiB": _torch(lambda place: b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x."),
    "a memo at 2^32": _torch(lambda place: b"\x80\x02Nr\xff\xff\xff\xff."),
    "a storage of 2^40": _torch(lambda place: _storage_pickle(2**40, (2**20, 2**20), (2**20, 1)), [ZEROS]),
    "a tensor of strides 0": _torch(lambda place: _storage_pickle(1, (2**20, 2**20), (0, 0)), [ZEROS]),
    "an offset below 0": _torch(lambda place: _storage_pickle(16, (16,), (1,), -1), [ZEROS]),
    "strides below 0": _torch(lambda place: _storage_pickle(16, (4,), (-4,)), [ZEROS]),
    "names that lead out": _torch(lambda place: pickle.dumps({}), [("../../outside/victim.txt", b"owned")]),
    "a pickle that ends at once": _torch(lambda place: b""),
}.items():
    hostile(f"torch: {_name}")(_write)


@hostile("torch: a pickle that swells to 2 GB")
def _swelling_pickle(place: Place) -> list[str]:
    with zipfile.ZipFile(place.path("weights.pt"), "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data.pkl", "w", force_zip64=True) as file:
            file.write(b"\x80\x02")
            for _ in range(1 << 10):
                file.write(b"N0" * (1 << 20))
        archive.writestr("archive/version", "3\n")
    return TAG_TORCH


@hostile("torch: the old format with a command")
def _old_torch(place: Place) -> list[str]:
    place.write("weights.pt", pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickle.dumps(Gadget(place)))
    return TAG_TORCH


@hostile("torch: a tar with a command")
def _tar_torch(place: Place) -> list[str]:
    with tarfile.open(place.path("weights.pt"), "w") as archive:
        data = pickle.dumps(Gadget(place))
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return TAG_TORCH


# TensorFlow ----------------------------------------------------------------------------------------------------------

TAG_TF = ["embed", "a.wav", "--model", "vggish", "--weights", "vggish.ckpt", "-q", "-o", "e.npz"]


def _v1(change: Callable[[bytes], bytes]) -> Write:
    def write(place: Place) -> list[str]:
        path = write_v1(
            place.path("vggish.ckpt"), {name: TENSORS[name] for name in ("net/conv/weights", "global_step")}
        )
        path.write_bytes(change(path.read_bytes()))
        return TAG_TF

    return write


MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")


def _footer(*numbers: int) -> bytes:
    return b"".join(varint(number) for number in numbers).ljust(40, b"\0")[:40] + MAGIC


for _name, _change in {
    "an index at 2^63": lambda data: data[:-48] + _footer(0, 8, 2**63 - 1, 2**63 - 1),
    "an index of the whole file": lambda data: data[:-48] + _footer(0, 0, 0, len(data)),
    "a footer alone": lambda data: data[-48:],
    "nothing but ones": lambda data: b"\xff" * len(data),
    "restarts without end": lambda data: data[:-60] + b"\xff" * 12 + data[-48:],
    "another checkpoint's end": lambda data: data[: len(data) // 2] + data[-48:],
}.items():
    hostile(f"TensorFlow: {_name}", outputs=("e.npz",))(_v1(_change))


@hostile("TensorFlow: a snappy block of 4 GiB", outputs=("e.npz",))
def _snappy_bomb(place: Place) -> list[str]:
    write_v1(
        place.path("vggish.ckpt"),
        {"net/conv/biases": TENSORS["net/conv/biases"]},
        compress=lambda data: varint(2**32 - 1) + b"\x00a" + b"\xfe\x01\x00" * 20_000,
    )
    return TAG_TF


@hostile("TensorFlow: shards that lead out", outputs=("e.npz",))
def _leading_shards(place: Place) -> list[str]:
    write_v2(place.path("vggish.ckpt"), {"net/conv/biases": TENSORS["net/conv/biases"]})
    data = place.path("vggish.ckpt.data-00000-of-00001")
    data.unlink()
    data.symlink_to("/dev/zero")
    return TAG_TF
