"""Exact search: a scan of 8-bit codes that proves which vectors may be among the nearest, then these in full.

A vector x is a step s times a code c of 8 bits a number, and an error e = x - s c whose length is stored. For a
query q,

    q x = s (q c) + q e,    |q e| <= min(|q| |e|, |q|_1 max|e|)

so the scan, of a quarter of the bytes of float32, gives each similarity within a margin that is known. Whatever lies
above the n-th highest lower bound by its upper bound is computed in full: no neighbour is ever missed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from audioset.arrays import FloatArray, HalfArray, IndexArray
from audioset.concurrency import available_cores
from audioset.search.dots import Dots, make_dots

LEVELS = 127
FINE_LEVELS = 254  # a query's second code is of what the first leaves: at most half a step
CODE_ROWS = 512  # coded at once: what a core's cache holds
SCAN_ROWS = 32_768  # scanned at once, by one thread
FULL_ROWS = 256  # computed in full at once: the fewer, the sooner it is seen that no more are needed
SIGN_AND_HALF = 0x0FFFE000 - (1 << 31)  # the sign, and fifteen bits below the three that float32 has more
ROUNDING = 2e-5  # what float32 may lose in sums of a few thousand products of numbers below 1


class ExactSearch:
    """Vectors of length 1, ready to be searched.

    ``units``, (n, size) float16, are kept, not copied. A vector of zeros is like nothing: its similarity is 0.
    """

    def __init__(self, units: HalfArray, n_threads: int | None = None) -> None:
        self._units = units
        self._pool = ThreadPoolExecutor(n_threads or available_cores(), thread_name_prefix="audioset")
        n, size = units.shape
        self._codes = np.empty((n, size), np.int8)
        self._steps = np.empty(n, np.float32)
        self._errors = np.empty(n, np.float32)  # lengths of what the codes leave
        list(self._pool.map(self._encode, range(0, n, CODE_ROWS)))

    def __len__(self) -> int:
        return len(self._units)

    def scan(self, queries: FloatArray) -> Scan:
        """Bounds of the similarity of every vector with the query that it is nearest to."""
        coded = [_Query(query) for query in queries]
        dots = make_dots(np.concatenate([query.codes for query in coded]))
        bounds = np.empty((2, len(self)), np.float32)

        def fill(start: int) -> None:
            self._bound(coded, dots, slice(start, start + SCAN_ROWS), bounds)

        list(self._pool.map(fill, range(0, len(self), SCAN_ROWS)))
        return Scan(self._units, queries, bounds[0], bounds[1])

    def _encode(self, start: int) -> None:
        rows = slice(start, start + CODE_ROWS)
        vectors = widen(self._units[rows])
        steps = np.abs(vectors).max(axis=1, initial=0) / LEVELS
        inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps > 0)
        codes = np.rint(vectors * inverse[:, np.newaxis])
        vectors -= codes * steps[:, np.newaxis]
        self._codes[rows] = codes
        self._steps[rows] = steps
        self._errors[rows] = np.linalg.norm(vectors, axis=1)

    def _bound(self, queries: list[_Query], dots: Dots, rows: slice, bounds: FloatArray) -> None:
        """Lower and upper bounds of some rows' similarity with the query they are nearest to."""
        products = dots(self._codes[rows]).astype(np.float32)
        steps, errors = self._steps[rows], self._errors[rows]
        lower, upper = bounds[0, rows], bounds[1, rows]
        for number, query in enumerate(queries):
            coarse, fine = products[:, 2 * number], products[:, 2 * number + 1]
            similarity = (coarse + fine / FINE_LEVELS) * (steps * query.step)
            margin = np.minimum(errors * query.length, steps * (query.absolute_sum / 2)) + (query.error + ROUNDING)
            if number == 0:
                np.subtract(similarity, margin, out=lower)
                np.add(similarity, margin, out=upper)
            else:
                np.maximum(lower, similarity - margin, out=lower)
                np.maximum(upper, similarity + margin, out=upper)


@dataclass(frozen=True)
class Scan:
    """What a scan found: bounds of every similarity, from which the nearest follow."""

    units: HalfArray  # shape (n, size), float16
    queries: FloatArray  # shape (n_queries, size), float32
    # lower, upper: shape (n,), float32; the similarity lies between
    lower: FloatArray
    upper: FloatArray

    def nearest(self, n: int) -> tuple[IndexArray, FloatArray]:
        """Rows and similarities of the ``n`` vectors nearest to any query, best first; of equals, the earlier row."""
        n = min(n, len(self.lower))
        if n < 1:
            return np.zeros(0, np.intp), np.zeros(0, np.float32)
        least = np.partition(self.lower, len(self.lower) - n)[len(self.lower) - n]
        rows = np.flatnonzero(self.upper >= least)
        rows = rows[np.argsort(-self.upper[rows], kind="stable")]
        similarities = np.empty(len(rows), np.float32)
        n_done = 0
        # Best bound first: what comes after a block whose n-th best beats every bound that is left, need not be seen.
        while n_done < len(rows) and not _is_settled(similarities[:n_done], n, self.upper[rows[n_done]]):
            block = slice(n_done, n_done + max(FULL_ROWS, n))
            vectors = widen(self.units[rows[block]])
            similarities[block] = (vectors @ self.queries.T).max(axis=1)
            n_done = min(block.stop, len(rows))
        best = np.lexsort((rows[:n_done], -similarities[:n_done]))[:n]
        return rows[best], similarities[best]


def widen(values: HalfArray) -> FloatArray:
    """Finite float16 as float32: by bits, which takes half the time of ``astype``, or less.

    Sign, exponent and fraction go where float32 has them; what is left is that the exponents count from elsewhere.
    """
    bits = np.ascontiguousarray(values).view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(SIGN_AND_HALF)
    floats = bits.view(np.float32)
    floats *= np.float32(2.0**112)
    return floats


def _is_settled(similarities: FloatArray, n: int, bound: float) -> bool:
    return len(similarities) >= n and bool(np.partition(similarities, len(similarities) - n)[-n] > bound)


class _Query:
    """A query as two codes: the second is of what the first leaves, so that the query's own error is nothing much."""

    def __init__(self, query: FloatArray) -> None:
        self.length = float(np.linalg.norm(query))
        self.absolute_sum = float(np.abs(query).sum())
        self.step = float(np.abs(query).max(initial=0)) / LEVELS or 1.0
        coarse = np.rint(query / self.step)
        fine = np.rint((query / self.step - coarse) * FINE_LEVELS)
        self.codes = np.stack([coarse, fine]).clip(-LEVELS, LEVELS).astype(np.int8)
        coded = (self.codes[0] + self.codes[1] / FINE_LEVELS) * self.step
        self.error = 1.1 * float(np.linalg.norm(query - coded))  # a vector and its code are hardly longer than 1
