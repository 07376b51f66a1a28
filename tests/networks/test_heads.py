"""Heads against their originals and their definitions; training; first weights."""

from __future__ import annotations

import json
import math
import runpy
from uuid import uuid4

import numpy as np
import pytest
from head_oracle import LENGTHS, PADDINGS, SHAPE, largest, mask_of, random_clips, random_tensors
from reference_data import reference_file

from audioset.cache import Graph
from audioset.errors import UsageError
from audioset.executors.onnx import network_to_onnx
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.models.cards import NETWORKS
from audioset.models.published import find_model
from audioset.networks.heads import HEADS, kong
from audioset.networks.ops import KERAS_NAMES, Outputs, input_names
from audioset.networks.panns import panns_cnn, panns_wavegram_logmel
from audioset.networks.shapes import ShapeOps, trace_shapes
from audioset.networks.two_branch import two_branch
from audioset.networks.youtube8m_heads import dbof

# Keras turns its variables into arrays by way of PyTorch's Tensor.__array__, which lacks a keyword that numpy 2 wants.

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
ORIGINALS = {
    "average-pooling": ("decision_level_average_pooling", 2_774_799),
    "max-pooling": ("decision_level_max_pooling", 2_774_799),
    "single-attention": ("decision_level_single_attention", 3_314_974),
    "multi-attention": ("decision_level_multi_attention", 3_870_959),
    "feature-attention": ("feature_level_attention", 4_876_047),
}
EXECUTORS = ("openvino", "onnxruntime", "torch", "keras")
MOMENTS = ("running_mean", "running_var", "moving_mean", "moving_variance")


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


def relative(ours, theirs):
    return largest(ours - theirs) / largest(theirs)


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
