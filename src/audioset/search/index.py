"""An index that is open for searches: ``Index``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from audioset import cache
from audioset.arrays import DoubleArray, FloatArray, IndexArray
from audioset.errors import DataError, NoInputError, UsageError
from audioset.search.approximate import ApproximateSearch, build_graph
from audioset.search.exact import ExactSearch
from audioset.search.manifest import Manifest, read_manifest
from audioset.search.moments import Choice, Moment, Span
from audioset.search.shards import check_length, iterate_units, read_shard, read_times, shard_path

MOST_EXACT = 2_000_000  # moments; above, a graph answers, if usearch is installed
GRAPH_SUFFIX = ".usearch"
ASKED_AT_FIRST = 4  # times as many as are wanted: patches overlap, and neighbours of a hit are hits
ASKED_MORE = 4


class Nearest(Protocol):
    """Queries that were scanned."""

    def nearest(self, n: int) -> tuple[IndexArray, FloatArray]:
        """Rows and similarities of the ``n`` nearest, best first."""
        ...


class Searcher(Protocol):
    """Vectors of length 1 that can be searched, exactly or not."""

    def scan(self, queries: FloatArray) -> Nearest:
        """Look for what is near any of the queries, (n_queries, size) float32 of length 1."""
        ...


class Index:
    """Moments of recordings, ready to be searched. See ``Index.open``."""

    def __init__(
        self,
        manifest: Manifest,
        paths: tuple[str, ...],
        path_rows: IndexArray,
        start_s: DoubleArray,
        end_s: DoubleArray,
        searcher: Searcher,
    ) -> None:
        self.manifest = manifest  # its model, settings and counts
        self.paths = paths  # of the recordings that have moments
        self._path_rows = path_rows
        self._start_s = start_s
        self._end_s = end_s
        self._searcher = searcher

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        approximate: bool | None = None,  # default: above two million moments, if usearch is installed
        watch: Callable[[int], None] = lambda n_done: None,  # called with the number of moments that a new graph has
    ) -> Index:
        """Load an index that ``build_index`` made.

        An approximate search is that of a graph of neighbours, which is made at first and kept in the folder, instead
        of all embeddings. UsageError if the folder is no index; NoInputError if it has no moment; DataError, which
        names it, if one of its files is missing or damaged; MissingExtraError without pyarrow, or without usearch for
        an approximate search.
        """
        place = Path(folder)
        manifest = read_manifest(place)
        if manifest.n_moments == 0:
            raise NoInputError(f"the index {place} has no moments. Next step: audioset index RECORDINGS -o {place}")
        if approximate is None:
            approximate = manifest.n_moments > MOST_EXACT and find_spec("usearch") is not None
        make = _open_graph if approximate else _open_exact
        return make(place, manifest, watch)

    def __len__(self) -> int:
        return len(self._start_s)

    def moment(self, row: int, similarity: float) -> Moment:
        """The moment of a row."""
        path = self.paths[int(self._path_rows[row])]
        return Moment(path, float(self._start_s[row]), float(self._end_s[row]), similarity)

    def search(
        self,
        embedding: FloatArray,
        n: int = 20,
        *,
        min_similarity: float = -1.0,  # none below this, in [-1, 1]
        per_file: int | None = None,  # at most so many of one recording
        exclude: Collection[Span] = (),  # stretches that are left out, such as the example's own
    ) -> list[Moment]:
        """The moments most like an example, best first.

        None overlaps another: of patches that do, the best one stands for all. ``embedding`` is (size,) or
        (n_examples, size), of any length. Of several, a moment's similarity is that with the one it is most like.
        UsageError if it has another size than those of the index, is not finite or has no direction, or if ``n`` or
        ``per_file`` is below 1.
        """
        queries = _check_queries(embedding, self.manifest.embedding_size)
        for name, value in (("n", n), ("per_file", per_file)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; expected 1 or more")
        scan = self._searcher.scan(queries)
        n_asked = ASKED_AT_FIRST * n
        while True:
            rows, similarities = scan.nearest(n_asked)
            choice = Choice(per_file, exclude)
            is_near = similarities >= min_similarity
            choice.offer(map(self.moment, rows[is_near].tolist(), similarities[is_near].tolist()))
            if len(choice.moments) >= n or not is_near.all() or n_asked >= len(self):
                return choice.moments[:n]
            n_asked *= ASKED_MORE


def _check_queries(embedding: FloatArray, size: int) -> FloatArray:
    queries = np.atleast_2d(np.asarray(embedding, np.float64))
    if queries.ndim != 2 or queries.shape[1] != size or not len(queries):
        raise UsageError(
            f"the example has shape {np.shape(embedding)}; expected embeddings of {size} numbers, as the index has. "
            "Likely cause: another model"
        )
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise UsageError(
            "the example's embedding is zero or not finite: it is like nothing. Likely cause: a silent example"
        )
    units: FloatArray = (queries / lengths).astype(np.float32)
    return units


def _open_exact(folder: Path, manifest: Manifest, watch: Callable[[int], None]) -> Index:
    for name, n_moments in manifest.shards.items():
        check_length(shard_path(folder, name), manifest.embedding_size, n_moments)  # before there is memory for all
    units = np.empty((manifest.n_moments, manifest.embedding_size), np.float16)
    table = _Table()
    for name, n_moments in manifest.shards.items():
        shard = read_shard(shard_path(folder, name), manifest.embedding_size, n_moments)
        units[table.n_rows : table.n_rows + n_moments] = shard.units
        table.add(shard.recordings, shard.start_s, shard.end_s)
    return Index(manifest, *table.columns(), ExactSearch(units))


def _open_graph(folder: Path, manifest: Manifest, watch: Callable[[int], None]) -> Index:
    """Open the graph of what the index holds now; make it if there is none, and delete those of before."""
    path = folder / f"graph-{manifest.digest[:12]}{GRAPH_SUFFIX}"
    if not cache.is_whole(path):  # native code maps it, and believes whatever it says
        build_graph(
            path, iterate_units(folder, manifest.shards, manifest.embedding_size), manifest.embedding_size, watch
        )
        cache.seal(path)
        for stale in set(folder.glob(f"graph-*{GRAPH_SUFFIX}")) - {path}:
            stale.unlink()
            cache.check_path(stale).unlink(missing_ok=True)
    searcher = ApproximateSearch.open(path, manifest.n_moments, manifest.embedding_size)
    table = _Table()
    for name, n_moments in manifest.shards.items():
        table.add(*read_times(shard_path(folder, name), n_moments))
    return Index(manifest, *table.columns(), searcher)


class _Table:
    """Whose moment each row is, and when."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._paths: list[str] = []
        self._path_rows: list[IndexArray] = []
        self._starts: list[DoubleArray] = []
        self._ends: list[DoubleArray] = []

    def add(self, recordings: list[Any], start_s: DoubleArray, end_s: DoubleArray) -> None:
        first = len(self._paths)
        self._paths += [recording.path for recording in recordings]
        lengths = [recording.n_moments for recording in recordings]
        self._path_rows.append(np.repeat(np.arange(first, len(self._paths)), lengths))
        if len(self._path_rows[-1]) != len(start_s):
            raise DataError(f"the recordings of a shard have {sum(lengths):,} moments; expected {len(start_s):,}")
        self._starts.append(start_s)
        self._ends.append(end_s)
        self.n_rows += len(start_s)

    def columns(self) -> tuple[tuple[str, ...], IndexArray, DoubleArray, DoubleArray]:
        times = np.concatenate(self._starts), np.concatenate(self._ends)
        return tuple(self._paths), np.concatenate(self._path_rows), *times
