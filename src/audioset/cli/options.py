"""Options as fields of frozen classes: one class for each group, and one place that makes click's options of them.

>>> @dataclass(frozen=True)
... class Search:
...     n: int = option("How many moments.", "N", "--n -n", default=20, at_least=1)
>>> @click.command()
... @takes(search=Search)
... def find(search: Search) -> None:
...     echo(search.n)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from audioset.cli.echo import echo

if TYPE_CHECKING:
    from audioset.labels.labels import LabelSet
    from audioset.models.model import Model
    from audioset.runs.view import EventFinder, View

Command = TypeVar("Command", bound=Callable[..., Any])

TYPES = {"str": str, "int": int, "float": float, "Path": click.Path(path_type=Path)}
RANGES = {"int": click.IntRange, "float": click.FloatRange}
MANY = "tuple["  # how the type of an option begins that may be repeated
BOUNDS = {"at_least": ("min", False), "above": ("min", True), "at_most": ("max", False), "below": ("max", True)}
OWN_SETTINGS = ("flags", "old", "choices", "description", *BOUNDS)  # the others are click's
# Options that name what a command reads, and never writes.
READ = ("weights", "thresholds", "pca", "labels", "scores", "ids", "exclude_ids", "quality", "ends", "features", "like")


def option(help: str | None = None, metavar: str | None = None, flags: str = "", **settings: Any) -> Any:
    """A field of a group of options.

    ``flags`` are such as ``"--output -o"``; by default the field's name, with ``-`` for ``_``. The settings are
    ``choices``; the range as ``at_least``, ``above``, ``at_most`` and ``below``; ``old``, a name of earlier versions
    that still works; and what ``click.option`` takes. A ``default`` that says something is shown. The type is that of
    the field: ``bool`` is a flag, and a ``tuple`` may be given several times.
    """
    return field(metadata={"help": help, "metavar": metavar, "flags": flags, **settings})


def takes(**groups: type[Any]) -> Callable[[Command], Command]:
    """Give a command the options of groups, and at each call an instance of each, under the name it has here."""
    settings = {group: fields(kind) for group, kind in groups.items()}
    names = {setting.name for group in settings.values() for setting in group}

    def add(command: Command) -> Command:
        @wraps(command)
        def call(**given: Any) -> Any:
            made = {
                group: kind(**{setting.name: given[setting.name] for setting in settings[group]})
                for group, kind in groups.items()
            }
            return command(**made, **{name: value for name, value in given.items() if name not in names})

        for setting in reversed([setting for group in settings.values() for setting in group]):
            _add_option(call, setting)
        return cast(Command, call)

    return add


def old_name(old: str, new: str, name: str) -> Callable[[Command], Command]:
    """Take an option by the name of earlier versions too, with a warning: it gives the default of the new one."""

    def pass_on(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            echo(f"audioset: {old} is called {new} now, and goes with the next version", err=True)
            ctx.default_map = {**(ctx.default_map or {}), name: value}

    return click.option(old, f"old_{name}", hidden=True, is_eager=True, expose_value=False, callback=pass_on)


def _add_option(command: Callable[..., Any], setting: Field[Any]) -> None:
    told = {"help": setting.metadata.get("description"), **setting.metadata}  # limits have a description
    if setting.default is not MISSING:
        told["default"] = setting.default
    flags = (told.get("flags") or f"--{setting.name.replace('_', '-')}").split()
    if "old" in told:
        old_name(told["old"], flags[0], setting.name)(command)
    kind = str(setting.type).removesuffix(" | None")
    shape: dict[str, Any] = {"show_default": bool(told.get("default"))}
    shape |= {"multiple": True} if kind.startswith(MANY) else {}
    shape |= {"metavar": "N"} if "description" in told else {}
    kind = kind.removeprefix(MANY).removesuffix(", ...]")
    shape |= {"is_flag": True} if kind == "bool" else {"type": _type(kind, told)}
    plain = {name: value for name, value in told.items() if name not in OWN_SETTINGS}
    click.option(*flags, setting.name, **{**shape, **plain})(command)


def _type(kind: str, told: Mapping[str, Any]) -> Any:
    """What click checks values by."""
    if "choices" in told:
        return click.Choice(list(told["choices"]))
    bounds = {BOUNDS[name]: told[name] for name in BOUNDS if name in told}
    if not bounds:
        return TYPES[kind]
    ends = {end: value for (end, _), value in bounds.items()}
    return RANGES[kind](**ends, **{f"{end}_open": is_open for end, is_open in bounds})


ENGINES = ("openvino", "onnxruntime", "torch")
JSON = "As JSON."
OUTPUT = "File to write. Default: standard output."
QUIET = "No progress and no summary."
OVERWRITE = "Replace an output file that is there already, whatever wrote it."


def json_flag(help: str = JSON) -> Any:
    """``--json``."""
    return option(help, flags="--json")


@dataclass(frozen=True)
class JsonOption:
    """``--json``."""

    as_json: bool = json_flag()


@dataclass(frozen=True)
class ModelName:
    """Which model."""

    model: str = option("Name, or a model folder.", "NAME", default="yamnet")
    weights: Path | None = option("A checkpoint of your own.", "FILE")


@dataclass(frozen=True)
class EngineOptions:
    """What a model is run by."""

    engine: str = option(choices=ENGINES, default="openvino")
    precision: str = option("bf16 is faster and moves scores by up to 0.06.", choices=("f32", "bf16"), default="f32")
    threads: int | None = option("Cores for the network. Default: all.", "N", at_least=1)


@dataclass(frozen=True)
class ModelOptions(EngineOptions, ModelName):
    """Which model, and what it is run by."""

    def load(self) -> Model:
        """Load the model."""
        return load_chosen(self.model, self.weights, self)


@dataclass(frozen=True)
class PatchOptions:
    """How a recording is cut into patches."""

    hop_s: float | None = option("Seconds between patches. Default: the model's own.", "S", "--hop")
    window_s: float | None = option("Seconds of a patch of a model of clips. Default: 10.", "S", "--window")


@dataclass(frozen=True)
class DecodingOptions(PatchOptions):
    """How recordings are read."""

    pad: str | None = option(
        "What happens to audio that does not fill a patch. Default: the model's own.",
        choices=("cover", "error", "zero", "repeat"),
    )
    workers: int | None = option("Decoding processes. Default: one a core.", "N", at_least=1)
    quiet: bool = option(QUIET, flags="--quiet -q")

    @property
    def patches(self) -> dict[str, Any]:
        """What the functions that predict are to be told."""
        return {"hop_s": self.hop_s, "window_s": self.window_s, "pad": self.pad}


@dataclass(frozen=True)
class OutputOptions:
    """Where results go."""

    output: str | None = option("File to write, or a folder. Default: standard output.", "PATH", "--output -o")
    overwrite: bool = option(OVERWRITE)


@dataclass(frozen=True)
class RunOptions(DecodingOptions, OutputOptions, ModelOptions):
    """Of commands that write rows of recordings."""


@dataclass(frozen=True)
class ViewOptions:
    """Which labels are shown."""

    classes: tuple[str, ...] = option(
        "Only labels of this class of the ontology, by id or name: itself and what is below. May be repeated.", "CLASS"
    )
    roll_up: bool = option("Raise each label to the highest score of those below it.")
    leaf_only: bool = option("Leave out labels where a more specific one is shown.")

    def view_maker(self) -> Callable[[LabelSet], View]:
        """Make views of models' labels; a class that there is not is refused at once."""
        from audioset.runs.view import view_maker

        return view_maker(self.classes, roll_up=self.roll_up)


@dataclass(frozen=True)
class EventOptions:
    """What is an event."""

    threshold: float | None = option(
        "An event begins where a label's score reaches this. Default: the model's own thresholds, or 0.5.",
        "T",
        at_least=0,
        at_most=1,
    )
    low_threshold: float | None = option(
        "It goes on while the score reaches this. Default: --threshold.", "T", at_least=0, at_most=1
    )
    thresholds: Path | None = option("Labels with thresholds of their own: a CSV, TSV or JSON file.", "FILE")
    median_patches: int = option(
        "First smooth the scores over N patches, an odd number.", "N", "--median", default=1, at_least=1
    )
    max_gap_s: float = option(
        "Join events of a label with at most so many seconds between them.", "S", "--max-gap", default=0.0, at_least=0
    )
    min_duration_s: float = option("Leave out events that are shorter.", "S", "--min-duration", default=0.0, at_least=0)

    def finder_maker(
        self, shown: ViewOptions, *, is_quiet: bool, in_order: bool = True
    ) -> Callable[[Model], EventFinder]:
        """Make finders of models' events; what is wrong with the options is said at once."""
        from audioset.runs.view import finder_maker

        return finder_maker(
            shown.view_maker(),
            **vars(self),
            leaf_only=shown.leaf_only,
            in_order=in_order,
            say=lambda text: None if is_quiet else echo(f"audioset: {text}", err=True),
        )


def format_option(formats: Iterable[str]) -> Any:
    """``--format``: one of the keys, the first of which is the default."""
    choices = tuple(formats)
    return option(f"Default: by the suffix of --output, or {choices[0]}.", flags="--format", choices=choices)


def load_chosen(name: str, weights: Path | None, engine: EngineOptions) -> Model:
    """The model that the options ask for."""
    from audioset.models.loading import load_model

    return load_model(name, weights=weights, precision=engine.precision, engine=engine.engine, n_threads=engine.threads)


def files_read(*inputs: str | os.PathLike[str]) -> set[tuple[int, int]]:
    """``file_ids`` of a command's inputs, and of all that its options name to be read: the model, lists, tables."""
    from audioset.dataset.lists.published import SUBSET_FILES
    from audioset.formats.output import file_ids

    params = click.get_current_context().params
    named: list[str | os.PathLike[str]] = [*inputs, *model_files(params.get("model") or "")]
    for value in filter(None, map(params.get, READ)):
        values = [value] if isinstance(value, (str, Path)) else value
        named += [name for name in values if name not in SUBSET_FILES]  # "eval" is the published list, not ./eval
    return file_ids(named)


def model_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The files of a model folder."""
    from audioset.weights.model_folder import CARD_NAME, WEIGHTS_NAME

    return [Path(folder) / name for name in (CARD_NAME, WEIGHTS_NAME)] if os.fspath(folder) else []


def hold_folder(folder: Path) -> None:
    """Be the only run that fills an output folder, until the command ends.

    ``UsageError`` if it is a file, ``ConflictError`` if another run is filling it.
    """
    from audioset.files import locked_folder

    click.get_current_context().with_resource(locked_folder(folder))


def check_tagger(model: Model, name: str) -> None:
    """Refuse a model without labels, for a command that needs scores."""
    if not len(model.labels):
        raise click.UsageError(f"{name} only embeds: it has no scores. Next step: audioset embed")


def print_result(as_json: bool, record: Callable[[], Any], lines: Callable[[], Iterable[str]]) -> None:
    """Print a result as JSON, or line by line; only what is printed is made."""
    if as_json:
        echo(json.dumps(record(), indent=2))
    else:
        for line in lines():
            echo(line)
