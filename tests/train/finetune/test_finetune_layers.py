"""Batches of like lengths, and the order in which layers learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from finetune_runs import RATE, assert_same_weights, run, weights_of
from sounds import wav_bytes

from audioset.errors import UsageError
from audioset.frontend.published import EFFICIENTAT
from audioset.models.cards import NETWORKS
from audioset.networks.shapes import trace_shapes
from audioset.sounds.reading import read_collection

pytest.importorskip("torch")

from audioset.train.finetune.config import FinetuneConfig
from audioset.train.finetune.data import (
    Spectrograms,
    make_batches,
)
from audioset.train.finetune.layers import HEAD, N_STAGES, find_stages, first_epoch, learning_rate


@pytest.mark.parametrize(("n", "size"), [(5, 8), (8, 8), (100, 8), (101, 8)])
def test_a_pass_has_every_clip_once_and_like_lengths_together(n, size):
    rng = np.random.default_rng(0)
    rows, lengths = np.arange(50, 50 + n), rng.integers(10, 1_000, 200)
    batches = make_batches(rows, lengths, size, rng)
    assert sorted(np.concatenate(batches)) == rows.tolist()
    assert max(map(len, batches)) <= size
    assert min(map(len, batches)) >= max(map(len, batches)) - 1  # none is too short for moments
    if n == 100:
        assert np.mean([np.ptp(lengths[batch]) for batch in batches]) < 0.35 * np.ptp(lengths)


@pytest.mark.parametrize(("network", "arguments"), [("yamnet", {}), ("mobilenet", {"width": 0.4}), ("vggish", {})])
def test_layers_are_staged_in_the_order_of_the_network(network, arguments):
    shape = (None, 128) if network == "mobilenet" else (96, 64)
    card = {"backbone": network, "backbone_arguments": arguments, "n_classes": 3}
    names = list(trace_shapes(NETWORKS["classifier"], shape, card)[0])
    stages = find_stages(names)
    assert list(stages.values()) == sorted(stages.values())
    assert set(stages.values()) == set(range(N_STAGES + 1))
    assert {name for name in names if stages[name] == HEAD} == {name for name in names if name[:10] == "classifier"}


def test_steps_are_smaller_below_and_begin_later():
    config = FinetuneConfig()
    starts = [first_epoch(config, stage) for stage in range(N_STAGES + 1)]
    assert starts == sorted(starts, reverse=True)
    assert starts[-2:] == [config.head_epochs, 0]
    assert starts[0] == config.head_epochs + config.unfreeze_epochs
    rates = [learning_rate(config, stage, 0.3) for stage in range(N_STAGES + 1)]
    assert rates == sorted(rates)
    assert learning_rate(config, 0, 0.3) == pytest.approx(config.bottom_rate * learning_rate(config, N_STAGES - 1, 0.3))
    course = [learning_rate(config, HEAD, progress) for progress in (0.0, 0.05, 0.1, 0.5, 0.999)]
    assert course[0] == 0 < course[1] < course[2] > course[3] > course[4] > 0


def test_the_networks_own_bits_stay_while_the_new_layers_learn(sounds, config, backbone, tmp_path):
    run(sounds, replace(config, head_epochs=3, unfreeze_epochs=0, n_epochs=3, holdout=0.0), tmp_path / "model")
    ours, published = weights_of(tmp_path / "model"), weights_of(backbone)
    own = {name for name in ours if not name.startswith("classifier/")}
    assert len(own) == len(ours) - 2
    assert_same_weights({name: ours[name] for name in own}, {name: published[name] for name in own})


def test_layers_up_to_a_named_one_stay_as_they_are(sounds, config, backbone, tmp_path):
    config = replace(config, frozen_until="features.9", batch_norms="keep", holdout=0.0, unfreeze_epochs=0)
    run(sounds, config, tmp_path / "model")
    ours, published = weights_of(tmp_path / "model"), weights_of(backbone)
    moved = {name for name in published.keys() & ours.keys() if not np.array_equal(ours[name], published[name])}
    assert {int(name.split(".")[1]) for name in moved} == set(range(10, 17))
    with pytest.raises(UsageError, match=r"there is no such layer; near it: features\."):
        run(sounds, replace(config, frozen_until="features.99"), tmp_path / "other")


@pytest.mark.parametrize("batch_norms", ["adapt", "keep"])
def test_moments_follow_the_clips_only_if_asked(sounds, config, backbone, tmp_path, batch_norms):
    run(sounds, replace(config, batch_norms=batch_norms, holdout=0.0), tmp_path / "model")
    ours, published = weights_of(tmp_path / "model"), weights_of(backbone)
    moments = [name for name in ours if name.endswith(("running_mean", "running_var"))]
    moved = [name for name in moments if not np.array_equal(ours[name], published[name])]
    assert moved == (moments if batch_norms == "adapt" else [])
    kernels = [name for name in ours if name.endswith("0.weight")]
    assert not any(np.array_equal(ours[name], published[name]) for name in kernels)


def test_clips_beyond_the_memory_are_the_same_when_decoded_again(sounds):
    clips = read_collection(sounds).clips
    kept, decoded = (Spectrograms(clips, EFFICIENTAT, 10.0, memory_mb) for memory_mb in (100.0, 0.0))
    assert kept.load() == decoded.load() == {}
    for row in range(len(clips)):
        np.testing.assert_array_equal(kept.patches(row)[0], decoded.patches(row)[0])
        assert kept.n_frames(row) == decoded.n_frames(row)


def test_of_a_long_clip_a_piece_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "long.wav").write_bytes(wav_bytes(np.zeros(RATE * 3, np.float32), RATE))
    found = Spectrograms(read_collection(tmp_path).clips, EFFICIENTAT, 1.0, 100.0)
    assert found.n_frames(0) == len(found.piece(0, np.random.default_rng(0))) == 100
