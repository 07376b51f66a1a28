"""Every network through every executor, against the originals' stored outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import exactness
import numpy as np
import pytest
from oracle import (
    NETWORKS,
    PATCH_SHAPE,
    largest,
    random_tensors,
    relative,
    run_oracle,
    tiny,
    tiny_dotted,
    tiny_examples,
    tiny_pooled,
    tiny_weights,
)
from runners import make_runner, to_numpy

from audioset.errors import UsageError
from audioset.networks.mobilenet import mobilenet
from audioset.networks.ops import TORCH_NAMES, Outputs, input_names
from audioset.networks.panns import panns_cnn, panns_mobilenet_v2, panns_resnet, panns_wavegram, panns_wavegram_logmel
from audioset.networks.shapes import trace_shapes

# Keras turns its variables into arrays by way of PyTorch's Tensor.__array__, which lacks a keyword that numpy 2 wants.

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
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
