"""Sorted string tables, which TensorFlow keeps its tensors or their list in; blocks are verified, and decompressed.

Sources: TensorFlow's ``core/lib/io/table_builder.cc``; the description of snappy's format.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import itemgetter

from audioset.weights.checkpoint import FormatError, MappedFile
from audioset.weights.protobuf import read_varint

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")  # the last bytes of a table
FOOTER_BYTES = 48
TRAILER_BYTES = 5  # behind each block: the kind of its compression, and its checksum
PLAIN, SNAPPY = 0, 1
MAX_SNAPPY_RATIO = 22  # at best, three bytes stand for 64
MAX_KEY_BYTES = 1 << 12
MAX_KEYS_BYTES = 1 << 24  # of all keys that are kept; they share prefixes in the file


class StringTable:
    """A sorted string table: blocks of entries, and an index of the blocks."""

    def __init__(self, file: ChecksummedFile) -> None:
        footer = file.bytes[-FOOTER_BYTES:]
        if len(footer) < FOOTER_BYTES or footer[-len(MAGIC) :] != MAGIC:
            raise FormatError(f"it ends in {footer[-len(MAGIC) :].hex() or 'nothing'}; expected {MAGIC.hex()}")
        self.file = file
        self._checked: set[tuple[int, int]] = set()
        self._n_key_bytes = 0
        _, at = _block_handle(footer, 0)  # of the blocks that describe blocks; TensorFlow writes none
        handle, _ = _block_handle(footer, at)
        index = self._kept(_entries(self._block(*handle)))
        self._index = [(key, *_block_handle(value, 0)[0]) for key, value in index]
        end = 0
        for _, offset, n_bytes in self._index:
            if offset < end:
                raise FormatError(f"two blocks share the bytes from {offset:,}")
            end = offset + n_bytes

    def get(self, key: bytes) -> memoryview | None:
        """The value of a key, or None."""
        at = bisect_left(self._index, key, key=itemgetter(0))  # blocks are listed by a key not below their last
        if at == len(self._index):
            return None
        _, offset, n_bytes = self._index[at]
        return next((value for found, value in _entries(self._block(offset, n_bytes)) if found == key), None)

    def items(self) -> Iterator[tuple[bytes, memoryview]]:
        """All keys and values."""
        for _, offset, n_bytes in self._index:
            yield from self._kept(_entries(self._block(offset, n_bytes)))

    def _kept(self, entries: Iterator[tuple[bytes, memoryview]]) -> Iterator[tuple[bytes, memoryview]]:
        for key, value in entries:
            self._n_key_bytes += len(key)
            if self._n_key_bytes > MAX_KEYS_BYTES:
                raise FormatError(f"its keys take more than {MAX_KEYS_BYTES:,} bytes")
            yield key, value

    def _block(self, offset: int, n_bytes: int) -> memoryview:
        """A block, its checksum verified the first time, decompressed if need be."""
        end = offset + n_bytes
        trailer = self.file.bytes[end : end + TRAILER_BYTES]
        if len(trailer) < TRAILER_BYTES:
            raise FormatError(f"a block ends at byte {end:,} of {len(self.file.bytes):,}")
        if (offset, end) not in self._checked:
            self.file.check(offset, end + 1, int.from_bytes(trailer[1:], "little"), f"the block at byte {offset:,}")
            self._checked.add((offset, end))
        content = self.file.bytes[offset:end]
        if trailer[0] == SNAPPY:
            return memoryview(unsnappy(content))
        if trailer[0] != PLAIN:
            raise FormatError(f"the block at byte {offset:,} has compression {trailer[0]}; expected none or snappy")
        return content


def _block_handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where the next handle begins."""
    offset, at = read_varint(data, at)
    n_bytes, at = read_varint(data, at)
    return (offset, n_bytes), at


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of a block. Each key is stored as what it does not share with the one before."""
    n_restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * n_restarts  # they serve a binary search, which is not worth it here
    if end < 0:
        raise FormatError(f"a block of {len(block):,} bytes has {n_restarts:,} restarts")
    at, previous = 0, None
    while at < end:
        n_shared, at = read_varint(block, at)
        n_rest, at = read_varint(block, at)
        n_value, at = read_varint(block, at)
        if n_shared > len(previous or b"") or n_shared + n_rest > MAX_KEY_BYTES or at + n_rest + n_value > end:
            raise FormatError("an entry does not fit into its block")
        key = (previous or b"")[:n_shared] + bytes(block[at : at + n_rest])
        if previous is not None and key <= previous:
            raise FormatError(f"the key {key!r} follows {previous!r}")
        yield key, block[at + n_rest : at + n_rest + n_value]
        at, previous = at + n_rest + n_value, key


def unsnappy(data: memoryview) -> bytearray:
    """Decompress a block: literal bytes, and references to bytes that came before."""
    n_bytes, at = read_varint(data, 0)
    if n_bytes > MAX_SNAPPY_RATIO * len(data):
        raise FormatError(f"{len(data):,} compressed bytes claim to be {n_bytes:,}")
    plain = bytearray()
    while at < len(data) and len(plain) <= n_bytes:
        if data[at] & 3:
            distance, length, at = _reference(data, at)
            start = len(plain) - distance
            if not 0 <= start < len(plain):
                raise FormatError("compressed data refer to what is not there")
            run = plain[start : start + length]
            plain += run if distance >= length else (run * (length // distance + 1))[:length]
        else:
            start, at = _literal(data, at)
            plain += data[start:at]
    if len(plain) != n_bytes or at != len(data):
        raise FormatError(f"a compressed block has {len(plain):,} bytes; expected {n_bytes:,}")
    return plain


def _literal(data: memoryview, at: int) -> tuple[int, int]:
    """Where literal bytes begin and end. Above 60, their count has up to four bytes of its own."""
    length, at = (data[at] >> 2) + 1, at + 1
    if (n_digits := length - 60) > 0:
        length, at = int.from_bytes(data[at : at + n_digits], "little") + 1, at + n_digits
    return at, at + length


def _reference(data: memoryview, at: int) -> tuple[int, int, int]:
    """How far back and how long a reference is, and what comes after it."""
    tag = data[at]
    end = at + (2, 3, 5)[(tag & 3) - 1]
    distance = int.from_bytes(data[at + 1 : end], "little")
    if tag & 3 == 1:
        return distance | tag >> 5 << 8, (tag >> 2 & 7) + 4, end
    return distance, (tag >> 2) + 1, end


class ChecksummedFile(MappedFile):
    """A mapped file whose parts have checksums."""

    def check(self, start: int, end: int, checksum: int, what: str) -> None:
        """Compare bytes with their checksum: CRC-32C, stored rotated and with a constant added."""
        import google_crc32c

        if end > len(self.bytes):
            raise FormatError(f"{what} ends at byte {end:,} of {len(self.bytes):,}")
        found = 0
        for chunk in self.chunks(start, end):
            found = google_crc32c.extend(found, bytes(chunk))
        if ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF != checksum:
            raise FormatError(f"the checksum of {what} is wrong: its bytes were changed")
