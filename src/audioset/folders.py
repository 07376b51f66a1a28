"""What is in a folder: its audio, and what else lies there."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from audioset.errors import DataError
from audioset.files import exists, is_folder
from audioset.text import shown

# Files with these endings, in any case, are audio wherever files are looked for.
AUDIO_SUFFIXES = frozenset(
    (
        *(".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf"),
        *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".aac", ".3gp", ".webm", ".mkv", ".mka", ".avi", ".flv", ".ogv"),
        *(".wma", ".wmv", ".asf", ".ts", ".m2ts", ".mpg", ".mpeg", ".mp2", ".mpga", ".ac3", ".eac3", ".dts", ".spx"),
        *(".au", ".snd", ".wv", ".tta", ".ape", ".mpc", ".tak", ".shn", ".amr", ".awb", ".3g2", ".f4v", ".voc"),
        *(".sph", ".nist", ".ircam", ".sf", ".gsm", ".dsf", ".dff", ".ra", ".rm", ".alac"),
    )
)
# What usually lies beside recordings, so that nothing need be said of it: labels, tables, notes and results.
COMPANION_SUFFIXES = frozenset(
    (
        *(".txt", ".csv", ".tsv", ".tab", ".json", ".jsonl", ".textgrid", ".vtt", ".srt", ".lab", ".parquet", ".npz"),
        *(".md", ".xml", ".yaml", ".yml", ".toml", ".ini", ".log", ".db", ".sqlite", ".lock", ".tfrecord", ".h5"),
    )
)
N_SHOWN = 3


@dataclass(frozen=True)
class FolderScan:
    """What lies below a folder. Hidden files and folders are left out.

    Links to folders are followed, and each folder is read once.
    """

    folder: str
    files: tuple[str, ...]  # all, in the order of their paths, which begin as that of the folder does
    repeats: tuple[str, ...]  # links to folders that are read already, or that lead back up
    unreadable: Mapping[str, str]  # folders that cannot be read, and why

    def of(self, suffixes: frozenset[str]) -> list[str]:
        """Files with one of these endings, in any case."""
        return [path for path in self.files if suffix_of(path) in suffixes]

    def notes(self) -> Iterator[str]:
        """What is passed over and is neither audio nor what usually lies beside it, for people."""
        others = Counter(map(suffix_of, self.files))
        skipped = {suffix: n for suffix, n in others.items() if suffix not in AUDIO_SUFFIXES | COMPANION_SUFFIXES}
        if skipped:
            by_number = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
            counts = ", ".join(f"{count:,} {shown(suffix) or 'without an ending'}" for suffix, count in by_number)
            yield f"skipped: {counts} (in {shown(Path(self.folder))})"
        if self.repeats:
            yield f"skipped: {some(self.repeats)}: a link to a folder that is read already, or that lies above"
        for folder, reason in self.unreadable.items():
            yield f"skipped: the folder {shown(Path(folder))}, which cannot be read ({reason})"


def scan_folder(folder: str | os.PathLike[str]) -> FolderScan:
    """Look through a folder and those below it, those behind links last: what is in its place is found there."""
    files: list[str] = []
    repeats: list[str] = []
    unreadable: dict[str, str] = {}
    seen: set[str] = set()
    places, links = deque([os.fspath(folder)]), deque[str]()
    root = os.path.realpath(folder)
    while places or links:
        place = (places or links).popleft()
        real = os.path.realpath(place)
        if real in seen or (real != root and os.path.commonpath([real, root]) == real):
            repeats.append(place)
            continue
        seen.add(real)
        try:
            names = [name for name in os.listdir(place) if not name.startswith(".")]  # noqa: PTH208 - as the next ones
        except OSError as error:
            unreadable[place] = error.strerror or str(error)
            continue
        for path in (os.path.join(place, name) for name in names):  # noqa: PTH118 - "./x.wav" stays as it was given
            if not is_folder(path):
                files.append(path)
            else:
                (links if os.path.islink(path) else places).append(path)  # noqa: PTH114
    return FolderScan(
        os.fspath(folder), tuple(sorted(files, key=_parts)), tuple(sorted(repeats, key=_parts)), unreadable
    )


def find_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below a folder with these endings in any case, sorted; see ``scan_folder``."""
    return list(map(Path, scan_folder(folder).of(suffixes)))


def find_recordings(names: Iterable[str], folder: Path) -> dict[str, Path]:
    r"""The files that a table names, by name: paths from ``folder``, or absolute ones. ``\`` may stand for ``/``.

    What is not where its name says is looked for below the folder if it is a name alone, as UrbanSound8K has them, with
    or without the ending; a path of another machine, as Raven and BirdNET have them, by its last folder and name. What
    is not there at all has the path that its name says. ``DataError`` if a name may mean two files, or two names come
    to mean one.
    """
    found = {name: _as_written(name, folder) for name in dict.fromkeys(names)}
    elsewhere = [name for name, path in found.items() if not exists(path)]
    if elsewhere and is_folder(folder):
        by_name = _by_name(folder)
        for name in elsewhere:
            candidates = _candidates(name, folder, by_name)
            if len(candidates) > 1:
                raise DataError(
                    f"{shown(name)} may be {some(map(str, candidates))}. Next step: write its folder before it"
                )
            found |= dict.fromkeys((name,), *candidates) if candidates else {}
        _check_apart({name: found[name] for name in elsewhere if exists(found[name])})
    return found


def is_audio_name(name: str) -> bool:
    """Whether a text is the name of an audio file."""
    return suffix_of(name.strip()) in AUDIO_SUFFIXES


def suffix_of(path: str) -> str:
    """The ending of a file's name, in lower case."""
    return PurePath(path).suffix.lower()


def some(names: Iterable[str]) -> str:
    """The first names, for a message."""
    every = list(names)
    more = f" and {len(every) - N_SHOWN:,} more" if len(every) > N_SHOWN else ""
    return ", ".join(map(shown, map(Path, every[:N_SHOWN]))) + more


def _as_written(name: str, folder: Path) -> Path:
    spellings = (name, name.strip(), name.strip().replace("\\", "/"))
    paths = [folder / spelling for spelling in spellings]
    return next(filter(exists, paths), paths[1])


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Audio below a folder, by its name with and without the ending."""
    found: dict[str, list[Path]] = {}
    for path in find_files(folder, AUDIO_SUFFIXES):
        for name in {path.name, path.stem}:
            found.setdefault(name, []).append(path)
    return found


def _candidates(name: str, folder: Path, by_name: Mapping[str, list[Path]]) -> list[Path]:
    place = PureWindowsPath(name.strip())  # takes both kinds of slashes
    if not place.name or (len(place.parts) > 1 and not place.root):
        return []
    near = [folder.joinpath(*place.parts[-n:]) for n in (2, 1) if place.root and n < len(place.parts)]
    if there := list(filter(exists, near)):
        return there[:1]
    return by_name.get(place.name, [])


def _check_apart(found: Mapping[str, Path]) -> None:
    first: dict[Path, str] = {}
    for name, path in found.items():
        if (other := first.setdefault(path, name)) != name:
            raise DataError(
                f"{shown(other)} and {shown(name)} are not where they say, and both may be {shown(path)}. Next step: "
                "write their folders as they are here"
            )


def _parts(path: str) -> tuple[str, ...]:
    return PurePath(path).parts
