"""A folder of folders: each sound lies in the folder of its class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audioset.sounds.entry import Entry
from audioset.text import class_name

# Folders of this kind, and nothing else, on the first level are parts of the data; their folders are the classes.
SPLIT_FOLDERS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))


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
