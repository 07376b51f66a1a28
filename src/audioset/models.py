"""The table of models: which network, frontend, labels and files belong to a name."""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset import __version__, assets
from audioset.errors import OutputError, UsageError, WeightsError
from audioset.frontend import VGGISH, YAMNET, FrontendSpec
from audioset.labels import NAMES as LABEL_SETS
from audioset.labels import LabelSet
from audioset.networks.ops import Network, Outputs, trace_shapes
from audioset.networks.vggish import vggish
from audioset.networks.yamnet import yamnet
from audioset.weights.keras_h5 import read_keras_h5
from audioset.weights.model_folder import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    read_card,
    read_weights,
    write_atomically,
    write_model_folder,
)
from audioset.weights.tf_checkpoint import read_tf_checkpoint

logger = logging.getLogger(__name__)

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
WeightReader = Callable[[Path, Mapping[str, tuple[int, ...]]], dict[str, FloatArray]]

NETWORKS: dict[str, Network] = {"yamnet": yamnet, "vggish": vggish}
FRONTENDS: dict[str, FrontendSpec] = {spec.name: spec for spec in (YAMNET, VGGISH)}
NO_LABELS = ""  # of a network that only embeds


@dataclass(frozen=True)
class ModelSpec:
    """One published model.

    Attributes
    ----------
    name : str
    network, frontend, labels : str
        Keys of ``NETWORKS`` and ``FRONTENDS``, and the name of a label set or ``NO_LABELS``.
    weights : str
        Asset with the published checkpoint.
    reader : function
        Reads that checkpoint.
    summary, source : str
        One line for people; where the original is.
    mean_ap : float or None
        Published mean average precision on the AudioSet evaluation set; None for a network that only embeds.
    n_parameters : int
    arguments : dict
        Keyword arguments of the network.
    postprocessor : str or None
        Asset with the parameters that quantise its embeddings.
    """

    name: str
    network: str
    frontend: str
    labels: str
    weights: str
    reader: WeightReader
    summary: str
    source: str
    mean_ap: float | None
    n_parameters: int
    arguments: dict[str, Any] = field(default_factory=dict)
    postprocessor: str | None = None


MODELS = {
    model.name: model
    for model in (
        ModelSpec(
            name="yamnet",
            network="yamnet",
            arguments={"n_classes": 521},
            frontend="yamnet",
            labels="yamnet-521",
            weights="yamnet.h5",
            reader=read_keras_h5,
            summary="MobileNet v1 on 0.96 s patches; 521 classes; embeddings of 1,024",
            source="https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
            mean_ap=0.306,  # its README, on 20,366 evaluation clips
            n_parameters=3_751_369,
        ),
        ModelSpec(
            name="vggish",
            network="vggish",
            arguments={"activation": None},
            frontend="vggish",
            labels=NO_LABELS,
            weights="vggish_model.ckpt",
            reader=read_tf_checkpoint,
            summary="VGG-like network on 0.96 s patches; embeddings of 128, as in the released features",
            source="https://github.com/tensorflow/models/tree/master/research/audioset/vggish",
            mean_ap=None,
            n_parameters=72_141_184,
            postprocessor="vggish_pca_params.npz",
        ),
    )
}


def find_model(name: str) -> ModelSpec:
    """The row of a published model.

    Raises
    ------
    UsageError
        If there is none of that name; the message lists the names.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(
            f"there is no model {name!r}{hint}; expected one of {', '.join(MODELS)}, or a folder with {CARD_NAME}"
        )
    return MODELS[name]


def prepare_model(
    name: str, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> tuple[ModelCard, Path]:
    """Card of a model, and the folder with its weights, which are converted once and kept in the cache.

    Parameters
    ----------
    name : str
        A published model, or the path of a model folder.
    weights : Path, optional
        A checkpoint of the user's own, in the published format.
    arguments : mapping, optional
        Arguments of the network in place of the published ones.

    Returns
    -------
    card : ModelCard
    folder : Path

    Raises
    ------
    UsageError, AssetError, WeightsError, OutputError
    """
    folder = Path(name)
    if (folder / CARD_NAME).is_file():
        if weights is not None:
            raise UsageError(f"{folder} is a model folder and brings its own weights; leave out weights={weights}")
    else:
        folder = _converted_folder(find_model(name), weights)
    card = read_card(folder)
    if arguments:
        card = replace(card, arguments={**card.arguments, **arguments})
        try:
            network_shapes(card)
        except WeightsError as error:
            raise UsageError(str(error)) from error
    return card, folder


def prepare_graph(card: ModelCard, folder: Path) -> Path:
    """Path of a model's ONNX graph, which is made once and kept in the cache.

    Its input is ``patches``; its outputs are ``embeddings`` and, for a tagger, ``scores``.
    """
    graph = assets.cache_folder() / "graphs" / f"{_fingerprint(folder / WEIGHTS_NAME, card)}.onnx"
    if not graph.is_file():
        data = _make_graph(folder, card)
        _write(lambda: write_atomically(graph, data))
    return graph


def network_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a card's network."""
    return _trace(card)[0]


def output_shapes(card: ModelCard) -> Outputs[tuple[int, ...]]:
    """Shapes of what a card's network makes of one patch."""
    return _trace(card)[1]


def find_network(card: ModelCard) -> Network:
    """The network that a card names."""
    if card.network not in NETWORKS:
        raise WeightsError(f"the model's network is {card.network!r}; expected one of {', '.join(NETWORKS)}")
    return NETWORKS[card.network]


def load_weights(card: ModelCard, folder: Path) -> dict[str, FloatArray]:
    """The weights in a model folder, each by its published name, checked against the network."""
    return read_weights(folder, network_shapes(card))


def find_frontend(card: ModelCard) -> FrontendSpec:
    """The frontend that a card names."""
    if card.frontend not in FRONTENDS:
        raise WeightsError(f"the model's frontend is {card.frontend!r}; expected one of {', '.join(FRONTENDS)}")
    return FRONTENDS[card.frontend]


def find_labels(card: ModelCard) -> LabelSet:
    """The label set that a card names, one label for each of the network's classes."""
    if card.labels not in (NO_LABELS, *LABEL_SETS):
        raise WeightsError(f"the model's label set is {card.labels!r}; expected one of {', '.join(LABEL_SETS)}")
    labels = LabelSet((), ()) if card.labels == NO_LABELS else LabelSet.load(card.labels)
    scores = output_shapes(card).scores
    n_classes = 0 if scores is None else scores[0]
    if n_classes != len(labels):
        raise WeightsError(f"the model has {n_classes} classes, and its label set {card.labels!r} has {len(labels)}")
    return labels


def _trace(card: ModelCard) -> tuple[dict[str, tuple[int, ...]], Outputs[tuple[int, ...]]]:
    """Shapes of the parameters and outputs of a card's network."""
    frontend = find_frontend(card)
    try:
        return trace_shapes(find_network(card), (frontend.patch_frames, frontend.n_mels), card.arguments)
    except TypeError as error:
        raise WeightsError(f"{card.network!r} cannot have the arguments {card.arguments}: {error}") from error


def _converted_folder(spec: ModelSpec, weights: Path | None) -> Path:
    """Model folder in the cache with the checkpoint's weights, converted at first use."""
    checkpoint = weights or assets.get_asset(spec.weights)
    if not checkpoint.is_file():
        raise WeightsError(f"the weights {checkpoint} are not a file; expected a checkpoint like {spec.weights}")
    folder = assets.cache_folder() / "models" / f"{spec.name}-{_fingerprint(checkpoint)}"
    if not (folder / CARD_NAME).is_file():
        card = _make_card(spec, checkpoint)
        tensors = spec.reader(checkpoint, network_shapes(card))
        _write(lambda: write_model_folder(folder, card, tensors))
    if weights is None and not read_card(folder).source["is_published"]:
        logger.warning("%s is not the published file (its hash differs); it is used as it is", checkpoint)
    return folder


def _make_card(spec: ModelSpec, checkpoint: Path) -> ModelCard:
    asset = assets.ASSETS[spec.weights]
    try:
        digest = assets.hash_file(checkpoint, asset.digest.partition(":")[0])
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
            "is_published": digest == asset.digest,
            "url": asset.url,
        },
    )


def _make_graph(folder: Path, card: ModelCard) -> bytes:
    from audioset.executors.onnx import network_to_onnx

    frontend = find_frontend(card)
    weights = load_weights(card, folder)
    return network_to_onnx(find_network(card), weights, (frontend.patch_frames, frontend.n_mels), card.arguments)


def _fingerprint(path: Path, card: ModelCard | None = None) -> str:
    """Identity of a file's contents, of the code that converts it and of what it is used for, without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        raise WeightsError(f"the weights {path} cannot be read: {error.strerror}") from error
    identity = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{__version__}:{card}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _write(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise OutputError(
            f"the cache {assets.cache_folder()} cannot be written: {error.strerror or error}. "
            "Next step: free some space, or set AUDIOSET_CACHE to another folder"
        ) from error
