"""Tag and embed audio: ``load_model``, ``Model`` and ``Prediction``."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from audioset.arguments import check_choice, check_count, check_path
from audioset.arrays import Array, DoubleArray, FloatArray
from audioset.audio.isolation import IsolatedAudio
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reader import AudioSource
from audioset.audio.reading import mono_blocks, open_audio, waveform_to_mono
from audioset.audio.resampling import resample_blocks
from audioset.cache import Graph
from audioset.calibration import NONE, Calibration
from audioset.errors import AudioError, OutputError, UsageError
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.files import write_atomically
from audioset.frontend.cutting import Slab, patch_waveforms, patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.spec import FrontendSpec
from audioset.labels.events import Event, clip_to_audio, scores_to_events
from audioset.labels.labels import LabelSet
from audioset.models.cards import find_frontend, find_labels, find_network, input_shape, output_shapes, segment_frames
from audioset.models.folders import load_weights, prepare_graph
from audioset.models.stream import Stream
from audioset.networks.ops import Outputs, input_names
from audioset.weights.model_folder import ModelCard

logger = logging.getLogger(__name__)

Task = TypeVar("Task")
Value = TypeVar("Value")

# Computed at once: fewer hand-overs between threads than with less, a smaller last piece than with more.
SLAB_PATCHES = 64
SLAB_FRAMES = 6_144  # 61 s
SLABS_AHEAD = 4
PRECISIONS = ("f32", "bf16")
INPUTS = ("patches", "waveform")  # of an exported model
NOT_FINITE = "not_finite"


class Engine(Protocol):
    """A compiled network; up to ``n_threads`` threads may call it at once."""

    name: str
    n_threads: int

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """Run the network on what it sees: patches (n_patches, n_frames, n_mels), waveforms, or both."""
        ...


# Those that run a graph. PyTorch runs the network itself; see ``make_engine``.
ENGINES: dict[str, Callable[[Graph, str, int], Engine]] = {
    "openvino": OpenVinoEngine,
    "onnxruntime": OnnxRuntimeEngine,
}
ENGINE_NAMES = (*ENGINES, "torch")


@dataclass(frozen=True)
class Prediction:
    """What a model says about a piece of audio, patch by patch.

    Attributes
    ----------
    scores : ndarray, shape (n_patches, n_classes), float32, or None
        In [0, 1], independent for each class; None for a model that only embeds.
    embeddings : ndarray, shape (n_patches, embedding_size), float32
    log_mel : ndarray, shape (n_frames, n_mels), float32
        What the network saw, before it was cut into patches.
    start_s, end_s : ndarray, shape (n_patches,), float64
        Seconds from the start of the audio. The last patch may reach past the end of the audio: what the
        network saw there was padding.
    duration_s : float
        Seconds from the start of the audio to its end.
    labels : LabelSet
        What the columns of ``scores`` mean.
    calibration : Calibration or None
        The model's own thresholds and maps, if it was calibrated. ``scores`` are as the network gives them.
    frame_start_s : ndarray, shape (n_frames,), float64
        Seconds from the start of the audio to each row of ``log_mel``, and of ``framewise``.
    segment_scores : ndarray, shape (n_patches, n_segments, n_classes), float32, or None
        Scores over time, in [0, 1], of a model that has them: see ``framewise`` and ``score_track``.
    segment_frames : int or None
        Frames in one segment.
    frontend : FrontendSpec or None
        What ``log_mel`` was computed with.
    """

    scores: FloatArray | None
    embeddings: FloatArray
    log_mel: FloatArray
    start_s: DoubleArray
    end_s: DoubleArray
    duration_s: float
    labels: LabelSet
    calibration: Calibration | None = None
    frame_start_s: DoubleArray = field(default_factory=lambda: np.zeros(0))
    segment_scores: FloatArray | None = None
    segment_frames: int | None = None
    frontend: FrontendSpec | None = None

    def __repr__(self) -> str:
        best = "" if self.scores is None else "".join(f", {name} {score:.3f}" for name, score in self.top(3))
        return f"<Prediction of {len(self.embeddings)} patches in {self.duration_s:.2f} s{best}>"

    @property
    def framewise(self) -> FloatArray | None:
        """Scores over time of a model that has them, as ``cnn14_decision_max``; None for others.

        Returns
        -------
        ndarray, shape (n_frames, n_classes), float32, or None
            In [0, 1], a row for each of ``log_mel``, at ``frame_start_s``. It is made anew at each call, of the scores
            of segments: each is repeated, the last one of a patch up to the patch's end. Where patches overlap, so do
            these rows; ``score_track`` has each moment once.

        Source: qiuqiangkong/audioset_tagging_cnn, pytorch/pytorch_utils.py (interpolate, pad_framewise_output).
        """
        if self.segment_scores is None or self.segment_frames is None:
            return None
        n_patches, n_segments, n_classes = self.segment_scores.shape
        n_frames = len(self.log_mel) // n_patches
        segments = np.minimum(np.arange(n_frames) // self.segment_frames, n_segments - 1)
        return self.segment_scores[:, segments].reshape(-1, n_classes)

    def score_track(self, after_s: float = 0.0) -> tuple[FloatArray, DoubleArray, DoubleArray]:
        """The scores of the finest resolution that there is, without padding: what events are found in.

        Parameters
        ----------
        after_s : float
            Where the part before this one ended, if this is one of several of the same audio: ``duration_s`` of
            that part.

        Returns
        -------
        scores : ndarray, shape (n, n_classes), float32
            Of patches; of segments for a model with scores over time. Segments do not overlap: where patches do,
            those of the earlier patch are taken.
        start_s, end_s : ndarray, shape (n,), float64
            Seconds from the start of the audio.

        Raises
        ------
        UsageError
            If the model only embeds.
        """
        track = self.require_scores(), self.start_s, self.end_s
        if self.segment_scores is not None and self.segment_frames is not None:
            track = self._segments(self.segment_scores, self.segment_frames, after_s)
        return clip_to_audio(*track, self.duration_s)

    def _segments(
        self, scores: FloatArray, n_frames: int, after_s: float
    ) -> tuple[FloatArray, DoubleArray, DoubleArray]:
        """Scores, starts and ends of segments that do not overlap; the last one of a patch ends with it."""
        n_patches, n_segments, _ = scores.shape
        starts = self.frame_start_s.reshape(n_patches, -1)[:, ::n_frames][:, :n_segments]
        ends = np.append(starts[:, 1:], self.end_s[:, np.newaxis], axis=1)
        starts = np.maximum(starts, np.append(after_s, self.end_s[:-1])[:, np.newaxis])
        is_new = starts < ends
        return scores[is_new], starts[is_new], ends[is_new]

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """The ``n`` labels with the highest mean score over the clip, best first: [(name, score)]."""
        check_count("n", n, 0)
        means = self.require_scores().mean(axis=0, dtype=np.float64)
        return [(self.labels.names[index], float(means[index])) for index in top_indices(means, n)]

    def calibrated(self) -> FloatArray:
        """Scores as the model's own maps make them; as they are, where it has none.

        Returns
        -------
        ndarray, shape (n_patches, n_classes), float32
            In [0, 1].

        Raises
        ------
        UsageError
            If the model only embeds.
        """
        return (self.calibration or NONE).apply(self.require_scores(), self.labels)

    def events(self, threshold: float | None = None, **settings: Any) -> list[Event]:
        """Stretches in which a label's score, mapped if the model has maps, stays at or above a threshold.

        They are found in the scores of ``score_track``: of segments, where the model has these. Events end with the
        audio, not with the padding of the last patch, and none begins in the padding.

        Parameters
        ----------
        threshold : float, optional
            In [0, 1]; for all labels. Default: the model's own thresholds, and 0.5 where it has none.
        **settings
            Other attributes of ``EventSettings``, such as ``low_threshold=0.3`` or ``max_gap_s=1``.

        Returns
        -------
        list of Event
            By onset, then by falling score.

        Raises
        ------
        UsageError
            If a setting is outside its range, or the model only embeds.
        """
        scores, start_s, end_s = self.score_track()
        scores = (self.calibration or NONE).apply(scores, self.labels)
        chosen = (self.calibration or NONE).settings(self.labels, threshold, **settings)
        events = scores_to_events(scores, start_s, end_s, self.labels, chosen)
        return sorted(events, key=lambda event: (event.start_s, -event.score))

    def require_scores(self) -> FloatArray:
        """``scores``; for a model that only embeds, an error that says so."""
        if self.scores is None:
            raise UsageError("this model only embeds: it has no scores. Next step: choose a tagger, such as yamnet")
        return self.scores


class Model:
    """A published or trained network with its frontend and labels, ready to run. See ``load_model``.

    Attributes
    ----------
    card : ModelCard
        Where it comes from.
    folder : Path
        Model folder with its weights.
    frontend : FrontendSpec
    labels : LabelSet
    calibration : Calibration or None
        Its own thresholds and maps of scores, if it was calibrated.
    engine : Engine
    window_patches : int
        Patches that make one row of a prediction together: 1, but for a head.
    """

    window_patches = 1
    reload: Callable[[], Model] | None = None  # loads it again; ``load_model`` knows how

    def __init__(self, card: ModelCard, folder: Path, engine: Engine) -> None:
        self.card = card
        self.folder = folder
        self.engine = engine
        self.frontend: FrontendSpec = find_frontend(card)
        self.labels = find_labels(card)
        self.calibration = None if card.calibration is None else Calibration.from_record(card.calibration, self.labels)
        self.inputs = input_names(find_network(card))
        self.segment_frames = segment_frames(card)
        self._warm_up()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self.card.network} with {len(self.labels)} labels, "
            f"{self.frontend.sample_rate:,} Hz, {self.engine.name}>"
        )

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        if self.reload is None:
            raise UsageError(f"{self!r} cannot be sent to another process. Next step: load it with audioset.load_model")
        return self.reload, ()

    def _warm_up(self) -> None:
        """Call the engine once, in one thread, for the first call sets up its Python bindings.

        If two threads did that at once, one would hold the interpreter lock and the other the bindings' own, for ever.
        """
        silence = np.zeros(self.frontend.samples(self.frontend.patch_frames), np.float32)
        features = np.zeros((self.frontend.patch_frames, self.frontend.n_mels), np.float32)
        self.engine(*self.network_inputs(silence, features, 1))

    def predict(
        self,
        waveform: Array,
        sample_rate: int,
        *,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> Prediction:
        """Tag and embed samples.

        Parameters
        ----------
        waveform : ndarray, shape (n_samples,) or (n_samples, n_channels)
            Floats in [-1, 1], or int16 or int32 PCM, which is scaled. Channels are averaged.
        sample_rate : int
            Hz. Other rates than the model's are resampled (soxr, high quality).
        hop_s : float, optional
            Seconds between patches, a multiple of 0.01. Default: the published hop, or ``window_s``.
        window_s : float, optional
            Seconds of the longest patch, for a model of whole clips: a multiple of 0.01 (of its own hop, for the
            few models with another). Default: 10, as published. Audio no longer than this is one patch of its own
            length. Models of patches have one length only.
        pad : {"cover", "error", "zero", "repeat"}, optional
            What happens to audio that does not fill a patch (``frontend.spec.PADS``). Default: as published.

        Returns
        -------
        Prediction

        Warns
        -----
        AudioWarning
            If the samples hardly mean what they say: integers stored as floats, 16-bit values in 32-bit integers, or
            channels that cancel each other.

        Raises
        ------
        AudioError
            If the samples cannot be used: wrong shape or dtype, none at all, NaN or infinite, or too few with
            ``pad="error"``.
        UsageError
            For a hop, window or padding that there is not.
        """
        frontend = self.frontend.with_pad(pad).with_window(window_s)
        return join_predictions(self._predict_stream([waveform_to_mono(waveform)], sample_rate, hop_s, frontend))

    def predict_file(
        self,
        source: AudioSource,
        *,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
        limits: Limits = LIMITS,
    ) -> Prediction:
        """Decode, mix down, resample, tag and embed one file, in this process.

        The audio is never in memory as a whole; the result is: 2.3 MB for each minute. For recordings
        of many hours, use ``predict_blocks``.

        Parameters
        ----------
        source : path, bytes, or binary file
        hop_s, window_s, pad
            As for ``predict``.
        limits : Limits
            What the file may cost.

        Returns
        -------
        Prediction

        Raises
        ------
        AudioError
            If the file cannot be read or used.
        UsageError
            As ``predict``.
        """
        blocks = self.predict_blocks(source, hop_s=hop_s, window_s=window_s, pad=pad, limits=limits)
        return join_predictions(blocks)

    def predict_blocks(
        self,
        source: AudioSource,
        *,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
        limits: Limits = LIMITS,
        isolated: bool = False,
    ) -> Iterator[Prediction]:
        """As ``predict_file``, yielding consecutive parts as they are done: any length in constant memory.

        With ``isolated``, a path is decoded in a process of its own: a damaged file may end that one, and not this.
        """
        frontend = self.frontend.with_pad(pad).with_window(window_s)
        rate = frontend.sample_rate
        if isolated:
            audio = IsolatedAudio(check_path("source", source), rate, limits)
            yield from self._predict_stream(audio.blocks(), rate, hop_s, frontend)
            warnings = audio.warnings
        else:
            with open_audio(source, limits) as reader:
                yield from self._predict_stream(mono_blocks(reader, rate), rate, hop_s, frontend)
            warnings = tuple(reader.warnings)
        for warning in warnings:
            logger.warning("%s: %s", source if isinstance(source, (str, os.PathLike)) else "audio", warning)

    def stream(
        self,
        sample_rate: int,
        *,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> Stream[Prediction]:
        """Tag and embed live audio, block by block.

        Parameters
        ----------
        sample_rate : int
            Of the blocks, Hz. Other rates than the model's are resampled (soxr, high quality).
        hop_s, window_s, pad
            As for ``predict``.

        Returns
        -------
        Stream
            ``push`` each block; ``finish`` at the end.

        Raises
        ------
        UsageError
            For a rate, hop, window or padding that there is not.
        """
        frontend = self.frontend.with_pad(pad).with_window(window_s)
        hop_frames = frontend.hop_frames(hop_s)

        def predict(slab: Slab, features: FloatArray, seen: FloatArray) -> Prediction:
            outputs = self.engine(*self.network_inputs(slab.waveform, seen, hop_frames))
            return self.assemble(slab, features, outputs, hop_frames, frontend)

        return Stream(predict, frontend, hop_frames, slab_patches(hop_frames), sample_rate)

    def patches(
        self,
        waveform: Array,
        sample_rate: int,
        *,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> FloatArray:
        """What the network would see of samples: its input, for training.

        Parameters
        ----------
        waveform, sample_rate, hop_s, window_s, pad
            As for ``predict``.

        Returns
        -------
        ndarray, shape (n_patches, n_frames, n_mels), float32
            Log-mel patches.

        Raises
        ------
        AudioError, UsageError
            As ``predict``.
        """
        frontend = self.frontend.with_pad(pad).with_window(window_s)
        hop_frames = frontend.hop_frames(hop_s)
        n_patches = slab_patches(hop_frames)
        pieces = _features([waveform_to_mono(waveform)], sample_rate, hop_frames, frontend, n_patches)
        return np.concatenate([patches(features, frontend, hop_frames) for _, features in pieces])

    @property
    def embedding_size(self) -> int:
        """Numbers in one embedding."""
        return output_shapes(self.card).embeddings[0]

    def to_torch(
        self,
        *,
        input: str = "patches",
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> Any:
        """The network as a PyTorch module, with the same weights under the same names.

        Parameters
        ----------
        input : {"patches", "waveform"}
            What the module takes: log-mel patches (n_patches, n_frames, n_mels), or samples (n_samples,) or
            (n_clips, n_samples) at the model's sample rate, from which it computes the features itself, on
            the device where they are. A network that sees samples beside the patches takes those of each patch
            after them (``frontend.cutting.patch_waveforms``).
        hop_s, window_s, pad
            As for ``predict``, for waveforms.

        Returns
        -------
        torch.nn.Module
            In evaluation mode; it returns ``Outputs`` of tensors.

        Raises
        ------
        MissingExtraError
            Without PyTorch.
        """
        check_choice("input", input, INPUTS)
        from audioset.executors.torch import network_to_torch

        network = network_to_torch(find_network(self.card), load_weights(self.card, self.folder), self.card.arguments)
        if input == "patches":
            return network
        from audioset.executors.torch_frontend import TorchFrontend, TorchModel

        frontend = self.frontend.with_pad(pad).with_window(window_s)
        return TorchModel(TorchFrontend(frontend, frontend.hop_frames(hop_s)), network)

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        input: str = "waveform",
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> None:
        """Write an ONNX file that runs anywhere, with the weights inside.

        Parameters
        ----------
        path : path
            File to write; replaced when the new one is whole.
        input : {"waveform", "patches"}
            What the file takes. ``"waveform"``: samples (n_samples,) float32 in [-1, 1] at the model's sample
            rate, of any length; it computes the features and returns ``embeddings``, ``log_mel`` and, for a
            tagger, ``scores``. Its metadata say rate, hop, padding and labels. ``"patches"``: log-mel
            patches (n_patches, n_frames, n_mels). A network that sees samples beside the patches, or instead, has
            an input ``waveforms`` for those of each patch (``frontend.cutting.patch_waveforms``). A model with scores
            over time also returns these, as ``framewise`` (n_patches, n_segments, n_classes).
        hop_s, window_s, pad
            As for ``predict``, for waveforms. With ``pad="error"``, audio shorter than a patch gives arrays
            without rows: a graph cannot raise.

        Raises
        ------
        OutputError
            If the file cannot be written.

        Notes
        -----
        Within 1e-4 of ``predict`` in ONNX Runtime and OpenVINO; within 6e-5 for tones at four times full
        scale, 4e-6 for natural sounds. OpenVINO runs any model in bf16 by default on processors that have
        it: compile with ``INFERENCE_PRECISION_HINT`` set to ``"f32"``.
        """
        check_choice("input", input, INPUTS)
        from audioset.executors.onnx_frontend import label_metadata, waveform_to_onnx

        if input == "patches":
            data = prepare_graph(self.card, self.folder).to_onnx()
        else:
            frontend = self.frontend.with_pad(pad).with_window(window_s)
            data = waveform_to_onnx(
                find_network(self.card),
                load_weights(self.card, self.folder),
                frontend,
                self.card.arguments,
                hop_frames=frontend.hop_frames(hop_s),
                metadata=label_metadata(self.labels) if len(self.labels) else None,
            )
        try:
            write_atomically(Path(path), data)
        except OSError as error:
            raise OutputError(f"{os.fspath(path)} cannot be written: {error.strerror or error}") from error

    def to_keras(self) -> Any:
        """The network as a Keras 3 functional model, with the same weights.

        Keras takes TensorFlow unless the variable ``KERAS_BACKEND`` names another backend, such as ``torch``,
        before it is imported.

        Returns
        -------
        keras.Model
            From ``patches`` (n_patches, n_frames, n_mels) to a dict with ``embeddings`` and, for a tagger,
            ``scores``; see ``to_onnx`` for ``waveforms`` and ``framewise``.

        Raises
        ------
        MissingExtraError, EngineError
            Without Keras, or without the backend that it is set to.
        """
        from audioset.executors.keras import network_to_keras

        weights = load_weights(self.card, self.folder)
        return network_to_keras(find_network(self.card), weights, input_shape(self.card), self.card.arguments)

    def _predict_stream(
        self, blocks: Iterable[FloatArray], sample_rate: int, hop_s: float | None, frontend: FrontendSpec
    ) -> Iterator[Prediction]:
        hop_frames = frontend.hop_frames(hop_s)

        def predict(task: tuple[Slab, FloatArray]) -> Prediction:
            slab, features = task
            outputs = self.engine(*self.network_inputs(slab.waveform, features, hop_frames))
            return self.assemble(slab, features, outputs, hop_frames, frontend)

        n_patches = slab_patches(hop_frames, self.window_patches)
        tasks = _features(blocks, sample_rate, hop_frames, frontend, n_patches)
        return map_in_order(predict, tasks, self.engine.n_threads)

    def network_inputs(self, waveform: FloatArray, features: FloatArray, hop_frames: int) -> tuple[FloatArray, ...]:
        """What the network sees of a slab, given its samples and their log-mel spectrogram; see ``Engine``."""
        makers = {
            "patches": lambda: patches(features, self.frontend, hop_frames),
            "waveforms": lambda: patch_waveforms(waveform, self.frontend, beside_patches="patches" in self.inputs),
        }
        return tuple(makers[name]() for name in self.inputs)

    def assemble(
        self,
        slab: Slab,
        features: FloatArray,
        outputs: Outputs[FloatArray],
        hop_frames: int,
        frontend: FrontendSpec | None = None,
    ) -> Prediction:
        """One slab's part of a prediction, from its log-mel spectrogram and what the network made of it.

        ``frontend`` is the model's own unless its windows have another length.
        """
        check_finite(outputs, slab.first_sample / self.frontend.sample_rate)
        spec = frontend or self.frontend
        start_s, end_s = patch_times(slab, spec, hop_frames)
        return Prediction(
            scores=outputs.scores,
            embeddings=outputs.embeddings,
            log_mel=features[: slab.n_frames],
            start_s=start_s,
            end_s=end_s,
            duration_s=slab.end_sample / spec.sample_rate,
            labels=self.labels,
            calibration=self.calibration,
            frame_start_s=(slab.first_sample + np.arange(slab.n_frames) * spec.hop_samples) / spec.sample_rate,
            segment_scores=outputs.framewise,
            segment_frames=self.segment_frames,
            frontend=spec,
        )


def check_finite(outputs: Outputs[FloatArray], start_s: float | None = None) -> None:
    """Refuse outputs of a network that are not finite numbers: comparing with NaN would leave out every label.

    Raises
    ------
    AudioError
        With code ``not_finite``.
    """
    for name, values in vars(outputs).items():
        if values is not None and not np.isfinite(values).all():
            where = "" if start_s is None else f" of the audio from {start_s:.2f} s on"
            raise AudioError(
                f"the network's {name}{where} are not finite numbers. Likely cause: damaged weights, samples far "
                "outside [-1, 1], or a precision too low for this model. Next step: audioset doctor, or precision f32",
                code=NOT_FINITE,
            )


def make_engine(name: str, card: ModelCard, folder: Path, precision: str, n_threads: int) -> Engine:
    """An engine with a model's network, ready to run.

    Raises
    ------
    EngineError, MissingExtraError
        The engine or the precision is not available here.
    """
    if name in ENGINES:
        return ENGINES[name](prepare_graph(card, folder), precision, n_threads)
    from audioset.executors.torch import TorchEngine

    return TorchEngine(find_network(card), load_weights(card, folder), card.arguments, precision, n_threads)


def _features(
    blocks: Iterable[FloatArray], sample_rate: int, hop_frames: int, frontend: FrontendSpec, n_patches: int
) -> Iterator[tuple[Slab, FloatArray]]:
    """Slabs of a stream, of so many patches, each with its log-mel spectrogram."""
    resampled = resample_blocks(blocks, sample_rate, frontend.sample_rate)
    pieces = slabs(resampled, frontend, hop_frames, n_patches)
    return ((slab, log_mel(slab.waveform, frontend)) for slab in pieces)


def join_predictions(parts: Iterable[Prediction]) -> Prediction:
    """One prediction from the consecutive parts of a stream."""
    *others, last = parts
    if not others:
        return last
    joined: dict[str, Any] = {
        name: np.concatenate([*(getattr(part, name) for part in others), value])
        for name, value in vars(last).items()
        if isinstance(value, np.ndarray)
    }
    return replace(last, **joined)


def patch_times(slab: Slab, spec: FrontendSpec, hop_frames: int) -> tuple[DoubleArray, DoubleArray]:
    """Start and end of a slab's patches, in seconds: by frames, or, of a clip model's window, by its samples."""
    if spec.is_centred:
        end_sample = min(slab.first_sample + spec.samples(spec.patch_frames), slab.end_sample)
        return np.array([slab.first_sample / spec.sample_rate]), np.array([end_sample / spec.sample_rate])
    first_frames = (slab.first_patch + np.arange(slab.n_patches)) * hop_frames
    starts = first_frames * spec.hop_samples / spec.sample_rate
    return starts, (first_frames + spec.patch_frames) * spec.hop_samples / spec.sample_rate


def slab_patches(hop_frames: int, window_patches: int = 1) -> int:
    """Patches in one slab: whole windows, as many as fit in its time, within bounds for tiny and for huge hops."""
    n_windows = min(SLAB_PATCHES, SLAB_FRAMES // hop_frames) // window_patches
    return max(1, n_windows) * window_patches


def map_in_order(function: Callable[[Task], Value], tasks: Iterable[Task], n_threads: int) -> Iterator[Value]:
    """``map`` over several threads: results in order, and never more than a few tasks ahead.

    The threads take turns at making the tasks: with a thread of its own for that, there would be one more than
    there are cores, and it would fight the others for the interpreter lock.
    """
    source, turn, is_over = iter(tasks), threading.Lock(), threading.Event()
    slots = threading.Semaphore(SLABS_AHEAD * n_threads)
    results: queue.SimpleQueue[Future[Value] | BaseException] = queue.SimpleQueue()

    def work() -> None:
        while True:
            slots.acquire()
            with turn:  # whoever has the turn also queues the result, so results are in order
                if is_over.is_set():
                    return
                try:
                    task = next(source)
                except BaseException as error:  # StopIteration, or whatever the consumer has to hear of
                    is_over.set()
                    results.put(error)
                    return
                result: Future[Value] = Future()
                results.put(result)
            try:
                result.set_result(function(task))
            except BaseException as error:  # raised where the result is asked for
                result.set_exception(error)

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="audioset")
    try:
        for _ in range(n_threads):
            pool.submit(work)
        while isinstance(result := results.get(), Future):
            yield result.result()
            slots.release()
        if not isinstance(result, StopIteration):
            raise result
    finally:
        is_over.set()
        slots.release(n_threads)
        pool.shutdown(wait=True)


def top_indices(scores: Array, n: int) -> Sequence[int]:
    """Indices of the ``n`` highest scores, best first; equal scores in the order of the labels."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[: max(0, n)]]
