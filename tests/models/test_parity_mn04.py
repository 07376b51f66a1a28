"""EfficientAT's mn04_as against the stored outputs of its own code, from the features and from the waveform."""

from __future__ import annotations

from pathlib import Path

import exactness
import numpy as np
import pytest
from reference_data import read_cases
from runners import make_runner

from audioset.frontend.cutting import patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.published import EFFICIENTAT
from audioset.networks.mobilenet import mobilenet
from audioset.networks.shapes import trace_shapes
from audioset.weights.torch_zip import read_torch_zip

CHECKPOINT = "mn04_as_mAP_432.pt"
ARGUMENTS = {"width": 0.4}
CASES = ("noise_10s", "sine_3s", "speech_whistling2", "dog_975ms", "tfl_speech", "torchvggish_test")
# Millions of parameters in the README of the original.
PUBLISHED_PARAMETERS = {0.4: 0.983, 0.5: 1.43, 1.0: 4.88, 2.0: 17.91, 3.0: 39.09, 4.0: 68.43}


@pytest.fixture(scope="module")
def mn04_reference():
    return read_cases("mn04_as_reference.npz")


@pytest.fixture(scope="module")
def mn04_weights(assets_folder):
    if not (assets_folder / CHECKPOINT).is_file():
        pytest.skip(f"no published weights: {assets_folder} has no {CHECKPOINT}")
    shapes, _ = trace_shapes(mobilenet, (None, 128), {"width": 0.4})
    return read_torch_zip(assets_folder / CHECKPOINT, shapes)


@pytest.fixture(scope="module", params=["openvino", "onnxruntime", "torch"])
def run(request, mn04_weights, tmp_path_factory):
    """mn04_as in one executor, made once for patches of all lengths."""
    pytest.importorskip(request.param)
    folder: Path = tmp_path_factory.mktemp("mn04")
    return make_runner(request.param, mobilenet, mn04_weights, (None, 128), ARGUMENTS, folder)


def largest(difference):
    return np.abs(difference).max()


def relative(ours, theirs):
    return largest(ours - theirs) / largest(theirs)


def test_the_checkpoint_has_the_names_and_shapes_of_the_network(mn04_weights):
    shapes, outputs = trace_shapes(mobilenet, (None, 128), ARGUMENTS)
    assert {name: value.shape for name, value in mn04_weights.items()} == shapes
    assert (outputs.embeddings, outputs.logits, outputs.scores) == ((384,), (527,), (527,))


@pytest.mark.parametrize("width", PUBLISHED_PARAMETERS)
def test_every_width_has_the_published_number_of_parameters(width):
    shapes, outputs = trace_shapes(mobilenet, (None, 128), {"width": width})
    n_parameters = sum(np.prod(shape) for name, shape in shapes.items() if "running" not in name)
    assert n_parameters / 1e6 == pytest.approx(PUBLISHED_PARAMETERS[width], abs=0.0051)
    assert outputs.embeddings == (960 * width,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strides": (2, 2, 2)}, r"strides is \(2, 2, 2\); expected four numbers, each 1 or 2"),
        ({"strides": (2, 2, 2, 4)}, r"strides is \(2, 2, 2, 4\); expected four"),
        ({"head": "attention"}, "head is 'attention' and se_dims is 'c'; expected one of mlp, fully_convolutional"),
        ({"se_dims": "t"}, "se_dims is 't'; expected one of .*, and one of c, f, none"),
    ],
)
def test_arguments_that_make_no_published_network_are_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        trace_shapes(mobilenet, (None, 128), arguments)


@pytest.mark.parametrize("case", CASES)
def test_network_matches_the_original_on_its_own_features(run, mn04_reference, case):
    expected = mn04_reference[case]
    outputs = run(np.ascontiguousarray(expected["log_mel"].T[np.newaxis]))
    assert largest(outputs.scores[0] - expected["scores"]) <= exactness.SCORES["mn04"]
    assert relative(outputs.embeddings[0], expected["embedding"]) <= exactness.EMBEDDINGS["mn04"]


@pytest.mark.parametrize("case", CASES)
def test_network_and_frontend_match_the_original_from_the_waveform(run, mn04_reference, case):
    expected = mn04_reference[case]
    (slab,) = slabs([expected["waveform"]], EFFICIENTAT, 64)
    outputs = run(patches(log_mel(slab.waveform, EFFICIENTAT), EFFICIENTAT))
    assert largest(outputs.scores[0] - expected["scores"]) <= 1e-5
    assert relative(outputs.embeddings[0], expected["embedding"]) <= 2e-5


@pytest.mark.parametrize("case", CASES)
def test_frontend_is_nearer_to_its_formula_than_the_original(mn04_reference, case):
    waveform, original = mn04_reference[case]["waveform"], mn04_reference[case]["log_mel"].T
    formula = log_mel(waveform.astype(np.float64), EFFICIENTAT, dtype=np.float64)
    ours = log_mel(waveform, EFFICIENTAT)
    assert ours.shape == original.shape
    assert largest(original - formula) <= 1e-4
    assert largest(ours - formula) <= 5e-7
    assert largest(ours - formula) < largest(original - formula)


def test_the_original_is_as_far_from_float64_as_the_bounds_say(mn04_weights, mn04_reference):
    torch = pytest.importorskip("torch")
    from audioset.executors.torch import network_to_torch

    module = network_to_torch(mobilenet, mn04_weights, ARGUMENTS).double()
    of_scores, of_embeddings = [], []
    for case in mn04_reference.values():
        with torch.no_grad():
            exact = module(torch.tensor(case["log_mel"].T[np.newaxis], dtype=torch.float64))
        of_scores.append(largest(case["scores"] - exact.scores[0].numpy()))
        of_embeddings.append(relative(case["embedding"], exact.embeddings[0].numpy()))
    assert max(of_scores) == pytest.approx(exactness.ORIGINAL_SCORES["mn04"], rel=0.01)
    assert max(of_embeddings) == pytest.approx(exactness.ORIGINAL_EMBEDDINGS["mn04"], rel=0.01)


def test_every_stored_case_is_tested(mn04_reference):
    assert set(mn04_reference) == set(CASES)
