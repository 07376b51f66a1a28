"""Samples that are not what they seem: of another scale, or with channels that cancel each other."""

from __future__ import annotations

import warnings

import numpy as np

from audioset.arrays import Array
from audioset.errors import AudioWarning

FULL_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}

# Floating point recorders and mixes pass 1 by some dB. Nothing passes it by 40, and a sound whose samples are all
# whole numbers, some of them 2 or more, is no sound of floats.
LOUD, ABSURD = 2.0, 100.0
INTEGER_BITS = (16, 24, 32)
# 16-bit values in 32-bit integers never pass 2^-16 of full scale, where 16-bit audio has half a step; they use the
# low 8 bits, which converters leave empty. Below 128 of their own steps it may be the noise of an open input.
QUIET, SILENT, STEP_24, STEP_32 = 2.0**-16, 2.0**-24, 2.0**-23, 2.0**-31
CANCELLING = 1e-2  # of the mean energy of the channels; independent channels keep one part in as many as there are
MIN_SAMPLES = 512  # fewer say nothing about a recording
PROBED_BLOCKS = 8  # the channels of one in so many are compared, in every so many-th sample: more would cost time
MIN_PROBES, PROBE_EVERY = 512, 64


class LevelCheck:
    """Looks at the blocks of a recording as they pass, and says in the end what is odd about their level."""

    def __init__(self) -> None:
        self.n_samples = self._n_blocks = 0
        self._peak = 0.0
        self._is_whole_where_loud = True
        self._is_in_fine_steps, self._is_in_coarse_steps = True, True
        self._mono_energy = self._channel_energy = 0.0

    def take(self, block: Array) -> None:
        """Look at a block of floats, or of int16 or int32 PCM, of shape (n, n_channels)."""
        if not block.size:
            return
        self.n_samples += len(block)
        if block.dtype != np.int16:  # which reaches neither far above full scale nor below its own steps
            self._take_level(block)
        if block.shape[1] > 1 and self._n_blocks % PROBED_BLOCKS == 0:
            self._take_channels(block)
        self._n_blocks += 1

    def _take_level(self, block: Array) -> None:
        full_scale = FULL_SCALE.get(block.dtype, 1.0)
        peak = max(float(block.max()), -float(block.min())) / full_scale
        self._peak = max(self._peak, peak)
        if peak >= LOUD and self._is_whole_where_loud:
            self._is_whole_where_loud = _is_multiple(block, 1.0)
        if peak > 0 and self._peak <= QUIET:
            self._is_in_fine_steps &= _is_multiple(block, STEP_32 * full_scale)
            self._is_in_coarse_steps &= _is_multiple(block, STEP_24 * full_scale)

    def _take_channels(self, block: Array) -> None:
        probes = block[:: max(1, min(PROBE_EVERY, len(block) // MIN_PROBES))].astype(np.float64)
        mono = probes.sum(axis=1) / block.shape[1]
        self._mono_energy += float(mono @ mono)
        self._channel_energy += float(np.vdot(probes, probes)) / block.shape[1]

    def findings(self) -> list[str]:
        """What is odd, with its likely cause."""
        found = []
        if self._peak >= ABSURD or (self._peak >= LOUD and self._is_whole_where_loud):
            bits = next((bits for bits in INTEGER_BITS if self._peak <= 2.0 ** (bits - 1)), INTEGER_BITS[-1])
            found.append(
                f"samples reach {self._peak:,.0f}, and full scale is 1. Likely cause: {bits}-bit integers stored as "
                f"floats. Next step: divide by {2 ** (bits - 1):,}"
            )
        if SILENT <= self._peak <= QUIET and self._is_in_fine_steps and not self._is_in_coarse_steps:
            found.append(
                f"samples never pass {self._peak:.1e} of full scale. Likely cause: 16-bit values in 32-bit integers. "
                "Next step: store them as 16-bit integers, or multiply them by 65,536"
            )
        if self.n_samples >= MIN_SAMPLES and self._mono_energy < CANCELLING * self._channel_energy:
            found.append(
                "the channels cancel each other when they are mixed to one. Likely cause: one of them is inverted. "
                "Next step: use one channel, or invert one"
            )
        return found


def warn_of_levels(levels: LevelCheck, stacklevel: int = 3) -> None:
    """Issue an ``AudioWarning`` for each finding, at the line that called the public function."""
    for finding in levels.findings():
        warnings.warn(finding, AudioWarning, stacklevel=stacklevel + 1)


def _is_multiple(block: Array, step: float) -> bool:
    scaled = block.astype(np.float64) / step
    return bool((scaled == np.rint(scaled)).all())
