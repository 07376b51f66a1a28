"""A clip as a ``tf.train.SequenceExample``, in the layout of the released features and in that of YouTube-8M.

Nearly every released record has one shape: four entries of the context in one of four orders, and embeddings at
equal distances. Such a record is recognised as a whole, every byte that is not a value compared, and its values cut
out. What is not recognised goes through a parser that takes any record TensorFlow takes.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np

from audioset.dataset.features.clips import MAX_ID_BYTES, N_CLASSES, FeatureClip
from audioset.dataset.features.problems import Malformed
from audioset.dataset.features.sequence_example import (
    CONTEXT,
    FEATURE_LISTS,
    bytes_feature,
    bytes_values,
    delimited,
    find_features,
    float_feature,
    float_values,
    int64_feature,
    int64_values,
    message,
    sequence_example,
    unpack_varints,
)
from audioset.models.postprocess import EMBEDDING_SIZE

Value = TypeVar("Value")

START, END, LABELS = "start_time_seconds", "end_time_seconds", "labels"


@dataclass(frozen=True)
class Layout:
    """How records name things."""

    # video_id, embeddings: names of the feature and the feature list
    video_id: str
    embeddings: str
    # Whether a record says its times; one that says neither has NaN. Elsewhere it begins at 0 and has one embedding a
    # second.
    has_times: bool
    n_classes: int  # labels are below it


AUDIOSET = Layout("video_id", "audio_embedding", True, N_CLASSES)
YOUTUBE8M = Layout("id", "audio", False, 3862)
YOUTUBE8M_OF_AUDIOSET = Layout("id", "audio", False, N_CLASSES)

MAX_USUAL_LABEL_BYTES = 20  # more make the context longer than the 127 bytes that one byte can count
MAX_USUAL_SECONDS = 10
CONTEXT_BYTES = 107  # without labels


def encode_clip(
    video_id: str,
    start_s: float,
    end_s: float,
    labels: Iterable[int],
    embeddings: Iterable[bytes],
    layout: Layout = AUDIOSET,
) -> bytes:
    """A clip as a serialised ``tf.train.SequenceExample``, always the same bytes for the same values.

    Times are stored as float32, and left out if they are NaN, which means that they are not known. The layout of
    YouTube-8M has them too, where its readers pass over them.
    """
    context = {
        layout.video_id: bytes_feature(video_id.encode()),
        **{name: float_feature(time_s) for name, time_s in ((START, start_s), (END, end_s)) if not math.isnan(time_s)},
        LABELS: int64_feature(labels),
    }
    return sequence_example(context, {layout.embeddings: map(bytes_feature, embeddings)})


def clip_to_example(clip: FeatureClip, layout: Layout = AUDIOSET) -> bytes:
    """The same for a ``FeatureClip``."""
    frames = (frame.tobytes() for frame in clip.embeddings)
    return encode_clip(clip.video_id, clip.start_s, clip.end_s, clip.labels, frames, layout)


def example_to_clip(example: bytes, subset: str | None) -> FeatureClip:
    """The clip in a serialised ``tf.train.SequenceExample``, of either layout."""
    return _usual_clip(example, subset) or parse_clip(example, subset)


def parse_clip(
    example: bytes, subset: str | None, layouts: tuple[Layout, ...] = (AUDIOSET, YOUTUBE8M_OF_AUDIOSET)
) -> FeatureClip:
    """The same for one of the layouts given, by the parser that takes any order of fields."""
    names = {START, END, LABELS, *(layout.video_id for layout in layouts)}
    context = find_features(example, CONTEXT, names)
    layout = next((each for each in layouts if each.video_id in context), None)
    if layout is None:
        raise Malformed(f"it has no {' and no '.join(each.video_id for each in layouts)}; expected the id of a video")
    lists = find_features(example, FEATURE_LISTS, {layout.embeddings})
    if layout.embeddings not in lists:
        raise Malformed(f"it has no {layout.embeddings}; expected a list of embeddings")
    video_id = _only(context[layout.video_id], layout.video_id)
    frames = [_frame(feature) for feature in delimited(lists[layout.embeddings], 1)]
    embeddings = np.frombuffer(b"".join(frames), np.uint8).reshape(-1, EMBEDDING_SIZE)
    labels = context.get(LABELS, memoryview(b""))
    is_untimed = layout.has_times and START not in context and END not in context
    return FeatureClip(
        _id(video_id, layout.video_id),
        _time(context, START, math.nan if is_untimed else None if layout.has_times else 0.0),
        _time(context, END, math.nan if is_untimed else None if layout.has_times else float(len(frames))),
        _classes(int64_values(labels), layout.n_classes),
        embeddings,
        subset,
    )


def _usual_clip(example: bytes, subset: str | None) -> FeatureClip | None:
    """The clip in a record of the one shape; None if it has another."""
    n_label_bytes = example[1] - CONTEXT_BYTES if len(example) > CONTEXT_BYTES else 0
    if not 0 < n_label_bytes <= MAX_USUAL_LABEL_BYTES:
        return None
    context = _usual_context(n_label_bytes).match(example)
    if context is None or None in (values := context.groups()):
        return None
    video_id, start, end, labels = values
    at = context.end()
    n_seconds = SECONDS_OF_BYTES.get(len(example) - at)
    if n_seconds is None or not example.startswith(LIST_HEADERS[n_seconds], at):
        return None
    n_bytes = n_seconds * FRAME_BYTES
    frames = np.frombuffer(example, np.uint8, n_bytes, len(example) - n_bytes).reshape(n_seconds, FRAME_BYTES)
    if frames[:, : len(FRAME_HEADER)].tobytes() != FRAME_HEADERS[n_seconds]:
        return None
    start_s, end_s = TIMES(start + end)
    if not math.isfinite(start_s + end_s):
        return None
    return FeatureClip(
        video_id.decode(), start_s, end_s, _usual_classes(labels), frames[:, len(FRAME_HEADER) :].copy(), subset
    )


@lru_cache(MAX_USUAL_LABEL_BYTES)
def _usual_context(n: int) -> re.Pattern[bytes]:
    """The context of a record whose labels take ``n`` bytes, before its feature lists.

    The bytes that count others are constants, so they are compared with the rest; with each of the four entries
    found, there is each once.
    """
    entries = (
        rb"\n\x1b\n\x08video_id\x12\x0f\n\r\n\x0b([!-~]{11})",
        rb"\n\x1e\n\x12start_time_seconds\x12\x08\x12\x06\n\x04(.{4})",
        rb"\n\x1c\n\x10end_time_seconds\x12\x08\x12\x06\n\x04(.{4})",
        rb"\n\x%02x\n\x06labels\x12\x%02x\x1a\x%02x\n\x%02x(.{%d})" % (n + 14, n + 4, n + 2, n, n),
    )
    return re.compile(rb"\n\x%02x(?:%b){4}" % (CONTEXT_BYTES + n, b"|".join(entries)), re.DOTALL)


@lru_cache(1 << 16)
def _usual_classes(packed: bytes) -> tuple[int, ...]:
    """The labels of a record; many clips have the same."""
    return _classes(unpack_varints(memoryview(packed)), N_CLASSES)


def _classes(indices: Iterator[int], n_classes: int) -> tuple[int, ...]:
    """Labels in ascending order, each once."""
    found = set()
    for index in indices:
        if not 0 <= index < n_classes:
            raise Malformed(f"a label is {index}; expected 0 to {n_classes - 1}")
        found.add(index)
    return tuple(sorted(found))


def _id(value: memoryview, name: str) -> str:
    try:
        video_id = bytes(value[: MAX_ID_BYTES + 1]).decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{name} is not UTF-8 ({error.reason})") from error
    if not 0 < len(value) <= MAX_ID_BYTES or "\0" in video_id:
        raise Malformed(
            f"{name} has {len(value)} bytes, {video_id[:20]!r}; expected 1 to {MAX_ID_BYTES}, none of them 0"
        )
    return video_id


def _time(context: dict[str, memoryview], name: str, default: float | None) -> float:
    if name not in context and default is not None:
        return default
    if name not in context:
        raise Malformed(f"it has no {name}; expected seconds")
    values = list(_at_most(2, float_values(context[name])))
    if len(values) != 1 or not math.isfinite(values[0]):
        raise Malformed(f"{name} is {values}; expected one number")
    return values[0]


def _frame(feature: memoryview) -> memoryview:
    frame = _only(feature, "an embedding")
    if len(frame) != EMBEDDING_SIZE:
        raise Malformed(f"an embedding has {len(frame)} bytes; expected {EMBEDDING_SIZE}")
    return frame


def _only(feature: memoryview, name: str) -> memoryview:
    values = list(_at_most(2, bytes_values(feature)))
    if len(values) != 1:
        raise Malformed(f"{name} is {'nothing' if not values else 'several byte strings'}; expected one byte string")
    return values[0]


def _at_most(n: int, values: Iterator[Value]) -> Iterator[Value]:
    return (value for _, value in zip(range(n), values, strict=False))


def _list_header(n_seconds: int) -> bytes:
    """What stands between the context and the first embedding's header."""
    frames = b"\0" * (n_seconds * FRAME_BYTES)
    contents = message(1, message(1, AUDIOSET.embeddings.encode()) + message(2, frames))
    return message(FEATURE_LISTS, contents)[: -len(frames)]


TIMES = struct.Struct("<ff").unpack
FRAME_HEADER = message(1, bytes_feature(bytes(EMBEDDING_SIZE)))[:-EMBEDDING_SIZE]
FRAME_BYTES = len(FRAME_HEADER) + EMBEDDING_SIZE
FRAME_HEADERS = {n_seconds: FRAME_HEADER * n_seconds for n_seconds in range(1, MAX_USUAL_SECONDS + 1)}
LIST_HEADERS = {n_seconds: _list_header(n_seconds) for n_seconds in range(1, MAX_USUAL_SECONDS + 1)}
SECONDS_OF_BYTES = {len(header) + n * FRAME_BYTES: n for n, header in LIST_HEADERS.items()}
