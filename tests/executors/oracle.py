"""Networks by definition in float64, and the inputs that tests of executors share."""

from __future__ import annotations

import numpy as np
import pytest

from audioset.networks.ops import KERAS_NAMES, SLIM_NAMES, TORCH_NAMES, Outputs, both, input_names
from audioset.networks.shapes import trace_shapes
from audioset.networks.vggish import vggish
from audioset.networks.yamnet import yamnet as yamnet_network

PATCH_SHAPE = (96, 64)
NETWORKS = {"yamnet": (yamnet_network, {}), "vggish": (vggish, {}), "vggish-relu": (vggish, {"activation": "relu"})}


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
