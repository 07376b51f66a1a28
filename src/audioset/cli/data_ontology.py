"""``audioset data ontology``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from audioset.cli.echo import echo

if TYPE_CHECKING:
    from audioset.labels.ontology import Ontology

PUBLISHED = "ontology.json"
INDENT = "  "
ARROW = " > "


@click.group()
def ontology() -> None:
    """Which sound is a kind of which: the 632 classes of AudioSet.

    A class is named by its id, such as /m/0bt9lr, or by its display name in any case.

    \b
    Examples:
      audioset data ontology tree "Domestic animals, pets"
      audioset data ontology search bell
      audioset data ontology show Hiss
    """


@ontology.command()
@click.argument("name", required=False)
@click.option("--depth", metavar="N", type=click.IntRange(0), help="Levels below the first. Default: all.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def tree(name: str | None, depth: int | None, as_json: bool) -> None:
    """Print the class NAME, or all, with the classes below. One with several parents is below each of them."""
    from audioset.labels.ontology import Ontology

    ontology = Ontology.load()
    top = ontology.roots if name is None else (ontology.find(name),)
    if as_json:
        _echo_json([_branch(ontology, label_id, depth) for label_id in top])
        return
    for label_id in top:
        for line in _lines(ontology, label_id, depth):
            echo(line)


@ontology.command()
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def search(text: str, as_json: bool) -> None:
    """List the classes whose names contain TEXT, in any case; if there is none, those with similar names."""
    from audioset.labels.ontology import Ontology

    ontology = Ontology.load()
    found = ontology.search(text)
    if as_json:
        _echo_json([{**_title(ontology, label_id), "paths": _paths(ontology, label_id)} for label_id in found])
        return
    if not found:
        echo(f"audioset: no class has a name like {text!r}", err=True)
    for label_id in found:
        first, *others = _paths(ontology, label_id)
        more = f"  (and {len(others)} more)" if others else ""
        echo(f"{label_id:12s}  {ARROW.join(first)}{more}")


@ontology.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(name: str, as_json: bool) -> None:
    """Describe the class NAME: restrictions, parents, children, paths, and its column in each label set.

    Description and examples come from the published ontology.json, if that is in a folder of AUDIOSET_ASSETS.
    """
    from audioset.labels.ontology import Ontology

    ontology = Ontology.load()
    record = _record(ontology, ontology.find(name))
    if as_json:
        _echo_json(record)
        return
    for key, value in record.items():
        first, *others = _as_text(key, value) or ["none"]
        echo(f"{key:14s} {first}")
        for line in others:
            echo(f"{'':14s} {line}")


def _title(ontology: Ontology, label_id: str) -> dict[str, str]:
    return {"label_id": label_id, "label": ontology.name(label_id)}


def _branch(ontology: Ontology, label_id: str, depth: int | None) -> dict[str, Any]:
    """A class and those below it, ``depth`` levels down."""
    children = ontology.children(label_id) if depth != 0 else ()
    return {
        **_title(ontology, label_id),
        "restrictions": ontology.restrictions(label_id),
        "n_descendants": len(ontology.descendants(label_id)),
        "children": [_branch(ontology, child_id, _less(depth)) for child_id in children],
    }


def _lines(ontology: Ontology, label_id: str, depth: int | None, level: int = 0) -> Iterator[str]:
    """The same, as lines; where they stop early, the number of classes left out."""
    restrictions = "".join(f"  [{restriction}]" for restriction in ontology.restrictions(label_id))
    n_below = len(ontology.descendants(label_id))
    left_out = f"  ({n_below} below)" if depth == 0 and n_below else ""
    yield f"{INDENT * level}{ontology.name(label_id)}  {label_id}{restrictions}{left_out}"
    for child_id in ontology.children(label_id) if depth != 0 else ():
        yield from _lines(ontology, child_id, _less(depth), level + 1)


def _less(depth: int | None) -> int | None:
    return None if depth is None else depth - 1


def _paths(ontology: Ontology, label_id: str) -> list[list[str]]:
    return [[ontology.name(step) for step in path] for path in ontology.paths(label_id)]


def _record(ontology: Ontology, label_id: str) -> dict[str, Any]:
    from audioset.labels.labels import NAMES, LabelSet

    sets = {name: LabelSet.load(name).ids for name in NAMES}
    published = _published(label_id)
    return {
        **_title(ontology, label_id),
        "restrictions": ontology.restrictions(label_id),
        "parents": [_title(ontology, parent_id) for parent_id in ontology.parents(label_id)],
        "children": [_title(ontology, child_id) for child_id in ontology.children(label_id)],
        "paths": _paths(ontology, label_id),
        "label_index": {name: ids.index(label_id) if label_id in ids else None for name, ids in sets.items()},
        "description": published and published["description"],
        "examples": published and published["positive_examples"],
    }


def _published(label_id: str) -> dict[str, Any] | None:
    """What the published file says of a class, or None if it is not on this machine."""
    from audioset.assets import ASSETS, find_asset
    from audioset.errors import AssetError

    path = find_asset(PUBLISHED)
    if path is None:
        return None
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
        node = next(node for node in nodes if node["id"] == label_id)
        return {"description": str(node["description"]), "positive_examples": list(node["positive_examples"])}
    except (OSError, ValueError, TypeError, LookupError, StopIteration, RecursionError) as error:
        url = ASSETS[PUBLISHED].url
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise AssetError(
            f"{path} does not describe {label_id} ({reason}); expected a list of classes with id, description and "
            f"positive_examples. Likely cause: another file of this name. Next step: replace it by {url}"
        ) from error


def _as_text(key: str, value: Any) -> list[str]:
    """A field of a record, as lines."""
    from audioset.assets import ASSETS
    from audioset.errors import one_line

    if value is None:
        return [f"not on this machine: put {ASSETS[PUBLISHED].url} into a folder of AUDIOSET_ASSETS"]
    if key == "paths":
        return [ARROW.join(path) for path in value]
    if key == "label_index":
        return [f"{'-' if index is None else index!s:>3s} in {name}" for name, index in value.items()]
    if isinstance(value, str):
        return [one_line(value)]
    return [one_line(item) if isinstance(item, str) else f"{item['label']}  {item['label_id']}" for item in value]


def _echo_json(value: Any) -> None:
    echo(json.dumps(value, indent=2))
