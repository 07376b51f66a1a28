"""Where the published files and the stored outputs lie, and how the tests read them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from audioset.models.cards import NETWORKS
from audioset.networks.shapes import trace_shapes

Cases = dict[str, dict[str, np.ndarray]]
ASSETS = Path(
    os.environ.get("AUDIOSET_ASSETS", "").split(os.pathsep)[0] or Path(__file__).parents[2] / "shared" / "assets"
)
YAMNET_SHAPES, _ = trace_shapes(NETWORKS["yamnet"], (96, 64), {"n_classes": 521})


def reference_file(name: str) -> Path:
    """A file of the reference data, or the test is skipped."""
    path = ASSETS.parent / "reference" / name
    if not path.is_file():
        pytest.skip(f"no reference data: there is no {path}")
    return path


def read_cases(name: str) -> Cases:
    """Arrays named ``case/quantity`` as ``cases[case][quantity]``."""
    cases: Cases = {}
    with np.load(reference_file(name)) as arrays:
        for key, value in arrays.items():
            case, quantity = key.split("/")
            cases.setdefault(case, {})[quantity] = value
    return cases


def keras_name(name: str) -> str:
    """Where Keras 2 puts a tensor: ``layer1/conv/kernel`` is ``layer1/conv/layer1/conv/kernel:0``."""
    layer = name.rpartition("/")[0]
    return f"{layer}/{name}:0"
