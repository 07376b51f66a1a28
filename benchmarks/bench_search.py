"""Search over a million embeddings: time of a query, planted neighbours, memory, and a graph's recall.

    python benchmarks/bench_search.py [n_moments]

Embeddings are generated: in any direction (``gauss``), which bounds and graphs find hardest, and as networks make them
(``relu``): mixtures of a few thousand sounds, never below zero. A hundred queries are planted: an embedding with noise
added. Each query is scanned alone, by all cores. Beside it stands scikit-learn's
``NearestNeighbors`` by brute force on the same vectors in float32; of more than it has memory for, on a tenth, and its
time is multiplied. The time that numpy takes to add up the same bytes says what the memory gives at that moment.

The graph is made of fewer vectors, as that takes minutes: see ``GRAPH_MOMENTS``.
"""

from __future__ import annotations

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from report import print_bound
from sklearn.neighbors import NearestNeighbors

from audioset.search.approximate import ApproximateSearch, build_graph
from audioset.search.exact import ExactSearch
from audioset.search.index import ASKED_AT_FIRST
from audioset.search.shards import to_units

N_MOMENTS = 1_000_000
SIZES = {"vggish": 128, "mn04": 384, "yamnet": 1_024}
KINDS = ("gauss", "relu")
N_QUERIES = 100
N_WANTED = 20
NOISE = 0.3  # as long, in relation to the vector
BLOCK = 20_000
RIVAL_BYTES = 1 << 30
N_RIVAL_QUERIES = 5
GRAPH_MOMENTS = 20_000

BOUND_MS = 100
BOUND_RECALL = 0.99

Array = np.ndarray[Any, Any]


def generate(rng: np.random.Generator, n: int, size: int, kind: str) -> Array:
    """Vectors of length 1, float16."""
    sounds = np.maximum(rng.standard_normal((4_000, size), np.float32) - 0.5, 0) ** 2
    units = np.empty((n, size), np.float16)
    for start in range(0, n, BLOCK):
        rows = min(BLOCK, n - start)
        vectors = rng.standard_normal((rows, size), np.float32)
        if kind == "relu":
            first, second = rng.integers(0, len(sounds), (2, rows))
            share = rng.random((rows, 1), np.float32)
            vectors = np.maximum(share * sounds[first] + (1 - share) * sounds[second] + 0.1 * vectors, 0)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        units[start : start + rows] = vectors
    return units


def plant(rng: np.random.Generator, units: Array) -> tuple[Array, Array]:
    """Rows, and a query near each."""
    rows = rng.choice(len(units), N_QUERIES, replace=False)
    noise = rng.standard_normal((N_QUERIES, units.shape[1]), np.float32) / np.sqrt(units.shape[1])
    queries, _ = to_units(units[rows].astype(np.float32) + np.float32(NOISE) * noise)
    return rows, queries.astype(np.float32)


def ask(search: Any, queries: Array) -> tuple[list[Array], list[float]]:
    """Rows that each query finds, and milliseconds."""
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        rows, _ = search.scan(query[np.newaxis]).nearest(N_WANTED * ASKED_AT_FIRST)
        times.append((time.perf_counter() - start) * 1e3)
        found.append(rows)
    return found, times


def naive(units: Array, query: Array) -> Array:
    """Rows of the nearest by a product of everything in float32."""
    blocks = [units[start : start + BLOCK].astype(np.float32) @ query for start in range(0, len(units), BLOCK)]
    return np.argsort(-np.concatenate(blocks))[:N_WANTED]


def best_ms(function: Callable[[], object], n_runs: int) -> float:
    times = []
    for _ in range(n_runs):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def rival_ms(units: Array, queries: Array) -> float:
    """Of a query, by scikit-learn in float32; extrapolated if the vectors are too many for it."""
    n = min(len(units), RIVAL_BYTES // (4 * units.shape[1]))
    vectors = units[:n].astype(np.float32)
    neighbours = NearestNeighbors(n_neighbors=N_WANTED, algorithm="brute", metric="euclidean").fit(vectors)
    neighbours.kneighbors(queries[:1])
    take = iter(queries)
    return best_ms(lambda: neighbours.kneighbors(next(take)[np.newaxis]), N_RIVAL_QUERIES) * len(units) / n


def bench_exact(rng: np.random.Generator, n: int, name: str, kind: str) -> None:
    size = SIZES[name]
    units = generate(rng, n, size, kind)
    rows, queries = plant(rng, units)
    start = time.perf_counter()
    search = ExactSearch(units)
    load_s = time.perf_counter() - start
    ask(search, queries[:3])
    processor_s = time.process_time()
    found, times = ask(search, queries)
    processor_ms = (time.process_time() - processor_s) * 1e3 / N_QUERIES
    recall = float(np.mean([row in nearest[:N_WANTED] for row, nearest in zip(rows, found, strict=True)]))
    is_same = [
        np.isin(naive(units, query), nearest[:N_WANTED]).mean()
        for query, nearest in zip(queries[:3], found, strict=False)
    ]
    memory_ms = best_ms(search._codes.view(np.int64).sum, 5)
    what = f"{n:,} moments of {size} numbers ({name}), {kind}"
    print(f"\n{what}: coded in {load_s:.1f} s; numpy adds the codes up in {memory_ms:.0f} ms")
    print_bound("exact: a query, median", statistics.median(times), at_most=BOUND_MS, unit="ms")
    print_bound("exact: planted neighbours found", recall, at_least=1)
    print_bound(f"exact: the {N_WANTED} of a product in float32", float(np.mean(is_same)), at_least=1)
    print(f"  fastest {min(times):.0f} ms, slowest {max(times):.0f} ms; of all cores together {processor_ms:.0f} ms")
    print(f"  scikit-learn: {rival_ms(units, queries):,.0f} ms")


def bench_graph(rng: np.random.Generator, name: str, kind: str) -> None:
    units = generate(rng, GRAPH_MOMENTS, SIZES[name], kind)
    rows, queries = plant(rng, units)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph"
        start = time.perf_counter()
        build_graph(path, np.array_split(units, 10), units.shape[1])
        made_s = time.perf_counter() - start
        search = ApproximateSearch.open(path, len(units), units.shape[1])
        ask(search, queries[:3])
        found, times = ask(search, queries)
        exact, _ = ask(ExactSearch(units), queries)
    planted = float(np.mean([row in nearest for row, nearest in zip(rows, found, strict=True)]))
    pairs = [(set(one[:N_WANTED]), set(other[:N_WANTED])) for one, other in zip(found, exact, strict=True)]
    print(f"\ngraph of {len(units):,} moments of {units.shape[1]} numbers ({name}), {kind}: made in {made_s:.0f} s")
    print_bound("graph: planted neighbours found", planted, at_least=BOUND_RECALL)
    print(
        f"  the same {N_WANTED} as exactly {np.mean([len(a & b) for a, b in pairs]) / N_WANTED:.3f}; "
        f"a query {statistics.median(times):.1f} ms"
    )


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else N_MOMENTS
    rng = np.random.default_rng(0)
    for name in SIZES:
        for kind in KINDS:
            bench_exact(rng, n, name, kind)
    for name in SIZES:
        for kind in KINDS:
            bench_graph(rng, name, kind)
    print(
        f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB, generated vectors included"
    )


if __name__ == "__main__":
    main()
