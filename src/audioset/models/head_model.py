"""Heads, ready to run: on the released embeddings, and on audio by way of the network that makes such embeddings."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from audioset.arrays import ByteArray, FloatArray, Int64Array
from audioset.assets import get_asset
from audioset.concurrency import map_in_order
from audioset.errors import AssetError, UsageError, WeightsError
from audioset.frontend.cutting import Slab, patches
from audioset.frontend.spec import FrontendSpec
from audioset.models.cards import find_network
from audioset.models.engines import Engine, make_engine
from audioset.models.folders import prepare_model
from audioset.models.model import Model
from audioset.models.postprocess import EMBEDDING_SIZE, Postprocessor
from audioset.models.prediction import check_finite
from audioset.models.published import MODELS, ModelSpec
from audioset.networks.ops import Outputs
from audioset.weights.model_folder import ModelCard

BACKBONE = "vggish"  # of a card that names none
CLIP_SECONDS = 10  # embeddings in a clip of the dataset, and so in a window of a longer recording
BATCH_CLIPS = 256


class HeadEngine:
    """An engine of three parts: the backbone, which is loaded when it is first called, its postprocessor, the head."""

    def __init__(self, head: Engine, backbone: ModelSpec, padding: str, precision: str) -> None:
        # The head goes from embeddings and their mask to scores; padding, "zero" or "mask", is what it makes of clips
        # shorter than ten seconds.
        self.head, self.backbone, self.padding = head, backbone, padding
        self.name, self.n_threads = head.name, head.n_threads
        self._precision = precision
        self._lock = threading.Lock()
        self._parts: tuple[Engine, Postprocessor] | None = None

    def __call__(self, *inputs: FloatArray) -> Outputs[FloatArray]:
        """What the head says of the windows of a recording's log-mel patches (n_patches, n_frames, n_mels)."""
        with self._lock:  # so that it is loaded once, and called by one thread first
            self._parts = self._parts or self._load()
        engine, postprocessor = self._parts
        embeddings = engine(*inputs).embeddings
        check_finite(Outputs(embeddings=embeddings))  # in bytes they would be numbers again
        windows, lengths = cut_windows(postprocessor(embeddings))
        outputs = self.head(*self.padded(windows, lengths))
        return Outputs(embeddings=outputs.embeddings, scores=outputs.scores)

    def batches(self, lengths: Int64Array) -> Iterator[Int64Array]:
        """Rows of clips that are computed together; where padding is seen, such as have the same."""
        padded = np.maximum(lengths, CLIP_SECONDS) if self.padding == "zero" else np.zeros_like(lengths)
        for length in np.unique(padded):
            rows = np.flatnonzero(padded == length)
            yield from (rows[start : start + BATCH_CLIPS] for start in range(0, len(rows), BATCH_CLIPS))

    def padded(self, clips: ByteArray, lengths: Int64Array) -> tuple[FloatArray, FloatArray]:
        """What the head sees of clips, and their mask: zeros after each clip, up to ten seconds or the longest."""
        n_seconds = int(max(lengths.max(), CLIP_SECONDS if self.padding == "zero" else 1))
        mask = (np.arange(n_seconds) < lengths[:, np.newaxis]).astype(np.float32)
        seen = np.zeros((len(clips), n_seconds, EMBEDDING_SIZE), np.float32)
        n_there = min(n_seconds, clips.shape[1])
        np.multiply(clips[:, :n_there], mask[:, :n_there, np.newaxis], out=seen[:, :n_there])
        return seen, mask

    def _load(self) -> tuple[Engine, Postprocessor]:
        spec = self.backbone
        try:
            card, folder = prepare_model(spec.name)
            postprocessor = Postprocessor.load(get_asset(str(spec.postprocessor)))
        except AssetError as error:
            raise AssetError(
                f"scores of audio by this head need the embeddings of {spec.name}, and so its files {spec.weights} and "
                f"{spec.postprocessor}; scores of embeddings (predict_embeddings) need neither. {error}"
            ) from error
        engine = make_engine(self.name, card, folder, self._precision, self.n_threads)
        Model(card, folder, engine).ready()
        return engine, postprocessor


@dataclass(eq=False, repr=False)
class HeadModel(Model):
    """A head with the network whose embeddings it classifies. See ``load_model``.

    ``predict`` and what follows from it run audio through the backbone, its postprocessor and the head. A row of a
    ``Prediction`` is a window of ten embeddings, 9.6 s of audio: windows follow each other from the start, and the last
    one has the embeddings that are left, padded as the head's ``padding`` says. The backbone is loaded when audio is
    first predicted; ``predict_embeddings`` needs none. An export takes embeddings (n_clips, n_seconds, 128), the bytes
    as float32, and their ``mask`` (n_clips, n_seconds).
    """

    engine: HeadEngine  # from log-mel patches to scores of windows, by way of ``head``, ``backbone`` and ``padding``
    window_patches: ClassVar[int] = CLIP_SECONDS
    export_inputs: ClassVar[tuple[str, ...]] = ("embeddings",)

    @property
    def padding(self) -> str:
        """What the head makes of clips shorter than ten seconds: ``"zero"`` or ``"mask"``."""
        return self.engine.padding

    @property
    def backbone(self) -> ModelSpec:
        """The published model whose embeddings it classifies."""
        return self.engine.backbone

    def network_inputs(self, slab: Slab, features: FloatArray, spec: FrontendSpec) -> tuple[FloatArray, ...]:
        """What the backbone sees: the patches."""
        return (patches(features[slab.n_skipped :], spec),)

    def cut_as(
        self, *, hop_s: float | None = None, window_s: float | None = None, pad: str | None = None
    ) -> FrontendSpec:
        """The backbone's frontend with another ``pad``.

        UsageError for another hop than the backbone's: heads are trained on embeddings that follow each other.
        """
        spec, published = super().cut_as(hop_s=hop_s, window_s=window_s, pad=pad), self.frontend
        if spec.patch_hop_frames != published.patch_hop_frames:
            raise UsageError(
                f"a hop of {hop_s:g} s is asked for, and a head sees embeddings "
                f"{published.patch_hop_frames * published.frame_hop_s:g} s apart. Next step: leave the hop out"
            )
        return spec

    def predict_embeddings(self, embeddings: ByteArray, lengths: Any = None) -> FloatArray:
        """Scores of clips by their embeddings: (n_classes,) or (n_clips, n_classes), float32 in [0, 1].

        ``embeddings`` is (n_seconds, 128) of one clip or (n_clips, n_seconds, 128) of several, padded to the length of
        the longest, uint8. ``lengths``, (n_clips,), are the seconds of each of several clips, by default all; what
        comes after them is not seen. A clip's scores do not depend on its neighbours: with ``padding="zero"``, a clip
        shorter than ten seconds is padded to ten with zeros, as it was in training; with ``"mask"``, padding is not
        seen. UsageError for another shape or dtype, clips without seconds, or lengths beyond the array.
        """
        embeddings = np.asarray(embeddings)
        clips = embeddings[np.newaxis] if embeddings.ndim == 2 else embeddings
        n_seconds = _checked_lengths(clips, lengths)
        batches = list(self.engine.batches(n_seconds))
        scores = np.zeros((len(clips), len(self.labels)), np.float32)
        outputs = map_in_order(
            lambda rows: self.engine.head(*self.engine.padded(clips[rows], n_seconds[rows])),
            batches,
            self.engine.n_threads,
        )
        for rows, part in zip(batches, outputs, strict=True):
            scores[rows] = part.scores
        return scores[0] if embeddings.ndim == 2 else scores

    def _warm_up(self) -> None:
        self.predict_embeddings(np.zeros((1, EMBEDDING_SIZE), np.uint8))


def head_engine(card: ModelCard, head: Engine, precision: str) -> HeadEngine:
    """The engine of a card's head with its backbone, which is not loaded yet. Fails as ``find_backbone``."""
    default = inspect.signature(find_network(card)).parameters["padding"].default
    return HeadEngine(head, find_backbone(card), card.arguments.get("padding", default), precision)


def cut_windows(embeddings: ByteArray) -> tuple[ByteArray, Int64Array]:
    """Windows of ten embeddings that follow each other, and how many are in each; zeros fill the last one.

    From (n_seconds, 128), uint8, to (n_windows, 10, 128), uint8, and (n_windows,), int64.
    """
    n_windows = -(-len(embeddings) // CLIP_SECONDS)
    padded = np.pad(embeddings, ((0, n_windows * CLIP_SECONDS - len(embeddings)), (0, 0)))
    lengths = np.minimum(CLIP_SECONDS, len(embeddings) - CLIP_SECONDS * np.arange(n_windows))
    return padded.reshape(n_windows, CLIP_SECONDS, EMBEDDING_SIZE), lengths


def find_backbone(card: ModelCard) -> ModelSpec:
    """The published model whose embeddings a card's head classifies.

    WeightsError if there is no such model, or its embeddings are not those that were released, or the card's frontend
    is not its own.
    """
    name = card.backbone or BACKBONE
    known = [model.name for model in MODELS.values() if model.postprocessor]
    if name not in known:
        raise WeightsError(f"the head's backbone is {name!r}; expected one of {', '.join(known)}")
    if card.frontend != MODELS[name].frontend:
        raise WeightsError(f"the head's frontend is {card.frontend!r}; expected {MODELS[name].frontend!r}, as {name}'s")
    return MODELS[name]


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
