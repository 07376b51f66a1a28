"""int8: weights and what they are multiplied with become bytes, with ranges that the user's clips show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from audioset.arrays import FloatArray
from audioset.errors import UsageError
from audioset.executors.onnxruntime import import_onnxruntime
from audioset.export.job import Job
from audioset.export.runner import bind

FRONTEND = ("frontend/", "log_mel")  # names of its nodes begin so
LAYERS = ("Conv", "Gemm")
# What ONNX Runtime looks for: without it, it advises to simplify the graph first, which is simple.
SIMPLIFIED = {"key": "onnx.quant.pre_process", "value": "onnxruntime.quant"}
WEIGHT = 1  # place among a layer's inputs


def quantise(path: Path, job: Job) -> None:
    """Quantise an ONNX file in place, as pairs of QuantizeLinear and DequantizeLinear.

    A layer's weight gets a scale for each output channel, and what it sees gets one scale and offset; sums and outputs
    stay float32. The frontend stays float32, and so do the layers that lose most and cost least: see ``float_layers``.
    The job's clips show the ranges. MissingExtraError without ONNX Runtime; UsageError for a head, whose few layers
    gain nothing.
    """
    if job.input == "embeddings":
        raise UsageError("int8 exists for networks that see audio; a head is small, and stays float32")
    import_onnxruntime("int8")
    from onnxruntime import quantization

    model = onnx.load(path)
    graph = model.graph
    model.metadata_props.add(**SIMPLIFIED)
    path.write_bytes(model.SerializeToString())
    quantization.quantize_static(
        str(path),
        str(path),
        _reader(job, [value.name for value in graph.input]),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(LAYERS),
        nodes_to_exclude=[*frontend_nodes(graph), *float_layers(graph)],
        extra_options={"OpTypesToExcludeOutputQuantization": list(LAYERS)},
    )


def frontend_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that make patches of a waveform."""
    return [node.name for node in graph.node if node.name.startswith(FRONTEND)]


def float_layers(graph: onnx.GraphProto) -> list[str]:
    """Layers that stay float32: the first, which sees the log-mel picture; depthwise convolutions; and the last.

    With these in bytes too, scores move about twice as far, and they have few weights: a depthwise convolution has one
    multiplication where a pointwise one has as many as channels.
    """
    shapes = {value.name: value.dims for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS and node.input[WEIGHT] in shapes]
    depthwise = [node.name for node in layers if node.op_type == "Conv" and shapes[node.input[WEIGHT]][1] == 1]
    return sorted({layers[0].name, *depthwise, layers[-1].name})


def _reader(job: Job, input_names: list[str]) -> Any:
    """Clips as ONNX Runtime's calibration asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    inputs = (bind(input_names, seen) for clip in job.calibration for seen in job.inputs_of(clip.waveform))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, FloatArray] | None:
            return next(inputs, None)

    return Reader()
