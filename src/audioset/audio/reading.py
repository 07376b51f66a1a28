"""Decode, mix down and resample audio, in blocks."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from audioset.arguments import check_type
from audioset.arrays import Array, FloatArray
from audioset.audio.levels import FULL_SCALE, LevelCheck, warn_of_levels
from audioset.audio.limits import LIMITS, Limits
from audioset.audio.reader import AudioReader, AudioSource
from audioset.audio.resampling import resample_blocks
from audioset.errors import AudioError, UsageError

logger = logging.getLogger(__name__)

MAX_SAMPLE = np.float32(2**31)  # integers stored as floats reach this; anything above overflows float32 features


def open_audio(source: AudioSource, limits: Limits = LIMITS) -> AudioReader:
    """Open audio for reading in blocks: a regular file, the contents of one, or an open seekable one.

    ``AudioError`` has the code ``unreadable``, ``empty_file``, ``not_audio``, ``unsupported_format``,
    ``decode_failed``, ``no_audio_stream``, ``too_many_channels``, ``sample_rate`` or ``too_long``.
    """
    check_type("limits", limits, Limits)
    file, n_bytes = _open_file(source)
    try:
        return AudioReader(file, n_bytes, limits, owns_file=file is not source)
    except BaseException:
        if file is not source:
            file.close()
        raise


def read_audio(
    source: AudioSource, *, sample_rate: int | None = None, mono: bool = False, limits: Limits = LIMITS
) -> tuple[FloatArray, int]:
    """Decode a whole file. Nothing is resampled or mixed unless asked. What was lost is logged as a warning.

    Parameters
    ----------
    source : path, bytes, or binary file
    sample_rate : int, optional
        Resample to this rate, Hz. Default: the file's own.
    mono : bool
        Mix the channels down to their mean.
    limits : Limits
        What the file may cost.

    Returns
    -------
    waveform : ndarray, shape (n_samples, n_channels), float32
        In [-1, 1]; shape (n_samples,) with ``mono``.
    sample_rate : int
        Hz.

    Raises
    ------
    AudioError
        As ``open_audio``, and ``no_samples``, ``non_finite``, ``out_of_range``, ``expansion``, ``out_of_memory``.
    UsageError
        If ``sample_rate`` is no rate.
    """
    with open_audio(source, limits) as reader:
        to_float = _to_mono if mono else _to_float
        blocks = (to_float(block) for block in checked_blocks(reader))
        rate = reader.sample_rate if sample_rate is None else sample_rate
        waveform = np.concatenate(list(resample_blocks(blocks, reader.sample_rate, rate)))
    for warning in reader.warnings:
        logger.warning("%s: %s", source if isinstance(source, (str, os.PathLike)) else "audio", warning)
    return waveform, rate


def mono_blocks(reader: AudioReader, sample_rate: int) -> Iterator[FloatArray]:
    """Mono float32 blocks of a reader's audio at ``sample_rate`` Hz, the same samples for any block size."""
    return resample_blocks(_mixed(reader), reader.sample_rate, sample_rate)


def _mixed(reader: AudioReader) -> Iterator[FloatArray]:
    levels = LevelCheck()
    for block in checked_blocks(reader):
        levels.take(block)
        yield _to_mono(block)
    reader.warnings += levels.findings()


def waveform_to_mono(waveform: Array, levels: LevelCheck | None = None) -> FloatArray:
    """Check samples, (n_samples,) or (n_samples, n_channels), and mix them down to the float32 mean of the channels.

    They are floats in [-1, 1], or int16 or int32 PCM, which is scaled. ``levels`` is of what they are a part of; by
    default they are everything, and what is odd about their level is an ``AudioWarning``. ``AudioError`` has the code
    ``shape``, ``dtype``, ``no_samples``, ``non_finite`` or ``out_of_range``.
    """
    waveform = np.asarray(waveform)
    waveform = waveform.astype(waveform.dtype.newbyteorder("="), copy=False)
    if waveform.ndim not in (1, 2):
        raise AudioError(
            f"waveform has shape {waveform.shape}; expected (n_samples,) or (n_samples, n_channels)", code="shape"
        )
    if waveform.ndim == 2 and waveform.shape[1] > max(LIMITS.max_channels, waveform.shape[0]):
        raise AudioError(
            f"waveform has shape {waveform.shape}, which is {waveform.shape[1]:,} channels; "
            "expected (n_samples, n_channels). Next step: pass waveform.T",
            code="shape",
        )
    if waveform.dtype not in FULL_SCALE and not np.issubdtype(waveform.dtype, np.floating):
        raise AudioError(
            f"waveform has dtype {waveform.dtype}; expected floats in [-1, 1], or int16 or int32 PCM", code="dtype"
        )
    if waveform.size == 0:
        raise AudioError(f"waveform has shape {waveform.shape}: it holds no samples", code="no_samples")
    block = waveform.reshape(len(waveform), -1)
    _check_samples(block, 0, None)
    whole = levels or LevelCheck()
    whole.take(block)
    if levels is None:
        warn_of_levels(whole)
    return _to_mono(block)


def checked_blocks(reader: AudioReader) -> Iterator[Array]:
    """The reader's blocks, each checked for samples that no network can use.

    ``AudioError`` with code ``no_samples`` if the file holds none; ``non_finite`` or ``out_of_range`` with the
    position.
    """
    n_frames = 0
    for block in reader.blocks():
        _check_samples(block, n_frames, reader.sample_rate)
        n_frames += len(block)
        yield block
    if n_frames == 0:
        raise AudioError(
            f"the {reader.container} file holds no samples. Likely cause: a recording that was stopped before it "
            "began, or a file that was cut after its header",
            code="no_samples",
        )


def _open_file(source: AudioSource) -> tuple[BinaryIO, int]:
    """The source as a binary file at its start, and its size in bytes."""
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
        n_bytes = len(source)
    elif isinstance(source, (str, os.PathLike)):
        file, n_bytes = _open_path(Path(source))
    elif hasattr(source, "read") and hasattr(source, "seek"):
        file = source
        n_bytes = _rewind(file)
    else:
        raise UsageError(f"audio source is a {type(source).__name__}; expected a path, bytes, or an open binary file")
    if n_bytes == 0:
        raise AudioError("the file is empty (0 bytes)", code="empty_file")
    return file, n_bytes


def _rewind(file: BinaryIO) -> int:
    """Go to the start of the caller's file; its size in bytes."""
    try:
        n_bytes = file.seek(0, os.SEEK_END)
        file.seek(0)
        is_binary = isinstance(file.read(0), bytes)
    except (OSError, ValueError) as error:  # a pipe, a closed file, a file for writing
        raise AudioError(
            f"the open file cannot be read from its start: {error}. Next step: pass its contents as bytes",
            code="unreadable",
        ) from error
    if not is_binary:
        raise UsageError('the audio source is a file opened as text; expected open(path, "rb")')
    return n_bytes


def _open_path(path: Path) -> tuple[BinaryIO, int]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise AudioError("the path is not a regular file; expected an audio file", code="unreadable")
        return path.open("rb", buffering=0), status.st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        if isinstance(error, AudioError):
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AudioError(f"the file cannot be opened: {reason}", code="unreadable") from error


def _check_samples(block: Array, start: int, sample_rate: int | None) -> None:
    """Refuse NaN, infinities and values beyond 32-bit PCM; ``start`` is the first frame's index."""
    if block.dtype in FULL_SCALE:
        return
    if not block.size or (block.min() >= -MAX_SAMPLE and block.max() <= MAX_SAMPLE):  # false for NaN too
        return
    index = int(np.argmax(~(np.abs(block) <= MAX_SAMPLE).all(axis=1)))
    value = block[index][~(np.abs(block[index]) <= MAX_SAMPLE)][0]
    where = f"sample {start + index:,}" + (f" ({(start + index) / sample_rate:.3f} s)" if sample_rate else "")
    raise AudioError(
        f"{where} is {value:g}; expected finite numbers in [-1, 1]. Likely cause: a faulty conversion to float",
        code="out_of_range" if np.isfinite(value) else "non_finite",
    )


def _to_float(block: Array) -> FloatArray:
    """Float32 samples; PCM is scaled to [-1, 1]."""
    samples: FloatArray = block.astype(np.float32, copy=False)
    if block.dtype in FULL_SCALE:
        samples *= np.float32(1 / FULL_SCALE[block.dtype])
    return samples


def _to_mono(block: Array) -> FloatArray:
    """Mean of the channels, float32 (n,).

    Adding the columns one by one costs a twentieth of ``mean(axis=1)``; for 16-bit stereo it is exact.
    """
    n_channels = block.shape[1]
    scale = np.float32(1 / (n_channels * FULL_SCALE.get(block.dtype, 1.0)))
    samples: FloatArray = block.astype(np.float32, copy=False)
    if n_channels == 1:
        return samples[:, 0] if scale == 1 else samples[:, 0] * scale
    total = samples[:, 0] + samples[:, 1]
    for channel in range(2, n_channels):
        total += samples[:, channel]
    total *= scale
    return total
