"""Heads against the original's stored scores and their definitions; padding; training; audio by way of VGGish."""

from __future__ import annotations

import json
import math
import os
import runpy
from dataclasses import replace
from uuid import uuid4

import numpy as np
import pytest
from originals import read_cases, reference_file

from audioset import load_model, tag_files
from audioset.cache import Graph
from audioset.errors import AssetError, UsageError, WeightsError
from audioset.executors.onnx import network_to_onnx
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.models.cards import NETWORKS
from audioset.models.head_model import HeadModel, cut_windows
from audioset.models.postprocess import Postprocessor
from audioset.models.prediction import join_predictions
from audioset.models.published import find_model
from audioset.networks.heads import HEADS, kong
from audioset.networks.ops import KERAS_NAMES, Outputs, input_names
from audioset.networks.panns import panns_cnn, panns_wavegram_logmel
from audioset.networks.shapes import ShapeOps, trace_shapes
from audioset.networks.two_branch import two_branch
from audioset.networks.youtube8m_heads import dbof
from audioset.weights.model_folder import ModelCard, read_card, write_model_folder

# Keras turns its variables into arrays by way of PyTorch's Tensor.__array__, which lacks a keyword that numpy 2 wants.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ORIGINALS = {
    "average-pooling": ("decision_level_average_pooling", 2_774_799),
    "max-pooling": ("decision_level_max_pooling", 2_774_799),
    "single-attention": ("decision_level_single_attention", 3_314_974),
    "multi-attention": ("decision_level_multi_attention", 3_870_959),
    "feature-attention": ("feature_level_attention", 4_876_047),
}
SHAPE = (None, 128)
EXECUTORS = ("openvino", "onnxruntime", "torch", "keras")
PADDINGS = ("zero", "mask")
MOMENTS = ("running_mean", "running_var", "moving_mean", "moving_variance")
LENGTHS = np.array([6, 1, 4, 6])


class HeadOracle:
    """Executor that follows the definitions in float64; maps are (n, seconds, 1, channels)."""

    def __init__(self, weights):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}

    def conv2d(self, x, layer, *, filters, kernel, bias=False, names=KERAS_NAMES):
        weight, *biases = (self.weights[name] for name in names.layer(layer, bias=bias))
        return x @ weight[:, :, 0, 0].T + sum(biases)

    def dense(self, x, layer, units, *, bias=True, names=KERAS_NAMES):
        weight, *biases = (self.weights[name] for name in names.layer(layer, bias=bias))
        return x @ (weight.T if names.is_output_first else weight) + sum(biases)

    pointwise_dense = dense

    def batch_norm(self, x, layer, *, epsilon, momentum, names=KERAS_NAMES):
        gain, offset, mean, variance = (self.weights[name] for name in names.batch_norm(layer))
        return (x - mean) / np.sqrt(variance + epsilon) * gain + offset

    def relu(self, x):
        return np.maximum(x, 0)

    def sigmoid(self, x):
        return 1 / (1 + np.exp(-x))

    def softmax(self, x):
        return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)

    def clip(self, x, low, high):
        return np.clip(x, low, high)

    def affine(self, x, gain, offset):
        return x * gain + offset

    def sqrt(self, x):
        return np.sqrt(x)

    def add(self, x, y):
        return x + y

    def l2_normalize(self, x, epsilon):
        return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), epsilon)

    def dropout(self, x, rate):
        return x

    def multiply(self, x, y):
        return x * y

    def concatenate(self, x, y):
        return np.concatenate([x, y], axis=-1)

    def height_mean(self, x, weights=None):
        weights = np.ones((*x.shape[:3], 1)) if weights is None else weights
        return (x * weights).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)

    def height_max(self, x):
        return x.max(axis=1, keepdims=True)

    def draw_rows(self, x, mask, n_rows):
        return x, mask

    def rows(self, x):
        return x[:, :, 0]

    def flatten(self, x):
        return x.reshape(len(x), -1)

    def mixture(self, gates, experts, n_experts):
        shares = np.exp(gates.reshape(len(gates), -1, n_experts + 1))
        said = np.append(experts.reshape(len(experts), -1, n_experts), np.zeros((*shares.shape[:2], 1)), axis=2)
        return (shares * said).sum(axis=2) / shares.sum(axis=2)

    def lstm(self, x, mask, layers, units, forget_bias):
        n_rows = np.full(len(x), x.shape[1]) if mask is None else mask.sum(axis=(1, 2, 3)).astype(int)
        return np.stack(
            [self._last(clip[:n], layers, units, forget_bias) for clip, n in zip(x[:, :, 0], n_rows, strict=True)]
        )

    def _last(self, rows, layers, units, forget_bias):
        for layer in layers:
            kernel, bias = self.weights[f"{layer}/kernel"], self.weights[f"{layer}/bias"]
            output, cell, outputs = np.zeros(units), np.zeros(units), []
            for row in rows:
                enter, candidate, forget, leave = np.split(np.append(row, output) @ kernel + bias, 4)
                cell = cell * self.sigmoid(forget + forget_bias) + self.sigmoid(enter) * np.tanh(candidate)
                output = np.tanh(cell) * self.sigmoid(leave)
                outputs.append(output)
            rows = outputs
        return rows[-1]


class MomentumOps(ShapeOps):
    """Executor that notes the momentum of each batch norm."""

    def __init__(self):
        super().__init__()
        self.momenta = set()

    def batch_norm(self, x, layer, *, momentum=0.99, **options):
        self.momenta.add(momentum)
        return super().batch_norm(x, layer, **options)


def mask_of(lengths, n_seconds):
    return (np.arange(n_seconds) < np.asarray(lengths)[:, None]).astype(np.float32)


def random_clips(n_clips=4, n_seconds=6, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n_clips, n_seconds, 128), np.uint8)


def random_tensors(network, arguments):
    """Weights that make scores of all sizes."""
    rng, tensors = np.random.default_rng(0), {}
    for name, shape in trace_shapes(network, SHAPE, arguments)[0].items():
        n_inputs = shape[1] if name.endswith(".weight") and len(shape) > 1 else shape[0]
        scale = math.sqrt(3 / n_inputs) if len(shape) > 1 else 0.1
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        is_near_1 = name.endswith(("var", "variance", "gamma")) or ("bn" in name and name.endswith(".weight"))
        tensors[name] = 1 + abs(values) if is_near_1 else values
    return tensors


def make_runner(executor, network, weights, arguments, folder):
    """A function from embeddings and a mask to ``Outputs`` of arrays."""
    if executor == "torch":
        from audioset.executors.torch import TorchEngine

        return TorchEngine(network, weights, arguments, "f32", 1)
    if executor == "keras":
        from audioset.executors.keras import network_to_keras

        model = network_to_keras(network, weights, SHAPE, arguments)
        return lambda embeddings, mask: Outputs(**model.predict({"embeddings": embeddings, "mask": mask}, verbose=0))
    graph = Graph(f"tests/{uuid4().hex}", lambda: network_to_onnx(network, weights, SHAPE, arguments))
    return {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}[executor](graph, "f32", 2)


def largest(difference):
    return np.abs(difference).max()


def relative(ours, theirs):
    return largest(ours - theirs) / largest(theirs)


@pytest.fixture(scope="module")
def torch():
    """PyTorch in one thread: its pool waits actively, which costs more than it gains on these few clips."""
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def keras(tmp_path_factory, torch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        return pytest.importorskip("keras")


@pytest.fixture(params=EXECUTORS)
def executor(request):
    if request.param in ("torch", "keras"):
        request.getfixturevalue(request.param)
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime")
    return request.param


@pytest.fixture(scope="module")
def stored():
    """Sixteen clips of the dataset, and what the original makes of them."""
    with np.load(reference_file("kong_heads_reference.npz")) as arrays:
        clips = arrays["embeddings"]
        return clips, {key.partition("/")[0]: arrays[key] for key in arrays if "/" in key}


@pytest.fixture(scope="module")
def kong_weights():
    """The weights with which these were made, for the name of a head."""
    tensor_for = runpy.run_path(str(reference_file("panns_weights.py")))["tensor_for"]

    def weights(head):
        spec = HEADS[head]
        return {name: tensor_for(name, shape) for name, shape in trace_shapes(kong, SHAPE, spec.arguments)[0].items()}

    return weights


def write_head(folder, head="feature-attention", **arguments):
    """A model folder with a head whose weights stand for trained ones."""
    spec = HEADS[head]
    arguments = {**spec.arguments, **arguments}
    card = ModelCard(spec.network.__name__, arguments, "vggish", "audioset-527", "CC0-1.0", {}, backbone="vggish")
    write_model_folder(folder, card, random_tensors(spec.network, arguments))
    return folder


@pytest.fixture(scope="module")
def head_folders(tmp_path_factory):
    """By padding: folders with a head."""
    folder = tmp_path_factory.mktemp("heads")
    return {padding: write_head(folder / padding, padding=padding) for padding in PADDINGS}


@pytest.fixture(scope="module", params=PADDINGS)
def head(request, head_folders):
    return load_model(head_folders[request.param])


# ---- The originals


@pytest.mark.parametrize("name", ORIGINALS)
def test_scores_are_those_of_the_original(name, executor, stored, kong_weights, tmp_path):
    clips, scores = stored
    run = make_runner(executor, kong, kong_weights(name), HEADS[name].arguments, tmp_path)
    ours = run(clips.astype(np.float32), np.ones((16, 10), np.float32)).scores
    assert largest(ours - scores[ORIGINALS[name][0]]) <= 1e-5


@pytest.mark.parametrize("name", ORIGINALS)
def test_tensors_are_those_of_the_published_checkpoints(name):
    original, n_parameters = ORIGINALS[name]
    published = json.loads(reference_file("kong_state_dicts.json").read_text())[original]
    shapes, _ = trace_shapes(kong, SHAPE, HEADS[name].arguments)
    assert shapes == {key: tuple(shape) for key, shape in published.items() if "num_batches" not in key}
    assert sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith(MOMENTS)) == n_parameters


def test_every_stored_head_is_tested(stored):
    assert set(stored[1]) == {original for original, _ in ORIGINALS.values()}


# ---- Executors against the definitions


CONFORMANCE = {
    **{name: (HEADS[name].network, HEADS[name].arguments) for name in HEADS},
    **{
        f"{name} of Keras": (kong, {**HEADS[name].arguments, "variant": "keras"})
        for name in ("max-pooling", "single-attention", "multi-attention")
    },
}


@pytest.mark.parametrize("case", CONFORMANCE)
def test_executors_agree_with_the_definition(case, executor, tmp_path):
    network, arguments = CONFORMANCE[case]
    arguments = {**arguments, "n_classes": 7, "padding": "mask"}
    weights, clips, mask = random_tensors(network, arguments), random_clips().astype("f"), mask_of(LENGTHS, 6)
    maps = clips[:, :, None].astype(float), mask[:, :, None, None].astype(float)
    expected = network(HeadOracle(weights), *maps, **arguments)
    outputs = make_runner(executor, network, weights, arguments, tmp_path)(clips, mask)
    assert outputs.scores.shape == (4, 7)
    assert relative(outputs.scores, expected.scores) <= 5e-6
    assert relative(outputs.embeddings, expected.embeddings) <= 5e-5
    assert (outputs.framewise is None) == (expected.framewise is None)
    if expected.framewise is not None:
        assert relative(outputs.framewise, expected.framewise) <= 5e-6


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_clip_branch_pools_the_seconds_of_a_clip_alone(padding):
    """What it pools, by the definitions of NumPy: the clip's own seconds, one clip after the other."""
    seen = {}

    class Watching(HeadOracle):
        def batch_norm(self, x, layer, **settings):
            seen[layer] = x
            return super().batch_norm(x, layer, **settings)

        def relu(self, x):
            seen.setdefault("shared", np.maximum(x, 0))
            return super().relu(x)

    arguments = {"n_classes": 7, "padding": padding, "n_frame": 32}
    clips, mask = random_clips(), mask_of(LENGTHS, 6)
    maps = clips[:, :, None].astype(float), mask[:, :, None, None].astype(float)
    two_branch(Watching(random_tensors(two_branch, arguments)), *maps, **arguments)
    lengths = LENGTHS if padding == "mask" else [6] * 4
    for pooled, shared, clip, length in zip(seen["pool_bn"], seen["shared"], clips, lengths, strict=True):
        x, hidden = (clip[:length] - 127.5) / 64, shared[:length, 0]
        deviation = np.sqrt(x.var(axis=0) + 1e-3)
        parts = hidden.mean(axis=0), hidden.max(axis=0), x.mean(axis=0), x.max(axis=0), x.min(axis=0), deviation
        np.testing.assert_allclose(pooled.ravel(), np.concatenate(parts), atol=1e-12)


def test_scores_are_the_mean_of_the_branches_which_no_engine_returns(executor, tmp_path):
    arguments = {"n_classes": 7}
    weights, clips, mask = random_tensors(two_branch, arguments), random_clips().astype("f"), mask_of(LENGTHS, 6)
    maps = clips[:, :, None].astype(float), mask[:, :, None, None].astype(float)
    branches = two_branch(HeadOracle(weights), *maps, **arguments).branches
    outputs = make_runner(executor, two_branch, weights, arguments, tmp_path)(clips, mask)
    assert largest(outputs.scores - np.mean(branches, axis=0)[:, 0, 0]) <= 5e-6
    assert outputs.branches is None
    assert largest(branches[0] - branches[1]) > 0.1


def test_keras_saves_a_head(keras, tmp_path):
    from audioset.executors.keras import network_to_keras

    arguments = {"pooling": "multi_attention", "n_classes": 3, "padding": "mask"}
    model = network_to_keras(kong, random_tensors(kong, arguments), SHAPE, arguments)
    model.save(tmp_path / "head.keras")
    seen = {"embeddings": random_clips().astype("f"), "mask": mask_of(LENGTHS, 6)}
    reloaded = keras.models.load_model(tmp_path / "head.keras").predict(seen, verbose=0)
    np.testing.assert_array_equal(reloaded["scores"], model.predict(seen, verbose=0)["scores"])


# ---- Padding


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """``runner(name, padding)``: a head in OpenVINO, compiled once."""
    made = {}

    def make(name, padding):
        if (name, padding) not in made:
            network, arguments = HEADS[name].network, {**HEADS[name].arguments, "padding": padding, "n_classes": 7}
            weights = random_tensors(network, arguments)
            made[name, padding] = make_runner("openvino", network, weights, arguments, tmp_path_factory.mktemp("head"))
        return made[name, padding]

    return make


@pytest.mark.parametrize("name", HEADS)
def test_masked_seconds_do_not_matter(name, runner):
    run = runner(name, "mask")
    clips, mask = random_clips().astype("f"), mask_of(LENGTHS, 6)
    scores = run(clips, mask).scores
    other = np.where(mask[:, :, None] == 1, clips, random_clips(seed=2).astype("f"))
    longer = np.pad(clips, ((0, 0), (0, 5), (0, 0)), constant_values=200.0)
    np.testing.assert_array_equal(run(other, mask).scores, scores)
    assert largest(run(longer, mask_of(LENGTHS, 11)).scores - scores) <= 2e-6
    for index, length in enumerate(LENGTHS):
        alone = run(clips[index : index + 1, :length], np.ones((1, length), "f")).scores[0]
        assert largest(alone - scores[index]) <= 2e-6


@pytest.mark.parametrize("name", HEADS)
def test_without_a_mask_padding_counts_as_seconds(name, runner):
    run = runner(name, "zero")
    clips = random_clips().astype("f")
    scores = run(clips, mask_of(LENGTHS, 6)).scores
    np.testing.assert_array_equal(run(clips, mask_of([6, 6, 6, 6], 6)).scores, scores)
    padded = np.pad(clips, ((0, 0), (0, 4), (0, 0)))
    assert largest(run(padded, mask_of([6, 6, 6, 6], 10)).scores - scores) > 1e-4


@pytest.mark.parametrize("name", HEADS)
def test_only_the_lstm_hears_the_order_of_seconds(name, runner):
    run = runner(name, "mask")
    clips, mask = random_clips().astype("f"), np.ones((4, 6), "f")
    change = largest(run(clips[:, ::-1], mask).scores - run(clips, mask).scores)
    assert (change > 1e-4) == (name == "lstm")
    assert change <= 2e-6 or name == "lstm"


# ---- The table, and arguments


def test_heads_are_networks_that_see_embeddings():
    assert list(HEADS) == [
        *("average-pooling", "max-pooling", "single-attention", "multi-attention", "feature-attention"),
        *("logistic", "moe", "frame-logistic", "dbof", "lstm"),
        "two-branch",
    ]
    for name, spec in HEADS.items():
        assert spec.name == name
        assert NETWORKS[spec.network.__name__] is spec.network
        assert input_names(spec.network) == ("embeddings", "mask")
        assert trace_shapes(spec.network, SHAPE, {**spec.arguments, "n_classes": 9})[1].scores == (9,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "median"}, "pooling is 'median'.*one of average, max, single_attention"),
        ({"pooling": "max", "padding": "reflect"}, "padding 'reflect'.*one of zero, mask|one of mask, zero"),
        ({"pooling": "max", "variant": "jax"}, "variant 'jax'.*one of torch, keras"),
    ],
)
def test_kongs_heads_refuse_what_there_is_not(arguments, message):
    with pytest.raises(TypeError, match=message):
        trace_shapes(kong, SHAPE, arguments)


@pytest.mark.parametrize("name", ["logistic", "moe", "frame-logistic", "dbof", "lstm", "two-branch"])
def test_other_heads_refuse_another_padding(name):
    with pytest.raises(TypeError, match="padding is 'reflect'; expected one of mask, zero"):
        trace_shapes(HEADS[name].network, SHAPE, {"padding": "reflect"})


@pytest.mark.parametrize(
    ("network", "arguments", "momentum"),
    [
        (kong, {"pooling": "feature_attention"}, 0.9),
        (kong, {"pooling": "feature_attention", "variant": "keras"}, 0.99),
        (dbof, {}, 0.999),
        (two_branch, {}, 0.9),
        (panns_cnn, {}, 0.9),
        (panns_wavegram_logmel, {}, 0.9),
        (NETWORKS["yamnet"], {}, 0.99),
        (NETWORKS["mobilenet"], find_model("mn04_as").arguments, 0.99),
    ],
)
def test_batch_norms_keep_what_the_original_keeps(network, arguments, momentum):
    ops = MomentumOps()
    maps = {"patches": (96, 64, 1), "waveforms": (1, None, 1), "embeddings": (None, 1, 128), "mask": (None, 1, 1)}
    network(ops, *(maps[name] for name in input_names(network)), **arguments)
    assert ops.momenta == {momentum}


# ---- Training


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("is_bf16", [False, True])
def test_gradients_reach_every_parameter(name, is_bf16, torch):
    from audioset.executors.torch import TorchNetwork
    from audioset.train.heads.init import init_weights

    arguments = {**HEADS[name].arguments, "n_classes": 11, "padding": "mask"}
    module = TorchNetwork(HEADS[name].network, init_weights(name, arguments), arguments)
    clips, mask = torch.tensor(random_clips(8)), torch.tensor(mask_of([6, 1, 4, 6, 2, 3, 5, 6], 6))
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        scores = module(clips, mask).scores
    assert scores.dtype == torch.float32
    assert scores.shape == (8, 11)
    scores.log().mean().backward()
    for parameter_name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


def test_training_moves_the_moments_as_pytorchs_own_layer_does(torch):
    from audioset.executors.torch import TorchNetwork
    from audioset.train.heads.init import init_weights

    arguments = {"pooling": "average"}
    module = TorchNetwork(kong, init_weights(kong, arguments), arguments)
    clips = torch.tensor(random_clips(20, 10))
    module(clips, torch.ones(20, 10))
    layer = torch.nn.BatchNorm1d(128)
    layer((clips.float() / 128 - 1).flatten(0, 1))
    torch.testing.assert_close(module.state_dict()["emb.bn0.running_mean"], layer.running_mean)
    torch.testing.assert_close(module.state_dict()["emb.bn0.running_var"], layer.running_var)


def test_bytes_are_what_float32_is(torch, head):
    module, clips = head.to_torch(), random_clips()
    seen = torch.tensor(clips), torch.tensor(mask_of(LENGTHS, 6) == 1)
    with torch.no_grad():
        expected = module(seen[0].float(), seen[1].float()).scores
        assert torch.equal(module(*seen).scores, expected)


def test_the_bag_of_frames_draws_real_seconds_in_training_only(torch):
    from audioset.executors.torch import TorchNetwork, TorchOps

    module = TorchNetwork(dbof, {}, {})
    numbers = torch.arange(60).reshape(4, 1, 15, 1).float()
    mask = torch.tensor(mask_of([15, 1, 4, 9], 15))[:, None, :, None]
    drawn, drawn_mask = TorchOps(module).draw_rows(numbers, mask, 1_000)
    assert drawn_mask is None
    for values, first, length in zip(drawn.flatten(1), (0, 15, 30, 45), (15, 1, 4, 9), strict=True):
        assert set(values.tolist()) == set(range(first, first + length))
    assert TorchOps(module).draw_rows(numbers, None, 30)[0].shape == (4, 1, 30, 1)
    same, same_mask = TorchOps(module.eval()).draw_rows(numbers, mask, 30)
    assert same is numbers
    assert same_mask is mask


# ---- Weights to begin with


@pytest.mark.parametrize("name", HEADS)
def test_first_weights_depend_on_the_seed_alone(name):
    pytest.importorskip("torch")
    from audioset.train.heads.init import init_weights

    weights, same, other = (init_weights(name, {"n_classes": 5}, seed) for seed in (3, 3, 4))
    shapes, _ = trace_shapes(HEADS[name].network, SHAPE, {**HEADS[name].arguments, "n_classes": 5})
    assert {key: value.shape for key, value in weights.items()} == shapes
    for key, value in weights.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, same[key])
        if value.std() > 0:
            assert not np.array_equal(value, other[key]), key


@pytest.mark.parametrize(
    ("name", "tensor", "limit"),
    [
        ("max-pooling", "fc_final.weight", math.sqrt(6 / 1024)),
        ("feature-attention", "emb.conv1.weight", math.sqrt(6 / 128)),
        ("feature-attention", "attention.att.weight", math.sqrt(6 / 1024)),
        ("average-pooling", "fc_final.weight", 1 / 32),
        ("average-pooling", "fc_final.bias", 1 / 32),
        ("logistic", "fully_connected/weights", math.sqrt(6 / (128 + 527))),
        ("two-branch", "clip.weight", math.sqrt(6 / 2560)),
        ("two-branch", "attention.cla.weight", math.sqrt(6 / 768)),
        ("two-branch", "clip_out.weight", math.sqrt(6 / (1024 + 527))),
        ("lstm", "rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel", math.sqrt(6 / (1152 + 4096))),
    ],
)
def test_first_weights_fill_their_range(name, tensor, limit):
    pytest.importorskip("torch")
    from audioset.train.heads.init import init_weights

    values = init_weights(name, seed=1)[tensor]
    assert 0.98 * limit <= values.max() <= limit * (1 + 1e-6)
    assert -limit * (1 + 1e-6) <= values.min() <= -0.98 * limit
    assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.05)


def test_first_weights_of_the_bag_of_frames_are_normal():
    pytest.importorskip("torch")
    from audioset.train.heads.init import init_weights

    weights = init_weights("dbof")
    assert weights["cluster_weights"].std() == pytest.approx(1 / math.sqrt(128), rel=0.01)
    assert weights["hidden1_weights"].std() == pytest.approx(1 / math.sqrt(8192), rel=0.01)
    assert abs(weights["cluster_weights"]).max() > 3 / math.sqrt(128)


def test_batch_norms_begin_as_the_identity_and_other_offsets_as_0():
    pytest.importorskip("torch")
    from audioset.train.heads.init import init_weights

    for name in ("feature-attention", "dbof", "two-branch"):
        for key, value in init_weights(name).items():
            if key.endswith(("running_var", "moving_variance", "gamma")) or ("bn" in key and key.endswith("weight")):
                assert (value == 1).all(), key
            elif value.ndim == 1:
                assert (value == 0).all(), key


def test_heads_share_the_first_weights_of_layers_that_they_share():
    pytest.importorskip("torch")
    from audioset.train.heads.init import init_weights

    ours, theirs = init_weights("max-pooling"), init_weights("feature-attention")
    np.testing.assert_array_equal(ours["emb.conv2.weight"], theirs["emb.conv2.weight"])
    assert not np.array_equal(ours["emb.conv2.weight"], ours["emb.conv3.weight"])


def test_first_weights_of_what_there_is_not():
    pytest.importorskip("torch")
    from audioset.train.heads.init import init_weights

    with pytest.raises(UsageError, match="there is no head 'vlad'; expected one of average-pooling"):
        init_weights("vlad")
    with pytest.raises(UsageError, match=r"'moe' cannot have the arguments \{'n_experts': 4\}"):
        init_weights("moe", {"n_experts": 4})


# ---- Folders, and scores of embeddings


def test_a_folder_with_a_head_loads_as_one(head_folders):
    model = load_model(head_folders["mask"])
    assert isinstance(model, HeadModel)
    assert model.padding == "mask"
    assert model.backbone.name == "vggish"
    assert model.embedding_size == 1024
    assert len(model.labels) == 527
    assert read_card(head_folders["mask"]).backbone == "vggish"
    assert load_model(head_folders["mask"], padding="zero").padding == "zero"


def test_a_card_without_a_backbone_means_vggish_and_its_padding_is_the_networks(tmp_path):
    arguments = {"pooling": "max"}
    card = ModelCard("kong", arguments, "vggish", "audioset-527", "CC0-1.0", {})
    write_model_folder(tmp_path, card, random_tensors(kong, arguments))
    assert "backbone" not in json.loads((tmp_path / "model.json").read_text())
    model = load_model(tmp_path)
    assert model.backbone.name == "vggish"
    assert model.padding == "zero"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "yamnet"}, "backbone is 'yamnet'; expected one of vggish"),
        ({"backbone": "wav2vec"}, "backbone is 'wav2vec'; expected one of vggish"),
        ({"frontend": "yamnet"}, "frontend is 'yamnet'; expected 'vggish', as vggish's"),
        ({"labels": "yamnet-521"}, "the model has 527 classes, and its label set 'yamnet-521' has 521"),
        ({"arguments": {"pooling": "mean"}}, r"'kong' cannot have the arguments \{'pooling': 'mean'\}"),
    ],
)
def test_cards_that_do_not_fit_a_head_are_refused(changes, message, head_folders, tmp_path):
    card = read_card(head_folders["zero"])
    write_model_folder(tmp_path, replace(card, **changes), random_tensors(kong, card.arguments))
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path)


def test_a_backbone_that_is_no_name_is_refused(head_folders, tmp_path):
    values = json.loads((head_folders["zero"] / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**values, "backbone": 7}))
    with pytest.raises(WeightsError, match="'backbone' is 7; expected str"):
        load_model(tmp_path)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_engines_agree_on_embeddings(engine, head, request):
    request.getfixturevalue("torch") if engine == "torch" else pytest.importorskip(engine)
    other = load_model(head.folder, engine=engine)
    clips = random_clips(9, 12)
    lengths = [12, 1, 3, 10, 11, 12, 7, 2, 12]
    ours = head.predict_embeddings(clips, lengths)
    assert largest(other.predict_embeddings(clips, lengths) - ours) <= 1e-5


def test_a_batch_of_clips_is_each_clip(head):
    clips, lengths = random_clips(300, 13), np.random.default_rng(0).integers(1, 14, 300)
    scores = head.predict_embeddings(clips, lengths)
    assert scores.shape == (300, 527)
    assert scores.dtype == np.float32
    for index in (0, 1, 2, 150, 299):
        alone = head.predict_embeddings(clips[index, : lengths[index]])
        assert alone.shape == (527,)
        assert largest(alone - scores[index]) <= 1e-5
    shuffled = np.random.default_rng(1).permutation(300)
    assert largest(head.predict_embeddings(clips[shuffled], lengths[shuffled]) - scores[shuffled]) <= 1e-5


def test_what_comes_after_a_clip_is_not_seen(head):
    clips, other = random_clips(), random_clips(seed=2)
    other[mask_of(LENGTHS, 6) == 1] = clips[mask_of(LENGTHS, 6) == 1]
    ours, theirs = (head.predict_embeddings(values, LENGTHS) for values in (clips, other))
    np.testing.assert_array_equal(ours, theirs)
    assert largest(head.predict_embeddings(clips) - ours) > 1e-4


def test_short_clips_are_padded_as_in_training(head):
    short = random_clips(1, 7)[0]
    padded = head.predict_embeddings(np.pad(short, ((0, 3), (0, 0))))
    assert (largest(head.predict_embeddings(short) - padded) <= 1e-5) == (head.padding == "zero")


def test_no_clips_have_no_scores(head):
    assert head.predict_embeddings(np.zeros((0, 10, 128), np.uint8)).shape == (0, 527)
    assert head.predict_embeddings(np.zeros((0, 10, 128), np.uint8), []).shape == (0, 527)


@pytest.mark.parametrize(
    ("clips", "lengths", "message"),
    [
        (random_clips().astype("f"), None, "dtype float32; expected .* and uint8. Likely cause: .*not quantised"),
        (random_clips().astype(np.int8), None, "dtype int8; expected"),
        (random_clips()[..., :64], None, r"shape \(4, 6, 64\).*expected \(n_seconds, 128\)"),
        (random_clips()[0, 0], None, r"shape \(128,\)"),
        (random_clips()[np.newaxis], None, r"shape \(1, 4, 6, 128\)"),
        (np.zeros((0, 128), np.uint8), None, "clips without a second"),
        (np.zeros((2, 0, 128), np.uint8), [0, 0], "clips without a second"),
        (random_clips(), [6, 6, 7, 6], "length of clip 2 is 7; expected 1 to 6"),
        (random_clips(), [6, 0, 6, 6], "length of clip 1 is 0; expected 1 to 6"),
        (random_clips(), [6, 6, 6], r"lengths have shape \(3,\).*expected \(4,\)"),
        (random_clips(), 6, r"lengths have shape \(\)"),
        (random_clips(), [6.0, 6.0, 6.0, 6.0], "dtype float64; expected .* whole numbers"),
        (random_clips(), [True] * 4, "dtype bool; expected .* whole numbers"),
    ],
)
def test_what_is_not_embeddings_is_refused(clips, lengths, message, head):
    with pytest.raises(UsageError, match=message):
        head.predict_embeddings(clips, lengths)


def test_an_exported_head_takes_embeddings_and_their_mask(head, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    head.to_onnx(tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "head.onnx"))
    assert [value.name for value in session.get_inputs()] == ["input_embeddings", "mask"]
    feeds = {"input_embeddings": random_clips(2, 10).astype("f"), "mask": np.ones((2, 10), "f")}
    (scores,) = session.run(["scores"], feeds)
    assert largest(scores - head.predict_embeddings(random_clips(2, 10))) <= 1e-5


def test_a_head_in_keras_has_its_scores(keras, head):
    feeds = {"embeddings": random_clips(2, 10).astype("f"), "mask": np.ones((2, 10), "f")}
    scores = head.to_keras().predict(feeds, verbose=0)["scores"]
    assert largest(scores - head.predict_embeddings(random_clips(2, 10))) <= 1e-5


def test_heads_are_not_exported_with_audio(head, tmp_path):
    with pytest.raises(UsageError, match="input is 'waveform'; expected one of embeddings"):
        head.to_onnx(tmp_path / "head.onnx", input="waveform")
    with pytest.raises(UsageError, match="hop_s are settings of audio"):
        head.to_torch(hop_s=0.96)


# ---- Audio


@pytest.mark.parametrize(("n", "lengths"), [(1, [1]), (10, [10]), (11, [10, 1]), (26, [10, 10, 6])])
def test_windows_of_ten_embeddings_follow_each_other(n, lengths):
    embeddings = random_clips(1, n)[0]
    windows, n_real = cut_windows(embeddings)
    assert n_real.tolist() == lengths
    np.testing.assert_array_equal(windows.reshape(-1, 128)[:n], embeddings)
    assert not windows.reshape(-1, 128)[n:].any()


@pytest.fixture
def backbone_files(vggish_assets, monkeypatch):
    monkeypatch.setenv("AUDIOSET_ASSETS", str(vggish_assets))
    return vggish_assets


@pytest.fixture(scope="module")
def speech():
    """Twenty-six patches of sounds, at VGGish's rate."""
    cases = read_cases("vggish_reference.npz")
    waveform = np.concatenate([cases[name]["waveform"] for name in ("speech_whistling2", "torchvggish_test")])
    return np.resize(waveform, 25 * 16_000 + 400).astype(np.float32)


def test_audio_becomes_windows_of_quantised_embeddings(head, backbone_files, speech):
    prediction = head.predict(speech, 16_000)
    postprocessor = Postprocessor.load(backbone_files / "vggish_pca_params.npz")
    embeddings = postprocessor(load_model("vggish").predict(speech, 16_000).embeddings)
    assert len(embeddings) == 26
    expected = np.stack([head.predict_embeddings(embeddings[start : start + 10]) for start in (0, 10, 20)])
    assert prediction.scores.shape == (3, 527)
    assert largest(prediction.scores - expected) <= 1e-5
    np.testing.assert_allclose(prediction.start_s, [0, 9.6, 19.2], rtol=1e-12)
    np.testing.assert_allclose(prediction.end_s, [9.6, 19.2, 24.96], rtol=1e-12)
    assert prediction.embeddings.shape == (3, 1024)
    assert prediction.log_mel.shape == (26 * 96, 64)
    assert prediction.framewise is None
    assert len(prediction.top(3)) == 3
    assert all(event.end_s <= prediction.duration_s for event in prediction.events(0.5))


def test_files_have_the_scores_of_their_samples(head, backbone_files, speech, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    lengths = {"long.wav": 60 * 16_000, "short.wav": 3 * 16_000, "clip.wav": 10 * 16_000}
    for name, n_samples in lengths.items():
        soundfile.write(tmp_path / name, np.resize(speech, n_samples), 16_000, subtype="FLOAT")
    results = list(tag_files([tmp_path / name for name in lengths], head, n_workers=1))
    for (name, n_samples), result in zip(lengths.items(), results, strict=True):
        expected = head.predict(np.resize(speech, n_samples), 16_000)
        for prediction in (result.require(), head.predict_file(tmp_path / name)):
            assert largest(prediction.scores - expected.scores) <= 1e-5
            np.testing.assert_array_equal(prediction.start_s, expected.start_s)
            np.testing.assert_array_equal(prediction.end_s, expected.end_s)
    assert [len(result.require().scores) for result in results] == [7, 1, 1]


def test_live_audio_becomes_the_same_windows(head, backbone_files, speech):
    stream = head.stream(16_000)
    pieces = [stream.push(block) for block in np.array_split(speech, 40)]
    assert sorted({len(part.scores) for parts in pieces for part in parts}) == [
        1
    ]  # each when its ten seconds are there
    together = join_predictions([part for parts in [*pieces, stream.finish()] for part in parts])
    whole = head.predict(speech, 16_000)
    assert largest(together.scores - whole.scores) <= 1e-5
    np.testing.assert_array_equal(together.log_mel, whole.log_mel)
    np.testing.assert_array_equal(together.start_s, whole.start_s)
    np.testing.assert_array_equal(together.end_s, whole.end_s)


def test_audio_with_another_hop_or_window_is_refused(head, backbone_files, speech):
    with pytest.raises(UsageError, match=r"a hop of 0\.48 s is asked for.*0\.96 s apart"):
        head.predict(speech, 16_000, hop_s=0.48)
    with pytest.raises(UsageError, match="window_s is 5"):
        head.predict(speech, 16_000, window_s=5)


@pytest.mark.parametrize("missing", ["vggish_model.ckpt", "vggish_pca_params.npz"])
def test_without_the_backbones_files_audio_has_no_scores(missing, head_folders, vggish_assets, tmp_path, monkeypatch):
    for name in {"vggish_model.ckpt", "vggish_pca_params.npz"} - {missing}:
        (tmp_path / name).symlink_to(vggish_assets / name)
    monkeypatch.setenv("AUDIOSET_ASSETS", str(tmp_path))
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    head = load_model(head_folders["zero"])
    assert head.predict_embeddings(random_clips(1, 10)).shape == (1, 527)
    with pytest.raises(AssetError, match=rf"files vggish_model\.ckpt and vggish_pca_params\.npz.*{missing}"):
        head.predict(np.zeros(16_000, np.float32), 16_000)
