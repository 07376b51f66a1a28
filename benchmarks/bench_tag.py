"""How fast a 10-minute recording is tagged, against its own network and against the usual pipeline.

Everything is measured in one run and printed as ratios: the machine's mood divides out.

    python benchmarks/bench_tag.py

Rivals: the compiled network alone on the same patches; ONNX Runtime; and resampy (its default filter),
which the original uses, with the same features and the same network in ONNX Runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from measure import (
    DURATION_S,
    N_THREADS,
    SAMPLE_RATE,
    batches_of,
    interleaved_medians,
    network_alone,
    print_speeds,
    write_recording,
)
from report import print_bound

import audioset
from audioset.errors import EngineError
from audioset.frontend.cutting import patches
from audioset.frontend.log_mel import log_mel
from audioset.models.model import Model

N_RUNS = 5
RESAMPY_S = 60  # resampy is linear in the length, and so slow that a tenth is enough to know


def usual_pipeline(path: Path, model: Model) -> None:
    """What people glue together: read, average, resampy, features, ONNX Runtime."""
    import resampy

    waveform, rate = soundfile.read(path, dtype="int16", stop=RESAMPY_S * SAMPLE_RATE)
    mono = (waveform / 32768.0).astype(np.float32).mean(axis=1)
    samples = resampy.resample(mono, rate, 16_000)
    network_alone(
        model.engine, batches_of(patches(log_mel(samples.astype(np.float32), model.frontend), model.frontend))
    )


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
        batches = batches_of(patches(models["f32"].predict_file(path).log_mel, rival.frontend))
        functions: dict[str, Callable[[], None]] = {
            "network onnxruntime": lambda: network_alone(rival.engine, batches),
            "usual pipeline": lambda: usual_pipeline(path, rival),
        }
        for name, model in models.items():
            functions[f"network {name}"] = lambda model=model: network_alone(model.engine, batches)
            functions[f"file {name}"] = lambda model=model: model.predict_file(path)
        medians = interleaved_medians(functions, N_RUNS)
    medians["usual pipeline"] *= DURATION_S / RESAMPY_S
    report(medians, list(models))


def report(medians: dict[str, float], precisions: list[str]) -> None:
    print(f"10 minutes of 44.1 kHz stereo 16-bit WAV, {N_THREADS} threads, medians of {N_RUNS}\n")
    print_speeds(medians)
    for name, bound in (("f32", 1.35), ("bf16", 2.0)):
        if name in precisions:
            ratio = medians[f"file {name}"] / medians[f"network {name}"]
            print_bound(f"predict_file {name} / its network alone", ratio, at_most=bound)
    ratio = medians["network onnxruntime"] / medians["network f32"]
    print_bound("network: ONNX Runtime / OpenVINO f32", ratio, at_least=1.5)
    print_bound("usual pipeline / predict_file f32", medians["usual pipeline"] / medians["file f32"], at_least=10)


if __name__ == "__main__":
    main()
