"""``audioset export``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from audioset.cli.echo import echo
from audioset.cli.options import OVERWRITE, json_flag, option, print_result, takes
from audioset.export.formats import ALIASES, FORMATS, INPUTS

if TYPE_CHECKING:
    from audioset.export import ExportResult

# How to run a file, in three lines; {path} is its name, {sees} what it takes.
SNIPPETS = {
    "onnx": (
        "import onnxruntime",
        "session = onnxruntime.InferenceSession({path!r})",
        "outputs = session.run(None, {{{sees!r}: {sees}}})",
    ),
    "openvino": (
        "import openvino",
        'model = openvino.Core().compile_model({path!r}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
        "outputs = model({{{sees!r}: {sees}}})",
    ),
    "torchscript": (
        "import torch",
        "model = torch.jit.load({path!r})",
        "outputs = model(torch.from_numpy({sees}))",
    ),
    "keras": ("import keras", "model = keras.models.load_model({path!r})", "outputs = model({sees})"),
    "tflite": (
        "from ai_edge_litert.interpreter import Interpreter",
        "run = Interpreter({path!r}).get_signature_runner()",
        "outputs = run({sees}={sees})",
    ),
}
DESCRIPTIONS = {
    "waveform": "float32 in [-1, 1], mono, {rate:,} Hz",
    "patches": "float32 log-mel patches; the card has the frontend",
    "embeddings": "float32 bytes (n_clips, n_seconds, 128), and a mask after them",
}


@dataclass(frozen=True)
class ExportOptions:
    """What is written, and where."""

    format_name: str | None = option(
        f"{', '.join(FORMATS)}. Default: as the suffix of --output says.", "FORMAT", "--format", old="--to"
    )
    output: str = option("The file, or a folder to write it in.", "PATH", "--output -o", required=True)
    input_name: str | None = option(
        f"What the file takes: {', '.join((*INPUTS, *list(ALIASES)[:1]))}. Default: waveform where the format can.",
        "WHAT",
        "--input",
    )
    int8: bool = option("Quantise the network; needs --calibration.")
    calibration: str | None = option("Sounds such as the model will hear: a folder, or a table.", "CLIPS")
    max_accuracy_drop: float = option(
        "What int8 may lose on calibration clips with labels.", "POINTS", default=2.0, at_least=0, at_most=100
    )
    overwrite: bool = option(OVERWRITE)
    as_json: bool = json_flag("The result as JSON.")


@click.command(short_help="Write a model as ONNX, OpenVINO, TorchScript, Keras or TFLite.")
@click.argument("model")
@takes(wanted=ExportOptions)
def export(model: str, wanted: ExportOptions) -> None:
    """Write MODEL, a published name or a model folder, in another format.

    The file is loaded again in its own runtime and compared with the model on sounds of several lengths. If scores or
    embeddings differ by more than 1e-4, the command fails and leaves no file. A card with labels, frontend and what was
    measured is written beside it, as FILE.json.

    \b
    Examples:
      audioset export yamnet --output yamnet.onnx
      audioset export my_model/ --format openvino --output exports/
      audioset export mn04 --format keras --input log-mel --output mn04.keras
      audioset export my_model/ --output my_model.onnx --int8 --calibration sounds/
    """
    if wanted.int8 != (wanted.calibration is not None):
        raise click.UsageError(
            "--int8 and --calibration CLIPS belong together: ranges are measured on sounds such as the model will hear."
        )
    from audioset.export import export_model

    result = export_model(
        model,
        wanted.output,
        to=wanted.format_name,
        input=wanted.input_name,
        calibration=wanted.calibration,
        max_accuracy_drop=wanted.max_accuracy_drop,
        overwrite=wanted.overwrite,
    )
    print_result(wanted.as_json, result.to_dict, lambda: _lines(result))
    if not wanted.as_json:
        echo("\n".join(_next_step(result)), err=True)


def _lines(result: ExportResult) -> list[str]:
    """The result as a small table."""
    parity, latency, accuracy = result.parity, result.latency, result.accuracy
    scores = "no scores" if parity.scores is None else f"{parity.scores:.1e} on scores (mean {parity.mean_scores:.1e})"
    rows = {
        "format": f"{FORMATS[result.format].title}, {result.precision}, takes {result.input}",
        "file": ", ".join(map(str, result.files)),
        "card": str(result.card),
        "size": f"{result.size_bytes / 1e6:.1f} MB",
        "difference": f"at most {scores}, {parity.embeddings:.1e} on embeddings; {len(parity.cases)} sounds",
        "latency": f"{latency.export_ms:.2f} ms for a second of audio on one core; here {latency.audioset_ms:.2f} ms",
        "checked in": result.runtime,
    }
    if accuracy:
        rows["accuracy"] = (
            f"{100 * accuracy.export:.1f} % on {accuracy.n_clips} clips; before {100 * accuracy.audioset:.1f} %"
        )
    width = max(map(len, rows))
    return [f"{key:{width}s}  {value}" for key, value in rows.items()]


def _next_step(result: ExportResult) -> list[str]:
    """How to run the file."""
    sees = {"embeddings": "input_embeddings" if result.format in ("onnx", "openvino") else "embeddings"}
    names = {"path": str(result.path), "sees": sees.get(result.input, result.input)}
    rate = json.loads(result.card.read_text(encoding="utf-8"))["sample_rate"]
    what = DESCRIPTIONS[result.input].format(rate=rate)
    return [
        "",
        f"To run it ({names['sees']}: {what}):",
        *(f"  {line.format(**names)}" for line in SNIPPETS[result.format]),
    ]
