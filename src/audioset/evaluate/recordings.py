"""Scores of labelled recordings, patch by patch: computed now, or read from what ``audioset tag`` has written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audioset.calibration.clips import LabelTable, Patches
from audioset.errors import UsageError
from audioset.folders import find_recordings
from audioset.formats.rows import printable
from audioset.formats.scores import ScoreFile, read_scores
from audioset.labels.events import clip_to_audio
from audioset.runs.batch import Part, predict_parts

if TYPE_CHECKING:
    from audioset.models.model import Model
    from audioset.models.prediction import Prediction

N_SHOWN = 3  # of paths, in messages


def find_labelled(table: LabelTable, folder: str) -> dict[str, Path]:
    """The files of a table's recordings, by their names there.

    Raises
    ------
    UsageError
        Some are no files.
    """
    files: dict[str, Path] = find_recordings(table.sounds, Path(folder))
    missing = [str(path) for path in files.values() if not path.is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(files)} labelled recordings are no files: {_some(missing)}. "
            "Likely cause: --audio is not where the paths begin"
        )
    return files


def score_recordings(
    model: Model, table: LabelTable, files: Mapping[str, Path], on_part: Callable[[Part], None], **settings: Any
) -> Iterator[Patches]:
    """Scores of each recording's patches. One that cannot be used is left out.

    Parameters
    ----------
    model : Model
    table : LabelTable
        Whose labels are scored.
    files : mapping of str to Path
        From ``find_labelled``.
    on_part : callable
        Is told of each part, and of what is wrong with a file.
    **settings
        Of ``predict_parts``.
    """
    columns = [model.labels.ids.index(label_id) for label_id in table.labels.ids]
    names, heard = iter(files), []
    for part in predict_parts(files.values(), model, **settings):
        if part.prediction is not None:
            heard.append(_heard(part.prediction, columns))
        on_part(part)
        if part.is_last:
            name = next(names)
            if part.error is None:
                scores, start_s, end_s = (np.concatenate(column) for column in zip(*heard, strict=True))
                yield Patches(name, start_s, end_s, scores)
            heard = []


def _heard(prediction: Prediction, columns: list[int]) -> tuple[Any, Any, Any]:
    """Scores of some labels, of patches that are not all padding."""
    scores = prediction.require_scores()[:, columns]
    return clip_to_audio(scores, prediction.start_s, prediction.end_s, prediction.duration_s)


def read_labelled(path: Path, table: LabelTable, folder: str) -> ScoreFile:
    """Scores of an earlier run, by the names of the recordings in the table.

    Raises
    ------
    UsageError
        Some recordings are not in the file.
    """
    names = {os.path.normpath(os.path.join(folder, name)): name for name in table.sounds}  # noqa: PTH118
    file = read_scores(path, table.labels, names)
    known = {patches.path for patches in file.recordings} | set(file.errors)
    missing = [path for path in names if path not in known]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(names)} labelled recordings are not in {path}: {_some(missing)}. "
            "Likely cause: --audio is not where the paths begin, as audioset tag was given them"
        )
    return replace(file, recordings=[replace(patches, path=names[patches.path]) for patches in file.recordings])


def score_notes(file: ScoreFile, path: Path, model: str) -> Iterator[str]:
    """What is to be said of scores that were read, for thresholds of a model."""
    for recording, code in file.errors.items():
        yield f"error: {recording}: it has no scores in {path} [{code}]"
    if file.models - {model}:
        yield f"warning: {path} is of {', '.join(sorted(file.models))}; the thresholds are for {model}"
    if len(file.recordings) > 1 and all(len(patches.scores) == 1 for patches in file.recordings):
        yield (
            f"warning: {path} has one row for each recording: means over its patches. Events are found in "
            "patches. Next step: audioset tag --per-patch --top 1000"
        )


def _some(paths: list[str]) -> str:
    more = ", …" if len(paths) > N_SHOWN else ""
    return ", ".join(map(printable, paths[:N_SHOWN])) + more
