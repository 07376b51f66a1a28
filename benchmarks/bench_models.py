"""How many clips a second each tagger takes: one hundred 10-second clips, 44.1 kHz stereo 16-bit WAV.

    python benchmarks/bench_models.py

Everything is measured in one run and printed as ratios. Models whose weights are not on this machine are left
out. The rival, where librosa and torch are installed, is what is often put together: librosa loads and
resamples, and the same network runs in torch, clip by clip.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from measure import N_THREADS, interleaved_medians
from report import print_bound

import audioset
from audioset.assets import find_asset
from audioset.models.published import MODELS

N_CLIPS = 100
CLIP_S = 10
SAMPLE_RATE = 44_100
N_RUNS = 3
RIVAL_CLIPS = 20  # it is linear in the number of clips
TAGGERS = ("yamnet", "mn04_as", "mn10_as")


def write_clips(folder: Path) -> list[Path]:
    """Clips of tones in noise, no two alike."""
    rng = np.random.default_rng(0)
    seconds = np.arange(CLIP_S * SAMPLE_RATE)[:, None] / SAMPLE_RATE
    paths = []
    for index in range(N_CLIPS):
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 4_000) * seconds)
        path = folder / f"{index:03d}.wav"
        soundfile.write(path, tone + rng.normal(0, 0.05, (len(seconds), 2)), SAMPLE_RATE, subtype="PCM_16")
        paths.append(path)
    return paths


def tag(paths: list[Path], model: audioset.Model) -> None:
    deque(audioset.tag_files(paths, model), maxlen=0)


def librosa_and_torch(paths: list[Path], model: audioset.Model) -> Callable[[], None] | None:
    """The usual way with the same network, or None where its packages are missing."""
    try:
        import librosa
        import torch
    except ImportError as error:
        print(f"librosa and torch are not measured: {error}")
        return None
    module = model.to_torch(input="waveform")

    def run() -> None:
        torch.set_num_threads(N_THREADS)
        for path in paths[:RIVAL_CLIPS]:
            waveform, _ = librosa.load(path, sr=model.frontend.sample_rate, mono=True)
            with torch.inference_mode():
                module(torch.from_numpy(waveform))

    return run


def main() -> None:
    names = [name for name in TAGGERS if find_asset(MODELS[name].weights)]
    models = {name: audioset.load_model(name, n_threads=N_THREADS) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        paths = write_clips(Path(folder))
        functions: dict[str, Callable[[], object]] = {
            name: lambda model=model: tag(paths, model) for name, model in models.items()
        }
        rival = librosa_and_torch(paths, models["mn04_as"]) if "mn04_as" in models else None
        if rival:
            functions["librosa"] = rival
        medians = interleaved_medians(functions, N_RUNS)
    if rival:
        medians["librosa"] *= N_CLIPS / RIVAL_CLIPS
    print(f"{N_CLIPS} clips of {CLIP_S} s, {N_THREADS} threads and workers, medians of {N_RUNS}\n")
    for name, seconds in medians.items():
        spec = MODELS.get(name)
        known = f"{spec.n_parameters / 1e6:5.1f} M parameters, mAP {spec.mean_ap:.3f}" if spec else "and torch, mn04_as"
        speed = N_CLIPS * CLIP_S / seconds
        print(f"  {name:10s} {N_CLIPS / seconds:7.1f} files/s {speed:7,.0f} x real time  {known}")
    print()
    if "mn04_as" in medians and "yamnet" in medians:
        print_bound("mn04_as / yamnet, files a second", medians["yamnet"] / medians["mn04_as"], at_least=2)
    if rival:
        print_bound("mn04_as / librosa and torch, files a second", medians["librosa"] / medians["mn04_as"], at_least=3)


if __name__ == "__main__":
    main()
