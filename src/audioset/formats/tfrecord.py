"""TFRecord: quantised embeddings in the format of the released AudioSet features, for whatever reads those.

The layout is that of the released ``bal_train/*.tfrecord``; see ``audioset.dataset.features.examples``.
"""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import BinaryIO

from audioset.dataset.features.framing import frame_record
from audioset.errors import UsageError
from audioset.formats.output import Stream
from audioset.formats.rows import EmbeddingRow

EMBEDDING_SIZE = 128
QUANTISED_ONLY = (
    f"the format tfrecord holds quantised embeddings, {EMBEDDING_SIZE} bytes a patch, as the released AudioSet features"
)


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


def _recording_to_example(rows: list[EmbeddingRow]) -> bytes:
    from audioset.dataset.features.examples import encode_clip

    last = rows[-1]
    end_s = last.end_s.max(initial=0.0) if last.duration_s is None else last.duration_s
    patches = (patch.tobytes() for row in rows for patch in row.embeddings)
    return encode_clip(PurePath(last.path).stem, 0.0, float(end_s), (), patches)


def _check_quantised(row: EmbeddingRow) -> None:
    if not row.is_quantised or row.embeddings.shape[1] != EMBEDDING_SIZE:
        raise UsageError(
            f"{QUANTISED_ONLY}; these are {row.embeddings.shape[1]} values of {row.embeddings.dtype} a patch. "
            "Next step: --model vggish --quantize, or another format"
        )


def is_embedding_tfrecord(file: BinaryIO) -> bool:
    """Whether a file has examples as they are written here. Those of the released features have labels."""
    from audioset.dataset.features.examples import AUDIOSET, LABELS
    from audioset.dataset.features.sequence_example import CONTEXT, FEATURE_LISTS, find_features, int64_values
    from audioset.dataset.features.tfrecord import first_examples

    (example,) = first_examples(file, 1)
    labels = find_features(example, CONTEXT, {LABELS})[LABELS]
    return not list(int64_values(labels)) and AUDIOSET.embeddings in find_features(
        example, FEATURE_LISTS, {AUDIOSET.embeddings}
    )
