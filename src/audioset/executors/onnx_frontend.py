"""Write a network together with its frontend as one ONNX graph: waveform in, embeddings and scores out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from audioset.arrays import FloatArray, RealArray
from audioset.errors import UsageError
from audioset.executors.onnx import OnnxGraph, OnnxOps, add_network
from audioset.frontend.log_mel import constants
from audioset.frontend.spec import FrontendSpec
from audioset.labels.labels import LabelSet
from audioset.networks.ops import Network, input_names

INPUT = "waveform"
LOG_MEL = "log_mel"
END = int(np.iinfo(np.int32).max)  # of a slice that goes on to the end

FLOAT32_BITS = 24


def waveform_to_onnx(
    network: Network,
    weights: dict[str, FloatArray],  # published names and layouts, float32
    spec: FrontendSpec,
    arguments: dict[str, Any],
    hop_frames: int | None = None,  # between patches; default ``spec.patch_hop_frames``
    metadata: Mapping[str, str] | None = None,  # properties beside those, such as ``label_metadata``
) -> bytes:
    """Serialised ONNX model of a frontend and its network, for audio of any length.

    All operations are standard ones of opset 17. Memory grows with the length of the audio, so long recordings are
    better given in pieces.

    Input ``waveform`` (n_samples,), float32 in [-1, 1] at ``spec.sample_rate`` Hz. Outputs ``embeddings`` (n_patches,
    embedding_size); for a tagger, ``scores`` (n_patches, n_classes) and, where it has them, ``framewise`` (n_patches,
    n_segments, n_classes); and ``log_mel`` (n_frames, n_mels), what the network saw. ``spec.pad`` becomes part of the
    graph. A graph cannot refuse audio: with ``"error"``, audio shorter than a patch gives outputs without rows. The
    model's properties are ``frontend``, ``sample_rate`` in Hz, ``patch_s``, ``hop_s``, ``pad``, and ``metadata``.

    UsageError if ``hop_frames`` is not positive, or for a frontend that is not centred and has preemphasis or a network
    that sees samples.

    In ONNX Runtime and OpenVINO, scores and embeddings (relative to the largest) are within 4e-6 of those of
    ``Model.predict`` on natural sounds, 2e-5 on full-scale tones, and 7e-5 on tones of four times full scale. This is
    so in float32. Where OpenVINO computes in bfloat16 or float16 unless told otherwise, compile with
    ``INFERENCE_PRECISION_HINT="f32"``: bfloat16 in the frontend moves scores by up to 0.15.
    """
    hop_frames = spec.patch_hop_frames if hop_frames is None else hop_frames
    if hop_frames < 1:
        raise UsageError(f"hop_frames is {hop_frames}; expected 1 or more, or None for {spec.patch_hop_frames}")
    if spec.preemphasis and not spec.is_centred:
        raise UsageError(f"the frontend {spec.name!r} has preemphasis and is not centred; expected both, or neither")
    ops = OnnxOps(weights)
    frontend = OnnxFrontend(ops, spec, hop_frames)
    inputs = {"patches": frontend.patches(INPUT)}
    if "waveforms" in (names := input_names(network)):
        inputs["waveforms"] = frontend.waveforms(inputs["patches"], beside_patches="patches" in names)
    outputs = add_network(ops, inputs, network, arguments)
    outputs[LOG_MEL] = ["n_frames", spec.n_mels]
    if spec.pad == "error":
        frontend.empty_where_too_short(INPUT, outputs)
    facts = {
        "frontend": spec.name,
        "sample_rate": f"{spec.sample_rate}",
        "patch_s": f"{spec.patch_frames * spec.frame_hop_s:g}",
        "hop_s": f"{hop_frames * spec.frame_hop_s:g}",
        "pad": spec.pad,
    }
    return ops.to_bytes(
        f"{network.__name__}_waveform",
        inputs={INPUT: ["n_samples"]},
        outputs=outputs,
        metadata={**(metadata or {}), **facts},
    )


def label_metadata(labels: LabelSet) -> dict[str, str]:
    """What the columns of ``scores`` mean, as a property of a model.

    ``labels``: a JSON list of ``{"id": …, "name": …}``, in the order of the columns.
    """
    rows = [{"id": label_id, "name": name} for label_id, name in zip(labels.ids, labels.names, strict=True)]
    return {"labels": json.dumps(rows, ensure_ascii=False)}


class OnnxFrontend:
    """Adds a frontend to a graph: the functions of ``audioset.frontend`` as operations."""

    def __init__(self, graph: OnnxGraph, spec: FrontendSpec, hop_frames: int) -> None:
        self.graph = graph
        self.spec = spec
        self.hop_frames = hop_frames  # between patches
        self._hops_in_frame = -(-spec.window_samples // spec.hop_samples)
        # Binary places of coarse samples and of coarse coefficients. The products of both add up to less than this
        # bound in a frame (8 binary places before the point for a window of 400 samples), so with 8 + 8 places after
        # it the 24 bits of a float32 hold every sum of them without rounding.
        bound = (1 + abs(spec.preemphasis)) * spec.window_samples / 2
        self._coarse_bits = (FLOAT32_BITS - math.ceil(math.log2(bound))) // 2

    def patches(self, waveform: str) -> str:
        """Patches of a waveform of any length, as float32: from (n_samples,) to (n_patches, patch_frames, n_mels).

        They are cut from the value ``log_mel``.
        """
        n_patches = self._n_patches(waveform)
        if self.spec.is_centred:
            return self._centred_patches(self._pad_to_minimum(waveform), n_patches)
        log_mel = self.log_mel(self._frames(self._pad(waveform, self._n_frames(n_patches))))
        starts = self._node("Mul", "starts", self._range(n_patches), self._integers(self.hop_frames))
        rows = self._constant("patch_rows", np.arange(self.spec.patch_frames))
        return self._gather_runs("patches", log_mel, starts, rows, axis=0)

    def waveforms(self, patches: str, *, beside_patches: bool) -> str:
        """The samples of each patch, as ``frontend.cutting.patch_waveforms`` gives them to a network.

        (n_patches, n_samples), float32, from what ``patches`` returned, which the network sees too if
        ``beside_patches``. UsageError if the frontend is not centred.
        """
        if not self.spec.is_centred:
            raise UsageError(f"the network sees samples, and the frontend {self.spec.name!r} is not centred")
        windows = "frontend/windows"
        n_given = self._slice("n_window_samples", self._node("Shape", "window_shape", windows), (0, 1, 2))
        n_needed = self._integers(self.spec.waveform_samples(self.spec.min_frames))
        if beside_patches:
            n_frames = self._slice("n_patch_frames", self._node("Shape", "patches_shape", patches), (0, 1, 2))
            n_pairs = self._node("Div", "n_frame_pairs", n_frames, self._integers(2))
            n_needed = self._node("Mul", "n_paired_samples", n_pairs, self._integers(2 * self.spec.hop_samples))
        n_short = self._node("Sub", "n_short_of_pairs", n_needed, n_given)
        n_missing = self._node("Max", "n_to_pair", n_short, self._integers(0))
        pads = self._node("Concat", "wave_pads", self._integers(0, 0, 0), n_missing, axis=0)
        return self._node("Pad", "waveforms", windows, pads)

    def empty_where_too_short(self, waveform: str, outputs: Iterable[str]) -> None:
        """Leave no rows in the outputs for a waveform that is shorter than a patch.

        The outputs have one row at least; what is left of them takes over their names.
        """
        n_too_few = self._integers(self.spec.samples(self.spec.patch_frames) - 1)
        n_beyond = self._node("Sub", "n_beyond", self._node("Shape", "n_before_padding", waveform), n_too_few)
        is_enough = self._node("Clip", "is_enough", n_beyond, self._constant("zero", 0), self._constant("one", 1))
        stop = self._node("Mul", "stop", is_enough, self._integers(END))
        for name in outputs:
            self.graph.rename({name: f"frontend/all_{name}"})
            self.graph.node("Slice", f"frontend/all_{name}", self._integers(0), stop, self._integers(0), output=name)

    def log_mel(self, frames: str) -> str:
        """``frontend.log_mel``, within 2e-4 of it.

        In plain float32, be it as a product of matrices, as a convolution or as the operator ``STFT``, the transform's
        rounding moves nearly silent mel bands beside a full-scale tone by 2e-3 to 1e-2, and scores by up to 9e-4.
        float64 would do, but OpenVINO computes it in float32. So samples and coefficients are split into coarse and
        fine parts: see ``_dft``. From frames (n_frames, 2, window_samples), coarse and fine samples, to the value
        ``log_mel`` (n_frames, n_mels), both float32.
        """
        window, weights, bins = constants(self.spec, "float64")
        twice_middle = len(window) if self.spec.is_window_periodic else len(window) - 1
        later = np.arange((twice_middle + 1) // 2, len(window))
        earlier = twice_middle - later  # their mirror images; the first sample of a periodic window has none, and is 0
        halves = (
            self._slice("later", frames, (2, int(later[0]), END)),
            self._node("Gather", "earlier", frames, self._constant("earlier_samples", earlier), axis=2),
        )
        # Seen from the middle of the window, the sum of two images has only cosines and their difference only
        # sines: half the products. A sample in the very middle is its own image, so it counts half.
        scale = (window[later] * np.where(later == earlier, 0.5, 1))[:, None]
        phase = 2 * np.pi / self.spec.fft_size * np.outer(later - twice_middle / 2, np.arange(bins.start, bins.stop))
        real = self._dft("real", self._node("Add", "even", *halves), scale * np.cos(phase))
        imaginary = self._dft("imaginary", self._node("Sub", "odd", *halves), scale * np.sin(phase))
        squares = self._node("Mul", "real2", real, real), self._node("Mul", "imaginary2", imaginary, imaginary)
        power = self._node("Add", "power", *squares)
        powers = power if self.spec.power == 2 else self._node("Sqrt", "magnitude", power)
        mel = self._node("MatMul", "mel", powers, self._floats("mel_weights", weights))
        return self._log(mel)

    def _log(self, mel: str) -> str:
        """The logarithm, normalised, as the value ``log_mel``."""
        spec = self.spec
        offset = self._floats("log_offset", spec.log_offset)
        kind, unit = {"natural": ("Add", 1.0), "decibel": ("Max", 10 / math.log(10))}[spec.log]
        offset_mel = self._node(kind, "offset_mel", mel, offset)
        gain, shift = unit / spec.log_scale, -spec.log_mean / spec.log_scale
        log = self._node("Log", "log", offset_mel)
        if gain != 1:
            log = self._node("Mul", "scaled_log", log, self._floats("log_gain", gain))
        if shift != 0:
            log = self._node("Add", "normalised_log", log, self._floats("log_shift", shift))
        self.graph.rename({log: LOG_MEL})
        return LOG_MEL

    def _centred_patches(self, waveform: str, n_patches: str) -> str:
        """One patch of each window of a waveform that has ``min_samples`` or more: see ``frontend.cutting.slabs``."""
        frames = self._centred_frames(self._windows(waveform, n_patches))
        log_mel = self.log_mel(self._node("Concat", "frames", *self._split(frames), axis=1))
        patch_shape = self._node("Concat", "patch_shape", n_patches, self._integers(-1, self.spec.n_mels), axis=0)
        return self._node("Reshape", "patches", log_mel, patch_shape)

    def _windows(self, waveform: str, n_patches: str) -> str:
        """The samples of each patch, (n_patches, n_samples); the last one ends with the waveform at the latest."""
        n_samples = self._node("Shape", "n_all_samples", waveform)
        size = self._node("Min", "size", n_samples, self._integers(self.spec.samples(self.spec.patch_frames)))
        hop_samples = self._integers(self.hop_frames * self.spec.hop_samples)
        starts = self._node("Mul", "starts", self._range(n_patches), hop_samples)
        starts = self._node("Min", "window_starts", starts, self._node("Sub", "last_start", n_samples, size))
        return self._gather_runs("windows", waveform, starts, self._range(size), axis=0)

    def _centred_frames(self, windows: str) -> str:
        """The frames of all windows, (n_frames, 1, window_samples), with preemphasis and reflected ends."""
        spec = self.spec
        if spec.preemphasis:
            later, earlier = self._slice("next", windows, (1, 1, END)), self._slice("previous", windows, (1, 0, -1))
            damped = self._node("Mul", "damped", earlier, self._floats("preemphasis", spec.preemphasis))
            windows = self._node("Sub", "preemphasised", later, damped)
        before, after = spec.margins
        centred = self._node("Pad", "centred", windows, self._integers(0, before, 0, after), mode="reflect")
        n_samples = self._slice("n_centred", self._node("Shape", "centred_shape", centred), (0, 1, 2))
        n_hopped = self._node("Sub", "n_hopped", n_samples, self._integers(spec.window_samples - spec.hop_samples))
        n_frames = self._node("Div", "n_window_frames", n_hopped, self._integers(spec.hop_samples))
        starts = self._node("Mul", "frame_starts", self._range(n_frames), self._integers(spec.hop_samples))
        places = self._constant("places", np.arange(spec.window_samples))
        frames = self._gather_runs("frames_of_windows", centred, starts, places, axis=1)
        return self._node("Reshape", "all_frames", frames, self._integers(-1, 1, spec.window_samples))

    def _pad_to_minimum(self, waveform: str) -> str:
        """The waveform, repeated or padded with zeros if it is shorter than ``min_samples``."""
        if self.spec.pad == "repeat":
            n_given = self._node("Shape", "n_before_repeating", waveform)
            waveform = self._repeat(waveform)
            n_needed = self._node("Max", "n_kept", n_given, self._integers(self.spec.min_samples))
            waveform = self._node("Slice", "repeated_enough", waveform, self._integers(0), n_needed, self._integers(0))
        n_given = self._node("Shape", "n_given", waveform)
        n_short = self._node("Sub", "n_short", self._integers(self.spec.min_samples), n_given)
        n_missing = self._node("Max", "n_missing", n_short, self._integers(0))
        return self._node("Pad", "padded", waveform, self._node("Concat", "pads", self._integers(0), n_missing, axis=0))

    def _range(self, count: str) -> str:
        """0, 1, … of a value (1,) that holds their number."""
        number = self._node("Squeeze", f"{count}/number".removeprefix("frontend/"), count)
        name = f"{count}/range".removeprefix("frontend/")
        return self._node("Range", name, self._constant("zero", 0), number, self._constant("one", 1))

    def _gather_runs(self, name: str, x: str, starts: str, places: str, axis: int) -> str:
        """Runs of a value along an axis, each from one of ``starts``: the axis becomes two."""
        columns = self._node("Unsqueeze", f"{name}/starts", starts, self._integers(1))
        return self._node("Gather", name, x, self._node("Add", f"{name}/places", columns, places), axis=axis)

    def _dft(self, name: str, samples: str, matrix: RealArray) -> str:
        """A product with ``matrix`` (n, n_bins), from coarse and fine samples (n_frames, 2, n).

        Coarse samples times coarse coefficients, the bulk of it, are exact in float32; the rest is smaller by
        2 ** 8 (or what ``_coarse_bits`` says), and so is its rounding.
        """
        coarse = np.round(matrix * 2.0**self._coarse_bits) / 2.0**self._coarse_bits
        both = self._node("Reshape", f"{name}/both", samples, self._integers(-1, 2 * len(matrix)))
        first = self._slice(f"{name}/coarse", both, (1, 0, len(matrix)))
        exact = self._node("MatMul", f"{name}/exact", first, self._floats(f"{name}/coarse_matrix", coarse))
        others = self._floats(f"{name}/fine_matrix", np.concatenate([matrix - coarse, matrix]))
        return self._node("Add", name, exact, self._node("MatMul", f"{name}/rest", both, others))

    def _frames(self, waveform: str) -> str:
        """Coarse and fine samples of each frame, (n_frames, 2, window_samples), from pieces of its hops."""
        hop, n_hops = self.spec.hop_samples, self._hops_in_frame
        shape = self._integers(-1, 1, hop)
        parts = [self._node("Reshape", f"{part}/hops", part, shape) for part in self._split(waveform)]
        hops = self._node("Concat", "hops", *parts, axis=1)
        stops = [*range(1 - n_hops, 0), END]
        sizes = [min(hop, self.spec.window_samples - start * hop) for start in range(n_hops)]
        pieces = [
            self._slice(f"piece{start}", hops, (0, start, stops[start]), (2, 0, sizes[start]))
            for start in range(n_hops)
        ]
        return self._node("Concat", "frames", *pieces, axis=2)

    def _split(self, waveform: str) -> tuple[str, str]:
        """Samples rounded to ``_coarse_bits``, and what is missing from them; nothing is lost."""
        scaled = self._node("Mul", "scaled", waveform, self._floats("up", 2.0**self._coarse_bits))
        rounded = self._node("Round", "rounded", scaled)
        coarse = self._node("Mul", "coarse", rounded, self._floats("down", 2.0**-self._coarse_bits))
        return coarse, self._node("Sub", "fine", waveform, coarse)

    def _n_patches(self, waveform: str) -> str:
        """``frontend.cutting.n_patches``: 1 at least, as not every runtime can run every network on none."""
        hop_samples = self.hop_frames * self.spec.hop_samples
        extra = 2 * hop_samples - 1 if self.spec.pad == "cover" else hop_samples  # the rest rounds up, or down
        uncounted = self._integers(self.spec.samples(self.spec.patch_frames) - extra)
        n_counted = self._node("Sub", "n_counted", self._node("Shape", "n_samples", waveform), uncounted)
        n_covered = self._node("Max", "n_covered", n_counted, self._integers(hop_samples))
        return self._node("Div", "n_patches", n_covered, self._integers(hop_samples))

    def _n_frames(self, n_patches: str) -> str:
        """Frames of so many patches."""
        n_starts = self._node("Mul", "n_starts", n_patches, self._integers(self.hop_frames))
        return self._node("Add", "n_frames", n_starts, self._integers(self.spec.patch_frames - self.hop_frames))

    def _pad(self, waveform: str, n_frames: str) -> str:
        """The waveform, padded with zeros or cut to the hops that ``n_frames`` frames reach into."""
        if self.spec.pad == "repeat":
            waveform = self._repeat(waveform)
        n_hops = self._node("Add", "n_hops", n_frames, self._integers(self._hops_in_frame - 1))
        n_needed = self._node("Mul", "n_needed", n_hops, self._integers(self.spec.hop_samples))
        n_missing = self._node("Sub", "n_missing", n_needed, self._node("Shape", "n_given", waveform))
        return self._node("Pad", "padded", waveform, self._node("Concat", "pads", self._integers(0), n_missing, axis=0))

    def _repeat(self, waveform: str) -> str:
        """The waveform, so many times over that it fills a patch."""
        n_once = self._node("Max", "n_once", self._node("Shape", "n_unrepeated", waveform), self._integers(1))
        n_but_one = self._integers(self.spec.samples(self.spec.patch_frames) - 1)
        n_times = self._node("Add", "n_times", self._node("Div", "n_again", n_but_one, n_once), self._integers(1))
        return self._node("Tile", "repeated", waveform, n_times)

    def _node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        return self.graph.node(kind, *inputs, output=f"frontend/{name}", **attributes)

    def _slice(self, name: str, x: str, *ranges: tuple[int, int, int]) -> str:
        """Part of a value; each range is (axis, start, stop)."""
        axes, starts, stops = (self._integers(*column) for column in zip(*ranges, strict=True))
        return self._node("Slice", name, x, starts, stops, axes)

    def _constant(self, name: str, value: Any) -> str:
        return self.graph.constant(f"frontend/{name}", np.asarray(value))

    def _floats(self, name: str, value: Any) -> str:
        return self._constant(name, np.asarray(value, np.float32))

    def _integers(self, *values: int) -> str:
        return self._constant("_".join(map(str, values)), np.array(values, np.int64))
