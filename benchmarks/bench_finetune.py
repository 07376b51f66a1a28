"""Fine-tuning on spoken digits: accuracy on a speaker who was never heard, time, and core-seconds.

    python benchmarks/bench_finetune.py [--archive FILE] [--speakers NAME …] [--quick] [--setting NAME=VALUE …]

Of the four speakers of ``spoken_digits.tar.gz`` each is left out in turn: the network learns from all clips of the
others and is tested on all clips of this one, by the model folder that it leaves, as ``load_model`` predicts. Nothing
is chosen by the test. Core-seconds are the process's own, so they do not depend on what else runs; with several
threads on busy cores they hold the time that these wait for each other, so ``--setting n_threads=1`` is the honest
measure there. ``--quick`` takes four epochs.

``--memory`` compares two short trainings on a part of the clips instead, each in a process of its own, in turns: one as
a program that calls ``finetune`` has it, and one whose process keeps freed memory, as ``audioset finetune`` does.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from digits import ARCHIVE, GROUP, unpacked
from report import print_bound

from audioset import load_model
from audioset.audio.reading import read_audio
from audioset.concurrency import keep_freed_memory
from audioset.sounds.collection import Collection
from audioset.sounds.reading import read_collection
from audioset.train.finetune.config import FinetuneConfig, read_finetune_config
from audioset.train.finetune.finetune import finetune
from audioset.train.settings import parse_argument

QUICK_EPOCHS = 4
N_PREDICTED = 100  # clips that are tested again with the model folder

MEMORY_CLIPS, MEMORY_TURNS = 128, 2
MEMORY_SETTINGS = {"n_epochs": 2, "head_epochs": 0, "unfreeze_epochs": 0, "least_batches": 1, "n_threads": 1}

BOUND_ACCURACY = 0.70
BOUND_S = 480
BOUND_CORE_S = 960
BOUND_SYSTEM_RATIO = 0.8


def leave_out(collection: Collection, speaker: str) -> Collection:
    """The collection with the clips of one speaker as its test."""
    clips = (replace(clip, split="test" if clip.group == speaker else "train") for clip in collection.clips)
    return replace(collection, clips=tuple(clips))


def train_and_test(collection: Collection, speaker: str, config: FinetuneConfig, folder: Path) -> dict[str, Any]:
    """Accuracy and cost of one training."""
    start, cpu = time.perf_counter(), time.process_time()
    record = finetune(leave_out(collection, speaker), config, folder)
    cost = {"s": time.perf_counter() - start, "core_s": time.process_time() - cpu}
    accuracy = next(each["accuracy"] for each in record["evaluations"] if each["name"] == "given test")
    return {"accuracy": accuracy, "predicted": _predicted(collection, speaker, folder), **cost}


def _predicted(collection: Collection, speaker: str, folder: Path) -> float:
    """Accuracy of the model folder on some of the clips, from the files."""
    model = load_model(folder)
    own = [clip for clip in collection.clips if clip.group == speaker]
    chosen = own[:: max(1, len(own) // N_PREDICTED)]
    n_right = 0
    for clip in chosen:
        waveform, sample_rate = read_audio(clip.path)
        scores = model.predict(waveform, sample_rate).scores.mean(axis=0)
        n_right += model.labels.names[int(scores.argmax())] == clip.labels[0]
    return n_right / len(chosen)


def training_times(root: Path, keeps_memory: bool) -> tuple[float, float]:
    """Seconds of user and of system time that a short training takes."""
    if keeps_memory:
        keep_freed_memory()
    collection = read_collection(root, group=GROUP)
    part = collection.select(range(0, len(collection), len(collection) // MEMORY_CLIPS))
    before = os.times()
    with tempfile.TemporaryDirectory() as place:
        finetune(part, FinetuneConfig(**MEMORY_SETTINGS), Path(place) / "model")
    after = os.times()
    return after.user - before.user, after.system - before.system


def compare_memory(root: Path) -> None:
    """Print the processor time of trainings whose process gives freed memory back, and keeps it."""
    print(f"{'freed memory is':16s} {'user s':>8s} {'system s':>9s}")
    system_s = {False: 0.0, True: 0.0}
    for _ in range(MEMORY_TURNS):
        for keeps_memory in system_s:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                user_s, own_s = pool.submit(training_times, root, keeps_memory).result()
            system_s[keeps_memory] += own_s
            name = "kept" if keeps_memory else "given back"
            print(f"{name:16s} {user_s:8.1f} {own_s:9.1f}", flush=True)
    print_bound("system time, kept to given back", system_s[True] / system_s[False], at_most=BOUND_SYSTEM_RATIO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ARCHIVE)
    parser.add_argument("--speakers", nargs="+", metavar="NAME", help="Who is left out. Default: each in turn.")
    parser.add_argument("--quick", action="store_true", help="Four epochs.")
    parser.add_argument("--memory", action="store_true", help="Compare what becomes of freed memory, and nothing else.")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    settings: dict[str, Any] = {"n_epochs": QUICK_EPOCHS, "warm_up": 0.2} if given.quick else {}
    config = read_finetune_config(None, **{**settings, **dict(map(parse_argument, given.setting))})
    if given.memory:
        with unpacked(given.archive) as root:
            compare_memory(root)
        return
    with unpacked(given.archive) as root, tempfile.TemporaryDirectory() as place:
        collection = read_collection(root, group=GROUP)
        speakers = given.speakers or sorted({str(clip.group) for clip in collection.clips})
        print(f"{'left out':12s} {'accuracy':>9s} {'as a file':>9s} {'s':>7s} {'core-s':>7s}")
        results = []
        for speaker in speakers:
            found = train_and_test(collection, speaker, config, Path(place) / f"model-{speaker}")
            results.append(found)
            numbers = f"{found['accuracy']:9.3f} {found['predicted']:9.3f} {found['s']:7.0f} {found['core_s']:7.0f}"
            print(f"{speaker:12s} {numbers}", flush=True)
    mean = sum(each["accuracy"] for each in results) / len(results)
    print(f"{'mean':12s} {mean:9.3f}")
    print_bound("accuracy on a new speaker", mean, at_least=BOUND_ACCURACY)
    print_bound("core-seconds of a training", max(each["core_s"] for each in results), at_most=BOUND_CORE_S, unit="s")
    print_bound("seconds of a training", max(each["s"] for each in results), at_most=BOUND_S, unit="s")


if __name__ == "__main__":
    main()
