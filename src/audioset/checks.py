"""How exactly a model runs on this machine, measured on signals that are made here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from audioset.assets import cache_folder
from audioset.errors import AudioSetError
from audioset.frontend import log_mel
from audioset.predict import ENGINES, Model

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

# What the original computes on two of the signals; tools/make_parity_table.py writes it.
PARITY_TABLE = "tables/yamnet_parity.json"
PARITY_FRAME = 100
DURATION_S = 3
RUNS = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32"))


@dataclass(frozen=True)
class Check:
    """One measurement.

    Attributes
    ----------
    name : str
        What is compared with what.
    value : float or None
        The largest absolute difference; None where it cannot be measured here.
    bound : float
        What it may be.
    note : str
        Why there is no value.
    """

    name: str
    value: float | None
    bound: float
    note: str = ""

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
    """Measure a YAMNet against its original, its formula and the other engines.

    Parameters
    ----------
    model : Model
        In f32.

    Yields
    ------
    Check
    """
    table = json.loads(resources.files("audioset").joinpath(PARITY_TABLE).read_text())
    sounds = signals(model.frontend.sample_rate)
    predictions = {name: model.predict(sound, model.frontend.sample_rate) for name, sound in sounds.items()}
    for name, original in table["signals"].items():
        difference = np.abs(predictions[name].log_mel[PARITY_FRAME] - original["log_mel"]).max()
        yield Check(f"log-mel of {name} against the original", float(difference), 5e-3)
    formula = max(
        _formula_distance(sounds[name], prediction.log_mel, model) for name, prediction in predictions.items()
    )
    yield Check("log-mel against its formula in float64", formula, 1e-6)
    for name, original in table["signals"].items():
        yield _score_check(name, original["scores"], predictions[name].scores, model, table["weights_sha256"])
    for engine, precision in RUNS:
        if (engine, precision) != (model.engine.name, "f32"):
            yield _engine_check(engine, precision, predictions, sounds, model)


def _formula_distance(sound: FloatArray, features: FloatArray, model: Model) -> float:
    n_samples = model.frontend.samples(len(features))
    padded = np.pad(sound, (0, max(0, n_samples - len(sound))))[:n_samples]
    return float(np.abs(features - log_mel(padded, model.frontend, dtype=np.float64)).max())


def _score_check(name: str, expected: dict[str, float], scores: Any, model: Model, weights_sha256: str) -> Check:
    title = f"scores of {name} against the original"
    if model.card.source.get("sha256") != weights_sha256:
        return Check(title, None, 0, "no scores of the original are stored for this weight file")
    means = scores.mean(axis=0, dtype=np.float64)
    return Check(title, max(abs(means[model.labels.index(label)] - score) for label, score in expected.items()), 2e-4)


def _engine_check(engine: str, precision: str, predictions: Any, sounds: dict[str, FloatArray], model: Model) -> Check:
    title = f"scores of {engine} {precision} against {model.engine.name} f32"
    predict = _try_engine(model, engine, precision)
    if isinstance(predict, str):
        return Check(title, None, 0, predict)
    differences = [np.abs(predict(sounds[name]) - prediction.scores).max() for name, prediction in predictions.items()]
    return Check(title, float(max(differences)), 2e-6 if precision == "f32" else 7e-2)


def _try_engine(model: Model, engine: str, precision: str) -> Callable[[FloatArray], Any] | str:
    """A function from waveform to scores, or the reason why there is none."""
    try:
        other = Model(model.card, model.graph, ENGINES[engine](model.graph, precision, 1, cache_folder()))
    except AudioSetError as error:
        return str(error)
    return lambda sound: other.predict(sound, model.frontend.sample_rate).scores
