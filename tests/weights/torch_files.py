"""PyTorch checkpoints written by hand, and comparisons of what is read."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import tracemalloc
import zlib

import pytest

from audioset.weights.torch_zip import open_torch_checkpoint

torch = pytest.importorskip("torch")
FORMATS = {"zip": True, "legacy": False}
MB = 1 << 20
GENERATOR = torch.Generator().manual_seed(0)
BASE = torch.randn(6, 5, 4, generator=GENERATOR)


def save(path, value, version="zip", **options):
    torch.save(value, path, _use_new_zipfile_serialization=FORMATS[version], **options)
    return path


def as_numpy(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def check_same(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable
    assert found.flags.owndata


def check(path, expected):
    checkpoint = open_torch_checkpoint(path)
    described = {name: (tuple(value.shape), str(value.dtype)) for name, value in expected.items()}
    assert {name: (shape, f"torch.{dtype}") for name, (shape, dtype) in checkpoint.variables.items()} == described
    assert list(checkpoint.variables) == list(expected)
    for name, value in expected.items():
        check_same(checkpoint.read(name), as_numpy(value))


def peak_bytes(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- Pickles and zip files by hand


class Call:
    """Pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Stored:
    """Pickled as a reference to what is not in the pickle."""

    def __init__(self, *saved_id):
        self.saved_id = saved_id


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.saved_id if isinstance(value, Stored) else None


def pickled(value, protocol=2):
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def tensor(key, n_items, offset=0, shape=None, strides=(1,), kind="FloatStorage"):
    storage = Stored("storage", getattr(torch, kind), key, "cpu", n_items)
    shape = (n_items,) if shape is None else shape
    return Call(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, collections.OrderedDict())


def local_header(name, content, method=0):
    raw = name.encode()
    fields = (20, 0, method, 0, 0, zlib.crc32(content), len(content), len(content), len(raw), 0)
    return struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + raw


def central_header(name, content, at, method=0, is_zip64=False):
    raw, n, offset = name.encode(), len(content), at
    extra = b""
    if is_zip64:
        extra = struct.pack("<2HI", 0x4246, 4, 0) + struct.pack("<2H3Q", 1, 24, n, n, at)
        n = offset = 0xFFFF_FFFF
    fields = (20, 20, 0, method, 0, 0, zlib.crc32(content), n, n, len(raw), len(extra), 0, 0, 0, 0, offset)
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", *fields) + raw + extra


def zip_bytes(members, method=0, is_zip64=False, listed=()):
    """A zip file; ``listed`` are names, contents and places of members that are only said to be there."""
    data, directory = b"", b""
    for name, content in members:
        directory += central_header(name, content, len(data), method, is_zip64)
        data += local_header(name, content, method) + content
    directory += b"".join(central_header(*entry) for entry in listed)
    n = len(members) + len(listed)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, n, n, len(directory), len(data))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(data) + len(directory), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, n, n, len(directory), len(data), 0)
    return data + directory + (end64 + locator if is_zip64 else b"") + end


def zip_file(path, program, storages=None, byteorder=None, **options):
    members = [("archive/data.pkl", program), ("archive/version", b"3\n")]
    members += [("archive/byteorder", byteorder)] if byteorder else []
    members += [(f"archive/data/{key}", content) for key, content in (storages or {"0": bytes(400)}).items()]
    path.write_bytes(zip_bytes(members, **options))
    return path
