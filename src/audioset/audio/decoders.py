"""Decode one audio file block by block: libsndfile through soundfile, FFmpeg through PyAV.

What goes wrong in these libraries, of whatever class, becomes an ``AudioError`` here and nowhere else.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any, BinaryIO, Protocol

import numpy as np

from audioset.arrays import Array
from audioset.audio.containers import OPEN_SIZES, Container, find_tags, wav_format_tag
from audioset.errors import AudioError

BLOCK_FRAMES = 32_768  # smaller blocks pay for more calls, larger ones fall out of the cache

# How libsndfile's log reports chunks of samples (W64 and RF64: of everything) that reach past the end of the file.
CUT_CHUNK = re.compile(r"^ *(?:data|SSND|riff|Riff size|Data Size  ) : (\d+) \(should be (\d+)\)$", re.MULTILINE)

# Encodings that libsndfile may decode here. Those left out (ADPCM, GSM and kin) carry its open memory bugs.
SUBTYPES = re.compile(r"PCM_.*|FLOAT|DOUBLE|ULAW|ALAW|ALAC_.*|VORBIS|OPUS|MPEG_LAYER_.*")
UNKNOWN_FRAMES = 1 << 62
MP3_GRANULE, MAX_MISCOUNT = 576, 2 * 1_152  # samples

START_TOLERANCE_S = 0.005  # half a frame of features; the clocks of containers have ticks of 1 ms
GAP_S = 0.1  # a shorter gap between two packets is the rounding of their times
OTHER_CLOCK_S = 60.0  # a longer gap is no silence: the clock was set, or is that of a broadcast
PROMISE_SLACK_S = 0.1  # what the padding of encoders may amount to
EXACT_FORMATS = ("mov", "matroska", "tta", "wv", "ape")  # whose headers know how long the sound is
EXACT_IF_CONSTANT = ("wav", "aiff", "au", "nistsphere")
CONSTANT_CODECS = ("pcm_", "adpcm_", "g722", "g726")  # whose bytes tell the length
ANY_CODEC = ("wav", "w64", "aiff", "caf", "au")  # which hold sound of many encodings, some of them in odd ways
BARE_FORMATS = ("mp3", "aac", "ac3", "eac3", "dts")  # frame after frame, and nothing else
MAX_RATE_RATIO = 100
N_PLACES = 3  # that a warning names
# What may stand among the frames of MPEG audio: zeros, tags, and the frame that holds nothing but the length.
HARMLESS = re.compile(rb"\x00*(?:$|TAG|ID3|APETAGEX|LYRICSBEGIN|.{4,40}(?:Xing|Info|VBRI))", re.DOTALL)


class Decoder(Protocol):
    """One way to decode one file."""

    sample_rate: int  # Hz
    n_channels: int
    promised_s: float  # seconds that the header promises; 0 if it does not say
    warnings: list[str]  # filled by ``blocks()``

    def blocks(self) -> Iterator[Array]:
        """Yield arrays of shape (n, n_channels): int16 where the file holds it, else float32."""
        ...

    def close(self) -> None:
        """Close what the decoder opened, which the file is not."""
        ...


@contextmanager
def decoding_errors(failure: Callable[[], str]) -> Iterator[None]:
    """Turn whatever a decoder raises into an ``AudioError``; ``failure`` says what could not be done."""
    try:
        yield
    except AudioError:
        raise
    except MemoryError as error:
        raise AudioError(
            f"{failure()}: it needs more memory than there is, or than --worker-memory-mb allows. "
            "Likely cause: a damaged header",
            code="out_of_memory",
        ) from error
    except Exception as error:  # the boundary of libraries that raise errors of any class for damaged files
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"{failure()}: {reason.rstrip('.')}. Likely cause: a damaged or cut file", code="decode_failed"
        ) from error


class SoundFileDecoder:
    """libsndfile, through soundfile."""

    def __init__(self, file: BinaryIO, container: Container) -> None:
        import soundfile

        self.warnings: list[str] = []
        self._name = container.name
        self._file = file
        self._fd = _descriptor(file)
        with decoding_errors(lambda: f"the {container.name} file cannot be decoded"):
            file.seek(0)
            self._sound = soundfile.SoundFile(file if self._fd is None else self._fd, closefd=False)
        if not SUBTYPES.fullmatch(self._sound.subtype):
            self.close()
            raise AudioError(
                f"the {container.name} file is encoded as {self._sound.subtype}, which is refused because its "
                "decoder has known memory bugs. Next step: convert it to 16-bit PCM",
                code="unsupported_format",
            )
        self.sample_rate: int = self._sound.samplerate
        self.n_channels: int = self._sound.channels
        n_promised = self._sound.frames
        self._n_promised = n_promised if n_promised < UNKNOWN_FRAMES else 0
        self.promised_s = self._n_promised / self.sample_rate
        self.is_mpeg: bool = self._sound.subtype.startswith("MPEG")
        self.is_alac: bool = self._sound.subtype.startswith("ALAC")

    def blocks(self) -> Iterator[Array]:
        """Yield blocks, as ``Decoder``."""
        dtype = "int16" if self._sound.subtype == "PCM_16" else "float32"
        n_frames = 0
        with decoding_errors(
            lambda: (
                f"decoding stopped after {n_frames / self.sample_rate:.1f} s of the {self.promised_s:,.1f} s that the "
                f"{self._name} header promises"
            )
        ):
            while len(block := self._sound.read(BLOCK_FRAMES, dtype=dtype, always_2d=True)):
                n_frames += len(block)
                yield block
        self._compare(n_frames)

    def _compare(self, n_frames: int) -> None:
        """Compare what the header promised with what was decoded."""
        n_missing = self._n_promised - n_frames
        # Of MP3 in WAV, libsndfile guesses the length; in MP3, encoders may count the frame that holds the length.
        is_miscount = n_missing <= MAX_MISCOUNT and n_missing % MP3_GRANULE == 0
        if n_missing > 0 and not (self.is_mpeg and (self._sound.format != "MP3" or is_miscount)):
            self.warnings.append(shortfall(n_frames / self.sample_rate, self.promised_s))
            return
        cuts = CUT_CHUNK.findall(self._sound.extra_info)
        promised, present = (int(number) for number in cuts[-1]) if cuts else (0, 0)
        if present < promised and not any(promised in sizes for sizes in OPEN_SIZES):
            self.warnings.append(
                f"truncated: holds {present:,} of the {promised:,} bytes of samples that its header promises"
            )

    def position(self) -> int:
        """How far the file has been read."""
        return self._file.tell() if self._fd is None else os.lseek(self._fd, 0, os.SEEK_CUR)

    def close(self) -> None:
        """Close the library's handle, and not the file."""
        import soundfile

        with suppress(soundfile.SoundFileError):  # nothing was written that could be lost
            self._sound.close()


def _descriptor(file: BinaryIO) -> int | None:
    """Of a file on disk, so that libsndfile reads without calling back into Python."""
    if sys.platform == "win32" or not isinstance(file, io.FileIO):  # libsndfile has a C runtime of its own there
        return None
    return file.fileno()


class FFmpegDecoder:
    """FFmpeg, through PyAV: the first audio stream, the container pinned, no protocol but this file.

    A packet that cannot be decoded costs its own sound, and a warning. ``start_s``: where the file begins in what it is
    a part of, for warnings.
    """

    def __init__(self, file: BinaryIO, container: Container, *, start_s: float = 0.0) -> None:
        import av

        self.warnings: list[str] = []
        self._file, self._container = file, container
        self._begin_s = start_s
        self._n_decoded = self._n_packets = self._n_packet_bytes = 0
        self._first_byte = self._last_byte = 0  # of what the packets came from
        self._lost: list[tuple[float, float, int]] = []  # when and how long, s, and at which byte
        self._pauses: list[tuple[float, float]] = []
        self._failed_s: float | None = None  # in packets since the last frame that was decoded
        self._n_silent_before = 0
        self._clock_s: float | None = None  # where the container's clock stood behind that frame
        # Titles need not be UTF-8; PyAV 19 knows that by itself.
        options: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
        with decoding_errors(lambda: f"the {container.name} file cannot be opened"):
            file.seek(0)
            self._input = av.open(file, mode="r", format=container.ffmpeg_format, **options)
        try:
            self._open_stream(file)
        except BaseException:
            self.close()
            raise

    def _open_stream(self, file: BinaryIO) -> None:
        name = self._container.name
        if not self._input.streams.audio:
            raise AudioError(f"the {name} file has no audio stream", code="no_audio_stream")
        self._stream = stream = self._input.streams.audio[0]
        if stream.codec_context is None:
            tag = wav_format_tag(file) if self._container.ffmpeg_format in ("wav", "avi") else ""
            raise AudioError(
                f"the {name} file's audio has an encoding that is not known here{tag}. Next step: convert it to WAV",
                code="unsupported_format",
            )
        self.sample_rate, self.n_channels = stream.sample_rate or 0, stream.channels or 0
        self.promised_s = self._promised_s()
        self._frame_queue = self._frames()
        self._first = next(self._frame_queue, None)
        if self._first is not None:  # what is decoded may have twice the rate or channels that the header knows of
            self.sample_rate, self.n_channels = self._first.sample_rate, len(self._first.layout.channels)

    def _promised_s(self) -> float:
        """Seconds that the header promises of this stream; of all streams, where it does not say more."""
        import av

        if self._stream.duration and self._container.ffmpeg_format in EXACT_FORMATS + EXACT_IF_CONSTANT:
            return float(self._stream.duration * self._stream.time_base)
        return float((self._input.duration or 0) / av.time_base)

    def blocks(self) -> Iterator[Array]:
        """Yield blocks, as ``Decoder``."""
        pending: list[Array] = []
        n_pending = 0
        for piece in self._pieces():
            pending.append(piece)
            n_pending += len(piece)
            if n_pending >= BLOCK_FRAMES:
                yield np.concatenate(pending)
                pending, n_pending = [], 0
        if pending:
            yield np.concatenate(pending)
        self._compare()

    def _pieces(self) -> Iterator[Array]:
        """The samples of each frame, and silence where the container's clock says that there are none."""
        import av

        if self._first is None:
            return
        shape, layout = (self.sample_rate, self.n_channels), self._first.layout
        converter = av.AudioResampler(format="flt")  # only the sample format changes
        self._n_silent_before = self._n_before()
        yield from self._silence(self._n_silent_before)
        n_to_cut = max(0, -self._n_silent_before)
        for frame in chain([self._first], self._frame_queue):
            yield from self._silence(self._n_missing(frame))
            pieces: list[Any] = []
            with decoding_errors(self._failure):
                if (new_shape := (frame.sample_rate, len(frame.layout.channels))) != shape:
                    self._warn_of_change(*new_shape)
                    shape = new_shape
                    pieces = converter.resample(None)
                    converter = av.AudioResampler("flt", layout, self.sample_rate)
                pieces = [part.to_ndarray().reshape(-1, self.n_channels) for part in pieces + converter.resample(frame)]
            for samples in pieces:
                self._n_decoded += len(samples)
                yield samples[n_to_cut:]
                n_to_cut = max(0, n_to_cut - len(samples))

    def _silence(self, n_samples: int) -> Iterator[Array]:
        for start in range(0, n_samples, BLOCK_FRAMES):
            yield np.zeros((min(BLOCK_FRAMES, n_samples - start), self.n_channels), np.float32)
        self._n_decoded += max(0, n_samples)

    def _n_before(self) -> int:
        """Samples between the zero of the container's clock and the first sound; negative if it begins before."""
        import av

        clock, start = self._container.clock, self._stream.start_time
        if not clock or start is None:
            return 0
        start_s, earliest_s = float(start * self._stream.time_base), (self._input.start_time or 0) / av.time_base
        if clock == "earliest" or abs(earliest_s) > OTHER_CLOCK_S:
            start_s -= earliest_s
        if start_s <= START_TOLERANCE_S:  # an encoder's delay, which FFmpeg cuts if the container knows of it
            first_s = (self._first and self._first.time) or 0.0
            return round(first_s * self.sample_rate) if clock == "zero" and -OTHER_CLOCK_S < first_s < 0 else 0
        return round(start_s * self.sample_rate) if start_s <= OTHER_CLOCK_S else 0

    def _n_missing(self, frame: Any) -> int:
        """Samples between the last frame and this one, by the container's clock."""
        before_s, failed_s, length_s = self._clock_s, self._failed_s, frame.samples / frame.sample_rate
        if frame.time is None:  # as for a while behind damage in FLAC
            self._clock_s = None if before_s is None else before_s + length_s
            return 0
        self._clock_s, self._failed_s = frame.time + length_s, None
        if not self._container.clock or before_s is None:
            return 0
        gap_s = float(frame.time - before_s)
        if not (GAP_S if failed_s is None else START_TOLERANCE_S) < gap_s <= OTHER_CLOCK_S:
            return 0
        if failed_s is None and self._container.clock == "zero":  # paused, or switched off while nobody spoke
            self._pauses.append((self._decoded_s(), gap_s))
        elif gap_s > (failed_s or 0.0):
            self._lost.append((self._decoded_s(), gap_s - (failed_s or 0.0), -1))
        return round(gap_s * self.sample_rate)

    def _warn_of_change(self, sample_rate: int, n_channels: int) -> None:
        change = (
            f"changes from {self.n_channels} channels at {self.sample_rate} Hz to {n_channels} at {sample_rate} Hz "
            f"after {self._begin_s + self._decoded_s():.1f} s"
        )
        if self.sample_rate > MAX_RATE_RATIO * sample_rate:  # which would make a flood of samples of few
            raise AudioError(f"the {self._container.name} file {change}", code="unsupported_format")
        self.warnings.append(f"{change}; what follows is converted")

    def _frames(self) -> Iterator[Any]:
        """Decoded frames, without the packets that cannot be decoded."""
        failure: AudioError | None = None
        for packet in self._packets():
            try:
                with decoding_errors(self._failure):
                    frames = packet.decode()
            except AudioError as error:
                if error.code == "out_of_memory":
                    raise
                if not HARMLESS.match(bytes(packet)):
                    failure = error
                    length_s = float((packet.duration or 0) * packet.time_base)
                    self._failed_s = (self._failed_s or 0.0) + length_s
                    self._lost.append((self._decoded_s(), length_s, packet.pos or -1))
            else:
                self._n_packet_bytes += packet.size
                yield from frames
        if failure and not self._n_decoded:
            raise self._nothing_decoded(failure)

    def _nothing_decoded(self, failure: AudioError) -> AudioError:
        if self._container.ffmpeg_format not in ANY_CODEC:
            return failure
        return AudioError(
            f"the {self._container.name} file holds {self._stream.codec_context.name}, and none of its "
            f"{self._n_packets:,} packets can be decoded. Likely cause: it is packed in an unusual way. "
            "Next step: convert it to WAV",
            code="unsupported_format",
        )

    def _packets(self) -> Iterator[Any]:
        packets = self._input.demux(self._stream)
        while True:
            packet = None
            try:
                # PyAV raises IndexError after the last packet if a stream had appeared midway, as MPEG-TS allows.
                with decoding_errors(self._failure), suppress(IndexError):
                    packet = next(packets, None)
            except AudioError as error:
                if not self._n_decoded or error.code == "out_of_memory":
                    raise
                self.warnings.append(f"truncated: {error}")
                return
            if packet is None:
                return
            if packet.size:
                self._note_place(packet)
            yield packet

    def _note_place(self, packet: Any) -> None:
        if packet.pos is not None:
            self._first_byte = self._first_byte if self._n_packets else packet.pos
            self._last_byte = packet.pos + packet.size
        self._n_packets += 1

    def _compare(self) -> None:
        """Say what was lost, and compare what the header promised with what was decoded."""
        decoded_s, tag_bytes = self._decoded_s(), self._pass_tags()
        last = self._lost[-1] if self._lost and self._failed_s is not None else None
        is_cut = last is not None and sum(at_s == last[0] for at_s, *_ in self._lost) == 1
        lost = self._lost[:-1] if is_cut else self._lost
        lost_s = max(sum(length_s for _, length_s, _ in lost), self._missing_s(tag_bytes))
        if lost:
            self.warnings.append(damage(lost_s, [self._begin_s + at_s for at_s, *_ in lost]))
        if self._pauses:
            pause_s = sum(length_s for _, length_s in self._pauses)
            places = _places([self._begin_s + at_s for at_s, _ in self._pauses])
            self.warnings.append(f"holds no sound for {pause_s:.2f} s, at {places}; silence stands for it")
        if is_cut:
            self.warnings.append(f"truncated: ends in the middle of a packet, after {self._begin_s + decoded_s:.1f} s")
        # A stream's own length begins with its sound, and that of the file with the clock.
        silent_s = max(0, self._n_silent_before) / (self.sample_rate or 1) if self._stream.duration else 0.0
        known_s = decoded_s - silent_s + (0.0 if self._container.clock else lost_s)
        if self._has_exact_length() and not is_cut and known_s + PROMISE_SLACK_S < self.promised_s:
            self.warnings.append(shortfall(decoded_s, self.promised_s))

    def _pass_tags(self) -> int:
        """Forget what could not be decoded because it is no sound but a tag, as of joined files; bytes of these."""
        if not self._lost or self._container.ffmpeg_format not in BARE_FORMATS:
            return 0
        tags = find_tags(self._file, self._first_byte, self._last_byte)
        self._lost = [each for each in self._lost if not any(each[2] in tag for tag in tags)]
        return sum(map(len, tags))

    def _missing_s(self, tag_bytes: int) -> float:
        """Seconds that the bytes between the frames of a stream without a clock would have given."""
        if self._container.ffmpeg_format not in BARE_FORMATS or not self._n_packet_bytes:
            return 0.0
        n_lost_bytes = self._last_byte - self._first_byte - self._n_packet_bytes - tag_bytes
        return max(0.0, n_lost_bytes / self._n_packet_bytes * self._decoded_s())

    def _has_exact_length(self) -> bool:
        kind, codec = self._container.ffmpeg_format, self._stream.codec_context.name
        is_exact = kind in EXACT_FORMATS or (kind in EXACT_IF_CONSTANT and codec.startswith(CONSTANT_CODECS))
        return is_exact and (bool(self._stream.duration) or len(self._input.streams) == 1)

    def _failure(self) -> str:
        return f"decoding the {self._container.name} file stopped after {self._decoded_s():.1f} s"

    def _decoded_s(self) -> float:
        return self._n_decoded / (self.sample_rate or 1)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to decode."""
        return self._first is None

    def close(self) -> None:
        """Close the library's handle, and not the file."""
        self._input.close()


def shortfall(holds_s: float, promised_s: float) -> str:
    """The warning for a file that ends before it should."""
    n_digits = 1 if promised_s - holds_s >= 0.1 else 4
    return f"truncated: holds {holds_s:.{n_digits}f} s of the {promised_s:.{n_digits}f} s that its header promises"


def damage(lost_s: float, places_s: Sequence[float]) -> str:
    """The warning for sound that could not be decoded, with where it should have been."""
    return f"damaged: {lost_s:.2f} s could not be decoded, at {_places(places_s)}"


def _places(places_s: Sequence[float]) -> str:
    places = list(dict.fromkeys(f"{place_s:.1f} s" for place_s in places_s))
    more = f" and {len(places) - N_PLACES} more places" if len(places) > N_PLACES else ""
    return ", ".join(places[:N_PLACES]) + more
