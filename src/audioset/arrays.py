"""Types of arrays, by what their numbers are: every module takes them from here."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
ByteArray = np.ndarray[Any, np.dtype[np.uint8]]
Int8Array = np.ndarray[Any, np.dtype[np.int8]]
Int16Array = np.ndarray[Any, np.dtype[np.int16]]
Int32Array = np.ndarray[Any, np.dtype[np.int32]]
Int64Array = np.ndarray[Any, np.dtype[np.int64]]
UInt64Array = np.ndarray[Any, np.dtype[np.uint64]]
IndexArray = np.ndarray[Any, np.dtype[np.intp]]  # places in another array
HalfArray = np.ndarray[Any, np.dtype[np.float16]]
FloatArray = np.ndarray[Any, np.dtype[np.float32]]  # what audio, features, weights and scores are
DoubleArray = np.ndarray[Any, np.dtype[np.float64]]  # what seconds, sums and metrics are
RealArray = np.ndarray[Any, np.dtype[np.floating[Any]]]  # of any of the three precisions
TextArray = np.ndarray[Any, np.dtype[np.bytes_]]  # ASCII texts, such as the ids of clips
