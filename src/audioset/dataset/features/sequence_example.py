"""``tf.train.SequenceExample`` in protobuf's wire format, written and read without TensorFlow.

Source: tensorflow/core/example/example.proto and feature.proto; protobuf's description of its encoding. TensorFlow
2.21 reads what is written here, and of the same values writes the same bytes.

Numbers may be packed or not, the entries of a map in any order, fields in any order and repeated; fields that are
not known are passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache

from audioset.dataset.features.problems import Malformed

VARINT, FIXED_64, DELIMITED, FIXED_32 = 0, 1, 2, 5  # protobuf's wire types
FIXED_BYTES = {FIXED_64: 8, FIXED_32: 4}
WIRE_TYPES = {VARINT: "a number", FIXED_64: "8 bytes", DELIMITED: "bytes of any length", FIXED_32: "4 bytes"}
CONTEXT, FEATURE_LISTS = 1, 2  # the fields of a SequenceExample
BYTES, FLOAT, INT64 = 1, 2, 3  # the fields of a Feature, of which it has one
KINDS = {BYTES: "bytes", FLOAT: "floats", INT64: "integers"}
MAX_VARINT_BYTES = 10
CUT = "a field goes beyond the end of the record"


def bytes_feature(value: bytes) -> bytes:
    """A ``tf.train.Feature`` of one byte string."""
    return message(BYTES, message(1, value))


def float_feature(value: float) -> bytes:
    """A ``tf.train.Feature`` of one number, stored as float32."""
    return message(FLOAT, message(1, struct.pack("<f", value)))


def int64_feature(values: Iterable[int]) -> bytes:
    """A ``tf.train.Feature`` of integers, 0 or more."""
    packed = b"".join(map(varint, values))
    return message(INT64, message(1, packed) if packed else b"")


def sequence_example(context: Mapping[str, bytes], feature_lists: Mapping[str, Iterable[bytes]]) -> bytes:
    """A serialised ``tf.train.SequenceExample``, its maps in the order given: the same values, the same bytes."""
    lists = {name: b"".join(message(1, feature) for feature in features) for name, features in feature_lists.items()}
    return message(CONTEXT, _map(context)) + message(FEATURE_LISTS, _map(lists))


def message(number: int, contents: bytes) -> bytes:
    """A protobuf field of bytes, which all of these are."""
    return _prefix(number, len(contents)) + contents


@lru_cache(1 << 12)
def _prefix(number: int, n_bytes: int) -> bytes:
    return varint(number << 3 | DELIMITED) + varint(n_bytes)


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first."""
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def find_features(example: bytes, part: int, names: Container[str]) -> dict[str, memoryview]:
    """The features of a context, or its feature lists, by name.

    ``part`` is ``CONTEXT`` or ``FEATURE_LISTS``; each value is a serialised ``Feature`` or ``FeatureList``. Of a
    name that is there twice, the last.
    """
    found = {}
    for whole in delimited(memoryview(example), part):
        for entry in delimited(whole, 1):
            name = value = memoryview(b"")
            for number, wire_type, contents in fields(entry):
                if number not in (1, 2):
                    continue
                if not isinstance(contents, memoryview):
                    raise Malformed(f"an entry of a map has {WIRE_TYPES[wire_type]}; expected bytes of any length")
                name, value = (contents, value) if number == 1 else (name, contents)
            text = bytes(name).decode("utf-8", "replace")
            if text in names:
                found[text] = value
    return found


def delimited(data: memoryview, number: int) -> Iterator[memoryview]:
    """The values of a message's fields with this number, which are bytes; others are passed over."""
    for found, wire_type, value in fields(data):
        if found == number:
            if not isinstance(value, memoryview):
                raise Malformed(f"field {number} has {WIRE_TYPES[wire_type]}; expected {WIRE_TYPES[DELIMITED]}")
            yield value


def bytes_values(feature: memoryview) -> Iterator[memoryview]:
    """The values of a ``Feature`` of byte strings."""
    for contents in _lists(feature, BYTES):
        yield from delimited(contents, 1)


def float_values(feature: memoryview) -> Iterator[float]:
    """The values of a ``Feature`` of float32."""
    for contents in _lists(feature, FLOAT):
        for number, wire_type, value in fields(contents):
            if number != 1:
                continue
            if not isinstance(value, memoryview) or wire_type == FIXED_64 or len(value) % 4:
                raise Malformed(f"floats are stored as {WIRE_TYPES[wire_type]}; expected groups of 4 bytes")
            for (each,) in struct.iter_unpack("<f", value):
                yield each


def int64_values(feature: memoryview) -> Iterator[int]:
    """The values of a ``Feature`` of integers."""
    for contents in _lists(feature, INT64):
        for number, wire_type, value in fields(contents):
            if number != 1:
                continue
            if isinstance(value, int):
                yield _signed(value)
            elif wire_type == DELIMITED:
                yield from unpack_varints(value)
            else:
                raise Malformed(f"integers are stored as {WIRE_TYPES[wire_type]}; expected numbers")


def unpack_varints(data: memoryview) -> Iterator[int]:
    """Integers that are packed into bytes."""
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield _signed(value)


def fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """The fields of a message in their order: number, wire type, and a number or bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type not in WIRE_TYPES or not 0 < number < 1 << 29:
            raise Malformed(f"field {number} of wire type {wire_type} is none of protobuf's")
        if wire_type == VARINT:
            value, at = _read_varint(data, at)
            yield number, wire_type, value
            continue
        length, at = (FIXED_BYTES[wire_type], at) if wire_type in FIXED_BYTES else _read_varint(data, at)
        if length > end - at:
            raise Malformed(CUT)
        yield number, wire_type, data[at : at + length]
        at += length


def _lists(feature: memoryview, kind: int) -> Iterator[memoryview]:
    """What a ``Feature`` holds, which must be of this kind."""
    for number, wire_type, value in fields(feature):
        if number in KINDS and (number != kind or not isinstance(value, memoryview)):
            stored = KINDS[number] if wire_type == DELIMITED else WIRE_TYPES[wire_type]
            raise Malformed(f"a feature holds {stored}; expected {KINDS[kind]}")
        if isinstance(value, memoryview) and number == kind:
            yield value


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = 0
    for i, byte in enumerate(data[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value & (1 << 64) - 1, at + i + 1
    raise Malformed("a number has more than 64 bits" if len(data) - at >= MAX_VARINT_BYTES else CUT)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _map(entries: Mapping[str, bytes]) -> bytes:
    """A protobuf map from names to messages: field 1, entries of key (1) and value (2)."""
    return b"".join(message(1, message(1, name.encode()) + message(2, value)) for name, value in entries.items())
