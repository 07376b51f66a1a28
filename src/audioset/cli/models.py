"""``audioset models``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click

from audioset.cli.echo import echo
from audioset.errors import one_line


@click.group(short_help="List, describe, fetch and check the published models.")
def models() -> None:
    """List, describe, fetch and check the published models, and show and clear the cache."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_models(as_json: bool) -> None:
    """List all models and whether their weights are on this machine."""
    from audioset.assets import find_asset
    from audioset.models.published import MODELS, bundled_models

    bundled = bundled_models()
    if as_json:
        echo(json.dumps([_record(name) for name in (*MODELS, *bundled)], indent=2))
        return
    width = max(map(len, (*MODELS, *bundled)))
    for model in MODELS.values():  # not their records, which hash every file
        where = find_asset(model.weights) or f"not here: audioset models pull {model.name}"
        mean_ap = f"mAP {model.mean_ap:.3f}" if model.mean_ap else "embeds"
        echo(f"{model.name:{width}s} {mean_ap:9s}  {model.summary}")
        echo(f"{'':{width}s} {where}")
    for name, folder in bundled.items():
        record = _bundled_record(name, folder)
        echo(f"{name:{width}s} mAP {record['mean_ap']:.3f}  {record['summary']}")
        echo(f"{'':{width}s} {record['path']}")


@models.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def info(name: str, as_json: bool) -> None:
    """Describe the model NAME: network, frontend, labels, weights, licence, source."""
    record = _record(name)
    if as_json:
        echo(json.dumps(record, indent=2))
        return
    for key, value in record.items():
        echo(f"{key:14s} {value if value is not None else 'not on this machine'}")


@models.command()
@click.argument("names", nargs=-1, required=True)
def pull(names: tuple[str, ...]) -> None:
    """Fetch the weights of the models NAMES, if they are not on this machine, and convert them."""
    from audioset.cache import cache_folder
    from audioset.models.engines import make_engine
    from audioset.models.folders import prepare_graph, prepare_model
    from audioset.models.published import bundled_models, find_model

    for name in names:
        if name not in bundled_models():
            find_model(name)
        card, folder = prepare_model(name)
        make_engine("openvino", card, folder, "f32", 1)
        place = cache_folder() / prepare_graph(card, folder).name
        origin = "as published" if card.source["is_published"] else "of your own"
        echo(f"{name}: {card.source['file']} {origin}")
        echo(f"{'':{len(name)}}  ready in {place.parent}")


@models.command("cache")
@click.argument("names", nargs=-1)
@click.option("--clear", is_flag=True, help="Delete what is shown.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show_cache(names: tuple[str, ...], clear: bool, as_json: bool) -> None:
    """Show what the cache holds, or what it holds of NAMES: downloads, prepared models and embeddings.

    What is prepared is made again when it is needed; a download is fetched again. The cache is the folder that
    AUDIOSET_CACHE names, or the platform's. Models from a folder of yours are there under the folder's name.

    \b
    Examples:
      audioset models cache
      audioset models cache yamnet --clear
      audioset models cache --clear
    """
    from audioset import cache

    chosen = cache.clear(names) if clear else cache.entries(names)
    if as_json:
        records = [{**vars(entry), "path": str(entry.path), "is_cleared": clear} for entry in chosen]
        echo(json.dumps(records, indent=2))
        return
    width = max((len(entry.name) for entry in chosen), default=0)
    for entry in chosen:
        state = "deleted" if clear else entry.state
        path = one_line(str(entry.path))
        echo(f"{one_line(entry.name):{width}s} {entry.n_bytes / 1e6:9.1f} MB  {state:9s} {path}")
    n_bytes = sum(entry.n_bytes for entry in chosen)
    echo(f"audioset: {n_bytes / 1e6:.1f} MB {'deleted from' if clear else 'in'} {cache.cache_folder()}", err=True)


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> int:
    """Check the weights of the models NAMES: hash, tensors and a run on three signals.

    By default, all models whose weights are on this machine.

    Exits with 1 if a measurement is beyond its bound.
    """
    from audioset.assets import ASSETS, find_asset, get_asset, is_published
    from audioset.models.loading import load_model
    from audioset.models.published import MODELS, bundled_models, find_model
    from audioset.models.reproduction import parity_report

    is_ok = True
    here = tuple(name for name, model in MODELS.items() if find_asset(model.weights))
    for name in names or (*here, *bundled_models()):
        if name in bundled_models():
            is_ok &= _verify_bundled(name)
            continue
        asset = ASSETS[find_model(name).weights]
        path = get_asset(asset.name)
        origin = "the published one" if is_published(asset, path) else "not the published one: a file of your own"
        echo(f"{name}: {path}")
        echo(f"  hash     {origin}")
        model = load_model(name)
        echo("  tensors  all there, in the right shapes, finite")
        for check in parity_report(model):
            echo(f"  {check.name:50s} {check.text}")
            is_ok &= check.is_ok
    return 0 if is_ok else 1


def _verify_bundled(name: str) -> bool:
    """Check the weights that are part of the package: hash and tensors."""
    from audioset.assets import hash_file
    from audioset.models.loading import load_model
    from audioset.models.published import bundled_models
    from audioset.weights.model_folder import WEIGHTS_NAME

    path = bundled_models()[name] / WEIGHTS_NAME
    digest: str = load_model(name).card.source["digest"]
    is_same = hash_file(path) == digest
    echo(f"{name}: {path}")
    echo(f"  hash     {'the one of its card' if is_same else 'NOT the one of its card: the file was changed'}")
    echo("  tensors  all there, in the right shapes, finite")
    return is_same


def _bundled_record(name: str, folder: Path) -> dict[str, Any]:
    from audioset.models.cards import FRONTENDS, network_shapes
    from audioset.weights.model_folder import WEIGHTS_NAME, read_card

    card, path = read_card(folder), folder / WEIGHTS_NAME
    return {
        "name": name,
        "summary": card.source["summary"],
        "mean_ap": card.source["metrics"]["mean_ap"],
        "n_parameters": sum(math.prod(shape) for shape in network_shapes(card).values()),
        "sample_rate": FRONTENDS[card.frontend].sample_rate,
        "labels": card.labels,
        "weights": path.name,
        "path": str(path),
        "is_published": True,
        "n_bytes": path.stat().st_size,
        "digest": card.source["digest"],
        "url": card.source["url"],
        "licence": card.licence,
        "source": card.source["recipe"],
    }


def _record(name: str) -> dict[str, Any]:
    from audioset.assets import ASSETS, find_asset, is_published
    from audioset.models.cards import FRONTENDS
    from audioset.models.published import bundled_models, find_model

    if name in bundled_models():
        return _bundled_record(name, bundled_models()[name])
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
