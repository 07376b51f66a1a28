"""Cores: those that this process may use, not those of the machine; and freed memory, which a process may keep."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from audioset.concurrency import keep_freed_memory

CODE = """
import os
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from audioset import metrics
from audioset.concurrency import available_cores
from audioset.metrics import resampling

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
pools = []

class Noted(ThreadPoolExecutor):
    def __init__(self, n_threads):
        pools.append(n_threads)
        super().__init__(n_threads)

resampling.ThreadPoolExecutor = Noted
metrics.bootstrap(np.eye(2), np.eye(2), n_resamples=3)
print(available_cores(), pools)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no processes to cores")
def test_a_process_bound_to_one_core_counts_one() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout == "1 [1]\n", done.stderr


# ---- Memory, counted in pages that the system had to fill with zeros

COUNT_FAULTS = """
import resource, sys
import numpy as np
from audioset.concurrency import keep_freed_memory

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
