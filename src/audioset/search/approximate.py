"""Approximate search: a graph of neighbours, kept in a file beside the embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray, HalfArray, IndexArray
from audioset.errors import DataError, MissingExtraError
from audioset.files import output_file

# usearch's own defaults are 16, 128 and 64: too few for 99 of 100 neighbours in a thousand dimensions.
NEIGHBOURS = 32
SEEN_BUILDING = 256
SEEN_SEARCHING = 512


class ApproximateSearch:
    """A graph over vectors of length 1, made by usearch; see ``build_graph`` and ``open``."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph

    @classmethod
    def open(cls, path: Path, n: int, size: int) -> ApproximateSearch:
        """Open a graph; it stays in its file, of which a search reads what it needs."""
        graph = _new_graph(size)
        try:
            graph.view(path)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{path} is damaged: {error}. Next step: delete it; it is made again") from error
        if (len(graph), graph.ndim) != (n, size):
            raise DataError(
                f"{path} has {len(graph):,} vectors of {graph.ndim}; expected {n:,} of {size}. "
                "Next step: delete it; it is made again"
            )
        return cls(graph)

    def __len__(self) -> int:
        return len(self._graph)

    def scan(self, queries: FloatArray) -> GraphScan:
        """What is near any of the queries, (n_queries, size) float32 of length 1."""
        return GraphScan(self._graph, queries)


@dataclass(frozen=True)
class GraphScan:
    """Queries on their way through a graph."""

    graph: Any
    queries: FloatArray

    def nearest(self, n: int) -> tuple[IndexArray, FloatArray]:
        """As ``Scan.nearest``, of the neighbours that the graph leads to."""
        n = min(n, len(self.graph))
        if n < 1:
            return np.zeros(0, np.intp), np.zeros(0, np.float32)
        self.graph.expansion_search = max(SEEN_SEARCHING, 2 * n)
        best: dict[int, float] = {}
        for query in self.queries:
            matches = self.graph.search(query, n)
            for row, distance in zip(matches.keys.tolist(), matches.distances.tolist(), strict=True):
                best[row] = max(1 - distance, best.get(row, -1.0))
        ranked = sorted(best, key=lambda row: (-best[row], row))[:n]
        return np.array(ranked, np.intp), np.array([best[row] for row in ranked], np.float32)


def build_graph(
    path: Path, blocks: Iterable[HalfArray], size: int, watch: Callable[[int], None] = lambda n_done: None
) -> None:
    """Make the graph of some vectors, and write it."""
    graph = _new_graph(size)
    n_done = 0
    for vectors in blocks:
        graph.add(np.arange(n_done, n_done + len(vectors)), vectors)
        n_done += len(vectors)
        watch(n_done)
    with output_file(path) as temporary:
        try:
            graph.save(temporary)
        except RuntimeError as error:  # usearch's own name for what the system says
            raise OSError(None, str(error)) from error


def _new_graph(size: int) -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise MissingExtraError("approximate search", "usearch", "search") from error
    return Index(
        ndim=size,
        metric="ip",  # its distance is 1 - the product
        dtype="f16",
        connectivity=NEIGHBOURS,
        expansion_add=SEEN_BUILDING,
        expansion_search=SEEN_SEARCHING,
    )
