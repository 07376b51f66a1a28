"""Output formats: one small file for each, and one table of rows that all of them write.

>>> from contextlib import closing
>>> with open_output("tags.csv") as stream, closing(make_writer("csv", stream, TAG_FORMATS)) as writer:
...     writer.write(row)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from audioset.errors import UsageError, one_line
from audioset.formats.csv_lines import CsvWriter, EventCsvWriter, is_event_csv, is_tag_csv
from audioset.formats.dcase import DcaseWriter, StrongWriter, is_audioset_strong, is_dcase
from audioset.formats.editors import (
    AudacityWriter,
    RavenWriter,
    audacity_events,
    is_audacity,
    is_raven,
    raven_events,
)
from audioset.formats.jsonl import (
    EmbeddingJsonlWriter,
    EventJsonlWriter,
    JsonlWriter,
    JsonWriter,
    is_embedding_jsonl,
    is_event_jsonl,
    is_tag_json,
)
from audioset.formats.npz import NpzWriter, is_npz
from audioset.formats.output import Output as Output
from audioset.formats.output import Stream as Stream
from audioset.formats.output import check_different as check_different
from audioset.formats.output import check_output as check_output
from audioset.formats.output import file_ids as file_ids
from audioset.formats.output import is_device as is_device
from audioset.formats.output import open_output as open_output
from audioset.formats.parquet import (
    EmbeddingParquetWriter,
    EventParquetWriter,
    ParquetWriter,
    is_embedding_parquet,
    is_event_parquet,
    is_tag_parquet,
)
from audioset.formats.recognising import Recogniser as Recogniser
from audioset.formats.rows import EmbeddingRow as EmbeddingRow
from audioset.formats.rows import EventRow as EventRow
from audioset.formats.rows import Row as Row
from audioset.formats.rows import Tag as Tag
from audioset.formats.rows import Writer as Writer
from audioset.formats.rows import printable as printable
from audioset.formats.table import EventTableWriter, TableWriter, is_table
from audioset.formats.textgrid import TextGridWriter, is_textgrid
from audioset.formats.tfrecord import TFRecordWriter, is_embedding_tfrecord
from audioset.formats.webvtt import WebVttWriter, is_webvtt

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

# For each format, what tells its files from those of other programs.
OWN_TAGS: dict[str, Recogniser] = {
    "table": is_table,
    "json": is_tag_json,
    "jsonl": is_tag_json,
    "csv": is_tag_csv,
    "parquet": is_tag_parquet,
    "audacity": is_audacity,
    "raven": is_raven,
}
OWN_EVENTS: dict[str, Recogniser] = {
    "table": is_table,
    "jsonl": is_event_jsonl,
    "csv": is_event_csv,
    "parquet": is_event_parquet,
    "audacity": is_audacity,
    "raven": is_raven,
    "dcase": is_dcase,
    "audioset-strong": is_audioset_strong,
    "textgrid": is_textgrid,
    "webvtt": is_webvtt,
}
OWN_EMBEDDINGS: dict[str, Recogniser] = {
    "jsonl": is_embedding_jsonl,
    "npz": is_npz,
    "parquet": is_embedding_parquet,
    "tfrecord": is_embedding_tfrecord,
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
PLAIN = ("", ".txt")  # endings that say nothing


def choose_format(target: str | os.PathLike[str] | None, chosen: str | None, formats: Iterable[str]) -> str:
    """The format of an output: the one that was chosen, or as its name says. None or ``"-"`` is standard output.

    The first of the formats that can be written is that of standard output, and of names that say nothing.
    ``UsageError`` if the name has the ending of another format, or of none.
    """
    known = tuple(formats)
    suffix = Path(target or "").suffix.lower()
    says_nothing = chosen is not None or target is None or suffix in PLAIN or is_device(Path(target))
    name = chosen or (known[0] if says_nothing else SUFFIXES.get(suffix))
    if name in known:
        return name
    endings = ", ".join(ending for ending, each in SUFFIXES.items() if each in known)
    shown = printable(target or "")
    if name is not None:
        raise UsageError(
            f"--output {shown} means {name}, which this command does not write; expected {', '.join(known)}"
        )
    raise UsageError(
        f"--output {shown} ends in {one_line(suffix)}, which no format has; expected {endings}. "
        "Next step: such a name, or --format"
    )


def make_writer(name: str, stream: Stream, formats: Mapping[str, Callable[[Stream], Writer[AnyRow]]]) -> Writer[AnyRow]:
    """A writer of the format ``name``: ``write(row)`` each row, then ``close()`` once, also after an error.

    The stream is from ``open_output``, or any other binary one that can be written to; formats are ``TAG_FORMATS``,
    ``EVENT_FORMATS`` or ``EMBED_FORMATS``. ``UsageError`` if there is no such format, ``MissingExtraError`` if it needs
    a package that is not installed.
    """
    if name not in formats:
        raise UsageError(f"format is {name!r}; expected one of {', '.join(formats)}")
    return formats[name](stream)
