"""What keeps freed memory in a process, counted in pages that the system had to fill with zeros."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from audioset.allocator import KEPT_MEMORY_ENVIRONMENT, keep_freed_memory
from audioset.runs.batch import WORKER_ENVIRONMENT

COUNT_FAULTS = """
import resource, sys
import numpy as np
from audioset.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
np.ones(24 << 20, np.uint8)  # glibc keeps arrays of up to the size that it has seen freed
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    arrays = [np.ones(size << 20, np.uint8) for size in (30, 50, 70)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def is_glibc():
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def faults(mode, **environment):
    command = [sys.executable, "-c", COUNT_FAULTS, mode]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**clean, **environment})
    return int(result.stdout)


@pytest.mark.skipif(not is_glibc(), reason="another C library: its allocator has no such thresholds")
def test_freed_memory_is_used_again():
    """Arrays of 30 to 70 MiB, ten times over: their pages are fetched once, and not ten times."""
    assert 3 * faults("kept") < faults("plain")


@pytest.mark.skipif(not is_glibc(), reason="another C library: its allocator has no such thresholds")
def test_what_the_environment_says_stays():
    given = {"MALLOC_MMAP_THRESHOLD_": "131072"}
    assert faults("kept", **given) > 3 * faults("kept")


def test_elsewhere_nothing_happens(monkeypatch):
    class Musl:
        """A C library without glibc's functions."""

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Musl())
    keep_freed_memory()
    monkeypatch.setattr("os.name", "nt")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("there is no such library on Windows"))
    keep_freed_memory()


def test_decoding_workers_have_the_same_thresholds():
    assert KEPT_MEMORY_ENVIRONMENT.items() <= WORKER_ENVIRONMENT.items()
