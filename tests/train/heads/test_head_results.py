"""What a training of a head leaves, and what its command says."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from head_runs import assert_same_weights, lines_of, weights_of

from audioset.errors import ConflictError, NoInputError, UsageError
from audioset.weights.model_folder import CARD_NAME, ModelCard, read_card

torch = pytest.importorskip("torch")

from audioset.networks.heads import HEADS  # noqa: E402
from audioset.train import read_config, train  # noqa: E402
from audioset.train.checkpoint import EventFile, RunFolder, numbers  # noqa: E402
from audioset.train.distributed import Processes  # noqa: E402
from audioset.train.heads import training  # noqa: E402
from audioset.train.heads.examples import load_data  # noqa: E402
from audioset.train.heads.training import make_module  # noqa: E402

ALONE = Processes(0, 1, torch.device("cpu"))


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
    assert f"--resume: {tmp_path / 'out'} holds no run. Next step: check the path" in str(result.exception)
    assert not (tmp_path / "out").exists()  # nothing was begun


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
