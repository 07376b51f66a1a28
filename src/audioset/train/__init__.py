"""Train on top of the published networks, and on the released features, with PyTorch (the extra ``train``)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audioset.train.heads.config import TrainConfig as TrainConfig
    from audioset.train.heads.config import read_config as read_config
    from audioset.train.heads.training import train as train
    from audioset.train.warm_start import WarmStart as WarmStart
    from audioset.train.warm_start import fit as fit

# Imported when first used: the command line needs the names of the settings, not PyTorch.
_HOME = {
    "TrainConfig": "heads.config",
    "read_config": "heads.config",
    "train": "heads.training",
    "WarmStart": "warm_start",
    "fit": "warm_start",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'audioset.train' has no attribute {name!r}")
    return getattr(import_module(f"audioset.train.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
