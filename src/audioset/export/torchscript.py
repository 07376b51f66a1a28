"""TorchScript: a file that PyTorch runs without this package, in Python and in C++."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from audioset.arrays import Array
from audioset.errors import MissingExtraError
from audioset.export.job import Job
from audioset.export.runner import Arrays, Runner, without_advice
from audioset.frontend.spec import FrontendSpec

try:
    import torch
except ImportError as error:
    raise MissingExtraError("TorchScript", "torch", "train") from error
from torch.jit._trace import TracerWarning
from torch.nn import functional

from audioset.executors.torch import TorchNetwork
from audioset.executors.torch_frontend import TorchFrontend

METADATA_NAME = "audioset.json"
OUTPUTS = ("embeddings", "scores", "framewise")
TRACED_PATCHES = 2
# Of the networks' maps; any lengths that are not the same, and that a patch may have.
TRACED_FRAMES, TRACED_SECONDS = 401, 10


def write(job: Job, path: Path) -> None:
    """Write a job's model.

    The network is traced. What depends on the length of a waveform, the cutting into patches, is compiled from its
    source instead: a trace would keep the length that it has seen.
    """
    with without_advice(TracerWarning), torch.no_grad():
        if job.input == "waveform":
            module = _waveform_module(job)
        else:
            network = job.model.to_torch(input=job.input)
            module = torch.jit.trace(_ByName(network), _example(job), check_trace=False, strict=False)
        data = io.BytesIO()  # PyTorch does not say what the system says of a disk that is full
        extra = {METADATA_NAME: json.dumps(job.metadata, ensure_ascii=False)}
        torch.jit.save(module.eval(), data, _extra_files=extra)
    path.write_bytes(data.getbuffer())


def load(path: Path) -> Runner:
    """A file, ready to run on one core."""
    with without_advice():
        module = torch.jit.load(str(path), map_location="cpu").eval()

    def run(inputs: Arrays) -> dict[str, Array]:
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                outputs = module(*map(torch.tensor, inputs.values()))
        finally:
            torch.set_num_threads(n_threads)
        return {name: values.numpy() for name, values in outputs.items()}

    names = [value.debugName().partition(".")[0] for value in list(module.graph.inputs())[1:]]
    return Runner(run, f"torch {torch.__version__}", names)


class _ByName(torch.nn.Module):
    """A network that returns a dict, which a file can hold."""

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)  # who runs the file need not know of gradients

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = self.network(*inputs)
        return {name: getattr(outputs, name) for name in OUTPUTS if getattr(outputs, name) is not None}


class _LogMel(torch.nn.Module):
    """The part of a frontend that does not depend on how long the audio is."""

    def __init__(self, frontend: TorchFrontend) -> None:
        super().__init__()
        self.frontend = frontend

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return self.frontend._log_mel(samples).to(torch.float32)


class _WaveformModel(torch.nn.Module):
    """Waveform in, a dict out: what ``TorchModel`` is, in the part of Python that TorchScript compiles."""

    # What they choose is compiled, and nothing else.
    __constants__ = ("is_centred", "sees_patches", "sees_waveforms", "pad", "covers")

    def __init__(self, spec: FrontendSpec, inputs: tuple[str, ...], log_mel: Any, network: Any) -> None:
        super().__init__()
        self.log_mel = log_mel
        self.network = network
        self.is_centred = spec.is_centred
        self.sees_patches = "patches" in inputs
        self.sees_waveforms = "waveforms" in inputs
        self.pad = spec.pad
        self.covers = spec.pad == "cover"
        self.min_samples = spec.min_samples
        self.patch_samples = spec.samples(spec.patch_frames)
        self.patch_frames = spec.patch_frames
        self.hop_frames = spec.patch_hop_frames
        self.hop_samples = spec.hop_samples
        self.least_wave_samples = spec.waveform_samples(spec.min_frames)

    def forward(self, waveform: torch.Tensor) -> dict[str, torch.Tensor]:
        is_batch = waveform.dim() == 2
        clips = waveform if is_batch else waveform.unsqueeze(0)
        samples = self.at_least_a_patch(clips.to(torch.float32))
        if self.is_centred:
            windows = self.windows(samples)
            shape = windows.shape[:2]
            flat = windows.flatten(0, 1)
            if self.sees_patches:
                patches = self.log_mel(flat.to(torch.float64).unsqueeze(0))[0]
                if self.sees_waveforms:
                    outputs = self.network(patches, self.in_pairs(flat, patches.shape[1] // 2 * 2 * self.hop_samples))
                else:
                    outputs = self.network(patches)
            else:
                outputs = self.network(self.in_pairs(flat, self.least_wave_samples))
        else:
            log_mel = self.log_mel(self.whole_patches(samples, clips.shape[1]).to(torch.float64))
            cut = log_mel.unfold(1, self.patch_frames, self.hop_frames).transpose(2, 3)
            shape = cut.shape[:2]
            outputs = self.network(cut.flatten(0, 1))
        named: dict[str, torch.Tensor] = {}
        for name, values in outputs.items():
            of_clips = values.unflatten(0, shape)
            named[name] = of_clips if is_batch else of_clips[0]
        return named

    def at_least_a_patch(self, clips: torch.Tensor) -> torch.Tensor:
        n_samples = clips.shape[1]
        n_missing = self.min_samples - n_samples
        if n_samples == 0:
            raise RuntimeError("the waveform holds no samples")
        if n_missing <= 0:
            return clips
        if self.pad == "error":
            raise RuntimeError("the waveform is shorter than a patch")
        if self.pad == "repeat":
            return clips.repeat(1, self.min_samples // n_samples + 1)[:, : self.min_samples]
        return functional.pad(clips, [0, n_missing])

    def whole_patches(self, samples: torch.Tensor, n_given: int) -> torch.Tensor:
        """Padded or cut to exactly the samples of the clip's patches."""
        hop = self.hop_frames * self.hop_samples
        beyond = max(0, n_given - self.patch_samples)
        n_hops = (beyond + hop - 1) // hop if self.covers else beyond // hop
        n_needed = self.patch_samples + n_hops * hop
        return functional.pad(samples, [0, max(0, n_needed - samples.shape[1])])[:, :n_needed]

    def windows(self, samples: torch.Tensor) -> torch.Tensor:
        """Cut as ``TorchFrontend`` does: (n_clips, n_patches, n_samples)."""
        n_samples = samples.shape[1]
        size = min(n_samples, self.patch_samples)
        hop = self.hop_frames * self.hop_samples
        windows = samples.unfold(1, size, hop)
        if self.covers and (windows.shape[1] - 1) * hop + size < n_samples:
            windows = torch.cat([windows, samples[:, n_samples - size :].unsqueeze(1)], dim=1)
        return windows

    def in_pairs(self, windows: torch.Tensor, n_needed: int) -> torch.Tensor:
        """The samples of each patch, as many as the network's frames are made of."""
        return functional.pad(windows, [0, max(0, n_needed - windows.shape[1])])


def _waveform_module(job: Job) -> Any:
    model = job.model
    spec = model.frontend
    frontend = TorchFrontend(spec)
    n_samples = spec.samples(TRACED_FRAMES if spec.is_centred else spec.patch_frames)
    example = torch.zeros(1, TRACED_PATCHES, n_samples, dtype=torch.float64)
    log_mel = torch.jit.trace(_LogMel(frontend), example if spec.is_centred else example[0], check_trace=False)
    network = torch.jit.trace(_ByName(model.to_torch()), _example(job), check_trace=False, strict=False)
    return torch.jit.script(_WaveformModel(spec, model.inputs, log_mel, network))


def _example(job: Job) -> tuple[torch.Tensor, ...]:
    """What a job's network sees, for its trace."""
    spec = job.model.frontend
    if job.input == "embeddings":
        return torch.zeros(TRACED_PATCHES, TRACED_SECONDS, 128), torch.ones(TRACED_PATCHES, TRACED_SECONDS)
    n_frames = TRACED_FRAMES if spec.is_centred else spec.patch_frames
    shapes = {
        "patches": (TRACED_PATCHES, n_frames, spec.n_mels),
        "waveforms": (TRACED_PATCHES, spec.waveform_samples(n_frames)),
    }
    return tuple(torch.randn(*shapes[name]) for name in job.model.inputs)
