"""``audioset doctor``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import JsonOption, ModelName, takes
from audioset.errors import AudioSetError


@click.command(short_help="Show what works here, and how exactly.")
@takes(form=JsonOption, chosen=ModelName)
def doctor(form: JsonOption, chosen: ModelName) -> int:
    """Show versions, engines, codecs, cache and limits of this installation, and measure its exactness.

    Exits with 1 if a measurement is beyond its bound, with 5 if the weights are not here.
    """
    sections = {title: describe() for title, describe in SECTIONS.items()}
    sections["parity"], exit_code = _parity(chosen)
    if form.as_json:
        echo(json.dumps(sections, indent=2))
        return exit_code
    for title, rows in sections.items():
        click.echo(click.style(title, bold=True))
        for name, value in rows.items():
            echo(f"  {name:50s} {value}")
    return exit_code


def _machine() -> dict[str, Any]:
    import platform

    import numpy as np

    from audioset import __version__
    from audioset.concurrency import available_cores

    return {
        "audioset": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(),
        "cores": available_cores(),
    }


def _engines() -> dict[str, Any]:
    from audioset.executors.openvino import import_openvino, openvino_core

    core = openvino_core()
    engines = {
        "openvino": import_openvino().__version__.split("-")[0],
        "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "processor features": " ".join(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    }
    return {**engines, "onnxruntime": _version("onnxruntime", "onnxruntime")}


def _codecs() -> dict[str, Any]:
    import av
    import soundfile
    import soxr

    from audioset.audio.containers import known_formats

    ffmpeg = av.library_versions["libavcodec"]
    return {
        "libsndfile": soundfile.__libsndfile_version__,
        "libavcodec (FFmpeg)": ".".join(map(str, ffmpeg)),
        "soxr": soxr.__version__,
        "formats": ", ".join(known_formats()),
    }


EXTRAS = (("pyarrow", "data"), ("matplotlib", "plot"), ("torch", "train"), ("keras", "keras"))


def _extras() -> dict[str, Any]:
    return {name: _version(name, extra) for name, extra in EXTRAS}


def _version(package: str, extra: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return f'not installed: pip install "audioset[{extra}]"'


def _files() -> dict[str, Any]:
    from audioset.assets import ASSETS, find_asset
    from audioset.cache import cache_folder

    cache = cache_folder()
    n_bytes = sum(path.lstat().st_size for path in cache.rglob("*") if path.is_file())
    found = {name: str(path) for name in ASSETS if (path := find_asset(name))}
    missing = f"{len(ASSETS) - len(found)} of {len(ASSETS)} published files"
    return {"cache": f"{cache} ({n_bytes / 1e6:.1f} MB)", **found, "not on this machine": missing}


def _limits() -> dict[str, Any]:
    from audioset.audio.limits import LIMITS

    return asdict(LIMITS)


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "machine": _machine,
    "engines": _engines,
    "codecs": _codecs,
    "extras": _extras,
    "files": _files,
    "limits": _limits,
}


def _parity(chosen: ModelName) -> tuple[dict[str, str], int]:
    from audioset.models.loading import load_model
    from audioset.models.reproduction import parity_report

    try:
        model = load_model(chosen.model, weights=chosen.weights)
        checks = list(parity_report(model))
    except AudioSetError as error:
        return {"not measured": str(error)}, error.exit_code
    return {check.name: check.text for check in checks}, int(not all(check.is_ok for check in checks))
