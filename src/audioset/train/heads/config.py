"""The settings of a training run: one frozen table, from a TOML file and flags, checked before anything is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audioset.errors import UsageError
from audioset.networks.heads import HEADS
from audioset.train.settings import Settings, define, read_settings

SAMPLERS = ("balanced", "uniform", "weighted")
SUBSETS = ("bal_train", "unbal_train", "train", "all")
OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine", "linear", "one-cycle")
PRECISIONS = ("f32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
AVERAGES = ("none", "weights", "scores")
CHOICES = ("last", "best")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of a run. ``docs/train.md`` explains each; the defaults are those of Kong's published training.

    Raises
    ------
    UsageError
        A value of another type, outside its range, or at odds with another one.
    """

    features: str = define("", "Features to train on, as audioset data features converts them.")
    subset: str = define(
        "bal_train", "Which of their clips: one subset, both training subsets (train), or all.", choices=SUBSETS
    )
    eval_features: str = define("", "Features to measure on. Default: the clips of --eval-subset in --features.")
    eval_subset: str = define("", "Which of them: eval, say. Default: none if --eval-features is not given, else all.")
    targets: str = define(
        "", "A .npy file of soft targets, float (n_clips, n_classes), a row for each clip trained on."
    )
    target_share: float = define(1.0, "What they count against the labels.", at_least=0, at_most=1)
    holdout: float = define(0.0, "Share of the clips that is kept from training, to measure on.", at_least=0, below=1)

    head: str = define("feature-attention", "Name of the network; audioset train heads --list shows them.")
    head_arguments: dict[str, Any] = field(default_factory=dict, metadata={"help": "Its arguments."})

    sampler: str = define("balanced", "How batches are chosen.", choices=SAMPLERS)
    draws_per_pass: int = define(0, "Clips in a pass of the weighted sampler; 0: a twentieth of all.", at_least=0)
    whole_batches: bool = define(False, "Pass over a batch that is short, as the last one of a pass is.")
    batch_size: int = define(500, "Clips in a batch, of all processes together.", at_least=2)
    n_iterations: int = define(50_000, "Batches.", at_least=1)
    seed: int = define(0, "Of everything that is random.", at_least=0)

    mixup: float = define(0.0, "Mix pairs of clips by Beta(a, a); 0: do not.", at_least=0)
    label_smoothing: float = define(0.0, "Move targets so far towards each class's frequency.", at_least=0, below=1)
    class_weight_power: float = define(0.0, "Weigh classes by (mean count / count) to this power.", at_least=0)

    optimizer: str = define("adam", "adamw decays weights by themselves, adam by their gradients.", choices=OPTIMIZERS)
    learning_rate: float = define(1e-3, "The highest one.", above=0)
    beta1: float = define(0.9, "What Adam keeps of the mean gradient.", at_least=0, below=1)
    beta2: float = define(0.999, "What Adam keeps of the mean square.", at_least=0, below=1)
    epsilon: float = define(1e-7, "Added to the root of the mean square.", above=0)
    weight_decay: float = define(0.0, "Of matrices; biases and batch norms have none.", at_least=0)
    clip_norm: float = define(0.0, "Largest norm of the gradient; 0: any.", at_least=0)
    schedule: str = define("constant", "How the learning rate goes on.", choices=SCHEDULES)
    warm_up: int = define(0, "Iterations in which the learning rate rises to where the schedule has it.", at_least=0)
    precision: str = define("f32", "bf16 multiplies in bfloat16; weights and sums stay in float32.", choices=PRECISIONS)
    device: str = define("auto", "auto takes a GPU where there is one.", choices=DEVICES)

    ema: float = define(
        0.0, "Keep a moving average of the weights with this decay, and use it; 0: do not.", at_least=0, below=1
    )
    average: str = define("none", "What to average over --average-every iterations.", choices=AVERAGES)
    average_from: int = define(0, "First iteration of the average.", at_least=0)
    average_every: int = define(0, "Iterations from one member of the average to the next.", at_least=0)

    eval_every: int = define(1000, "Iterations between measurements; 0: at the end only.", at_least=0)
    patience: int = define(
        0, "Measurements without a better mAP on the held-out clips before it stops; 0: any.", at_least=0
    )
    choose: str = define("last", "Which weights are written: best is by mAP on the held-out clips.", choices=CHOICES)
    checkpoint_every: int = define(1000, "Iterations between checkpoints; 0: none.", at_least=0)
    log_every: int = define(100, "Iterations over which a line of metrics.jsonl has the mean loss.", at_least=1)
    tensorboard: bool = define(False, "Write the metrics for TensorBoard too.")
    licence: str = define("CC-BY-4.0", "Of the weights, for the model's card; AudioSet's features have this one.")

    @classmethod
    def recipe(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the head asks for; of none that there is, the run says so itself."""
        head = given.get("head", cls.head)
        return HEADS[head].recipe if isinstance(head, str) and head in HEADS else {}

    def check_together(self) -> None:
        """Refuse settings that would do nothing: they are a mistake somewhere else."""
        needs_holdout = [
            name for name, is_set in (("patience", self.patience), ("choose", self.choose == "best")) if is_set
        ]
        if needs_holdout and not self.holdout:
            raise UsageError(
                f"{needs_holdout[0]} needs held-out clips, and holdout is 0. Next step: holdout = 0.1. "
                "Clips of the evaluation set are not for choosing"
            )
        if (self.average != "none") != bool(self.average_every):
            raise UsageError(
                f"average is {self.average!r} and average_every is {self.average_every}; expected both or neither"
            )
        if self.average_from and self.average == "none":
            raise UsageError("average_from is set, and average is 'none'. Next step: average = 'weights'")
        if self.average_from > self.n_iterations:
            raise UsageError(f"average_from is {self.average_from}, after the last of {self.n_iterations} iterations")
        if self.average == "scores" and not (self.eval_features or self.eval_subset):
            raise UsageError(
                "average is 'scores', of clips to measure on, and there are none. Next step: eval_features"
            )
        if self.average != "none" and self.choose == "best":
            raise UsageError(f"average is {self.average!r} and choose is 'best'; expected one of the two")
        if self.draws_per_pass and self.sampler != "weighted":
            raise UsageError(f"draws_per_pass is for the weighted sampler, and sampler is {self.sampler!r}")
        if self.target_share != 1 and not self.targets:
            raise UsageError("target_share is set, and targets is not. Next step: name the file of soft targets")


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
    return read_settings(TrainConfig, path, flags)
