"""Run an ONNX graph with OpenVINO: the default engine."""

from __future__ import annotations

import logging
import queue
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from audioset import cache
from audioset.arrays import FloatArray
from audioset.cache import Graph
from audioset.errors import AudioSetError, EngineError
from audioset.executors.forks import check_not_forked
from audioset.files import temporary_folder
from audioset.networks.ops import Outputs

logger = logging.getLogger(__name__)

TELEMETRY = "openvino_telemetry"
BLOB_SUFFIX = ".blob"
MAX_BLOBS = 8  # of one network: they depend on the number of threads, the processor and the version
NETWORK_NAMES = ("network.xml", "network.bin")  # the graph, and its weights


class OpenVinoEngine:
    """A compiled graph that ``n_threads`` threads may call at once, each on one core.

    One stream a core, with the callers' threads doing the work, is faster than one stream over all cores: nothing waits
    for the slowest core after each layer. The cache keeps the graph in OpenVINO's form, which is mapped, not read, and
    what the compiler found out, without the weights: a warm start of VGGish takes a tenth of the time that its ONNX
    model would take. EngineError if bf16 is asked for and the processor lacks it, or the graph does not compile.
    """

    name = "openvino"

    def __init__(self, graph: Graph, precision: str, n_threads: int) -> None:
        core = openvino_core()
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
        self._compiled = _compile(core, graph, options)
        self.n_threads = n_threads
        self._input_names = [value.any_name for value in self._compiled.inputs]
        self._output_names = [output.any_name for output in self._compiled.outputs]
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(n_threads):
            self._requests.put(self._compiled.create_infer_request())

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """Run the network on patches (n_patches, n_frames, n_mels), waveforms (n_patches, n_samples), or both, float32.

        The arrays of ``Outputs`` are the caller's own; ``logits`` are not computed. EngineError in a fork of the
        process that loaded the model.
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

    Its import would send an event to an analytics host and write a folder into the user's home, if it found the package
    that does so; it does without. EngineError in a fork of a process that used it.
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


def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, which lasts as long as the process.

    Each one gives its thread an alternate stack for signals. Of several that are deleted in another order than they
    were made, the thread is left with a stack that is gone, and dies of the next signal, as of Ctrl-C. EngineError in a
    fork of a process that used it.
    """
    import_openvino()
    return _make_core()


@lru_cache(maxsize=1)
def _make_core() -> Any:
    return import_openvino().Core()


def _compile(core: Any, graph: Graph, options: dict[str, Any]) -> Any:
    """Compile, with what is kept of an earlier time if it fits its checksum.

    OpenVINO writes to its cache in place, and reads whatever is there. So it gets a folder of its own, with copies of
    what is whole, and what it adds is kept by us: a killed run or another process never leaves it a part of a file.
    """
    network = _read(core, graph)
    if not isinstance(network, Path):
        return _compile_plain(core, network, options, graph.name)
    try:
        with temporary_folder() as private:
            kept = {path.name for path in network.parent.glob(f"*{BLOB_SUFFIX}") if cache.is_whole(path)}
            for name in kept:
                shutil.copyfile(network.parent / name, private / name)
            cached = {**options, "CACHE_DIR": str(private), "CACHE_MODE": "OPTIMIZE_SIZE"}
            compiled = core.compile_model(str(network), "CPU", cached)
            with suppress(OSError):  # costs the next start time, and this one nothing
                for path in private.glob(f"*{BLOB_SUFFIX}"):
                    if path.name not in kept:
                        cache.put(network.parent / path.name, path.read_bytes())
                cache.drop_damaged(network.parent, BLOB_SUFFIX, MAX_BLOBS)
            return compiled
    except (RuntimeError, OSError, AudioSetError) as error:
        logger.info("compiling %s with the cache failed (%s); compiling without", network, error)
    return _compile_plain(core, str(network), options, str(network))


def _read(core: Any, graph: Graph) -> Any:
    """Path of a network in the cache, made if it is missing or does not fit; itself where it cannot be kept."""
    folder = cache.cache_folder() / graph.name
    if _is_whole(folder):
        return folder / NETWORK_NAMES[0]
    model = core.read_model(graph.to_onnx(), b"")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        cache.sweep(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent, ignore_cleanup_errors=True) as private:
            made = Path(private, folder.name)
            made.mkdir()
            import_openvino().save_model(model, str(made / NETWORK_NAMES[0]), compress_to_fp16=False)
            cache.put_folder(made, folder)
    except (OSError, RuntimeError) as error:  # OpenVINO's own, for a full disk
        if not _is_whole(folder):  # else another process was faster
            cache.warn_unwritable(
                cache.cache_folder(), getattr(error, "strerror", None) or f"{error}; likely a full disk"
            )
            return model
    return folder / NETWORK_NAMES[0]


def _is_whole(folder: Path) -> bool:
    return all(cache.is_whole(folder / name) for name in NETWORK_NAMES)


def _compile_plain(core: Any, network: Any, options: dict[str, Any], name: str) -> Any:
    try:
        return core.compile_model(network, "CPU", options)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot compile {name}: {error}") from error
