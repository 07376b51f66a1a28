"""Heads, ready to run: on the released embeddings, and on audio by way of the network that makes such embeddings."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arguments import check_choice
from audioset.arrays import ByteArray, FloatArray, Int64Array
from audioset.assets import get_asset
from audioset.errors import AssetError, UsageError, WeightsError
from audioset.frontend.cutting import Slab
from audioset.frontend.spec import FrontendSpec
from audioset.models.cards import find_network
from audioset.models.folders import prepare_model
from audioset.models.model import Engine, Model, Prediction, check_finite, make_engine, map_in_order
from audioset.models.postprocess import EMBEDDING_SIZE, Postprocessor
from audioset.models.published import MODELS, ModelSpec
from audioset.models.stream import Stream
from audioset.networks.ops import Outputs
from audioset.weights.model_folder import ModelCard

BACKBONE = "vggish"  # of a card that names none
CLIP_SECONDS = 10  # embeddings in a clip of the dataset, and so in a window of a longer recording
BATCH_CLIPS = 256
INPUTS = ("embeddings",)  # of an exported head


class HeadModel(Model):
    """A head with the network whose embeddings it classifies. See ``load_model``.

    ``predict`` and what follows from it run audio through the backbone, its postprocessor and the head. A row of a
    ``Prediction`` is a window of ten embeddings, 9.6 s of audio: windows follow each other from the start, and the last
    one has the embeddings that are left, padded as the head's ``padding`` says. The backbone is loaded when audio is
    first predicted; ``predict_embeddings`` needs none.

    Attributes
    ----------
    head : Engine
        From embeddings and their mask to scores.
    engine : Engine
        From log-mel patches to scores of windows.
    padding : {"zero", "mask"}
        What the head makes of clips shorter than ten seconds.
    """

    window_patches = CLIP_SECONDS

    def __init__(self, card: ModelCard, folder: Path, head: Engine, precision: str = "f32") -> None:
        self.head = head
        self.padding: str = _argument(card, "padding")
        self.backbone = find_backbone(card)
        super().__init__(card, folder, _Chain(self, precision))
        self.segment_frames = None

    def predict_embeddings(self, embeddings: ByteArray, lengths: Any = None) -> FloatArray:
        """Scores of clips by their embeddings.

        Parameters
        ----------
        embeddings : ndarray, shape (n_seconds, 128) or (n_clips, n_seconds, 128), uint8
            Of one clip, or of several, padded to the length of the longest.
        lengths : array_like, shape (n_clips,), int, optional
            Seconds of each of several clips; what comes after them is not seen. Default: all.

        Returns
        -------
        ndarray, shape (n_classes,) or (n_clips, n_classes), float32
            In [0, 1]. A clip's scores do not depend on its neighbours: with ``padding="zero"``, a clip shorter than
            ten seconds is padded to ten with zeros, as it was in training; with ``"mask"``, padding is not seen.

        Raises
        ------
        UsageError
            For another shape or dtype, clips without seconds, or lengths beyond the array.
        """
        embeddings = np.asarray(embeddings)
        clips = embeddings[np.newaxis] if embeddings.ndim == 2 else embeddings
        scores = self.classify(clips, _checked_lengths(clips, lengths)).scores
        if scores is None:
            raise WeightsError(f"{self.card.network!r} has no scores; expected a head")
        return scores[0] if embeddings.ndim == 2 else scores

    def classify(self, clips: ByteArray, lengths: Int64Array) -> Outputs[FloatArray]:
        """Scores of clips and what the head saw of them: ``predict_embeddings`` for what was checked.

        Parameters
        ----------
        clips : ndarray, shape (n_clips, n_seconds, 128), uint8
        lengths : ndarray, shape (n_clips,), int64
            From 1 to ``n_seconds``.

        Returns
        -------
        Outputs
            ``embeddings`` (n_clips, embedding_size) and ``scores`` (n_clips, n_classes).
        """

        def run(rows: Int64Array) -> Outputs[FloatArray]:
            return self.head(*self._padded(clips[rows], lengths[rows]))

        scores = np.zeros((len(clips), len(self.labels)), np.float32)
        embeddings = np.zeros((len(clips), self.embedding_size), np.float32)
        batches = list(self._batches(lengths))
        for rows, outputs in zip(batches, map_in_order(run, batches, self.head.n_threads), strict=True):
            scores[rows], embeddings[rows] = outputs.scores, outputs.embeddings
        return Outputs(embeddings=embeddings, scores=scores)

    def _batches(self, lengths: Int64Array) -> Iterator[Int64Array]:
        """Rows of clips that are computed together; where padding is seen, such as have the same."""
        padded = np.maximum(lengths, CLIP_SECONDS) if self.padding == "zero" else np.zeros_like(lengths)
        for length in np.unique(padded):
            rows = np.flatnonzero(padded == length)
            yield from (rows[start : start + BATCH_CLIPS] for start in range(0, len(rows), BATCH_CLIPS))

    def _padded(self, clips: ByteArray, lengths: Int64Array) -> tuple[FloatArray, FloatArray]:
        """What the head sees of clips, and their mask: zeros after each clip, up to ten seconds or the longest."""
        n_seconds = int(max(lengths.max(), CLIP_SECONDS if self.padding == "zero" else 1))
        mask = (np.arange(n_seconds) < lengths[:, np.newaxis]).astype(np.float32)
        seen = np.zeros((len(clips), n_seconds, EMBEDDING_SIZE), np.float32)
        n_there = min(n_seconds, clips.shape[1])
        np.multiply(clips[:, :n_there], mask[:, :n_there, np.newaxis], out=seen[:, :n_there])
        return seen, mask

    def stream(self, sample_rate: int, **settings: Any) -> Stream[Prediction]:
        """Refused: a head sees windows of 9.6 s.

        Raises
        ------
        UsageError
        """
        raise UsageError(
            "a head classifies windows of 9.6 s, which live audio has to be collected for; streams need a model with "
            "patches. Next step: choose such a model, as yamnet, or predict clips as they are recorded"
        )

    def to_torch(self, *, input: str = "embeddings", **settings: Any) -> Any:
        """The head as a PyTorch module, with the same weights under the same names.

        Parameters
        ----------
        input : {"embeddings"}
            It takes embeddings (n_clips, n_seconds, 128), bytes or float32, and their mask (n_clips, n_seconds).

        Returns
        -------
        torch.nn.Module
            As of ``Model.to_torch``.
        """
        self._check_export(input, settings)
        return super().to_torch(input="patches")

    def to_onnx(self, path: str | os.PathLike[str], *, input: str = "embeddings", **settings: Any) -> None:
        """Write the head as an ONNX file.

        Parameters
        ----------
        path : path
        input : {"embeddings"}
            It takes ``input_embeddings`` (n_clips, n_seconds, 128), the bytes as float32, and ``mask`` (n_clips,
            n_seconds), and returns ``scores`` and ``embeddings``.

        Raises
        ------
        OutputError
            As ``Model.to_onnx``.
        """
        self._check_export(input, settings)
        super().to_onnx(path, input="patches")

    def _check_export(self, input: str, settings: dict[str, Any]) -> None:
        check_choice("input", input, INPUTS)
        if any(value is not None for value in settings.values()):
            raise UsageError(f"{', '.join(settings)} are settings of audio, and an exported head takes embeddings")

    def network_inputs(self, waveform: FloatArray, features: FloatArray, hop_frames: int) -> tuple[FloatArray, ...]:
        """The backbone's log-mel patches; see ``Engine``.

        Raises
        ------
        UsageError
            For another hop than the backbone's: heads are trained on embeddings that follow each other.
        """
        if hop_frames != self.frontend.patch_hop_frames:
            raise UsageError(
                f"a hop of {hop_frames * self.frontend.frame_hop_s:g} s is asked for, and a head sees embeddings "
                f"{self.frontend.patch_hop_frames * self.frontend.frame_hop_s:g} s apart. Next step: leave the hop out"
            )
        n_patches = len(features) // self.frontend.patch_frames
        shape = (n_patches, self.frontend.patch_frames, self.frontend.n_mels)
        return (features[: n_patches * self.frontend.patch_frames].reshape(shape),)

    def assemble(
        self,
        slab: Slab,
        features: FloatArray,
        outputs: Outputs[FloatArray],
        hop_frames: int,
        frontend: FrontendSpec | None = None,
    ) -> Prediction:
        """One slab's part of a prediction: a row for each window, from its first embedding to the end of its last."""
        part = super().assemble(slab, features, outputs, hop_frames, frontend)
        first = np.arange(0, slab.n_patches, CLIP_SECONDS)
        last = np.minimum(first + CLIP_SECONDS, slab.n_patches) - 1
        return replace(part, start_s=part.start_s[first], end_s=part.end_s[last])

    def _warm_up(self) -> None:
        self.head(*self._padded(np.zeros((1, 1, EMBEDDING_SIZE), np.uint8), np.ones(1, np.int64)))


@dataclass
class _Chain:
    """An engine of three parts: the backbone, which is loaded when it is first called, its postprocessor, the head."""

    model: HeadModel
    precision: str

    def __post_init__(self) -> None:
        self.name = self.model.head.name
        self.n_threads = self.model.head.n_threads
        self._lock = threading.Lock()
        self._backbone: tuple[Engine, Postprocessor] | None = None

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """What the head says of the windows of a recording's log-mel patches (n_patches, n_frames, n_mels)."""
        with self._lock:  # so that it is loaded once, and called by one thread first
            self._backbone = self._backbone or self._load()
        engine, postprocessor = self._backbone
        embeddings = engine(*inputs).embeddings
        check_finite(Outputs(embeddings=embeddings))  # in bytes they would be numbers again
        windows, lengths = cut_windows(postprocessor(embeddings))
        outputs = self.model.head(*self.model._padded(windows, lengths))
        return Outputs(embeddings=outputs.embeddings, scores=outputs.scores)

    def _load(self) -> tuple[Engine, Postprocessor]:
        spec = self.model.backbone
        try:
            card, folder = prepare_model(spec.name)
            postprocessor = Postprocessor.load(get_asset(str(spec.postprocessor)))
        except AssetError as error:
            raise AssetError(
                f"scores of audio by this head need the embeddings of {spec.name}, and so its files {spec.weights} and "
                f"{spec.postprocessor}; scores of embeddings (predict_embeddings) need neither. {error}"
            ) from error
        engine = make_engine(self.name, card, folder, self.precision, self.n_threads)
        Model(card, folder, engine)  # checks the card, and calls the engine in this thread
        return engine, postprocessor


def cut_windows(embeddings: ByteArray) -> tuple[ByteArray, Int64Array]:
    """Windows of ten embeddings that follow each other; zeros fill the last one.

    Parameters
    ----------
    embeddings : ndarray, shape (n_seconds, 128), uint8

    Returns
    -------
    windows : ndarray, shape (n_windows, 10, 128), uint8
    lengths : ndarray, shape (n_windows,), int64
        Embeddings in each.
    """
    n_windows = -(-len(embeddings) // CLIP_SECONDS)
    padded = np.pad(embeddings, ((0, n_windows * CLIP_SECONDS - len(embeddings)), (0, 0)))
    lengths = np.minimum(CLIP_SECONDS, len(embeddings) - CLIP_SECONDS * np.arange(n_windows))
    return padded.reshape(n_windows, CLIP_SECONDS, EMBEDDING_SIZE), lengths


def find_backbone(card: ModelCard) -> ModelSpec:
    """The published model whose embeddings a card's head classifies.

    Raises
    ------
    WeightsError
        If there is no such model, or its embeddings are not those that were released, or the card's frontend is not
        its own.
    """
    name = card.backbone or BACKBONE
    known = [model.name for model in MODELS.values() if model.postprocessor]
    if name not in known:
        raise WeightsError(f"the head's backbone is {name!r}; expected one of {', '.join(known)}")
    if card.frontend != MODELS[name].frontend:
        raise WeightsError(f"the head's frontend is {card.frontend!r}; expected {MODELS[name].frontend!r}, as {name}'s")
    return MODELS[name]


def _argument(card: ModelCard, name: str) -> Any:
    """A keyword argument of a card's network, given or its default."""
    return card.arguments.get(name, inspect.signature(find_network(card)).parameters[name].default)


def _checked_lengths(clips: ByteArray, lengths: Any) -> Int64Array:
    """Seconds of each clip; what cannot be clips or their lengths is refused."""
    if clips.ndim != 3 or clips.shape[2] != EMBEDDING_SIZE or clips.dtype != np.uint8:
        raise UsageError(
            f"embeddings have shape {clips.shape} and dtype {clips.dtype}; expected (n_seconds, {EMBEDDING_SIZE}) or "
            f"(n_clips, n_seconds, {EMBEDDING_SIZE}) and uint8. Likely cause: embeddings that are not quantised. Next "
            "step: Postprocessor.load(...)(embeddings), or audioset embed --model vggish --quantize"
        )
    n_clips, n_seconds, _ = clips.shape
    if n_seconds == 0:
        raise UsageError(f"embeddings have shape {clips.shape}: clips without a second; expected one or more")
    if lengths is None:
        return np.full(n_clips, n_seconds)
    checked = np.asarray(lengths)
    if checked.shape != (n_clips,) or (checked.dtype.kind not in "iu" and n_clips):
        raise UsageError(
            f"lengths have shape {checked.shape} and dtype {checked.dtype}; expected ({n_clips},) whole numbers, one "
            "for each clip"
        )
    outside = np.flatnonzero((checked < 1) | (checked > n_seconds))
    if len(outside):
        raise UsageError(
            f"the length of clip {outside[0]} is {checked[outside[0]]}; expected 1 to {n_seconds}, the seconds that "
            "the array has. Likely cause: lengths of other clips, or a clip without embeddings"
        )
    return checked.astype(np.int64)
