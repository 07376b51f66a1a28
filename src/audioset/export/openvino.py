"""OpenVINO's intermediate representation: a file with the graph and one with the weights."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from audioset.errors import OutputError
from audioset.export import onnx as onnx_export
from audioset.export.job import Job
from audioset.export.runner import Arrays, Runner

SECTION = "audioset"  # of the file's rt_info


def write(job: Job, path: Path) -> None:
    """Write a job's model: ``path``, and the weights beside it, whose suffix is ``.bin``.

    Parameters
    ----------
    job : Job
    path : Path
        Ends in ``.xml``.

    Raises
    ------
    MissingExtraError
        As ``export.onnx.write``.
    OutputError
        The disk is full.
    """
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        graph = Path(folder) / "graph.onnx"
        onnx_export.write(job, graph)
        model = openvino.Core().read_model(str(graph))
        for key, value in job.metadata.items():
            model.set_rt_info(value, [SECTION, key])
        try:
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except RuntimeError as error:  # it says so of a disk that is full
            raise OutputError(f"cannot write {path}: {error}. Next step: free some space there") from error


def load(path: Path) -> Runner:
    """A file, compiled for one core in float32."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    input_names = [value.any_name for value in compiled.inputs]
    output_names = [value.any_name for value in compiled.outputs]

    def run(inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        request.infer(dict(zip(input_names, map(np.ascontiguousarray, inputs.values()), strict=True)))
        return {name: request.get_tensor(name).data.copy() for name in output_names}

    shapes = {value.any_name: _shape(value) for value in (*compiled.inputs, *compiled.outputs)}
    return Runner(run, f"openvino {openvino.__version__.partition('-')[0]}", input_names, shapes)


def _shape(value: Any) -> list[int | None]:
    return [axis.get_length() if axis.is_static else None for axis in value.partial_shape]
