"""``audioset train check``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.options import json_flag, option, print_result, takes
from audioset.cli.sound_options import SoundOptions
from audioset.errors import one_line

if TYPE_CHECKING:
    from audioset.sounds.check import Check
    from audioset.sounds.collection import Clip, Collection
    from audioset.sounds.findings import Finding

N_SHOWN = 5  # clips of a finding, unless all are asked for
NAME_WIDTH = 32
DETAIL_WIDTH = 100
SOME_BAD, NOTHING_USABLE = 3, 4  # exit codes
HEADINGS = {"error": "Errors", "warning": "Warnings", "note": "Notes"}


@dataclass(frozen=True)
class CheckOptions:
    """How clips are checked, and what is shown."""

    shows_all: bool = option("Name all clips of each finding.", flags="--all")
    as_json: bool = json_flag("As JSON, with all clips.")
    workers: int | None = option("Decoding processes. Default: one a core.", "N", at_least=1)
    quiet: bool = option("No progress.", flags="--quiet -q")


@click.command(short_help="Check your own labelled sounds before they are learned.")
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@takes(sounds=SoundOptions, wanted=CheckOptions)
def check(data: Path, sounds: SoundOptions, wanted: CheckOptions) -> int:
    """Say what is in DATA, and what is wrong with it, before anything is learned.

    DATA is a folder of folders, one for each class; a CSV or TSV file with the columns path and label, or a table of
    DCASE, ESC-50, UrbanSound8K, FSD50K, Raven or BirdNET; a folder of recordings with labels of Audacity, Raven or
    BirdNET beside them; or a list of AudioSet's clips with --audio. Each file is decoded once; nothing is changed.

    Exit codes: 0 no errors, 3 errors (what is left can be learned from, where there is something left), 4 nothing can
    be used.

    \b
    Examples:
      audioset train check birds/
      audioset train check clips.csv --audio recordings/ --group speaker
      audioset train check digits/ --group '_([a-z]+)_' --json
    """
    found = _check(sounds.read(data), wanted.workers, is_quiet=wanted.quiet)
    print_result(wanted.as_json, found.to_dict, lambda: _report(found, data, shows_all=wanted.shows_all))
    if not len(found.usable):
        return NOTHING_USABLE
    return SOME_BAD if found.errors else 0


def _check(collection: Collection, n_workers: int | None, *, is_quiet: bool) -> Check:
    """Check a collection, with progress on standard error."""
    from audioset.cli.progress import Progress
    from audioset.errors import AudioError
    from audioset.sounds.check import check_collection

    n_files = len({clip.path for clip in collection.clips})
    with Progress(n_files, is_quiet=is_quiet, shows_errors=False) as progress:

        def note(path: Path, measured: Any) -> None:
            is_bad = isinstance(measured, AudioError)
            if not is_bad:
                progress.advance(measured.duration_s)
            progress.finish_file(str(path), measured if is_bad else None, ())

        return check_collection(collection, n_workers=n_workers, on_file=note)


def _report(found: Check, data: Path, *, shows_all: bool) -> Iterator[str]:
    record = found.to_dict()
    yield from _summary(record)
    yield ""
    yield from _class_table(record)
    base = data if data.is_dir() else data.parent
    for severity, heading in HEADINGS.items():
        chosen = [finding for finding in found.findings if finding.severity == severity]
        if chosen:
            yield ""
            yield heading
        for finding in chosen:
            yield from _finding_lines(finding, base, None if shows_all else N_SHOWN)
    if not found.findings:
        yield ""
        yield "Nothing is wrong."


def _summary(record: dict[str, Any]) -> Iterator[str]:
    unused = record["n_clips"] - record["n_usable"]
    yield one_line(record["source"])
    yield f"{'clips':10s} {record['n_usable']:,}" + (f", and {unused:,} that are left out" if unused else "")
    kind = "any number for each clip" if record["is_multi_label"] else "one for each clip"
    yield f"{'classes':10s} {sum(item['n_usable'] > 0 for item in record['classes']):,}, {kind}"
    if record["durations_s"]:
        lengths = record["durations_s"]
        yield (
            f"{'length':10s} {_seconds(lengths['min'])} to {_seconds(lengths['max'])}, median "
            f"{_seconds(lengths['median'])}, in all {_duration(lengths['total'])}"
        )
    for name in ("groups", "splits"):
        if record[name]:
            yield f"{name:10s} {_counts(record[name])}"


def _class_table(record: dict[str, Any]) -> Iterator[str]:
    rows = [(item["name"], item) for item in record["classes"]]
    has_groups = bool(record["groups"])
    width = min(NAME_WIDTH, max([len("(background)"), *(len(one_line(name)) for name, _ in rows)]))
    counts = f"{'clips':>8s} {'left out':>9s} {'files':>8s}" + (f" {'groups':>8s}" if has_groups else "")
    yield f"{'class':{width}s} {counts} {'shortest':>10s} {'median':>8s} {'longest':>9s}"
    for name, item in rows:
        groups = f" {item['n_groups']:8,d}" if has_groups else ""
        left_out = item["n_clips"] - item["n_usable"]
        yield (
            f"{_cut(one_line(name), width):{width}s} {item['n_usable']:8,d} {left_out or '-':>9} "
            f"{item['n_files']:8,d}{groups}{_lengths(item['durations_s'])}"
        )
    if record["n_background"]:
        yield f"{'(background)':{width}s} {record['n_background']:8,d}"


def _lengths(lengths: dict[str, float] | None) -> str:
    if lengths is None:
        return ""
    return f" {_seconds(lengths['min']):>10s} {_seconds(lengths['median']):>8s} {_seconds(lengths['max']):>9s}"


def _finding_lines(finding: Finding, base: Path, n_shown: int | None) -> Iterator[str]:
    left_out = " (left out)" if finding.is_left_out else ""
    yield f"  {finding.kind}{left_out}: {one_line(finding.message)}."
    shown = finding.clips[:n_shown]
    details: Sequence[str] = finding.details or [""] * len(shown)
    for clip, detail in zip(shown, details, strict=False):
        said = f": {_cut(one_line(detail), DETAIL_WIDTH)}" if detail else ""
        yield f"    {_place(clip, base)}{said}"
    if len(finding.clips) > len(shown):
        yield f"    and {len(finding.clips) - len(shown):,} more (--all)"


def _place(clip: Clip, base: Path) -> str:
    """A clip's file, and where it is in that."""
    path = clip.path.relative_to(base) if clip.path.is_relative_to(base) else clip.path
    if clip.is_whole_file:
        return one_line(os.fspath(path))
    end = "end" if clip.end_s is None else f"{clip.end_s:g}"
    return f"{one_line(os.fspath(path))} {clip.start_s:g}–{end} s"


def _counts(counts: dict[str, int]) -> str:
    """How many groups, and how many clips each has."""
    shown = [f"{one_line(name)} {count:,}" for name, count in list(counts.items())[:N_SHOWN]]
    return f"{len(counts):,}: {', '.join(shown)}" + (", …" if len(counts) > N_SHOWN else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else _duration(seconds)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.1f} s" if minutes < 2 else f"{minutes:.1f} min" if hours < 2 else f"{hours:.1f} h"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
