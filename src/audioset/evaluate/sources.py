"""Where labels and scores come from: published lists, tables, features, files of scores, and models that run now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.calibration.clips import read_label_table
from audioset.dataset.download.clips import Key
from audioset.dataset.download.download import PARTIAL_FOLDER
from audioset.dataset.download.ledger import LEDGER_NAME
from audioset.dataset.features.reading import ClipArrays
from audioset.dataset.lists.clip_names import OWN_NAME
from audioset.dataset.lists.published import segments_path
from audioset.dataset.lists.segments import SegmentList, begins_as_list, read_segments
from audioset.errors import DataError, NoInputError, UsageError
from audioset.evaluate.clips import NOT_THERE, Scores, Targets
from audioset.files import is_folder
from audioset.folders import find_recordings
from audioset.labels.labels import LabelSet
from audioset.models.folders import digest_weights
from audioset.weights.model_folder import ModelCard

if TYPE_CHECKING:
    from audioset.runs.batch import Part

PUBLISHED_LABELS = "audioset-527"
CLIPS_AT_ONCE = 4096
NO_FILE, NO_EMBEDDINGS = "no_file", "no_embeddings"


class EmbeddingTagger(Protocol):
    """A model that tags released features."""

    @property
    def labels(self) -> LabelSet:
        """What the columns of scores mean."""
        ...

    def predict_embeddings(self, embeddings: Array, lengths: Array | None = None) -> FloatArray:
        """Scores of clips."""
        ...


def read_targets(path: str | os.PathLike[str], labels: LabelSet) -> Targets:
    """Read labels of clips: a published list, or a table of recordings.

    Parameters
    ----------
    path : path
        A list such as ``eval_segments.csv``; the name of a published one, such as ``eval``; or a table as
        ``calibration.clips.read_label_table`` reads it. The targets of a table are of the labels that occur in it:
        whoever wrote it did not listen for others.
    labels : LabelSet
        Of the model. A table may also name those of AudioSet that the model does not have.

    Returns
    -------
    Targets

    Raises
    ------
    DataError, UsageError
        As ``read_segments`` and ``read_label_table``.
    AssetError
        If a published list is not on this machine and cannot be fetched.
    """
    path = segments_path(path)
    try:
        is_list = begins_as_list(path)
    except OSError as error:
        raise UsageError(
            f"labels {path} cannot be read: {error.strerror or error}. Next step: check its name"
        ) from error
    if is_list:
        return segment_targets(read_segments(path), path.name)
    table = read_label_table(path, _joined(labels, LabelSet.load(PUBLISHED_LABELS)))
    places = {label_id: index for index, label_id in enumerate(table.labels.ids)}
    values = np.zeros((len(table.sounds), len(table.labels)), bool)
    for row, sounds in zip(values, table.sounds.values(), strict=True):
        row[[places[sound.label_id] for sound in sounds]] = True
    return Targets(tuple(table.sounds), table.labels, values, path.name)


def segment_targets(segments: SegmentList, source: str) -> Targets:
    """Labels of a published list, among all 527."""
    labels = LabelSet.load(PUBLISHED_LABELS)
    places = {label_id: index for index, label_id in enumerate(labels.ids)}
    of_sets = np.zeros((len(segments.label_sets), len(labels)), bool)
    for row, label_ids in zip(of_sets, segments.label_sets, strict=True):
        row[[places[label_id] for label_id in label_ids]] = True
    times = zip(segments.video_ids.tolist(), segments.start_ms.tolist(), segments.end_ms.tolist(), strict=True)
    names = tuple(Key(video_id.decode(), start, end).name for video_id, start, end in times)
    return Targets(names, labels, of_sets[segments.set_index], source)


def feature_targets(clips: ClipArrays, source: str) -> Targets:
    """Labels that released features bring with them.

    Their names have the features' own ends, which for 41 of the 20,371 evaluation clips are a second before those of
    the list: the digest of their names is another than that of the list.
    """
    return Targets(feature_names(clips), LabelSet.load(PUBLISHED_LABELS), clips.targets(), source)


def feature_names(clips: ClipArrays) -> tuple[str, ...]:
    """Names of clips, as of their files: ``<video id>_<start>_<end>`` in milliseconds."""
    times = (_milliseconds(seconds) for seconds in (clips.start_s, clips.end_s))
    rows = zip(clips.video_ids.tolist(), *times, strict=True)
    return tuple(Key(video_id.decode("utf-8", "replace"), start, end).name for video_id, start, end in rows)


def score_features(
    model: EmbeddingTagger, clips: ClipArrays, name: str, provenance: dict[str, Any] | None = None
) -> Scores:
    """Let a model tag released features.

    Parameters
    ----------
    model : EmbeddingTagger
    clips : ClipArrays
    name : str
        Of the model, for reports.
    provenance : dict, optional
        Of the model; see ``describe_model``.

    Returns
    -------
    Scores
        Clips without a single embedding are among the ``failures``.
    """
    names, lengths = feature_names(clips), np.asarray(clips.lengths)
    is_empty = lengths == 0
    if is_empty.any():
        failures = {name: NO_EMBEDDINGS for name, is_one in zip(names, is_empty.tolist(), strict=True) if is_one}
        return replace(score_features(model, clips.take(~is_empty), name, provenance), failures=failures)
    blocks = (clips[first : first + CLIPS_AT_ONCE] for first in range(0, len(clips), CLIPS_AT_ONCE))
    values = [model.predict_embeddings(block.embeddings, block.lengths) for block in blocks]
    none = np.zeros((0, len(model.labels)), np.float32)
    return Scores(name, names, model.labels, np.concatenate([none, *values]), model=provenance)


def score_audio(
    labels: LabelSet,
    parts: Iterable[Part],
    clip_ids: Sequence[str],
    name: str,
    *,
    missing: Mapping[str, str] | None = None,
    provenance: dict[str, Any] | None = None,
    on_part: Callable[[Part], None] | None = None,
) -> Scores:
    """Scores of recordings: the mean over their patches, or over the windows of a model that hears several at once.

    Parameters
    ----------
    labels : LabelSet
        Of the model.
    parts : iterable of Part
        What ``batch.predict_parts`` makes of the recordings.
    clip_ids : sequence of str
        Of each recording, in the order of ``parts``.
    name : str
    missing : mapping of str to str, optional
        Clips without a recording, and why.
    provenance : dict, optional
    on_part : function, optional
        Is told of each part.

    Returns
    -------
    Scores
        A recording that cannot be used is among its ``failures``, under its error's code.
    """
    failures = dict(missing or {})
    found: dict[str, FloatArray] = {}
    rest = iter(clip_ids)
    total, n_patches = np.zeros(len(labels)), 0
    for part in parts:
        if on_part:
            on_part(part)
        if part.prediction is not None:
            scores = part.prediction.require_scores()
            total, n_patches = total + scores.sum(axis=0, dtype=np.float64), n_patches + len(scores)
        if part.is_last:
            clip_id = next(rest)
            if part.error is not None:
                failures[clip_id] = part.error.code
            else:
                found[clip_id] = (total / n_patches).astype(np.float32)
            total, n_patches = np.zeros(len(labels)), 0
    values = np.array(list(found.values()), np.float32).reshape(len(found), len(labels))
    return Scores(name, tuple(found), labels, values, failures, provenance)


def find_audio(folder: str | os.PathLike[str], targets: Targets) -> tuple[dict[str, Path], dict[str, str]]:
    """The recordings of clips.

    Parameters
    ----------
    folder : path
        As ``audioset data download`` fills it, or any other with files named by clip, in folders below too. For a
        table of recordings: where its paths begin.
    targets : Targets

    Returns
    -------
    files : dict of str to Path
        By name of clip, in the order of the targets.
    missing : dict of str to str
        The others.

    Raises
    ------
    NoInputError
        There is none.
    DataError
        A clip has two files.
    """
    folder = Path(folder)
    if not is_folder(folder):
        raise NoInputError(f"{folder} is no folder. Next step: name the one with the recordings")
    is_table = not all(map(OWN_NAME.fullmatch, targets.names))
    by_path = (
        {name: path for name, path in find_recordings(targets.names, folder).items() if path.is_file()}
        if is_table
        else {}
    )
    files = by_path or _files_by_clip(folder, targets)
    if not files:
        raise NoInputError(
            f"{folder} has none of the {len(targets.names):,} clips of {targets.source}; expected files named by clip, "
            f"such as {targets.names[0]}.flac, or by the paths of the table"
        )
    in_order = {name: files[name] for name in targets.names if name in files}
    return in_order, {name: NO_FILE for name in targets.names if name not in files}


def describe_model(name: str, card: ModelCard, folder: Path, **settings: Any) -> dict[str, Any]:
    """Where a model comes from and how it ran, for records; the weights' digest tells trainings apart."""
    return {"name": name, **settings, "weights_digest": digest_weights(card, folder), "card": asdict(card)}


def count_training_clips(paths: Iterable[str | os.PathLike[str]]) -> dict[str, int]:
    """How many clips of published lists have each label, by its id."""
    counts = dict.fromkeys(LabelSet.load(PUBLISHED_LABELS).ids, 0)
    for path in map(segments_path, paths):
        segments = read_segments(path)
        for labels, count in zip(segments.label_sets, segments.set_counts.tolist(), strict=True):
            for label_id in labels:
                counts[label_id] += count
    return counts


def _files_by_clip(folder: Path, targets: Targets) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _audio_files(folder):
        row = targets.find(path.name)
        if row == NOT_THERE:
            continue
        name = targets.names[row]
        if name in files:
            raise DataError(
                f"the clip {name} has two files, {files[name]} and {path}; expected one. Next step: remove one, or "
                "name a folder with only one of them"
            )
        files[name] = path
    return files


def _audio_files(folder: Path) -> Iterator[Path]:
    """Files below a folder, in order; of a dataset with a ledger, the audio and not the videos."""
    start = folder / "audio" if (folder / LEDGER_NAME).is_file() and (folder / "audio").is_dir() else folder
    for parent, folders, names in os.walk(start):
        folders[:] = sorted(name for name in folders if name != PARTIAL_FOLDER and not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _joined(first: LabelSet, second: LabelSet) -> LabelSet:
    """The labels of two sets, those of both once."""
    names = {**dict(zip(second.ids, second.names, strict=True)), **dict(zip(first.ids, first.names, strict=True))}
    return LabelSet(tuple(names), tuple(names.values()))


def _milliseconds(seconds: Array) -> list[int]:
    """Times in float32 as the decimals that they stand for: 20,000.8 s is not 20,000,801 ms."""
    return [round(float(str(value)) * 1000) for value in seconds.astype(np.float32)]
