"""TFRecord files read by TensorFlow's definition, without the package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

VARINT, FIXED_64, DELIMITED, FIXED_32 = 0, 1, 2, 5


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def checked(data: bytes, masked: bytes) -> bytes:
    (value,) = struct.unpack("<I", masked)
    rotated = (value - 0xA282EAD8) % 2**32
    assert crc32c(data) == (rotated << 15 | rotated >> 17) % 2**32
    return data


def records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack("<Q", checked(data[at : at + 8], data[at + 8 : at + 12]))
        at += 12 + length + 4
        assert at <= len(data)
        yield checked(data[at - 4 - length : at - 4], data[at - 4 : at])


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def message_fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        wire_type = tag & 7
        if wire_type == VARINT:
            value, at = varint(data, at)
        else:
            length, at = varint(data, at) if wire_type == DELIMITED else ({FIXED_32: 4, FIXED_64: 8}[wire_type], at)
            assert at + length <= len(data)
            value, at = data[at : at + length], at + length
        yield tag >> 3, wire_type, value


def only(data: bytes, number: int) -> list[bytes]:
    """Values of a message in which every field has this number and is delimited."""
    found = list(message_fields(data))
    assert {(field, wire_type) for field, wire_type, _ in found} <= {(number, DELIMITED)}
    return [value for _, _, value in found]


def feature(data: bytes) -> tuple[str, list[Any]]:
    """Kind and values of a ``tf.train.Feature``."""
    ((number, wire_type, contents),) = message_fields(data)
    assert wire_type == DELIMITED
    kind = {1: "bytes", 2: "float", 3: "int64"}[number]
    values: list[Any] = []
    for field, value_type, value in message_fields(contents):
        assert field == 1
        if kind == "bytes":
            assert value_type == DELIMITED
            values.append(value)
        elif kind == "float":  # packed or one by one
            values += struct.unpack(f"<{len(value) // 4}f", value)
        elif value_type == VARINT:
            values.append(value)
        else:
            at = 0
            while at < len(value):
                number, at = varint(value, at)
                values.append(number)
    return kind, values


def string_map(data: bytes) -> dict[str, bytes]:
    entries = {}
    for entry in only(data, 1):
        (key_field, _, key), (value_field, _, value) = message_fields(entry)
        assert (key_field, value_field) == (1, 2)
        entries[key.decode()] = value
    return entries


def parsed(payload: bytes) -> dict[str, Any]:
    (context_field, _, context), (lists_field, _, lists) = sorted(message_fields(payload))
    assert (context_field, lists_field) == (1, 2)
    return {
        "context": {name: feature(value) for name, value in string_map(context).items()},
        "lists": {name: [feature(item) for item in only(value, 1)] for name, value in string_map(lists).items()},
    }


def embeddings_of(example: dict[str, Any]) -> np.ndarray:
    kinds, values = zip(*example["lists"]["audio_embedding"], strict=True)
    assert set(kinds) == {"bytes"}
    assert {len(value) for value in values} == {1}
    return np.array([list(value[0]) for value in values], np.uint8)
