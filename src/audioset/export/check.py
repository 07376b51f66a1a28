"""Each export is loaded again with its own runtime, and compared with ``Model.predict``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audioset.arrays import Array, FloatArray, RealArray
from audioset.export.clips import CalibrationClip
from audioset.export.job import Job
from audioset.export.runner import Arrays, Runner
from audioset.models.head_model import HeadModel
from audioset.models.postprocess import EMBEDDING_SIZE
from audioset.models.prediction import Prediction
from audioset.networks.ops import Outputs

Outcome = Mapping[str, Array]

DURATIONS_S = (0.3, 0.96, 2.5, 10.0, 12.7)  # shorter than a patch, as long, and longer than a window of ten seconds
BATCH_S, BATCH_CLIPS = 2.5, 3
HEAD_SECONDS = (1, 3, 10, 25)
TIMED_S = 10
N_TIMED = 7
TIME_LIMIT_S = 3  # after which fewer runs have to do
MISSING = float("inf")  # the difference from what is not there
OUTPUTS = {"scores": "scores", "embeddings": "embeddings", "framewise": "segment_scores"}  # of a Prediction


@dataclass(frozen=True)
class Case:
    """One comparison: what the export is given, in how many calls, and what is expected of them together."""

    name: str
    calls: Sequence[Arrays]
    expected: Outcome


@dataclass(frozen=True)
class Parity:
    """How far an export is from its model."""

    scores: float | None  # greatest absolute difference of a score, over time too; None for a model that only embeds
    mean_scores: float | None  # mean absolute difference of a score, likewise
    embeddings: float  # greatest difference of a number, relative to the greatest number of the clip's embeddings
    cases: tuple[str, ...]  # what was compared

    @property
    def greatest(self) -> float:
        """The greater of both, or NaN if there is one."""
        return float(np.max([self.embeddings, self.scores or 0.0]))


@dataclass(frozen=True)
class Latency:
    """Milliseconds on one core for each second of audio: of the export, and of the model here."""

    export_ms: float
    audioset_ms: float


@dataclass(frozen=True)
class Accuracy:
    """Share of labelled clips whose class has the highest mean score: of the export, and of the model."""

    export: float
    audioset: float
    n_clips: int

    @property
    def drop_points(self) -> float:
        """Points that the export loses."""
        return 100 * (self.audioset - self.export)


def compare(job: Job, runner: Runner, clips: Sequence[CalibrationClip] = (), *, has_clip_batch: bool) -> Parity:
    """Run cases of several lengths, and batches if a waveform may be one, in both.

    int8 is compared on ``clips``: it is made for such sounds. By default, sounds are generated.
    """
    differences: dict[str, list[RealArray]] = {"scores": [], "embeddings": []}
    names = []
    for case in _cases(job, clips, has_clip_batch):
        names.append(case.name)
        outputs = _join([runner.run(call) for call in case.calls])
        for name, expected in case.expected.items():
            difference = _difference(outputs.get(name), expected)
            if name == "embeddings":
                differences[name].append(difference / (np.abs(expected).max() or 1))
            else:
                differences["scores"].append(difference)
    scores = np.concatenate(differences["scores"]) if differences["scores"] else None
    return Parity(
        scores=None if scores is None else float(scores.max()),
        mean_scores=None if scores is None else float(scores.mean()),
        embeddings=float(np.concatenate(differences["embeddings"]).max()),
        cases=tuple(names),
    )


def measure_latency(job: Job, runner: Runner) -> Latency:
    """Median times of both for ten seconds of audio, in turn."""
    if isinstance(job.model, HeadModel):
        case = next(_head_cases(job.model, (TIMED_S,)))
        head, inputs = job.model.engine.head, list(case.calls[0].values())
        ours: Callable[[], object] = lambda: head(*inputs)  # noqa: E731
        calls = case.calls
    else:
        model, rate = job.model, job.model.frontend.sample_rate
        waveform = sound(TIMED_S, rate, seed=0)
        calls = job.inputs_of(waveform)
        if job.input == "waveform":
            ours = lambda: model.predict(waveform, rate)  # noqa: E731
        else:
            ours = lambda: [model.engine(*call.values()) for call in calls]  # noqa: E731
    functions = {"export": lambda: [runner.run(call) for call in calls], "audioset": ours}
    milliseconds = {name: 1e3 / TIMED_S * seconds for name, seconds in _medians(functions).items()}
    return Latency(milliseconds["export"], milliseconds["audioset"])


def measure_accuracy(job: Job, runner: Runner, clips: Sequence[CalibrationClip]) -> Accuracy | None:
    """Share of clips that both get right; None without clips whose class the model has."""
    right = {"export": 0, "audioset": 0}
    labelled = [clip for clip in clips if clip.column is not None]
    for clip in labelled:
        outputs = _join([runner.run(call) for call in job.inputs_of(clip.waveform)])
        expected = job.model.predict(clip.waveform, job.model.frontend.sample_rate).require_scores()
        for name, scores in (("export", outputs["scores"]), ("audioset", expected)):
            right[name] += int(scores.mean(axis=0).argmax() == clip.column)
    n_clips = len(labelled)
    return Accuracy(right["export"] / n_clips, right["audioset"] / n_clips, n_clips) if n_clips else None


def sound(duration_s: float, sample_rate: int, seed: int) -> FloatArray:
    """Something to listen to: a gliding tone with overtones that comes and goes in noise, float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(round(duration_s * sample_rate)) / sample_rate
    phase = 2 * np.pi * (200 * (seed + 1) * seconds + 40 * np.sin(3 * seconds))
    tone = sum(np.sin(k * phase) / k for k in (1, 2, 3, 5)) * (0.5 - 0.5 * np.cos(4 * np.pi * seconds))
    noise = np.cumsum(rng.standard_normal(len(seconds))) * 0.01 % 1 - 0.5 + 0.3 * rng.standard_normal(len(seconds))
    waveform: FloatArray = np.clip(0.25 * tone + 0.1 * noise, -1, 1).astype(np.float32)
    return waveform


def _cases(job: Job, clips: Sequence[CalibrationClip], has_clip_batch: bool) -> Iterator[Case]:
    if isinstance(job.model, HeadModel):
        yield from _head_cases(job.model, HEAD_SECONDS)
        return
    spec = job.model.frontend
    rate = spec.sample_rate
    if clips:
        sounds = {f"clip {number}": clip.waveform for number, clip in enumerate(clips)}
    else:
        sounds = {f"{duration_s:g} s": sound(duration_s, rate, seed) for seed, duration_s in enumerate(DURATIONS_S)}
        sounds |= {"silence": np.zeros(round(BATCH_S * rate), np.float32)}
    for name, waveform in sounds.items():
        if spec.pad != "error" or len(waveform) >= spec.min_samples:
            yield Case(name, job.inputs_of(waveform), _expected(job.model.predict(waveform, rate)))
    if not clips and (has_clip_batch or job.input == "patches"):
        yield _batch(job, [sound(BATCH_S, rate, seed) for seed in range(BATCH_CLIPS)])


def _batch(job: Job, waveforms: Sequence[Array]) -> Case:
    """Several clips at once: stacked, or their patches one after the other."""
    name = f"{len(waveforms)} clips"
    expected = [_expected(job.model.predict(waveform, job.model.frontend.sample_rate)) for waveform in waveforms]
    if job.input == "waveform":
        stacked = {key: np.stack([outcome[key] for outcome in expected]) for key in expected[0]}
        return Case(name, [{"waveform": np.stack(waveforms)}], stacked)
    calls = [job.inputs_of(waveform)[0] for waveform in waveforms]
    return Case(name, [{key: np.concatenate([call[key] for call in calls]) for key in calls[0]}], _join(expected))


def _head_cases(model: HeadModel, seconds: Sequence[int]) -> Iterator[Case]:
    """Batches of random embeddings, whole and with padding after them."""
    rng = np.random.default_rng(0)
    for n_seconds in seconds:
        n_clips = 1 + n_seconds % BATCH_CLIPS
        clips = rng.integers(0, 256, (n_clips, n_seconds, EMBEDDING_SIZE), np.uint8)
        lengths = rng.integers(1, n_seconds + 1, n_clips)
        inputs = dict(zip(model.inputs, model.engine.padded(clips, lengths), strict=True))
        outputs = model.engine.head(*inputs.values())
        yield Case(f"{n_clips} × {n_seconds} embeddings", [inputs], _outcome(outputs, {"scores", "embeddings"}))


def _expected(prediction: Prediction) -> Outcome:
    values = {name: getattr(prediction, attribute) for name, attribute in OUTPUTS.items()}
    return {name: value for name, value in values.items() if value is not None}


def _outcome(outputs: Outputs[Any], names: set[str]) -> Outcome:
    return {name: value for name, value in vars(outputs).items() if name in names and value is not None}


def _join(outcomes: Sequence[Outcome]) -> Outcome:
    return {name: np.concatenate([outcome[name] for outcome in outcomes]) for name in outcomes[0]}


def _difference(values: Array | None, expected: Array) -> RealArray:
    """Absolute differences; infinite where there is nothing to compare."""
    if values is None or values.shape != expected.shape:
        return np.array([MISSING])
    difference: RealArray = np.abs(values.astype(np.float64) - expected).ravel()
    return difference


def _medians(functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    begun = time.perf_counter()
    for number in range(1 + N_TIMED):  # the first warms up
        if number > 1 and time.perf_counter() - begun > TIME_LIMIT_S:
            break
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}
