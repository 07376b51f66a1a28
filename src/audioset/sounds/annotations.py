"""Labels beside the audio, as editors and BirdNET write them: label tracks, selection tables, and other tables."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from audioset.errors import DataError
from audioset.folders import find_recordings, is_audio_name, some
from audioset.labels.tables import Heading, Table, TableRow, find_heading, read_table
from audioset.sounds.entry import Entry, join_labels, name_below
from audioset.text import lines_of, read_text, shown, split_labels

READ = frozenset((".txt", ".csv", ".tsv", ".tab"))
# Labels of other programs, which are named where they lie beside a recording.
NOT_READ = frozenset(
    (
        *(".textgrid", ".lab", ".phn", ".wrd", ".srt", ".vtt", ".eaf", ".jams", ".svl", ".rttm", ".ctm"),
        *(".xlsx", ".xls", ".ods"),
    )
)
SUFFIXES = READ | NOT_READ
# What stands between the recording's name and the end of the label file's: x.Table.1.selections.txt
NAME = re.compile(
    r"(?P<recording>.+?)(?P<program>(\.Table\.\d+)?\.selections|(\.BirdNET)?\.selection\.table"
    rf"|\.BirdNET\.results(\.r|\.kaleidoscope)?)?({'|'.join(map(re.escape, sorted(SUFFIXES)))})",
    re.IGNORECASE | re.DOTALL,
)
JOINED = re.compile(r"BirdNET_.*", re.IGNORECASE)  # BirdNET's tables of all recordings of a folder
NUMBER = r"[-+]?\d+(?:[.,]\d*)?(?:[eE][-+]?\d+)?"
POINT_NUMBER = NUMBER.replace(",", "")
# Audacity has tabs between the cells; people type blanks, and spreadsheets put semicolons or commas.
LABEL_LINES = (
    re.compile(rf"(?P<start>{NUMBER})(?:\s+|;)(?P<end>{NUMBER})(?:(?:\s+|;)(?P<label>.*))?"),
    re.compile(rf"(?P<start>{POINT_NUMBER}), ?(?P<end>{POINT_NUMBER})(?:, ?(?P<label>.*))?"),
)
FREQUENCIES = "\\"  # begins the second line of an Audacity label with a range of frequencies
SCORE = re.compile(r"\s\((?:0\.\d\d|1\.00)\)$")  # that ``audioset events`` puts after a label
CONFIDENCE = re.compile(r"\t(?:0?\.\d+|[01](?:\.0*)?)?\s*$")  # that BirdNET puts into a fourth column
FORMS = "start, end and label with tabs between them, as Audacity exports them, or a heading with such columns"

# Recording, start and end in seconds, labels.
Stretch = tuple[Path, float, float, tuple[str, ...]]


@dataclass(frozen=True)
class LabelFile:
    """A file of labels: a ``track``, which has no heading, a ``table``, ``empty``, or ``other``.

    What is ``other`` lies beside a recording and was not understood.
    """

    path: Path
    form: str
    recording: Path | None  # which may be missing; None for a table that names the recordings in its rows


def find_label_files(
    folder: Path, paths: Sequence[Path], audio_folder: Path, recordings: Sequence[Path]
) -> list[LabelFile]:
    """Label files among ``paths``, and the recording of each, which has the same place below ``audio_folder``.

    The paths end as label files do; text that belongs to no recording and is of another form is left out. ``DataError``
    if a name means two recordings, or a recording has labels of two forms.
    """
    by_name: dict[Path, list[Path]] = defaultdict(list)
    for recording in recordings:
        by_name[recording].append(recording)
        by_name[recording.with_suffix("")].append(recording)
    found = []
    for path in paths:
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        place = (audio_folder / path.relative_to(folder)).with_name(match["recording"])
        label_file = _label_file(path, place, by_name[place], is_of_program=match["program"] is not None)
        if label_file:
            found.append(label_file)
    _check_forms(found)
    return found


def names_recordings(path: Path) -> bool:
    """Whether a file is a table with a column of recordings and one of labels."""
    try:
        heading = find_heading(read_text(path), path.suffix)
    except DataError:
        return False
    return heading.is_there and "path" in heading.places and not heading.places.keys().isdisjoint(("label", "label_id"))


def read_annotations(label_files: Sequence[LabelFile], audio_folder: Path) -> tuple[list[Entry], list[str]]:
    """One clip for each labelled stretch, with all its labels; and notes on what was passed over.

    ``DataError`` if a line is none of its form; the message has its number.
    """
    notes: list[str] = []
    entries = join_labels(
        Entry(recording, name_below(recording, audio_folder), labels, start_s, end_s)
        for label_file in label_files
        for recording, start_s, end_s, labels in _stretches(label_file, audio_folder, notes)
    )
    return entries, notes


def _label_file(path: Path, place: Path, recordings: Sequence[Path], *, is_of_program: bool) -> LabelFile | None:
    """What a file is to the recording that its name means."""
    if path.suffix.lower() in NOT_READ:
        return LabelFile(path, "other", recordings[0]) if recordings else None
    is_text = path.suffix.lower() == ".txt"
    if not (is_text or is_of_program or recordings or JOINED.match(path.name)):
        return None
    form, heading = _form(path, is_of_program=is_of_program)
    if recordings:
        return LabelFile(path, form, _only(path, recordings))
    if form == "other":
        return None
    if heading and "path" in heading.places and (is_of_program or is_text or JOINED.match(path.name)):
        return LabelFile(path, form, None)
    if not is_text and not is_of_program:
        return None
    return LabelFile(path, form, place if is_audio_name(place.name) else place.with_name(f"{place.name}.wav"))


def _form(path: Path, *, is_of_program: bool) -> tuple[str, Heading | None]:
    """What labels a text has, by its first lines, and its heading if it is a table."""
    try:
        text = read_text(path)
    except DataError:
        if is_of_program:
            raise
        return "other", None
    first = next((line for line in lines_of(text) if line.strip()), None)
    if first is None:
        return "empty", None
    if _match(first):
        return "track", None
    heading = find_heading(text, path.suffix)
    if heading.is_there and heading.is_timed and not heading.places.keys().isdisjoint(("label", "label_id")):
        return "table", heading
    if is_of_program:
        raise DataError(
            f"{shown(path)} begins with '{shown(first)}'; expected the heading of a selection table, with "
            "Begin Time (s), End Time (s) and a column of labels such as Annotation or Species. Next step: save it "
            "from its program again"
        )
    return "other", None


def _only(path: Path, recordings: Sequence[Path]) -> Path:
    if len(recordings) > 1:
        names = " and ".join(shown(recording.name) for recording in recordings)
        raise DataError(f"{shown(path)} may belong to {names}. Next step: name it {shown(recordings[0].name)}.txt")
    return recordings[0]


def _check_forms(found: Sequence[LabelFile]) -> None:
    """Refuse a recording with two label files, other than several tables."""
    first: dict[Path, LabelFile] = {}
    for label_file in found:
        if label_file.recording is None or label_file.form == "other":
            continue
        other = first.setdefault(label_file.recording, label_file)
        if other is not label_file and not other.form == label_file.form == "table":
            raise DataError(
                f"{shown(label_file.recording)} has two label files, {shown(other.path.name)} and "
                f"{shown(label_file.path.name)}; expected one. Next step: move one of them away"
            )


def _stretches(label_file: LabelFile, audio_folder: Path, notes: list[str]) -> Iterator[Stretch]:
    place = shown(label_file.path)
    if label_file.form == "table":
        table = read_table(label_file.path, needs_path=label_file.recording is None)
        for row, recording in _rows_of(table, label_file, audio_folder, notes):
            if row.start_s is None or row.end_s is None:
                raise DataError(f"{place}, line {row.line} has no start or no end; expected both, in seconds")
            yield recording, row.start_s, row.end_s, split_labels(row.label or row.label_id, place, table.separators)
    elif label_file.form == "track" and label_file.recording:
        for start_s, end_s, label in _read_track(label_file.path):
            yield label_file.recording, start_s, end_s, split_labels(label, place)


def _rows_of(
    table: Table, label_file: LabelFile, audio_folder: Path, notes: list[str]
) -> Iterator[tuple[TableRow, Path]]:
    """Each row and its recording; those of recordings that are not there are counted."""
    if label_file.recording is None:
        files = find_recordings((row.path for row in table.rows), audio_folder)
        yield from ((row, files[row.path]) for row in table.rows)
        return
    others: Counter[str] = Counter()
    for row in table.rows:
        named = PureWindowsPath(row.path.strip())  # takes both kinds of slashes
        sibling = label_file.recording.with_name(named.name) if named.name else label_file.recording
        if named.name in ("", label_file.recording.name) or named.stem == label_file.recording.stem:
            yield row, label_file.recording
        elif sibling.exists():
            yield row, sibling
        else:
            others[named.name] += 1
    if others and others.total() == len(table.rows):
        raise DataError(
            f"{shown(label_file.path)} has no row of {shown(label_file.recording.name)}: its rows are of "
            f"{some(others)}. Likely cause: the recording or the table was renamed. Next step: put the recording that "
            "the rows name beside it, or correct the names in its column of files"
        )
    if others:
        notes.append(
            f"skipped: {others.total():,} rows of {shown(label_file.path)}, which are of {some(others)}, and no such "
            "recording is there"
        )


def _read_track(path: Path) -> Iterator[tuple[float, float, str]]:
    for number, line in enumerate(lines_of(read_text(path)), 1):
        if not line.strip() or line.startswith(FREQUENCIES):
            continue
        match = _match(line)
        if not match:
            raise DataError(f"{shown(path)}, line {number}: '{shown(line)}'; expected {FORMS}")
        start_s, end_s = (float(match[name].replace(",", ".")) for name in ("start", "end"))
        if not 0 <= start_s <= end_s < math.inf:
            raise DataError(
                f"{shown(path)}, line {number} has the times '{shown(match['start'])}' and '{shown(match['end'])}'; "
                "expected seconds, the end not before the start"
            )
        yield start_s, end_s, SCORE.sub("", CONFIDENCE.sub("", match["label"] or ""))


def _match(line: str) -> re.Match[str] | None:
    return next(filter(None, (pattern.fullmatch(line.strip(" ")) for pattern in LABEL_LINES)), None)
