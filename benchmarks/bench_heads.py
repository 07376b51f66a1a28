"""Our own head against the published ones, in the same loop, with stopping points chosen in the same way.

Each head is trained with its own recipe on five sixths of the balanced clips and measured on the sixth as it goes. The
iteration with the best mAP there, times six fifths, is how long it is then trained on all of them; only then is it
measured on the evaluation clips.

    python benchmarks/bench_heads.py FEATURES [--seeds 3]          # the comparison, and the mean of our scores
    python benchmarks/bench_heads.py FEATURES --variants           # what helps, on the held-out clips alone
    python benchmarks/bench_heads.py FEATURES --quick              # held-out clips alone, a quarter of the iterations

FEATURES is a folder that ``audioset data features convert --format arrays`` made.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import print_bound

from audioset import load_model, metrics
from audioset.networks.heads import HEADS
from audioset.train import read_config, train
from audioset.train.checkpoint import METRICS_NAME
from audioset.train.heads.examples import load_examples

OURS, PUBLISHED = "two-branch", ("single-attention", "feature-attention")
HOLDOUT = 1 / 6
LONGEST = {
    OURS: 900,
    "single-attention": 1200,
    "feature-attention": 1600,
}  # iterations on five sixths; ours ends with a learning rate of 0
EVAL_EVERY = 100
VARIANTS: dict[str, dict[str, Any]] = {
    "two-branch": {},
    "no mixup": {"mixup": 0.0},
    "no moving average": {"ema": 0.0},
    "constant learning rate": {"schedule": "constant"},
    "balance in batch": {"sampler": "balanced", "whole_batches": False},
    "weighted sampler": {"sampler": "weighted", "whole_batches": False},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "shared layer of 1,536": {"head_arguments": {"n_frame": 1536}},
    "zero padding": {"head_arguments": {"padding": "zero"}},
    "learning rate halved": {"learning_rate": 1e-3},
    "single-attention": {"head": PUBLISHED[0]},
    "single-attention with our recipe": {**HEADS[OURS].recipe, "head": PUBLISHED[0], "n_iterations": LONGEST[OURS]},
}


@dataclass(frozen=True)
class Run:
    """Where runs go, and what all of them share."""

    features: str
    folder: Path
    scale: float

    def train(self, name: str, **settings: Any) -> tuple[dict[str, Any], float]:
        """Train, or take the run that is there: what it reaches, and the seconds of processor time."""
        config = read_config(features=self.features, precision="bf16", device="cpu", checkpoint_every=0, **settings)
        start = time.process_time()
        return train(config, self.folder / name), time.process_time() - start

    def hold_out(self, name: str, head: str, seed: int, **settings: Any) -> int:
        """The iteration that is best on held-out clips."""
        longest = max(EVAL_EVERY, round(LONGEST[head] * self.scale))
        settings = {"n_iterations": longest, "eval_every": EVAL_EVERY, **settings}
        folder = f"{name}, held-out, seed {seed}"
        result, seconds = self.train(folder, head=head, holdout=HOLDOUT, seed=seed, choose="best", **settings)
        lines = [json.loads(line) for line in (self.folder / folder / METRICS_NAME).read_text().splitlines()]
        best = max((line for line in lines if "holdout" in line), key=lambda line: line["holdout"]["mean_ap"])[
            "iteration"
        ]
        print_line(f"{folder}, best at {best}", result["holdout"], seconds)
        return best


def print_line(name: str, found: dict[str, Any], seconds: float | None = None) -> None:
    """One line of figures."""
    cost = "" if seconds is None else f"  {seconds:6.0f} s of processor"
    measures = f"mAP {found['mean_ap']:.4f}  AUC {found['mean_auc']:.4f}  d' {found['d_prime']:.3f}"
    print(f"  {name:58s} {measures}{cost}", flush=True)


def compare(run: Run, seeds: range) -> None:
    """All heads on the evaluation clips, each seed, their mean, and the mean of our scores."""
    reached: dict[str, list[dict[str, Any]]] = {head: [] for head in (OURS, *PUBLISHED)}
    for seed in seeds:
        for head, results in reached.items():
            best = run.hold_out(head, head, seed)
            n_iterations = round(best / (1 - HOLDOUT))
            settings = {"head": head, "n_iterations": n_iterations, "eval_every": 0, "seed": seed}
            result, seconds = run.train(f"{head}-{seed}", eval_subset="eval", **settings)
            print_line(f"{head}, seed {seed}, {n_iterations} iterations, evaluation", result["eval"], seconds)
            results.append(result["eval"])
    means = {
        head: {name: np.mean([result[name] for result in results]) for name in ("mean_ap", "mean_auc", "d_prime")}
        for head, results in reached.items()
    }
    for head, mean in means.items():
        print_line(f"{head}, mean of {len(seeds)}", mean)
    best = {name: max(means[head][name] for head in PUBLISHED) for name in ("mean_ap", "mean_auc")}
    print_bound("mAP, ours over the best published", means[OURS]["mean_ap"] / best["mean_ap"], at_least=1.05)
    print_bound("AUC, ours less the best published", means[OURS]["mean_auc"] - best["mean_auc"], at_least=0)
    print_bound("mAP of one head", means[OURS]["mean_ap"], at_least=0.29)
    if len(seeds) > 1:
        average(run, seeds)


def average(run: Run, seeds: range) -> None:
    """The mean of the scores of several of our heads."""
    batch = (examples := load_examples(run.features, "eval")).batch(np.arange(len(examples)))
    lengths = batch.mask.sum(1).astype(int)
    models = [load_model(run.folder / f"{OURS}-{seed}") for seed in seeds]
    scores = np.mean([model.predict_embeddings(batch.embeddings, lengths) for model in models], axis=0)
    found = metrics.evaluate(scores, batch.targets > 0).as_dict()
    print_line(f"{len(models)} averaged, evaluation", found)
    print_bound("mAP of several heads averaged", found["mean_ap"], at_least=0.305)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features")
    parser.add_argument("--seeds", type=int, default=1, help="How many trainings of each head.")
    parser.add_argument("--quick", action="store_true", help="A quarter of the iterations, held-out clips alone.")
    parser.add_argument("--variants", nargs="*", metavar="NAME", help=f"Of: {', '.join(VARIANTS)}. Default: all.")
    parser.add_argument("--runs", metavar="FOLDER", help="Where runs are kept; finished ones are not trained again.")
    parser.add_argument("--threads", type=int, help="Default: all cores.")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(options.features, Path(options.runs or temporary), 0.25 if options.quick else 1.0)
        for seed in range(options.seeds) if options.variants is not None else ():
            for name in options.variants or VARIANTS:
                settings = dict(VARIANTS[name])
                run.hold_out(name, settings.pop("head", OURS), seed, **settings)
        if options.variants is None and options.quick:
            for head in (OURS, *PUBLISHED):
                run.hold_out(head, head, 0)
        elif options.variants is None:
            compare(run, range(options.seeds))


if __name__ == "__main__":
    main()
