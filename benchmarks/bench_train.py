"""What an iteration of training costs, against plain PyTorch; what two million clips cost to begin with.

The rival is a plain writing of Kong et al.'s published step, our own code after the description of the original:
frames as the channels of a map, convolutions of 1 by 1, batch norms, PyTorch's dropout and Adam, in float32.

    python benchmarks/bench_train.py [--features FOLDER] [--only curves --seeds 3]

With --features, a folder that ``audioset data features convert --format arrays`` made, it trains on the balanced clips
too: it prints the mAP on the evaluation clips over time, for both, and compares the course of our trainings with that
of the original's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from report import print_bound
from torch import nn
from torch.nn import functional

from audioset import metrics
from audioset.dataset.features import folder as feature_folder
from audioset.train.checkpoint import METRICS_NAME
from audioset.train.distributed import Processes
from audioset.train.heads.config import TrainConfig
from audioset.train.heads.examples import Batch, Data, Examples, load_data
from audioset.train.heads.samplers import make_sampler
from audioset.train.heads.sparse_labels import SparseLabels
from audioset.train.heads.training import (
    batches,
    choose_sampler,
    first_state,
    make_recipe,
    measure,
    predict,
    train,
)
from audioset.train.loop import take_step
from audioset.train.state import TrainingState

HEADS = ("average-pooling", "single-attention", "feature-attention")
N_CLASSES, N_SECONDS, SIZE, WIDTH, BATCH = 527, 10, 128, 1024, 500
N_RUNS = 7
N_ITERATIONS, EVAL_EVERY = 400, 200
# mAP on the evaluation clips by iteration: Kong's published code on one machine, changed only to run on a processor.
ORIGINAL = {
    "average-pooling": {200: 0.156, 400: 0.202, 600: 0.224, 800: 0.2351},
    "single-attention": {200: 0.203, 400: 0.240, 600: 0.255, 800: 0.2614},
    "feature-attention": {200: 0.169, 400: 0.222, 600: 0.242, 800: 0.2529},
}
MOST_APART = 0.008
N_LARGE = 2_042_985  # clips of the unbalanced training set and the balanced one
ALONE = Processes(0, 1, torch.device("cpu"))


class Rival(nn.Module):
    """Kong's heads in plain PyTorch."""

    def __init__(self, head: str) -> None:
        super().__init__()
        self.head = head
        self.first_norm = nn.BatchNorm2d(SIZE)
        sizes = (SIZE, WIDTH, WIDTH, WIDTH)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 1, bias=False) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm2d(WIDTH) for _ in self.layers)
        units = WIDTH if head == "feature-attention" else N_CLASSES
        if head == "average-pooling":
            self.last = nn.Linear(WIDTH, N_CLASSES)
        else:
            self.attention, self.said = (nn.Conv2d(WIDTH, units, 1) for _ in range(2))
        if head == "feature-attention":
            self.last_norm, self.last = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, N_CLASSES)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and head != "average-pooling":
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores (n_clips, 527) of embeddings (n_clips, n_seconds, 128)."""
        x = self.first_norm(embeddings.transpose(1, 2)[..., None].contiguous())
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = functional.dropout(functional.relu(norm(layer(x))), 0.5, self.training)
        if self.head == "average-pooling":
            return torch.sigmoid(self.last(x[..., 0].transpose(1, 2))).mean(1)
        weights = torch.sigmoid(self.attention(x)).clamp(1e-7, 1 - 1e-7)[..., 0]
        weights = weights / weights.sum(2, keepdim=True)
        said = self.said(x)[..., 0]
        if self.head == "single-attention":
            return (weights * torch.sigmoid(said)).sum(2)
        pooled = functional.relu(self.last_norm((weights * said).sum(2)))
        return torch.sigmoid(self.last(functional.dropout(pooled, 0.5, self.training)))


class RivalRun:
    """The rival with its optimizer."""

    def __init__(self, head: str) -> None:
        torch.manual_seed(0)
        self.network = Rival(head)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, eps=1e-7)

    def step(self, batch: Batch) -> None:
        """Train on a batch."""
        scores = self.network(torch.from_numpy((batch.embeddings.astype(np.float32) - 128) / 128))
        loss = functional.binary_cross_entropy(scores.clamp(0, 1), torch.from_numpy(batch.targets))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def bench_steps() -> None:
    """Seconds an iteration: ours in both precisions, and the rival, in turn."""
    print(f"seconds an iteration, batches of {BATCH} clips, {torch.get_num_threads()} threads")
    examples = random_examples(20 * BATCH)
    for head in HEADS:
        rival = RivalRun(head)
        runs: dict[str, Callable[[], object]] = {
            "ours f32": our_step(examples, head, "f32"),
            "ours bf16": our_step(examples, head, "bf16"),
            "rival f32": lambda rival=rival: rival.step(examples.batch(np.arange(BATCH))),
        }
        wall, processor = interleaved_medians(runs)
        for name in runs:
            print(f"  {head:18s} {name:10s} {wall[name]:7.3f} s  processor {processor[name]:7.3f} s", flush=True)
        for name, least in (("ours bf16", 3), ("ours f32", 1)):
            print_bound(f"rival / {name}, wall", wall["rival f32"] / wall[name], at_least=least, unit="x")
            print_bound(
                f"rival / {name}, processor", processor["rival f32"] / processor[name], at_least=least, unit="x"
            )


def interleaved_medians(functions: dict[str, Callable[[], object]]) -> tuple[dict[str, float], dict[str, float]]:
    """Median wall and processor seconds of each function, all of them run in turn.

    On a machine that others use too, run with --threads 1 and compare processor seconds.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for i in range(N_RUNS + 2):
        for name, function in functions.items():
            start, cpu = time.perf_counter(), time.process_time()
            function()
            if i >= 2:
                times[name].append((time.perf_counter() - start, time.process_time() - cpu))
    medians = {name: np.median(pairs, 0).tolist() for name, pairs in times.items()}
    return {name: pair[0] for name, pair in medians.items()}, {name: pair[1] for name, pair in medians.items()}


def our_step(examples: Examples, head: str, precision: str) -> Callable[[], float]:
    """A function that takes the next step of a run."""
    config = TrainConfig(head=head, precision=precision, batch_size=BATCH, device="cpu")
    return begin(config, Data(examples, None, None))[1]


def begin(config: TrainConfig, data: Data) -> tuple[TrainingState, Callable[[], float]]:
    """A run, and a function that takes its next step."""
    sampler = choose_sampler(config, data.training.labels)
    state = first_state(config, sampler, ALONE.device)
    recipe, course = make_recipe(state, config, data, ALONE), batches(state, sampler, config, ALONE)
    return state, lambda: take_step(state, recipe, next(course), ALONE)


def random_examples(n_clips: int) -> Examples:
    """Clips in memory with labels as frequent as AudioSet's."""
    rng = np.random.default_rng(0)
    labels = random_labels(n_clips, rng)
    arrays = type("Arrays", (), {})()
    arrays.embeddings = rng.integers(0, 256, (n_clips, N_SECONDS, SIZE), np.uint8)
    arrays.lengths = np.full(n_clips, N_SECONDS, np.uint8)
    return Examples(arrays, np.arange(n_clips), labels, "")


def random_labels(n_clips: int, rng: np.random.Generator) -> SparseLabels:
    """Two different labels for each clip, the first by a power law and the second evenly."""
    first = np.minimum(rng.zipf(1.3, n_clips) - 1, N_CLASSES - 1)
    second = (first + rng.integers(1, N_CLASSES, n_clips)) % N_CLASSES
    indices = np.sort(np.stack([first, second], 1), 1).astype(np.int16).ravel()
    return SparseLabels(indices, np.arange(0, 2 * n_clips + 1, 2), N_CLASSES)


def bench_learning(features: str) -> None:
    """The mAP on the evaluation clips over time; measuring is not counted."""
    print("mAP on the evaluation clips, balanced training, balance in batch")
    for head in HEADS:
        config = TrainConfig(features=features, eval_subset="eval", head=head, precision="bf16", device="cpu")
        data = load_data(config)
        state, step = begin(config, data)
        rival = RivalRun(head)
        sampler = make_sampler("balanced", data.training.labels, BATCH, 0)

        def our_map(state=state, data=data) -> float:
            scores = predict(state.module, state.weights, data.evaluation, ALONE)
            return measure(scores, data.evaluation, ALONE)["mean_ap"]

        print_learning(f"{head}, ours bf16", step, our_map)
        print_learning(
            f"{head}, rival",
            lambda: rival.step(data.training.batch(sampler.next_batch())),  # noqa: B023
            lambda: rival_map(rival.network, data.evaluation),  # noqa: B023
        )


def bench_curves(features: str, n_seeds: int) -> None:
    """The mean course of several trainings beside the original's."""
    print(f"mAP on the evaluation clips by iteration, mean of {n_seeds}, and the original's")
    for head, original in ORIGINAL.items():
        curves = [read_curve(features, head, seed) for seed in range(n_seeds)]
        for iteration, theirs in original.items():
            ours = float(np.mean([curve[iteration] for curve in curves]))
            print(f"  {head:18s} iteration {iteration:4d}  ours {ours:.4f}  theirs {theirs:.4f}", flush=True)
            print_bound("apart", abs(ours - theirs), at_most=MOST_APART)


def read_curve(features: str, head: str, seed: int) -> dict[int, float]:
    """The mAP of a training at each iteration that is measured."""
    every, *_, last = ORIGINAL[head]
    config = TrainConfig(
        features=features,
        eval_subset="eval",
        head=head,
        precision="bf16",
        device="cpu",
        seed=seed,
        n_iterations=last,
        eval_every=every,
        checkpoint_every=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder)
        lines = [json.loads(line) for line in (Path(folder) / METRICS_NAME).read_text().splitlines()]
    return {line["iteration"]: line["eval"]["mean_ap"] for line in lines if "eval" in line}


def print_learning(name: str, step: Callable[[], object], measure_now: Callable[[], float]) -> None:
    """Take steps, and print the mAP now and then."""
    elapsed = 0.0
    for i in range(1, N_ITERATIONS + 1):
        start = time.perf_counter()
        step()
        elapsed += time.perf_counter() - start
        if i % EVAL_EVERY == 0:
            print(f"  {name:32s} iteration {i:5d} {elapsed:8.1f} s  mAP {measure_now():.4f}", flush=True)


def rival_map(network: nn.Module, examples: Examples) -> float:
    """The rival's mAP."""
    network.eval()
    scores = []
    with torch.no_grad():
        for positions in np.array_split(np.arange(len(examples)), len(examples) // BATCH):
            embeddings = examples.batch(positions).embeddings.astype(np.float32)
            scores.append(network(torch.from_numpy((embeddings - 128) / 128)).numpy())
    network.train()
    return metrics.evaluate(np.concatenate(scores), examples.labels.targets(np.arange(len(examples)))).mean_ap


def bench_large() -> None:
    """Begin on two million clips, in a process of its own."""
    print(f"{N_LARGE:,} clips, mapped")
    with tempfile.TemporaryDirectory() as folder:
        write_large(Path(folder) / "features")
        for sampler in ("balanced", "uniform", "weighted"):
            command = [sys.executable, __file__, "--large", f"{folder}/features", sampler]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f" {sampler}: {found['batch_ms']:.1f} ms to draw and read a batch")
            print_bound("to the first batch", found["start_s"], at_most=10, unit="s")
            print_bound("anonymous memory at most", found["peak_mib"], at_most=1024, unit="MiB")


def write_large(folder: Path) -> None:
    """A folder of features; the embeddings are a sparse file of zeros."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = random_labels(N_LARGE, rng)
    subsets = np.full(N_LARGE, 2, np.uint8)
    subsets[:22_160] = 0
    arrays = {
        "lengths": np.full(N_LARGE, N_SECONDS, np.uint8),
        "label_indices": labels.indices,
        "label_offsets": labels.offsets,
        "video_ids": np.arange(N_LARGE).astype("S11"),
        "start_s": np.zeros(N_LARGE, np.float32),
        "end_s": np.full(N_LARGE, 10, np.float32),
        "subsets": subsets,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.uint8, (N_LARGE, N_SECONDS, SIZE))
    card = {
        "kind": feature_folder.KIND,
        "format": feature_folder.FORMAT,
        "n_clips": N_LARGE,
        "n_labels": len(labels.indices),
        "files": {},
    }
    (folder / feature_folder.CARD).write_text(json.dumps(card))


def run_large(features: str, sampler: str) -> None:
    """What a new process needs to begin, as JSON."""
    peak = AnonymousMemory()
    start = time.perf_counter()
    config = TrainConfig(features=features, subset="train", sampler=sampler, head="logistic", device="cpu")
    data = load_data(config)
    state, step = begin(config, data)
    data.training.batch(state.sampler.next_batch())
    start_s = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(100):
        data.training.batch(state.sampler.next_batch())
    batch_ms = (time.perf_counter() - start) * 10
    for _ in range(20):
        step()
    print(json.dumps({"start_s": start_s, "batch_ms": batch_ms, "peak_mib": peak.stop()}))


class AnonymousMemory:
    """The most memory of the process that is no file's, looked at every 5 ms."""

    def __init__(self) -> None:
        self._peak_kib = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """MiB."""
        self._is_over.set()
        self._thread.join()
        return self._peak_kib / 1024

    def _watch(self) -> None:
        while not self._is_over.wait(0.005):
            status = Path("/proc/self/status").read_text()
            self._peak_kib = max(self._peak_kib, int(status.partition("RssAnon:")[2].split()[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", metavar="FOLDER")
    parser.add_argument("--threads", type=int, help="Default: all cores.")
    parser.add_argument("--large", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["steps", "large", "learning", "curves"])
    parser.add_argument("--seeds", type=int, default=1, help="Trainings of each head, for their mean course.")
    options = parser.parse_args()
    if options.large:
        run_large(*options.large)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.only in (None, "steps"):
        bench_steps()
    if options.only in (None, "large"):
        bench_large()
    if options.features and options.only in (None, "learning"):
        bench_learning(options.features)
    if options.features and options.only in (None, "curves"):
        bench_curves(options.features, options.seeds)


if __name__ == "__main__":
    main()
