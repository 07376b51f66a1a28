"""Export a model: write it, load it again, compare, and only then give the file its name."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from audioset.arguments import check_path
from audioset.assets import hash_file
from audioset.errors import AudioSetError, ExportError, UsageError
from audioset.export.check import Accuracy, Latency, Parity, compare, measure_accuracy, measure_latency
from audioset.export.clips import CalibrationClips, read_calibration
from audioset.export.formats import Format, check_int8, choose_input, find_format
from audioset.export.job import Job, possible_inputs
from audioset.export.runner import Runner
from audioset.files import exists, flush, flush_tree, is_file, is_folder, partial_folder, read_input
from audioset.models.loading import load_model
from audioset.models.model import Model

logger = logging.getLogger(__name__)

CARD_SUFFIX = ".json"  # after the whole name of the file
CARD_FORMAT = 1
MAX_ACCURACY_DROP = 2.0  # points


@dataclass(frozen=True)
class ExportResult:
    """One exported model.

    Attributes
    ----------
    path : Path
        The file; for OpenVINO the one with the graph.
    files : tuple of Path
        All of them, without the card.
    card : Path
        What ``to_dict`` says, and more, as JSON.
    format, input, precision : str
        As asked for; the precision is ``"f32"`` or ``"int8"``.
    parity : Parity
    latency : Latency
    size_bytes : int
        Of all files.
    runtime : str
        What it was checked in.
    accuracy : Accuracy or None
        Of int8, where the calibration clips have labels that the model has.
    n_failed_clips : int
        Calibration clips that could not be read.
    """

    path: Path
    files: tuple[Path, ...]
    card: Path
    format: str
    input: str
    precision: str
    parity: Parity
    latency: Latency
    size_bytes: int
    runtime: str
    accuracy: Accuracy | None = None
    n_failed_clips: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: paths are text."""
        values = asdict(self)
        accuracy = None if self.accuracy is None else {**values["accuracy"], "drop_points": self.accuracy.drop_points}
        return {
            **values,
            "path": str(self.path),
            "files": [str(path) for path in self.files],
            "card": str(self.card),
            "accuracy": accuracy,
        }


def export_model(
    model: str | os.PathLike[str] | Model,
    output: str | os.PathLike[str],
    *,
    to: str | None = None,
    input: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
    max_accuracy_drop: float = MAX_ACCURACY_DROP,
    overwrite: bool = False,
) -> ExportResult:
    """Write a model in another format, load it again with that format's own runtime, and compare.

    Parameters
    ----------
    model : str, path or Model
        A published name, a model folder, or a model that is loaded.
    output : path
        The file to write, or a folder to write it in. An earlier export is replaced when the new file has passed.
    to : {"onnx", "openvino", "torchscript", "keras", "tflite"}, optional
        Default: as the suffix of ``output`` says.
    input : {"waveform", "patches", "embeddings"}, optional
        What the exported model takes: samples at the model's rate, log-mel patches, or, for a head, embeddings.
        Default: the first of these that the format and the model have.
    calibration : path, optional
        Clips to calibrate int8 on, as ``export.clips.read_calibration`` reads: the network becomes int8. If the
        clips have labels that the model has, accuracy is measured too. Default: float32.
    max_accuracy_drop : float
        Points of accuracy that int8 may lose.
    overwrite : bool
        Whether to replace any other file, too.

    Returns
    -------
    ExportResult
        A card with the same beside the file, under its name and ``.json``.

    Raises
    ------
    UsageError
        A format, input or combination that there is not; the message lists those that there are. A file of the name
        that no export wrote.
    ConflictError
        Another process is writing the file.
    ExportError
        The export differs by more than ``Format.bound``, 1e-4 on scores and on embeddings relative to the largest, or
        int8 loses more accuracy than it may. No file is left.
    MissingExtraError, EngineError
        The framework is not installed.
    NoInputError
        None of the calibration clips can be used.
    OutputError
        The disk is full, or the place does not allow it.
    AssetError, WeightsError
        As ``load_model``.
    """
    output = check_path("output", output)
    kind = find_format(to, Path(output))
    name = _name(model)
    path = _target(Path(output), names_folder=output.endswith(("/", os.sep)), name=name, kind=kind)
    if not overwrite:
        _check_free(path, kind)
    if calibration is not None:
        check_int8(kind)
    loaded = model if isinstance(model, Model) else load_model(model, n_threads=1)
    job = Job(loaded, name, choose_input(kind, input, possible_inputs(loaded)))
    clips = None if calibration is None else read_calibration(calibration, loaded.labels, loaded.frontend)
    job = replace(job, calibration=clips.ranges if clips else ())
    module = import_module(f"audioset.export.{kind.module}")  # before a folder is made: it may not be installed
    with partial_folder(path) as folder:
        written = folder / path.name
        module.write(job, written)
        result = _check(job, kind, path, module, written, clips, max_accuracy_drop)
        card = {**result.to_dict(), **_card(job, kind, written, result)}
        (folder / result.card.name).write_text(json.dumps(card, indent=2, ensure_ascii=False), encoding="utf-8")
        _move(folder, path)
    return result


def _check(
    job: Job,
    kind: Format,
    path: Path,
    module: Any,
    written: Path,
    clips: CalibrationClips | None,
    max_accuracy_drop: float,
) -> ExportResult:
    """What was written, loaded again and measured; ExportError if it is too far from its model."""
    runner = _load(module, written)
    parity = compare(job, runner, clips.measured if clips else (), has_clip_batch=kind.has_clip_batch)
    accuracy = measure_accuracy(job, runner, clips.measured) if clips and len(job.model.labels) else None
    _check_bounds(job, kind, runner, parity, accuracy, max_accuracy_drop)
    files = _files(path, kind)
    return ExportResult(
        path=path,
        files=files,
        card=path.with_name(path.name + CARD_SUFFIX),
        format=kind.name,
        input=job.input,
        precision=str(job.facts["precision"]),
        parity=parity,
        latency=measure_latency(job, runner),
        size_bytes=sum((written.parent / file.name).stat().st_size for file in files),
        runtime=runner.runtime,
        accuracy=accuracy,
        n_failed_clips=clips.n_failed if clips else 0,
    )


def _check_bounds(
    job: Job, kind: Format, runner: Runner, parity: Parity, accuracy: Accuracy | None, max_accuracy_drop: float
) -> None:
    """Refuse a file that is too far from its model."""
    if job.is_int8 and not math.isfinite(parity.greatest):
        raise ExportError(
            f"the int8 {kind.title} file does not give numbers, or not as many as its model. It was not kept. "
            "Next step: leave out int8"
        )
    if not job.is_int8 and not parity.greatest <= kind.bound:
        raise ExportError(
            f"the {kind.title} file is {parity.greatest:.1e} from the model's own scores or embeddings; the bound is "
            f"{kind.bound:.0e}. It was not kept. Likely cause: weights far outside the usual range, or another version "
            f"of {runner.runtime}. Next step: try another format, such as --format onnx"
        )
    if accuracy and accuracy.drop_points > max_accuracy_drop:
        raise ExportError(
            f"int8 loses {accuracy.drop_points:.1f} points of accuracy on {accuracy.n_clips} clips "
            f"({100 * accuracy.audioset:.1f} % to {100 * accuracy.export:.1f} %); {max_accuracy_drop:g} are allowed. "
            "It was not kept. Next step: calibrate on more clips, such as the model will hear, or leave out int8"
        )


def _load(module: Any, written: Path) -> Runner:
    """The file in its own runtime, whose errors share no base class."""
    try:
        runner: Runner = module.load(written)
    except (AudioSetError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ExportError(f"what was written cannot be loaded again: {error}. It was not kept") from error
    return runner


def _card(job: Job, kind: Format, written: Path, result: ExportResult) -> dict[str, Any]:
    """What people and programs need to know of the file beside what was measured."""
    return {
        **job.facts,
        "card_format": CARD_FORMAT,
        "format_title": kind.title,
        "bound": None if job.is_int8 else kind.bound,
        "reference": f"Model.predict, {job.model.engine.name} f32",
        "metadata_in_file": kind.metadata or None,
        "n_calibration_clips": len(job.calibration),
        "digests": {path.name: f"sha256:{hash_file(written.with_name(path.name))}" for path in result.files},
    }


def _name(model: str | os.PathLike[str] | Model) -> str:
    """What a model is called: its published name, or that of its folder."""
    if isinstance(model, Model):
        return model.folder.resolve().name
    return Path(os.fspath(model)).resolve().name


def _target(output: Path, *, names_folder: bool, name: str, kind: Format) -> Path:
    """The file to write."""
    if names_folder or is_folder(output):
        return output / f"{name}{kind.suffix}"
    if output.suffix.lower() != kind.suffix:
        raise UsageError(
            f"the file is {output.name}; expected a name that ends in {kind.suffix}, as {kind.title} has it. "
            f"Next step: --output {output.with_suffix(kind.suffix)}"
        )
    return output


def _check_free(path: Path, kind: Format) -> None:
    """Refuse to replace files that no export wrote: those that their card does not know by their digest."""
    card_path = path.with_name(path.name + CARD_SUFFIX)
    try:
        card = json.loads(read_input(card_path))
        digests = card["digests"] if card["card_format"] == CARD_FORMAT else {}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        digests = {}
    foreign = [card_path] if exists(card_path) and not digests else []
    for file in _files(path, kind):
        if exists(file) and not (is_file(file) and digests.get(file.name) == f"sha256:{hash_file(file)}"):
            foreign.append(file)
    if foreign:
        raise UsageError(
            f"{foreign[0]} is there already, and is not an export's, or was changed since. "
            "Next step: choose another name, or --overwrite"
        )


def _files(path: Path, kind: Format) -> tuple[Path, ...]:
    """All files of an export, without the card."""
    return (path, *([path.with_suffix(kind.partner_suffix)] if kind.partner_suffix else []))


def _move(folder: Path, path: Path) -> None:
    """Give the files their names, the main one last."""
    flush_tree(folder)
    for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
        file.replace(path.parent / file.name)
    flush(path.parent)
