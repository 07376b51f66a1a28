"""``audioset data segments``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from audioset.cli.echo import echo
from audioset.cli.options import files_read, overwrite_option

if TYPE_CHECKING:
    from audioset.dataset.lists.quality import Quality
    from audioset.dataset.lists.segments import SegmentList
    from audioset.dataset.lists.statistics import ClassCount, Statistics

Command = TypeVar("Command", bound=Callable[..., Any])

SOURCES = "LISTS..."
N_TOP = 10
SHOWN_IDS = 3

labels_option = click.option(
    "--labels",
    "label_set",
    type=click.Choice(["audioset-527", "audioset-strong"]),
    default="audioset-527",
    show_default=True,
    help="The labels that may occur.",
)
output_option = click.option("--output", "-o", metavar="FILE", help="File to write. Default: standard output.")
SELECT_OPTIONS = (
    click.option(
        "--classes", metavar="CLASS", multiple=True, help="Clips with this class or one below it; repeated: with any."
    ),
    click.option("--all-of", metavar="CLASS", multiple=True, help="The same; repeated: with each of them."),
    click.option("--exact", "is_exact", is_flag=True, help="Classes below do not count."),
    click.option("--ids", metavar="FILE", type=click.Path(path_type=Path), help="Clips whose ids are in FILE."),
    click.option(
        "--exclude-ids",
        metavar="FILE",
        type=click.Path(path_type=Path),
        multiple=True,
        help="No clips whose ids are in FILE.",
    ),
    click.option("--random", "n_random", metavar="N", type=click.IntRange(0), help="Of those, N at random."),
    click.option(
        "--per-class",
        "n_per_class",
        metavar="N",
        type=click.IntRange(0),
        help="Of those, so many at random that each class has N, or all it has.",
    ),
    click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Another one, other clips."),
    click.option("--limit", metavar="N", type=click.IntRange(0), help="Of those, the first N."),
    click.option("--created", metavar="TEXT", help="What line 1 says of the making. Default: as in the first list."),
)


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


@segments.command()
@click.argument("sources", nargs=-1, required=True, metavar=SOURCES)
@click.option("--classes", metavar="CLASS", multiple=True, help="Count this class and those below it.")
@click.option("--top", "n_top", metavar="N", type=click.IntRange(0), help=f"Classes to show. Default: {N_TOP}.")
@click.option(
    "--qa", "quality", metavar="FILE", type=click.Path(path_type=Path), help="Show quality, from qa_true_counts.csv."
)
@labels_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all classes.")
def stats(
    sources: tuple[str, ...],
    classes: tuple[str, ...],
    n_top: int | None,
    quality: Path | None,
    label_set: str,
    as_json: bool,
) -> None:
    """Count clips, seconds, labels and classes of LISTS.

    A class is counted twice: clips with this label, and clips with this label or one below it.
    """
    from audioset.dataset.lists.quality import read_quality
    from audioset.dataset.lists.statistics import count_segments
    from audioset.labels.labels import LabelSet

    clips = _read(sources, label_set)
    statistics = count_segments(clips, LabelSet.load(label_set))
    counts = _below(statistics.classes, classes)
    ratings = read_quality(quality) if quality else {}
    if as_json:
        record = {**asdict(statistics), "classes": [_class_record(count, ratings) for count in counts]}
        echo(json.dumps(record, indent=2))
        return
    if not classes:
        for line in _summary(statistics):
            echo(line)
        echo()
    n_shown = n_top if n_top is not None else len(counts) if classes else N_TOP
    for line in _class_table(counts[:n_shown], ratings):
        echo(line)


def select_options(command: Command) -> Command:
    """Add the options of ``select``."""
    for option in reversed(SELECT_OPTIONS):
        command = option(command)
    return command


@segments.command()
@click.argument("sources", nargs=-1, required=True, metavar=SOURCES)
@select_options
@labels_option
@output_option
@overwrite_option
def select(sources: tuple[str, ...], label_set: str, output: str | None, created: str | None, **options: Any) -> None:
    """Write the clips of LISTS for which all that is asked for holds, as another list.

    A class is given by its id or name. FILE with ids has one on each line; names such as ID_30.000_40.000.wav count
    as ids, so the lists of other datasets can be excluded as they are.
    """
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.segments import format_segments, is_segment_list
    from audioset.dataset.lists.selection import Selection, read_video_ids
    from audioset.dataset.lists.selection import select as select_clips
    from audioset.formats.output import check_output, open_output

    wanted = read_video_ids(options["ids"]) if options["ids"] else None
    selection = Selection(
        options["classes"],
        options["all_of"],
        options["is_exact"],
        wanted,
        frozenset().union(*map(read_video_ids, options["exclude_ids"])),
        options["n_random"],
        options["n_per_class"],
        options["seed"],
        options["limit"],
    )
    read = files_read(*map(segments_path, sources))
    check_output(output, read, is_segment_list, overwrites=options["overwrite"])
    clips = _read(sources, label_set)
    chosen = select_clips(clips, selection)
    with open_output(output) as stream:
        for data in format_segments(chosen, created):
            stream.write(data)
    if wanted:
        _say_missing(wanted, clips)
    echo(f"audioset: {len(chosen):,} of {len(clips):,} clips", err=True)


@segments.command()
@click.argument("damaged", metavar="DAMAGED", type=click.Path(path_type=Path))
@click.argument("official", metavar="OFFICIAL")
@click.option("--report", metavar="FILE", help="Write what was mended, row by row, as JSON.")
@output_option
@overwrite_option
def repair(damaged: Path, official: str, report: str | None, output: str | None, overwrite: bool) -> None:
    """Mend the list DAMAGED, which a spreadsheet or another program has spoilt, with the published list OFFICIAL.

    Both have their rows in the same order, so the n-th row of the one gives what the n-th row of the other has lost.
    Lists that do not correspond are refused.
    """
    from audioset.dataset.lists.published import segments_path
    from audioset.dataset.lists.repair import is_repair_report, repair_segments
    from audioset.dataset.lists.segments import format_segments, is_segment_list
    from audioset.formats.output import check_different, check_output, open_output

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
