"""Multiply-adds against what the publishers say, and against convolutions counted one by one."""

from __future__ import annotations

import itertools

import pytest

from audioset.models.cards import FRONTENDS, NETWORKS
from audioset.models.published import MODELS
from audioset.networks.shapes import CountingOps, count_multiply_adds

# The paper counts floating-point operations of all of it, and its spectrogram is a convolution.
PANNS_LOG_MEL = 1001 * 513 * (2 * 1024 + 64)


def cost(name):
    spec = MODELS[name]
    frontend = FRONTENDS[spec.frontend]
    shape = (frontend.patch_frames, frontend.n_mels)
    n_samples = frontend.waveform_samples(frontend.patch_frames)
    return count_multiply_adds(NETWORKS[spec.network], shape, n_samples, spec.arguments)


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [
        ("yamnet", 69.2e6, 0.005),  # README of the original: multiplies for a patch
        ("mn04_as", 0.11e9, 0.05),  # README of EfficientAT: multiply-adds for a clip
        ("mn10_as", 0.54e9, 0.05),
        ("mn40_as", 8.03e9, 0.05),
        ("cnn14", 42.22e9 / 2 - PANNS_LOG_MEL, 0.005),
        ("resnet38", 48.962e9 / 2 - PANNS_LOG_MEL, 0.005),
        ("wavegram_logmel_cnn14", 53.510e9 / 2 - PANNS_LOG_MEL, 0.005),
    ],
)
def test_counts_are_the_published_ones(name, published, tolerance):
    assert cost(name) == pytest.approx(published, rel=tolerance)


def test_each_product_is_counted_once():
    height, width, n_in, n_out, kernel = 4, 6, 3, 5, 3
    ops = CountingOps()
    x = ops.conv2d((height, width, n_in), "conv", filters=n_out, kernel=kernel)
    products = itertools.product(range(height), range(width), range(n_out), range(kernel), range(kernel), range(n_in))
    assert ops.n_multiply_adds == sum(1 for _ in products)
    before = ops.n_multiply_adds
    ops.pointwise_dense(x, "dense", 7)
    assert ops.n_multiply_adds - before == height * width * n_out * 7
    before = ops.n_multiply_adds
    ops.depthwise_conv2d(x, "depthwise", kernel=3, stride=2)
    assert ops.n_multiply_adds - before == 2 * 3 * n_out * 9


def test_another_network_in_groups_costs_less():
    whole, grouped = CountingOps(), CountingOps()
    whole.conv2d((8, 8, 4), "conv", filters=8, kernel=3)
    grouped.conv2d((8, 8, 4), "conv", filters=8, kernel=3, groups=4)
    assert grouped.n_multiply_adds * 4 == whole.n_multiply_adds
