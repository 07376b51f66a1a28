"""Read labelled sounds from wherever they are: folders of classes, tables, labels beside the audio, AudioSet's lists.

>>> collection = read_collection("birds/")  # doctest: +SKIP
>>> collection.classes  # doctest: +SKIP
('blackbird', 'robin')
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from audioset.dataset.lists.published import SUBSET_FILES, segments_path
from audioset.dataset.lists.segments import begins_as_list
from audioset.errors import DataError, NoInputError, UsageError
from audioset.folders import AUDIO_SUFFIXES, find_files, find_recordings, is_audio_name, scan_folder, some
from audioset.labels.labels import LabelSet, nearest_names
from audioset.labels.tables import Table, TableRow, read_table
from audioset.sounds.annotations import FORMS as LABEL_FORMS
from audioset.sounds.annotations import READ, SUFFIXES, LabelFile, find_label_files, names_recordings, read_annotations
from audioset.sounds.collection import SPLITS, Clip, Collection
from audioset.sounds.dataset import read_segment_list
from audioset.sounds.entry import Entry, join_labels, name_below
from audioset.text import class_name, has_bytes, shown, split_labels

BACKGROUNDS = ("background", "_background_noise_")  # names of no class, unless another is given
FORMS = (
    "a folder of folders, one for each class; a CSV or TSV file with the columns path and label; a folder of "
    "recordings with labels of Audacity, Raven or BirdNET beside them (x.wav and x.txt); a list of AudioSet's clips "
    "(eval_segments.csv) with --audio FOLDER"
)
SEGMENTS = "AudioSet's list"
N_SHOWN = 3  # names in messages
# Folders of this kind, and nothing else, on the first level are parts of the data; their folders are the classes.
SPLIT_FOLDERS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))


def read_collection(
    source: str | os.PathLike[str],
    *,
    audio: str | os.PathLike[str] | None = None,
    group: str | None = None,
    split: str | None = None,
    background: str | None = None,
    classes: Sequence[str] | None = None,
) -> Collection:
    r"""Read labelled clips. No sound is opened, and files may be missing: see ``check_collection``.

    The source is recognised by what is in it: a folder of folders, one for each class; a CSV or TSV file, as
    ``labels.tables.read_table`` reads it; a folder of recordings with labels of Audacity, Raven or BirdNET beside them;
    or a list of AudioSet's clips. ``audio`` is where the paths of a table begin, or where the recordings of label files
    or of a list are; by default the folder of the source.

    ``group`` is what clips share that must not be learned and tested apart: a column of the table, or a regular
    expression with one group in parentheses, such as ``_([a-z]+)_``. It is searched in the names of the files; if it is
    in none of them, in their paths below the source. ``split`` is the same for ``train`` and ``test``; a folder with
    nothing but ``train`` and ``test``, which hold the classes, needs none. ``background`` is the folder or label that
    means none of the classes; by default ``background``, if there is one. ``classes`` are the only ones, in this order,
    and clips with none of them are left out; by default all, sorted.

    ``NoInputError`` if there is no such source, or no audio in it; ``DataError`` if a table or a label file is damaged,
    with the line in the message, or the source could be of two forms; ``UsageError`` if a group, split, background or
    class is not there.
    """
    folder_or_file = Path(source)
    entries, form, notes = _read_source(folder_or_file, None if audio is None else Path(audio))
    groups = _marks(entries, group, "--group") if group is not None else [None] * len(entries)
    splits = _splits(entries, split)
    labels = _without_background(entries, background)
    clips = [
        Clip(entry.path, names, entry.start_s, entry.end_s, group_name, part)
        for entry, names, group_name, part in zip(entries, labels, groups, splits, strict=True)
    ]
    names = _sorted_classes(clips, form)
    if classes is not None:
        clips, names = _choose(clips, names, classes)
    return Collection(tuple(clips), names, f"{folder_or_file} ({form})", notes)


def _read_source(source: Path, audio: Path | None) -> tuple[list[Entry], str, tuple[str, ...]]:
    """What the source says, what it is, and what was passed over in it."""
    try:
        if audio is not None and not audio.is_dir():
            raise NoInputError(f"there is no folder {shown(audio)}. Next step: correct --audio")
        if os.fspath(source) in SUBSET_FILES and not source.exists():
            if audio is None:
                raise UsageError(f"{source} is the name of a published list. Next step: --audio FOLDER, with its clips")
            source = segments_path(source)
        if source.is_dir():
            return _read_folder(source, audio)
        if not source.is_file():
            raise NoInputError(f"there is no file or folder {shown(source)}. Next step: check its name")
        if begins_as_list(source):
            folder = source.parent if audio is None else audio
            return read_segment_list(source, folder, find_files(folder, AUDIO_SUFFIXES)), SEGMENTS, ()
        if is_audio_name(source.name):
            raise UsageError(f"{shown(source)} is one sound; expected {FORMS}")
        return _read_clip_table(source, audio), "table", ()
    except OSError as error:
        if isinstance(error, (DataError, NoInputError, UsageError)):
            raise
        raise DataError(f"{shown(source)} cannot be read: {error.strerror or error}") from error


def _read_clip_table(path: Path, audio: Path | None) -> list[Entry]:
    """One clip for each line of a table, whose relative paths begin in ``audio``, or in its own folder.

    A clip without a label has none of the classes; an empty start is the beginning of the file, and an empty end its
    end.
    """
    folder = path.parent if audio is None else audio
    table = read_table(path)
    if not table.rows:
        raise DataError(f"{shown(path)} has no rows; expected a path and a label on each line")
    try:
        files = find_recordings((row.path for row in table.rows), folder)
        entries = [_entry(row, table, files[row.path], folder) for row in table.rows]
    except DataError as error:
        raise DataError(f"{shown(path)}, {error}") from error
    # In a table of one label a clip, lines of one piece contradict each other, and the check says so.
    return join_labels(entries) if table.has_several_labels else entries


def _entry(row: TableRow, table: Table, file: Path, folder: Path) -> Entry:
    labels = split_labels(row.label or row.label_id, f"line {row.line}", table.separators)
    return Entry(file, name_below(file, folder), labels, row.start_s or 0.0, row.end_s, None, row.cells, row.line)


def _read_folder(source: Path, audio: Path | None) -> tuple[list[Entry], str, tuple[str, ...]]:
    scan = scan_folder(source)
    files = list(map(Path, scan.of(AUDIO_SUFFIXES))) if audio is None else find_files(audio, AUDIO_SUFFIXES)
    beside = find_label_files(source, list(map(Path, scan.of(SUFFIXES))), source if audio is None else audio, files)
    known = {label_file.path for label_file in beside}
    tables = [path for path in map(Path, scan.of(READ)) if path not in known and names_recordings(path)]
    skipped = [f"skipped: {some(map(str, tables))}, which names recordings: a source of its own"] if tables else []
    label_files = [label_file for label_file in beside if label_file.form != "other"]
    others = [label_file for label_file in beside if label_file.form == "other"]
    loose = [path for path in files if path.parent == source]
    if label_files and (audio is not None or loose or _are_of(label_files, files)):
        if not loose:
            _check_all_labelled(source, label_files, files)
        notes = [*scan.notes(), *_check_others(others, label_files), *skipped]
        entries, rows_skipped = read_annotations(label_files, source if audio is None else audio)
        if not entries:
            raise DataError(f"the label files in {shown(source)} have no labels; expected a start, an end and a label")
        notes += [*rows_skipped, *_unlabelled(files, label_files, entries)]
        return entries, "labels beside the audio", tuple(notes)
    if audio is not None:
        raise UsageError(f"{shown(source)} has no label files, so --audio has no meaning. Known forms: {FORMS}")
    if not files:
        raise NoInputError(f"there is no audio in {shown(source)}. {_said(scan.notes())}Known forms: {FORMS}")
    if loose:
        where = "lie" if len(loose) > 1 else "lies"
        texts_beside = f"; {_not_labels(others)}" if others else "" if tables else ", and no labels lie beside"
        step = f"name the table, {shown(tables[0])}" if tables else "put each sound in the folder of its class"
        raise DataError(
            f"{some(path.name for path in loose)} {where} in no folder of a class below {shown(source)}{texts_beside}. "
            f"Next step: {step}. Known forms: {FORMS}"
        )
    notes = [*scan.notes(), *([f"skipped: {_not_labels(others)}"] if others else []), *skipped]
    return _read_folders(source, files), "folders", tuple(notes)


def _read_folders(folder: Path, files: Sequence[Path]) -> list[Entry]:
    """One clip for each file, its class the first folder below ``folder``.

    If these are named ``train`` and ``test``, they are the given split, and the class is the next folder.
    """
    parts = [path.relative_to(folder).parts for path in files]
    level = 1 if _is_split(parts) else 0
    return [
        Entry(path, "/".join(names), (class_name(names[level]),), split=names[0] if level else None)
        for path, names in zip(files, parts, strict=True)
    ]


def _is_split(parts: Sequence[tuple[str, ...]]) -> bool:
    firsts = {names[0].casefold() for names in parts}
    return len(firsts) > 1 and "train" in firsts and firsts <= SPLIT_FOLDERS and min(map(len, parts)) > 2


def _are_of(label_files: Iterable[LabelFile], files: Sequence[Path]) -> bool:
    """Whether any label file belongs to a recording that is there."""
    known = set(files)
    return any(label_file.recording is None or label_file.recording in known for label_file in label_files)


def _check_all_labelled(source: Path, label_files: Sequence[LabelFile], files: Sequence[Path]) -> None:
    """Refuse a folder of folders with some label files: it could be meant either way."""
    labelled = {label_file.recording for label_file in label_files}
    without = [path for path in files if path not in labelled]
    if without and None not in labelled:
        raise DataError(
            f"{shown(source)} could be a folder of folders, or recordings with labels beside them: {len(without)} of "
            f"{len(files)} sounds have none, such as {some(path.name for path in without)}. Next step: put an empty "
            "text file beside a recording without labels, or move the text files away, or write a CSV with the columns "
            f"path and label. Known forms: {FORMS}"
        )


def _check_others(others: Sequence[LabelFile], label_files: Sequence[LabelFile]) -> Iterator[str]:
    """Refuse text that is no labels beside a recording that has no others: these may be lost. Name all other text."""
    labelled = {label_file.recording for label_file in label_files}
    alone = [label_file for label_file in others if label_file.recording not in labelled]
    if alone and None not in labelled:
        raise DataError(
            f"{_not_labels(alone)}; expected {LABEL_FORMS}. Next step: correct it, or move it away. An empty text file "
            "says that a recording has no labels"
        )
    if others:
        yield f"skipped: {_not_labels(others)}"


def _not_labels(others: Sequence[LabelFile]) -> str:
    """That texts beside recordings are no labels, and how the first of them begins."""
    return f"{some(other.path.name for other in others)} beside recordings, not understood as labels"


def _unlabelled(files: Sequence[Path], label_files: Sequence[LabelFile], entries: Sequence[Entry]) -> Iterator[str]:
    labelled = {*(label_file.recording for label_file in label_files), *(entry.path for entry in entries)}
    without = [path for path in files if path not in labelled]
    if without:
        names = some(path.name for path in without)
        yield f"skipped: {len(without):,} of {len(files):,} recordings, which have no label file: {names}"


def _said(notes: Iterable[str]) -> str:
    return "".join(f"{note[0].upper()}{note[1:]}. " for note in notes)


def _marks(entries: Sequence[Entry], rule: str, option: str) -> list[str | None]:
    """What a column, or a pattern on the names, gives for each entry; None where it gives nothing."""
    columns = list(dict.fromkeys(column for entry in entries for column in entry.cells))
    column = next((name for name in columns if name == rule), None)
    column = column or next((name for name in columns if name.casefold() == rule.casefold()), None)
    if column is not None:
        return [_mark(entry, entry.cells.get(column, "")) for entry in entries]
    pattern = _pattern(rule, columns, option)
    found = [pattern.search(PurePosixPath(entry.name).name) for entry in entries]
    if not any(found):
        found = [pattern.search(entry.name) for entry in entries]
    if not any(found):
        raise UsageError(
            f"{option} {rule!r} is {'no column, and ' if columns else ''}in none of the {len(entries)} names, such as "
            f"'{shown(entries[0].name)}'. Next step: correct it"
        )
    return [match and match[1] for match in found]


def _mark(entry: Entry, text: str) -> str | None:
    if has_bytes(text):
        raise DataError(f"line {entry.line}: {shown(text)} is not UTF-8. Next step: save the table as UTF-8")
    return text or None


def _pattern(rule: str, columns: Sequence[str], option: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UsageError(f"{option} {rule!r} is no regular expression: {error}") from error
    if pattern.groups != 1:
        known = f"Columns: {', '.join(map(shown, columns))}" if columns else "The source has no further columns"
        raise UsageError(
            f"{option} is {rule!r}; expected a column, or a regular expression with one group in parentheses, such as "
            f"'_([a-z]+)_'. {known}"
        )
    return pattern


def _splits(entries: Sequence[Entry], split: str | None) -> list[str | None]:
    given = [entry.split for entry in entries] if split is None else _marks(entries, split, "--split")
    if not any(given):
        return given
    names = [name and name.casefold() for name in given]
    other = Counter(shown(part or "(empty)") for part, name in zip(given, names, strict=True) if name not in SPLITS)
    if other:
        words = ", ".join(f"{word} ({count:,})" for word, count in other.most_common(N_SHOWN))
        raise UsageError(
            f"the split has the words {words}; expected {' and '.join(SPLITS)} for every clip. Next step: call each "
            "part one of these, and leave out what belongs to neither"
        )
    return names


def _without_background(entries: Sequence[Entry], background: str | None) -> list[tuple[str, ...]]:
    """Labels of each entry, without that of the background."""
    names = {class_name(name).casefold() for name in (BACKGROUNDS if background is None else (background,))}
    present = {label for entry in entries for label in entry.labels}
    if background is not None and not any(label.casefold() in names for label in present):
        raise UsageError(f"there is no {background!r} for --background among {some(sorted(present))}")
    return [tuple(label for label in entry.labels if label.casefold() not in names) for entry in entries]


def _sorted_classes(clips: Iterable[Clip], form: str) -> tuple[str, ...]:
    """By name; those of AudioSet in the order that models have them in."""
    present = {label for clip in clips for label in clip.labels}
    if form == SEGMENTS:
        return tuple(name for name in LabelSet.load("audioset-527").names if name in present)
    return tuple(sorted(present))


def _choose(clips: Iterable[Clip], names: Sequence[str], classes: Sequence[str]) -> tuple[list[Clip], tuple[str, ...]]:
    """Clips of some of the classes, and those of none at all."""
    chosen = tuple(dict.fromkeys(map(class_name, classes)))
    for name in chosen:
        if name not in names:
            near = nearest_names(name, names) or list(names)
            raise UsageError(f"there is no class {name!r}; did you mean {' or '.join(map(repr, near[:N_SHOWN]))}?")
    kept = [
        replace(clip, labels=tuple(label for label in clip.labels if label in chosen))
        for clip in clips
        if not clip.labels or not set(chosen).isdisjoint(clip.labels)
    ]
    return kept, chosen
