"""Output formats: one small file for each, and one table of rows that all of them write.

>>> from contextlib import closing
>>> with open_output("tags.csv") as stream, closing(make_writer("csv", stream, TAG_FORMATS)) as writer:
...     writer.write(row)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from audioset.errors import UsageError
from audioset.formats.audacity import AudacityWriter
from audioset.formats.csv_lines import CsvWriter, EventCsvWriter
from audioset.formats.dcase import DcaseWriter, StrongWriter
from audioset.formats.event_table import EventTableWriter
from audioset.formats.event_tags import audacity_events, raven_events
from audioset.formats.json_array import JsonWriter
from audioset.formats.jsonl import EmbeddingJsonlWriter, EventJsonlWriter, JsonlWriter
from audioset.formats.npz import NpzWriter
from audioset.formats.output import Output as Output
from audioset.formats.output import Stream as Stream
from audioset.formats.output import open_output as open_output
from audioset.formats.parquet import EmbeddingParquetWriter, EventParquetWriter, ParquetWriter
from audioset.formats.raven import RavenWriter
from audioset.formats.rows import EmbeddingRow as EmbeddingRow
from audioset.formats.rows import EventRow as EventRow
from audioset.formats.rows import Row as Row
from audioset.formats.rows import Tag as Tag
from audioset.formats.rows import Writer as Writer
from audioset.formats.rows import printable as printable
from audioset.formats.table import TableWriter
from audioset.formats.textgrid import TextGridWriter
from audioset.formats.tfrecord import TFRecordWriter
from audioset.formats.webvtt import WebVttWriter

AnyRow = TypeVar("AnyRow")

# In each table, the first format is the default.
TAG_FORMATS: dict[str, Callable[[Stream], Writer[Row]]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": JsonlWriter,
    "csv": CsvWriter,
    "parquet": ParquetWriter,
    "audacity": AudacityWriter,
    "raven": RavenWriter,
}

EVENT_FORMATS: dict[str, Callable[[Stream], Writer[EventRow]]] = {
    "table": EventTableWriter,
    "jsonl": EventJsonlWriter,
    "csv": EventCsvWriter,
    "parquet": EventParquetWriter,
    "audacity": audacity_events,
    "raven": raven_events,
    "dcase": DcaseWriter,
    "audioset-strong": StrongWriter,
    "textgrid": TextGridWriter,
    "webvtt": WebVttWriter,
}

EMBED_FORMATS: dict[str, Callable[[Stream], Writer[EmbeddingRow]]] = {
    "jsonl": EmbeddingJsonlWriter,
    "npz": NpzWriter,
    "parquet": EmbeddingParquetWriter,
    "tfrecord": TFRecordWriter,
}

# What an output's name says about its format. ".txt" says nothing: Audacity, Raven and the table all use it.
SUFFIXES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".npz": "npz",
    ".tfrecord": "tfrecord",
    ".tfrecords": "tfrecord",
    ".tsv": "dcase",
    ".textgrid": "textgrid",
    ".vtt": "webvtt",
}


def make_writer(name: str, stream: Stream, formats: Mapping[str, Callable[[Stream], Writer[AnyRow]]]) -> Writer[AnyRow]:
    """A writer of the format ``name``.

    Parameters
    ----------
    name : str
        A key of ``formats``.
    stream : binary stream
        From ``open_output``, or any other that can be written to.
    formats : mapping
        ``TAG_FORMATS``, ``EVENT_FORMATS`` or ``EMBED_FORMATS``.

    Returns
    -------
    Writer
        ``write(row)`` each row, then ``close()`` once, also after an error.

    Raises
    ------
    UsageError
        If there is no such format.
    MissingExtraError
        If the format needs a package that is not installed.
    """
    if name not in formats:
        raise UsageError(f"format is {name!r}; expected one of {', '.join(formats)}")
    return formats[name](stream)
