"""Card and weights of a model: of its folder, or of a folder of the cache that stands for a published checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from audioset import __version__, assets, cache
from audioset.arrays import FloatArray
from audioset.cache import Graph
from audioset.errors import UsageError, WeightsError
from audioset.files import is_file, read_blocks
from audioset.models.cards import find_network, input_shape, network_shapes
from audioset.models.published import MODELS, ModelSpec, bundled_models, find_model
from audioset.records import TEXT, read_json
from audioset.weights.model_folder import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    card_to_bytes,
    copy_model_folder,
    read_card,
    read_weights,
    weights_to_bytes,
    write_model_folder,
)

logger = logging.getLogger(__name__)
ORIGIN_NAME = "checkpoint.json"  # of a folder of the cache: which model and file it stands for


def prepare_model(
    name: str, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> tuple[ModelCard, Path]:
    """Card of a model, and its folder: a model folder, or one of the cache that stands for a published checkpoint.

    ``name`` is a published model, a bundled one, or the path of a model folder. ``weights`` is a checkpoint of the
    user's own, in the published format; ``arguments`` are those of the network, in place of the published ones.
    UsageError, AssetError, WeightsError or OutputError.
    """
    folder = Path(name)
    if not is_file(folder / CARD_NAME):
        folder = bundled_models().get(name, folder)
    if is_file(folder / CARD_NAME):
        if weights is not None:
            raise UsageError(f"{folder} is a model folder and brings its own weights; leave out weights={weights}")
    else:
        folder = _kept_folder(find_model(name), weights)
    card = read_card(folder)
    if arguments:
        card = replace(card, arguments={**card.arguments, **arguments})
        try:
            network_shapes(card)
        except WeightsError as error:
            raise UsageError(str(error)) from error
    return card, folder


def prepare_graph(card: ModelCard, folder: Path) -> Graph:
    """A model's ONNX graph, made when an engine asks for it, and where the cache has what the engine makes of it.

    Its inputs and outputs are those of ``executors.onnx.network_to_onnx``. The cache has the weights once, in that
    form: whoever needs them as they were published reads the checkpoint, see ``load_weights``.
    """
    identity = hashlib.sha256(f"{__version__}:{card}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Graph(f"{_entry(folder)}/graph-{identity}", partial(_make_graph, folder, card))


def load_weights(card: ModelCard, folder: Path) -> dict[str, FloatArray]:
    """The weights of a model, each by its published name, checked against the network.

    They are those of its folder or, of a published model, of its checkpoint.
    """
    shapes = network_shapes(card)
    checkpoint = _checkpoint(folder)
    if checkpoint is None:
        return read_weights(folder, shapes)
    name, path = checkpoint
    return MODELS[name].reader(path, shapes)


def hash_weights(state: Any, card: ModelCard, folder: Path) -> None:
    """Feed a hash of ``hashlib`` with a model's weights, as ``model.safetensors`` has them or would have them."""
    if _checkpoint(folder) is None:
        for block in read_blocks(folder / WEIGHTS_NAME):
            state.update(block)
    else:
        state.update(weights_to_bytes(load_weights(card, folder)))


def digest_model(card: ModelCard, folder: Path) -> str:
    """Identity of what a model makes of audio: SHA-256 of its network, arguments, frontend, backbone and weights."""
    record = [card.network, card.arguments, card.frontend, card.backbone]
    state = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    hash_weights(state, card, folder)
    return state.hexdigest()


def digest_weights(card: ModelCard, folder: Path) -> str:
    """SHA-256 of a model's weights, as ``assets.hash_file`` writes it."""
    state = hashlib.sha256()
    hash_weights(state, card, folder)
    return f"sha256:{state.hexdigest()}"


def copy_model(card: ModelCard, folder: Path, target: Path, new_card: ModelCard) -> None:
    """Write a model folder with the weights of a model and another card; WeightsError or OutputError."""
    if _checkpoint(folder) is None:
        copy_model_folder(folder, target, new_card)
    else:
        write_model_folder(target, new_card, load_weights(card, folder))


def _kept_folder(spec: ModelSpec, weights: Path | None) -> Path:
    """Folder in the cache with the card of a checkpoint, made at first use."""
    checkpoint = weights or assets.get_asset(spec.weights)
    if not is_file(checkpoint):
        raise WeightsError(f"the weights {checkpoint} are not a file; expected a checkpoint like {spec.weights}")
    entry = cache.entry_name(spec.name, _fingerprint(checkpoint))
    origin = {"model": spec.name, "path": str(checkpoint.resolve())}
    cache.keep_file(f"{entry}/{ORIGIN_NAME}", lambda: json.dumps(origin).encode())
    folder = cache.keep_file(f"{entry}/{CARD_NAME}", lambda: card_to_bytes(_make_card(spec, checkpoint))).parent
    if weights is None and not read_card(folder).source["is_published"]:
        logger.warning("%s is not the published file (its hash differs); it is used as it is", checkpoint)
    return folder


def _checkpoint(folder: Path) -> tuple[str, Path] | None:
    """Name of the published model that a folder of the cache stands for, and its checkpoint; None for model folders."""
    if (folder / WEIGHTS_NAME).is_file() or not cache.is_whole(folder / ORIGIN_NAME):
        return None
    origin = read_json(folder / ORIGIN_NAME, {"model": TEXT, "path": TEXT}, WeightsError)
    path = Path(origin["path"])
    if origin["model"] not in MODELS or not folder.name.endswith(f"-{_fingerprint(path)}"):
        raise WeightsError(
            f"the checkpoint {path} is not the one that {folder} was made from. Next step: load the model by its name, "
            "with weights= if they are your own"
        )
    return origin["model"], path


def _entry(folder: Path) -> str:
    """Where the cache has what was made from a model's weights."""
    if _checkpoint(folder) is not None:
        return f"{cache.MODELS}/{folder.name}"
    return cache.entry_name(folder.resolve().name, _fingerprint(folder / WEIGHTS_NAME))


def _make_card(spec: ModelSpec, checkpoint: Path) -> ModelCard:
    asset = assets.ASSETS[spec.weights]
    try:
        digest = assets.hash_file(checkpoint, asset.digest.partition(":")[0] or "sha256")
    except OSError as error:
        raise WeightsError(f"the weights {checkpoint} cannot be read: {error.strerror or error}") from error
    return ModelCard(
        network=spec.network,
        arguments=spec.arguments,
        frontend=spec.frontend,
        labels=spec.labels,
        licence=asset.licence,
        source={
            "file": checkpoint.name,
            "digest": digest,
            "is_published": asset.digest in ("", digest),  # as assets.is_published, without reading the file again
            "url": asset.url,
        },
    )


def _make_graph(folder: Path, card: ModelCard) -> bytes:
    from audioset.executors.onnx import network_to_onnx

    weights = load_weights(card, folder)
    return network_to_onnx(find_network(card), weights, input_shape(card), card.arguments)


def _fingerprint(path: Path) -> str:
    """Identity of a file's contents and of the code that converts it, without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        raise WeightsError(f"the weights {path} cannot be read: {error.strerror}") from error
    identity = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{__version__}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
