"""Live audio: blocks of samples go in, and what a model says of a patch comes out with the patch's last sample."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Generic, TypeVar

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.audio.levels import LevelCheck, warn_of_levels
from audioset.audio.reading import waveform_to_mono
from audioset.audio.resampling import check_rates, make_resampler
from audioset.errors import AudioError, UsageError
from audioset.frontend.cutting import Cutter, Slab

Part = TypeVar("Part")

LEVEL_S = 10.0  # of sound, after which a stream's level is judged


class Stream(Generic[Part]):
    """Predictions of live audio, in the thread that pushes it. Made by ``Model.stream``.

    Joined together, the predictions are those of ``Model.predict`` for all the samples, however these were cut into
    blocks. Memory does not grow with the stream.

    Parameters
    ----------
    predict : callable
        Makes a prediction of a slab.
    cutter : Cutter
        Cuts the samples, once they have the model's rate.
    sample_rate, model_rate : int
        Of the blocks and of the model, Hz.

    Raises
    ------
    UsageError
        If the rate is not between 1 Hz and 10 MHz.
    """

    def __init__(self, predict: Callable[[Slab], Part], cutter: Cutter, sample_rate: int, model_rate: int) -> None:
        self._predict = predict
        self._cutter = cutter
        self._resample = _resampler(sample_rate, model_rate)
        self._sample_rate, self._model_rate = sample_rate, model_rate
        self._levels = LevelCheck()
        self._has_level = False  # that has been judged
        self._n_channels: int | None = None  # of the first block, and so of all
        self._is_finished = False

    @property
    def duration_s(self) -> float:
        """Seconds of audio so far; what the resampler holds back is added by ``finish``."""
        return self._cutter.n_samples / self._model_rate

    def push(self, block: Array) -> list[Part]:
        """Take the next samples.

        Parameters
        ----------
        block : ndarray, shape (n_samples,) or (n_samples, n_channels)
            Of any length, also without samples. Floats in [-1, 1], or int16 or int32 PCM, which is scaled. Channels
            are averaged. The array may be filled again after the call.

        Returns
        -------
        list of Prediction
            All patches that this block completes: none or one prediction, or several for a block that holds more than
            64 patches. A window of a model of clips goes when it is sure that another one follows it.

        Warns
        -----
        AudioWarning
            As ``Model.predict``, once: of the first ten seconds, or at the end of a shorter stream.

        Raises
        ------
        AudioError
            As ``Model.predict``, and ``shape`` if the number of channels is not that of the first block. The block is
            then left out, and the stream may go on.
        UsageError
            After ``finish``.
        """
        self._check_is_open()
        block = np.asarray(block)
        if block.ndim in (1, 2) and len(block) == 0:
            return []
        mono = waveform_to_mono(block, self._levels)
        self._check_channels(block)
        if self._levels.n_samples >= LEVEL_S * self._sample_rate:
            self._warn_of_levels()
        samples = self._resample(mono, False).copy()  # the caller may fill the block again
        return [self._predict(slab) for slab in self._cutter.push(samples)]

    def finish(self) -> list[Part]:
        """End the stream, and pad what is left as the end of a file.

        Returns
        -------
        list of Prediction
            The patches that are left; none if all samples that count were in a patch already.

        Raises
        ------
        AudioError
            ``no_samples`` if there were none; ``too_short`` if they fill no patch and ``pad`` is ``"error"``.
        UsageError
            If the stream has been finished before.
        """
        self._check_is_open()
        self._is_finished = True
        if self._n_channels is None:
            raise AudioError("the stream ended before its first sample", code="no_samples")
        self._warn_of_levels()
        samples = self._resample(np.zeros(0, np.float32), True)
        return [self._predict(slab) for slab in chain(self._cutter.push(samples), self._cutter.finish())]

    def _warn_of_levels(self) -> None:
        """Once: of the first seconds, or of the whole stream if it is shorter."""
        if not self._has_level:
            self._has_level = True
            warn_of_levels(self._levels)

    def _check_is_open(self) -> None:
        if self._is_finished:
            raise UsageError("the stream is finished. Next step: model.stream() begins another one")

    def _check_channels(self, block: Array) -> None:
        n_channels = 1 if block.ndim == 1 else block.shape[1]
        if self._n_channels not in (None, n_channels):
            raise AudioError(
                f"the block has shape {block.shape}, which is {n_channels} channels; expected {self._n_channels}, as "
                "in the stream's first block",
                code="shape",
            )
        self._n_channels = n_channels


def _resampler(sample_rate: int, new_sample_rate: int) -> Callable[[FloatArray, bool], FloatArray]:
    """A function of the next samples and whether they are the last; its results are those of ``resample_blocks``."""
    check_rates(sample_rate, new_sample_rate)
    if sample_rate == new_sample_rate:
        return lambda samples, is_last: samples
    resample: Callable[[FloatArray, bool], FloatArray] = make_resampler(sample_rate, new_sample_rate, 1).resample_chunk
    return resample
