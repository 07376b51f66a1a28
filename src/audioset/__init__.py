"""Everything around Google's AudioSet: tag, embed, evaluate, train.

>>> import audioset
>>> model = audioset.load_model("yamnet")            # doctest: +SKIP
>>> model.predict_file("street.wav").top(3)          # doctest: +SKIP

Names are imported when they are first used, so ``import audioset`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audioset import metrics as metrics
    from audioset.audio import read_audio as read_audio
    from audioset.batch import Result as Result
    from audioset.batch import tag_files as tag_files
    from audioset.errors import AudioSetError as AudioSetError
    from audioset.errors import AudioWarning as AudioWarning
    from audioset.events import Event as Event
    from audioset.export.exporting import export_model as export_model
    from audioset.frontend import FrontendSpec as FrontendSpec
    from audioset.labels import LabelSet as LabelSet
    from audioset.limits import LIMITS as LIMITS
    from audioset.limits import Limits as Limits
    from audioset.loading import load_model as load_model
    from audioset.ontology import Ontology as Ontology
    from audioset.postprocess import Postprocessor as Postprocessor
    from audioset.postprocess import dequantize as dequantize
    from audioset.predict import Model as Model
    from audioset.predict import Prediction as Prediction

__version__ = "0.1.0"

_HOME = {
    "LIMITS": "limits",
    "Limits": "limits",
    "read_audio": "audio",
    "AudioSetError": "errors",
    "AudioWarning": "errors",
    "Result": "batch",
    "tag_files": "batch",
    "Event": "events",
    "export_model": "export.exporting",
    "FrontendSpec": "frontend",
    "LabelSet": "labels",
    "Ontology": "ontology",
    "Postprocessor": "postprocess",
    "dequantize": "postprocess",
    "Model": "predict",
    "Prediction": "predict",
    "load_model": "loading",
}

_MODULES = ("metrics",)

__all__ = [*_HOME, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"audioset.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'audioset' has no attribute {name!r}")
    return getattr(import_module(f"audioset.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
