"""Read Keras HDF5 weights without Keras, and without following anything out of the file.

HDF5 links and virtual datasets can name other files on the reader's machine, and a dataset of a few
bytes can claim terabytes. Neither is needed for weights, so both are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import WeightsError
from audioset.files import check_regular
from audioset.records import DAMAGE, problem_of

# Older and newer savings of the same network differ in the name of its last layer.
LAYER_ALIASES = {"logits": ("logits", "dense")}
MAX_ITEMS = 10_000
MAX_DEPTH = 12  # published files nest four to seven groups


def read_keras_h5(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, FloatArray]:
    """Read exactly the tensors that a network needs from HDF5 of Keras 2 (``save_weights`` or ``save``), as float32.

    ``shapes`` are by name (``"layer1/conv/kernel"``), as ``networks.shapes.trace_shapes`` gives them; the result has
    the same order. WeightsError, which names the tensor: not an HDF5 file, a link or virtual dataset, a missing or
    additional layer, or a wrong shape or dtype.
    """
    import h5py

    try:
        check_regular(path)
        with h5py.File(path, "r") as file:
            root = _item(file, "model_weights", path) if "model_weights" in list(file) else file
            return _match(dict(_datasets(root, path)), shapes, path)
    except WeightsError:
        raise
    except (RuntimeError, *DAMAGE) as error:  # h5py's, for damage of all kinds
        raise WeightsError(
            f"{path} cannot be read as HDF5 ({error}). Likely cause: an unfinished download or another format. "
            "Next step: audioset models pull"
        ) from error


def _datasets(
    group: Any, path: Path, prefix: str = "", depth: int = 0, budget: Iterator[int] | None = None
) -> Iterator[tuple[str, Any]]:
    """Every weight below a group under its published name, ``optimizer_weights`` left out."""
    import h5py

    if depth > MAX_DEPTH:
        raise WeightsError(f"{path}: groups are nested more than {MAX_DEPTH} deep at {prefix!r}; this is no Keras file")
    budget = iter(range(MAX_ITEMS)) if budget is None else budget
    for key in group:
        name = f"{prefix}{key}"
        item = _item(group, key, path, prefix)
        if next(budget, None) is None:  # a few links to the same groups make a billion paths
            raise WeightsError(f"{path}: it has more than {MAX_ITEMS:,} groups and tensors; this is no Keras file")
        if isinstance(item, h5py.Group):
            if name != "optimizer_weights":
                yield from _datasets(item, path, f"{name}/", depth + 1, budget)
        else:
            _check_stored_here(item, name, path)
            yield _published_name(name), item


def _item(group: Any, key: str, path: Path, prefix: str = "") -> Any:
    """A group or dataset that is in the file itself."""
    import h5py

    name, link = f"{prefix}{key}", group.get(key, getlink=True)
    if isinstance(link, (h5py.SoftLink, h5py.ExternalLink)):
        kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
        target = getattr(link, "filename", link.path)
        raise WeightsError(f"{path}: {name!r} is {kind} to {target!r}; weights must be in the file itself")
    item = group[key]
    if not isinstance(item, (h5py.Group, h5py.Dataset)):
        raise WeightsError(f"{path}: {name!r} is neither a group nor a tensor; expected a Keras file")
    return item


def _check_stored_here(dataset: Any, name: str, path: Path) -> None:
    if dataset.is_virtual or dataset.external:
        raise WeightsError(
            f"{path}: {name!r} is a virtual or external dataset, which reads other files; weights must be in the "
            "file itself"
        )
    if dataset.dtype.kind != "f":
        raise WeightsError(f"{path}: {name!r} has dtype {dataset.dtype}; expected floating-point weights")
    if dataset.nbytes > path.stat().st_size:
        raise WeightsError(
            f"{path}: {name!r} claims {dataset.nbytes:,} bytes, more than the whole file holds; expected plain weights"
        )
    if problem := problem_of(dataset):
        raise WeightsError(f"{path}: {name!r} {problem}; expected plain weights")


def _published_name(name: str) -> str:
    """``layer1/conv/layer1/conv/kernel:0`` is Keras for ``layer1/conv/kernel``."""
    *parts, last = name.split(":")[0].split("/")
    half = len(parts) // 2
    layer = parts[half:] if parts[:half] == parts[half:] else parts
    return "/".join((*layer, last))


def _match(datasets: dict[str, Any], shapes: Mapping[str, tuple[int, ...]], path: Path) -> dict[str, FloatArray]:
    weights: dict[str, FloatArray] = {}
    for name, shape in shapes.items():
        layer, _, parameter = name.rpartition("/")
        aliases = [f"{alias}/{parameter}" for alias in LAYER_ALIASES.get(layer, (layer,))]
        found = next((alias for alias in aliases if alias in datasets), None)
        if found is None:
            raise WeightsError(
                f"{path} has no tensor {' or '.join(map(repr, aliases))}; it has {len(datasets)} tensors, such as "
                f"{', '.join(sorted(datasets)[:3]) or 'none'}. Likely cause: weights of another network"
            )
        dataset = datasets.pop(found)
        if dataset.shape != shape:
            raise WeightsError(
                f"{path}: {found!r} has shape {dataset.shape}; expected {shape}. Likely cause: weights of another "
                "network, or trained for another number of classes"
            )
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            weights[name] = np.asarray(dataset[()], np.float32)
        if not np.isfinite(weights[name]).all():
            raise WeightsError(f"{path}: {found!r} holds NaN or infinite values; expected finite weights")
    if datasets:
        raise WeightsError(
            f"{path} has {len(datasets)} tensors that the network does not know, such as {sorted(datasets)[0]!r}. "
            "Likely cause: weights of another network"
        )
    return weights
