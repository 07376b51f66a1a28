"""PyTorch and Keras modules of networks: training, files, names, and the frontend before them."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import sys
from dataclasses import replace

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
from runners import to_numpy
from sounds import noise

from audioset.errors import AudioError, EngineError, MissingExtraError, UsageError
from audioset.frontend.cutting import patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT, VGGISH, YAMNET
from audioset.frontend.spec import PADS
from audioset.networks.mobilenet import mobilenet
from audioset.networks.ops import Outputs
from audioset.networks.shapes import trace_shapes
from audioset.networks.yamnet import yamnet as yamnet_network

# Keras turns its variables into arrays by way of PyTorch's Tensor.__array__, which lacks a keyword that numpy 2 wants.

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
PATCH = 15_600  # samples


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
