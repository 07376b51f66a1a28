"""``audioset data features``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from audioset.cli.echo import echo
from audioset.cli.options import OVERWRITE, json_flag, option, print_result, takes

if TYPE_CHECKING:
    from audioset.dataset.features.checks import Report, Summary

FORMATS = ("parquet", "hdf5", "arrays", "tfrecord", "youtube8m")
MOST_SHOWN = 5  # examples of each kind of fault, and damaged records
DAMAGED = 3  # exit code

SUBSET = "Only these: bal_train, eval or unbal_train; longer names are known too."


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
      audioset data features convert features.tar.gz features --format arrays
    """


@dataclass(frozen=True)
class InfoOptions:
    """Of which features."""

    subset: str | None = option(SUBSET, "NAME")
    as_json: bool = json_flag()


@features.command()
@click.argument("path")
@takes(wanted=InfoOptions)
def info(path: str, wanted: InfoOptions) -> None:
    """Count clips, lengths and labels, and average the bytes."""
    from audioset.dataset.features.checks import summarise
    from audioset.dataset.features.reading import read

    summary = summarise(read(path, wanted.subset))
    print_result(wanted.as_json, lambda: asdict(summary), lambda: _summary_lines(summary))


@dataclass(frozen=True)
class VerifyOptions(InfoOptions):
    """Of which features, and what they are compared with."""

    lists: tuple[str, ...] = option(
        "A published list of clips to compare with: eval, or a file such as eval_segments.csv. Repeatable.",
        "CSV",
        "--segments",
    )


@features.command()
@click.argument("path")
@takes(wanted=VerifyOptions)
def verify(path: str, wanted: VerifyOptions) -> None:
    """Check every checksum, the names of shards, and with --segments that nothing is missing or different.

    Exits with 3 if anything is wrong.
    """
    from audioset.dataset.features import checks

    report = checks.verify(path, wanted.lists, wanted.subset)
    print_result(wanted.as_json, lambda: checks.report_json(report), lambda: _report_lines(report, checks.FAULTS))
    if not report.is_sound:
        click.get_current_context().exit(DAMAGED)


@dataclass(frozen=True)
class ConvertOptions:
    """What is made of which features."""

    form: str | None = option(
        "What to make of them. Default: what OUTPUT's name says.", flags="--format", choices=FORMATS, old="--to"
    )
    subset: str | None = option(SUBSET, "NAME")
    skip_damaged: bool = option("Leave damaged records out and exit with 3, instead of stopping.")
    overwrite: bool = option(OVERWRITE)
    as_json: bool = json_flag()


@features.command()
@click.argument("path")
@click.argument("output")
@takes(wanted=ConvertOptions)
def convert(path: str, output: str, wanted: ConvertOptions) -> None:
    """Write the features in PATH as OUTPUT, which has its name when it is whole and not before.

    A name that ends in .parquet, .h5, .tfrecord or .tar.gz says what to make; arrays make a folder, and need --format.
    tfrecord and youtube8m make an archive if OUTPUT ends in .tar.gz, one file if it ends in .tfrecord, else a folder.
    """
    from audioset.dataset.features import reading
    from audioset.formats.output import check_output, file_ids

    form = reading.output_form(output, wanted.form)
    own = reading.recogniser(output, form)
    check_output(output, file_ids(reading.files_of(path)), own, overwrites=wanted.overwrite, option="OUTPUT")
    on_error = "skip" if wanted.skip_damaged else "raise"
    n_clips, problems = reading.convert(path, output, wanted.form, wanted.subset, on_error)
    for error in problems.kept[:MOST_SHOWN]:
        echo(f"audioset: left out: {error}", err=True)
    if wanted.as_json:
        echo(json.dumps({"output": output, "to": form, "n_clips": n_clips, "n_skipped": problems.n_skipped}))
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
