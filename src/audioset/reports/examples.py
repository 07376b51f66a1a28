"""Clips to look at and to listen to in a report: a picture of the sound and a few seconds of it, as data URIs."""

from __future__ import annotations

import base64
import io
import logging
import struct
import wave
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import Array
from audioset.errors import AudioSetError
from audioset.frontend.cutting import pad_to_patch
from audioset.frontend.log_mel import log_mel
from audioset.frontend.spec import FrontendSpec
from audioset.sounds.audio import read_clip
from audioset.sounds.collection import Clip

logger = logging.getLogger(__name__)


N_EXAMPLES = 12
LONGEST_S = 5.0
LOUD, QUIET = 99.5, 10.0  # percentiles of a picture that are its lightest and its darkest
# From quiet to loud; between them in straight lines.
COLOURS = np.array([(8, 8, 24), (66, 22, 98), (152, 44, 104), (226, 98, 62), (250, 190, 70), (252, 250, 200)], float)


@dataclass(frozen=True)
class Example:
    """One clip."""

    # title, detail: what is said of it
    title: str
    detail: str
    # picture, sound: data URIs of a PNG and of a WAV file; empty where the clip cannot be read any more
    picture: str = ""
    sound: str = ""
    shows: str = ""  # what the picture is of


def hear_examples(record: Mapping[str, Any], spec: FrontendSpec) -> list[Example]:
    """The clips that the first evaluation of a record gets most wrong."""
    evaluations = record["evaluations"]
    return [_example(mistake, spec) for mistake in (evaluations[0]["mistakes"][:N_EXAMPLES] if evaluations else ())]


def spectrogram_png(waveform: Array, spec: FrontendSpec) -> bytes:
    """Picture of samples at a frontend's rate: a column for each frame, a row for each band, the lowest last."""
    n_frames = max(8, round(len(waveform) / spec.hop_samples))  # without the padding
    if len(waveform) < spec.min_samples:
        waveform = pad_to_patch(waveform, spec.with_pad("zero"))
    values = log_mel(waveform, spec)[:n_frames].T[::-1]
    low, high = np.percentile(values, (QUIET, LOUD))
    places = np.clip((values - low) / max(high - low, 1e-6), 0, 1) * (len(COLOURS) - 1)
    channels = [np.interp(places, range(len(COLOURS)), COLOURS[:, channel]) for channel in range(3)]
    return png(np.stack(channels, axis=-1).astype(np.uint8))


def png(pixels: Array) -> bytes:
    """A PNG file of pixels (height, width, 3), uint8.

    Source: the PNG specification, third edition, W3C 2025: signature, IHDR, IDAT and IEND, rows without filter.
    """
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(pixels))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def wav(waveform: Array, sample_rate: int) -> bytes:
    """A WAV file of 16 bits of mono samples in [-1, 1]."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((np.clip(waveform, -1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def _example(mistake: Mapping[str, Any], spec: FrontendSpec) -> Example:
    start_s, end_s = mistake["start_s"], mistake["end_s"]
    labels, said = _names(mistake["labels"]), _names(mistake["said"])
    shown = ", ".join(f"{name} {score:.2f}" for name, score in mistake["scores"].items())
    where = Path(mistake["path"]).name + (f", from {start_s:g} s" if start_s else "")
    title = f"{labels}, heard as {said}"
    last_s = start_s + LONGEST_S if end_s is None else min(end_s, start_s + LONGEST_S)
    try:
        waveform = read_clip(Clip(Path(mistake["path"]), (), start_s, last_s), spec.sample_rate)
    except AudioSetError as error:
        logger.info("no picture of %s: %s", mistake["path"], error)
        return Example(title, f"{where}; {shown}")
    picture, sound = spectrogram_png(waveform, spec), wav(waveform, spec.sample_rate)
    shows = f"log-mel spectrogram, {spec.mel_min_hz:,.0f} to {spec.mel_max_hz:,.0f} Hz"
    return Example(title, f"{where}; {shown}", _uri("image/png", picture), _uri("audio/wav", sound), shows)


def _names(names: Sequence[str]) -> str:
    return " and ".join(names) or "no class"


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
