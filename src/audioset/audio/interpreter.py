"""Which Python runs the processes that decode, with which variables, and where they import from."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

from audioset.errors import EngineError

INTERPRETER = re.compile(r"(python|pypy)[\d.]*w?t?(\.exe)?", re.IGNORECASE)
# What makes Python read a file or import a module of its own before the command runs.
NOT_INHERITED = frozenset(("PYTHONINSPECT", "PYTHONSTARTUP"))
ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps freed arrays for the next ones (concurrency.py): otherwise 1,200 page faults, 2 ms of 12 for ten
    # seconds of audio. It allows no more than 32 MiB for the first.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


def find_interpreter() -> str:
    """Python's program: ``sys.executable``, but where an application brings Python and that is the application.

    ``EngineError`` with code ``worker``, if there is none.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folders = [
        Path(folder) / name
        for folder in (sys.prefix, sys.exec_prefix, sys.base_prefix)
        for name in (("", "Scripts") if sys.platform == "win32" else ("bin",))
    ]
    folders.append(Path(sysconfig.get_config_var("BINDIR") or sys.prefix))
    suffix = ".exe" if sys.platform == "win32" else ""
    names = [f"{name}{suffix}" for name in (f"python{version}", "python3", "python")]
    known = [sys.executable, getattr(sys, "_base_executable", None)]
    candidates: list[str] = [*filter(None, known), *(str(folder / name) for folder in folders for name in names)]
    for path in candidates:
        if INTERPRETER.fullmatch(os.path.basename(path)) and os.access(path, os.X_OK):  # noqa: PTH119
            return path
    raise EngineError(
        "decoding needs a process of its own, and there is no Python to start it: sys.executable is "
        f"{sys.executable!r}, and there is none in {', '.join(dict.fromkeys(map(str, folders)))}. Likely cause: Python "
        f"runs inside another program. Next step: set sys.executable to the path of Python {version}, or use "
        "model.predict_file",
        code="worker",
    )


def child_environment() -> dict[str, str]:
    """Variables of a child: those of this process and ``ENVIRONMENT``, and where it imports from."""
    inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    return {**inherited, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(_import_path())}


def _import_path() -> list[str]:
    """Where a child imports from: where this process does, but not the current folder nor that of the main script.

    If this package itself is in one of these, that folder comes last, so that no file in it hides a module.
    """
    package = str(Path(__file__).parents[2])
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    unwanted = {_real(os.path.dirname(script))} if script else set()  # noqa: PTH120
    with suppress(OSError):  # it was deleted
        unwanted.add(_real(os.getcwd()))  # noqa: PTH109
    wanted = [os.path.abspath(path) for path in sys.path if path and _real(path) not in unwanted]  # noqa: PTH100
    return wanted if package in wanted else [*wanted, package]


def _real(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def fill_standard_descriptors() -> None:
    """Open the null device as each of the descriptors 0, 1 and 2 that is closed, for reading: writing still fails.

    Otherwise the next file or pipe would get that number, and whatever prints would write into it.
    """
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
