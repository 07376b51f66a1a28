"""``audioset data features``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from audioset.cli.echo import echo
from audioset.cli.options import overwrite_option

if TYPE_CHECKING:
    from audioset.dataset.features.checks import Report, Summary

FORMATS = ("parquet", "hdf5", "arrays", "tfrecord", "youtube8m")
MOST_SHOWN = 5  # examples of each kind of fault, and damaged records
DAMAGED = 3  # exit code

with_subset = click.option(
    "--subset", metavar="NAME", help="Only these: bal_train, eval or unbal_train; longer names are known too."
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group()
def features() -> None:
    """Read, check and convert the released features: 128 bytes for each second of two million clips.

    PATH is features.tar.gz as released, which is never unpacked; a .tfrecord file, or a folder of such; or what
    convert made of them.

    \b
    Examples:
      audioset data features info features.tar.gz --subset eval
      audioset data features verify features.tar.gz --segments eval_segments.csv
      audioset data features convert features.tar.gz eval.parquet --subset eval
      audioset data features convert features.tar.gz features --to arrays
    """


@features.command()
@click.argument("path")
@with_subset
@as_json_option
def info(path: str, subset: str | None, as_json: bool) -> None:
    """Count clips, lengths and labels, and average the bytes."""
    from dataclasses import asdict

    from audioset.dataset.features.checks import summarise
    from audioset.dataset.features.reading import read

    summary = summarise(read(path, subset))
    if as_json:
        echo(json.dumps(asdict(summary), indent=2))
        return
    for line in _summary_lines(summary):
        echo(line)


@features.command()
@click.argument("path")
@click.option(
    "--segments",
    "lists",
    metavar="CSV",
    multiple=True,
    help="A published list of clips to compare with: eval, or a file such as eval_segments.csv. Repeatable.",
)
@with_subset
@as_json_option
def verify(path: str, lists: tuple[str, ...], subset: str | None, as_json: bool) -> None:
    """Check every checksum, the names of shards, and with --segments that nothing is missing or different.

    Exits with 3 if anything is wrong.
    """
    from audioset.dataset.features import checks
    from audioset.dataset.lists.published import segments_path

    report = checks.verify(path, [segments_path(name) for name in lists], subset)
    if as_json:
        echo(json.dumps(checks.report_json(report), indent=2))
    else:
        for line in _report_lines(report, checks.FAULTS):
            echo(line)
    if not report.is_sound:
        click.get_current_context().exit(DAMAGED)


@features.command()
@click.argument("path")
@click.argument("output")
@click.option("--to", "to", type=click.Choice(FORMATS), help="What to make of them. Default: what OUTPUT's name says.")
@with_subset
@click.option("--skip-damaged", is_flag=True, help="Leave damaged records out and exit with 3, instead of stopping.")
@overwrite_option
@as_json_option
def convert(
    path: str, output: str, to: str | None, subset: str | None, skip_damaged: bool, overwrite: bool, as_json: bool
) -> None:
    """Write the features in PATH as OUTPUT, which has its name when it is whole and not before.

    A name that ends in .parquet, .h5, .tfrecord or .tar.gz says what to make; arrays make a folder, and need --to.
    tfrecord and youtube8m make an archive if OUTPUT ends in .tar.gz, one file if it ends in .tfrecord, else a folder.
    """
    from audioset.dataset.features import reading as features
    from audioset.formats.output import check_output, file_ids

    read = file_ids(features.files_of(path))
    check_output(
        output,
        read,
        features.recogniser(output, features.output_form(output, to)),
        overwrites=overwrite,
        option="OUTPUT",
    )
    n_clips, problems = features.convert(path, output, to, subset, "skip" if skip_damaged else "raise")
    for error in problems.kept[:MOST_SHOWN]:
        echo(f"audioset: left out: {error}", err=True)
    if as_json:
        echo(
            json.dumps(
                {
                    "output": output,
                    "to": features.output_form(output, to),
                    "n_clips": n_clips,
                    "n_skipped": problems.n_skipped,
                }
            )
        )
    else:
        left_out = f", {problems.n_skipped:,} damaged records left out" if problems.n_skipped else ""
        echo(f"audioset: {n_clips:,} clips in {output}{left_out}", err=True)
    if problems.n_skipped:
        click.get_current_context().exit(DAMAGED)


def _summary_lines(summary: Summary) -> list[str]:
    n_classes = sum(count > 0 for count in summary.n_clips_of_class)
    lengths = ", ".join(f"{n_clips:,} of {n_seconds} s" for n_seconds, n_clips in summary.lengths.items())
    return [
        f"clips          {summary.n_clips:,}",
        *(f"  {name:12s} {count:,}" for name, count in summary.subsets.items()),
        f"seconds        {summary.n_seconds:,}",
        f"lengths        {lengths}",
        f"labels         {summary.n_labels:,}, {summary.n_labels / max(1, summary.n_clips):.2f} a clip, of {n_classes} "
        "classes",
        f"bytes          mean {summary.mean:.1f}, standard deviation {summary.sd:.1f}",
        f"saturated      {summary.share_0:.1%} are 0, {summary.share_255:.1%} are 255",
    ]


def _report_lines(report: Report, kinds: dict[str, str]) -> list[str]:
    listed = "" if report.n_listed is None else f"; {report.n_listed:,} in the lists"
    lines = [f"clips          {report.n_clips:,}{listed}"]
    if report.n_short:
        lines.append(f"short          {report.n_short:,} end before the list says, as some released ones do")
    for kind, meaning in kinds.items():
        if report.faults[kind]:
            lines.append(f"{kind:14s} {report.faults[kind]:,} {meaning}")
            lines += [f"{'':15s}{example}" for example in report.examples.get(kind, [])[:MOST_SHOWN]]
    return [*lines, "sound" if report.is_sound else "not sound"]
