"""ONNX: the graph that ``Model.to_onnx`` writes, with more metadata, or its int8 form."""

from __future__ import annotations

from pathlib import Path

import onnx

from audioset.arrays import Array
from audioset.errors import MissingExtraError
from audioset.executors.onnxruntime import import_onnxruntime
from audioset.export.job import Job
from audioset.export.runner import Arrays, Runner, bind, load_in_openvino

RUNTIME = "onnxruntime"


def write(job: Job, path: Path) -> None:
    """Write a job's model.

    MissingExtraError if int8 is asked for, and ONNX Runtime, which quantises, is not installed.
    """
    job.model.to_onnx(path, input=job.input)
    if job.is_int8:
        from audioset.export.quantise import quantise

        quantise(path, job)
    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {**known, **job.metadata})
    path.write_bytes(model.SerializeToString())


def load(path: Path) -> Runner:
    """A file, ready to run on one core: in ONNX Runtime, or in OpenVINO where that is not installed."""
    try:
        onnxruntime = import_onnxruntime("an ONNX file")
    except MissingExtraError:
        return load_in_openvino(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    input_names = [value.name for value in session.get_inputs()]
    output_names = [value.name for value in session.get_outputs()]

    def run(inputs: Arrays) -> dict[str, Array]:
        return dict(zip(output_names, session.run(output_names, bind(input_names, inputs)), strict=True))

    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    return Runner(run, f"onnxruntime {onnxruntime.__version__}", input_names, shapes)
