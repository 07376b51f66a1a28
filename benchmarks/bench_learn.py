"""Learn spoken digits from embeddings: how often right, against plain logistic regression, and how long it takes.

    python benchmarks/bench_learn.py [--model NAME]

The four speakers of ``spoken_digits.tar.gz`` are the groups.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from digits import GROUP, unpacked
from report import print_bound
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from audioset.sounds.reading import read_collection
from audioset.sounds.splits import fold_by_group
from audioset.train.classifier.embeddings import embed_collection

# backbone: what is asked for by file and by speaker
BOUNDS = {"yamnet": (0.84, 0.355), "mn04": (0.94, 0.40)}
FIRST_S, AGAIN_S = 60.0, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", dest="backbone", choices=BOUNDS, action="append")
    arguments = parser.parse_args()
    with unpacked() as digits:
        for backbone in arguments.backbone or BOUNDS:
            with tempfile.TemporaryDirectory() as folder:
                measure(digits, backbone, Path(folder))


def measure(digits: Path, backbone: str, folder: Path) -> None:
    print(f"{backbone}, {sum(1 for _ in digits.rglob('*.wav')):,} clips")
    os.environ["AUDIOSET_CACHE"] = str(folder / "cache")
    record, first_s = learn(digits, folder / "first", "--model", backbone, "--group", GROUP)
    _, again_s = learn(digits, folder / "again", "--model", backbone, "--hidden", "32")
    print_bound("first run, embeddings to report", first_s, at_most=FIRST_S, unit="s")
    print_bound("again, with another head", again_s, at_most=AGAIN_S, unit="s")
    found = {each["name"]: each for each in record["evaluations"]}
    for (name, bound), rival in zip(
        (("by file", BOUNDS[backbone][0]), ("by group", BOUNDS[backbone][1])), rivals(digits, backbone), strict=True
    ):
        print_bound(f"balanced accuracy {name}", found[name]["balanced_accuracy"], at_least=bound)
        print(f"  {'plain logistic regression, ' + name:44s} {rival:8.3f}")
    for fold in found["by group"]["folds"]:
        print(f"    never heard: {fold['name']:29s} {fold['accuracy']:8.3f}")
    print()


def learn(digits: Path, output: Path, *options: str) -> tuple[dict[str, Any], float]:
    """What a run of the command says, and its seconds, the start of Python included."""
    command = [*audioset(), "train", "classifier", str(digits), "--output", str(output), "--json", "--quiet", *options]
    start = time.perf_counter()
    text = run(command)
    return json.loads(text), time.perf_counter() - start


def rivals(digits: Path, backbone: str) -> tuple[float, float]:
    """Accuracy of scikit-learn's logistic regression on standardised mean embeddings, by file and by speaker."""
    found = embed_collection(read_collection(digits, group=GROUP), backbone)
    targets = found.collection.targets().argmax(axis=1)
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    speakers = fold_by_group(found.collection, 100)
    by_speaker = [(np.flatnonzero(speakers != fold), np.flatnonzero(speakers == fold)) for fold in np.unique(speakers)]
    by_file = cross_val_score(plain, found.means, targets, cv=folds)
    return float(by_file.mean()), float(cross_val_score(plain, found.means, targets, cv=by_speaker).mean())


def audioset() -> list[str]:
    return [sys.executable, "-m", "audioset"]


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
