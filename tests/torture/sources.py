"""Whole files of every container, from which mutants are made."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache

import av
import numpy as np
import soundfile
from sounds import av_bytes, noise, sine, wav_bytes

SECONDS = 0.4
# name → libsndfile's container and encoding, sample rate in Hz, channels
SOUNDFILE = {
    "pcm16.wav": ("WAV", "PCM_16", 8_000, 1),
    "stereo.wav": ("WAV", "PCM_16", 8_000, 2),
    "pcm24.wav": ("WAV", "PCM_24", 8_000, 1),
    "pcm32.wav": ("WAV", "PCM_32", 8_000, 1),
    "pcm8.wav": ("WAV", "PCM_U8", 8_000, 1),
    "float.wav": ("WAV", "FLOAT", 8_000, 1),
    "double.wav": ("WAV", "DOUBLE", 8_000, 1),
    "ulaw.wav": ("WAV", "ULAW", 8_000, 1),
    "alaw.wav": ("WAV", "ALAW", 8_000, 1),
    "ima.wav": ("WAV", "IMA_ADPCM", 8_000, 1),
    "ms.wav": ("WAV", "MS_ADPCM", 8_000, 1),
    "gsm.wav": ("WAV", "GSM610", 8_000, 1),
    "layer3.wav": ("WAV", "MPEG_LAYER_III", 16_000, 1),
    "extensible.wav": ("WAVEX", "PCM_16", 8_000, 2),
    "big.rf64": ("RF64", "PCM_16", 8_000, 1),
    "sony.w64": ("W64", "PCM_16", 8_000, 1),
    "free.flac": ("FLAC", "PCM_16", 16_000, 1),
    "free24.flac": ("FLAC", "PCM_24", 16_000, 2),
    "vorbis.ogg": ("OGG", "VORBIS", 16_000, 1),
    "opus.ogg": ("OGG", "OPUS", 16_000, 1),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III", 16_000, 1),
    "apple.aiff": ("AIFF", "PCM_16", 8_000, 1),
    "float.aifc": ("AIFF", "FLOAT", 8_000, 1),
    "ulaw.aifc": ("AIFF", "ULAW", 8_000, 1),
    "apple.caf": ("CAF", "PCM_16", 8_000, 1),
    "lossless.caf": ("CAF", "ALAC_16", 8_000, 1),
    "sun.au": ("AU", "PCM_16", 8_000, 1),
    "ulaw.au": ("AU", "ULAW", 8_000, 1),
    "sds.sds": ("SDS", "PCM_16", 8_000, 1),
    "creative.voc": ("VOC", "PCM_16", 8_000, 1),
    "nist.sph": ("NIST", "PCM_16", 8_000, 1),
    "ircam.sf": ("IRCAM", "PCM_16", 8_000, 1),
    "matlab.mat": ("MAT5", "PCM_16", 8_000, 1),
}
# name → FFmpeg's container and codec, sample rate in Hz, channels, codec of pictures beside the sound
FFMPEG = {
    "phone.m4a": ("ipod", "aac", 16_000, 1, None),
    "lossless.m4a": ("ipod", "alac", 16_000, 1, None),
    "film.mp4": ("mp4", "aac", 16_000, 1, "mpeg4"),
    "film.mov": ("mov", "pcm_s16le", 16_000, 1, "mpeg4"),
    "phone.3gp": ("3gp", "amr_nb", 8_000, 1, None),
    "radio.aac": ("adts", "aac", 16_000, 1, None),
    "page.webm": ("webm", "libopus", 48_000, 1, None),
    "vorbis.webm": ("webm", "vorbis", 48_000, 2, None),
    "film.mkv": ("matroska", "flac", 16_000, 1, "mpeg4"),
    "sound.mka": ("matroska", "pcm_s16le", 16_000, 1, None),
    "film.avi": ("avi", "pcm_s16le", 16_000, 1, "mpeg4"),
    "layer3.avi": ("avi", "libmp3lame", 16_000, 1, None),
    "flash.flv": ("flv", "aac", 44_100, 1, "flv"),
    "tv.ts": ("mpegts", "mp2", 48_000, 1, "mpeg2video"),
    "radio.ts": ("mpegts", "aac", 16_000, 1, None),
    "disc.mpg": ("mpeg", "mp2", 48_000, 1, "mpeg1video"),
    "window.wma": ("asf", "wmav2", 16_000, 1, None),
    "old.wma": ("asf", "wmav1", 16_000, 1, None),
    "layer2.mp2": ("mp2", "mp2", 48_000, 1, None),
    "lame.mp3": ("mp3", "libmp3lame", 16_000, 2, None),
    "free.oga": ("ogg", "flac", 16_000, 1, None),
    "pack.wv": ("wv", "wavpack", 16_000, 1, None),
    "true.tta": ("tta", "tta", 16_000, 1, None),
    "dolby.ac3": ("ac3", "ac3", 48_000, 1, None),
    "dolby.eac3": ("eac3", "eac3", 48_000, 1, None),
    "phone.amr": ("amr", "amr_nb", 8_000, 1, None),
    "sony.oma": ("oma", "pcm_s16be", 44_100, 2, None),
    "g722.wav": ("wav", "g722", 16_000, 1, None),
    "tv.nut": ("nut", "pcm_s16le", 16_000, 1, None),
}
# Their headers say how much they hold, so that a cut one is never shorter in silence.
PROMISING = frozenset((".wav", ".rf64", ".w64", ".aiff", ".aifc", ".caf", ".au", ".flac"))
# Their samples are as long as their bytes, so that a changed sample changes no duration.
UNCOMPRESSED = frozenset(
    (
        *("pcm16.wav", "stereo.wav", "pcm24.wav", "pcm32.wav", "pcm8.wav", "ulaw.wav", "alaw.wav", "extensible.wav"),
        *("big.rf64", "sony.w64", "apple.aiff", "ulaw.aifc", "apple.caf", "sun.au", "ulaw.au"),
    )
)
HEADER_BYTES = 4_096  # no header above is longer


@cache
def sources() -> dict[str, bytes]:
    """Name and contents of each file that the libraries here can write."""
    return {name: data for name, make in _makers() if (data := _made(make)) is not None}


@cache
def missing() -> tuple[str, ...]:
    """Names of those that they cannot."""
    return tuple(name for name in (*SOUNDFILE, *FFMPEG, *ADDED) if name not in sources())


def _makers() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for name, (container, subtype, rate, n_channels) in SOUNDFILE.items():
        yield name, lambda c=container, s=subtype, r=rate, n=n_channels: wav_bytes(_sound(r, n), r, s, c)
    for name, row in FFMPEG.items():
        yield name, lambda row=row: _film(*row)
    yield from ADDED.items()


def _made(make: Callable[[], bytes]) -> bytes | None:
    try:
        return make()
    except (av.error.FFmpegError, soundfile.SoundFileError, ValueError):
        return None


def _sound(sample_rate: int, n_channels: int) -> np.ndarray:
    tone = sine(440, sample_rate, SECONDS, 0.3)
    return np.stack([tone + noise(len(tone), seed=channel) * 0.2 for channel in range(n_channels)], axis=1)


def _film(container: str, codec: str, sample_rate: int, n_channels: int, pictures: str | None) -> bytes:
    if pictures is None:
        return av_bytes(_sound(sample_rate, n_channels), sample_rate, container, codec)
    file = io.BytesIO()
    layout = "mono" if n_channels == 1 else "stereo"
    with av.open(file, "w", format=container) as output:
        video = output.add_stream(pictures, rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = output.add_stream(codec, rate=sample_rate, layout=layout)
        for index in range(round(SECONDS * 25)):
            picture = av.VideoFrame(32, 32, "yuv420p")
            for plane in picture.planes:
                plane.update(bytes([index * 8]) * plane.buffer_size)
            picture.pts = index
            output.mux(video.encode(picture))
        frame = av.AudioFrame.from_ndarray(_sound(sample_rate, n_channels).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = sample_rate, Fraction(1, sample_rate), 0
        resampler = av.AudioResampler(audio.format, audio.layout, audio.rate, audio.frame_size or None)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(audio.encode(piece))
        output.mux(video.encode(None))
        output.mux(audio.encode(None))
    return file.getvalue()


def _tagged(name: str, n_bytes: int) -> bytes:
    """A file behind an ID3 tag, with its size in four bytes of seven bits."""
    size = bytes(n_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\x00\x00" + size + bytes(n_bytes) + sources_of(name)


def sources_of(name: str) -> bytes:
    """One of the files of the tables above."""
    container, subtype, rate, n_channels = SOUNDFILE[name]
    return wav_bytes(_sound(rate, n_channels), rate, subtype, container)


ADDED: dict[str, Callable[[], bytes]] = {
    "tagged.mp3": lambda: _tagged("layer3.mp3", 300),
    "tagged.flac": lambda: _tagged("free.flac", 300),
    "chained.ogg": lambda: sources_of("vorbis.ogg") + sources_of("opus.ogg"),
    "joined.mp3": lambda: sources_of("layer3.mp3") * 2,
    "joined.flac": lambda: sources_of("free.flac") * 2,
    "long.flac": lambda: wav_bytes(sine(440, 16_000, 3.0)[:, None], 16_000, "PCM_16", "FLAC"),
    "long.ogg": lambda: wav_bytes(sine(440, 16_000, 3.0)[:, None], 16_000, "VORBIS", "OGG"),
    "long.m4a": lambda: av_bytes(sine(440, 16_000, 3.0)[:, None], 16_000, "ipod", "aac"),
}
