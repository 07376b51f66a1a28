"""TFLite: the Keras model, converted by TensorFlow (an extra)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import Array
from audioset.errors import EngineError, MissingExtraError
from audioset.export.job import Job
from audioset.export.keras import choose_backend
from audioset.export.runner import Arrays, Runner, without_advice

SIGNATURE = "serving_default"
# Dense layers, which stay float32 in int8: they lose most.
FLOAT_LAYERS = "FULLY_CONNECTED"
MAX_RANGES = 100  # inputs that the converter sees for int8


def write(job: Job, path: Path) -> None:
    """Write a job's model; MissingExtraError without TensorFlow, EngineError if Keras has another backend."""
    tensorflow = _tensorflow()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise EngineError(
            f"TFLite is made by TensorFlow, and Keras's backend is {keras.backend.backend()}. Next step: set the "
            "environment variable KERAS_BACKEND to tensorflow, or leave it unset"
        )
    with _quiet(tensorflow):
        folder = path.with_suffix(".saved_model")
        job.model.to_keras().export(folder, format="tf_saved_model", verbose=False)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(str(folder))
        if job.is_int8:
            converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: _ranges(job)
            lite = tensorflow.lite.experimental
            options = lite.QuantizationDebugOptions(denylisted_ops=[FLOAT_LAYERS])
            debugger = lite.QuantizationDebugger(
                converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
            )
            data = debugger.get_nondebug_quantized_model()
        else:
            data = converter.convert()
        shutil.rmtree(folder)
    path.write_bytes(data)


def load(path: Path) -> Runner:
    """A file in TensorFlow's interpreter, on one core."""
    tensorflow = _tensorflow()
    with _quiet(tensorflow):
        interpreter = tensorflow.lite.Interpreter(str(path), num_threads=1)
    runner = interpreter.get_signature_runner(SIGNATURE)
    shapes = {
        name: [None if axis < 0 else int(axis) for axis in details["shape_signature"]]
        for name, details in runner.get_input_details().items()
    }

    def run(inputs: Arrays) -> dict[str, Array]:
        outputs = runner(**{name: np.ascontiguousarray(values) for name, values in inputs.items()})
        return {name: np.array(values) for name, values in outputs.items()}

    return Runner(run, f"tensorflow.lite {tensorflow.__version__}", list(shapes), shapes)


def _ranges(job: Job) -> Iterator[dict[str, Array]]:
    inputs = (seen for clip in job.calibration for seen in job.inputs_of(clip.waveform))
    for _, seen in zip(range(MAX_RANGES), inputs, strict=False):
        yield dict(seen)


def _tensorflow() -> Any:
    choose_backend(("tensorflow",))
    try:
        import tensorflow
    except ImportError as error:
        raise MissingExtraError("TFLite", "tensorflow", "tflite") from error
    return tensorflow


@contextmanager
def _quiet(tensorflow: Any) -> Iterator[None]:
    """Without TensorFlow's advice to use a package with another name."""
    logger = tensorflow.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with without_advice(UserWarning):
            yield
    finally:
        logger.setLevel(level)
