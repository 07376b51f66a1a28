"""A part of AudioSet: a published list of clips, and a folder of their audio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audioset.dataset.lists.clip_names import clip_names
from audioset.dataset.lists.segments import Segment, read_segments
from audioset.errors import DataError
from audioset.labels.labels import LabelSet
from audioset.sounds.entry import Entry
from audioset.text import shown


def read_segment_list(path: Path, audio: Path, files: Sequence[Path]) -> list[Entry]:
    """One clip for each row of a list in the published form; its labels are display names.

    ``files`` is the audio below ``audio``, each a clip: ten seconds, not the whole video. A file's name is the video's
    id, with or without the times, in any of the ways that ``audioset data download adopt`` knows. A clip without a file
    has the path ``<video id>.wav`` in ``audio``. ``DataError`` if the list is damaged, or a clip has two files.
    """
    labels = LabelSet.load("audioset-527")
    names = dict(zip(labels.ids, labels.names, strict=True))
    segments = {segment.video_id: segment for segment in read_segments(path)}
    found: dict[str, Path] = {}
    for file in files:
        segment = _segment_of(file, segments)
        if segment is None:
            continue
        if (other := found.setdefault(segment.video_id, file)) != file:
            raise DataError(
                f"the clip {segment.video_id} has two files, {shown(other)} and {shown(file)}; expected one. "
                "Next step: move one of them away"
            )
    entries = []
    for video_id, segment in segments.items():
        file = found.get(video_id, audio / f"{video_id}.wav")
        name = file.relative_to(audio).as_posix()
        entries.append(Entry(file, name, tuple(names[label_id] for label_id in segment.label_ids)))
    return entries


def _segment_of(file: Path, segments: dict[str, Segment]) -> Segment | None:
    """The row that a file's name means."""
    for name in clip_names(file.name):
        segment = segments.get(name.video_id)
        if segment and name.start_ms in (None, round(segment.start_s * 1000)):
            return segment
    return None
