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
    from audioset.audio.limits import LIMITS as LIMITS
    from audioset.audio.limits import Limits as Limits
    from audioset.audio.reading import read_audio as read_audio
    from audioset.errors import AudioSetError as AudioSetError
    from audioset.errors import AudioWarning as AudioWarning
    from audioset.export.exporting import export_model as export_model
    from audioset.frontend.spec import FrontendSpec as FrontendSpec
    from audioset.labels.events import Event as Event
    from audioset.labels.labels import LabelSet as LabelSet
    from audioset.labels.ontology import Ontology as Ontology
    from audioset.models.loading import load_model as load_model
    from audioset.models.model import Model as Model
    from audioset.models.postprocess import Postprocessor as Postprocessor
    from audioset.models.postprocess import dequantize as dequantize
    from audioset.models.prediction import Prediction as Prediction
    from audioset.runs.batch import Result as Result
    from audioset.runs.batch import tag_files as tag_files

__version__ = "0.1.0"

_HOME = {
    "LIMITS": "audio.limits",
    "Limits": "audio.limits",
    "read_audio": "audio.reading",
    "AudioSetError": "errors",
    "AudioWarning": "errors",
    "Result": "runs.batch",
    "tag_files": "runs.batch",
    "Event": "labels.events",
    "export_model": "export.exporting",
    "FrontendSpec": "frontend.spec",
    "LabelSet": "labels.labels",
    "Ontology": "labels.ontology",
    "Postprocessor": "models.postprocess",
    "dequantize": "models.postprocess",
    "Model": "models.model",
    "Prediction": "models.prediction",
    "load_model": "models.loading",
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
