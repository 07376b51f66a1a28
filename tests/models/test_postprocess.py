"""VGGish's postprocessor: the original's bytes, the inverse, and every way in which its parameters can be wrong."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from reference_data import ASSETS

from audioset.errors import UsageError, WeightsError
from audioset.models.postprocess import Postprocessor, dequantize

REFERENCE = ASSETS.parent / "reference"
PARAMETERS = REFERENCE / "vggish_pca_params_test.npz"
NEAR = 1e-2  # of a step; nearer than this, another order of float32 additions may change the byte
IDENTITY = Postprocessor(np.eye(128, dtype=np.float32), np.zeros(128, np.float32))


@pytest.fixture(scope="module")
def postprocessor() -> Postprocessor:
    """With the parameters that the reference was made with."""
    if not PARAMETERS.is_file():
        pytest.skip(f"no reference parameters: there is no {PARAMETERS}")
    return Postprocessor.load(PARAMETERS)


@pytest.fixture(scope="module")
def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Embeddings and what the original's postprocessor made of them."""
    path = REFERENCE / "vggish_reference.npz"
    if not path.is_file():
        pytest.skip(f"no reference outputs: there is no {path}")
    with np.load(path) as stored:
        names = {key.split("/")[0] for key in stored}
        return {name: (stored[f"{name}/embedding"], stored[f"{name}/quantized"]) for name in sorted(names)}


def parameters(**changes: Any) -> dict[str, Any]:
    values = np.random.default_rng(0).normal(size=(129, 128)).astype(np.float32)
    return {"pca_eigen_vectors": values[:128], "pca_means": values[128:].T, **changes}


def npz_bytes(compressed: bool = False, **contents: Any) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **contents)
    return stream.getvalue()


# Against the original


def test_every_byte_is_the_originals(postprocessor: Postprocessor, cases: dict[str, Any]) -> None:
    embeddings, expected = (np.concatenate(column) for column in zip(*cases.values(), strict=True))
    assert expected.shape == (25, 128)
    unrounded = postprocessor.unrounded(embeddings)
    is_saturated = (unrounded == 0) | (unrounded == 255)
    is_near = (np.abs(unrounded - np.round(unrounded)) < NEAR) & ~is_saturated
    assert is_near.sum() == 16
    np.testing.assert_array_equal(postprocessor(embeddings)[~is_near], expected[~is_near])
    assert np.abs(postprocessor(embeddings).astype(int) - expected).max() <= 1


def test_a_clip_without_a_whole_patch_has_no_bytes(postprocessor: Postprocessor, cases: dict[str, Any]) -> None:
    embeddings, expected = cases["len_15599"]
    quantised = postprocessor(embeddings)
    assert (quantised.shape, quantised.dtype) == (expected.shape, expected.dtype) == ((0, 128), np.uint8)


def test_a_patch_does_not_depend_on_its_neighbours(postprocessor: Postprocessor, cases: dict[str, Any]) -> None:
    embeddings = np.concatenate([embedding for embedding, _ in cases.values()])
    one_by_one = [postprocessor.unrounded(embeddings[index : index + 1])[0] for index in range(len(embeddings))]
    np.testing.assert_array_equal(one_by_one, postprocessor.unrounded(embeddings))


def test_components_are_rows_and_means_come_off_first() -> None:
    values = parameters()
    embeddings = np.random.default_rng(1).normal(size=(9, 128)).astype(np.float32) / 16
    centred = embeddings.astype(np.float64) - values["pca_means"][:, 0]
    expected = [[component @ patch for component in values["pca_eigen_vectors"]] for patch in centred]
    expected = (np.clip(expected, -2, 2) + 2) * 255 / 4
    for means in (values["pca_means"], values["pca_means"][:, 0]):
        unrounded = Postprocessor(values["pca_eigen_vectors"], means).unrounded(embeddings)
        assert unrounded.dtype == np.float32
        np.testing.assert_allclose(unrounded, expected, atol=1e-3)
    assert 0.1 < np.mean((expected > 0) & (expected < 255)) < 0.9


@pytest.mark.parametrize(
    ("value", "byte"),
    [(-9, 0), (-2, 0), (-1.985, 0), (-1.984, 1), (0, 127), (1.9999, 254), (2, 255), (3e30, 255)],
)
def test_values_are_clipped_and_truncated(value: float, byte: int) -> None:
    assert IDENTITY(np.full((1, 128), value, np.float32)).tolist() == [[byte] * 128]


# And back


def test_dequantised_values_are_those_of_youtube_8m() -> None:
    values = dequantize(np.array([0, 1, 128, 255], np.uint8))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [-1.9921875, -1.9765012, 0.0156556, 2.0078125], atol=3e-7)


@given(arrays(np.float32, (2, 128), elements=st.floats(-2, 2, width=32)))
def test_dequantised_values_are_near_what_they_were(embeddings: np.ndarray) -> None:
    back = dequantize(IDENTITY(embeddings))
    assert back.shape == (2, 128)
    assert np.abs(back - embeddings).max() <= 4 / 510 + 1e-4


def test_dequantising_and_quantising_again_changes_no_byte() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(2, 128)
    np.testing.assert_array_equal(IDENTITY(dequantize(every)), every)


def test_signed_bytes_are_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"dtype int8; expected uint8.*128 to 255 became -128 to -1.*view\(np.uint8\)"):
        dequantize(np.array([[-128, 127]], np.int8))


def test_values_that_are_not_quantised_are_refused() -> None:
    with pytest.raises(UsageError, match=r"dtype float32; expected uint8.*they are not quantised"):
        dequantize(np.zeros((1, 128), np.float32))


# Embeddings that are none


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.zeros(128, np.float32), r"shape \(128,\) and dtype float32; expected \(n_patches, 128\)"),
        (np.zeros((3, 1024), np.float32), r"shape \(3, 1024\).*another model than VGGish"),
        (np.zeros((1, 3, 128), np.float32), r"shape \(1, 3, 128\)"),
        (np.zeros((3, 128), np.uint8), r"dtype uint8; expected .* float32.*quantised already"),
        *(
            (np.full((1, 128), value), "NaN, infinite or absurdly large values; expected finite")
            for value in (np.nan, np.inf, -np.inf, np.float32(3e38), 1e300)
        ),
    ],
)
def test_embeddings_of_another_kind_are_refused(embeddings: np.ndarray, message: str) -> None:
    flat = Postprocessor(np.ones((128, 128), np.float32), np.zeros(128, np.float32))
    with pytest.raises(UsageError, match=message):
        flat(embeddings)


# Parameters


@pytest.mark.parametrize("compressed", [False, True])
def test_parameters_of_ones_own_are_read(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "own.npz"
    path.write_bytes(npz_bytes(compressed, **parameters(), more=np.zeros(3)))
    loaded = Postprocessor.load(path)
    np.testing.assert_array_equal(loaded.pca_eigen_vectors, parameters()["pca_eigen_vectors"])
    np.testing.assert_array_equal(loaded.pca_means, parameters()["pca_means"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pca_means": np.zeros((1, 128), np.float32)}, r"pca_means has shape \(1, 128\); expected \(128,\) or \(128,"),
        ({"pca_eigen_vectors": np.zeros((128, 64), np.float32)}, r"pca_eigen_vectors has shape \(128, 64\); expected"),
        ({"pca_means": np.full(128, np.nan, np.float32)}, "pca_means holds NaN or infinite values"),
        ({"pca_means": np.full(128, 1e300)}, "pca_means holds NaN or infinite values"),
        ({"pca_eigen_vectors": np.eye(128, dtype=np.int64)}, "pca_eigen_vectors has dtype int64; expected floating"),
        ({"pca_means": np.full(128, "0")}, "pca_means has dtype <U1; expected floating"),
    ],
)
def test_parameters_of_another_kind_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=f"^{message}"):
        Postprocessor(**parameters(**changes))
    path = tmp_path / "own.npz"
    path.write_bytes(npz_bytes(**parameters(**changes)))
    with pytest.raises(WeightsError, match=rf"own\.npz: {message}.*Next step: use the published vggish_pca_params"):
        Postprocessor.load(path)


def npy_bytes() -> bytes:
    stream = io.BytesIO()
    np.save(stream, parameters()["pca_means"])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (None, "No such file"),
        (b"", "not a zip file"),
        (b"not an archive", "not a zip file"),
        (npy_bytes(), "not a zip file"),
        (npz_bytes(**parameters())[:-1000], "not a zip file"),
        (npz_bytes(pca_eigen_vectors=parameters()["pca_eigen_vectors"]), r"no item named 'pca_means\.npy'"),
        (npz_bytes(embeddings=np.zeros(3)), r"no item named 'pca_eigen_vectors\.npy'"),
    ],
    ids=["missing", "empty", "text", "npy", "cut", "no means", "other arrays"],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, contents: bytes | None, message: str) -> None:
    path = tmp_path / "pca.npz"
    if contents is not None:
        path.write_bytes(contents)
    expected = rf"pca\.npz: it cannot be read as an \.npz file with pca_eigen_vectors and pca_means \(.*{message}"
    with pytest.raises(WeightsError, match=rf"{expected}.*Next step: use the published") as caught:
        Postprocessor.load(path)
    assert caught.value.exit_code == 5


def test_a_compression_that_numpy_does_not_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pca.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("pca_eigen_vectors.npy", npy_bytes())
    with pytest.raises(WeightsError, match=r"pca_eigen_vectors\.npy is compressed by method 14, which NumPy does not"):
        Postprocessor.load(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be read as an \.npz file"):
        Postprocessor.load(tmp_path)


class Dangerous:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_pickled_is_loaded(tmp_path: Path) -> None:
    path, victim = tmp_path / "pca.npz", tmp_path / "victim"
    path.write_bytes(npz_bytes(**parameters(pca_means=np.array([Dangerous(victim)] * 128))))
    with pytest.raises(WeightsError, match="Object arrays cannot be loaded when allow_pickle=False"):
        Postprocessor.load(path)
    assert not victim.exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_refused_or_does_no_harm(tmp_path: Path, compressed: bool) -> None:
    whole = npz_bytes(compressed, **parameters())
    rng = np.random.default_rng(0)
    ends = (*range(200), *range(len(whole) - 900, len(whole)))  # where zip and NumPy keep their headers
    path, n_refused = tmp_path / "pca.npz", 0
    for position in (*ends, *rng.integers(0, len(whole), 100).tolist()):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            loaded = Postprocessor.load(path)
        except WeightsError:
            n_refused += 1
        else:
            np.testing.assert_array_equal(loaded.pca_eigen_vectors, parameters()["pca_eigen_vectors"])
            np.testing.assert_array_equal(loaded.pca_means, parameters()["pca_means"])
    assert n_refused > 700


def test_a_cut_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole, path = npz_bytes(**parameters()), tmp_path / "pca.npz"
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"pca\.npz: it cannot be read"):
            Postprocessor.load(path)
