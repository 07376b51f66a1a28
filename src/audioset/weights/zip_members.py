"""Where the members of a zip file lie: none compressed, none overlapping, all as the list of members says.

Source: PKWARE's ``APPNOTE.TXT``.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from audioset.weights.checkpoint import SAVE_AGAIN, FormatError, clipped

MAX_MEMBERS = 1 << 14
MAX_MEMBER_NAME_BYTES = 300

LOCAL_SIGNATURE, CENTRAL_SIGNATURE = b"PK\3\4", b"PK\1\2"
LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END, END_SIGNATURE = struct.Struct("<4s4H2IH"), b"PK\5\6"
LOCATOR, LOCATOR_SIGNATURE = struct.Struct("<4sIQI"), b"PK\6\7"  # of END64, right before END
END64, END64_SIGNATURE = struct.Struct("<4sQ2H2I4Q"), b"PK\6\6"
IN_EXTRA, ZIP64_EXTRA = 0xFFFF_FFFF, 1


class MemberPlace(NamedTuple):
    """Where bytes are, and their CRC-32 if they have one."""

    start: int
    end: int
    checksum: int | None = None


def read_members(data: memoryview) -> dict[str, MemberPlace]:
    """Every member, none of them compressed, and no byte part of two."""
    n_members, at, end = _zip_directory(data)
    if n_members > MAX_MEMBERS:
        raise FormatError(f"it has {n_members:,} members; expected at most {MAX_MEMBERS:,}")
    members: dict[str, MemberPlace] = {}
    spans = [(at, len(data))]
    for _ in range(n_members):
        name, header_at, place, at = _zip_member(data, at, end)
        if name in members:
            raise FormatError(f"it has two members {clipped(name)}")
        members[name] = place
        spans.append((header_at, place.end))
    if at != end:
        raise FormatError("its list of members is damaged")
    spans.sort()
    if any(span[1] > following[0] for span, following in pairwise(spans)):
        raise FormatError("its members overlap")
    return members


def _zip_directory(data: memoryview) -> tuple[int, int, int]:
    """How many members the file lists, and where the list begins and ends."""
    end_at = len(data) - END.size
    if end_at < 0 or data[end_at : end_at + 4] != END_SIGNATURE:
        raise FormatError(f"it begins as a zip file and ends, at byte {len(data):,}, without a list of members")
    _, _, _, _, n_members, n_bytes, at, _ = END.unpack_from(data, end_at)
    locator_at = end_at - LOCATOR.size
    if locator_at >= 0 and data[locator_at : locator_at + 4] == LOCATOR_SIGNATURE:
        _, _, end64_at, _ = LOCATOR.unpack_from(data, locator_at)
        if data[end64_at : end64_at + 4] != END64_SIGNATURE or end64_at + END64.size > locator_at:
            raise FormatError("its list of members is damaged")
        *_, n_members, n_bytes, at = END64.unpack_from(data, end64_at)
        end_at = end64_at
    if at + n_bytes > end_at:
        raise FormatError("its list of members is damaged")
    return n_members, at, at + n_bytes


def _zip_member(data: memoryview, at: int, end: int) -> tuple[str, int, MemberPlace, int]:
    """Name of a listed member, where its header and its bytes are, and where the next one is listed."""
    if at + CENTRAL.size > end or data[at : at + 4] != CENTRAL_SIGNATURE:
        raise FormatError("its list of members is damaged")
    fields = CENTRAL.unpack_from(data, at)
    method, checksum, n_stored, n_bytes, n_name, n_extra, n_comment = (*fields[4:5], *fields[7:13])
    if n_name > MAX_MEMBER_NAME_BYTES:
        raise FormatError(f"a member has a name of {n_name:,} bytes")
    name_at = at + CENTRAL.size
    raw_name, extra = data[name_at : name_at + n_name], data[name_at + n_name : name_at + n_name + n_extra]
    name = str(raw_name, "utf-8", "replace")
    n_bytes, n_stored, header_at = _zip64_numbers(extra, [n_bytes, n_stored, fields[16]])
    if method or n_stored != n_bytes:
        raise FormatError(
            f"its member {clipped(name)} is compressed; torch.save stores bytes as they are. Likely cause: it was "
            "packed again by another program",
            SAVE_AGAIN,
        )
    start = _zip_bytes_start(data, header_at, raw_name)
    return name, header_at, MemberPlace(start, start + n_bytes, checksum), name_at + n_name + n_extra + n_comment


def _zip64_numbers(extra: memoryview, numbers: list[int]) -> list[int]:
    """Sizes and offset, those beyond 32 bits from the extra field."""
    at = 0
    while at + 4 <= len(extra) and IN_EXTRA in numbers:
        kind, n_bytes = struct.unpack_from("<2H", extra, at)
        if kind == ZIP64_EXTRA:
            values = extra[at + 4 :][:n_bytes]
            longer = iter(struct.unpack_from(f"<{len(values) // 8}Q", values))
            return [next(longer, n) if n == IN_EXTRA else n for n in numbers]
        at += 4 + n_bytes
    return numbers


def _zip_bytes_start(data: memoryview, header_at: int, raw_name: memoryview) -> int:
    """Where the bytes of a member begin, behind a header that says again what it is."""
    if header_at + LOCAL.size > len(data) or data[header_at : header_at + 4] != LOCAL_SIGNATURE:
        raise FormatError(f"there is no member at byte {header_at:,}, where one is listed")
    n_name, n_extra = LOCAL.unpack_from(data, header_at)[-2:]
    name_at = header_at + LOCAL.size
    if data[name_at : name_at + n_name] != raw_name:
        raise FormatError(f"the member at byte {header_at:,} is not the one that is listed")
    return int(name_at + n_name + n_extra)
