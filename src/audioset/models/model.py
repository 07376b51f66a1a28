"""``Model``: tags and embeds audio."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audioset.arguments import check_path
from audioset.arrays import Array, FloatArray
from audioset.audio.isolation import IsolatedAudio
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reader import AudioSource
from audioset.audio.reading import mono_blocks, open_audio, waveform_to_mono
from audioset.audio.resampling import resample_blocks
from audioset.calibration import Calibration
from audioset.concurrency import map_in_order
from audioset.errors import UsageError
from audioset.frontend.cutting import Cutter, Slab, patch_waveforms, patches, slab_patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.frontend.spec import FrontendSpec
from audioset.labels.labels import LabelSet
from audioset.models.cards import find_frontend, find_labels, find_network, output_shapes, segment_frames
from audioset.models.conversion import check_export, to_keras, to_onnx, to_torch
from audioset.models.engines import Engine
from audioset.models.prediction import Prediction, check_finite, join_predictions, patch_times
from audioset.models.stream import Stream
from audioset.networks.ops import Outputs, input_names
from audioset.weights.model_folder import ModelCard

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class Model:
    """A published or trained network with its frontend and labels, ready to run. See ``load_model``.

    Attributes
    ----------
    card : ModelCard
        Where it comes from.
    folder : Path
        Model folder with its weights.
    engine : Engine
    frontend : FrontendSpec
    labels : LabelSet
    calibration : Calibration or None
    inputs : tuple of str
    window_patches : int
        Patches that make one row of a prediction together: 1, but for a head.
    export_inputs : tuple of str
        What an export of it may take, the best first.
    """

    card: ModelCard
    folder: Path
    engine: Engine
    reload: Callable[[], Model] | None = None  # loads it again; ``load_model`` knows how
    window_patches: ClassVar[int] = 1
    export_inputs: ClassVar[tuple[str, ...]] = ("waveform", "patches")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {self.card.network} with {len(self.labels)} labels, "
            f"{self.frontend.sample_rate:,} Hz, {self.engine.name}>"
        )

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        if self.reload is None:
            raise UsageError(f"{self!r} cannot be sent to another process. Next step: load it with audioset.load_model")
        return self.reload, ()

    @cached_property
    def frontend(self) -> FrontendSpec:
        """The frontend that the card names."""
        return find_frontend(self.card)

    @cached_property
    def labels(self) -> LabelSet:
        """What the columns of scores mean."""
        return find_labels(self.card)

    @cached_property
    def calibration(self) -> Calibration | None:
        """The model's own thresholds and maps of scores, if it was calibrated."""
        record = self.card.calibration
        return None if record is None else Calibration.from_record(record, self.labels)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """What the card's network takes, by name."""
        return input_names(find_network(self.card))

    @cached_property
    def segment_frames(self) -> int | None:
        """Frames in one segment of scores over time, of a model that has them."""
        return segment_frames(self.card)

    @property
    def embedding_size(self) -> int:
        """Numbers in one embedding."""
        return output_shapes(self.card).embeddings[0]

    def ready(self) -> None:
        """Check what the card names, and call the engine once, in one thread: this sets up its Python bindings.

        If two threads did that at once, one would hold the interpreter lock and the other the bindings' own, for ever.

        Raises
        ------
        WeightsError
            If something in the card does not fit the rest.
        """
        _ = self.frontend, self.labels, self.calibration, self.segment_frames
        self._warm_up()

    def _warm_up(self) -> None:
        spec = self.frontend
        (slab,) = slabs([np.zeros(spec.samples(spec.patch_frames), np.float32)], spec, 1)
        self.engine(*self.network_inputs(slab, np.zeros((spec.patch_frames, spec.n_mels), np.float32), spec))

    def cut_as(
        self, *, hop_s: float | None = None, window_s: float | None = None, pad: str | None = None
    ) -> FrontendSpec:
        """The frontend with patches as they are asked for: see ``predict``."""
        return self.frontend.with_patches(hop_s=hop_s, window_s=window_s, pad=pad)

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
        spec = self.cut_as(hop_s=hop_s, window_s=window_s, pad=pad)
        blocks = resample_blocks([waveform_to_mono(waveform)], sample_rate, spec.sample_rate)
        return join_predictions(self._predict(blocks, spec))

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
        return join_predictions([*self.predict_blocks(source, hop_s=hop_s, window_s=window_s, pad=pad, limits=limits)])

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
        spec = self.cut_as(hop_s=hop_s, window_s=window_s, pad=pad)
        if isolated:
            audio = IsolatedAudio(check_path("source", source), spec.sample_rate, limits)
            yield from self._predict(audio.blocks(), spec)
            warnings = audio.warnings
        else:
            with open_audio(source, limits) as reader:
                yield from self._predict(mono_blocks(reader, spec.sample_rate), spec)
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
        spec = self.cut_as(hop_s=hop_s, window_s=window_s, pad=pad)
        cutter = Cutter(spec, slab_patches(spec, self.window_patches), live_patches=self.window_patches)
        return Stream(partial(self._predict_slab, spec), cutter, sample_rate, spec.sample_rate)

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
        spec = self.cut_as(hop_s=hop_s, window_s=window_s, pad=pad)
        blocks = resample_blocks([waveform_to_mono(waveform)], sample_rate, spec.sample_rate)
        pieces = slabs(blocks, spec, slab_patches(spec))
        return np.concatenate([patches(log_mel(slab.waveform, spec)[slab.n_skipped :], spec) for slab in pieces])

    def to_torch(
        self,
        *,
        input: str | None = None,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> Any:
        """The network as a PyTorch module, with the same weights under the same names.

        Parameters
        ----------
        input : {"patches", "waveform"}, optional
            What the module takes: log-mel patches (n_patches, n_frames, n_mels), the default, or samples
            (n_samples,) or (n_clips, n_samples) at the model's sample rate, from which it computes the features
            itself, on the device where they are. A network that sees samples beside the patches takes those of each
            patch after them (``frontend.cutting.patch_waveforms``).
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
        return to_torch(self.card, self.folder, self._exported(input or self.export_inputs[-1], hop_s, window_s, pad))

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        input: str | None = None,
        hop_s: float | None = None,
        window_s: float | None = None,
        pad: str | None = None,
    ) -> None:
        """Write an ONNX file that runs anywhere, with the weights inside.

        Parameters
        ----------
        path : path
            File to write; replaced when the new one is whole.
        input : {"waveform", "patches"}, optional
            What the file takes. ``"waveform"``, the default: samples (n_samples,) float32 in [-1, 1] at the
            model's sample rate, of any length; it computes the features and returns ``embeddings``, ``log_mel`` and,
            for a tagger, ``scores``. Its metadata say rate, hop, padding and labels. ``"patches"``: log-mel
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
        spec = self._exported(input or self.export_inputs[0], hop_s, window_s, pad)
        to_onnx(self.card, self.folder, spec, path)

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
        return to_keras(self.card, self.folder)

    def _exported(
        self, input: str, hop_s: float | None, window_s: float | None, pad: str | None
    ) -> FrontendSpec | None:
        """The frontend of an export of waveforms; None where it takes what the network sees."""
        check_export(input, self.export_inputs, hop_s=hop_s, window_s=window_s, pad=pad)
        return self.cut_as(hop_s=hop_s, window_s=window_s, pad=pad) if input == "waveform" else None

    def _predict(self, blocks: Iterable[FloatArray], spec: FrontendSpec) -> Iterator[Prediction]:
        pieces = slabs(blocks, spec, slab_patches(spec, self.window_patches))
        first = next(pieces)
        if first.is_last:  # threads would only cost
            yield self._predict_slab(spec, first)
            return
        yield from map_in_order(partial(self._predict_slab, spec), chain((first,), pieces), self.engine.n_threads)

    def _predict_slab(self, spec: FrontendSpec, slab: Slab) -> Prediction:
        features = log_mel(slab.waveform, spec)
        return self.assemble(slab, features, self.engine(*self.network_inputs(slab, features, spec)), spec)

    def network_inputs(self, slab: Slab, features: FloatArray, spec: FrontendSpec) -> tuple[FloatArray, ...]:
        """What the engine sees of a slab and its log-mel spectrogram; see ``Engine``."""
        return tuple(
            patches(features[slab.n_skipped :], spec)
            if name == "patches"
            else patch_waveforms(slab.waveform, spec, beside_patches="patches" in self.inputs)
            for name in self.inputs
        )

    def assemble(
        self, slab: Slab, features: FloatArray, outputs: Outputs[FloatArray], spec: FrontendSpec
    ) -> Prediction:
        """One slab's part of a prediction, from its log-mel spectrogram and what the network made of it."""
        start_s, end_s = patch_times(slab, spec)
        check_finite(outputs, start_s[0])
        first = np.arange(0, slab.n_patches, self.window_patches)
        last = np.minimum(first + self.window_patches, slab.n_patches) - 1
        return Prediction(
            scores=outputs.scores,
            embeddings=outputs.embeddings,
            log_mel=features[len(features) - slab.n_frames :],
            start_s=start_s[first],
            end_s=end_s[last],
            duration_s=slab.end_sample / spec.sample_rate,
            labels=self.labels,
            calibration=self.calibration,
            frame_start_s=(slab.first_sample + np.arange(slab.n_frames) * spec.hop_samples) / spec.sample_rate,
            segment_scores=outputs.framewise,
            segment_frames=self.segment_frames,
            frontend=spec,
        )
