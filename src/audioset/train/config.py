"""The settings of a training run: one frozen table, from a TOML file and flags, checked before anything is read."""

from __future__ import annotations

import difflib
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from audioset.errors import NoInputError, UsageError
from audioset.networks.heads import HEADS

tomllib: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

SAMPLERS = ("balanced", "uniform", "weighted")
SUBSETS = ("bal_train", "unbal_train", "train", "all")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine", "linear", "one-cycle")
PRECISIONS = ("f32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
AVERAGES = ("none", "weights", "scores")
CHOICES = ("last", "best")
KINDS = {"str": str, "int": int, "float": float, "bool": bool, "dict[str, Any]": dict}


def _setting(default: Any, help: str, **bounds: Any) -> Any:
    """A field with what the flag says about it, and what it may be: choices, at_least, above, at_most, below."""
    return field(default=default, metadata={"help": help, **bounds})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. ``docs/train.md`` explains each; the defaults are those of Kong's published training.

    Raises
    ------
    UsageError
        A value of another type, outside its range, or at odds with another one.
    """

    features: str = _setting("", "Features to train on, as audioset data features converts them.")
    subset: str = _setting(
        "bal_train", "Which of their clips: one subset, both training subsets (train), or all.", choices=SUBSETS
    )
    eval_features: str = _setting("", "Features to measure on. Default: the clips of --eval-subset in --features.")
    eval_subset: str = _setting(
        "", "Which of them: eval, say. Default: none if --eval-features is not given, else all."
    )
    targets: str = _setting(
        "", "A .npy file of soft targets, float (n_clips, n_classes), a row for each clip trained on."
    )
    target_share: float = _setting(1.0, "What they count against the labels.", at_least=0, at_most=1)
    holdout: float = _setting(0.0, "Share of the clips that is kept from training, to measure on.", at_least=0, below=1)

    head: str = _setting("feature-attention", "Name of the network; audioset train heads --list shows them.")
    head_arguments: dict[str, Any] = field(default_factory=dict, metadata={"help": "Its arguments."})

    sampler: str = _setting("balanced", "How batches are chosen.", choices=SAMPLERS)
    draws_per_pass: int = _setting(0, "Clips in a pass of the weighted sampler; 0: a twentieth of all.", at_least=0)
    whole_batches: bool = _setting(False, "Pass over a batch that is short, as the last one of a pass is.")
    batch_size: int = _setting(500, "Clips in a batch, of all processes together.", at_least=2)
    n_iterations: int = _setting(50_000, "Batches.", at_least=1)
    seed: int = _setting(0, "Of everything that is random.", at_least=0)

    mixup: float = _setting(0.0, "Mix pairs of clips by Beta(a, a); 0: do not.", at_least=0)
    label_smoothing: float = _setting(0.0, "Move targets so far towards each class's frequency.", at_least=0, below=1)
    class_weight_power: float = _setting(0.0, "Weigh classes by (mean count / count) to this power.", at_least=0)

    optimizer: str = _setting(
        "adam", "adamw decays weights by themselves, adam by their gradients.", choices=OPTIMIZERS
    )
    learning_rate: float = _setting(1e-3, "The highest one.", above=0)
    beta1: float = _setting(0.9, "What Adam keeps of the mean gradient.", at_least=0, below=1)
    beta2: float = _setting(0.999, "What Adam keeps of the mean square.", at_least=0, below=1)
    epsilon: float = _setting(1e-7, "Added to the root of the mean square.", above=0)
    weight_decay: float = _setting(0.0, "Of matrices; biases and batch norms have none.", at_least=0)
    clip_norm: float = _setting(0.0, "Largest norm of the gradient; 0: any.", at_least=0)
    schedule: str = _setting("constant", "How the learning rate goes on.", choices=SCHEDULES)
    warm_up: int = _setting(0, "Iterations in which the learning rate rises to where the schedule has it.", at_least=0)
    precision: str = _setting(
        "f32", "bf16 multiplies in bfloat16; weights and sums stay in float32.", choices=PRECISIONS
    )
    device: str = _setting("auto", "auto takes a GPU where there is one.", choices=DEVICES)

    ema: float = _setting(
        0.0, "Keep a moving average of the weights with this decay, and use it; 0: do not.", at_least=0, below=1
    )
    average: str = _setting("none", "What to average over --average-every iterations.", choices=AVERAGES)
    average_from: int = _setting(0, "First iteration of the average.", at_least=0)
    average_every: int = _setting(0, "Iterations from one member of the average to the next.", at_least=0)

    eval_every: int = _setting(1000, "Iterations between measurements; 0: at the end only.", at_least=0)
    patience: int = _setting(
        0, "Measurements without a better mAP on the held-out clips before it stops; 0: any.", at_least=0
    )
    choose: str = _setting("last", "Which weights are written: best is by mAP on the held-out clips.", choices=CHOICES)
    checkpoint_every: int = _setting(1000, "Iterations between checkpoints; 0: none.", at_least=0)
    log_every: int = _setting(100, "Iterations over which a line of metrics.jsonl has the mean loss.", at_least=1)
    tensorboard: bool = _setting(False, "Write the metrics for TensorBoard too.")
    licence: str = _setting("CC-BY-4.0", "Of the weights, for the model's card; AudioSet's features have this one.")

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting.name, getattr(self, setting.name), str(setting.type), setting.metadata)
            if setting.type == "float":  # so that 1 and 1.0 are the same run
                object.__setattr__(self, setting.name, float(getattr(self, setting.name)))
        _check_together(self)

    def as_dict(self) -> dict[str, Any]:
        """All settings by name, in order."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}

    def to_toml(self) -> str:
        """A file that ``read_config`` makes the same settings of."""
        return "".join(f"{name} = {_toml(value)}\n" for name, value in self.as_dict().items())


def read_config(path: str | os.PathLike[str] | None = None, **flags: Any) -> TrainConfig:
    """Settings of a file, and of flags that overrule it.

    What neither of them names is as the head's own recipe has it (``HEADS[head].recipe``), and else the default.

    Parameters
    ----------
    path : path, optional
        TOML, with names of ``TrainConfig`` as keys.
    **flags
        Settings by name.

    Returns
    -------
    TrainConfig

    Raises
    ------
    NoInputError
        There is no such file.
    UsageError
        It is not TOML, a name is unknown, or a value is not allowed.
    """
    values = {} if path is None else _read_toml(Path(path))
    place = "" if path is None else f"{os.fspath(path)}: "
    check_names(values, place)
    check_names(flags)
    given = {**values, **flags}
    head_arguments = {**values.get("head_arguments", {}), **flags.get("head_arguments", {})}
    try:
        return TrainConfig(**{**_recipe(given), **given, "head_arguments": head_arguments})
    except UsageError as error:
        raise UsageError(f"{place}{error}") from error


def _recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the head asks for; of none that there is, the run says so itself."""
    head = given.get("head", TrainConfig.head)
    return HEADS[head].recipe if isinstance(head, str) and head in HEADS else {}


def check_names(values: Mapping[str, Any], place: str = "") -> None:
    """Refuse names that are no settings.

    Raises
    ------
    UsageError
        With the setting whose name is nearest.
    """
    names = [setting.name for setting in fields(TrainConfig)]
    for name in values:
        if name not in names:
            nearest = difflib.get_close_matches(name, names, 1, 0.5)
            hint = f"Likely meant: {nearest[0]}" if nearest else f"Expected one of {', '.join(names)}"
            raise UsageError(f"{place}there is no setting {name!r}. {hint}")


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What two runs do differently, as ``name: their value, now our value``."""
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [
        f"{name}: {theirs.get(name)!r}, now {ours.get(name)!r}" for name in names if ours.get(name) != theirs.get(name)
    ]


def parse_argument(text: str) -> tuple[str, Any]:
    """``name=value`` with a TOML value; what is no such value is a string.

    Raises
    ------
    UsageError
    """
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise UsageError(f"{text!r} is no argument of a head; expected NAME=VALUE, such as n_hidden=512")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return values
    except OSError as error:
        raise NoInputError(f"cannot read the settings {path}: {error.strerror}. Next step: check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _check(name: str, value: Any, kind: str, bounds: Mapping[str, Any]) -> None:
    expected: Any = (int, float) if kind == "float" else KINDS[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise UsageError(f"{name} is {value!r}; expected a value of type {kind.split('[')[0]}")
    if "choices" in bounds and value not in bounds["choices"]:
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(bounds['choices'])}")
    if kind == "float" and not math.isfinite(value):
        raise UsageError(f"{name} is {value!r}; expected a finite number")
    holds = {
        "at_least": lambda bound: value >= bound,
        "above": lambda bound: value > bound,
        "at_most": lambda bound: value <= bound,
        "below": lambda bound: value < bound,
    }
    for relation in holds.keys() & bounds.keys():
        if not holds[relation](bounds[relation]):
            raise UsageError(f"{name} is {value!r}; expected a number {relation.replace('_', ' ')} {bounds[relation]}")


def _check_together(config: TrainConfig) -> None:
    """Refuse settings that would do nothing: they are a mistake somewhere else."""
    needs_holdout = [
        name for name, is_set in (("patience", config.patience), ("choose", config.choose == "best")) if is_set
    ]
    if needs_holdout and not config.holdout:
        raise UsageError(
            f"{needs_holdout[0]} needs held-out clips, and holdout is 0. Next step: holdout = 0.1. "
            "Clips of the evaluation set are not for choosing"
        )
    if (config.average != "none") != bool(config.average_every):
        raise UsageError(
            f"average is {config.average!r} and average_every is {config.average_every}; expected both or neither"
        )
    if config.average_from and config.average == "none":
        raise UsageError("average_from is set, and average is 'none'. Next step: average = 'weights'")
    if config.average_from > config.n_iterations:
        raise UsageError(f"average_from is {config.average_from}, after the last of {config.n_iterations} iterations")
    if config.average == "scores" and not (config.eval_features or config.eval_subset):
        raise UsageError("average is 'scores', of clips to measure on, and there are none. Next step: eval_features")
    if config.average != "none" and config.choose == "best":
        raise UsageError(f"average is {config.average!r} and choose is 'best'; expected one of the two")
    if config.draws_per_pass and config.sampler != "weighted":
        raise UsageError(f"draws_per_pass is for the weighted sampler, and sampler is {config.sampler!r}")
    if config.target_share != 1 and not config.targets:
        raise UsageError("target_share is set, and targets is not. Next step: name the file of soft targets")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (bool, str)):
        return json.dumps(value).replace("\x7f", "\\u007f")
    return repr(value)
