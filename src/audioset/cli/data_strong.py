"""``audioset data strong``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import OUTPUT, OVERWRITE, files_read, option, takes

if TYPE_CHECKING:
    from audioset.dataset.lists.segments import SegmentList
    from audioset.dataset.lists.strong import StrongTable
    from audioset.formats import EventRow

N_TOP = 10
SEGMENTS = "segments"
# As in audioset.formats, which is imported when it is needed.
FORMATS = (SEGMENTS, "dcase", "audacity", "raven", "csv", "jsonl", "parquet", "textgrid", "audioset-strong")
ONE_CLIP = ("audacity", "textgrid")
RELATIONS = {
    "same": "among the 527, with the same name",
    "renamed": "among the 527, with another name",
    "ontology": "only in the ontology",
    "none": "in neither",
}


@click.group()
def strong() -> None:
    """Count and convert the labels with times: 456 of them, on clips of ten seconds.

    A table is a file, or the name of a published one: train, eval, eval_framed. These are looked for in the folders of
    AUDIOSET_ASSETS and fetched if they are not there.

    \b
    Examples:
      audioset data strong stats eval
      audioset data strong map
      audioset data strong convert eval --format dcase --suffix .wav --output eval.tsv
    """


@strong.command()
@click.argument("source", metavar="TABLE")
@click.option("--top", "n_top", metavar="N", type=click.IntRange(0), default=N_TOP, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all labels.")
def stats(source: str, n_top: int, as_json: bool) -> None:
    """Count clips, events and labels of TABLE; of frames, those with a label and those surely without it."""
    from audioset.dataset.lists.published import strong_path
    from audioset.dataset.lists.strong import read_strong

    record = _count(read_strong(strong_path(source)))
    if as_json:
        echo(json.dumps(record, indent=2))
        return
    labels = record.pop("labels")
    for key, value in record.items():
        echo(f"{key:14s} {value:,}")
    echo()
    echo(f"{'rows':>9s} {'clips':>9s} {'seconds':>11s}  label")
    for row in labels[:n_top]:
        counts = f"{row['n_rows']:9,} {row['n_clips']:9,} {row['duration_s']:11,.1f}"
        echo(f"{counts}  {row['label']}  {row['label_id']}")


@strong.command("map")
@click.option("--all", "is_all", is_flag=True, help="Also those among the 527 with the same name.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all labels.")
def map_labels(is_all: bool, as_json: bool) -> None:
    """Say where each of the 456 labels is among the 527 and in the ontology.

    For a label that is only in the ontology, it names the nearest of the 527 above it.
    """
    from audioset.dataset.lists.strong_map import map_strong_labels
    from audioset.labels.ontology import Ontology

    classes = map_strong_labels()
    if as_json:
        echo(json.dumps([asdict(entry) for entry in classes], indent=2))
        return
    name = Ontology.load().name
    for relation, title in RELATIONS.items():
        entries = [entry for entry in classes if entry.relation == relation]
        echo(f"{len(entries)} {title}")
        for entry in entries if is_all or relation != "same" else ():
            other = f" = {entry.other_name}" if relation == "renamed" else ""
            above = " < " + " | ".join(map(name, entry.above)) if entry.above else ""
            echo(f"  {entry.label_id:13s} {entry.label}{other}{above}")


@dataclass(frozen=True)
class ConvertOptions:
    """What is made of which events."""

    format_name: str = option(
        "segments: clips with labels.", flags="--format", choices=FORMATS, required=True, old="--to"
    )
    clips: tuple[str, ...] = option("Only this clip, such as s9d-2nhuJCQ_30000.", "ID", "--clip")
    is_absolute: bool = option("Times from the start of the video, which names rows.", flags="--absolute")
    suffix: str = option("What follows the id in names of files, such as .wav.", "TEXT", default="")
    ends: str | None = option("For segments: a list of clips that says where they end.", "LIST", "--list")
    label_set: str = option(
        "audioset-527: only labels that are among these, with their names there.",
        flags="--labels",
        choices=("audioset-strong", "audioset-527"),
        default="audioset-strong",
    )
    output: str | None = option(OUTPUT, "FILE", "--output -o")
    overwrite: bool = option(OVERWRITE)


@strong.command()
@click.argument("source", metavar="TABLE")
@takes(wanted=ConvertOptions)
def convert(source: str, wanted: ConvertOptions) -> None:
    """Write TABLE in another format. Frames that touch become one event; those without the label are left out."""
    from audioset.dataset.lists.published import strong_path
    from audioset.dataset.lists.segments import format_segments, is_segment_list
    from audioset.dataset.lists.strong import read_strong, strong_to_segments
    from audioset.errors import UsageError
    from audioset.formats import EVENT_FORMATS, OWN_EVENTS, check_output, make_writer, open_output

    form, output = wanted.format_name, wanted.output
    own = {SEGMENTS: is_segment_list, **OWN_EVENTS}[form]
    check_output(output, files_read(strong_path(source)), own, overwrites=wanted.overwrite)
    table = _with_labels(read_strong(strong_path(source)), wanted.label_set)
    table = _with_clips(table, wanted.clips) if wanted.clips else table
    if form in ONE_CLIP and len(table.segment_ids) != 1:
        raise UsageError(
            f"{form} describes one recording, and the table has {len(table.segment_ids):,} clips. Next step: --clip ID"
        )
    with open_output(output) as stream:
        if form == SEGMENTS:
            for data in format_segments(strong_to_segments(table, _ends(wanted.ends))):
                stream.write(data)
            return
        with closing(make_writer(form, stream, EVENT_FORMATS)) as writer:
            for row in _rows(table, wanted.suffix, is_absolute=wanted.is_absolute):
                writer.write(row)


def _count(table: StrongTable) -> dict[str, Any]:
    import numpy as np

    n_labels = len(table.labels)
    pairs = np.unique(np.stack([table.clip_index, table.label_index], axis=1), axis=0)
    n_rows = np.bincount(table.label_index, minlength=n_labels)
    n_clips = np.bincount(pairs[:, 1], minlength=n_labels)
    duration_s = np.bincount(table.label_index, table.end_s - table.start_s, n_labels)
    order = np.argsort(-n_rows, kind="stable")
    record: dict[str, Any] = {"n_clips": len(table.segment_ids), "n_rows": len(table)}
    if table.is_present is not None:
        record |= {"n_present": int(table.is_present.sum()), "n_not_present": int((~table.is_present).sum())}
    record["n_labels"] = int((n_rows > 0).sum())
    record["labels"] = [
        {
            "label_id": table.labels.ids[index],
            "label": table.labels.names[index],
            "n_rows": int(n_rows[index]),
            "n_clips": int(n_clips[index]),
            "duration_s": round(float(duration_s[index]), 3),
        }
        for index in order.tolist()
        if n_rows[index]
    ]
    return record


def _with_labels(table: StrongTable, label_set: str) -> StrongTable:
    """The rows whose labels are in a set; the labels have its names."""
    from dataclasses import replace

    import numpy as np

    from audioset.labels.labels import LabelSet

    labels = LabelSet.load(label_set)
    column = {label_id: index for index, label_id in enumerate(labels.ids)}
    new = np.array([column.get(label_id, -1) for label_id in table.labels.ids], np.int32)
    kept = table.take(new[table.label_index] >= 0)
    return replace(kept, labels=labels, label_index=new[kept.label_index])


def _with_clips(table: StrongTable, segment_ids: tuple[str, ...]) -> StrongTable:
    import numpy as np

    for segment_id in segment_ids:
        table.clip(segment_id)  # refuses those that are not there
    wanted = [place for place, segment_id in enumerate(table.segment_ids) if segment_id in set(segment_ids)]
    return table.take(np.isin(table.clip_index, wanted))


def _ends(source: str | None) -> SegmentList | None:
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.segments import read_segments

    return read_segments(segments_path(source)) if source else None


def _rows(table: StrongTable, suffix: str, *, is_absolute: bool) -> Iterator[EventRow]:
    from audioset.dataset.lists.strong import split_segment_id, strong_events
    from audioset.formats import EventRow

    for segment_id, events in strong_events(table, is_absolute=is_absolute):
        name = split_segment_id(segment_id)[0] if is_absolute else segment_id
        yield EventRow(f"{name}{suffix}", events, len(events), None, "", True)
