"""Products of many 8-bit vectors with a few: by numkong's kernels where these are installed, else by BLAS."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from audioset.arrays import Int8Array, Int32Array

Dots = Callable[[Int8Array], Int32Array]

BLAS_ROWS = 512  # as float32, 2 MB of 1024 columns: what a core's cache holds


def make_dots(vectors: Int8Array) -> Dots:
    """A function from rows (n_rows, size) int8 to products with ``vectors``, (n_rows, n_vectors) int32, exact.

    Several threads may call it at once.
    """
    return _numkong_dots(vectors) or _blas_dots(vectors)


def _numkong_dots(vectors: Int8Array) -> Dots | None:
    """By the processor's own 8-bit instructions, if the package is here and computes what it should."""
    try:
        import numkong

        packed = numkong.dots_pack(vectors)

        def dots(rows: Int8Array) -> Int32Array:
            return np.asarray(numkong.dots_packed(rows, packed))

        is_right = np.array_equal(dots(vectors), _blas_dots(vectors)(vectors))
    except (ImportError, AttributeError, TypeError, ValueError, BufferError):
        return None  # not installed, or of a version with other names: BLAS does the same, slower
    return dots if is_right else None


def _blas_dots(vectors: Int8Array) -> Dots:
    # In float64: sums of products of 8 bits are exact there, in float32 up to 1,040 columns only.
    exact = np.float32 if vectors.shape[1] <= 2**24 // 127**2 else np.float64
    columns = vectors.T.astype(exact)

    def dots(rows: Int8Array) -> Int32Array:
        result = np.empty((len(rows), len(vectors)), np.int32)
        for start in range(0, len(rows), BLAS_ROWS):
            block = slice(start, start + BLAS_ROWS)
            result[block] = rows[block].astype(exact) @ columns
        return result

    return dots
