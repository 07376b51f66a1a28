"""A writer of TensorFlow checkpoints of both versions, made from the formats' descriptions and not from the reader."""

from __future__ import annotations

import google_crc32c
import numpy as np
from sounds import noise

RNG = np.random.default_rng(0)
TENSORS = {
    "net/conv/weights": noise(3 * 3 * 2 * 5).reshape(3, 3, 2, 5).astype(np.float32),
    "net/conv/biases": noise(5).astype(np.float32),
    "net/long": noise(300 * 7, seed=1).reshape(300, 7).astype(np.float32),
    "net/double": RNG.normal(size=(4, 6)),
    "net/steps": np.array([[0, 1, -1], [127, 128, -(2**31)], [2**31 - 1, 300, 7]], np.int32),
    "global_step": np.array(2**40 + 3, np.int64),
    "ids": np.array([0, -1, 2**63 - 1, -(2**63), 255], np.int64),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(-1.5, np.float32),
    "nul\0name é": np.ones(2, np.float32),
}
TYPES = {"float32": 1, "float64": 2, "int32": 3, "string": 7, "int64": 9, "bfloat16": 14}
VALUES = {"float32": 5, "float64": 6, "int32": 7, "int64": 10}


def varint(number):
    number &= 2**64 - 1
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*digits, number))


def field(number, value, wire_type=None):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if wire_type is not None:
        return varint(number << 3 | wire_type) + value
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape_message(shape):
    return b"".join(field(2, field(1, n)) for n in shape)


def extents_message(extents):
    parts = (b"" if extent == (0, -1) else field(1, extent[0]) + field(2, extent[1]) for extent in extents)
    return b"".join(field(1, part) for part in parts)


def packed(values):
    number = VALUES[values.dtype.name]
    if values.dtype.kind == "i":
        return field(number, b"".join(varint(int(value)) for value in values.ravel()))
    return field(number, values.tobytes())


def unpacked(values):
    number = VALUES[values.dtype.name]
    if values.dtype.kind == "i":
        return b"".join(field(number, int(value)) for value in values.ravel())
    return b"".join(field(number, value.tobytes(), 5 if values.itemsize == 4 else 1) for value in values.ravel())


def in_pieces(values):
    """Packed runs and single values in turn, which protobuf allows."""
    flat = values.ravel()
    return packed(flat[:1]) + unpacked(flat[1:3]) + packed(flat[3:3]) + packed(flat[3:])


def content(values):
    return field(4, values.tobytes())


def masked_crc(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF).to_bytes(4, "little")


def ordered(number):
    for n_bytes in range(1, 6):
        half = 1 << 7 * n_bytes - 1
        if -half <= number < half:
            head = (0x80, 0xC000, 0xE00000, 0xF0000000, 0xF800000000)[n_bytes - 1]
            return (number % (1 << 8 * n_bytes) ^ head).to_bytes(n_bytes, "big")
    raise AssertionError(number)


def slice_key(name, extents):
    rank = b"\1" + bytes([len(extents)]) if extents else b"\0"
    numbers = b"".join(ordered(number) for extent in extents for number in extent)
    return b"\0" + name.encode().replace(b"\0", b"\0\xff") + b"\0\1" + rank + numbers


def block_of(entries, interval=16):
    data, restarts, previous = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % interval == 0:
            restarts.append(len(data))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return data + b"".join(n.to_bytes(4, "little") for n in (*restarts, len(restarts)))


def blocks_of(entries, block_bytes):
    """Entries in groups: a block ends once it has more than so many bytes."""
    groups, size = [[]], 0
    for key, value in entries:
        groups[-1].append((key, value))
        size += len(key) + len(value)
        if size > block_bytes:
            groups.append([])
            size = 0
    return [group for group in groups if group]


def table_of(entries, block_bytes=1 << 18, interval=16, compress=None, kind=1, handles=lambda index: index):
    data = bytearray()

    def add(block):
        stored = compress(block) if compress else block
        tail = bytes([kind if compress else 0])
        handle = varint(len(data)) + varint(len(stored))
        data.extend(stored + tail + masked_crc(stored + tail))
        return handle

    groups = blocks_of(sorted(entries), block_bytes)
    index = [(group[-1][0], add(block_of(group, interval))) for group in groups]
    footer = add(block_of([])) + add(block_of(handles(index), 1))
    return bytes(data) + footer.ljust(40, b"\0") + 0xDB4775248B80FB57.to_bytes(8, "little")


def part_of(value, extents):
    return value[tuple(slice(start, None if n < 0 else start + n) for start, n in extents)] if extents else value


def whole(value):
    return [((0, -1),) * value.ndim]


def v1_entries(tensors, cuts=None, encode=packed):
    """Keys and values, so that a test can change one before they become a table."""
    metas, entries = b"", {}
    for name, value in sorted(tensors.items()):
        slices = (cuts or {}).get(name) or whole(value)
        described = field(1, name.encode()) + field(2, shape_message(value.shape)) + field(3, TYPES[value.dtype.name])
        metas += field(1, described + b"".join(field(4, extents_message(extents)) for extents in slices))
        for extents in slices:
            saved = field(1, name.encode()) + field(2, extents_message(extents))
            saved += field(3, encode(part_of(value, extents)))
            entries[slice_key(name, extents)] = field(2, saved)
    return {b"": field(1, metas + field(2, field(1, 1))), **entries}


def write_v1(path, tensors=TENSORS, cuts=None, encode=packed, **options):
    path.write_bytes(table_of(v1_entries(tensors, cuts, encode).items(), **options))
    return path


def entry_message(dtype, shape, shard, offset, data, slices=()):
    message = field(1, TYPES[dtype]) + field(2, shape_message(shape))
    if slices:
        return message + b"".join(field(7, extents_message(extents)) for extents in slices)
    message += field(3, shard) + field(4, offset) + field(5, len(data))
    return message + field(6, masked_crc(data), 5)


def v2_parts(tensors, cuts=None, n_shards=1, endianness=0):
    header = field(1, n_shards) + field(2, endianness) + field(3, field(1, 1))
    entries, shards = {b"": header}, [bytearray() for _ in range(n_shards)]
    for name, value in sorted(tensors.items()):
        slices = (cuts or {}).get(name)
        if slices:
            entries[name.encode()] = entry_message(value.dtype.name, value.shape, 0, 0, b"", slices)
        for extents in slices or whole(value):
            part, number = part_of(value, extents), len(entries) % n_shards
            key = slice_key(name, extents) if slices else name.encode()
            data = part.tobytes()
            entries[key] = entry_message(value.dtype.name, part.shape, number, len(shards[number]), data)
            shards[number] += data
    return entries, shards


def write_v2(path, tensors=TENSORS, cuts=None, n_shards=1, endianness=0, **options):
    entries, shards = v2_parts(tensors, cuts, n_shards, endianness)
    return write_parts(path, entries, shards, **options)


def write_parts(path, entries, shards, **options):
    for number, data in enumerate(shards):
        path.with_name(f"{path.name}.data-{number:05d}-of-{len(shards):05d}").write_bytes(data)
    path.with_name(f"{path.name}.index").write_bytes(table_of(entries.items(), **options))
    return path


WRITERS = {"version 1": write_v1, "version 2": write_v2}


def snappy(data):
    """Compress, with references of all three widths."""
    out, seen, at, literal = varint(len(data)), {}, 0, 0
    while at < len(data):
        start = seen.get(data[at : at + 4], -1)
        seen[data[at : at + 4]] = at
        if start < 0 or at + 4 > len(data):
            at += 1
            continue
        length = 4
        while length < 64 and at + length < len(data) and data[start + length] == data[at + length]:
            length += 1
        out += snappy_literal(data[literal:at]) + snappy_reference(at - start, length)
        at += length
        literal = at
    return out + snappy_literal(data[literal:])


def snappy_literal(data):
    n = len(data) - 1
    if n < 0:
        return b""
    if n < 60:
        return bytes([n << 2]) + data
    n_digits = (n.bit_length() + 7) // 8
    return bytes([59 + n_digits << 2]) + n.to_bytes(n_digits, "little") + data


def snappy_reference(distance, length):
    if distance < 1 << 11 and length < 12:
        return bytes([1 | length - 4 << 2 | distance >> 8 << 5, distance & 0xFF])
    if distance < 1 << 16:
        return bytes([2 | length - 1 << 2]) + distance.to_bytes(2, "little")
    return bytes([3 | length - 1 << 2]) + distance.to_bytes(4, "little")
