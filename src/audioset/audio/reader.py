"""Read a sound file to its real end: one decoder's end is not the end of the file.

libsndfile goes first where it reads a container. Where it fails, or stops while there is more, FFmpeg goes on from
that very sample; both decode to the same samples. Where another file begins behind the first, that one is read too.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from types import TracebackType
from typing import Any, BinaryIO, Union

import numpy as np

from audioset.arrays import Array
from audioset.audio.containers import (
    Container,
    FileFrom,
    find_joint,
    holds_frames,
    how_it_is_cut,
    n_unexplained_bytes,
    pages_are_whole,
    sniff_container,
    with_open_length,
    with_plain_head,
)
from audioset.audio.decoders import Decoder, FFmpegDecoder, SoundFileDecoder, damage, shortfall
from audioset.audio.limits import Limits
from audioset.audio.resampling import resample_blocks
from audioset.errors import AudioError

AudioSource = Union[str, "os.PathLike[str]", bytes, BinaryIO]

EXPANSION_FREE_BYTES = 10_000_000  # short files are never refused for how well they compress
RESYNCHRONISED = ("MP3", "Ogg")  # where libsndfile passes over damage and says nothing
ONE_FILE_ONLY = ("WAV", "AIFF")  # FFmpeg reads these to the end of the first file, others to the end of the last
LENGTH_FIRST = ("WAV", "RF64", "AIFF", "CAF", "AU")  # whose headers hold the length, before anybody knows it
MIN_UNREAD_S = 0.1  # fewer bytes behind the samples are no sound that was missed


@contextmanager
def reading_errors() -> Iterator[None]:
    """Turn what the system says about reading a file into an ``AudioError``."""
    try:
        yield
    except OSError as error:
        raise AudioError(f"the file cannot be read: {error.strerror or error}", code="unreadable") from error


class AudioReader:
    """Audio that is decoded block by block, at the file's own rate. Made by ``open_audio``; a context manager."""

    def __init__(self, file: BinaryIO, n_bytes: int, limits: Limits, *, owns_file: bool) -> None:
        self.warnings: list[str] = []  # filled while blocks are read: broken promises, what was lost and where
        self._file, self._n_bytes, self._limits, self._owns_file = file, n_bytes, limits, owns_file
        self._part = _Part(file, n_bytes)
        self.container = self._part.container.name  # ``WAV``, ``FLAC``, …
        self.sample_rate, self.n_channels = self._part.decoder.sample_rate, self._part.decoder.n_channels
        try:
            self._check_stream(self._part.decoder)
        except AudioError:
            self._part.close()
            raise

    def blocks(self) -> Iterator[Array]:
        """Yield arrays of shape (n, n_channels): int16 if the file begins with 16-bit samples, else float32.

        ``AudioError`` with code ``unreadable``, ``decode_failed`` or ``unsupported_format`` if nothing can be decoded;
        ``out_of_memory``; ``too_long`` or ``expansion`` if a limit is passed.
        """
        n_frames = 0
        dtype: np.dtype[Any] | None = None
        with reading_errors():
            for block in self._parts():
                dtype = block.dtype if dtype is None else dtype  # a dtype counts as false
                n_frames += len(block)
                self._check_progress(n_frames)
                yield _as_dtype(block, dtype)

    def _parts(self) -> Iterator[Array]:
        """The blocks of the file, and of those that were joined to its end."""
        start, seconds = 0, 0.0
        while True:
            for block in self._as_first(self._part, seconds):
                seconds += len(block) / self.sample_rate
                yield block
            self.warnings += [warning for warning in self._part.warnings if warning not in self.warnings]
            joint = self._part.joint()
            if joint is None:
                return
            start += joint
            self._part.close()
            try:
                self._part = _Part(io.BufferedReader(FileFrom(self._file, start)), self._n_bytes - start, seconds)
                self._check_stream(self._part.decoder)
            except AudioError as error:
                self.warnings.append(f"what is joined to it at {seconds:.1f} s cannot be read: {error}")
                return

    def _as_first(self, part: _Part, start_s: float) -> Iterator[Array]:
        """A part's blocks with the rate and the channels of the first one."""
        rate, n_channels = part.decoder.sample_rate, part.decoder.n_channels
        if (rate, n_channels) == (self.sample_rate, self.n_channels):
            yield from part.blocks()
            return
        self.warnings.append(
            f"changes from {self.n_channels} channels at {self.sample_rate} Hz to {n_channels} at {rate} Hz after "
            f"{start_s:.1f} s; what follows is converted"
        )
        yield from resample_blocks(_with_channels(part.blocks(), self.n_channels), rate, self.sample_rate)

    def _check_stream(self, decoder: Decoder) -> None:
        """Refuse a stream whose header breaks a limit, before anything is decoded."""
        limits = self._limits
        if decoder.n_channels > limits.max_channels:
            raise AudioError(
                f"the file has {decoder.n_channels} channels; the limit is {limits.max_channels} (--max-channels)",
                code="too_many_channels",
            )
        if not limits.min_sample_rate <= decoder.sample_rate <= limits.max_sample_rate:
            raise AudioError(
                f"the sample rate is {decoder.sample_rate:,} Hz; the limits are {limits.min_sample_rate:,} to "
                f"{limits.max_sample_rate:,} Hz (--min-sample-rate, --max-sample-rate)",
                code="sample_rate",
            )
        if decoder.promised_s > limits.max_seconds:
            raise AudioError(
                f"the header claims {decoder.promised_s:,.0f} s; the limit is {limits.max_seconds:,.0f} s "
                "(--max-seconds). Likely cause: a damaged header",
                code="too_long",
            )

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
        """Close the file, if ``open_audio`` opened it."""
        self._part.close()
        if self._owns_file:
            self._file.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Part:
    """One sound file, from its first byte to where its decoders end."""

    def __init__(self, file: BinaryIO, n_bytes: int, start_s: float = 0.0) -> None:
        with reading_errors():
            self.container = sniff_container(file, n_bytes)
            is_odd = False
            try:
                self.decoder = _open_decoder(file, self.container, start_s)
            except AudioError as error:
                plain = with_plain_head(file) if error.code == "decode_failed" else None
                if plain is None:
                    raise
                file, n_bytes, is_odd = plain, plain.seek(0, os.SEEK_END), True
                self.decoder = _open_decoder(file, self.container, start_s)
        self.warnings: list[str] = []
        self._file, self._n_bytes, self._start_s = file, n_bytes, start_s
        self._end = 0  # up to where no other file can begin
        reads_all = isinstance(self.decoder, FFmpegDecoder) and self.container.name not in ONE_FILE_ONLY
        self._is_at_end = reads_all or is_odd

    def blocks(self) -> Iterator[Array]:
        """The blocks of the first decoder, and of FFmpeg from where that one gave up."""
        if isinstance(self.decoder, SoundFileDecoder):
            yield from self._read_to_end(self.decoder)
        else:
            yield from self.decoder.blocks()
            self.warnings += self.decoder.warnings
        cut = how_it_is_cut(self._file, self.container, self._n_bytes)
        if cut and not any(warning.startswith("truncated") for warning in self.warnings):
            self.warnings.append(f"truncated: {cut}")

    def joint(self) -> int | None:
        """Where another file begins behind this one."""
        return None if self._is_at_end else find_joint(self._file, self.container, self._end)

    def close(self) -> None:
        self.decoder.close()

    def _read_to_end(self, first: SoundFileDecoder) -> Iterator[Array]:
        n_frames, failure = 0, None
        try:
            for block in first.blocks():
                n_frames += len(block)
                yield block
        except AudioError as error:
            if error.code == "out_of_memory":
                raise
            failure = error
        if failure or self._holds_more(first, n_frames):
            yield from self._go_on(first, n_frames, failure)
        elif (first.warnings and self.container.name.startswith(RESYNCHRONISED)) or self._may_hide_damage(first):
            self.warnings += self._damage() or first.warnings
        else:
            self.warnings += first.warnings

    def _holds_more(self, first: SoundFileDecoder, n_frames: int) -> bool:
        """Whether samples follow that libsndfile has not read, and that are no other file's."""
        self._end = first.position()
        if self._end >= self._n_bytes:
            return False
        if first.is_mpeg:
            return holds_frames(self._file, self._end)
        if self.container.name not in LENGTH_FIRST or self.joint() is not None:
            return False
        n_unread = n_unexplained_bytes(self._file, self._end, self._n_bytes, zeros_are_samples=n_frames == 0)
        return n_unread > MIN_UNREAD_S * first.sample_rate * first.n_channels

    def _may_hide_damage(self, first: SoundFileDecoder) -> bool:
        """Whether libsndfile may have made up what is lost, as in ALAC, and in Opus with damaged pages."""
        return first.is_alac or (self.container.name == "Ogg Opus" and not pages_are_whole(self._file))

    def _damage(self) -> list[str]:
        """What FFmpeg says of the places that libsndfile passed over in silence."""
        with suppress(AudioError), closing(FFmpegDecoder(self._file, self.container, start_s=self._start_s)) as decoder:
            for _ in decoder.blocks():
                pass
            return [warning for warning in decoder.warnings if warning.startswith("damaged")]
        return []

    def _go_on(self, first: SoundFileDecoder, n_frames: int, failure: AudioError | None) -> Iterator[Array]:
        """What FFmpeg decodes behind the first samples, which libsndfile has delivered."""
        self._is_at_end = True
        n_total, has_wrong_length = n_frames, failure is None and not first.is_mpeg
        try:
            file = with_open_length(self._file) if has_wrong_length else self._file
            self.decoder = FFmpegDecoder(file, self.container, start_s=self._start_s)
            first.close()
            for block in _skip(_same_shape(self.decoder, first), n_frames):
                n_total += len(block)
                yield block
        except AudioError as error:
            if not n_total:
                raise failure or error from error
            self.warnings.append(f"truncated: {failure or error}")
            return
        at_s, total_s = (self._start_s + n / first.sample_rate for n in (n_frames, n_total))
        if has_wrong_length:
            self.warnings.append(
                f"the header promises {first.promised_s:.1f} s, and {total_s - self._start_s:.1f} s are there: read to "
                "the end of the file. Likely cause: a recorder that was stopped before it wrote the length, or more "
                "than 4 GiB"
            )
        self.warnings += _what_was_lost(self.decoder.warnings, failure, at_s, total_s, self._start_s + first.promised_s)


def _open_decoder(file: BinaryIO, container: Container, start_s: float) -> SoundFileDecoder | FFmpegDecoder:
    """libsndfile, if it reads the container and this file; else FFmpeg."""
    if not container.is_libsndfiles:
        return FFmpegDecoder(file, container, start_s=start_s)
    try:
        return SoundFileDecoder(file, container)
    except AudioError as error:
        try:
            decoder = FFmpegDecoder(file, container, start_s=start_s)
        except AudioError as other:
            raise (other if "unsupported_format" in (error.code, other.code) else error) from other
        if decoder.is_empty and error.code == "decode_failed":
            decoder.close()
            raise
        return decoder


def _same_shape(decoder: Decoder, other: Decoder) -> Iterator[Array]:
    """A decoder's blocks, if it has the rate and the channels of another one."""
    if (decoder.sample_rate, decoder.n_channels) != (other.sample_rate, other.n_channels):
        raise AudioError(
            f"FFmpeg takes it for {decoder.n_channels} channels at {decoder.sample_rate} Hz, and libsndfile for "
            f"{other.n_channels} at {other.sample_rate} Hz. Likely cause: a damaged header",
            code="decode_failed",
        )
    yield from decoder.blocks()


def _what_was_lost(
    warnings: list[str], failure: AudioError | None, at_s: float, total_s: float, promised_s: float
) -> list[str]:
    """FFmpeg's warnings, or what follows from where libsndfile failed, and from what the header promised."""
    if failure is None or any(warning.startswith("damaged") for warning in warnings):
        return warnings
    if warnings and total_s < promised_s:
        return [shortfall(total_s, promised_s)]
    return warnings or [damage(max(0.0, promised_s - total_s), [at_s])]


def _skip(blocks: Iterable[Array], n_frames: int) -> Iterator[Array]:
    """The blocks without the first frames."""
    for block in blocks:
        if len(block) > n_frames:
            yield block[n_frames:]
        n_frames = max(0, n_frames - len(block))


def _with_channels(blocks: Iterable[Array], n_channels: int) -> Iterator[Array]:
    """Float32 blocks with another number of channels, each the mean of all that there were."""
    for block in blocks:
        samples = _as_dtype(block, np.dtype(np.float32))
        mono = samples.mean(axis=1, keepdims=True, dtype=np.float32)
        yield samples if samples.shape[1] == n_channels else np.repeat(mono, n_channels, axis=1)


def _as_dtype(block: Array, dtype: np.dtype[Any]) -> Array:
    """Samples as int16, or as floats in [-1, 1]; 16-bit samples that FFmpeg decoded to floats come back exactly."""
    if block.dtype == dtype:
        return block
    if dtype == np.int16:
        samples: Array = np.clip(np.rint(block * np.float32(2**15)), -(2**15), 2**15 - 1)
    else:
        samples = block / np.float32(2**15)
    return samples.astype(dtype)
