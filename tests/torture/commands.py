"""Commands that are disturbed in every way, with inputs that they share and never change."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fetch
import numpy as np
import soundfile
from download_server import RATE as SITE_RATE
from download_server import Site, sound
from downloads import END_S, START_S, clips_of, video_ids
from outputs import read_cache, read_index, read_output, read_rows
from sandbox import COMMAND
from sounds import noise, sine
from tiny import write_tiny_model

from audioset.dataset.features.clips import FeatureClip
from audioset.dataset.features.folder import write as write_features
from audioset.dataset.lists.segments import write_segments

N_SOUNDS = 16
SOUND_S = 12.0
RATE = 16_000
N_CLIPS = 400  # with features
N_VIDEOS = 6


@dataclass(frozen=True)
class Material:
    """Inputs of all commands below one folder, and a site to download from."""

    folder: Path
    site: Site
    weights: list[str]  # where they are served

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)


def write_material(folder: Path, site: Site, weights: list[str]) -> Material:
    """Write all inputs."""
    write_tiny_model(folder / "model")
    (folder / "sounds").mkdir()
    (folder / "few").mkdir()
    for number in range(N_SOUNDS):
        for name, n_samples in (("sounds", int(SOUND_S * RATE)), ("few", RATE)):
            if name == "sounds" or number < 2:
                soundfile.write(folder / name / f"{number:02d}.wav", noise(n_samples, seed=number), RATE, "PCM_16")
    _write_classes(folder / "classes")
    labels = "".join(f"{number:02d}.wav,class {number % 2}\n" for number in range(N_SOUNDS))
    (folder / "labels.csv").write_text(f"path,label\n{labels}")
    for name, n_clips in (("features", N_CLIPS), ("few_features", 20)):
        write_features(folder / name, [*_clips(n_clips, "bal_train"), *_clips(n_clips // 5, "eval")])
    write_segments(folder / "eval_segments.csv", clips_of(video_ids(N_VIDEOS)), "today")
    (folder / "found").mkdir()
    for video_id in video_ids(N_VIDEOS):
        clip = sound(video_id)[int(START_S * SITE_RATE) : int(END_S * SITE_RATE)]
        soundfile.write(folder / "found" / f"Y{video_id}.wav", clip, SITE_RATE)
    return Material(folder, site, weights)


def _write_classes(folder: Path) -> None:
    for name, frequency_hz in (("high", 4_000), ("low", 300)):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            tone = sine(frequency_hz + 5 * number, RATE, 0.4) + 0.05 * noise(int(RATE * 0.4), seed=number)
            soundfile.write(folder / name / f"{number}.wav", tone, RATE, "PCM_16")


def _clips(n_clips: int, subset: str) -> Iterator[FeatureClip]:
    rng = np.random.default_rng(n_clips)
    for number in range(n_clips):
        labels = tuple(sorted({number % 6, int(rng.integers(6))}))
        embeddings = rng.integers(0, 256, (10, 128)).astype(np.uint8)
        yield FeatureClip(f"{subset[:3]}_{number:07d}", 0.0, 10.0, labels, embeddings, subset)


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes
    ----------
    name : str
    arguments : function of Material
        What comes after the program; outputs are named from the working directory.
    output : str
        What it writes there.
    earlier : function of Material, or None
        The same with other inputs: what wrote an earlier output of that name.
    is_growing : bool
        Whether the output is a folder that is added to, so that a part of it is no damage.
    program : sequence of str
        ``audioset``, or what stands for it.
    read : function of a path
        The output's values, without what may differ between two runs that say the same.
    weight : int
        How often it is drawn.
    """

    name: str
    arguments: Callable[[Material], list[str]]
    output: str
    earlier: Callable[[Material], list[str]] | None = None
    is_growing: bool = False
    program: Sequence[str] = tuple(COMMAND)
    read: Callable[[Path], Any] = read_output
    weight: int = 1


def _tagging(command: str, output: str, *options: str, weight: int = 1) -> Command:
    def arguments(material: Material, inputs: str) -> list[str]:
        return [command, getattr(material, inputs), "--model", material.model, "-q", *options, "-o", output]

    return Command(
        f"{command} to {output}",
        partial(arguments, inputs="sounds"),
        output,
        earlier=partial(arguments, inputs="few"),
        weight=weight,
    )


def _convert(output: str, form: str) -> Command:
    def arguments(material: Material, features: str) -> list[str]:
        return ["data", "features", "convert", getattr(material, features), output, "--format", form]

    return Command(
        f"convert to {output}",
        partial(arguments, features="features"),
        output,
        earlier=partial(arguments, features="few_features") if "." in output else None,
    )


def _index(material: Material, *inputs: str) -> list[str]:
    return ["index", *(getattr(material, name) for name in inputs), "--model", material.model, "-q", "-o", "index"]


def _heads(material: Material) -> list[str]:
    small = ("--batch-size", "20", "--n-iterations", "40", "--eval-every", "10", "--checkpoint-every", "10")
    data = ("--features", material.features, "--eval-subset", "eval", "--head", "logistic", "--device", "cpu")
    return ["train", "heads", *data, *small, "-q", "-o", "run"]


def _classifier(material: Material, seed: str) -> list[str]:
    return ["train", "classifier", material.classes, "--model", material.model, "--seed", seed, "-q", "-o", "birds"]


def _download(material: Material) -> list[str]:
    quick = ("--rate", "none", "--min-free", "0", "--sleep-requests", "0", "-q")
    clips = str(material.folder / "eval_segments.csv")
    return ["data", "download", "--url-template", material.site.url_template, *quick, "set", clips]


def _adopt(material: Material) -> list[str]:
    return ["data", "adopt", "set", material.found, str(material.folder / "eval_segments.csv")]


def _finetune(material: Material, seed: str) -> list[str]:
    small = ("--n-epochs", "2", "--least-batches", "1", "--threads", "1", "--device", "cpu", "--seed", seed, "-q")
    plain = ("--equaliser-db", "0", "--noise-share", "0", "--stretch", "0", "--warp", "0")
    return ["finetune", material.classes, "--model", material.model, *small, *plain, "-o", "tuned"]


def _evaluate(material: Material, seed: str) -> list[str]:
    data = ("--audio", material.sounds, "--labels", str(material.folder / "labels.csv"), "--resamples", "20")
    return ["evaluate", material.model, *data, "--seed", seed, "-q", "-o", "evaluation"]


def _accept(material: Material, numbers: str, label: str) -> list[str]:
    example = str(material.folder / "few" / "00.wav")
    accepted = ("--accept", numbers, "--label", label, "--output", "moments.csv")
    return ["search", material.index, "--like", example, *accepted, "--model", material.model]


def _calibrate(material: Material, *options: str) -> list[str]:
    labels = (str(material.folder / "labels.csv"), "--audio", material.sounds)
    return ["calibrate", *labels, "--model", material.model, *options, "-q", "-o", "calibrated"]


def _export(material: Material) -> list[str]:
    return ["export", material.model, "-o", "model.onnx"]


COMMANDS = {
    command.name: command
    for command in (
        _tagging("tag", "tags.csv", weight=2),
        _tagging("tag", "tags.jsonl", "--per-patch"),
        _tagging("tag", "tags.parquet", weight=2),
        _tagging("tag", "labels/", "--per-patch", "--format", "audacity", "--threshold", "0.5"),
        _tagging("events", "events.csv"),
        _tagging("events", "grids/", "--format", "textgrid"),
        _tagging("embed", "embeddings.npz", weight=2),
        _tagging("embed", "embeddings.parquet", "--hop", "0.1", weight=2),
        Command(
            "index",
            lambda material: _index(material, "sounds", "few"),
            "index",
            earlier=lambda material: _index(material, "few"),
            is_growing=True,
            read=read_index,
            weight=3,
        ),
        _convert("features.parquet", "parquet"),
        _convert("features.h5", "hdf5"),
        _convert("arrays", "arrays"),
        _convert("shards", "tfrecord"),
        Command("train heads", _heads, "run", is_growing=True),
        Command(
            "train classifier",
            partial(_classifier, seed="0"),
            "birds",
            earlier=partial(_classifier, seed="1"),
            is_growing=True,
        ),
        Command("finetune", partial(_finetune, seed="0"), "tuned", is_growing=True),
        Command("download", _download, "set", is_growing=True, weight=2),
        Command("adopt", _adopt, "set", is_growing=True),
        Command(
            "search --accept",
            partial(_accept, numbers="1,3-10", label="noise"),
            "moments.csv",
            earlier=partial(_accept, numbers="11-15", label="background"),
            read=read_rows,
        ),
        Command(
            "evaluate",
            partial(_evaluate, seed="0"),
            "evaluation",
            earlier=partial(_evaluate, seed="1"),
        ),
        Command(
            "calibrate",
            _calibrate,
            "calibrated",
            earlier=lambda material: _calibrate(material, "--min-positives", "4"),
            is_growing=True,
        ),
        Command(
            "models pull",
            lambda material: material.weights,
            "../cache",
            is_growing=True,
            program=(sys.executable, fetch.__file__),
            read=read_cache,
        ),
        Command("export", _export, "model.onnx", earlier=_export),
    )
}
