"""Train the classifier that the package brings, measure it, and write it into the source tree with its cards.

``src/audioset/bundled/vggish-audioset527`` gets the weights in float16, ``model.json`` and ``CARD.md``. Every figure is
computed from these weights, loaded as a user loads them, on all evaluation clips.

    audioset data features convert features.tar.gz features/ --format arrays
    python tools/make_bundled_classifier.py features/ [--run FOLDER]

A run that is stopped goes on if --run is given, and a run that is finished is not trained again. The same version of
PyTorch on the same processor makes the same bytes.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from audioset import __version__, load_model, metrics
from audioset.assets import hash_file
from audioset.labels.labels import LabelSet
from audioset.metrics.resampling import draw
from audioset.train import read_config, train
from audioset.train.heads.examples import Examples, load_examples
from audioset.weights.model_folder import WEIGHTS_NAME, ModelCard, read_card, write_model_folder

NAME = "vggish-audioset527"
TARGET = Path(__file__).parent.parent / "src" / "audioset" / "bundled" / NAME
HEAD, SEED = "two-branch", 0
SUMMARY = "head on VGGish's embeddings of clips of up to 10 s; 527 classes; made by audioset"
LICENCE = "CC-BY-4.0"
ATTRIBUTION = (
    "Trained on the AudioSet features and labels by Google, https://research.google.com/audioset/download.html, "
    'licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/). Gemmeke et al., "Audio Set: An '
    'ontology and human-labeled dataset for audio events", ICASSP 2017.'
)
PLACES = ("features", "eval_features")  # settings that say where files were, not what was done
MEASURES = {"mean_ap": "mAP", "mean_auc": "AUC", "d_prime": "d′", "lwlrap": "lwlrap"}
CONFIDENCE = 0.95
N_RESAMPLES = 1_000
MOST_BYTES = 12_000_000


@dataclass(frozen=True)
class Measured:
    """What the weights reach, and how far that would move had other clips been drawn."""

    metrics: metrics.Metrics
    intervals: dict[str, list[float]]
    class_intervals: np.ndarray


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "features", help="Folder of audioset data features convert --format arrays, with bal_train and eval."
    )
    parser.add_argument("--run", help="Folder of the training run. Default: one that is deleted.")
    parser.add_argument("--target", type=Path, default=TARGET, help="Where the model goes. Default: the source tree.")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums are added in an order that the number of threads decides
    with tempfile.TemporaryDirectory() as temporary:
        run, trial = Path(options.run or f"{temporary}/run"), Path(temporary) / "model"
        train(run_settings(options.features), run, lambda line: print(line, flush=True))
        weights = {name: value.astype(np.float16) for name, value in load_file(run / WEIGHTS_NAME).items()}
        trained = read_card(run)
        write_model_folder(trial, published_card(trained), weights)
        digest, n_bytes = hash_file(trial / WEIGHTS_NAME), (trial / WEIGHTS_NAME).stat().st_size
        if n_bytes > MOST_BYTES:
            raise SystemExit(f"the weights have {n_bytes:,} bytes; expected at most {MOST_BYTES:,}")
        measured = measure(trial, load_examples(options.features, "eval"))
    card = published_card(trained, digest, measured)
    write_model_folder(options.target, card, weights)
    (options.target / WEIGHTS_NAME).chmod(0o644)  # it is installed with the rights that it has here
    (options.target / "CARD.md").write_text(card_page(card, measured, n_bytes), encoding="utf-8")
    print("\n".join(overall_rows(measured)))


def run_settings(features: str) -> Any:
    """The head's own recipe on all balanced training clips; nothing is looked at before the end."""
    return read_config(
        features=features,
        eval_subset="eval",
        head=HEAD,
        seed=SEED,
        precision="bf16",
        eval_every=0,
        checkpoint_every=0,
    )


def published_card(card: ModelCard, digest: str = "", measured: Measured | None = None) -> ModelCard:
    """The card of a run as that of the model: what was done, without where."""
    source = {
        "file": WEIGHTS_NAME,
        "digest": digest,
        "url": "",
        "is_published": True,
        "summary": SUMMARY,
        "attribution": ATTRIBUTION,
        "recipe": f"tools/make_bundled_classifier.py, seed {SEED}",
        "config": {name: value for name, value in card.source["config"].items() if name not in PLACES},
        "data_digest": card.source["data_digest"],
        "made_with": {"audioset": __version__, "torch": torch.__version__, "machine": platform.machine()},
        "metrics": {} if measured is None else {**measured.metrics.as_dict(), "intervals": measured.intervals},
    }
    return ModelCard(card.network, card.arguments, card.frontend, card.labels, LICENCE, source, backbone="vggish")


def measure(folder: Path, examples: Examples) -> Measured:
    """Metrics of the stored weights on clips, with intervals by the bootstrap over clips."""
    positions = np.arange(len(examples))
    batch = examples.batch(positions)
    targets = batch.targets > 0
    scores = load_model(folder).predict_embeddings(batch.embeddings, batch.mask.sum(1).astype(int))
    resamples = metrics.bootstrap(scores, targets, n_resamples=N_RESAMPLES)
    intervals = {name: resamples.interval(name, CONFIDENCE).tolist() for name in ("mean_ap", "mean_auc", "d_prime")}
    intervals["lwlrap"] = lwlrap_interval(scores, targets)
    return Measured(metrics.evaluate(scores, targets), intervals, resamples.interval("ap", CONFIDENCE))


def lwlrap_interval(scores: np.ndarray, targets: np.ndarray) -> list[float]:
    """As ``Bootstrap.interval`` for lwlrap, which is a mean over the labels of all clips."""
    n_labels = targets.sum(1)
    of_clips = np.array(
        [metrics.lwlrap(scores[i : i + 1], targets[i : i + 1]) if n else 0 for i, n in enumerate(n_labels)]
    )
    weights = draw(len(scores), 0, range(N_RESAMPLES)).astype(float)
    values = (n_labels * of_clips) @ weights / (n_labels @ weights)
    tail = (1 - CONFIDENCE) / 2
    shift = metrics.lwlrap(scores, targets) - values.mean()
    return (np.quantile(values, [tail, 1 - tail]) + shift).tolist()


def overall_rows(measured: Measured) -> list[str]:
    """The table of all metrics."""
    rows = [f"| metric | value | {CONFIDENCE:.0%} interval |", "| --- | --- | --- |"]
    for name, title in MEASURES.items():
        low, high = measured.intervals[name]
        rows.append(f"| {title} | {getattr(measured.metrics, name):.4f} | {low:.4f} to {high:.4f} |")
    return rows


def class_rows(measured: Measured) -> list[str]:
    """The table of all classes, the best first."""
    rows = [f"| class | id | clips | AP | {CONFIDENCE:.0%} interval | AUC | d′ |", "| --- " * 7 + "|"]
    table = measured.metrics.classes.rows(LabelSet.load("audioset-527"))
    for row in sorted(table, key=lambda row: -row["ap"]):
        low, high = measured.class_intervals[:, row["label_index"]]
        rows.append(
            f"| {row['label']} | {row['label_id']} | {row['n_positives']} | {row['ap']:.3f} | {low:.3f} to {high:.3f} "
            f"| {row['auc']:.3f} | {row['d_prime']:.2f} |"
        )
    return rows


def card_page(card: ModelCard, measured: Measured, n_bytes: int) -> str:
    """``CARD.md``."""
    settings = "\n".join(f"| `{name}` | {value!r} |" for name, value in card.source["config"].items() if value != "")
    return CARD.format(
        name=NAME,
        n_bytes=n_bytes,
        n_clips=measured.metrics.n_clips,
        seed=SEED,
        data_digest=card.source["data_digest"],
        attribution=ATTRIBUTION,
        settings=settings,
        overall="\n".join(overall_rows(measured)),
        n_resamples=N_RESAMPLES,
        classes="\n".join(class_rows(measured)),
        **{f"made_{key}": value for key, value in card.source["made_with"].items()},
    )


CARD = """# {name}

A classifier of the 527 classes of AudioSet on the embeddings that AudioSet was released with: 128 bytes for each
second, made by VGGish. It takes a clip of any number of seconds; it was trained on clips of up to ten.

```python
import audioset

model = audioset.load_model("{name}")
scores = model.predict_embeddings(embeddings)  # (n_seconds, 128) uint8 -> (527,)
```

That needs nothing but the package. Scores of audio (`model.predict_file`) need VGGish's own files too, which are
fetched from their publisher.

## Data

Trained on the 22,160 clips of the balanced training subset, measured on all {n_clips:,} clips of the evaluation subset.
Everything was chosen on clips kept from training. {attribution}

The labels of AudioSet are incomplete: a label that is not there does not say that the sound is not there. They are
those of videos on YouTube, in which speech and music are far more frequent than other sounds. Scores are not
probabilities, and which threshold is right depends on the class.

## Recipe

The head `two-branch` of `audioset.networks.two_branch`, by `python tools/make_bundled_classifier.py FEATURES` (seed
{seed}, audioset {made_audioset}, PyTorch {made_torch}, {made_machine}). The weights are stored as float16, {n_bytes:,}
bytes. SHA-256 of the data: `{data_digest}`.

| setting | value |
| --- | --- |
{settings}

## Results

Of the stored weights, on the evaluation subset. The intervals are those of other clips of the same kind, by
{n_resamples:,} resamples; they say nothing of another training.

{overall}

## Licence

The weights are licensed under [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/), as the features and labels
that they were made of.

## Classes

{classes}
"""


if __name__ == "__main__":
    main()
