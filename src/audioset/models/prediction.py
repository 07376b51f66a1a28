"""``Prediction``: what a model says about a piece of audio, and how its parts are joined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from audioset.arguments import check_count
from audioset.arrays import Array, DoubleArray, FloatArray
from audioset.calibration import NONE, Calibration
from audioset.errors import AudioError, UsageError
from audioset.frontend.cutting import Slab
from audioset.frontend.spec import FrontendSpec
from audioset.labels.events import Event, clip_to_audio, scores_to_events
from audioset.labels.labels import LabelSet
from audioset.networks.ops import Outputs

NOT_FINITE = "not_finite"


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
        What ``log_mel`` was computed and cut with.
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


def check_finite(outputs: Outputs[FloatArray], start_s: float | None = None) -> None:
    """Refuse outputs of a network that are not finite numbers: comparing with NaN would leave out every label.

    The AudioError has the code ``not_finite``.
    """
    for name, values in vars(outputs).items():
        if values is not None and not np.isfinite(values).all():
            where = "" if start_s is None else f" of the audio from {start_s:.2f} s on"
            raise AudioError(
                f"the network's {name}{where} are not finite numbers. Likely cause: damaged weights, samples far "
                "outside [-1, 1], or a precision too low for this model. Next step: audioset doctor, or precision f32",
                code=NOT_FINITE,
            )


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


def patch_times(slab: Slab, spec: FrontendSpec) -> tuple[DoubleArray, DoubleArray]:
    """Start and end of a slab's patches, in seconds: by frames, or, of a clip model's window, by its samples."""
    if spec.is_centred:
        end_sample = min(slab.first_sample + spec.samples(spec.patch_frames), slab.end_sample)
        return np.array([slab.first_sample / spec.sample_rate]), np.array([end_sample / spec.sample_rate])
    first_frames = (slab.first_patch + np.arange(slab.n_patches)) * spec.patch_hop_frames
    starts = first_frames * spec.hop_samples / spec.sample_rate
    return starts, (first_frames + spec.patch_frames) * spec.hop_samples / spec.sample_rate


def top_indices(scores: Array, n: int) -> Sequence[int]:
    """Indices of the ``n`` highest scores, best first; equal scores in the order of the labels."""
    return [int(index) for index in np.argsort(-scores, kind="stable")[: max(0, n)]]
