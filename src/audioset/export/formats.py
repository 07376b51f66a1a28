"""The table of formats: what each can hold, what writes it and what reads it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from audioset.arguments import check_choice
from audioset.errors import UsageError

# What an exported model may take. Heads see embeddings, all other networks one of the first two.
INPUTS = ("waveform", "patches", "embeddings")
ALIASES = {"log-mel": "patches", "log_mel": "patches"}
FLOAT_BOUND = 1e-4  # on scores, and on embeddings relative to the largest: what an export may differ by from predict


@dataclass(frozen=True)
class Format:
    """One format that models are written in.

    Attributes
    ----------
    name : str
        As ``--format`` takes it.
    title : str
        For people.
    suffix : str
        Of the file.
    module : str
        Module of ``audioset.export`` with two functions: ``write(job, path)``, and ``load(path)``, which returns a
        ``runner.Runner``.
    inputs : tuple of str
        Those of ``INPUTS`` that it supports.
    has_clip_batch : bool
        Whether a waveform may be a batch (n_clips, n_samples). Any number of patches goes everywhere.
    has_int8 : bool
    metadata : str
        Where in the file labels and frontend are; empty where they are only in the card beside it.
    partner_suffix : str
        Of a second file that belongs to it; empty where there is none.
    bound : float
        Greatest difference that a float export may show.
    """

    name: str
    title: str
    suffix: str
    module: str
    inputs: tuple[str, ...]
    has_clip_batch: bool = False
    has_int8: bool = False
    metadata: str = ""
    partner_suffix: str = ""
    bound: float = FLOAT_BOUND


FORMATS = {
    kind.name: kind
    for kind in (
        Format(
            name="onnx",
            title="ONNX",
            suffix=".onnx",
            module="onnx",
            inputs=INPUTS,
            has_int8=True,
            metadata="metadata_props",
        ),
        Format(
            name="openvino",
            title="OpenVINO IR",
            suffix=".xml",
            module="openvino",
            inputs=INPUTS,
            has_int8=True,
            metadata="rt_info, under audioset",
            partner_suffix=".bin",
        ),
        Format(
            name="torchscript",
            title="TorchScript",
            suffix=".pt",
            module="torchscript",
            inputs=INPUTS,
            has_clip_batch=True,
            metadata="extra file audioset.json",
        ),
        Format(name="keras", title="Keras", suffix=".keras", module="keras", inputs=("patches", "embeddings")),
        Format(
            name="tflite",
            title="TFLite",
            suffix=".tflite",
            module="tflite",
            inputs=("patches", "embeddings"),
            has_int8=True,
        ),
    )
}


def find_format(to: str | None, output: Path) -> Format:
    """The format of that name; without one, that of the output's suffix.

    If there is none, the message of the UsageError lists those that there are.
    """
    if to is None:
        matching = [kind for kind in FORMATS.values() if kind.suffix == output.suffix.lower()]
        if not matching:
            suffixes = ", ".join(f"{kind.suffix} ({kind.name})" for kind in FORMATS.values())
            raise UsageError(
                f"the suffix of {output} names no format; expected one of {suffixes}. Next step: give --format"
            )
        return matching[0]
    check_choice("to", to, FORMATS)
    return FORMATS[to]


def choose_input(kind: Format, wanted: str | None, possible: Sequence[str]) -> str:
    """What the exported model takes: ``wanted``, of ``INPUTS`` or ``ALIASES``, or the first that both can.

    ``possible`` is what the model can take, the best first. UsageError, which says what there is, if the format or the
    model cannot.
    """
    both = [name for name in possible if name in kind.inputs]
    if wanted is None:
        return both[0]
    check_choice("input", wanted, (*INPUTS, *ALIASES))
    name = ALIASES.get(wanted, wanted)
    if name not in both:
        able = [other.name for other in FORMATS.values() if name in other.inputs]
        where = f" {name} exist for {', '.join(able)}." if name in possible else ""
        raise UsageError(
            f"{kind.title} of this model takes {' or '.join(both)}; {name} is asked for.{where} "
            f"Next step: --input {both[0]}" + (f", or --format {able[0]}" if where else "")
        )
    return name


def check_int8(kind: Format) -> None:
    """Refuse int8 where a format has none."""
    if not kind.has_int8:
        able = ", ".join(other.name for other in FORMATS.values() if other.has_int8)
        raise UsageError(
            f"{kind.title} has no int8 here; it exists for {able}. Next step: --format onnx, or leave out --int8"
        )
