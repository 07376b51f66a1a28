"""What every model costs: multiply-adds and time for ten seconds of audio, on one core each.

    python benchmarks/bench_networks.py [NAME ...]

The time is that of the network alone, in f32. It depends on the shapes of the weights and not on their values, so
they are generated and no file is needed.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import interleaved_medians

import audioset
from audioset.assets import ASSETS
from audioset.models.cards import FRONTENDS, NETWORKS, patch_shape
from audioset.models.published import MODELS, ModelSpec
from audioset.networks.ops import input_names
from audioset.networks.shapes import count_multiply_adds, trace_shapes
from audioset.weights.model_folder import ModelCard, write_model_folder

CLIP_S = 10
N_RUNS = 5
SEGMENT_FRAMES = 32


def generated_weights(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Weights that keep the activations finite: small noise, and batch norms that change nothing."""
    rng = np.random.default_rng(0)
    shapes, _ = trace_shapes(NETWORKS[spec.network], patch_shape(FRONTENDS[spec.frontend]), spec.arguments)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith(("variance", "running_var", "gamma")):
            weights[name] = np.ones(shape, np.float32)
        else:
            scale = 1 / math.sqrt(max(1, math.prod(shape) // max(shape)))
            weights[name] = rng.standard_normal(shape, np.float32) * np.float32(0.5 * scale)
    return weights


def load(spec: ModelSpec, folder: Path) -> audioset.Model:
    card = ModelCard(spec.network, spec.arguments, spec.frontend, spec.labels, "generated", {"is_published": False})
    write_model_folder(folder, card, generated_weights(spec))
    return audioset.load_model(folder, n_threads=1)


def clip_patches(frontend: audioset.FrontendSpec) -> int:
    """Patches of a clip, at the published hop; one for a model of clips."""
    n_frames = round(CLIP_S / frontend.frame_hop_s)
    return 1 if frontend.is_centred else 1 + max(0, -(-(n_frames - frontend.patch_frames) // frontend.patch_hop_frames))


def time_resolution(spec: ModelSpec) -> str:
    """How far apart in time two answers can be told: the hop of patches, a segment, or the window of a clip."""
    frontend = FRONTENDS[spec.frontend]
    if "decision" in spec.arguments:
        return f"{SEGMENT_FRAMES * frontend.frame_hop_s:g} s"
    return f"{'window, ' if frontend.is_centred else ''}{frontend.patch_hop_frames * frontend.frame_hop_s:g} s"


def measure(spec: ModelSpec) -> tuple[float, float]:
    """Multiply-adds, and seconds on one core, for a clip."""
    frontend = FRONTENDS[spec.frontend]
    n_patches = clip_patches(frontend)
    shape = (frontend.patch_frames, frontend.n_mels)
    n_samples = frontend.waveform_samples(frontend.patch_frames)
    n_multiply_adds = count_multiply_adds(NETWORKS[spec.network], shape, n_samples, spec.arguments)
    with tempfile.TemporaryDirectory() as folder:
        engine = load(spec, Path(folder)).engine
        seen = {"patches": (n_patches, *shape), "waveforms": (n_patches, n_samples)}
        inputs = [np.zeros(seen[kind], np.float32) for kind in input_names(NETWORKS[spec.network])]
        seconds = interleaved_medians({"": lambda: engine(*inputs)}, N_RUNS)[""]
    return n_patches * n_multiply_adds, seconds


def main(names: list[str]) -> None:
    print("| model | mAP | parameters, millions | giga multiply-adds | core-ms | x real time | resolution | licence |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names or MODELS:
        spec = MODELS[name]
        n_multiply_adds, seconds = measure(spec)
        cells = (
            f"`{name}`",
            f"{spec.mean_ap:.3f}" if spec.mean_ap else "",
            f"{spec.n_parameters / 1e6:.1f}",
            f"{n_multiply_adds / 1e9:.2f}",
            f"{seconds * 1e3:.0f}",
            f"{CLIP_S / seconds:,.0f}",
            time_resolution(spec),
            ASSETS[spec.weights].licence,
        )
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
