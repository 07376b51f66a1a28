"""How fast a 10-minute recording is embedded with VGGish, against its own network and other engines.

Everything is measured in one run and printed as ratios: the machine's mood divides out.

    python benchmarks/bench_vggish.py

The weights are random numbers of the right shapes: what a product costs does not depend on them. Rivals: the
compiled network alone on the same patches; the network in ONNX Runtime; and in torch, where it is installed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import N_THREADS, batches_of, interleaved_medians, network_alone, print_speeds, write_recording
from report import print_bound

import audioset
from audioset.errors import EngineError, MissingExtraError
from audioset.frontend.cutting import patches
from audioset.models.model import Model
from audioset.networks.shapes import trace_shapes
from audioset.networks.vggish import vggish
from audioset.weights.model_folder import ModelCard, write_model_folder

N_RUNS = 5


def write_random_model(folder: Path) -> None:
    """A model folder with weights that keep the activations in a sensible range, and biases of 0."""
    rng = np.random.default_rng(0)
    shapes, _ = trace_shapes(vggish, (96, 64), {})
    weights = {
        name: rng.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[:-1])) ** 0.5 * (len(shape) > 1))
        for name, shape in shapes.items()
    }
    write_model_folder(folder, ModelCard("vggish", {}, "vggish", "", "none: random numbers", {}), weights)


def torch_network(model: Model) -> Callable[[np.ndarray], object] | None:
    """The same network as a torch module, or None where torch is not installed."""
    try:
        network = model.to_torch()
    except MissingExtraError as error:
        print(f"torch is not measured: {error}")
        return None
    import torch

    torch.set_num_threads(1)  # the parallelism is in the calls, as for the others

    def run(batch: np.ndarray) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(batch))

    return run


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        recording, weights = Path(folder) / "recording.wav", Path(folder) / "model"
        write_recording(recording)
        write_random_model(weights)
        models = {"f32": audioset.load_model(weights, n_threads=N_THREADS)}
        try:
            models["bf16"] = audioset.load_model(weights, precision="bf16", n_threads=N_THREADS)
        except EngineError as error:
            print(f"bf16 is not measured: {error}")
        batches = batches_of(patches(models["f32"].predict_file(recording).log_mel, models["f32"].frontend))
        engines: dict[str, Callable[[np.ndarray], object]] = {name: model.engine for name, model in models.items()}
        engines["onnxruntime"] = audioset.load_model(weights, engine="onnxruntime", n_threads=N_THREADS).engine
        rival = torch_network(models["f32"])
        if rival:
            engines["torch"] = rival
        functions: dict[str, Callable[[], object]] = {
            f"network {name}": lambda engine=engine: network_alone(engine, batches) for name, engine in engines.items()
        }
        for name, model in models.items():
            functions[f"file {name}"] = lambda model=model: model.predict_file(recording)
        medians = interleaved_medians(functions, N_RUNS)
    report(medians)


def report(medians: dict[str, float]) -> None:
    print(f"10 minutes of 44.1 kHz stereo 16-bit WAV, {N_THREADS} threads, medians of {N_RUNS}\n")
    print_speeds(medians)
    for name, bound in (("f32", 1.25), ("bf16", 1.6)):
        if f"file {name}" in medians:
            ratio = medians[f"file {name}"] / medians[f"network {name}"]
            print_bound(f"predict_file {name} / its network alone", ratio, at_most=bound)
    for name in ("onnxruntime", "torch"):
        if f"network {name}" in medians:
            print(f"  network: {name} / OpenVINO f32 {medians[f'network {name}'] / medians['network f32']:.2f}")


if __name__ == "__main__":
    main()
