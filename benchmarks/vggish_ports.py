"""What the known differences between ports of VGGish and the original change, one at a time.

Log-mel features, embeddings and bytes of each port are compared with those of the original's formula, in float64
as there. Which port does what, and what to make of the figures: docs/vggish.md.

    python benchmarks/vggish_ports.py

Sounds: the clips in the ``audio`` folder of ``AUDIOSET_ASSETS``, else those that are made here; for resamplers, always
those made here, at 44.1 kHz. Weights and principal components: the published files where they are on this machine,
else stand-ins, which show the size of an effect and not its exact value. Released features: ``features.tar.gz`` in
``AUDIOSET_ASSETS``, else the bytes that are made here.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import uuid4

import av
import numpy as np
from bench_vggish import write_random_model
from numpy.lib.stride_tricks import sliding_window_view

from audioset.assets import find_asset
from audioset.audio.reading import read_audio
from audioset.audio.resampling import resample_blocks
from audioset.cache import Graph
from audioset.concurrency import available_cores
from audioset.executors.onnx import network_to_onnx
from audioset.executors.openvino import OpenVinoEngine
from audioset.frontend.cutting import n_patches, pad_to_patch, patches
from audioset.frontend.log_mel import log_mel
from audioset.frontend.mel import hz_to_mel, mel_weights
from audioset.frontend.published import VGGISH
from audioset.models.folders import load_weights as read_model_weights
from audioset.models.folders import prepare_model
from audioset.models.postprocess import Postprocessor, dequantize
from audioset.networks.shapes import trace_shapes
from audioset.networks.vggish import vggish
from audioset.weights.model_folder import read_weights

Array = np.ndarray
Sound = tuple[Array, int]  # waveform, and its sample rate in Hz

PATCH = (VGGISH.patch_frames, VGGISH.n_mels)
SHAPES, _ = trace_shapes(vggish, PATCH, {})
BEFORE_DENSE = (6, 4, 512)  # height, width and channels
PCA_HOP_FRAMES = 3
WIDE_RATE = 44_100
WIDE_S = 5
SHORT_SAMPLES = 8_000
HOPS_S = (0.96, 1.0, 0.93, 0.5, 0.46)
N_SHARDS = 200
# A patch in a released record: three nested lengths, then its 128 bytes
RELEASED_PATCH = re.compile(rb"\n\x86\x01\n\x83\x01\n\x80\x01(.{128})", re.DOTALL)


# The steps as the original does them; the arguments of ``formula`` are what others change


def soxr_hq(waveform: Array, rate: int) -> Array:
    return np.concatenate(list(resample_blocks([waveform], rate, VGGISH.sample_rate)))


def formula(
    waveform: Array,
    log_offset: float = VGGISH.log_offset,
    window: Array | None = None,
    mel: Array | None = None,
    power: int = 1,
    is_centred: bool = False,
    dtype: type = np.float64,
) -> Array:
    """Log-mel features. Centred frames begin half a window early, in the mirror image of the sound."""
    size = VGGISH.window_samples
    samples = np.pad(waveform.astype(dtype), size // 2 if is_centred else 0, mode="reflect")
    window = periodic_hann(size) if window is None else window
    mel = mel_weights(VGGISH) if mel is None else mel
    frames = sliding_window_view(samples, size)[:: VGGISH.hop_samples] * window.astype(dtype)
    magnitude = np.abs(np.fft.rfft(frames, VGGISH.fft_size))
    return np.log(magnitude**power @ mel.astype(dtype) + dtype(log_offset))


def periodic_hann(size: int) -> Array:
    return np.hanning(size + 1)[:-1]


def unchanged(values: Array) -> Array:
    return values


def truncate(values: Array) -> Array:
    return values.astype(np.uint8)


# Steps as others do them


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def to_peak(samples: Array) -> Array:
    return samples / max(0.1, samples.max())


def round_up_or_down(values: Array) -> Array:
    return np.round(values).astype(np.uint8)


def mel_straight_in_hz() -> Array:
    """Triangles between the same edges, straight in Hz."""
    edges_mel = np.linspace(hz_to_mel(VGGISH.mel_min_hz), hz_to_mel(VGGISH.mel_max_hz), VGGISH.n_mels + 2)
    edges_hz = 700 * np.expm1(edges_mel / 1127)
    lower, centre, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    bins_hz = np.linspace(0, VGGISH.sample_rate / 2, VGGISH.fft_size // 2 + 1)[:, None]
    return np.maximum(0, np.minimum((bins_hz - lower) / (centre - lower), (upper - bins_hz) / (upper - centre)))


def short(samples: Array, pad: str) -> Array:
    """The first half second, padded."""
    return pad_to_patch(samples[:SHORT_SAMPLES], VGGISH.with_pad(pad))


def linear(waveform: Array, rate: int) -> Array:
    times = np.arange(len(waveform) * VGGISH.sample_rate // rate) / VGGISH.sample_rate
    return np.interp(times, np.arange(len(waveform)) / rate, waveform)


def ffmpeg(waveform: Array, rate: int) -> Array:
    resampler = av.AudioResampler("fltp", "mono", VGGISH.sample_rate)
    frame = av.AudioFrame.from_ndarray(waveform[None], "fltp", "mono")
    frame.sample_rate = rate
    return np.concatenate([part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))])


def with_resampy(waveform: Array, rate: int, quality: str) -> Array:
    import resampy

    return resampy.resample(waveform, rate, VGGISH.sample_rate, filter=quality)


@dataclass(frozen=True)
class Port:
    """A way to compute VGGish; the defaults are the original's. ``step`` says where it takes another."""

    name: str
    step: str
    resample: Callable[[Array, int], Array] = soxr_hq
    prepare: Callable[[Array], Array] = unchanged
    log_mel: Callable[[Array], Array] = formula
    hop_s: float = 0.96
    network: str = "original"
    activation: Callable[[Array], Array] = unchanged
    to_bytes: Callable[[Array], Array] = truncate


ORIGINAL = Port("the original", "")
PORTS = (
    Port("ReLU on the embedding", "embedding", activation=relu),
    Port("flattened channels first", "network", network="channels first"),
    Port("log offset 0.001", "log-mel", log_mel=partial(formula, log_offset=0.001)),
    Port("power instead of magnitude", "log-mel", log_mel=partial(formula, power=2)),
    Port("centred frames", "log-mel", log_mel=partial(formula, is_centred=True)),
    Port("mel triangles straight in Hz", "log-mel", log_mel=partial(formula, mel=mel_straight_in_hz())),
    Port("symmetric Hann window", "log-mel", log_mel=partial(formula, window=np.hanning(VGGISH.window_samples))),
    Port("float32, the transform too", "log-mel", log_mel=partial(formula, dtype=np.float32)),
    Port("float32 after the transform (ours)", "log-mel", log_mel=partial(log_mel, spec=VGGISH)),
    *(Port(f"a patch every {hop_s:.2f} s", "times", hop_s=hop_s) for hop_s in HOPS_S[1:]),
    Port("16-bit samples, not scaled", "samples", prepare=lambda samples: samples * 32_768),
    Port("samples scaled twice", "samples", prepare=lambda samples: samples / 32_768),
    Port("each clip scaled to its peak", "samples", prepare=to_peak),
    Port("bytes rounded", "bytes", to_bytes=round_up_or_down),
    Port(
        "ReLU, offset 0.001, centred, straight in Hz",
        "several",
        activation=relu,
        log_mel=partial(formula, log_offset=0.001, is_centred=True, mel=mel_straight_in_hz()),
    ),
)
RESAMPLERS = (
    *(
        Port(f"resampy {quality}", "samples", resample=partial(with_resampy, quality=quality))
        for quality in ("kaiser_best", "kaiser_fast")
        if importlib.util.find_spec("resampy")
    ),
    Port("FFmpeg's default", "samples", resample=ffmpeg),
    Port("linear interpolation", "samples", resample=linear),
)
ZEROS = Port("0.5 s, then zeros", "samples", prepare=partial(short, pad="zero"))
REPEATS = (Port("0.5 s repeated, to 0.5 s and zeros", "samples", prepare=partial(short, pad="repeat")),)


# Running and comparing them


@dataclass(frozen=True)
class Results:
    """What a port makes of each sound."""

    log_mels: list[Array]
    embeddings: list[Array]
    quantised: list[Array]


@dataclass(frozen=True)
class Row:
    """Largest difference of log-mel values, ‖a - b‖ / ‖b‖ and mean cosine of embeddings, share of changed bytes."""

    name: str
    step: str
    log_mel: float
    relative: float
    cosine: float
    changed: float

    def __str__(self) -> str:
        figures = (
            shown(self.log_mel, "9.1e"),
            shown(self.relative, "11.1e"),
            shown(self.cosine, "9.4f"),
            shown(100 * self.changed, "9.0f"),
        )
        return f"  {self.name:44s} {self.step:10s}" + "".join(figures)


def shown(value: float, form: str) -> str:
    """A figure, a plain 0, or a stroke where there is none."""
    width = int(form.partition(".")[0])
    return format(value, form) if value and value == value else f"{0 if value == 0 else '-':>{width}}"


@dataclass(frozen=True)
class Pipeline:
    """The networks by name, and what quantises their embeddings."""

    networks: dict[str, OpenVinoEngine]
    postprocessor: Postprocessor

    def run(self, port: Port, sounds: Sequence[Sound]) -> Results:
        """Features, embeddings and bytes of each sound."""
        log_mels = [port.log_mel(port.prepare(to_16_khz(sound, port.resample))) for sound in sounds]
        network, hop_frames = self.networks[port.network], VGGISH.hop_frames(port.hop_s)
        outputs = [network(patches(features, VGGISH, hop_frames)) for features in log_mels]
        embeddings = [port.activation(each.embeddings) for each in outputs]
        quantised = [port.to_bytes(self.postprocessor.unrounded(each)) for each in embeddings]
        return Results(log_mels, embeddings, quantised)


def to_16_khz(sound: Sound, resample: Callable[[Array, int], Array]) -> Array:
    waveform, rate = sound
    return waveform if rate == VGGISH.sample_rate else resample(waveform, rate)


def compare(port: Port, ours: Results, theirs: Results) -> Row:
    """The k-th frame of each sound with the k-th, and the k-th patch with the k-th."""
    log_mels = common(ours.log_mels, theirs.log_mels)
    quantised = common(ours.quantised, theirs.quantised)
    return Row(
        port.name,
        port.step,
        np.abs(log_mels[0] - log_mels[1]).max(),
        *distances(*common(ours.embeddings, theirs.embeddings)),
        np.mean(quantised[0] != quantised[1]),
    )


def common(ours: list[Array], theirs: list[Array]) -> tuple[Array, Array]:
    """What both have of each sound, one sound after the other."""
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in zip(ours, theirs, strict=True)]
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])


def distances(ours: Array, theirs: Array) -> tuple[float, float]:
    """Relative difference of embeddings, and their mean cosine similarity."""
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / norms
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)), float(cosines.mean())


def other_patches(results: Results) -> Row:
    """The yardstick: each patch with one half of all patches further on."""
    embeddings, quantised = np.concatenate(results.embeddings), np.concatenate(results.quantised)
    shift = len(embeddings) // 2
    changed = np.mean(np.roll(quantised, shift, axis=0) != quantised)
    return Row(
        "for comparison: another patch", "", np.nan, *distances(np.roll(embeddings, shift, axis=0), embeddings), changed
    )


def read_otherwise(quantised: Array) -> list[Row]:
    """What becomes of bytes that are read in other ways, as the values that stand for them."""
    values = dequantize(quantised)
    signed = quantised.view(np.int8).astype(np.float32) * 4 / 255 + 4 / 512 - 2
    kong = (quantised.astype(np.float32) - 128) / 128
    return [
        Row("bytes read as int8", "reading", np.nan, *distances(signed, values), np.mean(quantised > 127)),
        Row("bytes read as (x - 128) / 128", "reading", np.nan, *distances(kong, values), 0),
    ]


# What they run on


def asset_folders() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("AUDIOSET_ASSETS", "").split(os.pathsep) if folder]


def real_sounds() -> list[Sound]:
    clips = [clip for folder in asset_folders() for clip in sorted((folder / "audio").glob("*.wav"))]
    return [read_audio(clip, mono=True) for clip in clips]


def wide_sounds() -> list[Sound]:
    """Sounds up to 20 kHz: noise, a gliding tone with its harmonics, and clicks."""
    rng = np.random.default_rng(0)
    seconds = np.arange(WIDE_S * WIDE_RATE) / WIDE_RATE
    phase = 2 * np.pi * np.cumsum(300 + 100 * np.sin(2 * np.pi * 0.3 * seconds)) / WIDE_RATE
    noise = rng.uniform(-0.3, 0.3, len(seconds))
    harmonics = 0.3 * sum(np.sin(n * phase) / n for n in range(1, 50))
    clicks = (rng.random(len(seconds)) < 1e-3) * rng.uniform(-1, 1, len(seconds))
    return [(sound.astype(np.float32), WIDE_RATE) for sound in (noise, harmonics, clicks)]


def load_weights(folder: Path) -> tuple[dict[str, Array], str]:
    published = find_asset("vggish_model.ckpt")
    if published:
        return read_model_weights(*prepare_model("vggish", published)), str(published)
    write_random_model(folder)
    return read_weights(folder, SHAPES), "random numbers: embeddings and bytes show the size of an effect"


def flattened_channels_first(weights: dict[str, Array]) -> dict[str, Array]:
    """Weights with which the first dense layer takes its inputs in the other order."""
    name, (height, width, channels) = "vggish/fc1/fc1_1/weights", BEFORE_DENSE
    order = np.arange(height * width * channels).reshape(channels, height, width).transpose(1, 2, 0)
    return {**weights, name: weights[name][order.ravel()]}


def compile_network(weights: dict[str, Array], folder: Path) -> OpenVinoEngine:
    os.environ["AUDIOSET_CACHE"] = str(folder)
    graph = Graph(f"models/{uuid4().hex}/graph", lambda: network_to_onnx(vggish, weights, PATCH, {}))
    return OpenVinoEngine(graph, "f32", available_cores())


def load_postprocessor(network: OpenVinoEngine, sounds: Sequence[Sound]) -> tuple[Postprocessor, str]:
    published = find_asset("vggish_pca_params.npz")
    if published:
        return Postprocessor.load(published), str(published)
    features = [formula(to_16_khz(sound, soxr_hq)) for sound in sounds]
    embeddings = np.concatenate([network(patches(each, VGGISH, PCA_HOP_FRAMES)).embeddings for each in features])
    variances, components = np.linalg.eigh(np.cov(embeddings.T))
    return Postprocessor((components / np.sqrt(variances)).T, embeddings.mean(axis=0)), "of the sounds measured"


def released_bytes() -> Array | None:
    """Patches of the first shards of the released features, (n_patches, 128) uint8."""
    archive = next((path for folder in asset_folders() if (path := folder / "features.tar.gz").is_file()), None)
    if archive is None:
        return None
    with tarfile.open(archive, "r|gz") as members:
        shards = islice((member for member in members if member.isfile()), N_SHARDS)
        found = [patch for shard in shards for patch in RELEASED_PATCH.findall(members.extractfile(shard).read())]
    return np.frombuffer(b"".join(found), np.uint8).reshape(-1, 128)


def print_times() -> None:
    """How many patches there are, when they begin, and how wrong it is to count them in steps of 0.96 s."""
    print(f"\n  {'hop':>6s}{'patches of 10 s':>18s}{'padded':>9s}{'last begins':>14s}{'x 0.96 s':>11s}{'in 1 h':>11s}")
    for hop_s in HOPS_S:
        whole, padded = (
            n_patches(10 * VGGISH.sample_rate, VGGISH.with_pad(pad), VGGISH.hop_frames(hop_s))
            for pad in ("error", "cover")
        )
        last, wrong_s = whole - 1, 0.96 - hop_s
        times = f"{last * hop_s:12.2f} s{last * wrong_s:+9.2f} s{wrong_s * 3600 / hop_s:+9.0f} s"
        print(f"  {hop_s:.2f} s{whole:18d}{padded:9d}{times}")


def print_rows(title: str, rows: Iterable[Row]) -> None:
    print(f"\n  {title:55s}{'log-mel':>9s}{'embedding':>11s}{'cosine':>9s}{'bytes, %':>9s}")
    for row in rows:
        print(row)


def main() -> None:
    wide, real = wide_sounds(), real_sounds()
    sounds = real or wide
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, origin = load_weights(folder)
        networks = {
            "original": compile_network(weights, folder),
            "channels first": compile_network(flattened_channels_first(weights), folder),
        }
    postprocessor, components = load_postprocessor(networks["original"], [*sounds, *wide])
    pipeline = Pipeline(networks, postprocessor)
    print(f"weights: {origin}\nprincipal components: {components}")
    if not importlib.util.find_spec("resampy"):
        print("resampy is not measured: it is not installed")
    clips = f"{len(real)} clips" if real else "sounds made here"
    for title, base, ports, material in (
        (clips, ORIGINAL, PORTS, sounds),
        ("44.1 kHz, to soxr HQ (ours)", ORIGINAL, RESAMPLERS, wide),
        (f"0.5 s of {clips}", ZEROS, REPEATS, sounds),
    ):
        results = pipeline.run(base, material)
        rows = [compare(port, pipeline.run(port, material), results) for port in ports]
        print_rows(title, [*rows, other_patches(results)])
    original = pipeline.run(ORIGINAL, sounds)
    released = released_bytes()
    quantised = np.concatenate(original.quantised) if released is None else released
    origin = "made here" if released is None else "of the released features"
    print_rows(f"{quantised.size:,} bytes {origin}", read_otherwise(quantised))
    print_times()
    print(f"\n  values that a ReLU makes 0: {np.mean(np.concatenate(original.embeddings) < 0):.0%}")


if __name__ == "__main__":
    main()
