"""Size of ``pip install audioset``: into a fresh virtual environment, all that it brings, on disk.

python benchmarks/bench_size.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"tensorflow", "torch", "keras", "jax"}


def n_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin" / "python"
        (packages,) = Path(folder).glob("lib/python*/site-packages")
        before = n_bytes(packages)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-compile", str(ROOT)], check=True)
        listing = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
        names = {row["name"].lower() for row in json.loads(listing.stdout)} - {"pip", "setuptools"}
        sizes = sorted(((n_bytes(item), item.name) for item in packages.iterdir() if item.is_dir()), reverse=True)
        print(f"  {len(names)} distributions, {(n_bytes(packages) - before) / 1e6:.0f} MB on disk")
        print(f"  largest: {', '.join(f'{name} {size / 1e6:.0f} MB' for size, name in sizes[:6])}")
        print(f"  without TensorFlow and torch: {'met' if not names & FORBIDDEN else 'MISSED'}")


if __name__ == "__main__":
    main()
