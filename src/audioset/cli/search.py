"""``audioset search``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo
from audioset.cli.options import files_read, overwrite_option
from audioset.files import is_folder

if TYPE_CHECKING:
    from audioset.models.model import Model
    from audioset.search.example import Example
    from audioset.search.manifest import Manifest
    from audioset.search.moments import Moment

FORMATS = ("table", "json", "jsonl", "csv", "audacity", "raven")
MOMENTS_NAME = "moments.csv"


@click.command(short_help="Find the moments that sound most like an example.")
@click.argument("folder", metavar="INDEX", type=click.Path(path_type=Path))
@click.option("--like", metavar="FILE", multiple=True, required=True, help="A sound to look for. May be repeated.")
@click.option(
    "--at",
    "at_s",
    metavar="S",
    type=click.FloatRange(0),
    multiple=True,
    help="Seconds into the example: the patch there. Once for each --like. Default: the mean of all patches.",
)
@click.option(
    "--combine",
    type=click.Choice(["mean", "max"]),
    default="mean",
    show_default=True,
    help="Of several examples: like all of them together, or like any one.",
)
@click.option("--n", "-n", metavar="N", type=click.IntRange(1), default=20, show_default=True, help="How many moments.")
@click.option(
    "--min-similarity",
    metavar="S",
    type=click.FloatRange(-1, 1),
    default=-1.0,
    help="No moment less similar than this, -1 to 1. Default: any.",
)
@click.option("--per-file", metavar="N", type=click.IntRange(1), help="At most N moments of one recording.")
@click.option(
    "--exclude-self/--include-self",
    default=True,
    show_default=True,
    help="Leave out what overlaps the example itself, if it is in the index.",
)
@click.option(
    "--approximate/--exact",
    default=None,
    help="Follow a graph of neighbours, or compare with all. Default: all, up to two million moments.",
)
@click.option("--accept", metavar="N,N-N", help="Numbers of moments that are what you look for, such as 1,3,5-8.")
@click.option("--label", metavar="NAME", help="What the accepted moments are.")
@click.option(
    "--to",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"Table to which accepted moments are added. Default: {MOMENTS_NAME}.",
)
@click.option("--output", "-o", metavar="PATH", help="File to write, or a folder. Default: standard output.")
@overwrite_option
@click.option(
    "--format",
    "format_name",
    type=click.Choice(FORMATS),
    help="Default: by the suffix of --output, or table.",
)
@click.option("--model", metavar="NAME", help="Name, or a model folder. Default: that of the index.")
@click.option(
    "--engine", type=click.Choice(["openvino", "onnxruntime", "torch"]), default="openvino", show_default=True
)
@click.option("--threads", metavar="N", type=click.IntRange(1), help="Cores for the network. Default: all.")
def search(**options: Any) -> int:
    """Find the moments of an INDEX, made by audioset index, that sound most like an example.

    \b
    Examples:
      audioset search index/ --like dog.wav
      audioset search index/ --like yard.flac --at 3.5 --per-file 1
      audioset search index/ --like dog.wav --accept 1,3,5-8 --label dog --to moments.csv
    """
    from audioset.formats import check_output, choose_format
    from audioset.search.example import combine_examples
    from audioset.search.found import OWN, write_found
    from audioset.search.index import Index
    from audioset.search.manifest import read_manifest

    _check(options)
    to_folder = is_folder(options["output"] or "-")
    chosen = choose_format(None if to_folder else options["output"], options["format_name"], FORMATS)
    read = files_read(*options["folder"].glob("*.json"), *options["folder"].glob("embeddings-*.parquet"))
    check_output(options["to"], read, None, option="--to")
    check_output(options["output"], read, None if to_folder else OWN[chosen], overwrites=options["overwrite"])
    manifest = read_manifest(options["folder"])
    model = _load_model(manifest, options)
    examples = _embed(model, manifest, options)
    index = Index.open(options["folder"], approximate=options["approximate"], watch=_report_graph)
    moments = index.search(
        combine_examples(examples, options["combine"]),
        options["n"],
        min_similarity=options["min_similarity"],
        per_file=options["per_file"],
        exclude=[example.span for example in examples] if options["exclude_self"] else [],
    )
    if options["accept"] is not None:
        _accept(moments, options)
    else:
        write_found(
            moments,
            options["output"],
            chosen,
            label=options["label"] or "found",
            model=manifest.settings.model,
            high_hz=model.frontend.sample_rate / 2,
            read=read,
            overwrites=options["overwrite"],
        )
    return 0


def _check(options: dict[str, Any]) -> None:
    """What is wrong with the options by themselves is said before any work."""
    if options["at_s"] and len(options["at_s"]) != len(options["like"]):
        raise click.UsageError(
            f"--at is given {len(options['at_s'])} times, and --like {len(options['like'])} times. "
            "Next step: give one for each example, in the same order, or none"
        )
    if options["accept"] is not None and not (options["label"] or "").strip():
        raise click.UsageError("--accept needs to know what the moments are. Next step: --label NAME")
    if options["to"] is not None and options["accept"] is None:
        raise click.UsageError("--to is for accepted moments. Next step: --accept 1,3,5-8, or -o for the list")


def _load_model(manifest: Manifest, options: dict[str, Any]) -> Model:
    from audioset.models.loading import load_model

    settings = manifest.settings
    model = load_model(
        options["model"] or settings.model,
        weights=None if options["model"] else settings.weights,
        precision=settings.precision,
        engine=options["engine"],
        n_threads=options["threads"],
    )
    manifest.check_model(model)
    return model


def _embed(model: Model, manifest: Manifest, options: dict[str, Any]) -> list[Example]:
    from audioset.search.example import embed_example

    seconds = options["at_s"] or [None] * len(options["like"])
    return [
        embed_example(model, path, manifest.settings, at_s=at_s)
        for path, at_s in zip(options["like"], seconds, strict=True)
    ]


def _accept(moments: list[Moment], options: dict[str, Any]) -> None:
    from audioset.search.accepted import append_moments, parse_numbers
    from audioset.search.found import to_table

    accepted = [moments[number - 1] for number in parse_numbers(options["accept"], len(moments))]
    table = options["to"] or Path(MOMENTS_NAME)
    n_new = append_moments(table, accepted, options["label"])
    echo(to_table(accepted), nl=False)
    n_known = len(accepted) - n_new
    known = f"; {n_known:,} were there already" if n_known else ""
    echo(f"audioset: {n_new:,} moments of {options['label'].strip()} added to {table}{known}", err=True)


def _report_graph(n_done: int) -> None:
    echo(f"audioset: graph of neighbours: {n_done:,} moments", err=True)
