"""Every network through every executor, against the originals' stored outputs; what training needs."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import exactness
import numpy as np
import pytest
from runners import make_runner, to_numpy
from sounds import noise

from audioset.errors import AudioError, EngineError, MissingExtraError, UsageError
from audioset.frontend.cutting import patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT, VGGISH, YAMNET
from audioset.frontend.spec import PADS
from audioset.networks.mobilenet import mobilenet
from audioset.networks.ops import KERAS_NAMES, SLIM_NAMES, TORCH_NAMES, Outputs, both, input_names
from audioset.networks.panns import panns_cnn, panns_mobilenet_v2, panns_resnet, panns_wavegram, panns_wavegram_logmel
from audioset.networks.shapes import trace_shapes
from audioset.networks.vggish import vggish
from audioset.networks.yamnet import yamnet as yamnet_network
from audioset.weights.keras_h5 import read_keras_h5

# Keras turns its variables into arrays by way of PyTorch's Tensor.__array__, which lacks a keyword that numpy 2 wants.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

PATCH_SHAPE = (96, 64)
NETWORKS = {"yamnet": (yamnet_network, {}), "vggish": (vggish, {}), "vggish-relu": (vggish, {"activation": "relu"})}
EXECUTORS = ("openvino", "onnxruntime", "torch", "keras")
TINY_SHAPES = ((21, 14), (8, 8), (5, 3), (1, 1))
MOBILENETS = {
    "mlp": {},
    "fully_convolutional": {"head": "fully_convolutional", "strides": (2, 2, 1, 1)},
    "no strides": {"strides": [1, 1, 1, 1]},
    "frequencies": {"se_dims": "f", "n_mels": 20},
    "no squeezing": {"se_dims": "none"},
}
PANNS = {
    "cnn": (panns_cnn, {"channels": [2, 3, 4, 5, 6, 7], "n_classes": 5}),
    "cnn of one convolution": (panns_cnn, {"channels": [2, 3], "kernel": 5, "embedding_size": 4, "n_classes": 5}),
    "cnn of segments": (panns_cnn, {"channels": [2, 3, 4], "decision": "max", "n_classes": 5}),
    "cnn of means": (panns_cnn, {"channels": [2, 3, 4], "decision": "mean", "n_classes": 5}),
    "cnn of attention": (panns_cnn, {"channels": [2, 3, 4], "decision": "attention", "n_classes": 5}),
    "resnet": (panns_resnet, {"n_blocks": [1, 2, 1, 1], "channels": [2, 3, 4, 5, 6], "n_classes": 5}),
    "resnet of bottlenecks": (
        panns_resnet,
        {"n_blocks": [2, 1, 1, 1], "kernels": [1, 3, 1], "channels": [2, 3, 4, 5, 6], "n_classes": 5},
    ),
}
WAVEGRAMS = {"samples": panns_wavegram, "samples and patches": panns_wavegram_logmel}
PATCH = 15_600  # samples


def tiny(ops, patches, n_classes=5):
    """The primitives of TensorFlow's networks, with the strides and sizes that the published ones do not have."""
    x = ops.conv2d(patches, "first/conv", filters=3, kernel=3, stride=2, bias=True)
    x = ops.relu(ops.batch_norm(x, "first/conv/bn", epsilon=1e-3, scale=True))
    x = ops.depthwise_conv2d(x, "depthwise", kernel=3, stride=2)
    x = ops.batch_norm(x, "depthwise/bn", epsilon=1e-4, scale=False)
    x = ops.conv2d(x, "even", filters=4, kernel=2)
    x = ops.max_pool(x, size=3, stride=2)
    x = ops.conv2d(x, "pointwise", filters=6, kernel=1, bias=True)
    x = ops.conv2d(x, "sparse", filters=5, kernel=1, stride=2, names=SLIM_NAMES)
    embeddings = ops.dense(ops.flatten(x), "embeddings", 7)
    logits = ops.dense(ops.relu(embeddings), "logits", n_classes)
    return Outputs(embeddings=embeddings, logits=logits, scores=ops.sigmoid(logits))


def tiny_dotted(ops, patches, axis="channels"):
    """The primitives of PyTorch's networks, under dotted names, on patches (21, 14)."""
    x = ops.transpose(patches)
    options = {"padding": "symmetric", "names": TORCH_NAMES}
    x = ops.conv2d(x, "features.0", filters=4, kernel=5, stride=2, bias=True, **options)
    x = ops.hard_swish(ops.batch_norm(x, "features.1", epsilon=1e-3, names=TORCH_NAMES))
    y = ops.conv2d(x, "features.2.0", filters=4, kernel=3, groups=4, **options)
    y = ops.batch_norm(y, "features.2.1", epsilon=1e-5, names=TORCH_NAMES)
    y = ops.conv2d(y, "features.3", filters=4, kernel=1, groups=2, bias=True, **options)
    length = {"channels": 4, "height": 7, "width": 11}[axis]
    y = ops.scale(y, ops.sigmoid(ops.dense(ops.axis_mean(y, axis), "gains", length, names=TORCH_NAMES)), axis)
    embeddings = ops.flatten(ops.conv2d(ops.add(x, y), "last", filters=3, kernel=3, stride=2, **options))
    logits = ops.dense(ops.hard_swish(embeddings), "logits", 5, names=TORCH_NAMES)
    return Outputs(embeddings=embeddings, logits=logits, scores=ops.sigmoid(logits))


def tiny_pooled(ops, patches, axis="width"):
    """The primitives of networks that average: batch norms of another axis or after pooling, maps of one column."""
    x = ops.batch_norm(patches, "bn0", epsilon=1e-5, axis=axis, names=TORCH_NAMES)
    x = ops.conv2d(x, "first", filters=4, kernel=3, padding="symmetric", names=TORCH_NAMES)
    x = ops.relu(ops.batch_norm(ops.avg_pool(x, size=(2, 2), stride=2), "bn1", epsilon=1e-5, names=TORCH_NAMES))
    frames = ops.width_mean(ops.avg_pool(x, size=(2, 2), stride=2))
    means = ops.avg_pool(frames, size=(3, 1), stride=1, padding="symmetric")
    segments = ops.add(ops.max_pool(frames, size=3, stride=1), means)
    hidden = ops.pointwise_dense(segments, "hidden", 6, names=TORCH_NAMES)
    logits = ops.spatial_max(ops.pointwise_dense(ops.relu(hidden), "logits", 5))
    return Outputs(embeddings=ops.spatial_mean(hidden), logits=logits, scores=ops.sigmoid(logits))


def tiny_waves(ops, patches, waveforms):
    """The primitives of networks that see samples: along one axis, folded to two, beside a map of patches."""
    x = ops.conv1d(waveforms, "first", filters=6, kernel=5, stride=3)
    x = ops.relu(ops.batch_norm(x, "first_bn", epsilon=1e-5, names=TORCH_NAMES), 2.0)
    x = ops.conv1d(x, "second", filters=6, kernel=3, dilation=2, bias=True)
    x = ops.max_pool(x, size=(1, 2), stride=(1, 2), padding="none")
    x = ops.avg_pool(ops.spread(x, 2), size=(2, 1), stride=(2, 1))
    x = ops.concatenate(ops.conv2d(patches, "beside", filters=2, kernel=1, names=TORCH_NAMES), x)
    rows = ops.width_mean(x)
    scores = ops.sigmoid(ops.conv1d(rows, "decide", filters=4, kernel=1, bias=True))
    weights = ops.conv1d(rows, "attend", filters=4, kernel=1, bias=True)
    return Outputs(ops.spatial_mean(x), None, ops.attention_mean(scores, weights, 1.5), ops.rows(scores))


class NumpyOps:
    """Executor that follows the definitions, window by window in float64; maps are (n, height, width, channels)."""

    def __init__(self, weights, *, training=False):
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.training = training

    def conv2d(self, x, layer, *, filters, kernel, stride=1, groups=1, bias=False, padding="same", names=KERAS_NAMES):
        weight, *biases = (self.weights[name] for name in names.layer(layer, bias=bias))
        weight = weight.transpose(2, 3, 1, 0) if names.is_output_first else weight

        def convolve(part):
            part, kernels = part
            return map_windows(
                lambda window: np.einsum("nhwc,hwcf->nf", window, kernels), part, kernel, stride, padding=padding
            )

        parts = zip(np.split(x, groups, axis=3), np.split(weight, groups, axis=3), strict=True)
        return np.concatenate([convolve(part) for part in parts], axis=3) + sum(biases)

    def conv1d(self, x, layer, *, filters, kernel, stride=1, dilation=1, bias=False):
        weight, *biases = (self.weights[name] for name in TORCH_NAMES.layer(layer, bias=bias))
        span = (kernel - 1) * dilation
        padded = np.pad(x, [(0, 0), (0, 0), (span // 2, span // 2), (0, 0)])
        columns = range(0, x.shape[2], stride)
        values = [np.einsum("nhkc,fck->nhf", padded[:, :, i : i + span + 1 : dilation], weight) for i in columns]
        return np.stack(values, axis=2) + sum(biases)

    def depthwise_conv2d(self, x, layer, *, kernel, stride=1):
        weight = self.weights[f"{layer}/depthwise_kernel"][..., 0]
        return map_windows(lambda window: np.einsum("nhwc,hwc->nc", window, weight), x, kernel, stride)

    def batch_norm(self, x, layer, *, epsilon, scale=True, axis="channels", momentum=0.99, names=KERAS_NAMES):
        if axis != "channels":
            options = {"epsilon": epsilon, "momentum": momentum, "names": names}
            x = self.batch_norm(np.moveaxis(x, "nhwc".index(axis[0]), 3), layer, **options)
            return np.moveaxis(x, 3, "nhwc".index(axis[0]))
        gain, offset, mean_name, variance_name = (names.tensor(layer, kind) for kind in BATCH_NORM_KINDS)
        mean, variance = self.weights[mean_name], self.weights[variance_name]
        if self.training:
            moving_mean, moving_variance = mean, variance
            mean = x.mean(axis=(0, 1, 2))
            variance = ((x - mean) ** 2).mean(axis=(0, 1, 2))
            n_values = x[..., 0].size
            stored = variance * n_values / (n_values - 1) if names is TORCH_NAMES else variance
            self.weights[mean_name] = momentum * moving_mean + (1 - momentum) * mean
            self.weights[variance_name] = momentum * moving_variance + (1 - momentum) * stored
        x = (x - mean) / np.sqrt(variance + epsilon)
        return (x * self.weights[gain] if scale else x) + self.weights[offset]

    def relu(self, x, limit=np.inf):
        return np.clip(x, 0, np.inf if limit is None else limit)

    def hard_swish(self, x):
        return x * np.clip(x + 3, 0, 6) / 6

    def sigmoid(self, x):
        return 1 / (1 + np.exp(-x))

    def dropout(self, x, rate):
        return x

    def add(self, x, y):
        return x + y

    def scale(self, x, gains, axis):
        return np.einsum(f"nhwc,n{axis[0]}->nhwc", x, gains)

    def concatenate(self, x, y):
        return np.concatenate([x, y], axis=3)

    def max_pool(self, x, *, size, stride, padding="same"):
        if padding == "none":
            return whole_windows(x, size, stride).max(axis=(4, 5))
        return map_windows(lambda window: window.max(axis=(1, 2)), x, size, stride, fill=-np.inf)

    def avg_pool(self, x, *, size, stride, padding="none"):
        ends = [(n // 2, n // 2) if padding == "symmetric" else (0, 0) for n in size]
        return whole_windows(np.pad(x, [(0, 0), *ends, (0, 0)]), size, stride).mean(axis=(4, 5))

    def spatial_mean(self, x):
        return x.mean(axis=(1, 2))

    def spatial_max(self, x):
        return x.max(axis=(1, 2))

    def width_mean(self, x):
        return x.mean(axis=2, keepdims=True)

    def axis_mean(self, x, axis):
        return x.mean(axis=tuple(number for number, name in enumerate("nhwc") if name not in ("n", axis[0])))

    def attention_mean(self, x, weights, limit):
        shares = np.exp(np.clip(weights, -limit, limit))
        return (x * shares).sum(axis=(1, 2)) / shares.sum(axis=(1, 2))

    def transpose(self, x):
        return x.swapaxes(1, 2)

    def spread(self, x, width):
        return x[:, 0].reshape(len(x), x.shape[2], -1, width).swapaxes(2, 3)

    def rows(self, x):
        return x[:, :, 0]

    def flatten(self, x):
        return x.reshape(len(x), -1)

    def dense(self, x, layer, units, *, names=KERAS_NAMES):
        weight, bias = (self.weights[name] for name in names.layer(layer))
        return x @ (weight.T if names.is_output_first else weight) + bias

    pointwise_dense = dense  # numpy's product is of the last axis


BATCH_NORM_KINDS = ("gain", "offset", "mean", "variance")


def whole_windows(x, size, stride):
    """Windows (…, height, width) of a map that is not padded."""
    windows = np.lib.stride_tricks.sliding_window_view(x, both(size), axis=(1, 2))
    rows, columns = both(stride)
    return windows[:, ::rows, ::columns]


def map_windows(function, x, size, stride, *, fill=0.0, padding="same"):
    """Apply a function to each window of a map that is padded as TensorFlow's ``SAME`` does, or alike at both ends."""
    n_windows = [-(-length // stride) for length in x.shape[1:3]]
    totals = [max(0, (n - 1) * stride + size - length) for n, length in zip(n_windows, x.shape[1:3], strict=True)]
    before_after = [(total // 2, total - total // 2) for total in totals]
    if padding == "symmetric":
        before_after = [(size // 2, size // 2)] * 2
    x = np.pad(x, [(0, 0), *before_after, (0, 0)], constant_values=fill)
    rows, columns = ([index * stride for index in range(n)] for n in n_windows)
    return np.stack(
        [np.stack([function(x[:, i : i + size, j : j + size]) for j in columns], axis=1) for i in rows], axis=1
    )


def run_oracle(network, weights, *examples, arguments=None, training=False):
    """Outputs of a network by definition, and the weights afterwards."""
    ops = NumpyOps(weights, training=training)
    as_map = {"patches": lambda values: values[..., None], "waveforms": lambda values: values[:, None, :, None]}
    maps = [
        as_map[name](values.astype(np.float64)) for name, values in zip(input_names(network), examples, strict=True)
    ]
    return network(ops, *maps, **(arguments or {})), ops.weights


def random_tensors(network, patch_shape, arguments=None):
    """Weights of a network that it can compute with."""
    rng = np.random.default_rng(0)
    shapes, _ = trace_shapes(network, patch_shape, arguments or {})
    return {
        name: (rng.uniform(0.5, 2, shape) if name.endswith(("variance", "var")) else rng.normal(0, 0.5, shape)).astype(
            "f"
        )
        for name, shape in shapes.items()
    }


def tiny_weights(patch_shape):
    return random_tensors(tiny, patch_shape)


def tiny_examples(patch_shape, n_patches=6):
    return np.random.default_rng(1).normal(0, 2, (n_patches, *patch_shape)).astype(np.float32)


def largest(difference):
    return np.abs(difference).max()


def relative(ours, theirs):
    return largest(ours - theirs) / largest(theirs)


def read_reference(path):
    if not path.is_file():
        pytest.skip(f"no reference outputs: there is no {path}")
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for key, value in arrays.items():
            case, quantity = key.split("/")
            cases.setdefault(case, {})[quantity] = value
    return cases


@pytest.fixture(scope="session")
def torch():
    """PyTorch in one thread: its pool waits actively, which costs more than it gains on these few patches."""
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def keras(tmp_path_factory, request):
    """Keras on PyTorch, unless KERAS_BACKEND names another; its configuration is kept out of the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        if os.environ["KERAS_BACKEND"] == "torch":
            request.getfixturevalue("torch")
        return pytest.importorskip("keras")


@pytest.fixture(scope="session")
def yamnet_weights(assets_folder):
    shapes, _ = trace_shapes(yamnet_network, PATCH_SHAPE, {})
    return read_keras_h5(assets_folder / "yamnet.h5", shapes)


@pytest.fixture(scope="session")
def vggish_weights(assets_folder):
    """The stand-ins with which the reference outputs were made."""
    path = assets_folder.parent / "reference" / "vggish_weights.py"
    if not path.is_file():
        pytest.skip(f"no stand-in weights: there is no {path}")
    spec = importlib.util.spec_from_file_location("vggish_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.weights(0)


@pytest.fixture(scope="session")
def published(request):
    """Weights of a network, by its name."""
    return lambda name: request.getfixturevalue(f"{name.partition('-')[0]}_weights")


@pytest.fixture(scope="session")
def expected(reference, assets_folder):
    """``expected("vggish")[clip]``: patches, and what the original makes of them."""
    stored = read_reference(assets_folder.parent / "reference" / "vggish_reference.npz")
    embedded = {clip: (case["log_mel"], case["embedding"]) for clip, case in stored.items() if len(case["log_mel"])}
    cases = {
        "yamnet": {
            clip: (np.array(patches(case["log_mel"], YAMNET)), case["embeddings"], case["scores"])
            for clip, case in reference.items()
        },
        "vggish": {clip: (examples, values, None) for clip, (examples, values) in embedded.items()},
        "vggish-relu": {clip: (examples, np.maximum(values, 0), None) for clip, (examples, values) in embedded.items()},
    }
    return cases.__getitem__


def require(executor, request):
    """Skip where an executor's package is not installed."""
    if executor in ("torch", "keras"):
        request.getfixturevalue(executor)
    if executor == "onnxruntime":
        pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module", params=NETWORKS)
def published_network(request, published, expected) -> Iterator[tuple]:
    """How to make a network, and the cases that it must reproduce. VGGish is large: one at a time."""
    network, arguments = NETWORKS[request.param]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield (network, published(request.param), PATCH_SHAPE, arguments, Path(folder)), expected(request.param)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_network_matches_the_original_in_every_executor(executor, published_network, request):
    require(executor, request)
    recipe, cases = published_network
    name = recipe[0].__name__
    examples, embeddings, scores = zip(*cases.values(), strict=True)
    outputs = make_runner(executor, *recipe)(np.concatenate(examples))
    assert outputs.embeddings.dtype == np.float32
    ends = np.cumsum([len(part) for part in examples])[:-1]
    for clip, ours, theirs in zip(cases, np.split(outputs.embeddings, ends), embeddings, strict=True):
        assert relative(ours, theirs) <= exactness.EMBEDDINGS[name], clip
    assert (outputs.scores is None) == (scores[0] is None)
    if outputs.scores is not None:
        assert largest(outputs.scores - np.concatenate(scores)) <= exactness.SCORES[name]


@pytest.mark.parametrize("published_network", ["yamnet", "vggish"], indirect=True)
def test_the_originals_are_as_far_from_float64_as_the_bounds_say(torch, published_network):
    from audioset.executors.torch import network_to_torch

    (network, weights, _, arguments, _), cases = published_network
    module = network_to_torch(network, weights, arguments).double()
    of_scores, of_embeddings = [], []
    for examples, embeddings, scores in cases.values():
        with torch.no_grad():
            exact = to_numpy(module(torch.tensor(examples, dtype=torch.float64)))
        of_embeddings.append(relative(embeddings, exact.embeddings))
        if scores is not None:
            of_scores.append(largest(scores - exact.scores))
    assert max(of_embeddings) == pytest.approx(exactness.ORIGINAL_EMBEDDINGS[network.__name__], rel=0.01)
    if of_scores:
        assert max(of_scores) == pytest.approx(exactness.ORIGINAL_SCORES[network.__name__], rel=0.01)


@pytest.mark.parametrize("patch_shape", TINY_SHAPES, ids=str)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_primitive_follows_its_definition_in_every_executor(executor, patch_shape, request, tmp_path):
    require(executor, request)
    weights, examples = tiny_weights(patch_shape), tiny_examples(patch_shape)
    by_definition, _ = run_oracle(tiny, weights, examples)
    outputs = make_runner(executor, tiny, weights, patch_shape, {}, tmp_path)(examples)
    assert relative(outputs.embeddings, by_definition.embeddings) <= 2e-6
    assert largest(outputs.scores - by_definition.scores) <= 1e-6


@pytest.mark.parametrize("axis", ["channels", "height", "width"])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_primitive_of_pytorch_networks_follows_its_definition(executor, axis, request, tmp_path):
    require(executor, request)
    arguments = {"axis": axis}
    weights, examples = random_tensors(tiny_dotted, (21, 14), arguments), tiny_examples((21, 14))
    by_definition, _ = run_oracle(tiny_dotted, weights, examples, arguments=arguments)
    outputs = make_runner(executor, tiny_dotted, weights, (21, 14), arguments, tmp_path)(examples)
    assert relative(outputs.embeddings, by_definition.embeddings) <= 2e-6
    assert largest(outputs.scores - by_definition.scores) <= 1e-6


@pytest.mark.parametrize("n_frames", [21, 4])
@pytest.mark.parametrize("axis", ["width", "height"])
@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_primitive_of_averaging_networks_follows_its_definition(executor, axis, n_frames, request, tmp_path):
    require(executor, request)
    arguments, patch_shape = {"axis": axis}, (n_frames, 14)
    weights, examples = random_tensors(tiny_pooled, patch_shape, arguments), tiny_examples(patch_shape)
    by_definition, _ = run_oracle(tiny_pooled, weights, examples, arguments=arguments)
    outputs = make_runner(executor, tiny_pooled, weights, patch_shape, arguments, tmp_path)(examples)
    assert relative(outputs.embeddings, by_definition.embeddings) <= 2e-6
    assert largest(outputs.scores - by_definition.scores) <= 1e-6


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_primitive_of_networks_that_see_samples_follows_its_definition(executor, request, tmp_path):
    require(executor, request)
    weights = random_tensors(tiny_waves, (None, 2))
    run = make_runner(executor, tiny_waves, weights, (None, 2), {}, tmp_path)
    for n_frames, n_samples in ((4, 50), (2, 29)):  # the last samples fill no window
        examples = tiny_examples((n_frames, 2)), tiny_examples((n_samples,))
        by_definition, _ = run_oracle(tiny_waves, weights, *examples)
        outputs = run(*examples)
        assert outputs.framewise.shape == (6, n_frames, 4)
        assert relative(outputs.embeddings, by_definition.embeddings) <= 2e-6
        assert largest(outputs.scores - by_definition.scores) <= 1e-6
        assert largest(outputs.framewise - by_definition.framewise) <= 1e-6


def test_a_network_says_what_it_sees_by_its_parameters():
    assert input_names(tiny) == ("patches",)
    assert input_names(panns_wavegram) == ("waveforms",)
    assert input_names(tiny_waves) == input_names(panns_wavegram_logmel) == ("patches", "waveforms")


@pytest.mark.parametrize("kind", WAVEGRAMS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_wavegrams_take_waveforms_of_any_length(executor, kind, request, tmp_path):
    require(executor, request)
    network, arguments = WAVEGRAMS[kind], {"channels": [2, 3, 4, 5, 6, 7], "n_classes": 5}
    weights = random_tensors(network, (None, 64), arguments)
    run = make_runner(executor, network, weights, (None, 64), arguments, tmp_path)
    for n_frames, n_samples in ((34, 10_880), (33, 10_300)):
        made = {"patches": tiny_examples((n_frames, 64), 2), "waveforms": tiny_examples((n_samples,), 2)}
        examples = [made[name] for name in input_names(network)]
        by_definition, _ = run_oracle(network, weights, *examples, arguments=arguments)
        outputs = run(*examples)
        assert relative(outputs.embeddings, by_definition.embeddings) <= 1e-5
        assert largest(outputs.scores - by_definition.scores) <= 1e-5


def test_a_module_names_the_inputs_that_it_lacks(torch):
    from audioset.executors.torch import network_to_torch

    module = network_to_torch(tiny_waves, random_tensors(tiny_waves, (None, 2)), {})
    with pytest.raises(UsageError, match=r"1 tensors arrived; this network takes patches and waveforms. Next step: "):
        module(torch.zeros(1, 4, 2))


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [((2, 2), 2, "none"), ((3, 2), 3, "none"), ((2, 1), (2, 1), "none"), ((3, 1), 1, "symmetric")],
)
def test_shapes_of_averages_are_known_before_they_are_computed(size, stride, padding):
    def averaged(ops, patches):
        return Outputs(embeddings=ops.avg_pool(patches, size=size, stride=stride, padding=padding))

    for patch_shape in ((9, 8), (4, 3)):
        expected, _ = run_oracle(averaged, {}, np.zeros((1, *patch_shape)))
        assert trace_shapes(averaged, patch_shape, {})[1].embeddings == expected.embeddings.shape[1:]
    n_frames, *_ = trace_shapes(averaged, (None, 8), {})[1].embeddings
    assert n_frames is None


@pytest.mark.parametrize("kind", PANNS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_panns_of_every_kind_take_patches_of_any_length(executor, kind, request, tmp_path):
    require(executor, request)
    network, arguments = PANNS[kind]
    weights = random_tensors(network, (None, 32), arguments)
    run = make_runner(executor, network, weights, (None, 32), arguments, tmp_path)
    for n_frames in (75, 32):
        examples = tiny_examples((n_frames, 32), n_patches=2)
        by_definition, _ = run_oracle(network, weights, examples, arguments=arguments)
        outputs = run(examples)
        assert relative(outputs.embeddings, by_definition.embeddings) <= 1e-5
        assert largest(outputs.scores - by_definition.scores) <= 1e-5
        assert (outputs.framewise is None) == (arguments.get("decision", "clip") == "clip")
        if outputs.framewise is not None:
            assert outputs.framewise.shape == (2, n_frames // 8, 5)
            assert largest(outputs.framewise - by_definition.framewise) <= 1e-5


@pytest.mark.parametrize("executor", EXECUTORS)
def test_mobilenet_v2_follows_its_definition(executor, request, tmp_path):
    require(executor, request)
    weights = random_tensors(panns_mobilenet_v2, (None, 32), {"n_classes": 5})
    for value in weights.values():
        value /= np.sqrt(np.prod(value.shape[1:])) if value.ndim > 1 else 1  # else its scores are 0 or 1
    run = make_runner(executor, panns_mobilenet_v2, weights, (None, 32), {"n_classes": 5}, tmp_path)
    examples = tiny_examples((33, 32), n_patches=1)
    by_definition, _ = run_oracle(panns_mobilenet_v2, weights, examples, arguments={"n_classes": 5})
    outputs = run(examples)
    assert 0.01 < by_definition.scores.min() < by_definition.scores.max() < 0.99
    assert relative(outputs.embeddings, by_definition.embeddings) <= 1e-5
    assert largest(outputs.scores - by_definition.scores) <= 1e-5


@pytest.mark.parametrize("kind", PANNS)
def test_gradients_reach_every_parameter_of_a_pann(kind, torch):
    from audioset.executors.torch import network_to_torch

    network, arguments = PANNS[kind]
    module = network_to_torch(network, random_tensors(network, (None, 32), arguments), arguments).train()
    outputs = module(torch.tensor(tiny_examples((64, 32))))
    (outputs.scores if outputs.logits is None else outputs.logits).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", MOBILENETS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_mobilenets_of_every_kind_take_patches_of_any_length(executor, kind, request, tmp_path):
    require(executor, request)
    arguments = {"width": 0.1, "n_classes": 7, **MOBILENETS[kind]}
    weights = random_tensors(mobilenet, (None, 20), arguments)
    run = make_runner(executor, mobilenet, weights, (None, 20), arguments, tmp_path)
    for n_frames in (33, 1):
        examples = tiny_examples((n_frames, 20), n_patches=2)
        by_definition, _ = run_oracle(mobilenet, weights, examples, arguments=arguments)
        outputs = run(examples)
        assert relative(outputs.embeddings, by_definition.embeddings) <= 1e-5
        assert largest(outputs.scores - by_definition.scores) <= 1e-5


@pytest.fixture
def tiny_torch(torch):
    from audioset.executors.torch import network_to_torch

    return network_to_torch(tiny, tiny_weights((21, 14)), {})


@pytest.fixture
def yamnet_torch(torch, yamnet_weights):
    from audioset.executors.torch import network_to_torch

    return network_to_torch(yamnet_network, yamnet_weights, {})


@pytest.fixture
def tiny_batch(torch):
    return torch.tensor(tiny_examples((21, 14)))


@pytest.mark.parametrize("name", ["yamnet", "vggish"])
def test_gradients_reach_every_parameter(name, torch, published, expected):
    from audioset.executors.torch import network_to_torch

    network, arguments = NETWORKS[name]
    module = network_to_torch(network, published(name), arguments).train()
    examples, *_ = expected(name)["speech_whistling2"]
    outputs = module(torch.tensor(examples))
    (outputs.embeddings if outputs.logits is None else outputs.logits).square().mean().backward()
    for parameter_name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("is_training", [True, False])
def test_gradients_are_the_slopes_of_the_loss(is_training, torch, tiny_torch, tiny_batch):
    module = tiny_torch.double().train(is_training)
    parameters = list(module.parameters())
    generator = torch.Generator().manual_seed(0)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss(step):
        moved = {
            name: value + step * towards
            for (name, value), towards in zip(module.named_parameters(), direction, strict=True)
        }
        return torch.func.functional_call(copy.deepcopy(module), moved, tiny_batch.double()).logits.square().mean()

    loss(0.0)  # leaves nothing behind: the moments that it moves are a copy's
    module(tiny_batch.double()).logits.square().mean().backward()
    slope = sum((p.grad * towards).sum() for p, towards in zip(parameters, direction, strict=True))
    measured = (loss(1e-7) - loss(-1e-7)) / 2e-7
    assert measured.item() == pytest.approx(slope.item(), rel=1e-5)


def test_training_normalises_by_the_batch_and_moves_the_stored_moments(torch, tiny_torch, tiny_batch):
    before = {name: value.numpy().copy() for name, value in tiny_torch.state_dict().items()}
    outputs = to_numpy(tiny_torch.train()(tiny_batch))
    by_definition, after = run_oracle(tiny, before, tiny_batch.numpy(), training=True)
    assert relative(outputs.embeddings, by_definition.embeddings) <= 5e-6
    for name, value in tiny_torch.state_dict().items():
        np.testing.assert_allclose(value.numpy(), after[name], rtol=1e-6, atol=1e-7, err_msg=name)
        assert np.array_equal(value.numpy(), before[name]) == ("moving" not in name), name


@pytest.mark.parametrize("network", [tiny_dotted, tiny_pooled])
def test_training_a_pytorch_network_moves_the_moments_as_pytorch_does(network, torch):
    from audioset.executors.torch import network_to_torch

    weights, examples = random_tensors(network, (21, 14)), tiny_examples((21, 14))
    module = network_to_torch(network, weights, {}).train()
    outputs = to_numpy(module(torch.tensor(examples)))
    by_definition, after = run_oracle(network, weights, examples, training=True)
    assert relative(outputs.embeddings, by_definition.embeddings) <= 5e-6
    assert set(module.state_dict()) == set(weights)
    assert {name for name, _ in module.named_buffers()} == {name for name in weights if "running" in name}
    for name, value in module.state_dict().items():
        np.testing.assert_allclose(value.numpy(), after[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_gradients_reach_every_parameter_of_a_mobilenet(torch):
    from audioset.executors.torch import network_to_torch

    arguments = {"width": 0.1, "n_classes": 7}
    module = network_to_torch(mobilenet, random_tensors(mobilenet, (None, 20), arguments), arguments).train()
    module(torch.tensor(tiny_examples((40, 20)))).logits.square().mean().backward()
    for name, parameter in module.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_dropout_acts_in_training_only(torch):
    from audioset.executors.torch import network_to_torch

    def dropped(ops, patches):
        return Outputs(embeddings=ops.dropout(ops.flatten(patches), 0.25))

    module, ones = network_to_torch(dropped, {}, {}), torch.ones(10, 96, 64)
    assert torch.equal(module(ones).embeddings, torch.ones(10, 96 * 64))
    values, counts = module.train()(ones).embeddings.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 4 / 3]))
    assert counts[0].item() / counts.sum().item() == pytest.approx(0.25, abs=0.01)


def test_evaluation_leaves_the_stored_moments_alone(torch, tiny_torch, tiny_batch):
    before = copy.deepcopy(tiny_torch.state_dict())
    tiny_torch(tiny_batch)
    assert all(torch.equal(value, before[name]) for name, value in tiny_torch.state_dict().items())


def test_a_new_module_is_in_evaluation_mode(tiny_torch):
    assert not tiny_torch.training


@pytest.mark.parametrize("name", ["yamnet", "vggish"])
def test_a_state_dict_has_the_published_names_and_shapes(name, torch, published):
    from audioset.executors.torch import network_to_torch

    network, arguments = NETWORKS[name]
    module = network_to_torch(network, published(name), arguments)
    shapes, _ = trace_shapes(network, PATCH_SHAPE, arguments)
    assert {key: tuple(value.shape) for key, value in module.state_dict().items()} == shapes
    assert {key for key, _ in module.named_buffers()} == {key for key in shapes if "moving" in key}


def test_a_module_does_not_share_the_arrays_that_it_was_made_of(torch, tiny_batch):
    from audioset.executors.torch import network_to_torch

    weights = tiny_weights((21, 14))
    network_to_torch(tiny, weights, {}).train()(tiny_batch)
    for name, value in tiny_weights((21, 14)).items():
        np.testing.assert_array_equal(weights[name], value)


def test_weights_travel_through_a_file(torch, tiny_torch, tiny_batch):
    file = io.BytesIO()
    torch.save(tiny_torch.state_dict(), file)
    other = copy.deepcopy(tiny_torch)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not torch.equal(other(tiny_batch).logits, tiny_torch(tiny_batch).logits)  # a copy is independent
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(tiny_batch).logits, tiny_torch(tiny_batch).logits)


def test_a_network_of_another_dtype_computes_in_it(torch, yamnet_torch, expected):
    examples, embeddings, scores = expected("yamnet")["speech_whistling2"]
    outputs = yamnet_torch.to(torch.float64)(torch.tensor(examples, dtype=torch.float64))
    assert outputs.scores.dtype == torch.float64
    assert largest(outputs.scores.detach().numpy() - scores) <= 2e-6
    assert relative(outputs.embeddings.detach().numpy(), embeddings) <= 5e-6


def test_a_module_moves_to_another_device(torch, tiny_torch, tiny_batch):
    outputs = tiny_torch.to("meta")(tiny_batch.to("meta"))
    assert outputs.scores.device.type == "meta"
    assert outputs.scores.shape == (6, 5)


def test_no_patches_give_no_rows(torch, yamnet_torch):
    outputs = yamnet_torch(torch.zeros(0, *PATCH_SHAPE))
    assert outputs.embeddings.shape == (0, 1024)
    assert outputs.scores.shape == (0, 521)


def test_arguments_reach_the_network(torch):
    from audioset.executors.torch import network_to_torch

    shapes, _ = trace_shapes(yamnet_network, PATCH_SHAPE, {"n_classes": 3})
    weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_labels'"):
        network_to_torch(yamnet_network, weights, {"n_labels": 3})(torch.zeros(1, *PATCH_SHAPE))
    assert network_to_torch(yamnet_network, weights, {"n_classes": 3})(torch.zeros(1, *PATCH_SHAPE)).scores.shape == (
        1,
        3,
    )


@pytest.fixture
def tiny_keras(keras):
    from audioset.executors.keras import network_to_keras

    return network_to_keras(tiny, tiny_weights((21, 14)), (21, 14), {})


@pytest.fixture(scope="module")
def yamnet_keras(keras, yamnet_weights):
    from audioset.executors.keras import network_to_keras

    return network_to_keras(yamnet_network, yamnet_weights, PATCH_SHAPE, {})


def keras_weights(model):
    """Weights of a Keras model as {layer}/{attribute}."""
    return {
        f"{layer.name}/{weight.name}": np.array(value)
        for layer in model.layers
        for weight, value in zip(layer.weights, layer.get_weights(), strict=True)
    }


def test_a_reloaded_keras_file_gives_the_same_outputs(keras, yamnet_keras, expected, tmp_path):
    examples, *_ = expected("yamnet")["speech_whistling2"]
    yamnet_keras.save(tmp_path / "yamnet.keras")
    reloaded = keras.models.load_model(tmp_path / "yamnet.keras")
    for name, value in yamnet_keras.predict(examples, verbose=0).items():
        np.testing.assert_array_equal(reloaded.predict(examples, verbose=0)[name], value)


def test_a_keras_model_has_no_layers_but_keras_own(yamnet_keras, tiny_keras):
    for model in (yamnet_keras, tiny_keras):
        assert {layer["module"] for layer in model.get_config()["layers"]} == {"keras.layers"}
        assert "Lambda" not in {layer["class_name"] for layer in model.get_config()["layers"]}


def test_keras_layers_have_the_published_names(yamnet_keras):
    shapes, _ = trace_shapes(yamnet_network, PATCH_SHAPE, {})
    named = {name.rpartition("/")[0].replace("/", "_") for name in shapes}
    assert {layer.name for layer in yamnet_keras.layers if layer.weights} == named
    assert "layer14_pointwise_conv_bn" in named
    assert yamnet_keras.count_params() == 3_751_369


def test_keras_layers_are_named_alike_in_every_model(keras, tiny_keras):
    from audioset.executors.keras import network_to_keras

    other = network_to_keras(tiny, tiny_weights((21, 14)), (21, 14), {})
    assert [layer.name for layer in other.layers] == [layer.name for layer in tiny_keras.layers]
    assert {"patches", "relu_1", "relu_2", "max_pool_1", "flatten_1"} <= {layer.name for layer in other.layers}


def test_a_keras_model_names_its_input_and_outputs(yamnet_keras):
    assert {tensor.name: tensor.shape for tensor in yamnet_keras.inputs} == {"patches": (None, 96, 64)}
    assert {name: tensor.shape for name, tensor in yamnet_keras.output.items()} == {
        "embeddings": (None, 1024),
        "scores": (None, 521),
    }


def test_keras_trains_with_the_published_batch_norm(tiny_keras):
    weights, examples = tiny_weights((21, 14)), tiny_examples((21, 14))
    _, after = run_oracle(tiny, weights, examples, training=True)
    tiny_keras.compile("sgd", loss={"scores": "binary_crossentropy"})
    before = keras_weights(tiny_keras)
    tiny_keras.fit(examples, {"scores": np.ones((6, 5), "f")}, batch_size=6, epochs=1, verbose=0)
    trained = keras_weights(tiny_keras)
    for name in weights:
        layer, _, kind = name.rpartition("/")
        if kind.startswith("moving"):
            np.testing.assert_allclose(
                trained[f"{layer.replace('/', '_')}/{kind}"], after[name], rtol=1e-5, atol=1e-6, err_msg=name
            )
    unchanged = {name for name, value in trained.items() if np.array_equal(value, before[name])}
    assert unchanged <= {"first_conv/bias"}  # the batch norm after it takes it away again


def numpy_patches(waveform, spec, hop_frames):
    """What ``Model.predict`` gives to its network."""
    spec = replace(spec, patch_hop_frames=hop_frames or spec.patch_hop_frames)
    pieces = slabs([waveform], spec, 64)
    return np.concatenate([patches(log_mel(slab.waveform, spec)[slab.n_skipped :], spec) for slab in pieces])


@pytest.fixture
def make_frontend(torch):
    from audioset.executors.torch_frontend import TorchFrontend

    return TorchFrontend


@pytest.mark.parametrize("hop_frames", [None, 1, 48, 97])
@pytest.mark.parametrize("pad", PADS)
@pytest.mark.parametrize("spec", [YAMNET, VGGISH], ids=lambda spec: spec.name)
def test_torch_frontend_is_the_numpy_one(spec, pad, hop_frames, torch, make_frontend):
    spec = spec.with_pad(pad)
    frontend = make_frontend(spec, hop_frames)
    for n_samples in (1, 399, 7_000, PATCH - 1, PATCH, PATCH + 1, PATCH + 7_680, 40_000):
        if pad == "error" and n_samples < PATCH:
            continue
        waveform = noise(n_samples)
        ours, theirs = frontend(torch.tensor(waveform)), numpy_patches(waveform, spec, hop_frames)
        assert ours.dtype == torch.float32
        assert ours.shape == theirs.shape, n_samples
        assert largest(ours.numpy() - theirs) <= 5e-7, n_samples


@pytest.mark.parametrize("hop_frames", [None, 7, 33])
@pytest.mark.parametrize("pad", PADS)
def test_centred_torch_frontend_is_the_numpy_one(pad, hop_frames, torch, make_frontend):
    spec = replace(EFFICIENTAT, patch_frames=20, patch_hop_frames=20, pad=pad)
    frontend = make_frontend(spec, hop_frames)
    for n_samples in (1, 513, 514, 3_000, 6_399, 6_400, 6_401, 20_001):
        if pad == "error" and n_samples < 6_400:
            continue
        clips = noise(2 * n_samples).reshape(2, n_samples)
        ours = frontend(torch.tensor(clips))
        for clip, part in zip(clips, ours, strict=True):
            theirs = numpy_patches(clip, spec, hop_frames)
            assert part.shape == theirs.shape, n_samples
            assert largest(part.numpy() - theirs) <= 5e-7, n_samples


def test_torch_frontend_follows_a_logarithm_in_decibels(torch, make_frontend):
    spec = replace(YAMNET, log="decibel", log_offset=1e-3, power=2, log_mean=3.0, log_scale=2.0)
    waveform = noise(40_000)
    waveform[20_000:] = 0
    ours = make_frontend(spec)(torch.tensor(waveform)).numpy()
    assert largest(ours - numpy_patches(waveform, spec, None)) <= 5e-6  # of values up to 20


def test_torch_frontend_is_exact_beside_a_loud_tone(torch, make_frontend, reference):
    waveform = reference["sine440_3s"]["waveform"]
    theirs = numpy_patches(waveform, YAMNET, None)
    assert largest(make_frontend(YAMNET)(torch.tensor(waveform)).numpy() - theirs) <= 5e-7
    in_float32 = make_frontend(YAMNET, dtype=torch.float32)(torch.tensor(waveform)).numpy()
    original = patches(reference["sine440_3s"]["log_mel"], YAMNET)
    assert 1e-4 < largest(in_float32 - theirs) <= exactness.FACTOR * largest(original - theirs)


@pytest.mark.parametrize("n_samples", [1_000, 40_000])
def test_a_batch_of_clips_is_each_clip(n_samples, torch, make_frontend):
    frontend = make_frontend(YAMNET.with_pad("repeat"))
    clips = torch.tensor(noise(3 * n_samples)).reshape(3, n_samples)
    together = frontend(clips)
    assert together.shape[:1] == (3,)
    for clip, ours in zip(clips, together, strict=True):
        torch.testing.assert_close(ours, frontend(clip), rtol=0, atol=1e-6)


def test_gradients_reach_the_samples_that_a_patch_covers(torch, make_frontend):
    waveform = torch.tensor(noise(PATCH + 200)).requires_grad_()
    make_frontend(VGGISH)(waveform).sum().backward()
    assert torch.isfinite(waveform.grad).all()
    assert waveform.grad[1 : PATCH - 1].any()
    assert not waveform.grad[PATCH:].any()


def test_silence_has_finite_gradients(torch, make_frontend):
    waveform = torch.zeros(PATCH, requires_grad=True)
    make_frontend(YAMNET)(waveform).sum().backward()
    assert torch.isfinite(waveform.grad).all()


def test_a_cast_or_autocast_does_not_round_the_features(torch, make_frontend):
    waveform = torch.tensor(noise(40_000))
    exact = make_frontend(YAMNET)(waveform)
    assert torch.equal(make_frontend(YAMNET).to(torch.bfloat16)(waveform), exact)
    with torch.autocast("cpu", torch.bfloat16):
        in_float32 = make_frontend(YAMNET, dtype=torch.float32)(waveform)
    assert largest((in_float32 - exact).numpy()) <= 1e-5


def test_a_frontend_computes_on_the_device_that_it_moves_to(torch, make_frontend, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # "meta" has none
    frontend = make_frontend(YAMNET.with_pad("repeat")).to("meta")
    for n_samples, n_patches in ((40_000, 4), (1_000, 1)):
        examples = frontend(torch.zeros(2, n_samples, device="meta"))
        assert examples.device.type == "meta"
        assert examples.shape == (2, n_patches, 96, 64)


def test_a_frontend_has_no_state(make_frontend):
    frontend = make_frontend(YAMNET)
    assert frontend.state_dict() == {}
    assert list(frontend.parameters()) == []


@pytest.mark.parametrize(
    ("waveform", "message", "code"),
    [
        (
            np.zeros((1, 2, 16_000), "f"),
            r"shape \(1, 2, 16000\); expected \(n_samples,\) or \(batch, n_samples\)",
            "shape",
        ),
        (np.zeros((), "f"), r"shape \(\); expected", "shape"),
        (np.zeros(16_000, np.int16), "dtype torch.int16; expected floats", "dtype"),
        (np.zeros((2, 0), "f"), "holds no samples", "no_samples"),
    ],
)
def test_torch_frontend_refuses_what_is_not_a_waveform(waveform, message, code, torch, make_frontend):
    with pytest.raises(AudioError, match=message) as caught:
        make_frontend(YAMNET)(torch.tensor(waveform))
    assert caught.value.code == code


def test_torch_frontend_refuses_a_clip_shorter_than_a_patch(torch, make_frontend):
    with pytest.raises(AudioError, match="vggish needs 15,600") as caught:
        make_frontend(VGGISH)(torch.zeros(2, PATCH - 1))
    assert caught.value.code == "too_short"


@pytest.mark.parametrize("hop_frames", [0, -48])
def test_torch_frontend_refuses_a_hop_that_stands_still(hop_frames, make_frontend):
    with pytest.raises(UsageError, match=f"hop_frames is {hop_frames}; expected 1 or more"):
        make_frontend(YAMNET, hop_frames)


@pytest.fixture
def torch_model(torch, yamnet_torch, make_frontend):
    from audioset.executors.torch_frontend import TorchModel

    return TorchModel(make_frontend(YAMNET), yamnet_torch)


@pytest.mark.parametrize("clip", ["speech_whistling2", "dog_975ms", "len_1"])
def test_a_torch_model_is_the_published_one(clip, torch, torch_model, yamnet, reference):
    waveform = reference[clip]["waveform"]
    with torch.no_grad():
        outputs = torch_model(torch.tensor(waveform))
    prediction = yamnet.predict(waveform, 16_000)
    assert largest(outputs.scores.numpy() - prediction.scores) <= 4e-6
    assert relative(outputs.embeddings.numpy(), prediction.embeddings) <= 5e-6


def test_a_torch_model_keeps_the_clips_of_a_batch_apart(torch, torch_model):
    clips = torch.tensor(noise(60_000)).reshape(2, 30_000)
    with torch.no_grad():
        outputs = torch_model(clips)
        each = [torch_model(clip).scores for clip in clips]
    assert outputs.embeddings.shape == (2, 3, 1024)
    assert outputs.logits.shape == outputs.scores.shape == (2, 3, 521)
    torch.testing.assert_close(outputs.scores, torch.stack(each), rtol=0, atol=4e-6)


def test_a_torch_model_of_a_network_that_only_embeds_has_no_scores(torch, make_frontend):
    from audioset.executors.torch import network_to_torch
    from audioset.executors.torch_frontend import TorchModel

    def mean(ops, patches):
        return Outputs(embeddings=ops.dense(ops.spatial_mean(patches), "dense", 2))

    network = network_to_torch(mean, {"dense/kernel": np.ones((1, 2), "f"), "dense/bias": np.ones(2, "f")}, {})
    outputs = TorchModel(make_frontend(YAMNET), network)(torch.zeros(PATCH))
    assert outputs.embeddings.shape == (1, 2)
    assert outputs.logits is None
    assert outputs.scores is None


def test_a_torch_model_casts_what_its_network_sees(torch, torch_model):
    outputs = torch_model.to(torch.bfloat16)(torch.tensor(noise(PATCH)))
    assert outputs.scores.dtype == torch.bfloat16
    assert torch_model.frontend.window.dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("torch", "torch", "train"), ("torch_frontend", "torch", "train"), ("keras", "keras", "keras")],
)
def test_a_missing_package_names_the_extra_that_brings_it(module, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"audioset.executors.{module}", raising=False)
    with pytest.raises(MissingExtraError, match=rf'needs the package {package}.*pip install "audioset\[{extra}\]"'):
        importlib.import_module(f"audioset.executors.{module}")


def test_keras_without_its_backend_says_so(monkeypatch, tmp_path):
    (tmp_path / "keras.py").write_text("import tensorflow_that_is_not_here")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("keras", "audioset.executors.keras"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(EngineError, match=r"No module named 'tensorflow_that_is_not_here'.*set the.*KERAS_BACKEND"):
        importlib.import_module("audioset.executors.keras")


# ---- From a model


@pytest.mark.parametrize("name", ["yamnet", "vggish"])
def test_a_models_modules_have_its_numbers(request, torch, keras, name):
    model = request.getfixturevalue(name)
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    expected = model.predict(waveform, model.frontend.sample_rate, hop_s=0.24, pad="zero")
    cut = model.patches(waveform, model.frontend.sample_rate, hop_s=0.24, pad="zero")
    with torch.no_grad():
        from_patches = model.to_torch()(torch.from_numpy(cut))
        from_waveform = model.to_torch(input="waveform", hop_s=0.24, pad="zero")(torch.from_numpy(waveform))
    for outputs in (from_patches, from_waveform):
        assert relative(outputs.embeddings.numpy(), expected.embeddings) <= 1e-5
    from_keras = model.to_keras()(cut)
    assert relative(np.asarray(from_keras["embeddings"].detach()), expected.embeddings) <= 1e-5


def test_an_unknown_input_of_a_module(model):
    with pytest.raises(UsageError, match="input is 'pcm'; expected one of patches, waveform"):
        model.to_torch(input="pcm")
