"""How exactly a model runs on this machine, measured on signals that are made here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.assets import find_asset
from audioset.errors import AudioSetError
from audioset.frontend.log_mel import log_mel
from audioset.models.loading import open_model
from audioset.models.model import Model
from audioset.models.postprocess import Postprocessor
from audioset.models.prediction import Prediction

# What the original computes on two of the signals; tools/make_parity_table.py writes it.
PARITY_TABLE = "tables/yamnet_parity.json"
PARITY_FRAME = 100
DURATION_S = 3
RUNS = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32"))
# Two engines in float32: scores absolute, embeddings relative to the largest one. The originals' own float32 is up to
# 2.4e-6 and 3.3e-6 from float64; each engine may be half as far again, on either side.
F32_BOUNDS = {"scores": 3 * 2.4e-6, "embeddings": 3 * 3.3e-6}
BF16_BOUNDS = {"yamnet": 7e-2, "vggish": 3e-2}
CLIP_BF16_BOUND = 0.25  # of a network that sees a whole clip

# tensorflow/models, research/audioset/vggish/vggish_smoke_test.py: 1 kHz at this rate; mean and standard deviation
SMOKE_RATE = 44_100
SMOKE_TEST = {"embedding": (0.000657, 0.343), "postprocessed": (126.0, 89.3)}


@dataclass(frozen=True)
class Check:
    """One measurement."""

    name: str  # what is compared with what
    value: float | None  # the largest absolute difference; None where it cannot be measured here
    bound: float  # what it may be
    note: str = ""  # why there is no value

    @property
    def is_ok(self) -> bool:
        """Whether the value, if there is one, is within its bound."""
        return self.value is None or self.value <= self.bound

    @property
    def text(self) -> str:
        """The outcome in words."""
        if self.value is None:
            return self.note
        return f"{self.value:.1e}, {'within' if self.is_ok else 'BEYOND'} {self.bound:.0e}"


def signals(sample_rate: int) -> dict[str, FloatArray]:
    """Three seconds of silence, of a 440 Hz tone and of noise, float32."""
    seconds = np.arange(DURATION_S * sample_rate) / sample_rate
    noise = np.random.default_rng(0).uniform(-1, 1, len(seconds))
    return {
        "silence": np.zeros(len(seconds), np.float32),
        "tone": np.sin(2 * np.pi * 440 * seconds).astype(np.float32),
        "noise": noise.astype(np.float32),
    }


def parity_report(model: Model) -> Iterator[Check]:
    """Measure a model, in f32, against its original, its formula and the other engines."""
    sounds = signals(model.frontend.sample_rate)
    predictions = {name: model.predict(sound, model.frontend.sample_rate) for name, sound in sounds.items()}
    if model.card.network in ORIGINALS:
        yield from ORIGINALS[model.card.network](model, predictions)
    formula = max(
        _formula_distance(sounds[name], prediction.log_mel, model) for name, prediction in predictions.items()
    )
    yield Check("log-mel against its formula in float64", formula, 1e-6)
    for engine, precision in RUNS:
        if (engine, precision) != (model.engine.name, "f32"):
            yield _engine_check(engine, precision, predictions, sounds, model)


def _yamnet_checks(model: Model, predictions: Mapping[str, Prediction]) -> Iterator[Check]:
    """Against what the original computes on two of the signals."""
    table = json.loads(resources.files("audioset").joinpath(PARITY_TABLE).read_text())
    for name, original in table["signals"].items():
        difference = np.abs(predictions[name].log_mel[PARITY_FRAME] - original["log_mel"]).max()
        yield Check(f"log-mel of {name} against the original", float(difference), 5e-3)
    for name, original in table["signals"].items():
        yield _score_check(name, original["scores"], predictions[name].scores, model, table["weights_digest"])


def _vggish_checks(model: Model, predictions: Mapping[str, Prediction]) -> Iterator[Check]:
    """The original's smoke test: mean and standard deviation of what it makes of a sine."""
    title = "smoke test of the original"
    if not model.card.source.get("is_published"):
        yield Check(title, None, 0, "it needs the published weights")
        return
    seconds = np.linspace(0, DURATION_S, DURATION_S * SMOKE_RATE)  # as there: the end is the last sample
    embeddings = model.predict(np.sin(2 * np.pi * 1_000 * seconds), SMOKE_RATE).embeddings
    values: dict[str, Array | None] = {"embedding": embeddings, "postprocessed": None}
    parameters = find_asset("vggish_pca_params.npz")
    if parameters:
        values["postprocessed"] = Postprocessor.load(parameters)(embeddings)
    for kind, (mean, deviation) in SMOKE_TEST.items():
        value = values[kind]
        if value is None:
            yield Check(f"{title}: {kind}", None, 0, "vggish_pca_params.npz is not on this machine")
            continue
        for name, ours, theirs in (("mean", value.mean(), mean), ("deviation", value.std(), deviation)):
            yield Check(f"{title}: {kind} {name}", float(abs(ours / theirs - 1)), 0.1)


ORIGINALS = {"yamnet": _yamnet_checks, "vggish": _vggish_checks}


def _formula_distance(sound: FloatArray, features: FloatArray, model: Model) -> float:
    n_samples = len(sound) if model.frontend.is_centred else model.frontend.samples(len(features))
    padded = np.pad(sound, (0, max(0, n_samples - len(sound))))[:n_samples]
    return float(np.abs(features - log_mel(padded, model.frontend, dtype=np.float64)).max())


def _score_check(name: str, expected: dict[str, float], scores: Any, model: Model, weights_digest: str) -> Check:
    title = f"scores of {name} against the original"
    if model.card.source.get("digest") != weights_digest:
        return Check(title, None, 0, "no scores of the original are stored for this weight file")
    means = scores.mean(axis=0, dtype=np.float64)
    return Check(title, max(abs(means[model.labels.index(label)] - score) for label, score in expected.items()), 2e-4)


def _engine_check(
    engine: str,
    precision: str,
    predictions: Mapping[str, Prediction],
    sounds: dict[str, FloatArray],
    model: Model,
) -> Check:
    kind = "embeddings" if predictions["noise"].scores is None else "scores"
    title = f"{kind} of {engine} {precision} against {model.engine.name} f32"
    other = _try_engine(model, engine, precision)
    if isinstance(other, str):
        return Check(title, None, 0, other)
    differences = []
    for name, sound in sounds.items():
        expected = getattr(predictions[name], kind)
        difference = np.abs(getattr(other.predict(sound, model.frontend.sample_rate), kind) - expected).max()
        differences.append(difference / (np.abs(expected).max() if kind == "embeddings" else 1))
    bound = F32_BOUNDS[kind] if precision == "f32" else BF16_BOUNDS.get(model.card.network, CLIP_BF16_BOUND)
    return Check(title, float(max(differences)), bound)


def _try_engine(model: Model, engine: str, precision: str) -> Model | str:
    """The same model in another engine, or the reason why it is not available."""
    try:
        return open_model(model.card, model.folder, engine, precision, 1)
    except AudioSetError as error:
        return str(error)
