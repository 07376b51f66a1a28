"""Sounds to fine-tune networks on, and what runs leave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from sounds import wav_bytes

from audioset.sounds.reading import read_collection
from audioset.weights.model_folder import WEIGHTS_NAME

RATE = 16_000
KINDS = ("chirp", "hiss", "hum")
PLAIN = {
    **dict.fromkeys(("speed", "stretch", "warp", "shift", "gain_db", "equaliser_db", "noise_share"), 0.0),
    **dict.fromkeys(("mixup", "frequency_mask", "time_mask", "style_share"), 0.0),
    "n_masks": 0,
}


def sound(kind, seconds, rng):
    times = np.arange(round(seconds * RATE)) / RATE
    if kind == "hiss":
        return rng.normal(0, 0.2, len(times)).astype(np.float32)
    frequency = 150 if kind == "hum" else 800 + 1_500 * times
    return (0.3 * np.sin(2 * np.pi * frequency * rng.uniform(0.9, 1.1) * times)).astype(np.float32)


def write_sounds(folder, counts, seed=0):
    """Folders of classes; the files are ``<speaker>_<number>.wav``."""
    rng = np.random.default_rng(seed)
    for kind, count in counts.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            waveform = sound(kind, rng.uniform(0.2, 0.5), rng)
            (folder / kind / f"{'abc'[number % 3]}_{number}.wav").write_bytes(wav_bytes(waveform, RATE))
    return folder


def run(sounds, config, output, on_line=None, **options):
    from audioset.train.finetune.finetune import finetune  # it needs torch

    return finetune(read_collection(sounds, group="([abc])_"), config, output, on_line=on_line, **options)


def weights_of(folder):
    return load_file(Path(folder) / WEIGHTS_NAME)


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.endswith("_s")} for line in lines]


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_at(epoch):
    def on_line(line):
        if line["epoch"] == epoch:
            raise Killed("killed")

    return on_line
