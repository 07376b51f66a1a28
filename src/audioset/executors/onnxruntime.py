"""Run an ONNX graph with ONNX Runtime (an extra)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.cache import Graph
from audioset.errors import EngineError, MissingExtraError
from audioset.networks.ops import Outputs


def import_onnxruntime(purpose: str) -> Any:
    """The module ``onnxruntime``, which everything here takes from this function.

    By itself it would keep events in a database in the user's cache, and send them to its maker. Who wants that can set
    ``ORT_DISABLE_TELEMETRY`` to 0. MissingExtraError where it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when the library is loaded
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(purpose, "onnxruntime", "onnxruntime") from error
    return onnxruntime


class OnnxRuntimeEngine:
    """A session in f32 that ``n_threads`` threads may call at once, each on one core.

    The graph is made anew at each start; nothing is kept. EngineError for another precision, or a graph that does not
    load.
    """

    name = "onnxruntime"

    def __init__(self, graph: Graph, precision: str, n_threads: int) -> None:
        onnxruntime = import_onnxruntime('engine="onnxruntime"')
        if precision != "f32":
            raise EngineError(
                f'engine="onnxruntime" runs in f32 only; {precision} is asked for. Next step: engine="openvino"',
                code="precision",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the parallelism is in the calls
        options.log_severity_level = 4
        data = graph.to_onnx()
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no public base class
            raise EngineError(f"ONNX Runtime cannot load {graph.name}: {error}") from error
        self.n_threads = n_threads
        self._input_names = [value.name for value in self._session.get_inputs()]
        self._output_names = [output.name for output in self._session.get_outputs()]

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """Run the network; parameters and result as ``OpenVinoEngine``."""
        feeds = dict(zip(self._input_names, map(np.ascontiguousarray, inputs), strict=True))
        values = self._session.run(self._output_names, feeds)
        return Outputs(**dict(zip(self._output_names, values, strict=True)))
