"""TFRecord files: records with their lengths and checksums, as TensorFlow frames them.

Source: tensorflow/core/lib/io/record_reader.cc and record_writer.h. Of each record the file has eight bytes of
length, four of a checksum of these, the payload, and four of its checksum, all little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

import google_crc32c

from audioset.dataset.features.problems import Problems

CRC_MASK = 0xA282EAD8
HEADER = struct.Struct("<QI")
LENGTH = struct.Struct("<Q")
CRC = struct.Struct("<I")
FRAME_BYTES = HEADER.size + CRC.size
MAX_PAYLOAD_BYTES = 1 << 26  # five days of embeddings; a released record has 1,507
CHUNK_BYTES = 1 << 18


def frame_record(payload: bytes) -> bytes:
    """A record as it stands in a TFRecord file: length, its checksum, payload, its checksum."""
    length = LENGTH.pack(len(payload))
    return b"".join((length, CRC.pack(masked_crc(length)), payload, CRC.pack(masked_crc(payload))))


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated and shifted so that a checksum over data with checksums in it stays a good one."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF


_length_crc = lru_cache(1 << 12)(masked_crc)  # few lengths are most of them


def read_records(file: BinaryIO, n_bytes: int, name: str, problems: Problems) -> Iterator[tuple[int, int, bytes]]:
    """Read the records of a TFRecord file, and check both checksums of each.

    Yields the number of each record and of its first byte in the file, both from 0, and its payload. The file need
    not seek; no more than ``n_bytes``, its size, and no more than 64 MiB for a record, is ever asked for. After a
    damaged payload the next record is read; after a damaged length nothing can be.
    """
    buffer, at = b"", 0  # the next record begins at buffer[at], and in the file at offset
    number = offset = 0
    while offset < n_bytes:
        if len(buffer) - at < HEADER.size:
            buffer, at = buffer[at:] + file.read(min(CHUNK_BYTES, n_bytes - offset)), 0
        if len(buffer) - at < HEADER.size:
            return _cut(problems, name, number, offset)
        length, crc = HEADER.unpack_from(buffer, at)
        if _length_crc(buffer[at : at + LENGTH.size]) != crc:
            reason = f"the checksum of its length is wrong; the {n_bytes - offset:,} bytes from here on cannot be read"
            return problems.add(record_place(name, number, offset), reason)
        n_left = n_bytes - offset - FRAME_BYTES
        if length > min(n_left, MAX_PAYLOAD_BYTES):
            reason = f"it claims {length:,} bytes; the file has {n_left:,} left, and a record at most "
            return problems.add(record_place(name, number, offset), f"{reason}{MAX_PAYLOAD_BYTES:,}")
        end = at + FRAME_BYTES + length
        if len(buffer) < end:
            buffer, at = buffer[at:] + file.read(max(CHUNK_BYTES, end - len(buffer))), 0
            end = FRAME_BYTES + length
        if len(buffer) < end:
            return _cut(problems, name, number, offset)
        payload = buffer[at + HEADER.size : end - CRC.size]
        if masked_crc(payload) == CRC.unpack_from(buffer, end - CRC.size)[0]:
            yield number, offset, payload
        else:
            problems.add(record_place(name, number, offset), f"the checksum of its {length:,} bytes is wrong")
        at, offset, number = end, offset + FRAME_BYTES + length, number + 1


def record_place(name: str, number: int, offset: int) -> str:
    """How messages name a record."""
    return f"{name}: record {number:,} at byte {offset:,}"


def _cut(problems: Problems, name: str, number: int, offset: int) -> None:
    problems.add(record_place(name, number, offset), "the file ends in the middle of it")
