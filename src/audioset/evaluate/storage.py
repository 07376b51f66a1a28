"""Files of scores, and the folder that an evaluation leaves."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import Array
from audioset.errors import DataError, NoInputError
from audioset.evaluate.clips import ScoredClips, Scores, Targets
from audioset.evaluate.evaluation import CARD_NAME
from audioset.files import check_regular, is_file, is_folder, output_file, read_input
from audioset.labels.labels import NAMES as LABEL_SETS
from audioset.labels.labels import LabelSet
from audioset.records import DAMAGE, check_unfolded

SCORES_NAME, COMPARISON_NAME = "scores.npz", "comparison.json"
MAX_SMALL_BYTES = 1 << 26  # of arrays that may be folded as far as deflate can
MOST_FOLDED = 50  # more than targets and scores of AudioSet together can be
ARRAYS = ("ids", "label_ids", "targets", "scores")
FORM = "expected an .npz file with scores (n_clips, n_classes) and ids (n_clips,)"
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # equal scores make equal files


@dataclass(frozen=True)
class ScoreFile:
    """What a file of scores holds: the scores, and the labels of its clips if an evaluation wrote it."""

    scores: Scores
    targets: Targets | None


def read_scores(path: str | os.PathLike[str]) -> ScoreFile:
    """Read scores that were made elsewhere, or by an earlier evaluation.

    Parameters
    ----------
    path : path
        An ``.npz`` file with ``scores`` (n_clips, n_classes) and ``ids`` (n_clips,), texts. ``label_ids``
        (n_classes,) says what the columns are; without it, 527 of them are AudioSet's and 521 YAMNet's. Or the
        folder of an evaluation.

    Returns
    -------
    ScoreFile

    Raises
    ------
    NoInputError
        There is no such file.
    DataError
        It holds something else: other shapes, NaN, objects, or columns of which nobody says what they are.
    """
    path = Path(path)
    file = path / SCORES_NAME if is_folder(path) else path
    if not is_file(file):
        raise NoInputError(f"there is no {file}; {FORM}, or the folder of an evaluation")
    arrays = _load(file)
    for key in ("scores", "ids"):
        if key not in arrays:
            raise DataError(f"{file} has {', '.join(sorted(arrays)) or 'no arrays'}; {FORM}")
    ids = _texts(arrays["ids"], file, "ids")
    labels = _labels(arrays, file)
    scores = Scores(str(path), ids, labels, arrays["scores"])
    targets = arrays.get("targets")
    if targets is None:
        return ScoreFile(scores, None)
    if targets.dtype.kind != "b" or targets.shape != scores.values.shape:
        raise DataError(
            f"{file} has targets of shape {targets.shape} and dtype {targets.dtype}; expected booleans, one for each "
            "score"
        )
    return ScoreFile(scores, Targets(ids, labels, targets, str(path)))


def write_folder(folder: Path, record: Mapping[str, Any], clips: ScoredClips | None, texts: Mapping[str, str]) -> None:
    """Write what an evaluation found, each file whole or not at all. The record comes last.

    Parameters
    ----------
    folder : Path
        Made if need be; files of the same names are replaced.
    record : mapping
        For the file ``evaluation.json`` or, without clips, ``comparison.json``.
    clips : ScoredClips or None
        For ``scores.npz``.
    texts : mapping of str to str
        Other files by name.

    Raises
    ------
    OutputError
        The disk is full, or the place does not allow it.
    """
    name = COMPARISON_NAME if clips is None else CARD_NAME
    texts = {**texts, name: json.dumps(record, indent=1, allow_nan=False) + "\n"}
    # All are whole before one has its name, and the last to be opened has it first: the record, by which the same
    # command knows the others as its own, wherever it was stopped.
    with ExitStack() as stack:
        if clips is not None:
            _save(stack.enter_context(output_file(folder / SCORES_NAME)), clips)
        for name, text in texts.items():
            stack.enter_context(output_file(folder / name)).write_text(text, encoding="utf-8", newline="\n")


def is_record(path: Path, kind: str) -> bool:
    """Whether a file is a record as ``write_folder`` writes them, of a kind."""
    try:
        record = json.loads(read_input(path))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("kind") == kind


def _save(path: Path, clips: ScoredClips) -> None:
    """Scores as they are, which do not compress; targets compressed, which do."""
    members = {
        "ids": (np.array(clips.names), zipfile.ZIP_DEFLATED),
        "label_ids": (np.array(clips.labels.ids), zipfile.ZIP_DEFLATED),
        "targets": (clips.targets, zipfile.ZIP_DEFLATED),
        "scores": (clips.scores, zipfile.ZIP_STORED),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, (array, compression) in members.items():
            entry = zipfile.ZipInfo(f"{name}.npy", ZIP_TIME)
            entry.compress_type = compression
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _load(file: Path) -> dict[str, Array]:
    try:
        check_regular(file)
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            check_unfolded(archive.zip, MAX_SMALL_BYTES + MOST_FOLDED * file.stat().st_size)
            return {name: archive[name] if name in ARRAYS else np.empty(0) for name in archive.files}
    except (RuntimeError, *DAMAGE) as error:  # zipfile's, for what is encrypted
        hint = "Next step: save ids as texts, not as objects" if "allow_pickle" in str(error) else FORM
        raise DataError(f"{file} cannot be read ({error}); {hint}") from error


def _texts(array: Array, file: Path, name: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(f"{file}: {name} has shape {array.shape} and dtype {array.dtype}; expected a row of texts")
    values = array.tolist()
    return tuple(value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values)


def _labels(arrays: Mapping[str, Array], file: Path) -> LabelSet:
    """What the columns of the scores mean; names are known for all labels of AudioSet."""
    if "label_ids" in arrays:
        ids = _texts(arrays["label_ids"], file, "label_ids")
        sets = map(LabelSet.load, reversed(LABEL_SETS))  # the names of the 527 win
        known = {label_id: name for labels in sets for label_id, name in zip(labels.ids, labels.names, strict=True)}
        if len(set(ids)) < len(ids):
            raise DataError(f"{file}: a label is there twice in label_ids; expected each once")
        return LabelSet(ids, tuple(known.get(label_id, label_id) for label_id in ids))
    n_classes = arrays["scores"].shape[-1] if arrays["scores"].ndim == 2 else 0
    name = {527: "audioset-527", 521: "yamnet-521"}.get(n_classes)
    if name is None:
        raise DataError(
            f"{file} has scores of shape {arrays['scores'].shape}, and no label_ids to say what the columns are; "
            "expected 527 columns (AudioSet), 521 (YAMNet), or label_ids such as /m/09x0r"
        )
    return LabelSet.load(name)
