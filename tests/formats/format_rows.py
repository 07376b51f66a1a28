"""Rows and readers that tests of formats share."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from audioset.errors import AudioError
from audioset.formats import (
    TAG_FORMATS,
    EmbeddingRow,
    Row,
    Tag,
    make_writer,
)

SPEECH, DOG = Tag("/m/09x0r", "Speech", 0.987654321), Tag("/m/0bt9lr", "Dog", 0.25)
HOSTILE = 'x/a,"b"\t[bold red]c\x1b[31m\x9b31m\nd\r\u202e' + os.fsdecode(b"\xff") + ".wav"
BROKEN = Row.failed(HOSTILE, AudioError(f"{HOSTILE} is cut off", code="truncated"), "yamnet")
ROWS = [
    Row("a.wav", 0.0, 4.92, (SPEECH, DOG), 4.92, "yamnet"),
    BROKEN,
    Row("quiet.wav", 0.0, 1.5, (), 1.5, "yamnet", ("the header says 2 s",)),
    Row("z é.wav", 0.48, 1.44, (DOG,), 1.2, "yamnet"),
]


def written(name: str, rows: Iterable[Any], formats: Mapping[str, Any] = TAG_FORMATS) -> bytes:
    stream = io.BytesIO()
    writer = make_writer(name, stream, formats)
    for row in rows:
        writer.write(row)
    writer.close()
    return stream.getvalue()


def strict_json(text: bytes | str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def tsv_dicts(data: bytes) -> list[dict[str, str]]:
    header, *lines = [line.split("\t") for line in data.decode("utf-8").removesuffix("\n").split("\n")]
    return [dict(zip(header, line, strict=True)) for line in lines]


def embedding_rows() -> list[EmbeddingRow]:
    """A recording in two parts, one that failed, and one more."""
    values = np.random.default_rng(7).normal(scale=[1e-5, 1.0, 300.0, 0.0], size=(6, 4)).astype(np.float32)
    start_s = np.arange(6) * 0.48
    parts = [("a.wav", slice(0, 3)), ("a.wav", slice(3, 5)), ("b.wav", slice(5, 6))]
    first, second, third = (
        EmbeddingRow(path, start_s[part], start_s[part] + 0.96, values[part], 3.0, "yamnet") for path, part in parts
    )
    return [first, second, EmbeddingRow.failed(HOSTILE, AudioError("cut off", code="truncated"), "yamnet"), third]


def quantised_rows() -> list[EmbeddingRow]:
    """The same recordings with embeddings of bytes."""
    values = np.random.default_rng(7).integers(0, 256, (6, 128), np.uint8)
    values[0, :4] = 0, 127, 128, 255
    parts = iter((values[0:3], values[3:5], values[5:6]))
    return [row if row.error_code else replace(row, embeddings=next(parts)) for row in embedding_rows()]
