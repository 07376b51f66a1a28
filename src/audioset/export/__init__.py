"""Write a model in other formats, load it again and measure the difference.

Names are imported when they are first used: the table of formats costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from audioset.export.exporting import ExportResult as ExportResult
    from audioset.export.exporting import export_model as export_model
    from audioset.export.formats import FORMATS as FORMATS
    from audioset.export.formats import Format as Format

_HOME = {"ExportResult": "exporting", "export_model": "exporting", "FORMATS": "formats", "Format": "formats"}

__all__ = ["FORMATS", "ExportResult", "Format", "export_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'audioset.export' has no attribute {name!r}")
    return getattr(import_module(f"audioset.export.{_HOME[name]}"), name)
