"""What exports differ by, cost and weigh: every model in every format that can be made here.

    python benchmarks/bench_export.py [MODEL ...] [--int8 CLIPS] [--format FORMAT,FORMAT]

MODEL is a published name or a model folder; by default yamnet, mn04 and a classifier with generated last layers.
With clips, int8 is measured too; if they are folders by class that the model knows, so is its accuracy.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from report import print_bound

from audioset.errors import AudioSetError
from audioset.export import FORMATS, ExportResult, export_model
from audioset.models.cards import network_shapes
from audioset.models.folders import load_weights, prepare_model
from audioset.weights.model_folder import write_model_folder

ACCURACY_BOUND = 2.0  # points


def generated_classifier(folder: Path) -> Path:
    """mn04 with ten classes of its own, whose weights are generated."""
    card, backbone = prepare_model("mn04")
    arguments = {key: value for key, value in card.arguments.items() if key != "n_classes"}
    own = {"backbone": card.network, "backbone_arguments": arguments, "n_classes": 10, "hidden_size": 64}
    card = replace(card, network="classifier", arguments=own, labels=[f"class {n}" for n in range(10)])
    rng = np.random.default_rng(0)
    shapes = network_shapes(card)
    published = load_weights(prepare_model("mn04")[0], backbone)
    weights = {name: published.get(name, rng.normal(0, 0.1, shape)) for name, shape in shapes.items()}
    write_model_folder(folder, card, {name: value.astype(np.float32) for name, value in weights.items()})
    return folder


def row(name: str, result: ExportResult) -> str:
    parity, latency = result.parity, result.latency
    scores = "" if parity.scores is None else f"{parity.scores:.1e}"
    accuracy = "" if result.accuracy is None else f"{-result.accuracy.drop_points:+.1f}"
    cells = (
        name,
        FORMATS[result.format].title,
        result.input,
        result.precision,
        scores,
        f"{parity.embeddings:.1e}",
        f"{latency.export_ms:.2f}",
        f"{latency.audioset_ms:.2f}",
        f"{result.size_bytes / 1e6:.1f}",
        accuracy,
        result.runtime,
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*")
    parser.add_argument("--int8", metavar="CLIPS")
    parser.add_argument("--format", dest="to", default=",".join(FORMATS))
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.models or ["yamnet", "mn04", str(generated_classifier(Path(folder) / "classifier"))]
        print("| model | format | takes | precision | scores | embeddings | ms/s | here | MB | points | checked in |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for model in models:
            for to in arguments.to.split(","):
                kind = FORMATS[to]
                precisions = [None, arguments.int8] if arguments.int8 and kind.has_int8 else [None]
                for calibration in precisions:
                    try:
                        result = export_model(model, folder, to=to, calibration=calibration, max_accuracy_drop=100)
                    except AudioSetError as error:
                        print(f"{model}, {to}: {error}")
                        continue
                    print(row(Path(model).name, result), flush=True)
                    results.append(result)
    print()
    floats = [result.parity.greatest for result in results if result.precision == "f32"]
    drops = [result.accuracy.drop_points for result in results if result.accuracy]
    if floats:
        print_bound("greatest difference of float exports, × 1e-4", max(floats) / 1e-4, at_most=1)
    if drops:
        print_bound("accuracy that int8 loses, points", max(drops), at_most=ACCURACY_BOUND)


if __name__ == "__main__":
    main()
