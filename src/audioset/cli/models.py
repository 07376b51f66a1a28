"""``audioset models``."""

from __future__ import annotations

import json
from typing import Any

import click


@click.group(short_help="List, describe, fetch and check the published models.")
def models() -> None:
    """List, describe, fetch and check the published models."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_models(as_json: bool) -> None:
    """List all models and whether their weights are on this machine."""
    from audioset.assets import find_asset
    from audioset.models import MODELS

    if as_json:
        click.echo(json.dumps([_record(name) for name in MODELS], indent=2))
        return
    width = max(map(len, MODELS))
    for model in MODELS.values():  # not their records, which hash every file
        where = find_asset(model.weights) or f"not here: audioset models pull {model.name}"
        mean_ap = f"mAP {model.mean_ap:.3f}" if model.mean_ap else "embeds"
        click.echo(f"{model.name:{width}s} {mean_ap:9s}  {model.summary}")
        click.echo(f"{'':{width}s} {where}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(name: str, as_json: bool) -> None:
    """Describe the model NAME: network, frontend, labels, weights, licence, source."""
    record = _record(name)
    if as_json:
        click.echo(json.dumps(record, indent=2))
        return
    for key, value in record.items():
        click.echo(f"{key:14s} {value if value is not None else 'not on this machine'}")


@models.command()
@click.argument("names", nargs=-1, required=True)
def pull(names: tuple[str, ...]) -> None:
    """Fetch the weights of the models NAMES, if they are not on this machine, and convert them."""
    from audioset.models import find_model, prepare_graph, prepare_model

    for name in names:
        find_model(name)
        card, folder = prepare_model(name)
        graph = prepare_graph(card, folder)
        click.echo(f"{name}: {card.source['file']} {'as published' if card.source['is_published'] else 'of your own'}")
        click.echo(f"{'':{len(name)}}  ready in {graph.parent.parent}")


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> int:
    """Check the weights of the models NAMES: hash, tensors and a run on three signals.

    By default, all models whose weights are on this machine.

    Exits with 1 if a measurement is beyond its bound.
    """
    from audioset.assets import ASSETS, find_asset, get_asset, is_published
    from audioset.checks import parity_report
    from audioset.loading import load_model
    from audioset.models import MODELS, find_model

    is_ok = True
    here = tuple(name for name, model in MODELS.items() if find_asset(model.weights))
    for name in names or here:
        asset = ASSETS[find_model(name).weights]
        path = get_asset(asset.name)
        origin = "the published one" if is_published(asset, path) else "not the published one: a file of your own"
        click.echo(f"{name}: {path}")
        click.echo(f"  hash     {origin}")
        model = load_model(name)
        click.echo("  tensors  all there, in the right shapes, finite")
        for check in parity_report(model):
            click.echo(f"  {check.name:50s} {check.text}")
            is_ok &= check.is_ok
    return 0 if is_ok else 1


def _record(name: str) -> dict[str, Any]:
    from audioset.assets import ASSETS, find_asset, is_published
    from audioset.models import FRONTENDS, find_model

    model = find_model(name)
    asset, path = ASSETS[model.weights], find_asset(model.weights)
    return {
        "name": model.name,
        "summary": model.summary,
        "mean_ap": model.mean_ap,
        "n_parameters": model.n_parameters,
        "sample_rate": FRONTENDS[model.frontend].sample_rate,
        "labels": model.labels,
        "weights": asset.name,
        "path": str(path) if path else None,
        "is_published": is_published(asset, path) if path else None,
        "n_bytes": asset.n_bytes,
        "digest": asset.digest,
        "url": asset.url,
        "licence": asset.licence,
        "source": model.source,
    }
