"""Steps of trainings of heads: batches, losses, learning rates and means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from head_runs import N_EVAL, N_TRAINING, assert_same_weights, lines_of, weights_of

from audioset.errors import DataError, UsageError

torch = pytest.importorskip("torch")

from audioset.networks.heads import HEADS  # noqa: E402
from audioset.networks.ops import Outputs  # noqa: E402
from audioset.train import TrainConfig, train  # noqa: E402
from audioset.train.distributed import Processes  # noqa: E402
from audioset.train.heads import training  # noqa: E402
from audioset.train.heads.examples import load_data  # noqa: E402
from audioset.train.heads.fast_ops import TrainingOps, binary_cross_entropy  # noqa: E402
from audioset.train.heads.training import learning_rate, make_module, mixup  # noqa: E402
from audioset.train.loop import take_step  # noqa: E402
from audioset.train.state import Mean, MovingAverage  # noqa: E402

ALONE = Processes(0, 1, torch.device("cpu"))


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
