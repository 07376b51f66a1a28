"""The examples run from start to end, as a reader would run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_warm_start_script(assets_folder):
    pytest.importorskip("torch")
    result = subprocess.run(
        [sys.executable, EXAMPLES / "warm_start.py"], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    shares = [int(line.split()[-6].rstrip("%,")) for line in result.stdout.splitlines() if "patches right" in line]
    assert len(shares) == 2
    assert min(shares) > 80


def test_the_notebook_on_vggish(vggish_assets, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for name in ("warm_start.ipynb", "warm_start.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.setenv("AUDIOSET_ASSETS", f"{vggish_assets}{os.pathsep}{os.environ['AUDIOSET_ASSETS']}")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = nbformat.read(tmp_path / "warm_start.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # what is stored has no results of old runs
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    values = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    shares = [float(value.strip("np.float64()")) for value in values if value.startswith("np.float64")]
    assert len(shares) == 2
    assert min(shares) > 0.8
