"""The samples of a clip: decoded, cut, mixed down and resampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from audioset.arrays import FloatArray
from audioset.audio.isolation import IsolatedAudio
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.resampling import check_rates
from audioset.errors import AudioError
from audioset.sounds.collection import Clip


def read_clip(clip: Clip, sample_rate: int, limits: Limits = LIMITS) -> FloatArray:
    """Decode one clip in a process of its own, and no more of its file than lies before its end.

    The samples, float32 in [-1, 1], the mean of the channels, are those of the whole file at ``sample_rate``, Hz, cut
    from ``round(start_s * sample_rate)`` to ``round(end_s * sample_rate)``: the resampler hears what is around the
    clip. They are fewer where the file ends before it. ``AudioError``: those of ``IsolatedAudio``, and ``no_samples``
    if the file ends before the clip begins.
    """
    return next(read_clips([clip], sample_rate, limits))


def read_clips(clips: Iterable[Clip], sample_rate: int, limits: Limits = LIMITS) -> Iterator[FloatArray]:
    """Decode several clips of one file, the file once, as ``read_clip`` does; in their order. They may overlap."""
    check_rates(sample_rate)
    chosen = list(clips)
    pieces = [_Piece(clip, sample_rate) for clip in chosen]
    last = max((piece.stop for piece in pieces), default=0)
    if chosen:
        audio = IsolatedAudio(chosen[0].path, sample_rate, limits, n_samples=None if last == np.inf else int(last))
        n_seen = 0
        for block in audio.blocks():
            for piece in pieces:
                piece.take(block, n_seen)
            n_seen += len(block)
    for clip, piece in zip(chosen, pieces, strict=True):
        yield _waveform(clip, piece, n_seen / sample_rate)


class _Piece:
    """Collects the samples from ``start`` to ``stop`` of a stream of blocks."""

    def __init__(self, clip: Clip, sample_rate: int) -> None:
        self.start: float = round(clip.start_s * sample_rate)
        self.stop: float = np.inf if clip.end_s is None else round(clip.end_s * sample_rate)
        self.parts: list[FloatArray] = []

    def take(self, block: FloatArray, n_seen: int) -> None:
        if self.start < n_seen + len(block) and n_seen < self.stop:
            first, last = max(0, self.start - n_seen), min(len(block), self.stop - n_seen)
            self.parts.append(block[int(first) : int(last)].copy())  # a view would keep the whole block


def _waveform(clip: Clip, piece: _Piece, decoded_s: float) -> FloatArray:
    if not sum(map(len, piece.parts)):
        raise AudioError(
            f"the clip from {clip.start_s:g} s to {'the end' if clip.end_s is None else f'{clip.end_s:g} s'} holds no "
            f"samples: {decoded_s:.3f} s were decoded. Likely cause: labels of another recording, or an empty stretch",
            code="no_samples",
        )
    return np.concatenate(piece.parts)
