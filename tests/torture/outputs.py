"""What a command has written, as values that can be compared."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import load_file
from sandbox import digest_of, walk

from audioset.cache import ASSETS, CHECK_SUFFIX, is_whole

TOLERANCE = 1e-6
# Names of entries that say when, where and how fast; they may differ between two runs that say the same.
VOLATILE = frozenset(("elapsed_s", "core_s", "timings_s", "clips from the cache"))
PRESENT = "is there"  # all that matters of a file for people


def read_output(path: Path) -> Any:
    """The values in a file, or in each file of a folder; None for what is not there."""
    if path.is_dir():
        return {each.name: read_output(each) for each in sorted(path.iterdir()) if not each.name.endswith(".lock")}
    if not path.exists():
        return None
    read = READERS.get(path.suffix, digest_of)
    return read(path)


def _table(path: Path) -> list[list[float | str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            [_number(cell) for cell in row]
            for row in csv.reader(file, delimiter="," if path.suffix == ".csv" else "\t")
        ]


def _number(text: str) -> float | str:
    with suppress(ValueError):
        return float(text)
    return text


def _json_lines(path: Path) -> list[Any]:
    return [_without_volatile(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def _json(path: Path) -> Any:
    return _without_volatile(json.loads(path.read_text(encoding="utf-8")))


def _without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_volatile(each) for name, each in value.items() if name not in VOLATILE}
    return [_without_volatile(each) for each in value] if isinstance(value, list) else value


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def _hdf5(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: value[()].tolist() for name, value in file.items()}


def _ledger(path: Path) -> Any:
    from audioset.dataset.download.ledger import Ledger

    with closing(Ledger(path)) as ledger:
        return {f"{subset} {state}": count for (subset, state), count in ledger.counts().items()}


READERS: dict[str, Callable[[Path], Any]] = {
    ".csv": _table,
    ".tsv": _table,
    ".txt": _table,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".npz": _npz,
    ".npy": np.load,
    ".safetensors": load_file,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".sqlite": _ledger,
    **dict.fromkeys((".html", ".svg", ".md", ".log", ".toml", ".onnx"), lambda path: PRESENT),
}


def read_rows(path: Path) -> list[Any]:
    """The rows of a table that commands add to, in whichever order they did."""
    return sorted(read_output(path) or [], key=str)


def read_index(folder: Path) -> Any:
    """The moments of an index, in whichever files they are."""
    card = _json(folder / "index.json")
    rows = [row for name in card.pop("shards") for row in _parquet(folder / name)]
    return {**card, "rows": sorted(rows, key=lambda row: (row["path"], row["start_s"]))}


def read_cache(folder: Path) -> Any:
    """The downloads in a cache, and what is there and does not fit its checksum."""
    files = [path for path in walk(folder) if path.is_file() and path.suffix not in (CHECK_SUFFIX, ".lock")]
    downloads = {path.name: digest_of(path) for path in files if path.parent.name == ASSETS}
    return {"downloads": downloads, "damaged": [path.name for path in files if not is_whole(path)]}


def difference(right: Any, found: Any, where: str = "") -> Iterator[str]:
    """Where two values differ, numbers by more than ``TOLERANCE``."""
    if isinstance(right, dict) and isinstance(found, dict):
        for name in sorted({*right, *found}, key=str):
            if name not in right or name not in found:
                yield f"{where}/{name} is {'missing' if name in right else 'too much'}"
            else:
                yield from difference(right[name], found[name], f"{where}/{name}")
    elif isinstance(right, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(right) != len(found):
            yield f"{where} has {len(found)} entries, not {len(right)}"
        for index, (a, b) in enumerate(zip(right, found, strict=False)):
            yield from difference(a, b, f"{where}/{index}")
    elif isinstance(right, np.ndarray) and isinstance(found, np.ndarray):
        yield from _array_difference(right, found, where)
    elif isinstance(right, float) and isinstance(found, float):
        if not (abs(right - found) <= TOLERANCE or (math.isnan(right) and math.isnan(found))):
            yield f"{where} is {found!r}, not {right!r}"
    elif right != found:
        yield f"{where} is {str(found)[:100]!r}, not {str(right)[:100]!r}"


def _array_difference(right: np.ndarray, found: np.ndarray, where: str) -> Iterator[str]:
    if right.shape != found.shape or right.dtype != found.dtype:
        yield f"{where} is {found.dtype} {found.shape}, not {right.dtype} {right.shape}"
    elif right.dtype.kind == "f":
        if not np.allclose(right, found, rtol=0, atol=TOLERANCE, equal_nan=True):
            yield f"{where} differs by up to {np.nanmax(np.abs(right - found)):g}"
    elif not np.array_equal(right, found):
        yield f"{where} has other values"
