"""The network of a model in other frameworks: a PyTorch module, an ONNX file, a Keras model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audioset.arguments import check_choice
from audioset.errors import OutputError, UsageError
from audioset.files import write_atomically
from audioset.frontend.spec import FrontendSpec
from audioset.models.cards import find_labels, find_network, input_shape
from audioset.models.folders import load_weights, prepare_graph
from audioset.weights.model_folder import ModelCard


def check_export(input: str, choices: tuple[str, ...], **settings: float | str | None) -> None:
    """Refuse an input that a model's export cannot take, and settings of audio for one that takes embeddings."""
    check_choice("input", input, sorted(choices))
    given = [name for name, value in settings.items() if value is not None]
    if input == "embeddings" and given:
        raise UsageError(f"{', '.join(given)} are settings of audio, and an exported head takes embeddings")


def to_torch(card: ModelCard, folder: Path, spec: FrontendSpec | None) -> Any:
    """A module that takes what the network sees, or waveforms where a frontend is given; see ``Model.to_torch``."""
    from audioset.executors.torch import network_to_torch

    network = network_to_torch(find_network(card), load_weights(card, folder), card.arguments)
    if spec is None:
        return network
    from audioset.executors.torch_frontend import TorchFrontend, TorchModel

    return TorchModel(TorchFrontend(spec), network)


def to_onnx(card: ModelCard, folder: Path, spec: FrontendSpec | None, path: str | os.PathLike[str]) -> None:
    """Write a file that takes what the network sees, or waveforms where a frontend is given; see ``Model.to_onnx``."""
    data = prepare_graph(card, folder).to_onnx() if spec is None else _waveform_graph(card, folder, spec)
    try:
        write_atomically(Path(path), data)
    except OSError as error:
        raise OutputError(f"{os.fspath(path)} cannot be written: {error.strerror or error}") from error


def _waveform_graph(card: ModelCard, folder: Path, spec: FrontendSpec) -> bytes:
    from audioset.executors.onnx_frontend import label_metadata, waveform_to_onnx

    labels = find_labels(card)
    metadata = label_metadata(labels) if len(labels) else None
    return waveform_to_onnx(find_network(card), load_weights(card, folder), spec, card.arguments, metadata=metadata)


def to_keras(card: ModelCard, folder: Path) -> Any:
    """See ``Model.to_keras``."""
    from audioset.executors.keras import network_to_keras

    return network_to_keras(find_network(card), load_weights(card, folder), input_shape(card), card.arguments)
