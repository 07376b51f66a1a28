"""An exported model, loaded again and ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.executors.openvino import import_openvino, openvino_core

Arrays = Mapping[str, FloatArray]
Shape = Sequence[str | int | None]


@dataclass(frozen=True)
class Runner:
    """A loaded export."""

    # From inputs, in the order in which the network takes them, to outputs by name.
    run: Callable[[Arrays], Mapping[str, Array]]
    runtime: str  # what it runs in, with its version
    input_names: Sequence[str]  # as the file has them
    # Of inputs and outputs by name; a free axis is a name or None; left out where the file has none.
    shapes: Mapping[str, Shape] = field(default_factory=dict)


def bind(names: Sequence[str], inputs: Arrays) -> dict[str, FloatArray]:
    """Inputs, in the order in which the network takes them, under the names that a file has for them."""
    return dict(zip(names, map(np.ascontiguousarray, inputs.values()), strict=True))


def load_in_openvino(path: Path) -> Runner:
    """A file of OpenVINO's or ONNX's, compiled for one core in float32."""
    options = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    compiled = openvino_core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    input_names = [value.any_name for value in compiled.inputs]
    output_names = [value.any_name for value in compiled.outputs]

    def run(inputs: Arrays) -> dict[str, Array]:
        request.infer(bind(input_names, inputs))
        return {name: request.get_tensor(name).data.copy() for name in output_names}

    shapes = {value.any_name: _shape(value) for value in (*compiled.inputs, *compiled.outputs)}
    return Runner(run, f"openvino {import_openvino().__version__.partition('-')[0]}", input_names, shapes)


def _shape(value: Any) -> list[int | None]:
    return [axis.get_length() if axis.is_static else None for axis in value.partial_shape]


@contextmanager
def without_advice(*kinds: type[Warning]) -> Iterator[None]:
    """Let frameworks not tell users what their own code, or another format, should do; nor warn of these kinds."""
    with warnings.catch_warnings():
        ignored: tuple[type[Warning], ...] = (DeprecationWarning, FutureWarning, *kinds)
        for kind in ignored:
            warnings.simplefilter("ignore", kind)
        yield
