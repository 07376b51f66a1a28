"""TFRecord: quantised embeddings in the format of the released AudioSet features, for whatever reads those.

Source: tensorflow/core/example/example.proto and feature.proto, tensorflow/core/lib/io/record_writer.h. The
layout is that of the released ``bal_train/*.tfrecord``. TensorFlow 2.21 reads the files, and of the same examples
writes the same bytes.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from audioset.errors import UsageError
from audioset.formats.output import Stream
from audioset.formats.rows import EmbeddingRow

if TYPE_CHECKING:
    from audioset.formats.rows import ByteArray

EMBEDDING_SIZE = 128
QUANTISED_ONLY = (
    f"the format tfrecord holds quantised embeddings, {EMBEDDING_SIZE} bytes a patch, as the released AudioSet features"
)
CRC_MASK = 0xA282EAD8
LENGTH_DELIMITED = 2  # protobuf's wire type of bytes, strings, messages and packed numbers


class TFRecordWriter:
    """One ``tf.train.SequenceExample`` for each recording, written when the recording is complete.

    The context has ``video_id``, the recording's file name without folder and ending; ``start_time_seconds``,
    always 0; ``end_time_seconds``, the recording's duration; and ``labels``, empty. The feature list
    ``audio_embedding`` has 128 bytes for each patch. There is no place for the hop: readers expect one patch
    every 0.96 s.

    A recording that failed has no record, not even of its parts before the failure.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rows: list[EmbeddingRow] = []  # of one recording
        self._handled_error = sys.exc_info()[1]  # usually none

    def write(self, row: EmbeddingRow) -> None:
        """Keep the row until its recording is complete, which the next recording's first row says."""
        if self._rows and self._rows[0].path != row.path:
            self._flush()
        if row.error_code is not None:
            self._rows = []
            return
        _check_quantised(row)
        self._rows.append(row)

    def close(self) -> None:
        """Write the last recording; but not if an error ends the run, as it may not be complete then."""
        if sys.exc_info()[1] is self._handled_error:
            self._flush()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            self._stream.write(frame_record(_recording_to_example(rows)))


def sequence_example(
    video_id: str, start_s: float, end_s: float, labels: Sequence[int], embeddings: ByteArray
) -> bytes:
    """A serialised ``tf.train.SequenceExample``, always the same bytes for the same values.

    Parameters
    ----------
    video_id : str
    start_s, end_s : float
        Seconds; stored as float32.
    labels : sequence of int
        Indices of classes, 0 or more.
    embeddings : ndarray, shape (n_patches, 128), uint8

    Returns
    -------
    bytes
    """
    context = {
        "video_id": _message(1, _message(1, video_id.encode("utf-8"))),
        "start_time_seconds": _message(2, _message(1, struct.pack("<f", start_s))),
        "end_time_seconds": _message(2, _message(1, struct.pack("<f", end_s))),
        "labels": _message(3, _message(1, b"".join(map(_varint, labels))) if labels else b""),
    }
    patches = b"".join(_message(1, _message(1, _message(1, patch.tobytes()))) for patch in embeddings)
    return _message(1, _map(context)) + _message(2, _map({"audio_embedding": patches}))


def frame_record(payload: bytes) -> bytes:
    """A record as it stands in a TFRecord file: length, its checksum, payload, its checksum."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _masked_crc(length), payload, _masked_crc(payload)))


def _recording_to_example(rows: list[EmbeddingRow]) -> bytes:
    import numpy as np

    last = rows[-1]
    end_s = last.end_s.max(initial=0.0) if last.duration_s is None else last.duration_s
    embeddings = np.concatenate([row.embeddings for row in rows])
    return sequence_example(PurePath(last.path).stem, 0.0, float(end_s), (), embeddings)


def _check_quantised(row: EmbeddingRow) -> None:
    if not row.is_quantised or row.embeddings.shape[1] != EMBEDDING_SIZE:
        raise UsageError(
            f"{QUANTISED_ONLY}; these are {row.embeddings.shape[1]} values of {row.embeddings.dtype} a patch. "
            "Next step: --model vggish --quantize, or another format"
        )


def _map(entries: dict[str, bytes]) -> bytes:
    """A protobuf map from names to messages, in the order given: field 1, entries of key (1) and value (2)."""
    return b"".join(_message(1, _message(1, name.encode()) + _message(2, value)) for name, value in entries.items())


def _message(number: int, contents: bytes) -> bytes:
    """A protobuf field of bytes, which all of ours are."""
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(contents)) + contents


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _masked_crc(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted so that a checksum over data with checksums in it stays a good one."""
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF)
