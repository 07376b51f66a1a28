"""Recognise audio containers by their first bytes and decode them block by block.

libsndfile (through soundfile) reads WAV, RF64, W64, FLAC, Ogg Vorbis, Opus, MP3, AIFF and CAF; FFmpeg
(through PyAV) reads M4A, AAC, WebM, MP4 and other video. A container is recognised by its contents,
never by its file name, and FFmpeg is told which one it is, so a playlist renamed ``.wav`` opens nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Union

import numpy as np

from audioset.errors import AudioError
from audioset.limits import Limits

Array = np.ndarray[Any, np.dtype[Any]]
AudioSource = Union[str, "os.PathLike[str]", bytes, BinaryIO]

BLOCK_FRAMES = 32_768  # smaller blocks pay for more calls, larger ones fall out of the cache
EXPANSION_FREE_BYTES = 10_000_000  # short files are never refused for how well they compress


@dataclass(frozen=True)
class Container:
    """A file format: how it begins, and who reads it.

    ``signature`` lists (offset, bytes) that must all match. ``ffmpeg_format`` names the demuxer to pin;
    None means libsndfile.
    """

    name: str
    signature: tuple[tuple[int, bytes], ...]
    ffmpeg_format: str | None = None


CONTAINERS = (
    Container("WAV", ((0, b"RIFF"), (8, b"WAVE"))),
    Container("WAV", ((0, b"RIFX"), (8, b"WAVE"))),
    Container("RF64", ((0, b"RF64"), (8, b"WAVE"))),
    Container("W64", ((0, b"riff\x2e\x91\xcf\x11"),)),
    Container("FLAC", ((0, b"fLaC"),)),
    Container("Ogg Vorbis", ((0, b"OggS"), (28, b"\x01vorbis"))),
    Container("Ogg Opus", ((0, b"OggS"), (28, b"OpusHead"))),
    Container("Ogg FLAC", ((0, b"OggS"), (28, b"\x7fFLAC"))),
    Container("AIFF", ((0, b"FORM"), (8, b"AIFF"))),
    Container("AIFF", ((0, b"FORM"), (8, b"AIFC"))),
    Container("CAF", ((0, b"caff"),)),
    Container("Ogg", ((0, b"OggS"),), "ogg"),
    Container("MP4", ((4, b"ftyp"),), "mov"),
    Container("QuickTime", ((4, b"moov"),), "mov"),
    Container("QuickTime", ((4, b"mdat"),), "mov"),
    Container("QuickTime", ((4, b"wide"),), "mov"),
    Container("WebM", ((0, b"\x1a\x45\xdf\xa3"),), "matroska"),
    Container("AVI", ((0, b"RIFF"), (8, b"AVI ")), "avi"),
    Container("FLV", ((0, b"FLV\x01"),), "flv"),
    Container("WMA", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),), "asf"),
    Container("MPEG-TS", ((0, b"\x47"), (188, b"\x47")), "mpegts"),
    Container("MPEG-PS", ((0, b"\x00\x00\x01\xba"),), "mpeg"),
)
MP3 = Container("MP3", ())
# Written to a pipe, so without a length. libsndfile cannot read such FLAC; of such MP3 it guesses the length from
# the first frame's bit rate, and stops there.
STREAMED_FLAC = Container("FLAC", (), "flac")
STREAMED_MP3 = Container("MP3", (), "mp3")
MP3_LENGTH = re.compile(b"Xing|Info|VBRI")
AAC = Container("AAC", (), "aac")

# How libsndfile's log reports chunks of samples (W64 and RF64: of everything) that reach past the end of the file.
CUT_CHUNK = re.compile(r"^ *(?:data|SSND|riff|Riff size) : (\d+) \(should be (\d+)\)$", re.MULTILINE)
# Writers to a pipe cannot go back to the header. They put sizes in these ranges there, and mean none.
STREAMED_SIZES = (range(0x7FFF_0000, 0x8000_0001), range(0xFFFF_0000, 0x1_0000_0000))

# Encodings that libsndfile may decode here. Those left out (ADPCM, GSM and kin) carry its open memory bugs.
SUBTYPES = re.compile(r"PCM_.*|FLOAT|DOUBLE|ULAW|ALAW|ALAC_.*|VORBIS|OPUS|MPEG_LAYER_.*")


class AudioReader(Protocol):
    """Audio that is decoded block by block.

    Attributes
    ----------
    sample_rate : int
        Hz, the file's own.
    n_channels : int
    container : str
        ``"WAV"``, ``"FLAC"``, …
    warnings : list of str
        Filled while blocks are read: what the file promised and did not keep.
    """

    sample_rate: int
    n_channels: int
    container: str
    warnings: list[str]

    def blocks(self) -> Iterator[Array]:
        """Yield arrays of shape (n, n_channels): int16 where the file holds it, else float32."""
        ...

    def close(self) -> None:
        """Close the file, if ``open_audio`` opened it."""
        ...

    def __enter__(self) -> AudioReader: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_reader(file: BinaryIO, source: AudioSource, n_bytes: int, limits: Limits) -> AudioReader:
    """Reader for an open file at its start; ``source`` is what the user passed, ``n_bytes`` its size."""
    container = sniff_container(file, n_bytes)
    reader_class = _SoundFileReader if container.ffmpeg_format is None else _FFmpegReader
    return reader_class(file, source, container, n_bytes, limits)


def sniff_container(file: BinaryIO, n_bytes: int) -> Container:
    """Recognise a container by its first bytes; the file is left at its start."""
    head = file.read(512)
    if head[:3] == b"ID3" and len(head) >= 10:  # a tag in front of MP3, AAC or FLAC; four 7-bit size bytes
        size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(10 + size)
        head = file.read(512) or b"\xff\xfb"
    file.seek(0)
    for container in CONTAINERS:
        if all(head[at : at + len(magic)] == magic for at, magic in container.signature):
            return STREAMED_FLAC if container.name == "FLAC" and _flac_length(head) == 0 else container
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # MPEG audio sync; layer 0 is AAC's
        if not head[1] & 0x06:
            return AAC
        return MP3 if MP3_LENGTH.search(head) else STREAMED_MP3
    start = head[:24].decode("latin-1").encode("unicode_escape").decode("ascii")
    raise AudioError(
        f"the file ({n_bytes:,} bytes) begins with '{start}', which is no audio format known here. Likely cause: "
        f"text, a playlist or an unfinished download under an audio file's name. Known: {', '.join(known_formats())}",
        code="not_audio",
    )


def _flac_length(head: bytes) -> int:
    """Samples that a FLAC header promises: 36 bits of STREAMINFO, 0 for unknown."""
    return int.from_bytes(head[21:26], "big") & 0xF_FFFF_FFFF


def known_formats() -> list[str]:
    """Names of the containers that can be read."""
    return list(dict.fromkeys(container.name for container in (*CONTAINERS, MP3, AAC)))


def _check_stream(n_channels: int, sample_rate: int, seconds: float, limits: Limits) -> None:
    """Refuse a stream whose header breaks a limit, before anything is decoded."""
    if n_channels > limits.max_channels:
        raise AudioError(
            f"the file has {n_channels} channels; the limit is {limits.max_channels} (--max-channels)",
            code="too_many_channels",
        )
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise AudioError(
            f"the sample rate is {sample_rate:,} Hz; the limits are {limits.min_sample_rate:,} to "
            f"{limits.max_sample_rate:,} Hz (--min-sample-rate, --max-sample-rate)",
            code="sample_rate",
        )
    if seconds > limits.max_seconds:
        raise AudioError(
            f"the header claims {seconds:,.0f} s; the limit is {limits.max_seconds:,.0f} s (--max-seconds). "
            "Likely cause: a damaged header",
            code="too_long",
        )


class _Reader:
    """What both readers share: limits that hold while decoding, and closing."""

    def __init__(self, file: BinaryIO, source: AudioSource, container: Container, n_bytes: int, limits: Limits) -> None:
        self.container = container.name
        self.warnings: list[str] = []
        self.sample_rate = 0
        self.n_channels = 0
        self._file = file
        self._owns_file = file is not source
        self._n_bytes = n_bytes
        self._limits = limits

    def blocks(self) -> Iterator[Array]:
        n_frames = 0
        for block in self._decode():
            n_frames += len(block)
            self._check_progress(n_frames)
            yield block
        self._check_promise(n_frames)

    def _decode(self) -> Iterator[Array]:
        raise NotImplementedError

    def _check_promise(self, n_frames: int) -> None:
        """Compare what the header promised with what was decoded."""

    def _check_progress(self, n_frames: int) -> None:
        seconds, n_decoded_bytes = n_frames / self.sample_rate, 4 * n_frames * self.n_channels
        if seconds > self._limits.max_seconds:
            raise AudioError(
                f"the audio goes on after {self._limits.max_seconds:,.0f} s, the limit (--max-seconds)",
                code="too_long",
            )
        if n_decoded_bytes > max(EXPANSION_FREE_BYTES, self._limits.max_expansion * self._n_bytes):
            raise AudioError(
                f"{self._n_bytes:,} bytes decode to more than {n_decoded_bytes:,}; the limit is "
                f"{self._limits.max_expansion:,.0f} times (--max-expansion). Likely cause: a decompression bomb",
                code="expansion",
            )

    def close(self) -> None:
        if self._owns_file:
            self._file.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _SoundFileReader(_Reader):
    """libsndfile, through soundfile."""

    def __init__(self, file: BinaryIO, source: AudioSource, container: Container, n_bytes: int, limits: Limits) -> None:
        import soundfile

        super().__init__(file, source, container, n_bytes, limits)
        self._library_error = soundfile.SoundFileError
        try:
            self._sound = soundfile.SoundFile(_libsndfile_source(file, source))
        except soundfile.SoundFileError as error:
            reason = getattr(error, "error_string", str(error))
            raise AudioError(
                f"the {container.name} file cannot be decoded: {reason} Likely cause: a damaged or cut file",
                code="decode_failed",
            ) from error
        self.sample_rate, self.n_channels = self._sound.samplerate, self._sound.channels
        try:
            if not SUBTYPES.fullmatch(self._sound.subtype):
                raise AudioError(
                    f"the {container.name} file is encoded as {self._sound.subtype}, which is refused because its "
                    "decoder has known memory bugs. Next step: convert it to 16-bit PCM",
                    code="unsupported_format",
                )
            _check_stream(self.n_channels, self.sample_rate, self._sound.frames / self.sample_rate, limits)
        except AudioError:
            self._sound.close()
            raise

    def _decode(self) -> Iterator[Array]:
        dtype = "int16" if self._sound.subtype == "PCM_16" else "float32"
        n_frames = 0
        while True:
            try:
                block = self._sound.read(BLOCK_FRAMES, dtype=dtype, always_2d=True)
            except self._library_error as error:
                raise AudioError(
                    f"decoding stopped after {n_frames / self.sample_rate:.1f} s of the "
                    f"{self._sound.frames / self.sample_rate:,.1f} s that the {self.container} header promises. "
                    "Likely cause: a damaged or cut file",
                    code="decode_failed",
                ) from error
            if not len(block):
                return
            n_frames += len(block)
            yield block

    def _check_promise(self, n_frames: int) -> None:
        if n_frames < self._sound.frames:
            self.warnings.append(
                f"truncated: holds {n_frames / self.sample_rate:.1f} s of the "
                f"{self._sound.frames / self.sample_rate:.1f} s that its header promises"
            )
            return
        cuts = CUT_CHUNK.findall(self._sound.extra_info)
        promised, present = (int(number) for number in cuts[-1]) if cuts else (0, 0)
        if present < promised and not any(promised in sizes for sizes in STREAMED_SIZES):
            self.warnings.append(
                f"truncated: holds {present:,} of the {promised:,} bytes of samples that its header promises"
            )

    def close(self) -> None:
        self._sound.close()
        super().close()


def _libsndfile_source(file: BinaryIO, source: AudioSource) -> Any:
    """A path where there is one: libsndfile then reads without calling back into Python."""
    if not isinstance(source, (str, os.PathLike)):
        return file
    # POSIX names are bytes and need not be UTF-8.
    return os.fspath(source) if sys.platform == "win32" else os.fsencode(source)


class _FFmpegReader(_Reader):
    """FFmpeg, through PyAV: the first audio stream, the container pinned, no protocol but this file."""

    def __init__(self, file: BinaryIO, source: AudioSource, container: Container, n_bytes: int, limits: Limits) -> None:
        import av
        import av.error

        super().__init__(file, source, container, n_bytes, limits)
        self._library_error = av.error.FFmpegError
        self._n_decoded = 0
        # Titles need not be UTF-8; PyAV 19 knows that by itself.
        options = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        self._input = _ffmpeg_call(
            lambda: av.open(file, mode="r", format=container.ffmpeg_format, **options),
            av.error.FFmpegError,
            f"the {container.name} file cannot be opened",
        )
        try:
            if not self._input.streams.audio:
                raise AudioError(f"the {container.name} file has no audio stream", code="no_audio_stream")
            self._stream = self._input.streams.audio[0]
            if self._stream.codec_context is None:
                raise AudioError(
                    f"the {container.name} file's audio has an encoding that is not known here. "
                    "Next step: convert it to WAV",
                    code="unsupported_format",
                )
            self.sample_rate, self.n_channels = self._stream.sample_rate or 0, self._stream.channels or 0
            _check_stream(self.n_channels, self.sample_rate, (self._input.duration or 0) / av.time_base, limits)
        except BaseException:
            self._input.close()
            raise

    def _decode(self) -> Iterator[Array]:
        import av

        converter = av.AudioResampler(format="flt")  # only the sample format changes
        pending: list[Array] = []
        n_pending = 0
        for frame in self._frames():
            if (frame.sample_rate, len(frame.layout.channels)) != (self.sample_rate, self.n_channels):
                raise AudioError(
                    f"the stream changes from {self.n_channels} channels at {self.sample_rate} Hz to "
                    f"{len(frame.layout.channels)} at {frame.sample_rate} Hz after {self._decoded_s():.1f} s;"
                    " expected one format throughout. Next step: convert the file to WAV",
                    code="unsupported_format",
                )
            for converted in converter.resample(frame):
                pending.append(converted.to_ndarray().reshape(-1, self.n_channels))
                n_pending += len(pending[-1])
            self._n_decoded += frame.samples
            if n_pending >= BLOCK_FRAMES:
                yield np.concatenate(pending)
                pending, n_pending = [], 0
        if pending:
            yield np.concatenate(pending)

    def _frames(self) -> Iterator[Any]:
        """Decoded frames. A packet that cannot be decoded is a cut file if it is the last one, else an error."""
        failure: AudioError | None = None
        for packet in self._packets():
            if failure and packet.size:  # the packet that ends the stream has no bytes
                raise failure
            try:
                frames = self._call(packet.decode)
            except AudioError as error:
                failure = error
            else:
                yield from frames
        if failure and not self._n_decoded:
            raise failure
        if failure:
            self.warnings.append(f"truncated: ends in the middle of a packet, after {self._decoded_s():.1f} s")

    def _packets(self) -> Iterator[Any]:
        packets = self._input.demux(self._stream)
        # PyAV raises IndexError after the last packet if a stream had appeared midway, as MPEG-TS allows.
        with suppress(IndexError):
            while (packet := self._call(lambda: next(packets, None))) is not None:
                yield packet

    def _call(self, call: Callable[[], Any]) -> Any:
        failure = f"decoding the {self.container} file stopped after {self._decoded_s():.1f} s"
        return _ffmpeg_call(call, self._library_error, failure)

    def _decoded_s(self) -> float:
        return self._n_decoded / self.sample_rate

    def close(self) -> None:
        self._input.close()
        super().close()


def _ffmpeg_call(call: Callable[[], Any], library_error: type[Exception], failure: str) -> Any:
    """Run one FFmpeg call; its errors become ``AudioError``."""
    try:
        return call()
    except (library_error, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(f"{failure}: {reason}. Likely cause: a damaged or cut file", code="decode_failed") from error
