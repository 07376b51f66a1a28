"""``audioset data segments``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import OUTPUT, OVERWRITE, files_read, json_flag, option, takes

if TYPE_CHECKING:
    from audioset.dataset.lists.quality import Quality
    from audioset.dataset.lists.segments import SegmentList
    from audioset.dataset.lists.statistics import ClassCount, Statistics

SOURCES = "LISTS..."
N_TOP = 10
SHOWN_IDS = 3

LABEL_SETS = ("audioset-527", "audioset-strong")
LABELS = "The labels that may occur."


@click.group()
def segments() -> None:
    """Count, choose and repair the published lists of clips.

    A list is a file, or the name of a published one: eval, balanced_train, unbalanced_train. These are looked for in
    the folders of AUDIOSET_ASSETS and fetched if they are not there.

    \b
    Examples:
      audioset data segments stats eval --classes Animal
      audioset data segments select balanced_train --classes Dog --output dogs.csv
      audioset data segments repair from_excel.csv eval --output eval_segments.csv
    """


@dataclass(frozen=True)
class StatsOptions:
    """What is counted, and shown."""

    classes: tuple[str, ...] = option("Count this class and those below it.", "CLASS")
    n_top: int | None = option(f"Classes to show. Default: {N_TOP}.", "N", "--top", at_least=0)
    quality: Path | None = option("Show quality, from qa_true_counts.csv.", "FILE", "--qa")
    label_set: str = option(LABELS, flags="--labels", choices=LABEL_SETS, default=LABEL_SETS[0])
    as_json: bool = json_flag("As JSON, with all classes.")


@segments.command()
@click.argument("sources", nargs=-1, required=True, metavar=SOURCES)
@takes(wanted=StatsOptions)
def stats(sources: tuple[str, ...], wanted: StatsOptions) -> None:
    """Count clips, seconds, labels and classes of LISTS.

    A class is counted twice: clips with this label, and clips with this label or one below it.
    """
    from audioset.dataset.lists.quality import read_quality
    from audioset.dataset.lists.statistics import count_segments
    from audioset.labels.labels import LabelSet

    statistics = count_segments(_read(sources, wanted.label_set), LabelSet.load(wanted.label_set))
    counts = _below(statistics.classes, wanted.classes)
    ratings = read_quality(wanted.quality) if wanted.quality else {}
    if wanted.as_json:
        record = {**asdict(statistics), "classes": [_class_record(count, ratings) for count in counts]}
        echo(json.dumps(record, indent=2))
        return
    if not wanted.classes:
        for line in _summary(statistics):
            echo(line)
        echo()
    n_shown = wanted.n_top if wanted.n_top is not None else len(counts) if wanted.classes else N_TOP
    for line in _class_table(counts[:n_shown], ratings):
        echo(line)


@dataclass(frozen=True)
class SelectOptions:
    """Which clips are chosen."""

    classes: tuple[str, ...] = option("Clips with this class or one below it; repeated: with any.", "CLASS")
    all_of: tuple[str, ...] = option("The same; repeated: with each of them.", "CLASS")
    is_exact: bool = option("Classes below do not count.", flags="--exact")
    ids: Path | None = option("Clips whose ids are in FILE.", "FILE")
    exclude_ids: tuple[Path, ...] = option("No clips whose ids are in FILE.", "FILE")
    n_random: int | None = option("Of those, N at random.", "N", "--random", at_least=0)
    n_per_class: int | None = option(
        "Of those, so many at random that each class has N, or all it has.", "N", "--per-class", at_least=0
    )
    seed: int = option("Another one, other clips.", "N", default=0, show_default=True)
    limit: int | None = option("Of those, the first N.", "N", at_least=0)


@dataclass(frozen=True)
class ListOptions:
    """What labels there are, and where the list goes."""

    created: str | None = option("What line 1 says of the making. Default: as in the first list.", "TEXT")
    label_set: str = option(LABELS, flags="--labels", choices=LABEL_SETS, default=LABEL_SETS[0])
    output: str | None = option(OUTPUT, "FILE", "--output -o")
    overwrite: bool = option(OVERWRITE)


@segments.command()
@click.argument("sources", nargs=-1, required=True, metavar=SOURCES)
@takes(chosen=SelectOptions, wanted=ListOptions)
def select(sources: tuple[str, ...], chosen: SelectOptions, wanted: ListOptions) -> None:
    """Write the clips of LISTS for which all that is asked for holds, as another list.

    A class is given by its id or name. FILE with ids has one on each line; names such as ID_30.000_40.000.wav count
    as ids, so the lists of other datasets can be excluded as they are.
    """
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.segments import format_segments, is_segment_list
    from audioset.dataset.lists.selection import Selection, read_video_ids
    from audioset.dataset.lists.selection import select as select_clips
    from audioset.formats.output import check_output, open_output

    ids = read_video_ids(chosen.ids) if chosen.ids else None
    excluded = frozenset().union(*map(read_video_ids, chosen.exclude_ids))
    options = vars(chosen).items()
    others = {name: value for name, value in options if name not in ("classes", "ids", "exclude_ids")}
    selection = Selection(chosen.classes, video_ids=ids, excluded_ids=excluded, **others)
    read = files_read(*map(segments_path, sources))
    check_output(wanted.output, read, is_segment_list, overwrites=wanted.overwrite)
    clips = _read(sources, wanted.label_set)
    found = select_clips(clips, selection)
    with open_output(wanted.output) as stream:
        for data in format_segments(found, wanted.created):
            stream.write(data)
    if ids:
        _say_missing(ids, clips)
    echo(f"audioset: {len(found):,} of {len(clips):,} clips", err=True)


@dataclass(frozen=True)
class RepairOptions:
    """What is written."""

    report: str | None = option("Write what was mended, row by row, as JSON.", "FILE")
    output: str | None = option(OUTPUT, "FILE", "--output -o")
    overwrite: bool = option(OVERWRITE)


@segments.command()
@click.argument("damaged", metavar="DAMAGED", type=click.Path(path_type=Path))
@click.argument("official", metavar="OFFICIAL")
@takes(wanted=RepairOptions)
def repair(damaged: Path, official: str, wanted: RepairOptions) -> None:
    """Mend the list DAMAGED, which a spreadsheet or another program has spoilt, with the published list OFFICIAL.

    Both have their rows in the same order, so the n-th row of the one gives what the n-th row of the other has lost.
    Lists that do not correspond are refused.
    """
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.repair import is_repair_report, repair_segments
    from audioset.dataset.lists.segments import format_segments, is_segment_list
    from audioset.formats.output import check_different, check_output, open_output

    report, output, overwrite = wanted.report, wanted.output, wanted.overwrite
    check_different(report=report, output=output)
    read = files_read(damaged, segments_path(official))
    check_output(output, read, is_segment_list, overwrites=overwrite)
    if report is not None:
        check_output(report, read, is_repair_report, overwrites=overwrite, option="--report")
    mended = repair_segments(damaged, segments_path(official))
    if report is not None:
        with open_output(report) as stream:
            stream.write((json.dumps(mended.report(), indent=2) + "\n").encode())
    with open_output(output) as stream:
        for data in format_segments(mended.segments):
            stream.write(data)
    parts = ", ".join(f"{count:,} {part}" for part, count in mended.counts.items())
    echo(
        f"audioset: mended {len(mended.mends):,} of {mended.n_rows:,} rows ({parts}), added {mended.n_added:,}",
        err=True,
    )


def _read(sources: Sequence[str], label_set: str) -> SegmentList:
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.segments import concatenate, read_segments
    from audioset.labels.labels import LabelSet

    labels = LabelSet.load(label_set)
    return concatenate([read_segments(segments_path(source), labels) for source in sources])


def _below(counts: Sequence[ClassCount], classes: Iterable[str]) -> list[ClassCount]:
    """The classes asked for and those below them; those that no clip has, too."""
    from audioset.dataset.lists.selection import labels_below
    from audioset.dataset.lists.statistics import ClassCount
    from audioset.labels.ontology import Ontology

    if not classes:
        return list(counts)
    wanted = frozenset().union(*map(labels_below, classes))
    found = [count for count in counts if count.label_id in wanted]
    names = Ontology.load()
    absent = wanted.difference(count.label_id for count in found)
    return found + [ClassCount(label_id, names.name(label_id), 0, 0) for label_id in sorted(absent)]


def _class_record(count: ClassCount, ratings: dict[str, Quality]) -> dict[str, Any]:
    rating = ratings.get(count.label_id)
    return {**asdict(count), **({"quality": rating and {**asdict(rating), "share": rating.share}} if ratings else {})}


def _summary(statistics: Statistics) -> list[str]:
    n_clips, closure = statistics.n_clips, statistics.closure
    n_classes = sum(count.n_clips > 0 for count in statistics.classes)
    sizes = "  ".join(f"{size}: {count:,}" for size, count in statistics.labels_per_clip.items())
    rows = {
        "clips": f"{n_clips:,}",
        "duration": f"{statistics.duration_s:,.0f} s, {statistics.duration_s / 3600:,.1f} h",
        "labels": f"{statistics.n_labels:,} of {n_classes} classes",
        "labels a clip": sizes or "none",
        "below 10 s": f"{statistics.n_short:,} clips",
        "ids with -": f"{statistics.n_dash_ids:,} begin with it",
        "with a parent": f"{closure.n_labels:,} labels; {closure.n_closed:,} have one of their parents beside them",
        "not closed": f"{closure.n_open_clips:,} clips have a label without any of its parents",
    }
    return [f"{key:14s} {value}" for key, value in rows.items()]


def _class_table(counts: Iterable[ClassCount], ratings: dict[str, Quality]) -> list[str]:
    heading = f"{'clips':>9s} {'and below':>9s}  {'quality  ' if ratings else ''}class"
    return [heading, *(_class_line(count, ratings) for count in counts)]


def _class_line(count: ClassCount, ratings: dict[str, Quality]) -> str:
    quality = ""
    if ratings:
        rating = ratings.get(count.label_id)
        quality = f"{'-' if rating is None or rating.share is None else f'{rating.share:.0%}':>7s}  "
    return f"{count.n_clips:9,} {count.n_clips_below:9,}  {quality}{count.label}  {count.label_id}"


def _say_missing(wanted: frozenset[str], clips: SegmentList) -> None:
    missing = sorted(wanted.difference(video_id.decode() for video_id in clips.video_ids.tolist()))
    if missing:
        shown = ", ".join(missing[:SHOWN_IDS]) + (", …" if len(missing) > SHOWN_IDS else "")
        echo(f"audioset: {len(missing):,} of {len(wanted):,} ids are not in the lists: {shown}", err=True)
