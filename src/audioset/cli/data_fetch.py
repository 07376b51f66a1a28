"""``audioset data fetch``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo

if TYPE_CHECKING:
    from audioset.assets import Asset

KINDS = ("segments", "labels", "ontology", "strong", "qa", "features")


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS), metavar="[KINDS]...")
@click.option(
    "--region",
    type=click.Choice(["us", "eu", "asia"]),
    default="us",
    show_default=True,
    help="Which copy of the features: the nearest.",
)
@click.option(
    "--output", "-o", metavar="FOLDER", type=click.Path(path_type=Path), help="Default: where the commands look."
)
@click.option("--list", "is_list", is_flag=True, help="Fetch nothing; say what there is and what is here.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def fetch(kinds: tuple[str, ...], region: str, output: Path | None, is_list: bool, as_json: bool) -> int:
    """Fetch what AudioSet publishes.

    KINDS: segments (the lists of clips, 3 files), labels (the 527), ontology, strong (labels with times, 4 files), qa
    (how sure the labels are, 2 files), features (2.4 GB).

    A download that broke off goes on where it stopped. A file that is there is checked and kept.

    \b
    Examples:
      audioset data fetch segments labels
      audioset data fetch features --region eu --output /data/audioset
      audioset data fetch --list
    """
    from audioset.cache import ASSETS, writable_folder
    from audioset.dataset.lists.published import published_files

    files = published_files(region)
    chosen = {kind: files[kind] for kind in kinds or KINDS}
    folder = output or writable_folder() / ASSETS
    if is_list:
        _list(chosen, folder if output else None, as_json=as_json)
        return 0
    if not kinds:
        raise click.UsageError(f"say what to fetch: {', '.join(KINDS)}; or --list")
    return _fetch([asset for group in chosen.values() for asset in group], folder, as_json=as_json)


def _fetch(assets: list[Asset], folder: Path, *, as_json: bool) -> int:
    """Fetch the files one by one; a foreign file of the same name does not stop the others."""
    from audioset.dataset.lists.published import fetch_published
    from audioset.errors import ConflictError

    records, exit_code = [], 0
    for asset in assets:
        try:
            path, is_new = fetch_published(asset, folder)
        except ConflictError as error:
            echo(f"audioset: {error}", err=True)
            exit_code = error.exit_code
            continue
        records.append({"file": asset.name, "path": str(path), "is_new": is_new, "licence": asset.licence})
        if not as_json:
            echo(str(path))
        if not is_new:
            known = "is there already, as published" if asset.digest else "is there already; no hash is published"
            echo(f"audioset: {asset.name} {known}", err=True)
    if as_json:
        echo(json.dumps(records, indent=2))
    return exit_code


def _list(chosen: Mapping[str, tuple[Asset, ...]], folder: Path | None, *, as_json: bool) -> None:
    records = [_record(kind, asset, folder) for kind, group in chosen.items() for asset in group]
    if as_json:
        echo(json.dumps(records, indent=2))
        return
    for record in records:
        echo(f"{record['kind']:9s} {record['file']:38s} {record['path'] or 'not here'}")
        echo(f"{'':9s} {record['url']}")


def _record(kind: str, asset: Asset, folder: Path | None) -> dict[str, Any]:
    from audioset.assets import find_file

    path = find_file(asset.name) if folder is None else folder / asset.name
    return {
        "kind": kind,
        "file": asset.name,
        "path": str(path) if path and path.is_file() else None,
        "url": asset.url,
        "n_bytes": asset.n_bytes,
        "digest": asset.digest or None,
        "licence": asset.licence,
    }
