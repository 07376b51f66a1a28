"""A folder of folders: each sound lies in the folder of its class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from audioset.sounds.entry import Entry
from audioset.sounds.text import class_name

# Inside folders only files with these endings, in any case, are audio.
AUDIO_SUFFIXES = frozenset(
    (
        *(".wav", ".wave", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf"),
        *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".aac", ".3gp", ".webm", ".mkv", ".mka", ".avi", ".flv", ".ogv"),
        *(".wma", ".wmv", ".asf", ".ts", ".m2ts", ".mpg", ".mpeg", ".mp2", ".ac3", ".eac3", ".dts", ".amr", ".awb"),
        *(".au", ".snd", ".wv", ".tta", ".ape", ".mpc", ".voc", ".sph", ".dsf", ".dff", ".shn", ".spx", ".ra", ".rm"),
    )
)
# Folders of this kind, and nothing else, on the first level are parts of the data; their folders are the classes.
SPLIT_FOLDERS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))


def find_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below a folder with these endings in any case, sorted; hidden files and folders are left out."""
    return [path for path in _walk(folder, set()) if path.suffix.lower() in suffixes]


def read_folders(folder: Path, files: Sequence[Path]) -> list[Entry]:
    """One clip for each file, its class the first folder below ``folder``.

    If these are named ``train`` and ``test``, they are the given split, and the class is the next folder.

    Parameters
    ----------
    folder : Path
    files : sequence of Path
        Below it, none of them directly in it.

    Returns
    -------
    list of Entry
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


def _walk(folder: Path, above: set[str]) -> Iterator[Path]:
    """All files, folders behind links too; a link that leads back up is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, above | {real})
        else:
            yield path
