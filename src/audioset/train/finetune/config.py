"""The settings of a fine-tuning: one frozen table, from a TOML file and flags, checked before anything is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from audioset.errors import UsageError
from audioset.train.heads.config import DEVICES, PRECISIONS
from audioset.train.settings import Settings, define, read_settings

BATCH_NORMS = ("adapt", "keep")
HOLDOUTS = ("auto", "file", "group")


@dataclass(frozen=True)
class FinetuneConfig(Settings):
    """Settings of a run. ``docs/finetune.md`` explains each.

    UsageError for a value of another type, outside its range, or at odds with another one.
    """

    backbone: str = define("mn04", "A published model, or a model folder.")
    backbone_arguments: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Arguments of its network that differ from the published ones."}
    )
    frontend: str = define("", "Another frontend for it: efficientat_hop_5, say. Default: its own.")
    hidden_size: int = define(0, "Units of a layer before the classes; 0 for none.", at_least=0)
    dropout: float = define(0.2, "Share of the embedding that is left out.", at_least=0, below=1)

    holdout: float = define(0.1, "Share of the clips kept from training, to stop early.", at_least=0, below=1)
    holdout_by: str = define(
        "auto", "Keep whole files or whole groups; auto: groups where there are five or more.", choices=HOLDOUTS
    )
    patience: int = define(0, "Measurements without a better one before it stops; 0: any.", at_least=0)

    n_epochs: int = define(20, "Passes over the clips.", at_least=1)
    head_epochs: int = define(
        None,
        "Of these, with the new layers alone. Default: 1, and 0 of a single epoch.",
        at_least=0,
        derive=lambda settings: min(1, settings.n_epochs - 1),
    )
    unfreeze_epochs: int = define(
        None,
        "Over which the network follows, from the top down. Default: 1, and 0 where head_epochs are all.",
        at_least=0,
        derive=lambda settings: int(settings.n_epochs > settings.head_epochs),
    )
    frozen_until: str = define("", "Name of a layer: it and all before it stay as they are. Default: none.")
    batch_size: int = define(64, "Clips in a batch, of all processes together.", at_least=2)
    least_batches: int = define(
        8, "Of a pass: where there are too few clips for so many, each is taken several times.", at_least=1
    )
    seed: int = define(0, "Of everything that is random.", at_least=0)

    learning_rate: float = define(3e-3, "The highest one, of the network's last layer.", above=0)
    head_rate: float = define(3.0, "That of the new layers, against it.", above=0)
    bottom_rate: float = define(0.7, "That of the network's first layer, against it.", above=0, at_most=1)
    weight_decay: float = define(0.01, "Of matrices; biases and batch norms have none.", at_least=0)
    clip_norm: float = define(5.0, "Largest norm of the gradient; 0: any.", at_least=0)
    warm_up: float = define(0.1, "Share of the run in which the learning rates rise.", at_least=0, below=1)
    ema: float = define(0.99, "Decay of a moving average of the weights, which is used; 0: none.", at_least=0, below=1)
    batch_norms: str = define("adapt", "Whether their moments follow the clips or stay.", choices=BATCH_NORMS)
    class_weight_power: float = define(0.5, "Weigh classes by (mean count / count) to this power.", at_least=0)
    label_smoothing: float = define(0.1, "Move targets so far towards all classes.", at_least=0, below=1)
    precision: str = define("f32", "bf16 multiplies in bfloat16; weights and sums stay in float32.", choices=PRECISIONS)
    device: str = define("auto", "auto takes a GPU where there is one.", choices=DEVICES)
    n_threads: int = define(0, "Cores that PyTorch computes on; 0: as many as it takes by itself.", at_least=0)

    speed: float = define(
        0.0, "Play clips faster or slower by up to this share: time, pitch and timbre.", at_least=0, below=1
    )
    stretch: float = define(0.28, "Stretch time alone, likewise.", at_least=0, below=1)
    warp: float = define(0.16, "Stretch frequency alone, likewise, as longer vocal tracts do.", at_least=0, below=1)
    shift: float = define(0.15, "Silence around a clip, up to this share of it at each end.", at_least=0, at_most=1)
    gain_db: float = define(10.0, "Make clips louder or softer by up to this.", at_least=0)
    equaliser_db: float = define(6.0, "Deviation of a random filter.", at_least=0)
    noise: str = define("", "Folder of noise to add; without one, noise is made.")
    noise_share: float = define(0.5, "Share of the clips that have noise added.", at_least=0, at_most=1)
    least_snr_db: float = define(5.0, "Lowest ratio of clip to noise.")
    most_snr_db: float = define(40.0, "Highest one.")
    style_share: float = define(
        0.6,
        "Share of the clips whose bands get the mean and deviation of another clip's, in part.",
        at_least=0,
        at_most=1,
    )
    mixup: float = define(0.3, "Mix pairs of clips by Beta(a, a); 0: do not.", at_least=0)
    frequency_mask: float = define(0.12, "Widest hidden stripe, as a share of the bands.", at_least=0, below=1)
    time_mask: float = define(0.15, "Longest hidden stretch, as a share of a clip.", at_least=0, below=1)
    n_masks: int = define(1, "Stripes of each kind.", at_least=0)

    max_clip_s: float = define(10.0, "Of longer clips, a random piece is taken each time.", above=0)
    memory_mb: float = define(2000.0, "For decoded clips; the others are decoded each time.", at_least=0)
    checkpoint_every: int = define(1, "Epochs between checkpoints; 0: none.", at_least=0)
    tensorboard: bool = define(False, "Write the metrics for TensorBoard too.")

    def check_together(self) -> None:
        """Refuse values that are at odds with each other."""
        if self.least_snr_db > self.most_snr_db:
            raise UsageError(f"least_snr_db is {self.least_snr_db}, above most_snr_db, which is {self.most_snr_db}")
        if self.patience and not self.holdout:
            raise UsageError("patience needs held-out clips, and holdout is 0. Next step: holdout = 0.1")
        if self.head_epochs + self.unfreeze_epochs > self.n_epochs:
            raise UsageError(
                f"head_epochs and unfreeze_epochs are {self.head_epochs} and {self.unfreeze_epochs}, more than all "
                f"{self.n_epochs} epochs. Next step: lower them, or raise n_epochs"
            )


def read_finetune_config(path: str | os.PathLike[str] | None = None, **flags: Any) -> FinetuneConfig:
    """Settings of a TOML file with names of ``FinetuneConfig`` as keys, and of flags that overrule it.

    NoInputError if there is no such file; UsageError if it is not TOML, a name is unknown, or a value is not allowed.
    """
    return read_settings(FinetuneConfig, path, flags)
