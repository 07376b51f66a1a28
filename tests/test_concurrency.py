"""Cores: those that this process may use, not those of the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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
