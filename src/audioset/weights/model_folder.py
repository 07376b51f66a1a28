"""A model folder: ``model.safetensors`` with the weights, ``model.json`` with everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import WeightsError
from audioset.files import check_regular, replacing, write_atomically
from audioset.records import DAMAGE, Kind, decode_json, read_bounded, shown

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "model.json"
FORMAT = 1
FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "network": (str,),
    "arguments": (dict,),
    "frontend": (str,),
    "labels": (str, list),
    "licence": (str,),
    "source": (dict,),
}
MAX_DEPTH, MAX_ENTRIES, MAX_ARGUMENT = 6, 64, 1 << 20
OPTIONAL = {"calibration": dict, "backbone": str}  # a card leaves out what its model has not


def _is_argument(value: Any, depth: int = 0) -> bool:
    """Whether a value is one that a network may be told, so that what it asks for can be worked out in no time."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return len(value) <= MAX_ENTRIES and all(_is_argument(entry, depth + 1) for entry in inner)
    if isinstance(value, str):
        return len(value) <= MAX_ARGUMENT
    return value is None or (isinstance(value, (bool, int, float)) and abs(value) <= MAX_ARGUMENT)


ARGUMENTS = Kind(f"names with texts, lists of at most {MAX_ENTRIES} and numbers up to {MAX_ARGUMENT:,}", _is_argument)


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says."""

    network: str  # name of a network in ``audioset.models.cards``
    arguments: dict[str, Any]  # its keyword arguments
    frontend: str  # name of a frontend in ``audioset.models.cards``
    labels: str | list[str]  # name of a label set, or the model's own labels, which are their own ids
    licence: str
    source: dict[str, Any]  # where the weights come from: file, digest, url, is_published
    format: int = FORMAT
    # Not shown: graphs in the cache are named by what a card shows, and do not depend on it.
    # The record of a ``Calibration``: the model's own thresholds and maps of scores.
    calibration: dict[str, Any] | None = field(default=None, repr=False)
    # Of a head: the published model whose embeddings it classifies; None stands for ``vggish``.
    backbone: str | None = field(default=None, repr=False)


def write_model_folder(folder: Path, card: ModelCard, weights: Mapping[str, FloatArray]) -> None:
    """Write a model folder, made if need be; files of the same names are replaced.

    The card comes last, so a folder that has one is complete.
    """
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(value) for name, value in weights.items()}
    with replacing(folder / WEIGHTS_NAME) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(contiguous, temporary)  # from the arrays to the disk, without a copy of them all
        temporary.chmod(mode)  # safetensors lets nobody but the owner read it
    _write_card(folder, card)


def copy_model_folder(source: Path, target: Path, card: ModelCard) -> None:
    """Write a model folder with the weights of another, or a new card if both are the same folder.

    The weights are copied, not linked: a program that changes a file in place must not change two models. The target is
    made if need be; files of the same names are replaced. WeightsError if the source has no weights.
    """
    weights = target / WEIGHTS_NAME
    if not (source / WEIGHTS_NAME).is_file():
        raise WeightsError(f"{source} is not a model folder: it has no {WEIGHTS_NAME}")
    if not (weights.exists() and weights.samefile(source / WEIGHTS_NAME)):
        with replacing(weights) as temporary:
            shutil.copyfile(source / WEIGHTS_NAME, temporary)
    _write_card(target, card)


def weights_to_bytes(weights: Mapping[str, FloatArray]) -> bytes:
    """What ``write_model_folder`` writes as ``model.safetensors``."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in weights.items()})


def card_to_bytes(card: ModelCard) -> bytes:
    """What ``model.json`` holds."""
    values = {name: value for name, value in asdict(card).items() if name not in OPTIONAL or value is not None}
    return json.dumps(values, indent=2).encode()


def _write_card(folder: Path, card: ModelCard) -> None:
    write_atomically(folder / CARD_NAME, card_to_bytes(card))


def read_card(folder: Path) -> ModelCard:
    """Read ``model.json``; WeightsError if it is missing, is not JSON, or lacks a field."""
    path = folder / CARD_NAME
    try:
        values = decode_json(read_bounded(path, WeightsError), str(path), WeightsError)
        known = {field.name for field in fields(ModelCard)}
        card = ModelCard(**{key: value for key, value in values.items() if key in known})
    except WeightsError as error:
        raise WeightsError(f"{path} is not the card of a model: {error}") from error
    except OSError as error:
        raise WeightsError(f"{folder} is not a model folder: {CARD_NAME} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is not the card of a model: {error}") from error
    for name, kinds in FIELD_TYPES.items():
        if not isinstance(getattr(card, name), kinds):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise WeightsError(f"{path}: {name!r} is {getattr(card, name)!r}; expected {expected}")
    if not ARGUMENTS.fits(card.arguments):
        raise WeightsError(f"{path}: 'arguments' is {shown(card.arguments)}; expected {ARGUMENTS.expected}")
    if isinstance(card.labels, list) and not all(isinstance(label, str) for label in card.labels):
        raise WeightsError(f"{path}: 'labels' has entries that are not strings; expected the names of classes")
    for name, kind in OPTIONAL.items():
        if not isinstance(getattr(card, name), kind | None):
            raise WeightsError(f"{path}: {name!r} is {getattr(card, name)!r}; expected {kind.__name__}")
    if card.format != FORMAT:
        raise WeightsError(
            f"{path} has format {card.format!r}; this version reads format {FORMAT}. Next step: update audioset"
        )
    return card


def read_weights(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Read ``model.safetensors`` and check it against what the network needs.

    WeightsError, which names it: a damaged file, a missing tensor, a wrong shape or dtype, NaN.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_NAME
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:  # maps it: what the network has not is not read
            names = set(file.keys())
            weights = {name: file.get_tensor(name) for name in shapes if name in names}
    except (SafetensorError, *DAMAGE) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from error
    for name, shape in shapes.items():
        if name not in weights:
            raise WeightsError(f"{path} has no tensor {name!r}, which the network needs")
        if weights[name].shape != shape:
            raise WeightsError(f"{path}: {name!r} has shape {weights[name].shape}; expected {shape}")
        if weights[name].dtype.kind != "f":
            raise WeightsError(f"{path}: {name!r} has dtype {weights[name].dtype}; expected floating-point weights")
        if not np.isfinite(weights[name]).all():
            raise WeightsError(f"{path}: {name!r} holds NaN or infinite values; expected finite weights")
    return {name: weights[name].astype(np.float32, copy=False) for name in shapes}
