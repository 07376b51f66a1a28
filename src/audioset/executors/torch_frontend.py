"""From waveform to log-mel patches in PyTorch (an extra): on any device, and differentiable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from audioset.errors import AudioError, MissingExtraError, UsageError
from audioset.frontend.cutting import n_patches, pad_to_patch
from audioset.frontend.mel import mel_weights
from audioset.frontend.spec import FrontendSpec
from audioset.networks.ops import Outputs

try:
    import torch
except ImportError as error:
    raise MissingExtraError("the PyTorch frontend", "torch", "train") from error
from torch.nn import functional

from audioset.executors.torch import TorchNetwork

LOGS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "natural": lambda mel, offset: torch.log(mel + offset),
    "decibel": lambda mel, offset: 10 * torch.log10(mel.clamp_min(offset)),
}


class TorchFrontend(torch.nn.Module):
    """A published frontend as a module without parameters and without state.

    ``spec.pad`` says what happens to audio that does not fill a patch; see ``frontend.spec.PADS``. ``dtype`` is that of
    the arithmetic inside; the result is float32. ``torch.float32`` is four times faster, works on devices without
    float64, and in nearly silent bands beside a loud tone is off as much as the original, whose transform is float32
    too: 3e-3, and up to three times that with another order of sums. A cast of this module, or of a model around it,
    does not change it.

    Source: ``frontend.log_mel``, which follows the originals; within 5e-7 of it on stored references, tones
    and noise, and the windows of long audio are those of ``frontend.cutting.slabs``.
    """

    window: torch.Tensor
    mel_weights: torch.Tensor

    def __init__(
        self, spec: FrontendSpec, hop_frames: int | None = None, *, dtype: torch.dtype = torch.float64
    ) -> None:
        super().__init__()
        if hop_frames is not None and hop_frames < 1:
            raise UsageError(f"hop_frames is {hop_frames}; expected 1 or more, or None for the published hop")
        self.spec = spec
        self.hop_frames = hop_frames or spec.patch_hop_frames  # between patch starts
        self.dtype = dtype
        window = torch.hann_window(spec.window_samples, periodic=spec.is_window_periodic, dtype=torch.float64)
        self.register_buffer("window", window.to(dtype), persistent=False)
        self.register_buffer("mel_weights", torch.tensor(mel_weights(spec), dtype=dtype), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Log-mel patches of one clip (n_samples,), or of a batch of clips of equal length (batch, n_samples).

        The audio is mono, floating point in [-1, 1] at ``spec.sample_rate`` Hz. The patches, (n_patches, patch_frames,
        n_mels) or (batch, n_patches, patch_frames, n_mels), float32, are a view in which overlapping ones share their
        frames. With a centred frontend each has frames of its own, and a clip no longer than ``patch_frames`` is one
        patch of its own length. AudioError for another shape or dtype, or, with ``spec.pad="error"``, a clip shorter
        than a patch.
        """
        _check_waveform(waveform)
        with torch.autocast(waveform.device.type, enabled=False):  # it would round the product to 8 bits
            samples = self._pad(waveform.to(self.dtype))
            if self.spec.is_centred:
                return self._log_mel(self._windows(samples)).to(torch.float32)
            log_mel = self._log_mel(samples).to(torch.float32)
        return log_mel.unfold(-2, self.spec.patch_frames, self.hop_frames).transpose(-1, -2)

    def waveforms(self, waveform: torch.Tensor, *, beside_patches: bool = True) -> torch.Tensor:
        """The samples of each patch, as ``frontend.cutting.patch_waveforms`` gives them to a network.

        From (n_samples,) to (n_patches, n_patch_samples), float32, each with the batch first if there is one.
        ``beside_patches``: whether the network sees the log-mel spectrogram too. AudioError as ``forward``; UsageError
        if the frontend is not centred.
        """
        if not self.spec.is_centred:
            raise UsageError(f"the network sees samples, and the frontend {self.spec.name!r} is not centred")
        _check_waveform(waveform)
        windows = self._windows(self._pad(waveform)).to(torch.float32)
        n_samples = windows.shape[-1]
        n_frames = self.spec.n_frames(n_samples) if beside_patches else self.spec.min_frames
        n_missing = self.spec.waveform_samples(n_frames) - n_samples
        return functional.pad(windows, (0, max(0, n_missing)))

    def _log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        """(..., n_samples) to (..., n_frames, n_mels)."""
        spec = self.spec
        if spec.preemphasis:
            waveform = waveform[..., 1:] - spec.preemphasis * waveform[..., :-1]
        if spec.is_centred:
            waveform = functional.pad(waveform, spec.margins, mode="reflect")
        frames = waveform.unfold(-1, spec.window_samples, spec.hop_samples)
        magnitude = torch.fft.rfft(frames * self.window, spec.fft_size).abs()
        log_mel = LOGS[spec.log](magnitude**spec.power @ self.mel_weights, spec.log_offset)
        return (log_mel - spec.log_mean) / spec.log_scale

    def _pad(self, waveform: torch.Tensor) -> torch.Tensor:
        """Pad or cut to exactly the samples of the clip's patches; with a centred frontend, to ``min_samples``."""
        spec, n_samples = self.spec, waveform.shape[-1]
        if n_samples < spec.min_samples:
            # The numpy frontend pads the samples' places, counted from 1; here they are filled, 0 with silence.
            places = torch.from_numpy(pad_to_patch(np.arange(1.0, n_samples + 1), spec))
            waveform = functional.pad(waveform, (1, 0))[..., places.long()]
        if spec.is_centred:
            return waveform
        n_frames = (n_patches(n_samples, spec, self.hop_frames) - 1) * self.hop_frames + spec.patch_frames
        return functional.pad(waveform, (0, spec.samples(n_frames) - waveform.shape[-1]))

    def _windows(self, waveform: torch.Tensor) -> torch.Tensor:
        """(..., n_samples) to (..., n_patches, n_samples of a patch), cut as ``frontend.cutting.slabs`` does."""
        spec, n_samples = self.spec, waveform.shape[-1]
        size, hop = min(n_samples, spec.samples(spec.patch_frames)), self.hop_frames * spec.hop_samples
        windows = waveform.unfold(-1, size, hop)
        if spec.pad == "cover" and (windows.shape[-2] - 1) * hop + size < n_samples:
            windows = torch.cat([windows, waveform[..., None, n_samples - size :]], dim=-2)
        return windows

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> TorchFrontend:
        """Follow a model to its device, but not to its dtype: a cast is meant for the network."""
        constants = self.window, self.mel_weights
        torch.nn.Module._apply(self, fn, recurse)
        self.window, self.mel_weights = (constant.to(self.window.device) for constant in constants)
        return self


class TorchModel(torch.nn.Module):
    """A frontend and a network: waveform in, ``Outputs`` out."""

    def __init__(self, frontend: TorchFrontend, network: TorchNetwork) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network

    def forward(self, waveform: torch.Tensor) -> Outputs[torch.Tensor]:
        """Tag and embed one clip (n_samples,), or a batch of clips of equal length (batch, n_samples).

        The audio is mono, floating point in [-1, 1] at ``frontend.spec.sample_rate`` Hz; the outputs are (n_patches, …)
        or (batch, n_patches, …) in the network's dtype. AudioError as ``TorchFrontend.forward``.
        """
        makers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "patches": self.frontend,
            "waveforms": partial(self.frontend.waveforms, beside_patches="patches" in self.network.inputs),
        }
        dtype, n_axes = next(self.network.parameters()).dtype, waveform.ndim
        inputs = [makers[name](waveform).to(dtype) for name in self.network.inputs]
        outputs = self.network(*(values.flatten(0, n_axes - 1) for values in inputs))
        clips = inputs[0].shape[:n_axes]
        return Outputs(**{name: None if x is None else x.unflatten(0, clips) for name, x in vars(outputs).items()})


def _check_waveform(waveform: torch.Tensor) -> None:
    """Refuse what is not a clip or a batch of clips."""
    if waveform.ndim not in (1, 2):
        raise AudioError(
            f"waveform has shape {tuple(waveform.shape)}; expected (n_samples,) or (batch, n_samples)", code="shape"
        )
    if not waveform.is_floating_point():
        raise AudioError(f"waveform has dtype {waveform.dtype}; expected floats in [-1, 1]", code="dtype")
    if waveform.shape[-1] == 0:
        raise AudioError(f"waveform has shape {tuple(waveform.shape)}: it holds no samples", code="no_samples")
