"""Settings of trainings of heads: each is read, checked and has an effect."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from head_runs import lines_of, weights_of

from audioset.errors import EngineError, NoInputError, UsageError
from audioset.weights.model_folder import read_card

torch = pytest.importorskip("torch")

from audioset.networks.heads import HEADS  # noqa: E402
from audioset.train import TrainConfig, read_config, train  # noqa: E402


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
