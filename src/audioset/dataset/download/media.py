"""From a fetched file to the file of a clip: cut to the sample, encoded, read back and checked.

The audio is decoded from its beginning. Seeking would be faster on long videos, and would not be exact: WebM has times
in milliseconds, and Opus, AAC and MP3 need what comes before to decode what is asked for.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.assets import hash_file
from audioset.audio.containers import sniff_container
from audioset.audio.decoders import decoding_errors
from audioset.audio.reader import AudioReader
from audioset.audio.reading import checked_blocks, open_audio
from audioset.audio.resampling import check_rates, resample_blocks
from audioset.errors import AudioError, UsageError

CONTEXT_S = 1  # whole seconds before and after the clip, so that the resampler starts and ends in sound
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
OPUS_SLACK_S = 0.02  # one frame: how much longer an Opus file may be than what went into it
NATIVE_TOLERANCE_S = 2.0  # how much earlier than announced the audio of a whole video may end


@dataclass(frozen=True)
class Encoding:
    """A way to write a clip."""

    suffix: str
    container: str  # as libsndfile calls it
    subtypes: dict[int, str]  # for each bit depth, libsndfile's encoding


ENCODINGS = {
    "flac": Encoding(".flac", "FLAC", {16: "PCM_16", 24: "PCM_24"}),
    "wav": Encoding(".wav", "WAV", {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}),
    "opus": Encoding(".opus", "OGG", {16: "OPUS"}),
}


@dataclass(frozen=True)
class MediaSettings:
    """What the file of a clip is to be."""

    format: str = "flac"  # ``flac``, ``wav`` or ``opus``
    # Hz; None keeps the rate of what was fetched. Opus knows five rates, and takes the next higher one.
    sample_rate: int | None = None
    n_channels: int | None = None  # 1, 2, or None for as many as were fetched
    bit_depth: int = 16  # 16 or 24; with WAV also 32, for floating point
    tolerance_s: float = 0.5  # how much of its end a clip may lack, in seconds
    video: str | None = None  # None for audio only, ``with-audio`` or ``video-only`` for an MP4 file beside it
    frame_rate: int | None = None  # of the video; None keeps its own

    def __post_init__(self) -> None:
        if self.format not in ENCODINGS:
            raise UsageError(f"the format is {self.format!r}; expected one of {', '.join(ENCODINGS)}")
        depths = self.encoding.subtypes
        if self.bit_depth not in depths:
            raise UsageError(f"{self.format} has no bit depth {self.bit_depth}; expected {_one_of(depths)}")
        if self.sample_rate is not None:
            check_rates(self.sample_rate)
        if self.format == "opus" and self.sample_rate not in (None, *OPUS_RATES):
            raise UsageError(f"Opus has no sample rate of {self.sample_rate} Hz; expected {_one_of(OPUS_RATES)}")
        if self.n_channels not in (None, 1, 2):
            raise UsageError(f"the number of channels is {self.n_channels}; expected 1 or 2, or none for as they are")
        if self.video not in (None, "with-audio", "video-only"):
            raise UsageError(f"video is {self.video!r}; expected with-audio or video-only")
        if not self.tolerance_s >= 0:
            raise UsageError(f"the tolerance is {self.tolerance_s} s; expected 0 or more")

    @property
    def encoding(self) -> Encoding:
        """How it is written."""
        return ENCODINGS[self.format]

    def output_rate(self, source_rate: int) -> int:
        """Sample rate in Hz of what is made from audio of another."""
        rate = self.sample_rate or source_rate
        if self.format != "opus":
            return rate
        return next((known for known in OPUS_RATES if known >= rate), OPUS_RATES[-1])


@dataclass(frozen=True)
class MediaFile:
    """A checked file of audio."""

    file: str  # where it belongs
    n_bytes: int
    sha256: str  # in hexadecimal
    duration_s: float
    sample_rate: int  # Hz
    n_channels: int
    codec: str  # the container as recognised: ``FLAC``, ``WAV``, ``Ogg Opus``
    source_format: str = ""  # what it was made from


def cut_clip(
    source: Path, target: Path, start_s: float, end_s: float, settings: MediaSettings, announced_s: float | None = None
) -> MediaFile:
    """Write the stretch from ``start_s`` to ``end_s`` of a file as a clip, and read it back.

    Sample ``n`` of the clip is the audio at ``start_s + n / sample_rate``; seconds are those of the source's own clock,
    so that sound and pictures fit, or count from the first sample where it has none.
    """
    with open_audio(source) as reader:
        rate, new_rate = reader.sample_rate, settings.output_rate(reader.sample_rate)
        first, last = round(start_s * rate), round(end_s * rate)
        context = CONTEXT_S * rate if new_rate != rate else 0
        begin = max(0, first - context)
        stretch = _Stretch(reader, begin, last + context)
        waveform = np.concatenate(
            [*resample_blocks(iter(stretch), rate, new_rate), np.zeros((0, reader.n_channels), np.float32)]
        )
        n_lost = _check_length(stretch, last, start_s, settings.tolerance_s, announced_s, source)
    skipped = round((first - begin) / rate * new_rate)
    n_samples = round((end_s - start_s - n_lost / rate) * new_rate)
    write_clip(target, _mix(waveform[skipped : skipped + n_samples], settings.n_channels), new_rate, settings)
    return check_file(target, (end_s - start_s) - n_lost / rate, 1 / new_rate, new_rate, settings.n_channels)


def write_clip(target: Path, waveform: FloatArray, sample_rate: int, settings: MediaSettings) -> None:
    """Encode samples in memory, write them, and wait until they are on the disk. Values beyond ±1 are clipped."""
    import soundfile

    subtype = settings.encoding.subtypes[settings.bit_depth]
    samples: Array = _quantise(waveform, settings.bit_depth) if subtype.startswith("PCM") else waveform
    encoded = io.BytesIO()
    try:
        soundfile.write(encoded, samples, sample_rate, subtype=subtype, format=settings.encoding.container)
    except (soundfile.SoundFileError, ValueError) as error:
        raise AudioError(
            f"{samples.shape[1]} channels at {sample_rate} Hz cannot be written as {settings.format}: {error}",
            code="unsupported_format",
        ) from error
    with target.open("wb") as file:
        file.write(encoded.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def check_file(
    path: Path,
    expected_s: float,
    tolerance_s: float,
    sample_rate: int | None = None,
    n_channels: int | None = None,
) -> MediaFile:
    """Decode a whole file, and compare it with what it should be."""
    with open_audio(path) as reader:
        n_samples = sum(len(block) for block in checked_blocks(reader))
        duration_s = n_samples / reader.sample_rate
        longer_s = tolerance_s + (OPUS_SLACK_S if reader.container == "Ogg Opus" else 0)
        if reader.warnings:
            raise AudioError(f"the file is damaged: {'; '.join(reader.warnings)}", code="wrong_media")
        if not expected_s - tolerance_s <= duration_s <= expected_s + longer_s:
            raise AudioError(f"the file lasts {duration_s:.3f} s; expected {expected_s:.3f} s", code="wrong_media")
        if sample_rate not in (None, reader.sample_rate):
            raise AudioError(f"the file has {reader.sample_rate} Hz; expected {sample_rate} Hz", code="wrong_media")
        if n_channels not in (None, reader.n_channels):
            raise AudioError(f"the file has {reader.n_channels} channels; expected {n_channels}", code="wrong_media")
        digest = hash_file(path).partition(":")[2]
        return MediaFile(
            str(path), path.stat().st_size, digest, duration_s, reader.sample_rate, reader.n_channels, reader.container
        )


def duration_of(path: Path) -> float:
    """Seconds of audio in a file, by decoding it."""
    with open_audio(path) as reader:
        return sum(len(block) for block in checked_blocks(reader)) / reader.sample_rate


class _Stretch:
    """Float32 blocks of samples ``begin`` to ``end`` of a reader, and how many samples were seen until then."""

    def __init__(self, reader: AudioReader, begin: int, end: int) -> None:
        self.n_seen = 0
        self.reader = reader
        self._begin, self._end = begin, end

    def __iter__(self) -> Iterator[FloatArray]:
        for block in self._scaled(checked_blocks(self.reader)):
            start = self.n_seen
            self.n_seen += len(block)
            chosen = block[max(0, self._begin - start) : max(0, self._end - start)]
            if len(chosen):
                yield chosen
            if self.n_seen >= self._end:
                return

    @staticmethod
    def _scaled(blocks: Iterable[Array]) -> Iterator[FloatArray]:
        for block in blocks:
            yield block.astype(np.float32) / np.float32(2**15) if block.dtype == np.int16 else block


def _check_length(
    stretch: _Stretch, last: int, start_s: float, tolerance_s: float, announced_s: float | None, source: Path
) -> int:
    """Samples that the clip lacks at its end; an error if they are too many, or if it is the file that was cut."""
    rate = stretch.reader.sample_rate
    n_lost = max(0, last - stretch.n_seen)
    if n_lost == 0:
        return 0
    there_s = stretch.n_seen / rate
    promised_s = max(announced_s or 0.0, _header_s(source))
    if stretch.reader.warnings or there_s < min(promised_s - NATIVE_TOLERANCE_S, last / rate - tolerance_s):
        reason = "; ".join(stretch.reader.warnings) or f"ends after {there_s:.1f} s of the {promised_s:.1f} s announced"
        raise AudioError(f"what was fetched is not whole: {reason}", code="decode_failed")
    if n_lost > tolerance_s * rate or there_s <= start_s:
        raise AudioError(
            f"the video ends after {there_s:.3f} s, and the clip after {last / rate:.3f} s; it may lack at most "
            f"{tolerance_s} s (--tolerance)",
            code="short",
        )
    return n_lost


def _header_s(source: Path) -> float:
    """Seconds that a container's header promises; 0 where it does not say, or libsndfile reads it."""
    import av

    try:
        with open_container(source) as container:
            return float((container.duration or 0) / av.time_base) if container else 0.0
    except AudioError:
        return 0.0


@contextmanager
def open_container(source: Path) -> Iterator[Any]:
    """A file, opened by FFmpeg, which is told what it is; None if it is libsndfile's to read."""
    import av

    options = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    with source.open("rb") as file:
        container = sniff_container(file, source.stat().st_size)
        if container.is_libsndfiles:
            yield None
            return
        with decoding_errors(lambda: f"the {container.name} file cannot be opened"):
            opened = av.open(file, mode="r", format=container.ffmpeg_format, **options)
        with opened:
            yield opened


def _mix(waveform: FloatArray, n_channels: int | None) -> FloatArray:
    """As many channels as are wanted: the mean of all, or the same on both sides."""
    if n_channels is None or waveform.shape[1] == n_channels:
        return waveform
    mono = waveform.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    return np.repeat(mono, n_channels, axis=1)


def _quantise(waveform: FloatArray, bit_depth: int) -> Array:
    """Whole numbers, so that 16-bit samples come out as they went in; libsndfile would scale by 32,767."""
    full = 2.0 ** (bit_depth - 1)
    numbers = np.clip(np.rint(waveform.astype(np.float64) * full), -full, full - 1)
    return numbers.astype(np.int16) if bit_depth == 16 else numbers.astype(np.int32) << (32 - bit_depth)


def _one_of(values: Iterable[int]) -> str:
    return " or ".join(str(value) for value in values)
