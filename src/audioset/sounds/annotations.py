"""Labels beside the audio, as editors write them: Audacity's label tracks and Raven's selection tables."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from audioset.errors import DataError
from audioset.sounds.entry import Entry
from audioset.sounds.folder import AUDIO_SUFFIXES, find_files
from audioset.sounds.text import lines_of, read_text, shown, split_labels

SUFFIXES = frozenset((".txt",))
# What stands between the recording's name and the end of the label file's: x.Table.1.selections.txt
NAME = re.compile(r"(?P<recording>.+?)(?P<raven>(\.Table\.\d+)?\.selections)?\.txt", re.IGNORECASE | re.DOTALL)
NUMBER = r"[-+]?\d+(?:[.,]\d*)?(?:[eE][-+]?\d+)?"
AUDACITY_LINE = re.compile(rf"(?P<start>{NUMBER})\t(?P<end>{NUMBER})(?:\t(?P<label>.*))?")
FREQUENCIES = "\\"  # begins the second line of an Audacity label with a range of frequencies
SCORE = re.compile(r"\s\((?:0\.\d\d|1\.00)\)$")  # that ``audioset events`` puts after a label
START, END, OFFSET = "begin time (s)", "end time (s)", "file offset (s)"
RECORDING_COLUMNS = ("begin path", "begin file")
# Raven names no column for the label; these are usual, the first that is there.
RAVEN_LABELS = ("label", "labels", "annotation", "species", "common name", "species code", "tag", "tags", "call type")

Stretch = tuple[float, float, str]  # start and end in seconds, label


@dataclass(frozen=True)
class LabelFile:
    """A file of labels.

    Attributes
    ----------
    path : Path
    form : {"audacity", "raven", "empty"}
    recording : Path
        The audio it belongs to, which may be missing.
    """

    path: Path
    form: str
    recording: Path


def find_label_files(folder: Path, audio_folder: Path, recordings: Sequence[Path]) -> list[LabelFile]:
    """Label files below a folder, and the recording of each, which has the same place below ``audio_folder``.

    Parameters
    ----------
    folder, audio_folder : Path
    recordings : sequence of Path
        The audio files below ``audio_folder``.

    Returns
    -------
    list of LabelFile
        Text files of another form are left out.

    Raises
    ------
    DataError
        If a name means two recordings, or a recording has labels of two forms.
    """
    by_name: dict[Path, list[Path]] = defaultdict(list)
    for recording in recordings:
        by_name[recording].append(recording)
        by_name[recording.with_suffix("")].append(recording)
    found = []
    for path in find_files(folder, SUFFIXES):
        match = NAME.fullmatch(path.name)
        form = _form(path, is_raven=bool(match and match["raven"]))
        if match and form:
            place = (audio_folder / path.relative_to(folder)).with_name(match["recording"])
            found.append(LabelFile(path, form, _recording(path, place, by_name[place])))
    _check_forms(found)
    return found


def read_annotations(label_files: Sequence[LabelFile], audio_folder: Path) -> list[Entry]:
    """One clip for each labelled stretch; one that is labelled several times has several labels.

    Raises
    ------
    DataError
        If a line is none of its form; the message has its number.
    """
    joined: dict[tuple[Path, float, float], Entry] = {}
    for label_file in label_files:
        for start_s, end_s, label in READERS[label_file.form](label_file):
            key = label_file.recording, start_s, end_s
            labels = split_labels(label, shown(label_file.path))
            name = label_file.recording.relative_to(audio_folder).as_posix()
            entry = joined.setdefault(key, Entry(label_file.recording, name, (), start_s, end_s))
            joined[key] = replace(entry, labels=tuple(dict.fromkeys(entry.labels + labels)))
    return list(joined.values())


def _form(path: Path, *, is_raven: bool) -> str | None:
    """Whose labels a text file has, by its first line; None for any other text."""
    try:
        text = read_text(path)
    except DataError:
        if is_raven:
            raise
        return None
    first = next((line for line in lines_of(text) if line.strip()), None)
    if first is None:
        return "empty"
    if START in _cells(first.casefold()):
        return "raven"
    if is_raven:
        raise DataError(
            f"{shown(path)} begins with {shown(first)!r}; expected the heading of a Raven selection table, with "
            "Begin Time (s). Next step: save it from Raven again"
        )
    return "audacity" if AUDACITY_LINE.fullmatch(first.strip(" ")) else None


def _recording(path: Path, place: Path, recordings: Sequence[Path]) -> Path:
    if len(recordings) > 1:
        names = " and ".join(shown(recording.name) for recording in recordings)
        raise DataError(f"{shown(path)} may belong to {names}. Next step: name it {shown(recordings[0].name)}.txt")
    if recordings:
        return recordings[0]
    return place if place.suffix.lower() in AUDIO_SUFFIXES else place.with_name(f"{place.name}.wav")


def _check_forms(found: Sequence[LabelFile]) -> None:
    """Refuse a recording with two label files, other than several tables of Raven's."""
    first: dict[Path, LabelFile] = {}
    for label_file in found:
        other = first.setdefault(label_file.recording, label_file)
        if other is not label_file and not other.form == label_file.form == "raven":
            raise DataError(
                f"{shown(label_file.recording)} has two label files, {shown(other.path.name)} and "
                f"{shown(label_file.path.name)}; expected one. Next step: move one of them away"
            )


def _read_audacity(label_file: LabelFile) -> Iterator[Stretch]:
    for number, line in enumerate(lines_of(read_text(label_file.path)), 1):
        if not line.strip() or line.startswith(FREQUENCIES):
            continue
        match = AUDACITY_LINE.fullmatch(line.strip(" "))
        if not match:
            raise DataError(
                f"{shown(label_file.path)}, line {number}: {shown(line)!r}; expected start, end and label with tabs "
                "between them, as Audacity exports them"
            )
        times = _times(match["start"], match["end"], label_file, number)
        yield *times, SCORE.sub("", match["label"] or "")


def _read_raven(label_file: LabelFile) -> Iterator[Stretch]:
    lines = [line for line in enumerate(lines_of(read_text(label_file.path)), 1) if line[1].strip()]
    (number, heading), *rows = lines
    names = [name.casefold() for name in _cells(heading)]
    column = next((name for name in RAVEN_LABELS if name in names), None)
    if column is None or END not in names:
        raise DataError(
            f"{shown(label_file.path)}, line {number}: the columns are {shown(', '.join(names))}; expected "
            f"End Time (s) and one of {', '.join(RAVEN_LABELS)}. Next step: add the column in Raven, or rename yours"
        )
    for number, line in rows:
        cells = dict(zip(names, _cells(line), strict=False))
        if _is_of(cells, label_file.recording):
            yield *_raven_times(cells, label_file, number), cells.get(column, "")


def _is_of(cells: dict[str, str], recording: Path) -> bool:
    """Whether a selection is of the recording, and of none that was opened together with it."""
    named = next((cells[column] for column in RECORDING_COLUMNS if cells.get(column)), None)
    return named is None or PureWindowsPath(named).name == recording.name  # takes both kinds of slashes


def _raven_times(cells: dict[str, str], label_file: LabelFile, number: int) -> tuple[float, float]:
    """Seconds in the recording: Begin Time counts from the start of the first one that was open."""
    start_s, end_s = _times(cells.get(START, ""), cells.get(END, ""), label_file, number)
    if not cells.get(OFFSET):
        return start_s, end_s
    offset_s, _ = _times(cells[OFFSET], cells[OFFSET], label_file, number)
    return offset_s, offset_s + (end_s - start_s)


def _times(start: str, end: str, label_file: LabelFile, number: int) -> tuple[float, float]:
    try:
        start_s, end_s = float(start.replace(",", ".")), float(end.replace(",", "."))
    except ValueError:
        start_s = end_s = math.nan
    if not 0 <= start_s <= end_s < math.inf:
        raise DataError(
            f"{shown(label_file.path)}, line {number} has the times {shown(start)!r} and {shown(end)!r}; expected "
            "seconds, the end not before the start"
        )
    return start_s, end_s


def _read_empty(label_file: LabelFile) -> Iterator[Stretch]:
    """Nothing: somebody listened, and heard none of the classes."""
    return iter(())


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter="\t", quoting=csv.QUOTE_NONE), [])]


READERS: dict[str, Callable[[LabelFile], Iterator[Stretch]]] = {
    "audacity": _read_audacity,
    "raven": _read_raven,
    "empty": _read_empty,
}
