"""What is done to log-mel spectrograms in training, so that a class is known by what stays the same.

Everything works on the spectrograms, which are computed once: a gain, a filter and noise change the energies of the
bands, and playing a clip faster moves its frames together and its bands up. The cost is a hundredth of a training step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from audioset.arrays import Array
from audioset.frontend.mel import hz_to_mel, hz_to_slaney_mel, slaney_mel_to_hz
from audioset.frontend.spec import FrontendSpec
from audioset.train.finetune.config import FinetuneConfig

Noise = Callable[[int, np.random.Generator], torch.Tensor]  # energies (n_frames, n_mels)

N_POINTS = 7  # of a random filter's curve
TILT_DB = 6.0  # of generated noise from the middle to either end of the bands, at most
LEAST_ENERGY = 1e-20
LEAST_DEVIATION = 1e-3  # of a band over time: one with less is silent throughout, and keeps its own values
HALF_STEP = float(torch.finfo(torch.float16).eps)  # of values in half precision, in which clips are kept


class MelScale:
    """The bands of a frontend: where they are, and how their energies become its log-mel values and back."""

    def __init__(self, spec: FrontendSpec) -> None:
        self._spec = spec
        slaney = (hz_to_slaney_mel, slaney_mel_to_hz)
        to_mel, to_hz = slaney if spec.mel_formula == "slaney" else (hz_to_mel, lambda mel: 700 * np.expm1(mel / 1127))
        edges = np.linspace(to_mel(spec.mel_min_hz), to_mel(spec.mel_max_hz), spec.n_mels + 2)
        self.centres_hz: Array = to_hz(edges[1:-1])
        self.floor = float(self.log_mel(torch.zeros(())))

    def energy(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Energies of bands: squares of what the frontend takes the logarithm of, if that is magnitudes."""
        spec = self._spec
        logarithm = log_mel * spec.log_scale + spec.log_mean
        if spec.log == "decibel":
            value = torch.pow(10, logarithm / 10)
        else:
            value = (torch.exp(logarithm) - spec.log_offset).clamp_min(0)
        return value if spec.power == 2 else value.square()

    def log_mel(self, energy: torch.Tensor) -> torch.Tensor:
        """The frontend's values of energies."""
        spec = self._spec
        value = energy if spec.power == 2 else energy.sqrt()
        if spec.log == "decibel":
            logarithm = 10 * torch.log10(value.clamp_min(spec.log_offset))
        else:
            logarithm = torch.log(value + spec.log_offset)
        return (logarithm - spec.log_mean) / spec.log_scale

    def warped_bands(self, factors: Array) -> Array:
        """The band, as a fraction, that each has once frequencies are multiplied: (n_clips, n_mels)."""
        places = self.centres_hz[np.newaxis] / np.asarray(factors)[:, np.newaxis]
        bands: Array = np.interp(places, self.centres_hz, np.arange(len(self.centres_hz)))
        return bands


class Augmentation:
    """Makes a batch of clips, each changed at random; without ``noise``, with one that is generated."""

    def __init__(self, config: FinetuneConfig, spec: FrontendSpec, noise: Noise | None = None) -> None:
        self._config, self._scale = config, MelScale(spec)
        self._n_frames = None if spec.is_centred else spec.patch_frames
        self._least_frames = spec.min_frames
        self._noise = noise or (lambda n_frames, rng: generated_noise(n_frames, spec.n_mels, rng))

    def __call__(
        self, clips: Sequence[torch.Tensor], targets: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches (n_clips, n_frames, n_mels) and targets, of log-mel clips (n_frames, n_mels) and theirs.

        With a frontend that is not centred, clips are one patch each. Patches are as long as the longest, and silent
        after the end of the others.
        """
        config = self._config
        patches = self._placed(clips, rng)
        if config.style_share and len(clips) > 1:
            strangeness = rng.random(len(clips)) * (rng.random(len(clips)) < config.style_share)
            others = torch.from_numpy(rng.permutation(len(clips)))
            loudest = patches.max()
            # A click in silence is dozens of deviations from the mean of its band; of a louder band's deviations, that
            # is more than there is room for in float32 when energies are made of it.
            patches = with_styles(patches, others, torch.from_numpy(1 - strangeness)).clamp_max(loudest)
        energy = self._scale.energy(patches)
        energy = energy * self._gains(len(clips), patches.shape[2], rng)
        if config.noise_share:
            energy = energy + self._added_noise(energy, rng)
        if config.mixup and len(clips) > 1:
            partners, shares = draw_mixup(config.mixup, len(clips), rng)
            energy, targets = mixup(energy, targets, partners, shares)
        patches = self._scale.log_mel(energy)
        for axis, longest in ((2, config.frequency_mask), (1, config.time_mask)):
            for _ in range(config.n_masks if longest else 0):
                patches = masked(patches, axis, longest, rng)
        return patches, targets

    def _placed(self, clips: Sequence[torch.Tensor], rng: np.random.Generator) -> torch.Tensor:
        config, n = self._config, len(clips)
        speeds = draw_factors(config.speed, n, rng)
        stretches = draw_factors(config.stretch, n, rng) / speeds
        warps = draw_factors(config.warp, n, rng) * speeds
        before, after = (rng.uniform(0, config.shift, n) for _ in range(2))
        lengths = np.array([len(clip) for clip in clips]) * stretches
        starts = before * lengths
        if self._n_frames is None:
            ends = starts + lengths + after * lengths
            n_frames = max(self._least_frames, int(np.ceil(ends.max() - 1e-6)))
        else:
            n_frames, starts = self._n_frames, starts - after * lengths
        return placed(clips, n_frames, starts, stretches, self._scale.warped_bands(warps), self._scale.floor)

    def _gains(self, n_clips: int, n_mels: int, rng: np.random.Generator) -> torch.Tensor:
        config = self._config
        gains_db = rng.uniform(-config.gain_db, config.gain_db, (n_clips, 1))
        curves_db = gains_db + rng.normal(0, config.equaliser_db, (n_clips, N_POINTS))
        curves = torch.from_numpy(curves_db.astype(np.float32))[:, np.newaxis]
        shape = functional.interpolate(curves, size=n_mels, mode="linear", align_corners=True)
        return torch.pow(10, shape / 10)

    def _added_noise(self, energy: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Noise for a share of the clips, each at a ratio of its own."""
        config = self._config
        added = torch.zeros_like(energy)
        for row in np.flatnonzero(rng.random(len(energy)) < config.noise_share):
            noise = self._noise(energy.shape[1], rng)
            added[row] = noise * noise_factor(energy[row], noise, rng.uniform(config.least_snr_db, config.most_snr_db))
        return added


def draw_factors(strength: float, n: int, rng: np.random.Generator) -> Array:
    """Factors between ``1 / (1 + strength)`` and ``1 + strength``, evenly in their logarithm: (n,)."""
    largest = np.log1p(strength)
    factors: Array = np.exp(rng.uniform(-largest, largest, n))
    return factors


def placed(
    clips: Sequence[torch.Tensor], n_frames: int, starts: Array, stretches: Array, bands: Array, floor: float
) -> torch.Tensor:
    """Clips in silence, each with its own place, duration and bands: (n_clips, n_frames, n_mels).

    A clip begins at the frame ``starts``, is ``stretches`` times as long, and ``bands`` (n_clips, n_mels) says which of
    its bands, as a fraction, each band of the result is. ``floor`` is the value of silence.
    """
    lengths = np.array([len(clip) for clip in clips])
    n_mels = clips[0].shape[1]
    source = torch.full((len(clips), int(lengths.max()) + 2, n_mels), floor)  # a silent frame before and after
    for row, clip in enumerate(clips):
        source[row, 1 : 1 + len(clip)] = clip
    frames = (np.arange(n_frames) - starts[:, np.newaxis]) / stretches[:, np.newaxis]
    places = np.clip(frames, -1, lengths[:, np.newaxis]) + 1
    across, down = (
        torch.from_numpy((2 * values / (size - 1) - 1).astype(np.float32))
        for values, size in ((bands, n_mels), (places, source.shape[1]))
    )
    shape = (len(clips), n_frames, n_mels)
    grid = torch.stack([across[:, None].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return functional.grid_sample(source[:, None], grid, align_corners=True)[:, 0]


def generated_noise(n_frames: int, n_mels: int, rng: np.random.Generator) -> torch.Tensor:
    """Energies of steady noise with a random tilt: (n_frames, n_mels)."""
    tilt_db = rng.uniform(-TILT_DB, TILT_DB) * np.linspace(-1, 1, n_mels)
    # A band is a mean over several bins, whose energies are exponentially distributed.
    energies = rng.gamma(4.0, 0.25, (n_frames, n_mels)) * 10 ** (tilt_db / 10)
    return torch.from_numpy(energies.astype(np.float32))


def noise_factor(energy: torch.Tensor, noise: torch.Tensor, snr_db: float) -> float:
    """What the noise's energies are multiplied by, to be so far below the clip's; 0 for a silent one of the two.

    A clip's level is that of the frames in which it is heard, so that silence around it does not count.
    """
    frames = energy.sum(1)
    heard = frames[frames > frames.max() * 1e-3]
    level, noise_level = float(heard.mean()) if len(heard) else 0.0, float(noise.sum(1).mean())
    if level < LEAST_ENERGY or noise_level < LEAST_ENERGY:
        return 0.0
    return float(level / noise_level * 10 ** (-snr_db / 10))


def with_styles(patches: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Give the bands of each clip means and deviations over time that are in part those of another one.

    A clip's own statistics count ``shares``. A band that does not vary but by rounding, as of digital silence, keeps
    its own values: there is nothing to enlarge.

    Source: Freq-MixStyle, of Kim et al. 2022 (DCASE), after Zhou et al. 2021 (arXiv:2104.02008).
    """
    means, deviations = patches.mean(1, keepdim=True), patches.std(1, keepdim=True, correction=0)
    own = shares.to(patches.dtype)[:, None, None]
    mixed_means, mixed_deviations = (own * x + (1 - own) * x[partners] for x in (means, deviations))
    varies = deviations > (HALF_STEP * patches.abs().amax(1, keepdim=True)).clamp_min(LEAST_DEVIATION)
    gains = mixed_deviations / torch.where(varies, deviations, 1.0)
    return torch.where(varies, (patches - means) * gains + mixed_means, patches)


def draw_mixup(strength: float, n: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The partner of each clip, and what its own part counts: half or more."""
    drawn = rng.beta(strength, strength, n).astype(np.float32)
    return torch.from_numpy(rng.permutation(n)), torch.from_numpy(np.maximum(drawn, 1 - drawn))


def mixup(
    energy: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix the energies of each clip with those of another one, and their targets; its own part counts ``shares``.

    Source: Zhang et al. 2018 (arXiv:1710.09412).
    """
    own = shares[:, None, None]
    mixed = own * energy + (1 - own) * energy[partners]
    return mixed, shares[:, None] * targets + (1 - shares[:, None]) * targets[partners]


def masked(patches: torch.Tensor, axis: int, longest: float, rng: np.random.Generator) -> torch.Tensor:
    """Hide a stripe of each clip by its mean: of time on axis 1, of bands on axis 2, ``longest`` as a share of it.

    Source: Park et al. 2019 (arXiv:1904.08779).
    """
    n_clips, size = len(patches), patches.shape[axis]
    widths = np.floor(rng.uniform(0, longest * size, n_clips))
    starts = np.floor(rng.uniform(0, 1, n_clips) * (size - widths + 1))
    places = np.arange(size)
    is_hidden = (places >= starts[:, np.newaxis]) & (places < (starts + widths)[:, np.newaxis])
    hidden = torch.from_numpy(is_hidden).unsqueeze(3 - axis)
    return torch.where(hidden, patches.mean((1, 2), keepdim=True), patches)
