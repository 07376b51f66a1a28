"""Tag and embed audio: ``load_model``, ``Model`` and ``Prediction``."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from audioset import assets
from audioset.audio import mono_blocks, open_audio, resample_blocks, waveform_to_mono
from audioset.decoders import Array, AudioSource
from audioset.errors import OutputError, UsageError
from audioset.events import Event, EventSettings, clip_to_audio, scores_to_events
from audioset.executors.onnxruntime import OnnxRuntimeEngine
from audioset.executors.openvino import OpenVinoEngine
from audioset.frontend import FrontendSpec, Slab, log_mel, patches, slabs
from audioset.labels import LabelSet
from audioset.limits import LIMITS, Limits
from audioset.models import (
    find_frontend,
    find_labels,
    find_network,
    load_weights,
    output_shapes,
    patch_shape,
    prepare_graph,
    prepare_model,
)
from audioset.networks.ops import Outputs
from audioset.stream import Stream
from audioset.weights.model_folder import ModelCard, write_atomically

logger = logging.getLogger(__name__)

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
SecondsArray = np.ndarray[Any, np.dtype[np.float64]]
Task = TypeVar("Task")
Value = TypeVar("Value")

# Computed at once: fewer hand-overs between threads than with less, a smaller last piece than with more.
SLAB_PATCHES = 64
SLAB_FRAMES = 6_144  # 61 s
SLABS_AHEAD = 4
PRECISIONS = ("f32", "bf16")
INPUTS = ("patches", "waveform")  # of an exported model


class Engine(Protocol):
    """A compiled network; up to ``n_threads`` threads may call it at once."""

    name: str
    n_threads: int

    def __init__(self, graph: Path, precision: str, n_threads: int, cache_folder: Path) -> None: ...

    def __call__(self, patches: FloatArray) -> Outputs[FloatArray]:
        """Run the network on patches (n_patches, n_frames, n_mels)."""
        ...


ENGINES: dict[str, type[Engine]] = {"openvino": OpenVinoEngine, "onnxruntime": OnnxRuntimeEngine}


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
    """

    scores: FloatArray | None
    embeddings: FloatArray
    log_mel: FloatArray
    start_s: SecondsArray
    end_s: SecondsArray
    duration_s: float
    labels: LabelSet

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """The ``n`` labels with the highest mean score over the clip, best first: [(name, score)]."""
        means = self.require_scores().mean(axis=0, dtype=np.float64)
        return [(self.labels.names[index], float(means[index])) for index in top_indices(means, n)]

    def events(self, threshold: float = 0.5, **settings: Any) -> list[Event]:
        """Stretches in which a label's score stays at or above a threshold.

        Events end with the audio, not with the padding of the last patch, and none begins in the padding.

        Parameters
        ----------
        threshold : float
            In [0, 1].
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
        heard = clip_to_audio(self.require_scores(), self.start_s, self.end_s, self.duration_s)
        events = scores_to_events(*heard, self.labels, EventSettings(threshold, **settings))
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
    engine : Engine
    """

    def __init__(self, card: ModelCard, folder: Path, engine: Engine) -> None:
        self.card = card
        self.folder = folder
        self.engine = engine
        self.frontend: FrontendSpec = find_frontend(card)
        self.labels = find_labels(card)
        # The first call sets up the engine's Python bindings. If two threads did that at once, one would hold the
        # interpreter lock and the other the bindings' own, for ever; so it happens here, in one thread.
        engine(np.zeros((1, self.frontend.patch_frames, self.frontend.n_mels), np.float32))

    def predict(
        self, waveform: Array, sample_rate: int, *, hop_s: float | None = None, pad: str | None = None
    ) -> Prediction:
        """Tag and embed samples.

        Parameters
        ----------
        waveform : ndarray, shape (n_samples,) or (n_samples, n_channels)
            Floats in [-1, 1], or int16 or int32 PCM, which is scaled. Channels are averaged.
        sample_rate : int
            Hz. Other rates than the model's are resampled (soxr, high quality).
        hop_s : float, optional
            Seconds between patches, a multiple of 0.01. Default: the published hop.
        pad : {"cover", "error", "zero", "repeat"}, optional
            What happens to audio that does not fill a patch (``frontend.PADS``). Default: as published.

        Returns
        -------
        Prediction

        Raises
        ------
        AudioError
            If the samples cannot be used: wrong shape or dtype, none at all, NaN or infinite, or too few with
            ``pad="error"``.
        """
        mono = waveform_to_mono(waveform)
        return join_predictions(self._predict_stream([mono], sample_rate, hop_s, pad))

    def predict_file(
        self, source: AudioSource, *, hop_s: float | None = None, pad: str | None = None, limits: Limits = LIMITS
    ) -> Prediction:
        """Decode, mix down, resample, tag and embed one file, in this process.

        The audio is never in memory as a whole; the result is: 2.3 MB for each minute. For recordings
        of many hours, use ``predict_blocks``.

        Parameters
        ----------
        source : path, bytes, or binary file
        hop_s : float, optional
            Seconds between patches.
        pad : {"cover", "error", "zero", "repeat"}, optional
            What happens to audio that does not fill a patch.
        limits : Limits
            What the file may cost.

        Returns
        -------
        Prediction

        Raises
        ------
        AudioError
            If the file cannot be read or used.
        """
        return join_predictions(self.predict_blocks(source, hop_s=hop_s, pad=pad, limits=limits))

    def predict_blocks(
        self, source: AudioSource, *, hop_s: float | None = None, pad: str | None = None, limits: Limits = LIMITS
    ) -> Iterator[Prediction]:
        """As ``predict_file``, yielding consecutive parts as they are done: any length in constant memory."""
        with open_audio(source, limits) as reader:
            blocks = mono_blocks(reader, self.frontend.sample_rate)
            yield from self._predict_stream(blocks, self.frontend.sample_rate, hop_s, pad)
        for warning in reader.warnings:
            logger.warning("%s: %s", source if isinstance(source, (str, os.PathLike)) else "audio", warning)

    def stream(self, sample_rate: int, *, hop_s: float | None = None, pad: str | None = None) -> Stream[Prediction]:
        """Tag and embed live audio, block by block.

        Parameters
        ----------
        sample_rate : int
            Of the blocks, Hz. Other rates than the model's are resampled (soxr, high quality).
        hop_s, pad
            As for ``predict``.

        Returns
        -------
        Stream
            ``push`` each block; ``finish`` at the end.

        Raises
        ------
        UsageError
            For a rate, hop or padding that there is not, or a model whose frontend is centred.
        """
        frontend = self.frontend.with_pad(pad)
        hop_frames = frontend.hop_frames(hop_s)

        def predict(slab: Slab, features: FloatArray, patches: FloatArray) -> Prediction:
            return self.assemble(slab, features, self.engine(patches), hop_frames)

        return Stream(predict, frontend, hop_frames, slab_patches(hop_frames), sample_rate)

    def patches(
        self, waveform: Array, sample_rate: int, *, hop_s: float | None = None, pad: str | None = None
    ) -> FloatArray:
        """What the network would see of samples: its input, for training.

        Parameters
        ----------
        waveform, sample_rate, hop_s, pad
            As for ``predict``.

        Returns
        -------
        ndarray, shape (n_patches, n_frames, n_mels), float32
            Log-mel patches.

        Raises
        ------
        AudioError
            As ``predict``.
        """
        hop_frames = self.frontend.hop_frames(hop_s)
        pieces = self._features([waveform_to_mono(waveform)], sample_rate, hop_frames, pad)
        return np.concatenate([patches(features, self.frontend, hop_frames) for _, features in pieces])

    @property
    def embedding_size(self) -> int:
        """Numbers in one embedding."""
        return output_shapes(self.card).embeddings[0]

    def to_torch(self, *, input: str = "patches", hop_s: float | None = None, pad: str | None = None) -> Any:
        """The network as a PyTorch module, with the same weights under the same names.

        Parameters
        ----------
        input : {"patches", "waveform"}
            What the module takes: log-mel patches (n_patches, n_frames, n_mels), or samples (n_samples,) or
            (n_clips, n_samples) at the model's sample rate, from which it computes the features itself, on
            the device where they are.
        hop_s, pad
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

        return TorchModel(TorchFrontend(self.frontend.with_pad(pad), self.frontend.hop_frames(hop_s)), network)

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        input: str = "waveform",
        hop_s: float | None = None,
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
            patches (n_patches, n_frames, n_mels).
        hop_s, pad
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
            data = prepare_graph(self.card, self.folder).read_bytes()
        else:
            frontend = self.frontend.with_pad(pad)
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
            ``scores``.

        Raises
        ------
        MissingExtraError, EngineError
            Without Keras, or without the backend that it is set to.
        """
        from audioset.executors.keras import network_to_keras

        weights = load_weights(self.card, self.folder)
        return network_to_keras(find_network(self.card), weights, patch_shape(self.frontend), self.card.arguments)

    def _predict_stream(
        self, blocks: Iterable[FloatArray], sample_rate: int, hop_s: float | None, pad: str | None
    ) -> Iterator[Prediction]:
        hop_frames = self.frontend.hop_frames(hop_s)
        tasks = self._features(blocks, sample_rate, hop_frames, pad)
        return map_in_order(lambda task: self._predict_slab(*task, hop_frames), tasks, self.engine.n_threads)

    def _features(
        self, blocks: Iterable[FloatArray], sample_rate: int, hop_frames: int, pad: str | None
    ) -> Iterator[tuple[Slab, FloatArray]]:
        """Slabs of a stream, each with its log-mel spectrogram."""
        frontend = self.frontend.with_pad(pad)
        resampled = resample_blocks(blocks, sample_rate, frontend.sample_rate)
        pieces = slabs(resampled, frontend, hop_frames, slab_patches(hop_frames))
        return ((slab, log_mel(slab.waveform, frontend)) for slab in pieces)

    def _predict_slab(self, slab: Slab, features: FloatArray, hop_frames: int) -> Prediction:
        outputs = self.engine(patches(features, self.frontend, hop_frames))
        return self.assemble(slab, features, outputs, hop_frames)

    def assemble(self, slab: Slab, features: FloatArray, outputs: Outputs[FloatArray], hop_frames: int) -> Prediction:
        """One slab's part of a prediction, from its log-mel spectrogram and what the network made of it."""
        start_s, end_s = patch_times(slab, self.frontend, hop_frames)
        return Prediction(
            scores=outputs.scores,
            embeddings=outputs.embeddings,
            log_mel=features[: slab.n_frames],
            start_s=start_s,
            end_s=end_s,
            duration_s=slab.end_sample / self.frontend.sample_rate,
            labels=self.labels,
        )


def load_model(
    name: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    precision: str = "f32",
    engine: str = "openvino",
    n_threads: int | None = None,
    **arguments: Any,
) -> Model:
    """Load a published model, or a model folder.

    Parameters
    ----------
    name : str or path
        ``"yamnet"`` or ``"vggish"``, or a folder with ``model.json`` and ``model.safetensors``.
    weights : path, optional
        A checkpoint of your own in the published format. Default: the published file, looked for in the
        folders of ``AUDIOSET_ASSETS``, then in the cache, then downloaded.
    precision : {"f32", "bf16"}
        bf16 is several times faster on processors that have it, and moves scores by up to 0.06.
    engine : {"openvino", "onnxruntime"}
    n_threads : int, optional
        Cores to use. Default: all that this process may use.
    **arguments
        Arguments of the network, such as ``activation="relu"`` for VGGish.

    Returns
    -------
    Model

    Raises
    ------
    UsageError
        An unknown name, precision, engine or argument.
    AssetError, WeightsError
        The weights are missing, cannot be fetched, or are not this network's.
    EngineError, MissingExtraError
        The engine or the precision is not available here.
    """
    check_choice("precision", precision, PRECISIONS)
    check_choice("engine", engine, tuple(ENGINES))
    if n_threads is not None and n_threads < 1:
        raise UsageError(f"n_threads is {n_threads}; expected 1 or more, or None for all cores")
    card, folder = prepare_model(os.fspath(name), Path(weights) if weights is not None else None, arguments)
    graph = prepare_graph(card, folder)
    compiled = ENGINES[engine](graph, precision, n_threads or available_cores(), assets.cache_folder())
    return Model(card, folder, compiled)


def join_predictions(parts: Iterable[Prediction]) -> Prediction:
    """One prediction from the consecutive parts of a stream."""
    parts = list(parts)
    scores = [part.scores for part in parts if part.scores is not None]
    return replace(
        parts[-1],
        scores=np.concatenate(scores) if scores else None,
        embeddings=np.concatenate([part.embeddings for part in parts]),
        log_mel=np.concatenate([part.log_mel for part in parts]),
        start_s=np.concatenate([part.start_s for part in parts]),
        end_s=np.concatenate([part.end_s for part in parts]),
    )


def patch_times(slab: Slab, spec: FrontendSpec, hop_frames: int) -> tuple[SecondsArray, SecondsArray]:
    """Start and end of a slab's patches, in seconds: by frames, or, of a clip model's window, by its samples."""
    if spec.is_centred:
        end_sample = min(slab.first_sample + spec.samples(spec.patch_frames), slab.end_sample)
        return np.array([slab.first_sample / spec.sample_rate]), np.array([end_sample / spec.sample_rate])
    first_frames = (slab.first_patch + np.arange(slab.n_patches)) * hop_frames
    starts = first_frames * spec.hop_samples / spec.sample_rate
    return starts, (first_frames + spec.patch_frames) * spec.hop_samples / spec.sample_rate


def slab_patches(hop_frames: int) -> int:
    """Patches in one slab: as many as fit in its time, within bounds for tiny and for huge hops."""
    return max(1, min(SLAB_PATCHES, SLAB_FRAMES // hop_frames))


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


def top_indices(scores: np.ndarray[Any, Any], n: int) -> Sequence[int]:
    """Indices of the ``n`` highest scores, best first; equal scores in the order of the labels."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[: max(0, n)]]


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
