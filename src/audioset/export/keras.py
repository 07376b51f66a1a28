"""Keras: a ``.keras`` file of Keras's own layers, which ``keras.models.load_model`` reads on any backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from audioset.arrays import Array
from audioset.export.job import Job
from audioset.export.runner import Arrays, Runner, without_advice

BACKENDS = ("tensorflow", "torch", "jax")


def choose_backend(backends: Sequence[str] = BACKENDS) -> None:
    """Let Keras take the first of these that is installed, unless it is imported or the user has chosen.

    Its own default is TensorFlow, installed or not. The variable is taken back: Keras reads it once, when imported.
    """
    here = [name for name in backends if find_spec(name) is not None]
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ or not here:
        return
    os.environ["KERAS_BACKEND"] = here[0]
    try:
        with suppress(ImportError):  # told where it is used
            import keras  # noqa: F401
    finally:
        del os.environ["KERAS_BACKEND"]


def write(job: Job, path: Path) -> None:
    """Write a job's model as ``.keras``; MissingExtraError or EngineError without Keras, or without a backend."""
    choose_backend()
    with without_advice():
        job.model.to_keras().save(path)


def load(path: Path) -> Runner:
    """A file as Keras itself loads it, with the backend that it has."""
    choose_backend()
    import keras

    with without_advice():
        model = keras.models.load_model(path)
    names = [value.name for value in model.inputs]

    def run(inputs: Arrays) -> dict[str, Array]:
        arrays = [np.ascontiguousarray(values) for values in inputs.values()]
        seen = arrays[0] if len(arrays) == 1 else dict(zip(inputs, arrays, strict=True))
        with without_advice():
            return dict(model.predict_on_batch(seen))

    shapes = {value.name: list(value.shape) for value in model.inputs}
    return Runner(run, f"keras {keras.__version__} on {keras.backend.backend()}", names, shapes)
