"""How fast a 10-minute recording is tagged, against its own network and against the usual pipeline.

Everything is measured in one run and printed as ratios: the machine's mood divides out.

    python benchmarks/bench_tag.py

Rivals: the compiled network alone on the same patches; ONNX Runtime; and resampy (its default filter),
which the original uses, with the same features and the same network in ONNX Runtime.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from report import print_bound

import audioset
from audioset.errors import EngineError
from audioset.frontend import log_mel, patches
from audioset.predict import Model, map_in_order

DURATION_S = 600
SAMPLE_RATE = 44_100
N_THREADS = 2
N_RUNS = 5
BATCH = 64
RESAMPY_S = 60  # resampy is linear in the length, and so slow that a tenth is enough to know


def write_recording(path: Path) -> None:
    """Ten minutes of 44.1 kHz stereo 16-bit: tones that come and go in noise."""
    rng = np.random.default_rng(0)
    seconds = np.arange(DURATION_S * SAMPLE_RATE) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * (440 + 200 * np.sin(seconds / 7)) * seconds) * (np.sin(seconds) > 0)
    noise = rng.standard_normal((len(seconds), 2)) * 0.05
    soundfile.write(path, 0.3 * tone[:, None] + noise, SAMPLE_RATE, subtype="PCM_16")


def network_alone(model: Model, batches: list[np.ndarray]) -> None:
    for _ in map_in_order(model.engine, batches, N_THREADS):
        pass


def usual_pipeline(path: Path, model: Model) -> None:
    """What people glue together: read, average, resampy, features, ONNX Runtime."""
    import resampy

    waveform, rate = soundfile.read(path, dtype="int16", stop=RESAMPY_S * SAMPLE_RATE)
    mono = (waveform / 32768.0).astype(np.float32).mean(axis=1)
    samples = resampy.resample(mono, rate, 16_000)
    cut = patches(log_mel(samples.astype(np.float32), model.frontend), model.frontend)
    network_alone(model, [cut[start : start + BATCH] for start in range(0, len(cut), BATCH)])


def interleaved_medians(functions: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds of each function, all of them run in turn."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(N_RUNS):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.wav"
        write_recording(path)
        rival = audioset.load_model("yamnet", engine="onnxruntime", n_threads=N_THREADS)
        models = {"f32": audioset.load_model("yamnet", n_threads=N_THREADS)}
        try:
            models["bf16"] = audioset.load_model("yamnet", precision="bf16", n_threads=N_THREADS)
        except EngineError as error:
            print(f"bf16 is not measured: {error}")
        cut = patches(models["f32"].predict_file(path).log_mel, rival.frontend)
        batches = [np.ascontiguousarray(cut[start : start + BATCH]) for start in range(0, len(cut), BATCH)]
        functions: dict[str, Callable[[], None]] = {
            "network onnxruntime": lambda: network_alone(rival, batches),
            "usual pipeline": lambda: usual_pipeline(path, rival),
        }
        for name, model in models.items():
            functions[f"network {name}"] = lambda model=model: network_alone(model, batches)
            functions[f"file {name}"] = lambda model=model: model.predict_file(path)
        medians = interleaved_medians(functions)
    medians["usual pipeline"] *= DURATION_S / RESAMPY_S
    report(medians, list(models))


def report(medians: dict[str, float], precisions: list[str]) -> None:
    print(f"10 minutes of 44.1 kHz stereo 16-bit WAV, {N_THREADS} threads, medians of {N_RUNS}\n")
    for name, seconds in medians.items():
        print(
            f"  {name:22s} {seconds:7.3f} s  {DURATION_S / seconds:7,.0f} x real time  "
            f"{DURATION_S / seconds / N_THREADS:6,.0f} audio-hours per core-hour"
        )
    print()
    for name, bound in (("f32", 1.35), ("bf16", 2.0)):
        if name in precisions:
            ratio = medians[f"file {name}"] / medians[f"network {name}"]
            print_bound(f"predict_file {name} / its network alone", ratio, at_most=bound)
    ratio = medians["network onnxruntime"] / medians["network f32"]
    print_bound("network: ONNX Runtime / OpenVINO f32", ratio, at_least=1.5)
    print_bound("usual pipeline / predict_file f32", medians["usual pipeline"] / medians["file f32"], at_least=10)


if __name__ == "__main__":
    main()
