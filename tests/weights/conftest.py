"""What the stored TensorFlow checkpoints hold."""

from __future__ import annotations

import numpy as np
import pytest
from tf_files import FOLDER

# ---- What TensorFlow wrote


@pytest.fixture(scope="module")
def expected():
    if not (FOLDER / "expected.npz").is_file():
        pytest.skip(f"no checkpoints of TensorFlow's: there is no {FOLDER / 'expected.npz'}")
    with np.load(FOLDER / "expected.npz") as arrays:
        return {name.replace("|", "/"): value for name, value in arrays.items()}
