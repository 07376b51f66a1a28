"""VGGish's postprocessor: principal components, whitening and 8 bits, as in the released AudioSet features.

>>> quantised = Postprocessor.load("vggish_pca_params.npz")(prediction.embeddings)  # doctest: +SKIP
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arguments import check_path
from audioset.arrays import ByteArray, FloatArray
from audioset.errors import UsageError, WeightsError
from audioset.files import check_regular
from audioset.records import DAMAGE, check_unfolded

EMBEDDING_SIZE = 128
SHAPES = {
    "pca_eigen_vectors": ((EMBEDDING_SIZE, EMBEDDING_SIZE),),
    "pca_means": ((EMBEDDING_SIZE,), (EMBEDDING_SIZE, 1)),
}
LIMIT = 2.0  # whitened values are clipped to ±2, two standard deviations
STEPS_PER_UNIT = 255 / (2 * LIMIT)

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that NumPy writes
MAX_UNFOLDED_BYTES = 1 << 20  # the published file has 0.07 MB


@dataclass(frozen=True, eq=False)
class Postprocessor:
    """Quantises VGGish embeddings: ``Postprocessor.load(path)(embeddings)``.

    The principal components belong to embeddings before any ReLU, as VGGish gives them with
    ``activation=None``.

    Attributes
    ----------
    pca_eigen_vectors : ndarray, shape (128, 128), float32
        A component in each row, already divided by its standard deviation.
    pca_means : ndarray, shape (128,) or (128, 1), float32

    Raises
    ------
    WeightsError
        For other shapes, other than floating-point numbers, NaN or infinite values.

    Source: tensorflow/models, research/audioset/vggish/vggish_postprocess.py. All 3,200 bytes of the stored
    reference are equal, of which 16 are within 0.01 of a step.
    """

    pca_eigen_vectors: FloatArray
    pca_means: FloatArray

    def __post_init__(self) -> None:
        for name, shapes in SHAPES.items():
            object.__setattr__(self, name, _checked(name, np.asarray(getattr(self, name)), shapes))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Postprocessor:
        """Read ``vggish_pca_params.npz``, or a file of one's own with the same two arrays.

        Parameters
        ----------
        path : path

        Returns
        -------
        Postprocessor

        Raises
        ------
        WeightsError
            If it cannot be read, is no .npz file, is damaged, or has other arrays. Nothing pickled is loaded.
        """
        try:
            return cls(**_read_arrays(Path(check_path("path", path))))
        except WeightsError as error:
            raise WeightsError(
                f"{os.fspath(path)}: {error}. Next step: use the published vggish_pca_params.npz, or an .npz file "
                f"with the arrays pca_eigen_vectors {SHAPES['pca_eigen_vectors'][0]} and "
                f"pca_means {SHAPES['pca_means'][1]}"
            ) from error

    def __call__(self, embeddings: FloatArray) -> ByteArray:
        """Quantise embeddings.

        Parameters
        ----------
        embeddings : ndarray, shape (n_patches, 128), float32

        Returns
        -------
        ndarray, shape (n_patches, 128), uint8
            From 0 for -2 and less to 255 for 2 and more. Saturation is normal: of the released features' bytes,
            9 % are 0 and 9 % are 255.

        Raises
        ------
        UsageError
            For another shape or dtype, and for NaN or infinite values.
        """
        return self.unrounded(embeddings).astype(np.uint8)  # truncated, as in the original; YouTube-8M's own rounds

    def unrounded(self, embeddings: FloatArray) -> FloatArray:
        """As ``__call__``, before truncation.

        Where a value is within float32's error of a whole number, its byte may differ from the original's by
        one; this says how near it is.

        Parameters
        ----------
        embeddings : ndarray, shape (n_patches, 128), float32

        Returns
        -------
        ndarray, shape (n_patches, 128), float32
            In [0, 255].

        Raises
        ------
        UsageError
            As ``__call__``.
        """
        embeddings = np.asarray(embeddings)
        if embeddings.ndim != 2 or embeddings.shape[1] != EMBEDDING_SIZE or embeddings.dtype.kind != "f":
            raise UsageError(
                f"embeddings have shape {embeddings.shape} and dtype {embeddings.dtype}; expected "
                f"(n_patches, {EMBEDDING_SIZE}) and float32. Likely cause: embeddings of another model than VGGish, "
                "or quantised already"
            )
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused below
            centred = embeddings.astype(np.float32, copy=False) - self.pca_means.reshape(EMBEDDING_SIZE)
            # One product for each patch: BLAS starts no threads, which would fight the network for the cores, and
            # a patch's bytes do not depend on its neighbours.
            whitened = np.matmul(self.pca_eigen_vectors, centred[:, :, None])[:, :, 0]
        if not np.isfinite(whitened).all():
            raise UsageError(
                "embeddings hold NaN, infinite or absurdly large values; expected finite numbers. "
                "Likely cause: NaN in the audio or in the weights"
            )
        clipped: FloatArray = np.clip(whitened, -LIMIT, LIMIT)
        return (clipped + LIMIT) * STEPS_PER_UNIT


def dequantize(quantized: ByteArray) -> FloatArray:
    """Whitened values that stand for quantised ones: ``x * 4 / 255 + 4 / 512 - 2``.

    Within 0.008 of the value before quantisation, if that was in [-2, 2].

    Parameters
    ----------
    quantized : ndarray, any shape, uint8
        Such as (n_patches, 128), from a ``Postprocessor`` or the released features.

    Returns
    -------
    ndarray, the same shape, float32
        From -1.992 for 0 to 2.008 for 255.

    Raises
    ------
    UsageError
        For another dtype. int8 in particular: the bytes are unsigned, and read as signed ones all values
        above 0 turn into values below -2.

    Notes
    -----
    Models differ in what they were trained on. Those of Kong et al. (audioset_classification) take
    ``(x - 128) / 128`` instead, from -1 to 0.992.

    Source: ``Dequantize`` in google/youtube-8m, utils.py.
    """
    quantized = np.asarray(quantized)
    if quantized.dtype != np.uint8:
        is_signed = quantized.dtype == np.int8
        cause = "these bytes are unsigned, 0 to 255, and here were read as signed ones, so that 128 to 255 became "
        cause = f"{cause}-128 to -1. Next step: .view(np.uint8)" if is_signed else "they are not quantised"
        raise UsageError(f"quantised embeddings have dtype {quantized.dtype}; expected uint8. Likely cause: {cause}")
    values: FloatArray = quantized * np.float32(2 * LIMIT / 255) + np.float32(2 * LIMIT / 512 - LIMIT)
    return values


def _read_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an .npz file that a Postprocessor has."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            check_unfolded(archive, MAX_UNFOLDED_BYTES)
            return {name: _read_member(archive, name) for name in SHAPES}
    except (RuntimeError, *DAMAGE) as error:  # zipfile's, for what is encrypted
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise WeightsError(f"it cannot be read as an .npz file with {' and '.join(SHAPES)} ({reason})") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> Any:
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type not in COMPRESSIONS:
        raise ValueError(f"{entry.filename} is compressed by method {entry.compress_type}, which NumPy does not write")
    with archive.open(entry) as member:
        array = np.lib.format.read_array(member, allow_pickle=False)
        member.read()  # to its end, where its checksum is compared
    return array


def _checked(name: str, array: Any, shapes: tuple[tuple[int, ...], ...]) -> FloatArray:
    if array.shape not in shapes:
        raise WeightsError(f"{name} has shape {array.shape}; expected {' or '.join(map(str, shapes))}")
    if array.dtype.kind != "f":
        raise WeightsError(f"{name} has dtype {array.dtype}; expected floating-point numbers")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused here
        checked: FloatArray = array.astype(np.float32)
    if not np.isfinite(checked).all():
        raise WeightsError(f"{name} holds NaN or infinite values; expected finite numbers")
    return checked
