"""The released features: time to read them beside TensorFlow, and what each conversion takes.

    python benchmarks/bench_features.py [--tensorflow-python PATH]

Needs features.tar.gz, with the balanced and the evaluation set, in the first folder of AUDIOSET_ASSETS. Ours reads it
as it is; TensorFlow reads the same shards unpacked, which is given to it. PATH is a Python that has TensorFlow, in an
environment of its own. Both run in turn, in fresh processes on one core, imports not counted; the page cache is warm.

Memory is the peak resident size of a whole process, interpreter and imports included. Training is 200 batches of 500
random clips from mapped arrays of AudioSet's full size, whose embeddings are a file of zeros.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from report import print_bound

from audioset.dataset.features import folder as feature_folder
from audioset.dataset.features.folder import open_arrays
from audioset.dataset.features.reading import FORMS, convert, read, read_arrays

N_RUNS = 5
N_ALL = 2_084_320
BOUND_RATIO = 0.5
BOUND_CONVERT_MB = 300
BOUND_TRAIN_MB = 1000
N_BATCHES, BATCH = 200, 500
OUTPUTS = {
    "parquet": "a.parquet",
    "hdf5": "a.h5",
    "arrays": "arrays",
    "tfrecord": "a.tar.gz",
    "youtube8m": "y.tfrecord",
}
TENSORFLOW = """
import glob, json, os, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
import tensorflow as tf
paths = sorted(glob.glob(sys.argv[1] + "/**/*.tfrecord", recursive=True))
start, cpu = time.perf_counter(), time.process_time()
count = 0
for record in tf.data.TFRecordDataset(paths).as_numpy_iterator():
    tf.train.SequenceExample.FromString(record)
    count += 1
print(json.dumps({"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu, "n_clips": count}))
"""


def peak_mb() -> float:
    """Peak resident size of this process."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM:"))


def measure_read(path: str) -> int:
    return sum(1 for _ in read(path))


def measure_arrays(path: str) -> int:
    return len(read_arrays(path))


def measure_convert(path: str, output: str, to: str) -> int:
    return convert(path, output, to)[0]


def measure_open(path: str) -> int:
    return len(open_arrays(Path(path)))


def measure_train(path: str) -> int:
    arrays = open_arrays(Path(path))
    rng = np.random.default_rng(0)
    for _ in range(N_BATCHES):
        arrays.take(rng.integers(0, len(arrays), BATCH)).targets()
    return len(arrays)


MEASURES = {
    "read": measure_read,
    "arrays": measure_arrays,
    "convert": measure_convert,
    "open": measure_open,
    "train": measure_train,
}


def in_child(name: str, *arguments: object) -> dict[str, float]:
    """One measurement in a fresh process on one core."""
    return run_json([sys.executable, __file__, "--child", name, *map(str, arguments)])


def run_json(command: list[str]) -> dict[str, float]:
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return result


def be_child(name: str, arguments: list[str]) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start, cpu = time.perf_counter(), time.process_time()
    n_clips = MEASURES[name](*arguments)
    times = {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    print(json.dumps({**times, "n_clips": n_clips, "peak_mb": peak_mb()}))


def write_full_size(folder: Path, small: Path) -> None:
    """Arrays as many as AudioSet has, made of the small ones over and over, but with embeddings of zeros."""
    folder.mkdir()
    arrays = read_arrays(small)
    rows = np.arange(N_ALL) % len(arrays)
    counts = np.diff(arrays.label_offsets)[rows]
    n_labels = int(counts.sum())
    np.save(folder / "label_offsets.npy", np.concatenate([[0], np.cumsum(counts)]))
    np.save(folder / "label_indices.npy", np.resize(arrays.label_indices, n_labels))
    for name in ("lengths", "video_ids", "start_s", "end_s", "subsets"):
        np.save(folder / f"{name}.npy", getattr(arrays, name)[rows])
    np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.uint8, (N_ALL, *arrays.embeddings.shape[1:]))
    card = {**feature_folder.read_card(small), "n_clips": N_ALL, "n_labels": n_labels}
    (folder / feature_folder.CARD).write_text(json.dumps(card))


def print_reading(archive: Path, folder: Path, tensorflow: str | None) -> None:
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    if tensorflow:
        with tarfile.open(archive) as shards:
            shards.extractall(folder, filter="data")
    for _ in range(N_RUNS):
        ours.append(in_child("read", archive))
        if tensorflow:
            theirs.append(run_json([tensorflow, "-c", TENSORFLOW, str(folder)]))
    n_clips = int(ours[0]["n_clips"])
    print(f"reading {n_clips:,} clips on one core, median of {N_RUNS}")
    for name, runs in {"features.tar.gz, ours": ours, "unpacked, TensorFlow": theirs}.items():
        if runs:
            wall_s, cpu_s = (statistics.median(run[key] for run in runs) for key in ("wall_s", "cpu_s"))
            print(f"  {name:24s} {wall_s:6.2f} s, {cpu_s:5.2f} s of processor, {n_clips / wall_s:9,.0f} clips/s")
    if theirs:
        for name, key in {"time": "wall_s", "processor time": "cpu_s"}.items():
            ratio = statistics.median(our[key] / their[key] for our, their in zip(ours, theirs, strict=True))
            print_bound(f"ours / TensorFlow, {name}", ratio, at_most=BOUND_RATIO)
    else:
        print("  not compared with TensorFlow: give --tensorflow-python a Python that has it")
    arrays = in_child("arrays", archive)
    print(f"  as arrays, in memory     {arrays['wall_s']:6.2f} s, peak {arrays['peak_mb']:.0f} MB")


def print_converting(archive: Path, folder: Path) -> None:
    print(f"\nconverting features.tar.gz, and what that makes for {N_ALL:,} clips")
    for to in FORMS:
        run = in_child("convert", archive, folder / OUTPUTS[to], to)
        full_min = run["wall_s"] * N_ALL / run["n_clips"] / 60
        print_bound(
            f"{to}: {run['wall_s']:.1f} s, all {full_min:.1f} min, peak", run["peak_mb"], at_most=BOUND_CONVERT_MB
        )


def print_back(folder: Path) -> None:
    print("\nreading what was converted")
    for to, name in OUTPUTS.items():
        run = in_child("read", folder / name)
        print(f"  {to:24s} {run['wall_s']:6.2f} s, peak {run['peak_mb']:.0f} MB")


def print_full_size(folder: Path) -> None:
    write_full_size(folder / "full", folder / OUTPUTS["arrays"])
    print(f"\nmapped arrays of {N_ALL:,} clips")
    print(f"  open                     {in_child('open', folder / 'full')['wall_s']:6.2f} s")
    run = in_child("train", folder / "full")
    print(f"  {N_BATCHES} batches of {BATCH}       {run['wall_s']:6.2f} s")
    print_bound("training, peak", run["peak_mb"], at_most=BOUND_TRAIN_MB, unit="MB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tensorflow-python", metavar="PATH")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        be_child(options.child[0], options.child[1:])
        return
    archive = Path(os.environ.get("AUDIOSET_ASSETS", ".").split(os.pathsep)[0]) / "features.tar.gz"
    if not archive.is_file():
        sys.exit(f"there is no {archive}: set AUDIOSET_ASSETS to a folder that has it")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_reading(archive, folder / "unpacked", options.tensorflow_python)
        print_converting(archive, folder)
        print_back(folder)
        print_full_size(folder)


if __name__ == "__main__":
    main()
