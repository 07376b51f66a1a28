"""``audioset index``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from audioset.audio.limits import Limits
from audioset.cli.echo import echo
from audioset.cli.options import DecodingOptions, ModelOptions, json_flag, option, takes

if TYPE_CHECKING:
    from audioset.search.build import BuildReport
    from audioset.search.manifest import Settings


@dataclass(frozen=True)
class IndexOptions:
    """Where the index is, and what becomes of it."""

    output: Path = option(
        "Folder of the index: a new one, or one to bring up to date.", "FOLDER", "--output -o", required=True
    )
    prune: bool = option("Drop recordings from the index whose files are gone.")
    as_json: bool = json_flag("Say what became of the recordings as JSON.")


@click.command(short_help="Store the embeddings of recordings, to be searched.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@takes(wanted=IndexOptions, chosen=ModelOptions, decoding=DecodingOptions, limits=Limits)
def index(
    inputs: tuple[str, ...], wanted: IndexOptions, chosen: ModelOptions, decoding: DecodingOptions, limits: Limits
) -> int:
    """Store the embeddings of INPUTS with their times, for audioset search: files, folders, globs.

    A second run adds what is new or has changed, in the way in which the index was made; one that was stopped goes on.

    \b
    Examples:
      audioset index recordings/ --output index/
      audioset index recordings/ --output index/ --prune
      audioset index recordings/ --output index/ --model mn04_as --window 2
    """
    from audioset.cli.inputs import open_inputs
    from audioset.cli.progress import Progress
    from audioset.models.loading import load_model
    from audioset.search.build import build_index
    from audioset.search.shards import require_pyarrow

    require_pyarrow()
    settings = _settings(wanted.output, chosen, decoding)
    shown = Progress(0, is_quiet=decoding.quiet, shows_errors=True)  # how many are new is known later
    with open_inputs(inputs, is_quiet=decoding.quiet) as recordings, shown as progress:
        if any(item.shown != item.path for item in recordings):
            raise click.UsageError("standard input has no name to be found by. Next step: give files or folders")
        report = build_index(
            [item.path for item in recordings],
            load_model(
                settings.model,
                weights=settings.weights,
                precision=settings.precision,
                engine=chosen.engine,
                n_threads=chosen.threads,
            ),
            wanted.output,
            settings,
            prune=wanted.prune,
            limits=limits,
            n_workers=decoding.workers,
            begin=progress.begin,
            watch=progress.watch,
        )
    echo(_to_json(report) if wanted.as_json else _to_text(report, wanted.output))
    return 3 if report.failures else 0


def _settings(folder: Path, chosen: ModelOptions, decoding: DecodingOptions) -> Settings:
    """How the index is made: as the options say, or, where they were not given, as it was begun."""
    from audioset.files import exists, is_folder
    from audioset.search.manifest import NAME, Settings, read_manifest

    weights = None if chosen.weights is None else str(chosen.weights.resolve())
    settings = Settings(chosen.model, weights, chosen.precision, **decoding.patches)
    if exists(folder / NAME):
        source = click.get_current_context().get_parameter_source
        begun = vars(read_manifest(folder).settings)
        kept = {name: value for name, value in begun.items() if source(name) is ParameterSource.DEFAULT}
        settings = replace(settings, **kept)
    if is_folder(settings.model):
        settings = replace(settings, model=str(Path(settings.model).resolve()))
    return settings


def _to_text(report: BuildReport, folder: Path) -> str:
    counts = {
        "new": report.n_added,
        "changed": report.n_changed,
        "as before": report.n_unchanged,
        "dropped": report.n_dropped,
        "failed": len(report.failures),
    }
    shown = ", ".join(f"{number:,} {name}" for name, number in counts.items() if number) or "nothing new"
    return f"{folder}: {report.n_recordings:,} recordings, {report.n_moments:,} moments ({shown})"


def _to_json(report: BuildReport) -> str:
    failures = [{"path": path, "error_code": error.code, "error": str(error)} for path, error in report.failures]
    return json.dumps({**vars(report), "failures": failures})
