"""Frames of MPEG audio, AAC in ADTS and in LOAS, which have no header but their own, and the tags before them."""

from __future__ import annotations

import re

FRAME_SYNC = re.compile(rb"\xff[\xe0-\xff][\x00-\xef]|\x56[\xe0-\xff]")
MIN_FRAMES = 3  # so many frames in a row are no accident

N_AAC_RATES = 13
MPEG_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
LAYER_3, LAYER_2, LAYER_1 = 1, 2, 3  # as two bits of the header
MPEG_KBITS = {  # by whether it is MPEG-1, and by layer
    (True, LAYER_1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, LAYER_2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, LAYER_3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, LAYER_1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, LAYER_2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, LAYER_3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def find_frames(data: bytes) -> int | None:
    """Position of the first of several frames in a row, or of fewer that the data are, or end with."""
    return next((sync.start() for sync in FRAME_SYNC.finditer(data) if _is_frame_row(data, sync.start())), None)


def _is_frame_row(data: bytes, first: int) -> bool:
    at, kind = first, data[first : first + 2]
    for _ in range(MIN_FRAMES):
        n_bytes = _frame_bytes(data[at : at + 6])
        if not n_bytes or data[at : at + 1] != kind[:1] or ((data[at + 1] ^ kind[1]) & 0x1E and kind[0] == 0xFF):
            return False
        at += n_bytes
        if at >= len(data):
            return first == 0 or at == len(data)
    return True


def _frame_bytes(head: bytes) -> int:
    """Length of a frame by its header: MPEG audio layers 1 to 3, AAC in ADTS or LOAS; 0 if it is none."""
    if len(head) < 6:
        return 0
    if head[0] == 0x56:
        return ((head[1] & 0x1F) << 8 | head[2]) + 3
    version, layer, kbit_index, rate_index = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if layer == 0:
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5 if head[2] >> 2 & 15 < N_AAC_RATES else 0
    if version == 1 or kbit_index in (0, 15) or rate_index == 3:
        return 0
    bits_per_s = 1_000 * MPEG_KBITS[version == 3, layer][kbit_index]
    rate, padding = MPEG_RATES_HZ[version][rate_index], head[2] >> 1 & 1
    if layer == LAYER_1:
        return (12 * bits_per_s // rate + padding) * 4
    return (72 if layer == LAYER_3 and version != 3 else 144) * bits_per_s // rate + padding


def id3_size(head: bytes) -> int:
    """Bytes that follow the first ten of an ID3 tag; the size has four 7-bit bytes."""
    return sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
