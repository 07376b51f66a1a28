"""The layout of YouTube-8M, both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feature_clips import CLIPS, key
from tfrecords import parsed, records

from audioset.dataset.features import youtube8m
from audioset.dataset.features.framing import frame_record
from audioset.dataset.features.reading import convert, read
from audioset.dataset.features.sequence_example import bytes_feature, int64_feature, sequence_example
from audioset.errors import DataError, NoInputError


def record(labels: tuple[int, ...] = (0, 3861), **lists: list[bytes]) -> bytes:
    """As YouTube-8M's own files have it: no times, and pictures beside the audio."""
    lists = lists or {"rgb": [bytes(1024)] * 3, "audio": [bytes([i]) * 128 for i in range(3)]}
    context = {"id": bytes_feature(b"eXbF"), "labels": int64_feature(labels)}
    return frame_record(sequence_example(context, {name: map(bytes_feature, frames) for name, frames in lists.items()}))


def test_its_readers_find_the_names_they_ask_for(tmp_path: Path) -> None:
    youtube8m.write(tmp_path / "a.tfrecord", CLIPS)
    for payload, clip in zip(records((tmp_path / "a.tfrecord").read_bytes()), CLIPS, strict=True):
        example = parsed(payload)
        assert example["context"]["id"] == ("bytes", [clip.video_id.encode()])
        assert example["context"]["labels"] == ("int64", list(clip.labels))
        assert "video_id" not in example["context"]
        frames = [value for _, (value,) in example["lists"]["audio"]]
        assert frames == [frame.tobytes() for frame in clip.embeddings]


def test_there_and_back_nothing_is_lost(tmp_path: Path) -> None:
    youtube8m.write(tmp_path / "y.tar.gz", CLIPS)
    convert(tmp_path / "y.tar.gz", tmp_path / "a.tar.gz", "tfrecord")
    found = {clip.video_id: key(clip) for clip in read(tmp_path / "a.tar.gz")}
    assert found == {clip.video_id: key(clip) for clip in CLIPS}


def test_its_own_records_have_more_classes_and_no_times(tmp_path: Path) -> None:
    path = tmp_path / "train00.tfrecord"
    path.write_bytes(record())
    (clip,) = youtube8m.read(path)
    assert (clip.video_id, clip.start_s, clip.end_s, clip.labels) == ("eXbF", 0.0, 3.0, (0, 3861))
    np.testing.assert_array_equal(clip.embeddings, np.repeat(np.arange(3, dtype=np.uint8)[:, None], 128, axis=1))
    with pytest.raises(DataError, match="record 0 at byte 0: a label is 3861; expected 0 to 526"):
        list(read(path))


def test_what_is_wrong_is_said_or_skipped(tmp_path: Path) -> None:
    path = tmp_path / "train00.tfrecord"
    path.write_bytes(record((3862,)) + record() + record(rgb=[bytes(1024)]) + b"cut")
    with pytest.raises(DataError, match="record 0 at byte 0: a label is 3862; expected 0 to 3861"):
        list(youtube8m.read(path))
    assert len(list(youtube8m.read(path, on_error="skip"))) == 1
    path.write_bytes(record(rgb=[bytes(1024)]))
    with pytest.raises(DataError, match="it has no audio; expected a list of embeddings"):
        list(youtube8m.read(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match=r"there is no file .*expected a \.tfrecord file of YouTube-8M"):
        list(youtube8m.read(tmp_path / "none"))
