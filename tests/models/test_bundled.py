"""The classifier that the package brings: loads with nothing downloaded, says what it is, and scores real clips."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from reference_data import reference_file

import audioset
from audioset import load_model
from audioset.assets import hash_file
from audioset.cli import cli
from audioset.errors import AssetError, UsageError
from audioset.labels.labels import LabelSet
from audioset.models.head_model import HeadModel
from audioset.models.published import MODELS, bundled_models, find_model
from audioset.weights.model_folder import WEIGHTS_NAME, read_card

NAME = "vggish-audioset527"
FOLDER = Path(audioset.__file__).parent / "bundled" / NAME
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def model():
    return load_model(NAME)


@pytest.fixture(scope="module")
def clips():
    """Sixteen clips of the evaluation set."""
    with np.load(reference_file("kong_heads_reference.npz")) as arrays:
        return arrays["embeddings"]


def invoke(*arguments):
    return CliRunner().invoke(cli, ["models", *arguments])


def test_it_is_part_of_the_package_and_small():
    assert bundled_models() == {NAME: FOLDER}
    assert NAME not in MODELS
    assert sorted(path.name for path in FOLDER.iterdir()) == ["CARD.md", "model.json", "model.safetensors"]
    assert (FOLDER / WEIGHTS_NAME).stat().st_size <= MOST_BYTES


def test_it_scores_embeddings_with_nothing_downloaded(model, clips, monkeypatch, tmp_path):
    monkeypatch.setenv("AUDIOSET_ASSETS", str(tmp_path))
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    assert isinstance(model, HeadModel)
    assert (model.padding, model.backbone.name, len(model.labels)) == ("mask", "vggish", 527)
    scores = model.predict_embeddings(clips)
    assert scores.shape == (16, 527)
    assert 0 <= scores.min() < 0.01 < 0.3 < scores.max() <= 1
    short = model.predict_embeddings(clips, [1 + i % 10 for i in range(16)])
    assert np.isfinite(short).all()
    np.testing.assert_allclose(short[0], model.predict_embeddings(clips[0, :1]), atol=1e-5)


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_engines_agree(model, clips, engine):
    pytest.importorskip(engine)
    other = load_model(NAME, engine=engine, n_threads=1)
    np.testing.assert_allclose(other.predict_embeddings(clips), model.predict_embeddings(clips), atol=1e-5)


def test_audio_needs_vggishs_files(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDIOSET_ASSETS", str(tmp_path))
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path))
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    with pytest.raises(AssetError, match=r"need the embeddings of vggish, and so its files vggish_model\.ckpt"):
        load_model(NAME).predict(np.zeros(32_000, np.float32), 16_000)


def test_the_card_says_what_was_done_and_what_it_reaches(model):
    card = read_card(FOLDER)
    assert (card.network, card.frontend, card.labels) == ("two_branch", "vggish", "audioset-527")
    assert (card.licence, card.backbone) == ("CC-BY-4.0", "vggish")
    assert card.source["digest"] == hash_file(FOLDER / WEIGHTS_NAME)
    assert "AudioSet" in card.source["attribution"]
    assert "creativecommons.org/licenses/by/4.0" in card.source["attribution"]
    found = card.source["metrics"]
    assert found["n_clips"] == 20_371
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
    assert not re.search(r"/(tmp|work|home)\b", json.dumps(card.source))


def test_the_page_has_the_figures_of_the_card_and_every_class():
    page = (FOLDER / "CARD.md").read_text(encoding="utf-8")
    found = read_card(FOLDER).source["metrics"]
    for name in ("mean_ap", "mean_auc", "d_prime", "lwlrap"):
        low, high = found["intervals"][name]
        assert f"| {found[name]:.4f} | {low:.4f} to {high:.4f} |" in page
    rows = [line.split(" | ") for line in page.partition("## Classes")[2].splitlines()[4:]]
    labels = LabelSet.load("audioset-527")
    assert sorted(row[1] for row in rows) == sorted(labels.ids)
    average_precisions = [float(row[3]) for row in rows]
    assert average_precisions == sorted(average_precisions, reverse=True)
    assert np.mean(average_precisions) == pytest.approx(found["mean_ap"], abs=1e-4)


def test_it_is_listed_and_described():
    listed = invoke("list")
    assert re.search(rf"^{NAME} +mAP 0\.\d+  head on VGGish's embeddings", listed.stdout, re.MULTILINE)
    described = json.loads(invoke("info", NAME, "--json").stdout)
    assert described in json.loads(invoke("list", "--json").stdout)
    assert described.keys() == json.loads(invoke("info", "yamnet", "--json").stdout).keys()
    assert (described["name"], described["licence"], described["labels"]) == (NAME, "CC-BY-4.0", "audioset-527")
    assert described["n_parameters"] == sum(value.size for value in _weights().values())


def test_it_is_pulled_and_verified_without_a_network():
    pulled = invoke("pull", NAME)
    assert pulled.exit_code == 0, pulled.output
    verified = invoke("verify", NAME)
    assert verified.exit_code == 0, verified.output
    assert "hash     the one of its card" in verified.stdout


def test_other_weights_and_names_that_are_nearly_its_own_are_refused(tmp_path):
    with pytest.raises(UsageError, match="brings its own weights"):
        load_model(NAME, weights=tmp_path / "other.ckpt")
    with pytest.raises(UsageError, match=f"did you mean '{NAME}'"):
        find_model("vggish-audioset")


def _weights():
    from safetensors.numpy import load_file

    return load_file(FOLDER / WEIGHTS_NAME)
