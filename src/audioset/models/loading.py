"""Load a model by its name or from its folder: ``load_model``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from audioset.arguments import check_choice, check_count, check_path
from audioset.concurrency import available_cores
from audioset.models.cards import sees_embeddings
from audioset.models.engines import ENGINE_NAMES, PRECISIONS, make_engine
from audioset.models.folders import prepare_model
from audioset.models.head_model import HeadModel, head_engine
from audioset.models.model import Model
from audioset.weights.model_folder import ModelCard


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
        A ``HeadModel`` for a head: a classifier of embeddings. It can be pickled, and is loaded again where it is
        unpickled, with the same arguments.

    Raises
    ------
    UsageError
        An unknown name, precision, engine or argument.
    AssetError, WeightsError
        The weights are missing, cannot be fetched, or are not this network's.
    EngineError, MissingExtraError
        The engine or the precision is not available here.
    """
    name = check_path("name", name)
    weights = None if weights is None else Path(check_path("weights", weights))
    check_choice("precision", precision, PRECISIONS)
    check_choice("engine", engine, ENGINE_NAMES)
    n_cores = available_cores() if n_threads is None else check_count("n_threads", n_threads)
    card, folder = prepare_model(name, weights, arguments)
    model = open_model(card, folder, engine, precision, n_cores)
    model.reload = partial(
        load_model,
        str(Path(name).absolute()) if Path(name).is_dir() else name,  # the other process may be in another folder
        weights=weights and weights.absolute(),
        precision=precision,
        engine=engine,
        n_threads=n_threads,
        **arguments,
    )
    return model


def open_model(card: ModelCard, folder: Path, engine: str, precision: str, n_threads: int) -> Model:
    """A model of a card and the weights of its folder, checked and ready to run; see ``load_model``."""
    made = make_engine(engine, card, folder, precision, n_threads)
    model = (
        HeadModel(card, folder, head_engine(card, made, precision))
        if sees_embeddings(card)
        else Model(card, folder, made)
    )
    model.ready()
    return model
