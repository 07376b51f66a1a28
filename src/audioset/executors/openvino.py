"""Run an ONNX graph with OpenVINO: the default engine."""

from __future__ import annotations

import logging
import queue
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

from audioset.errors import EngineError
from audioset.executors.forks import check_not_forked
from audioset.networks.ops import Outputs

logger = logging.getLogger(__name__)

TELEMETRY = "openvino_telemetry"

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


class OpenVinoEngine:
    """A compiled graph that ``n_threads`` threads may call at once, each on one core.

    One stream a core, with the callers' threads doing the work, is faster than one stream over all cores:
    nothing waits for the slowest core after each layer.

    Parameters
    ----------
    graph : Path
        ONNX model as ``network_to_onnx`` writes it.
    precision : {"f32", "bf16"}
    n_threads : int
    cache_folder : Path
        Where compiled models are kept: a warm start loads instead of compiling.

    Raises
    ------
    EngineError
        bf16 is asked for and the processor lacks it, or the graph does not compile.
    """

    name = "openvino"

    def __init__(self, graph: Path, precision: str, n_threads: int, cache_folder: Path) -> None:
        core = import_openvino().Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError(
                f"bf16 is asked for, and this processor ({core.get_property('CPU', 'FULL_DEVICE_NAME')}) has no "
                'bfloat16 instructions. Next step: precision="f32"',
                code="precision",
            )
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": n_threads,
            "INFERENCE_NUM_THREADS": n_threads,
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled = _compile(core, graph, options, cache_folder / "openvino")
        self.n_threads = n_threads
        self._input_names = [value.any_name for value in self._compiled.inputs]
        self._output_names = [output.any_name for output in self._compiled.outputs]
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(n_threads):
            self._requests.put(self._compiled.create_infer_request())

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """Run the network.

        Parameters
        ----------
        *inputs : ndarray, float32
            What the network sees: patches (n_patches, n_frames, n_mels), waveforms (n_patches, n_samples), or both.

        Returns
        -------
        Outputs
            Arrays of the caller's own; ``logits`` are not computed.

        Raises
        ------
        EngineError
            In a fork of the process that loaded the model.
        """
        check_not_forked("OpenVINO")
        request = self._requests.get()
        try:
            for name, values in zip(self._input_names, inputs, strict=True):
                tensor = request.get_tensor(name)
                tensor.shape = values.shape
                np.copyto(tensor.data, values)
            request.infer()
            return Outputs(**{name: request.get_tensor(name).data.copy() for name in self._output_names})
        finally:
            self._requests.put(request)


def import_openvino() -> Any:
    """The module ``openvino``, which everything here takes from this function.

    Its import would send an event to an analytics host and write a folder into the user's home, if it found the
    package that does so; it does without.

    Raises
    ------
    EngineError
        In a fork of a process that used it.
    """
    check_not_forked("OpenVINO")
    is_free = TELEMETRY not in sys.modules
    if is_free:
        cast("dict[str, Any]", sys.modules)[TELEMETRY] = None  # with which an import of it fails
    try:
        import openvino
    finally:
        if is_free:
            del sys.modules[TELEMETRY]
    return openvino


def _compile(core: Any, graph: Path, options: dict[str, Any], cache_folder: Path) -> Any:
    """Compile with the cache; a damaged or unwritable cache costs time, not the run."""
    try:
        return core.compile_model(str(graph), "CPU", {**options, "CACHE_DIR": str(cache_folder)})
    except RuntimeError as error:
        logger.info("compiling %s with the cache failed (%s); compiling without", graph, error)
    try:
        return core.compile_model(str(graph), "CPU", options)
    except RuntimeError as error:
        raise EngineError(
            f"OpenVINO cannot compile {graph}: {error}. Likely cause: a damaged file in the cache. "
            f"Next step: delete {graph} and run again"
        ) from error
