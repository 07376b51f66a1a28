"""PyTorch checkpoints: what PyTorch wrote is read bit by bit."""

from __future__ import annotations

import collections
import zipfile

import numpy as np
import pytest
from reference_data import ASSETS
from torch_files import (
    BASE,
    FORMATS,
    GENERATOR,
    MB,
    Call,
    check,
    check_same,
    peak_bytes,
    pickled,
    save,
    tensor,
    zip_file,
)

from audioset.errors import WeightsError
from audioset.weights.torch_zip import open_torch_checkpoint, read_torch_zip

torch = pytest.importorskip("torch")
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
LAYOUTS = {
    "contiguous": BASE,
    "transposed": BASE.permute(2, 0, 1),
    "channels_last": torch.randn(2, 3, 4, 5, generator=GENERATOR).contiguous(memory_format=torch.channels_last),
    "row": BASE[3],
    "column": BASE[:, 2, 1],
    "every_other": BASE[1::2, :, ::3],
    "expanded": torch.tensor([1.5, -2]).expand(3, 2),
    "windows": torch.arange(10.0).unfold(0, 4, 1),
    "scalar": torch.tensor(-0.0),
    "element": BASE[1, 2, 3],
    "one": BASE[:1, :1],
    "empty": torch.empty(0),
    "empty_rows": torch.empty(3, 0, 2),
    "nothing_of_it": BASE[2:2],
    "special": torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-42]),
    "parameter": torch.nn.Parameter(torch.ones(2, 3)),
}

# ---- What PyTorch writes


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, version, dtype):
    values = torch.tensor([[0, 1, 5], [127, 100, 3]]).to(DTYPES[dtype])
    path = save(tmp_path / "model.pt", {"some": values, "turned": values.T, "one": values[1, 1]}, version)
    check(path, torch.load(path, weights_only=True))


@pytest.mark.parametrize("version", FORMATS)
def test_every_layout(tmp_path, version):
    path = save(tmp_path / "model.pt", LAYOUTS, version)
    check(path, torch.load(path, weights_only=True))


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path, version, protocol):
    path = save(tmp_path / "model.pt", {**LAYOUTS, "a": {"b": BASE}}, version, pickle_protocol=protocol)
    check(path, {**LAYOUTS, "a.b": BASE})


def test_all_float16_and_bfloat16_values(tmp_path):
    bits = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
    tensors = {"half": bits.view(torch.float16), "brain": bits.clone().view(torch.bfloat16)}
    checkpoint = open_torch_checkpoint(save(tmp_path / "model.pt", tensors))
    check_same(checkpoint.read("half"), tensors["half"].numpy())
    upper_half = (bits.numpy().astype(np.uint16).astype(np.uint32) << 16).view(np.float32)
    check_same(checkpoint.read("brain"), upper_half)


@pytest.mark.parametrize("version", FORMATS)
def test_state_dict_of_a_module(tmp_path, version):
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 2), torch.nn.BatchNorm2d(3), torch.nn.LSTM(3, 4))
    path = save(tmp_path / "model.pt", module.state_dict(), version)
    check(path, module.state_dict())


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_state_dict_beside_the_state_of_training(tmp_path, version, key):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(3)).sum().backward()
    optimizer.step()
    value = {
        "iteration": 600_000,
        "optimizer": optimizer.state_dict(),
        "sampler": {"indexes": [[1, 2], (3, 4)], "queue": np.arange(9), "pointer": np.int64(3), 5: {(1, 2): BASE}},
        "random": (2**127 + 1, -(2**40), 1.5, None, True, "text ü", b"bytes", {1, 2}, frozenset("a"), bytearray(3)),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([1, 2]),
        key: module.state_dict(),
        "other": collections.OrderedDict(a=BASE),
    }
    check(save(tmp_path / "model.pt", value, version), module.state_dict())


def test_settings_called_model_are_not_the_weights(tmp_path):
    path = save(tmp_path / "model.pt", {"model": {"name": "mn04"}, "state_dict": {"a": BASE}})
    check(path, {"a": BASE})


def test_names_of_nested_dicts_are_joined(tmp_path):
    path = save(tmp_path / "model.pt", {"a.b": BASE, "net": {"c": {"": BASE[0], 7: BASE}, "d": [BASE]}, "e": 1})
    check(path, {"a.b": BASE, "net.c.": BASE[0]})


def test_values_of_a_big_endian_machine(tmp_path):
    values = np.arange(6, dtype=np.float32)
    parts = {"0": values.astype(">f4").tobytes(), "1": values.astype(">i8").tobytes()}
    tensors = {"a": tensor("0", 6, shape=(2, 3), strides=(3, 1)), "b": tensor("1", 6, kind="LongStorage")}
    path = zip_file(tmp_path / "model.pt", pickled(tensors), parts, byteorder=b"big")
    check(path, {"a": torch.from_numpy(values).reshape(2, 3), "b": torch.arange(6)})
    check(path, torch.load(path, weights_only=True))


def test_files_without_a_byte_order_are_little_endian(tmp_path):
    path = zip_file(tmp_path / "model.pt", pickled({"a": tensor("0", 3)}), {"0": np.float32([1, 2, 3]).tobytes()})
    check(path, {"a": torch.tensor([1.0, 2, 3])})


def test_sizes_beyond_32_bits_are_read_where_they_are_written(tmp_path):
    path = zip_file(tmp_path / "model.pt", pickled({"a": tensor("0", 3)}), {"0": bytes(12)}, is_zip64=True)
    assert zipfile.ZipFile(path).testzip() is None
    check(path, {"a": torch.zeros(3)})


def test_ordered_dicts_of_python_2_hold_pairs(tmp_path):
    pairs = Call(collections.OrderedDict, [["a", tensor("0", 1)], ["b", tensor("0", 1)]])
    path = zip_file(tmp_path / "model.pt", pickled(pairs), {"0": bytes(4)})
    check(path, {"a": torch.zeros(1), "b": torch.zeros(1)})


def test_published_checkpoint():
    path = ASSETS / "mn04_as_mAP_432.pt"
    if not path.is_file():
        pytest.skip(f"no reference weights: there is no {path}")
    expected = torch.load(path, weights_only=True)
    assert len(expected) == 312
    check(path, expected)
    shapes = {name: tuple(value.shape) for name, value in expected.items() if value.dtype == torch.float32}
    weights = read_torch_zip(path, shapes)
    assert list(weights) == list(shapes)
    for name in shapes:
        check_same(weights[name], expected[name].numpy())


# ---- What a network needs


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_weights_of_every_floating_dtype_become_float32(tmp_path, version, dtype):
    value = BASE.to(DTYPES[dtype])
    tensors = {"b": value[..., 0].T, "a": value, "bn.num_batches_tracked": torch.tensor(3)}
    weights = read_torch_zip(save(tmp_path / "model.pt", tensors, version), {"a": (6, 5, 4), "b": (5, 6)})
    assert list(weights) == ["a", "b"]
    check_same(weights["a"], value.float().numpy())
    check_same(weights["b"], value[..., 0].T.float().numpy())


WRONG = {
    "missing": ({"b": BASE}, r"no tensor 'a'; it has 1 tensors, such as b\."),
    "unknown": ({"a": torch.ones(2), "ab": BASE}, r"1 tensors that the network does not know, such as 'ab'"),
    "shape": ({"a": BASE}, r"'a' has shape \(6, 5, 4\); expected \(2,\)"),
    "dtype": ({"a": torch.ones(2, dtype=torch.int32)}, r"'a' has dtype int32; expected floating-point"),
    "nan": ({"a": torch.tensor([0, float("nan")])}, r"'a' holds NaN or infinite"),
    "infinity": ({"a": torch.tensor([0, float("inf")])}, r"'a' holds NaN or infinite"),
    "too large for float32": ({"a": torch.tensor([0, 1e300], dtype=torch.float64)}, r"'a' holds NaN or infinite"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_as_the_network_needs_it_is_named(tmp_path, what):
    tensors, message = WRONG[what]
    with pytest.raises(WeightsError, match=message):
        read_torch_zip(save(tmp_path / "model.pt", tensors), {"a": (2,)})


def test_patterns_say_what_else_may_be_there(tmp_path):
    path = save(tmp_path / "model.pt", {"a": torch.ones(2), "stft.window": BASE})
    assert list(read_torch_zip(path, {"a": (2,)}, ignored=("stft.*",))) == ["a"]


def test_reading_a_tensor_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match="no tensor 'b'; it has 1 tensors, such as a"):
        open_torch_checkpoint(save(tmp_path / "model.pt", {"a": BASE})).read("b")


@pytest.mark.parametrize("version", FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_memory_is_that_of_the_result(tmp_path, version, dtype):
    tensors = {f"layer{i}": torch.full((1024, 1024), i, dtype=DTYPES[dtype]) for i in range(8)}
    path = save(tmp_path / "model.pt", tensors, version)
    shapes = dict.fromkeys(tensors, (1024, 1024))
    peak = peak_bytes(lambda: read_torch_zip(path, shapes))
    assert 32 * MB <= peak < 40 * MB
