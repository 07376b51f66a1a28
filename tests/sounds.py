"""Sounds made by formula, and files of them in every container that the package reads."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

# file name → what soundfile or PyAV needs to write it; the last column is what the package calls it
SOUNDFILE_FORMATS = {
    "pcm16.wav": ("WAV", "PCM_16", "WAV"),
    "pcm24.wav": ("WAV", "PCM_24", "WAV"),
    "float.wav": ("WAV", "FLOAT", "WAV"),
    "ulaw.wav": ("WAV", "ULAW", "WAV"),
    "extensible.wav": ("WAVEX", "PCM_16", "WAV"),
    "big.rf64": ("RF64", "PCM_16", "RF64"),
    "sony.w64": ("W64", "PCM_16", "W64"),
    "free.flac": ("FLAC", "PCM_16", "FLAC"),
    "vorbis.ogg": ("OGG", "VORBIS", "Ogg Vorbis"),
    "opus.ogg": ("OGG", "OPUS", "Ogg Opus"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", "MP3"),
    "apple.aiff": ("AIFF", "PCM_16", "AIFF"),
    "apple.caf": ("CAF", "PCM_16", "CAF"),
    "lossless.caf": ("CAF", "ALAC_16", "CAF"),
}
AV_FORMATS = {
    "phone.m4a": ("ipod", "aac", "MP4"),
    "film.mp4": ("mp4", "aac", "MP4"),
    "lossless.m4a": ("ipod", "alac", "MP4"),
    "film.mov": ("mov", "aac", "MP4"),
    "radio.aac": ("adts", "aac", "AAC"),
    "page.webm": ("webm", "libopus", "WebM"),
    "film.mkv": ("matroska", "flac", "WebM"),
    "film.avi": ("avi", "pcm_s16le", "AVI"),
    "tv.ts": ("mpegts", "mp2", "MPEG-TS"),
    "flash.flv": ("flv", "aac", "FLV"),
    "disc.mpg": ("mpeg", "mp2", "MPEG-PS"),
    "window.wma": ("asf", "wmav2", "WMA"),
    "layer2.mp2": ("mp2", "mp2", "MP3"),
}
LOSSY_RATE = 48_000  # every codec above takes it


def sine(frequency_hz: float, sample_rate: int, seconds: float, amplitude: float = 0.5) -> np.ndarray:
    """A tone, float32 (n,)."""
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def noise(n_samples: int, n_channels: int | None = None, seed: int = 0) -> np.ndarray:
    """White noise, float32 (n,) or (n, channels), within ±0.5."""
    shape = n_samples if n_channels is None else (n_samples, n_channels)
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def wav_bytes(samples: np.ndarray, sample_rate: int = 16_000, subtype: str = "PCM_16", container: str = "WAV") -> bytes:
    """A sound file, as bytes."""
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, subtype=subtype, format=container)
    return file.getvalue()


def wav_header(
    n_data_bytes: int, sample_rate: int = 16_000, n_channels: int = 1, bits: int = 16, tag: int = 1
) -> bytes:
    """The 44 bytes in front of a WAV file's samples; ``tag`` is 1 for PCM and 3 for float."""
    frame_bytes = n_channels * bits // 8
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + n_data_bytes,
        b"WAVE",
        b"fmt ",
        16,
        tag,
        n_channels,
        sample_rate,
        sample_rate * frame_bytes,
        frame_bytes,
        bits,
        b"data",
        n_data_bytes,
    )


def write_format(path: Path, sample_rate: int = LOSSY_RATE, seconds: float = 1.0, n_channels: int = 2) -> Path:
    """A 440 Hz tone in the format that ``path.name`` stands for in the tables above."""
    samples = np.repeat(sine(440, sample_rate, seconds)[:, None], n_channels, axis=1)
    if path.name in SOUNDFILE_FORMATS:
        container, subtype, _ = SOUNDFILE_FORMATS[path.name]
        path.write_bytes(wav_bytes(samples, sample_rate, subtype, container))
    else:
        container, codec, _ = AV_FORMATS[path.name]
        path.write_bytes(av_bytes(samples, sample_rate, container, codec))
    return path


def av_bytes(samples: np.ndarray, sample_rate: int, container: str, codec: str, **options: str) -> bytes:
    """A file that FFmpeg writes, as bytes; ``samples`` is (n, 1 or 2)."""
    file = io.BytesIO()
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=sample_rate, layout=layout)
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = sample_rate
        frame.time_base = Fraction(1, sample_rate)
        frame.pts = 0
        for piece in _frames(frame, stream):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


def _frames(frame: av.AudioFrame, stream: av.AudioStream) -> list[av.AudioFrame]:
    """The sound in frames of the size and sample format that the encoder takes."""
    resampler = av.AudioResampler(stream.format, stream.layout, stream.rate, stream.frame_size or None)
    return [*resampler.resample(frame), *resampler.resample(None)]


def streamed_flac(samples: np.ndarray, sample_rate: int = 16_000) -> bytes:
    """FLAC as it comes out of a pipe: the header says 0 samples, which stands for unknown."""
    return with_flac_length(wav_bytes(samples, sample_rate, "PCM_16", "FLAC"), 0)


def with_flac_length(flac: bytes, n_samples: int) -> bytes:
    """The same file with another number of samples in its header."""
    start = len(b"fLaC") + 4 + 10  # magic, block header, sizes of blocks and frames
    packed = int.from_bytes(flac[start : start + 8], "big") >> 36 << 36 | n_samples
    return flac[:start] + packed.to_bytes(8, "big") + flac[start + 8 :]


def silent_film() -> bytes:
    """An MP4 film of two black pictures, without sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for index in range(2):
            picture = av.VideoFrame(32, 32, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes(plane.buffer_size))
            picture.pts = index
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return file.getvalue()
