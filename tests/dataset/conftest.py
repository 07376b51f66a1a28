"""A small list of segments."""

from __future__ import annotations

from pathlib import Path

import pytest
from segment_lists import write


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.csv")
