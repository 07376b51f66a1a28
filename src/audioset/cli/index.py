"""``audioset index``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from audioset.cli.echo import echo
from audioset.cli.options import decoding_options, load_chosen_model, model_options, take_limits

if TYPE_CHECKING:
    from audioset.runs.batch import Part
    from audioset.search.build import BuildReport

# Options of the command that are settings of the index, by the setting's name.
SETTINGS = {name: name for name in ("model", "weights", "precision", "hop_s", "window_s", "pad")}


@click.command(short_help="Store the embeddings of recordings, to be searched.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUTS...")
@click.option(
    "--output",
    "-o",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the index: a new one, or one to bring up to date.",
)
@click.option("--prune", is_flag=True, help="Drop recordings from the index whose files are gone.")
@click.option("--json", "as_json", is_flag=True, help="Say what became of the recordings as JSON.")
@model_options
@decoding_options
@click.pass_context
def index(context: click.Context, /, **options: Any) -> int:
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
    from audioset.files import exists, is_folder
    from audioset.formats.rows import printable
    from audioset.search.build import build_index
    from audioset.search.manifest import NAME, Settings, read_manifest
    from audioset.search.shards import require_pyarrow

    require_pyarrow()
    folder: Path = options["output"]
    if exists(folder / NAME):
        _keep_settings(context, options, vars(read_manifest(folder).settings))
    given = {name: options[option] for name, option in SETTINGS.items()}
    given["weights"] = None if given["weights"] is None else str(Path(given["weights"]).resolve())
    if is_folder(given["model"]):
        given["model"] = options["model"] = str(Path(given["model"]).resolve())
    limits = take_limits(options)
    with open_inputs(options["inputs"], is_quiet=options["quiet"]) as inputs, ExitStack() as stack:
        if any(item.shown != item.path for item in inputs):
            raise click.UsageError("standard input has no name to be found by. Next step: give files or folders")
        model = load_chosen_model(options)
        shown: list[Progress] = []

        def begin(n_files: int) -> None:
            shown.append(stack.enter_context(Progress(n_files, is_quiet=options["quiet"], shows_errors=True)))

        def watch(part: Part) -> None:
            if part.prediction is not None:
                shown[0].advance(part.prediction.duration_s)
            if part.is_last:
                shown[0].finish_file(printable(part.path), part.error, part.warnings)

        report = build_index(
            [item.path for item in inputs],
            model,
            folder,
            Settings(**given),
            prune=options["prune"],
            limits=limits,
            n_workers=options["workers"],
            begin=begin,
            watch=watch,
        )
    echo(_to_json(report) if options["as_json"] else _to_text(report, folder))
    return 3 if report.failures else 0


def _keep_settings(context: click.Context, options: dict[str, Any], settings: dict[str, Any]) -> None:
    """Take those of the index for every option that was not given."""
    for name, option in SETTINGS.items():
        if context.get_parameter_source(option) is ParameterSource.DEFAULT:
            options[option] = settings[name]


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
    import json

    failures = [{"path": path, "error_code": error.code, "error": str(error)} for path, error in report.failures]
    return json.dumps({**vars(report), "failures": failures})
