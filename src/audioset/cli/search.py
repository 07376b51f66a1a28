"""``audioset search``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from audioset.cli.echo import echo
from audioset.cli.options import ENGINES, OutputOptions, files_read, format_option, option, takes
from audioset.files import is_folder

if TYPE_CHECKING:
    from audioset.models.model import Model
    from audioset.search.example import Example
    from audioset.search.manifest import Manifest
    from audioset.search.moments import Moment

FORMATS = ("table", "json", "jsonl", "csv", "audacity", "raven")
MOMENTS_NAME = "moments.csv"


@dataclass(frozen=True)
class SearchOptions:
    """What is looked for."""

    like: tuple[str, ...] = option("A sound to look for. May be repeated.", "FILE", required=True)
    at_s: tuple[float, ...] = option(
        "Seconds into the example: the patch there. Once for each --like. Default: the mean of all patches.",
        "S",
        "--at",
        at_least=0,
    )
    combine: str = option(
        "Of several examples: like all of them together, or like any one.", choices=("mean", "max"), default="mean"
    )
    n: int = option("How many moments.", "N", "--n -n", default=20, at_least=1)
    min_similarity: float = option(
        "No moment less similar than this, -1 to 1. Default: any.",
        "S",
        default=-1.0,
        show_default=False,
        at_least=-1,
        at_most=1,
    )
    per_file: int | None = option("At most N moments of one recording.", "N", at_least=1)
    exclude_self: bool = option(
        "Leave out what overlaps the example itself, if it is in the index.",
        flags="--exclude-self/--include-self",
        default=True,
    )
    approximate: bool | None = option(
        "Follow a graph of neighbours, or compare with all. Default: all, up to two million moments.",
        flags="--approximate/--exact",
        default=None,
    )


@dataclass(frozen=True)
class FoundOptions(OutputOptions):
    """What becomes of the moments."""

    output: str | None = option(
        "File to write, or a folder; with --accept, the table to which moments are added. Default: standard output, or "
        f"{MOMENTS_NAME}.",
        "PATH",
        "--output -o",
        old="--to",
    )
    format_name: str | None = format_option(FORMATS)
    accept: str | None = option("Numbers of moments that are what you look for, such as 1,3,5-8.", "N,N-N")
    label: str | None = option("What the accepted moments are.", "NAME")


@dataclass(frozen=True)
class ExampleOptions:
    """What the examples are embedded by."""

    model: str | None = option("Name, or a model folder. Default: that of the index.", "NAME")
    engine: str = option(choices=ENGINES, default="openvino")
    threads: int | None = option("Cores for the network. Default: all.", "N", at_least=1)


@click.command(short_help="Find the moments that sound most like an example.")
@click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
@takes(wanted=SearchOptions, place=FoundOptions, chosen=ExampleOptions)
def search(folder: Path, wanted: SearchOptions, place: FoundOptions, chosen: ExampleOptions) -> int:
    """Find the moments of an INDEX, made by audioset index, that sound most like an example.

    \b
    Examples:
      audioset search index/ --like dog.wav
      audioset search index/ --like yard.flac --at 3.5 --per-file 1
      audioset search index/ --like dog.wav --accept 1,3,5-8 --label dog --output moments.csv
    """
    from audioset.search.example import combine_examples
    from audioset.search.found import write_found
    from audioset.search.index import Index
    from audioset.search.manifest import read_manifest

    _check(wanted, place)
    read = files_read(*folder.glob("*.json"), *folder.glob("embeddings-*.parquet"))
    format_name = _check_output(place, read)
    manifest = read_manifest(folder)
    model = _load_model(manifest, chosen)
    examples = _embed(model, manifest, wanted)
    index = Index.open(folder, approximate=wanted.approximate, watch=_report_graph)
    moments = index.search(
        combine_examples(examples, wanted.combine),
        wanted.n,
        min_similarity=wanted.min_similarity,
        per_file=wanted.per_file,
        exclude=[example.span for example in examples] if wanted.exclude_self else [],
    )
    if place.accept is not None:
        _accept(moments, place.accept, str(place.label), place.output or MOMENTS_NAME)
    else:
        write_found(
            moments,
            place.output,
            format_name,
            label=place.label or "found",
            model=manifest.settings.model,
            high_hz=model.frontend.sample_rate / 2,
            read=read,
            overwrites=place.overwrite,
        )
    return 0


def _check(wanted: SearchOptions, place: FoundOptions) -> None:
    """What is wrong with the options by themselves is said before any work."""
    if wanted.at_s and len(wanted.at_s) != len(wanted.like):
        raise click.UsageError(
            f"--at is given {len(wanted.at_s)} times, and --like {len(wanted.like)} times. "
            "Next step: give one for each example, in the same order, or none"
        )
    if place.accept is not None and not (place.label or "").strip():
        raise click.UsageError("--accept needs to know what the moments are. Next step: --label NAME")
    if place.accept is not None and place.output == "-":
        raise click.UsageError("--accept adds to a table, and --output - is none. Next step: --output FILE")


def _check_output(place: FoundOptions, read: set[tuple[int, int]]) -> str:
    """Refuse an output that must not be written over; the format of what is found."""
    from audioset.formats import check_output, choose_format
    from audioset.search.found import OWN

    if place.accept is not None:  # moments are added to a table, which says itself what it is
        check_output(place.output, read, None)
        return FORMATS[0]
    to_folder = is_folder(place.output or "-")
    chosen = choose_format(None if to_folder else place.output, place.format_name, FORMATS)
    check_output(place.output, read, None if to_folder else OWN[chosen], overwrites=place.overwrite)
    return chosen


def _load_model(manifest: Manifest, chosen: ExampleOptions) -> Model:
    from audioset.models.loading import load_model

    settings = manifest.settings
    model = load_model(
        chosen.model or settings.model,
        weights=None if chosen.model else settings.weights,
        precision=settings.precision,
        engine=chosen.engine,
        n_threads=chosen.threads,
    )
    manifest.check_model(model)
    return model


def _embed(model: Model, manifest: Manifest, wanted: SearchOptions) -> list[Example]:
    from audioset.search.example import embed_example

    seconds = wanted.at_s or [None] * len(wanted.like)
    return [
        embed_example(model, path, manifest.settings, at_s=at_s)
        for path, at_s in zip(wanted.like, seconds, strict=True)
    ]


def _accept(moments: list[Moment], numbers: str, label: str, table: str) -> None:
    from audioset.search.accepted import append_moments, parse_numbers
    from audioset.search.found import to_table

    accepted = [moments[number - 1] for number in parse_numbers(numbers, len(moments))]
    n_new = append_moments(table, accepted, label)
    echo(to_table(accepted), nl=False)
    n_known = len(accepted) - n_new
    known = f"; {n_known:,} were there already" if n_known else ""
    echo(f"audioset: {n_new:,} moments of {label.strip()} added to {table}{known}", err=True)


def _report_graph(n_done: int) -> None:
    echo(f"audioset: graph of neighbours: {n_done:,} moments", err=True)
