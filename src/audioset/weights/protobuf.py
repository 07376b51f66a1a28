"""Fields of protobuf messages, one by one: nothing is copied, and no schema is needed."""

from __future__ import annotations

from collections.abc import Iterator

from audioset.weights.checkpoint import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types


def fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and payload of each field; the payload of a number is its encoding."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        wire_type = tag & 7
        if wire_type == VARINT:
            end = read_varint(message, at)[1]
        elif wire_type == BYTES:
            n_bytes, at = read_varint(message, at)
            end = at + n_bytes
        elif wire_type in (FIXED32, FIXED64):
            end = at + (4 if wire_type == FIXED32 else 8)
        else:
            raise FormatError(f"a message has a field of wire type {wire_type}")
        if end > len(message):
            raise FormatError("a field does not fit into its message")
        yield tag >> 3, wire_type, message[at:end]
        at = end


def all_fields(message: memoryview, number: int) -> Iterator[memoryview]:
    """The payloads of a repeated field."""
    return (payload for found, _, payload in fields(message) if found == number)


def last_field(message: memoryview, number: int) -> memoryview:
    """A field that counts once; empty if it is absent."""
    last = memoryview(b"")
    for payload in all_fields(message, number):
        last = payload
    return last


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven to a byte, and where the next thing begins."""
    number = 0
    for shift, byte in enumerate(data[at : at + 10]):
        number |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + shift + 1
    raise FormatError("a number does not end")


def to_integer(payload: memoryview) -> int:
    """The number that a payload encodes; 0 if it is absent."""
    return read_varint(payload, 0)[0] if payload else 0


def to_signed(payload: memoryview) -> int:
    """The same for a number that may be negative."""
    number = to_integer(payload)
    return number - (number >> 63 << 64)


def to_text(payload: memoryview | bytes) -> str:
    """A name, which must be UTF-8."""
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"a name is not text: {bytes(payload)!r}") from error
