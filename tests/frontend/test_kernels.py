"""The numerical tests under each kernel that a BLAS library may pick, each in a process of its own.

OpenBLAS picks by the processor; ``OPENBLAS_CORETYPE`` picks for it. numpy's own instructions are held to what the
processors of that kernel have, so that this machine computes as they do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__
from published_log_mels import SPECS, features

AVX512 = tuple(name for name in __cpu_dispatch__ if "AVX512" in name or name == "X86_V4")
AVX2 = tuple(name for name in __cpu_dispatch__ if name in ("AVX2", "FMA3", "X86_V3"))
# OpenBLAS's kernel -> what numpy may not use beside it
KERNELS = {"SkylakeX": (), "Haswell": AVX512, "Zen": AVX512, "Sandybridge": AVX512 + AVX2, "Prescott": AVX512 + AVX2}
TESTS = Path(__file__).parents[1]
NUMERICAL = ("frontend/test_frontend.py", "models/test_stream.py", "runs/test_batch.py")
# Computes log-mels in a child, after a product that shows whether the processor can execute the kernel.
CHILD = """
import sys, numpy as np
np.ones((64, 64), np.float32) @ np.ones((64, 64), np.float32)
sys.path.insert(0, sys.argv[1])
from published_log_mels import features
np.savez(sys.argv[2], **features())
"""


def environment(kernel: str, *, holds_numpy: bool) -> dict[str, str]:
    """The environment of a process under a kernel; ``holds_numpy``: with numpy's instructions of such processors."""
    held = {"NPY_DISABLE_CPU_FEATURES": " ".join(KERNELS[kernel])} if holds_numpy and KERNELS[kernel] else {}
    return {**os.environ, "OPENBLAS_CORETYPE": kernel, **held}


@cache
def features_under(kernel: str, folder: Path, *, holds_numpy: bool) -> dict[str, np.ndarray]:
    """Log-mels that a process under a kernel has computed; skips where this processor cannot execute it."""
    target = folder / f"{kernel}-{holds_numpy}.npz"
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(TESTS), str(target)],
        env=environment(kernel, holds_numpy=holds_numpy),
        capture_output=True,
        text=True,
    )
    if child.returncode == -signal.SIGILL:
        pytest.skip(f"this processor cannot execute OpenBLAS's kernel {kernel}")
    assert child.returncode == 0, child.stderr
    with np.load(target) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_numerical_tests_pass_under_a_kernel(kernel: str, folder: Path) -> None:
    features_under(kernel, folder, holds_numpy=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "numerical", *NUMERICAL]
    child = subprocess.run(
        command,
        cwd=TESTS,
        env=environment(kernel, holds_numpy=True),
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stdout[-5_000:] + child.stderr[-2_000:]


@pytest.mark.parametrize("kernel", KERNELS)
def test_log_mels_have_the_same_bits_under_every_kernel(kernel: str, folder: Path) -> None:
    for name, values in features_under(kernel, folder, holds_numpy=False).items():
        np.testing.assert_array_equal(values, here()[name], err_msg=name)


@pytest.mark.parametrize("kernel", KERNELS)
def test_log_mels_of_other_processors_differ_by_float32_rounding(kernel: str, folder: Path) -> None:
    """Square roots and logarithms of other instructions: each is within 4 units in the last place of the exact one.

    That is twice 4 units of the logarithm's result, and a change of the magnitude by 4 units of 2**-24, squared in a
    power, which the logarithm turns into as much in absolute terms.
    """
    for name, values in features_under(kernel, folder, holds_numpy=True).items():
        spec = next(spec for spec in SPECS if spec.name == name.partition("/")[0])
        of_magnitude = 2 * 4 * spec.power * 2**-24 * (10 / np.log(10) if spec.log == "decibel" else 1)
        of_logarithm = 2 * 4 * np.spacing(np.abs(values * np.float32(spec.log_scale) + np.float32(spec.log_mean)))
        bound = (of_magnitude + of_logarithm) / abs(spec.log_scale) + 4 * np.spacing(np.abs(values))
        assert (np.abs(values - here()[name]) <= bound).all(), name


@cache
def here() -> dict[str, np.ndarray]:
    """Log-mels of this process, under whichever kernel it has."""
    return features()
