"""Training of heads: settings, steps, checkpoints that continue bit for bit, and the model in the end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from processes import ask_to_stop, torchrun

from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.folder import write
from audioset.errors import ConflictError, DataError, EngineError, NoInputError, UsageError
from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME, ModelCard, read_card

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file  # noqa: E402 - below what needs torch

from audioset.networks.heads import HEADS  # noqa: E402
from audioset.networks.ops import Outputs  # noqa: E402
from audioset.train import TrainConfig, read_config, train  # noqa: E402
from audioset.train.checkpoint import CHECKPOINTS, METRICS_NAME, EventFile, RunFolder, numbers  # noqa: E402
from audioset.train.distributed import Processes  # noqa: E402
from audioset.train.heads import training  # noqa: E402
from audioset.train.heads.examples import load_data  # noqa: E402
from audioset.train.heads.fast_ops import TrainingOps, binary_cross_entropy  # noqa: E402
from audioset.train.heads.training import learning_rate, make_module, mixup  # noqa: E402
from audioset.train.loop import take_step  # noqa: E402
from audioset.train.state import Mean, MovingAverage  # noqa: E402

N_TRAINING, N_EVAL, N_PRESENT = 60, 24, 6
ALONE = Processes(0, 1, torch.device("cpu"))


def make_clips(n_clips, subset, seed):
    """Clips whose first numbers say their labels; some are short."""
    rng = np.random.default_rng(seed)
    for i in range(n_clips):
        labels = {i % N_PRESENT, int(rng.integers(N_PRESENT))}
        embeddings = rng.integers(0, 256, (10 if i % 9 else 4, 128)).astype(np.uint8)
        embeddings[:, sorted(labels)] = 250
        yield FeatureClip(f"{subset}{i:07d}", 0.0, 10.0, tuple(sorted(labels)), embeddings, subset)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features") / "arrays"
    write(folder, [*make_clips(N_TRAINING, "bal_train", 0), *make_clips(N_EVAL, "eval", 1)])
    return folder


@pytest.fixture(scope="module")
def soft_targets(features, tmp_path_factory):
    path = tmp_path_factory.mktemp("targets") / "soft.npy"
    np.save(path, np.random.default_rng(0).random((N_TRAINING, 527), np.float32))
    return str(path)


@pytest.fixture
def config(features):
    return TrainConfig(
        features=str(features),
        eval_subset="eval",
        head="logistic",
        batch_size=16,
        n_iterations=6,
        learning_rate=0.01,
        eval_every=2,
        checkpoint_every=2,
        log_every=1,
        device="cpu",
    )


def weights_of(folder):
    return load_file(folder / WEIGHTS_NAME)


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("elapsed_s", "core_s")} for line in lines]


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(iteration):
    def on_line(line):
        if line["iteration"] == iteration:
            raise Killed("killed")

    return on_line


# settings ------------------------------------------------------------------------------------------------------------


def test_a_file_of_settings_comes_back_the_same(tmp_path):
    config = TrainConfig(
        features='a "b"\\\n', head_arguments={"padding": "mask", "n": 3, "x": [0.5, True]}, epsilon=1e-7
    )
    (tmp_path / "run.toml").write_text(config.to_toml())
    assert read_config(tmp_path / "run.toml") == config


def test_flags_overrule_the_file_and_arguments_are_merged(tmp_path):
    (tmp_path / "run.toml").write_text('batch_size = 7\nseed = 2\n[head_arguments]\npadding = "mask"\nn = 1\n')
    config = read_config(tmp_path / "run.toml", seed=5, head_arguments={"n": 2})
    assert (config.batch_size, config.seed, config.head_arguments) == (7, 5, {"padding": "mask", "n": 2})


def test_what_nobody_named_is_as_the_heads_recipe_has_it(tmp_path):
    recipe = HEADS["two-branch"].recipe
    (tmp_path / "run.toml").write_text('head = "two-branch"\nmixup = 0.5\nema = 0.9\n')
    config = read_config(tmp_path / "run.toml", ema=0.0)
    named = {"head": "two-branch", "mixup": 0.5, "ema": 0.0}
    assert config == TrainConfig(**{**recipe, **named})
    assert read_config(head="two-branch") == TrainConfig(head="two-branch", **recipe)
    assert read_config() == TrainConfig()
    (tmp_path / "all.toml").write_text(TrainConfig(head="two-branch").to_toml())
    assert read_config(tmp_path / "all.toml") == TrainConfig(head="two-branch")
    assert read_config(head="vlad").head == "vlad"  # the run says that there is none


@pytest.mark.parametrize("head", [head for head in HEADS.values() if head.recipe], ids=lambda head: head.name)
def test_recipes_are_settings_that_are_not_the_defaults(head):
    defaults = TrainConfig().as_dict()
    assert {name for name in head.recipe if defaults[name] == head.recipe[name]} <= {"batch_size"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 0.1", "no setting 'learning_rat'. Likely meant: learning_rate"),
        ("xyzzy = 1", "no setting 'xyzzy'. Expected one of features, subset"),
        ("batch_size = 1.5", "batch_size is 1.5; expected a value of type int"),
        ("batch_size = true", "batch_size is True; expected a value of type int"),
        ("batch_size = 1", "batch_size is 1; expected a number at least 2"),
        ("learning_rate = 0", "learning_rate is 0; expected a number above 0"),
        ("learning_rate = inf", "learning_rate is inf; expected a finite number"),
        ("ema = 1", "ema is 1; expected a number below 1"),
        ("target_share = 2", "target_share is 2; expected a number at most 1"),
        ('sampler = "random"', "sampler is 'random'; expected one of balanced, uniform, weighted"),
        ("patience = 3", "patience needs held-out clips, and holdout is 0"),
        ('choose = "best"', "choose needs held-out clips"),
        ('average = "weights"', "expected both or neither"),
        ("average_from = 3", "average_from is set, and average is 'none'"),
        ('average = "weights"\naverage_every = 1\naverage_from = 10\nn_iterations = 5', "after the last of 5"),
        ('average = "scores"\naverage_every = 1', "of clips to measure on, and there are none"),
        ('average = "weights"\naverage_every = 1\nchoose = "best"\nholdout = 0.1', "expected one of the two"),
        ("draws_per_pass = 3", "draws_per_pass is for the weighted sampler"),
        ("target_share = 0.5", "target_share is set, and targets is not"),
        ("= 3", "is not TOML"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path / "run.toml")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NoInputError, match=r"cannot read the settings .*none\.toml"):
        read_config(tmp_path / "none.toml")


WEIGHTED = {"sampler": "weighted"}
MEANT = {"average": "weights", "average_every": 2}
HELD = {"holdout": 0.3}


def test_the_documentation_has_every_setting():
    page = (Path(__file__).parents[3] / "docs" / "train.md").read_text(encoding="utf-8")
    table = page.partition("## Settings")[2].partition("## Samplers")[0]
    assert [name for field in fields(TrainConfig) if f"`{(name := field.name)}`" not in table] == []


CHANGES = {  # field: (settings of both runs, value of the other run)
    "features": ({}, ""),
    "subset": ({}, "unbal_train"),
    "eval_features": ({"eval_subset": ""}, "features"),
    "eval_subset": ({}, "bal_train"),
    "targets": ({}, "soft"),
    "target_share": ({"targets": "soft"}, 0.5),
    "holdout": ({}, 0.3),
    "head": ({}, "frame-logistic"),
    "head_arguments": ({}, {"padding": "zero"}),
    "sampler": ({}, "uniform"),
    "draws_per_pass": (WEIGHTED, 20),
    "whole_batches": ({"sampler": "uniform"}, True),
    "batch_size": ({}, 8),
    "n_iterations": ({}, 4),
    "seed": ({}, 1),
    "mixup": ({}, 0.5),
    "label_smoothing": ({}, 0.1),
    "class_weight_power": ({}, 0.5),
    "optimizer": ({"weight_decay": 0.1}, "adamw"),
    "learning_rate": ({}, 0.02),
    "beta1": ({}, 0.5),
    "beta2": ({}, 0.9),
    "epsilon": ({}, 1e-2),
    "weight_decay": ({}, 0.1),
    "clip_norm": ({"epsilon": 1e-2}, 1e-3),
    "schedule": ({}, "cosine"),
    "warm_up": ({}, 5),
    "precision": ({}, "bf16"),
    "device": ({}, "cuda"),
    "ema": ({}, 0.5),
    "average": ({**MEANT}, "scores"),
    "average_from": ({**MEANT}, 5),
    "average_every": ({**MEANT}, 3),
    "eval_every": ({}, 3),
    "patience": ({**HELD, "learning_rate": 10.0, "n_iterations": 12}, 1),
    "choose": ({**HELD, "learning_rate": 10.0}, "best"),
    "checkpoint_every": ({}, 0),
    "log_every": ({}, 2),
    "tensorboard": ({}, True),
    "licence": ({}, "CC0-1.0"),
}


def test_every_setting_is_tried():
    assert list(CHANGES) == [field.name for field in fields(TrainConfig)]


def outcome(config, folder):
    """What a run leaves, or the error that it ends with; without the settings themselves."""
    try:
        train(config, folder)
    except (UsageError, NoInputError, EngineError) as error:
        return str(error)
    card = read_card(folder)
    files = sorted(path.name.partition("tfevents")[0] for path in folder.rglob("*"))
    arrays = {name: value.tobytes() for name, value in weights_of(folder).items()}
    return arrays, lines_of(folder), card.licence, card.network, card.arguments, files


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_has_an_effect(name, config, features, soft_targets, tmp_path):
    shared, value = CHANGES[name]
    named = {"features": str(features), "soft": soft_targets}
    shared = {key: named.get(each, each) if isinstance(each, str) else each for key, each in shared.items()}
    value = named.get(value, value) if isinstance(value, str) else value
    if name == "device" and torch.cuda.is_available():
        pytest.skip("there is a GPU, on which this run is the same")
    ours = replace(config, **shared)
    assert outcome(ours, tmp_path / "ours") != outcome(replace(ours, **{name: value}), tmp_path / "theirs")


# steps ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", HEADS)
def test_every_head_learns(head, config, tmp_path):
    config = replace(config, head=head, batch_size=12, learning_rate=0.003)
    data = load_data(config)
    sampler = training.choose_sampler(config, data.training.labels)
    state = training.first_state(config, sampler, ALONE.device)
    recipe = training.make_recipe(state, config, data, ALONE)
    batches = training.batches(state, sampler, config, ALONE)
    losses = [take_step(state, recipe, next(batches), ALONE) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in state.module.parameters())


def test_a_head_learns_what_is_there_to_learn(config, tmp_path):
    """Sixty clips leave room to err; scores without meaning would have an mAP of 0.3."""
    result = train(replace(config, n_iterations=80, learning_rate=0.05, eval_every=0), tmp_path / "run")
    assert result["eval"]["mean_ap"] > 0.65


def test_steps_are_those_of_plain_pytorch(config, tmp_path):
    """Kong's loss and optimizer on the same batches; without dropout, so that nothing is random."""
    train(config, tmp_path / "run")
    data = load_data(config).training
    sampler = training.choose_sampler(config, data.labels)
    module = make_module(config).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, eps=1e-7)
    for _ in range(config.n_iterations):
        batch = data.batch(sampler.next_batch())
        scores = module(torch.from_numpy(batch.embeddings), torch.from_numpy(batch.mask)).scores
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(scores, torch.from_numpy(batch.targets)).backward()
        optimizer.step()
    for name, value in weights_of(tmp_path / "run").items():
        np.testing.assert_allclose(value, module.state_dict()[name].numpy(), atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
def test_dropout_hides_its_share_and_keeps_the_mean(dtype, rate):
    module = torch.nn.Module().train()
    x = torch.ones(40, 25, 20, dtype=dtype).transpose(1, 2).unsqueeze(3)  # as a map of frames is stored
    dropped = TrainingOps(module, np.random.default_rng(0)).dropout(x, rate)
    assert dropped.stride()[:3] == x.stride()[:3]
    kept = dropped != 0
    assert abs(1 - kept.float().mean() - rate) < 0.01
    np.testing.assert_allclose(dropped[kept].float(), 1 / (1 - rate), rtol=4e-3)
    per_place = kept.float().mean(0)
    assert per_place.min() > 0
    assert abs(dropped.float().mean() - 1) < 0.03


def test_dropout_does_nothing_in_evaluation():
    x = torch.ones(3, 4)
    assert torch.equal(TrainingOps(torch.nn.Module().eval(), np.random.default_rng(0)).dropout(x, 0.5), x)


def test_fast_primitives_do_what_the_plain_ones_do():
    module = torch.nn.Module().train()
    fast, plain = TrainingOps(module, np.random.default_rng(0)), TrainingOps.__base__(module)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 10, 8, generator=generator).transpose(1, 2).unsqueeze(3).requires_grad_()
    weights = torch.rand(6, 8, 10, 1, generator=generator)
    for made, expected in [
        (fast.clip(x, -0.5, 0.5), plain.clip(x, -0.5, 0.5)),
        (fast.height_mean(x), plain.height_mean(x)),
        (fast.height_mean(x, weights), plain.height_mean(x, weights)),
        (fast.height_mean(x, weights[:, :1]), plain.height_mean(x, weights[:, :1])),
        (fast.multiply(x, weights), plain.multiply(x, weights)),
    ]:
        np.testing.assert_allclose(made.detach(), expected.detach(), atol=1e-6)
        ours, theirs = (torch.autograd.grad(y.square().sum(), x)[0] for y in (made, expected))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_short_batches_are_passed_over(config):
    config = replace(config, sampler="uniform", whole_batches=True, batch_size=25, n_iterations=4)  # of 60 clips
    sampler = training.choose_sampler(config, load_data(config).training.labels)
    batches = training.batches(training.first_state(config, sampler, ALONE.device), sampler, config, ALONE)
    assert [len(batch.rows) for batch in batches] == [25] * 4
    assert sampler.state()["counters"].tolist() == [1, 50]


def test_batches_that_are_never_whole_end_the_run(config, tmp_path):
    config = replace(config, sampler="uniform", whole_batches=True, batch_size=100)
    with pytest.raises(UsageError, match=r"100 batches in a row have fewer than 100 clips.*a smaller batch_size"):
        train(config, tmp_path / "run")


def test_the_loss_is_the_sum_over_branches():
    scores = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    targets, weights = torch.eye(4)[:3], torch.tensor([1.0, 2, 3, 4])
    branches = tuple(branch[:, :, None, None] for branch in scores)
    loss = binary_cross_entropy(Outputs(None, None, scores.mean(0), None, branches), targets, weights)
    expected = -(targets * scores.log() + (1 - targets) * (1 - scores).log()) * weights
    torch.testing.assert_close(loss, expected.sum())


def test_a_loss_that_is_no_number_ends_the_run(config, tmp_path):
    with pytest.raises(UsageError, match=r"the loss is .* in iteration .*a learning rate that is too high"):
        train(replace(config, learning_rate=1e38, head="moe", n_iterations=40), tmp_path / "run")


def test_mixup_takes_a_second_from_the_clip_that_has_it():
    embeddings = torch.tensor([[[1.0], [2.0], [0.0]], [[10.0], [0.0], [0.0]]])
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    targets = torch.tensor([[1.0, 0], [0, 1]])
    mixed, mixed_mask, mixed_targets = mixup(
        embeddings, mask, targets, torch.tensor([1, 0]), torch.tensor([[0.75], [0.75]])
    )
    np.testing.assert_allclose(mixed[..., 0], [[3.25, 2, 0], [7.75, 2, 0]])
    np.testing.assert_array_equal(mixed_mask, [[1, 1, 0], [1, 1, 0]])
    np.testing.assert_allclose(mixed_targets, [[0.75, 0.25], [0.25, 0.75]])


def test_soft_targets_that_are_the_labels_change_nothing(config, tmp_path):
    data = load_data(config)
    np.save(tmp_path / "same.npy", data.training.labels.targets(np.arange(N_TRAINING)))
    train(config, tmp_path / "hard")
    train(replace(config, targets=str(tmp_path / "same.npy")), tmp_path / "soft")
    assert_same_weights(weights_of(tmp_path / "hard"), weights_of(tmp_path / "soft"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 527), np.float32), r"has shape \(3, 527\).*expected floats of shape \(60, 527\)"),
        (np.zeros((N_TRAINING, 527), np.int8), "dtype int8; expected floats"),
        (np.full((N_TRAINING, 527), 3.0), "expected probabilities, not logits"),
        (np.full((N_TRAINING, 527), np.nan), "expected probabilities, not logits"),
    ],
)
def test_soft_targets_that_do_not_fit(config, tmp_path, array, message):
    np.save(tmp_path / "soft.npy", array)
    with pytest.raises(DataError, match=message):
        train(replace(config, targets=str(tmp_path / "soft.npy")), tmp_path / "run")


def test_learning_rates():
    config = TrainConfig(n_iterations=100, learning_rate=2.0)
    rates = {
        schedule: [learning_rate(replace(config, schedule=schedule), i) for i in (1, 31, 51, 100)]
        for schedule in ("constant", "linear", "cosine", "one-cycle")
    }
    np.testing.assert_allclose(rates["constant"], 2)
    np.testing.assert_allclose(rates["linear"], [2, 1.4, 1, 0.02])
    np.testing.assert_allclose(rates["cosine"], [2, 1 + np.cos(0.3 * np.pi), 1, 4.93e-4], rtol=1e-3)
    np.testing.assert_allclose(rates["one-cycle"][:2], [2 / 25, 2])
    assert rates["one-cycle"][3] < 2e-3
    warm = [learning_rate(replace(config, warm_up=4), i) for i in (1, 2, 4, 5)]
    np.testing.assert_allclose(warm, [0.5, 1, 2, 2])


def test_a_moving_average_forgets_where_it_began():
    moving = MovingAverage({"w": torch.tensor([100.0])}, 0.9)
    expected = 100.0
    for i in range(1, 200):
        moving.update({"w": torch.tensor([1.0])}, i)
        decay = min(0.9, (1 + i) / (10 + i))
        expected = decay * expected + (1 - decay)
    np.testing.assert_allclose(moving.weights["w"], expected, rtol=1e-5)


def test_a_mean_is_the_mean():
    values = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    mean = Mean()
    for value in values:
        mean.add({"w": torch.from_numpy(value)})
    np.testing.assert_allclose(mean.tensors["w"], values.mean(0), atol=1e-6)


def test_averaged_weights_are_the_mean_of_the_runs_that_ended_there(config, tmp_path):
    ends = [2, 4, 6]
    for end in ends:
        train(replace(config, n_iterations=end), tmp_path / str(end))
    train(replace(config, average="weights", average_from=2, average_every=2), tmp_path / "mean")
    singles = [weights_of(tmp_path / str(end)) for end in ends]
    for name, value in weights_of(tmp_path / "mean").items():
        np.testing.assert_allclose(value, np.mean([single[name] for single in singles], 0), atol=1e-6)


def test_averaged_scores_are_measured_beside_the_model(config, tmp_path):
    from audioset import metrics

    config = replace(config, average="scores", average_from=2, average_every=2)
    result = train(config, tmp_path / "mean")
    examples = load_data(config).evaluation
    scores = []
    for end in (2, 4, 6):
        train(replace(config, n_iterations=end, average="none", average_from=0, average_every=0), tmp_path / str(end))
        weights = {name: torch.from_numpy(value) for name, value in weights_of(tmp_path / str(end)).items()}
        scores.append(training.predict(make_module(config), weights, examples, ALONE))
    expected = metrics.evaluate(np.mean(scores, 0), examples.labels.targets(np.arange(N_EVAL))).mean_ap
    assert result["n_members"] == 3
    assert result["eval_of_mean_scores"]["mean_ap"] == pytest.approx(expected, abs=1e-6)


def test_the_best_weights_on_held_out_clips_are_chosen_and_patience_ends(config, tmp_path):
    config = replace(config, holdout=0.3, learning_rate=10.0, n_iterations=40, eval_every=1, patience=3, choose="best")
    result = train(config, tmp_path / "run")
    *lines, last = lines_of(tmp_path / "run")
    measured = [line["holdout"]["mean_ap"] for line in lines if "holdout" in line]
    assert result["holdout"]["mean_ap"] == max(measured) == last["result"]["holdout"]["mean_ap"]
    assert len(measured) == int(np.argmax(measured)) + 1 + 3 < 40


# checkpoints ---------------------------------------------------------------------------------------------------------

EVERYTHING = {
    "head": "two-branch",  # it has batch norms and dropout
    "head_arguments": {"n_frame": 64, "n_clip": 32, "n_attention": 32},
    "whole_batches": True,
    "batch_size": 8,
    "n_iterations": 7,
    "ema": 0.9,
    "mixup": 0.5,
    "holdout": 0.2,
    "schedule": "one-cycle",
    "precision": "bf16",
    "average": "scores",
    "average_every": 2,
}


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_a_run_that_was_stopped_ends_with_the_same_bits(config, tmp_path_factory, tmp_path, stop):
    config = replace(config, **EVERYTHING)
    whole = tmp_path_factory.getbasetemp() / "whole"  # once for all
    train(config, whole)
    with pytest.raises(Killed, match="killed"):
        train(config, tmp_path / "run", kill_at(stop))
    train(config, tmp_path / "run")
    assert_same_weights(weights_of(whole), weights_of(tmp_path / "run"))
    assert lines_of(whole) == lines_of(tmp_path / "run")
    assert (whole / CARD_NAME).read_bytes() == (tmp_path / "run" / CARD_NAME).read_bytes()


def test_a_damaged_checkpoint_is_passed_over(config, tmp_path, caplog):
    train(config, tmp_path / "whole")
    with pytest.raises(Killed, match="killed"):
        train(config, tmp_path / "run", kill_at(5))
    old, new = sorted((tmp_path / "run" / CHECKPOINTS).iterdir())
    new.write_bytes(new.read_bytes()[:1000])
    train(config, tmp_path / "run")
    assert "going on with the one before" in caplog.text
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))
    for path in (old, new):
        path.write_bytes(b"")
    (tmp_path / "run" / CARD_NAME).unlink()
    for path in (tmp_path / "run" / CHECKPOINTS).iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the checkpoints"):
        train(config, tmp_path / "run")


def test_the_last_two_checkpoints_are_kept_and_nothing_else_lies_about(config, tmp_path):
    train(config, tmp_path / "run")
    names = sorted(path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*"))
    checkpoints = [f"{CHECKPOINTS}/00000000{i}.safetensors" for i in (4, 6)]
    assert names == sorted([CHECKPOINTS, *checkpoints, METRICS_NAME, CARD_NAME, WEIGHTS_NAME, "run.toml"])


def test_a_finished_run_is_not_trained_again(config, tmp_path):
    result = train(config, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert train(config, tmp_path / "run", kill_at(1)) == result
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_other_settings_are_a_conflict(config, tmp_path):
    train(config, tmp_path / "run")
    with pytest.raises(ConflictError, match=r"other settings \(seed: 0, now 1; ema: 0\.0, now 0\.5\)"):
        train(replace(config, seed=1, ema=0.5), tmp_path / "run")


@pytest.mark.parametrize("is_finished", [True, False])
def test_other_data_is_a_conflict(config, tmp_path, is_finished):
    write(tmp_path / "arrays", [*make_clips(30, "bal_train", 0), *make_clips(10, "eval", 1)])
    config = replace(config, features=str(tmp_path / "arrays"))
    try:
        train(config, tmp_path / "run", None if is_finished else kill_at(5))
    except Killed:
        assert not is_finished
    (tmp_path / "arrays").rename(tmp_path / "old")
    write(tmp_path / "arrays", [*make_clips(30, "bal_train", 5), *make_clips(10, "eval", 1)])
    with pytest.raises(ConflictError, match="on other data than the settings name now"):
        train(config, tmp_path / "run")


def test_a_folder_of_something_else_is_left_alone(config, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match="holds something that is no run"):
        train(config, tmp_path)


def test_what_a_killed_process_was_writing_is_cleared_away(config, tmp_path):
    leftovers = [tmp_path / "run" / ".run.toml.7.a", tmp_path / "run" / CHECKPOINTS / ".000000002.safetensors.7.a"]
    (tmp_path / "run").mkdir()
    leftovers[0].write_bytes(b"half")
    train(config, tmp_path / "run")
    leftovers[1].write_bytes(b"half")
    (tmp_path / "run" / CARD_NAME).unlink()
    train(config, tmp_path / "run")
    assert not leftovers[1].exists()


def test_a_full_disk_is_an_output_error_that_leaves_no_half_checkpoint(config, tmp_path, monkeypatch):
    from audioset.errors import OutputError

    def write_bytes(self, data):
        if self.name.startswith(".00"):
            raise OSError(28, "No space left on device")
        return original(self, data)

    original = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match="No space left on device"):
        train(config, tmp_path / "run")
    assert list((tmp_path / "run" / CHECKPOINTS).iterdir()) == []


def run_command(config, folder, output, **environment):
    path = folder / "settings.toml"
    path.write_text(config.to_toml())
    command = [sys.executable, "-m", "audioset", "train", "heads", "--config", path, "--output", output]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, **pipes)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no kill -9 here")
def test_a_killed_process_goes_on_with_the_same_bits(config, tmp_path):
    config = replace(config, n_iterations=600, eval_every=0, checkpoint_every=60, eval_subset="")
    process = run_command(config, tmp_path, tmp_path / "run")
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "run").glob(f"{CHECKPOINTS}/*.safetensors")) and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "run" / CARD_NAME).exists()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the process had: other threads add in another order
    try:
        train(config, tmp_path / "run")
        train(config, tmp_path / "whole")
    finally:
        torch.set_num_threads(n_threads)
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))


def test_a_signal_stops_after_the_iteration_and_leaves_a_checkpoint(config, tmp_path):
    def interrupt(line):
        if line["iteration"] == 3:
            ask_to_stop()

    before = signal.getsignal(signal.SIGTERM)
    train(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        train(config, tmp_path / "run", interrupt)
    assert [path.stem for path in sorted((tmp_path / "run" / CHECKPOINTS).iterdir())] == ["000000002", "000000003"]
    assert signal.getsignal(signal.SIGTERM) == before
    train(config, tmp_path / "run")
    assert_same_weights(weights_of(tmp_path / "whole"), weights_of(tmp_path / "run"))


# several processes ---------------------------------------------------------------------------------------------------


WORKER = """
import os, sys
import numpy as np
from audioset.train import read_config, train
from audioset.train.checkpoint import RunFolder

config, output, report = sys.argv[1:]
finish = RunFolder.finish

def report_and_finish(folder, card, weights, metrics):
    arrays = {name: value.numpy() for name, value in weights.items()}
    np.savez(f"{report}{os.environ['RANK']}.npz", n=int(os.environ["WORLD_SIZE"]), **arrays)
    finish(folder, card, weights, metrics)

RunFolder.finish = report_and_finish
lines = []
train(read_config(config), output, lines.append)
assert bool(lines) == (os.environ["RANK"] == "0")
"""


def test_two_processes_have_the_weights_of_one(config, tmp_path):
    train(config, tmp_path / "one")
    (tmp_path / "settings.toml").write_text(config.to_toml())
    (tmp_path / "worker.py").write_text(WORKER)
    torchrun(tmp_path / "worker.py", tmp_path / "settings.toml", tmp_path / "two", tmp_path / "rank")
    first, second = (dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in range(2))
    assert first["n"] == 2
    assert_same_weights(first, second)
    for name, value in weights_of(tmp_path / "one").items():
        np.testing.assert_allclose(value, first[name], atol=2e-6)
        np.testing.assert_array_equal(weights_of(tmp_path / "two")[name], first[name])
    assert [line["iteration"] for line in lines_of(tmp_path / "two")] == [
        line["iteration"] for line in lines_of(tmp_path / "one")
    ]


def test_a_batch_must_have_two_clips_for_each_process(config):
    with pytest.raises(UsageError, match="batch_size is 5 for 3 processes; expected at least 6"):
        training._check_parts(replace(config, batch_size=5), Processes(0, 3, ALONE.device))


# the model -----------------------------------------------------------------------------------------------------------


def test_the_folder_is_a_model_that_says_where_it_comes_from(config, tmp_path):
    result = train(config, tmp_path / "run")
    card = read_card(tmp_path / "run")
    assert (card.network, card.frontend, card.labels, card.licence) == (
        HEADS["logistic"].network.__name__,
        "vggish",
        "audioset-527",
        "CC-BY-4.0",
    )
    assert card.source["config"] == config.as_dict()
    assert card.source["metrics"] == result
    examples = load_data(config).evaluation
    weights = {name: torch.from_numpy(value) for name, value in weights_of(tmp_path / "run").items()}
    scores = training.predict(make_module(config), weights, examples, ALONE)
    assert training.measure(scores, examples, ALONE) == result["eval"]


def test_measuring_does_not_disturb_the_training(config, tmp_path):
    config = replace(config, head="average-pooling", n_iterations=3, batch_size=8)
    train(replace(config, eval_every=1), tmp_path / "often")
    train(replace(config, eval_every=0), tmp_path / "never")
    assert_same_weights(weights_of(tmp_path / "often"), weights_of(tmp_path / "never"))


def test_events_for_tensorboard_hold_the_measurements(config, tmp_path):
    from audioset.dataset.features.framing import read_records
    from audioset.dataset.features.problems import Problems

    train(replace(config, tensorboard=True), tmp_path / "run")
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    with path.open("rb") as file:
        records = [record for *_, record in read_records(file, path.stat().st_size, path.name, Problems())]
    assert b"brain.Event:2" in records[0]
    assert len(records) == 1 + len(lines_of(tmp_path / "run"))
    mean_ap = lines_of(tmp_path / "run")[-1]["result"]["eval"]["mean_ap"]
    assert b"result/eval/mean_ap\x15" + np.float32(mean_ap).tobytes() in records[-1]


def test_measures_that_are_not_defined_are_no_events(tmp_path):
    line = {"iteration": 7, "eval": {"mean_ap": None, "mean_auc": math.nan, "d_prime": math.inf, "lwlrap": 0.5}}
    assert list(numbers(line)) == [("iteration", 7), ("eval/lwlrap", 0.5)]
    EventFile(tmp_path).write(line)
    (path,) = tmp_path.iterdir()
    assert b"eval/lwlrap" in path.read_bytes()
    assert b"mean_ap" not in path.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ""}, "there is nothing to train on"),
        ({"subset": "unbal_train"}, "has no clips of unbal_train"),
        ({"eval_subset": "evil"}, "eval_subset is 'evil'; expected one of bal_train, eval"),
        ({"subset": "all"}, "eval of .* would be both trained and measured on"),
        ({"holdout": 0.001}, "holdout is 0.001, which of 60 clips is none"),
        ({"head": "kong"}, "there is no head 'kong'; expected one of average-pooling"),
        ({"head_arguments": {"n_hidden": 3}}, "cannot have the arguments"),
    ],
)
def test_runs_that_cannot_be(config, tmp_path, settings, message):
    with pytest.raises((UsageError, NoInputError), match=message):
        train(replace(config, **settings), tmp_path / "run")


def test_features_that_are_no_arrays_are_read_and_train_the_same(config, tmp_path):
    from audioset.dataset.features.reading import convert

    convert(config.features, tmp_path / "features.parquet", "parquet") if sys.modules.get("pyarrow") else convert(
        config.features, tmp_path / "features.h5", "hdf5", "bal_train"
    )
    path = next(tmp_path.glob("features.*"))
    config = replace(config, eval_features=config.features)
    train(config, tmp_path / "arrays")
    train(replace(config, features=str(path)), tmp_path / "other")
    assert_same_weights(weights_of(tmp_path / "arrays"), weights_of(tmp_path / "other"))


# the command ---------------------------------------------------------------------------------------------------------


def invoke(*arguments):
    from audioset.cli import cli

    return CliRunner().invoke(cli, ["train", "heads", *map(str, arguments)])


def test_the_command_trains_measures_and_talks_on_standard_error(config, tmp_path):
    (tmp_path / "run.toml").write_text(config.to_toml())
    result = invoke("--config", tmp_path / "run.toml", "--output", tmp_path / "out", "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == read_card(tmp_path / "out").source["metrics"]
    assert "audioset: iteration 2 of 6 · loss" in result.stderr
    assert read_config(tmp_path / "out" / "run.toml") == replace(config, seed=3)
    table = invoke("--config", tmp_path / "run.toml", "--output", tmp_path / "out", "--seed", 3, "--resume")
    assert table.stdout.splitlines()[0].split() == ["mAP", "AUC", "d'", "lwlrap"]


def test_arguments_of_a_head_are_toml_or_words(features, tmp_path):
    result = invoke("--features", features, "-o", tmp_path / "out", "--head", "logistic", "--n-iterations", 1, "-q",
                    "--argument", "padding=zero", "--argument", "n_classes=527", "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert read_card(tmp_path / "out").arguments == {"padding": "zero", "n_classes": 527}
    assert isinstance(invoke("-o", tmp_path / "o", "--argument", "padding").exception, UsageError)


def test_the_command_trains_a_head_with_its_recipe_and_flags_win(features, tmp_path):
    result = invoke("--features", features, "-o", tmp_path / "out", "--head", "two-branch", "--n-iterations", 2, "-q",
                    "--batch-size", 8, "--ema", 0, "--no-whole-batches", "--argument", "n_frame=8",
                    "--argument", "n_clip=8", "--argument", "n_attention=8", "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    config = read_config(tmp_path / "out" / "run.toml")
    assert (config.optimizer, config.schedule, config.sampler) == ("adamw", "cosine", "uniform")
    assert (config.ema, config.whole_batches, config.n_iterations) == (0, False, 2)
    assert "Flags win over the file" in " ".join(invoke("--help").stdout.split())


def test_resume_refuses_to_begin(config, tmp_path):
    (tmp_path / "run.toml").write_text(config.to_toml())
    result = invoke("--config", tmp_path / "run.toml", "--output", tmp_path / "out", "--resume")
    assert isinstance(result.exception, ConflictError)


def test_the_heads_are_listed():
    assert [line.split()[0] for line in invoke("--list").stdout.splitlines()] == list(HEADS)


def test_weights_that_are_no_numbers_are_not_written(config, tmp_path):
    folder = RunFolder(tmp_path / "run", config, "digest", is_writer=True)
    card = ModelCard("vggish", {}, "vggish", "", "none", {})
    weights = {name: torch.tensor([1.0, value]) for name, value in (("a", 0), ("b", np.nan), ("c", np.inf))}
    with pytest.raises(UsageError, match="the weights b, c are not finite, and no model was written"):
        folder.finish(card, weights, {})
    assert not (tmp_path / "run" / CARD_NAME).exists()


def test_a_loss_that_is_no_number_names_clips(config, tmp_path):
    with pytest.raises(
        UsageError, match=r"with bal_train\d+, bal_train\d+, bal_train\d+ and \d+ others\. Likely cause"
    ):
        train(replace(config, learning_rate=1e38, head="moe", n_iterations=40), tmp_path / "run")
