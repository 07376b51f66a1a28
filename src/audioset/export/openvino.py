"""OpenVINO's intermediate representation: a file with the graph and one with the weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

from audioset.errors import OutputError
from audioset.executors.openvino import import_openvino, openvino_core
from audioset.export import onnx as onnx_export
from audioset.export.job import Job
from audioset.export.runner import load_in_openvino

load = load_in_openvino
SECTION = "audioset"  # of the file's rt_info


def write(job: Job, path: Path) -> None:
    """Write a job's model: ``path``, an ``.xml``, and the weights beside it, whose suffix is ``.bin``.

    MissingExtraError as ``export.onnx.write``; OutputError if the disk is full.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        graph = Path(folder) / "graph.onnx"
        onnx_export.write(job, graph)
        model = openvino_core().read_model(str(graph))
        for key, value in job.metadata.items():
            model.set_rt_info(value, [SECTION, key])
        try:
            import_openvino().save_model(model, str(path), compress_to_fp16=False)
        except RuntimeError as error:  # it says so of a disk that is full
            raise OutputError(f"cannot write {path}: {error}. Next step: free some space there") from error
