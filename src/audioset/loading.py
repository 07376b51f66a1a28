"""Load a model by its name or from its folder: ``load_model``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from audioset.concurrency import available_cores
from audioset.errors import UsageError
from audioset.head_model import HeadModel
from audioset.models import prepare_model, sees_embeddings
from audioset.predict import (
    ENGINE_NAMES,
    PRECISIONS,
    Model,
    check_choice,
    make_engine,
)


def load_model(
    name: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    precision: str = "f32",
    engine: str = "openvino",
    n_threads: int | None = None,
    **arguments: Any,
) -> Model:
    """Load a published model, or a model folder.

    Parameters
    ----------
    name : str or path
        ``"yamnet"``, ``"vggish"`` or another that ``audioset models list`` shows; ``"vggish-audioset527"``, the head
        that the package brings; or a folder with ``model.json`` and ``model.safetensors``.
    weights : path, optional
        A checkpoint of your own in the published format. Default: the published file, looked for in the
        folders of ``AUDIOSET_ASSETS``, then in the cache, then downloaded.
    precision : {"f32", "bf16"}
        bf16 is several times faster on processors that have it, and moves scores by up to 0.06.
    engine : {"openvino", "onnxruntime", "torch"}
        ``"torch"`` computes on the processor; for a GPU, see ``Model.to_torch``.
    n_threads : int, optional
        Cores to use. Default: all that this process may use.
    **arguments
        Arguments of the network, such as ``activation="relu"`` for VGGish.

    Returns
    -------
    Model
        A ``HeadModel`` for a head: a classifier of embeddings.

    Raises
    ------
    UsageError
        An unknown name, precision, engine or argument.
    AssetError, WeightsError
        The weights are missing, cannot be fetched, or are not this network's.
    EngineError, MissingExtraError
        The engine or the precision is not available here.
    """
    check_choice("precision", precision, PRECISIONS)
    check_choice("engine", engine, ENGINE_NAMES)
    if n_threads is not None and n_threads < 1:
        raise UsageError(f"n_threads is {n_threads}; expected 1 or more, or None for all cores")
    card, folder = prepare_model(os.fspath(name), Path(weights) if weights is not None else None, arguments)
    made = make_engine(engine, card, folder, precision, n_threads or available_cores())
    return HeadModel(card, folder, made, precision) if sees_embeddings(card) else Model(card, folder, made)
