"""Training of a whole network on clips of one's own: from the task to weights, to be read from top to bottom."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from audioset.arrays import FloatArray, IndexArray
from audioset.errors import UsageError
from audioset.executors.torch import TorchNetwork, network_to_torch
from audioset.models.cards import find_network, network_shapes, output_shapes
from audioset.models.folders import load_weights
from audioset.networks.classifier import HIDDEN, LOGITS
from audioset.sounds.collection import Collection
from audioset.train.backbones import Backbone, Head
from audioset.train.checkpoint import Record, RunFolder, Weights
from audioset.train.distributed import Processes
from audioset.train.finetune.augment import Augmentation
from audioset.train.finetune.config import FinetuneConfig
from audioset.train.finetune.data import Spectrograms, data_digest, make_batches, stacked
from audioset.train.finetune.layers import find_stages, learning_rate, make_optimizer, prepare_epoch
from audioset.train.loop import (
    LEAST_CLIPS,
    OnLine,
    TrainingBatch,
    TrainingRecipe,
    autocast,
    loaded,
    reporter,
    train_on,
)
from audioset.train.measures import Decision, clip_balanced_accuracy
from audioset.train.state import TrainingState, copied
from audioset.weights.model_folder import ModelCard

FRAMES_AT_ONCE = 20_000  # of patches that are only measured
BATCHES_TO_MEASURE, BATCHES_TO_FINISH = 4, 20  # that the moments are of
LEAST_SHARE = 1e-6  # of a batch in moments that follow it; less is rounding
RELATIVE_DEVIATION = 0.5  # of the new layers' first weights, against what keeps the size of what they see


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be learned."""

    spectrograms: Spectrograms
    collection: Collection
    digests: list[str]  # of each clip's file
    targets: FloatArray  # (n_clips, n_classes)
    backbone: Backbone
    decision: Decision
    augmentation: Augmentation

    @property
    def activation(self) -> str:
        """Of the scores."""
        return self.decision.activation

    def names(self, rows: IndexArray) -> list[str]:
        """Paths of some clips, for people."""
        return [str(self.spectrograms.clips[row].path) for row in rows]

    def augmented(self, rows: IndexArray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A piece of each of some clips, changed at random, and the targets."""
        clips = [self.spectrograms.piece(row, rng) for row in rows]
        return self.augmentation(clips, torch.from_numpy(self.targets[rows]), rng)


def train(
    task: Task,
    config: FinetuneConfig,
    rows: IndexArray,
    held_out: IndexArray,
    output: Path,
    processes: Processes,
    on_line: OnLine | None = None,
) -> Weights:
    """Train on the clips ``rows``, or go on with a run that was stopped, and measure on ``held_out`` after each pass.

    UsageError for settings that cannot be used, or a loss that is no number, because the training diverged; DataError
    for log-mels that are no numbers after augmentation; ConflictError if ``output`` holds a run with other settings or
    data; OutputError if it cannot be written; KeyboardInterrupt if a signal asked to stop: a checkpoint was written
    after the iteration.
    """
    digest = _digest(task, rows, held_out)
    folder = RunFolder(output, config, digest, is_writer=processes.is_first, is_logged=config.tensorboard)
    processes.wait()
    card, first = with_new_layers(
        task.backbone, task.collection.classes, task.activation, config, {"method": "finetune"}
    )
    if folder.find_result() is not None:  # it may have been killed before all was cleared away
        folder.delete_checkpoints()
        return {name: torch.from_numpy(value) for name, value in load_weights(card, output).items()}
    module = make_module(card, first, config).to(processes.device)
    state = TrainingState(module, make_optimizer(module, find_stages(network_shapes(card)), config), config.ema)
    class_weights = find_class_weights(task.targets[rows], config.class_weight_power).to(processes.device)
    recipe = TrainingRecipe(
        loss=partial(_find_loss, state, task, config, class_weights),
        measure=partial(_measure_pass, state, task, config, rows, held_out, processes),
        names=task.names,
        seed=config.seed,
        clip_norm=config.clip_norm,
        patience=config.patience,
    )
    say = reporter(folder, processes, on_line)
    train_on(_batches(state, task, config, rows, processes), state, recipe, folder, processes, say)
    last = make_pass(task, config, rows, config.n_epochs, processes)[:BATCHES_TO_FINISH]
    weights = state.best or _settled(state, task, config, last, processes)
    folder.finish(card, weights, metrics={})
    folder.delete_checkpoints()
    processes.wait()
    return weights


def with_new_layers(
    backbone: Backbone, classes: tuple[str, ...], activation: str, config: FinetuneConfig, source: Record
) -> tuple[ModelCard, dict[str, FloatArray]]:
    """Card and weights of a network with new layers, whose weights are drawn from the seed alone."""
    rng = np.random.default_rng(config.seed)
    hidden = [config.hidden_size] if config.hidden_size else []
    sizes = [output_shapes(backbone.card).embeddings[0], *hidden, len(classes)]
    weights = {}
    for layer, n_in, n_out in zip([HIDDEN, LOGITS] if hidden else [LOGITS], sizes, sizes[1:], strict=False):
        deviation = RELATIVE_DEVIATION / np.sqrt(n_in)
        weights[f"{layer}/kernel"] = rng.normal(0, deviation, (n_in, n_out)).astype(np.float32)
        weights[f"{layer}/bias"] = np.zeros(n_out, np.float32)
    return backbone.with_head(Head(weights, config.hidden_size, activation), classes, source)


def make_module(card: ModelCard, weights: dict[str, FloatArray], config: FinetuneConfig) -> TorchNetwork:
    """The network of a run."""
    return network_to_torch(find_network(card), weights, {**card.arguments, "dropout": config.dropout})


def make_pass(
    task: Task, config: FinetuneConfig, rows: IndexArray, epoch: int, processes: Processes
) -> list[IndexArray]:
    """The batches of a pass; the same in all processes, each of which has a part of every one."""
    rng = np.random.Generator(np.random.SFC64([config.seed, epoch, 1]))
    lengths = np.array([task.spectrograms.n_frames(int(row)) for row in range(len(task.targets))])
    least = LEAST_CLIPS * processes.n_processes
    n_times = max(1, config.least_batches * config.batch_size // max(1, len(rows)))
    batches = make_batches(np.tile(rows, n_times), lengths, config.batch_size, rng, least)
    if not batches:
        raise UsageError(
            f"there are {len(rows)} clips to learn in batches of {config.batch_size} for {processes.n_processes} "
            f"processes; expected at least {least} of both. Next step: more clips, or fewer processes"
        )
    return batches


def fresh_moments(
    module: TorchNetwork, weights: Weights, batches: Sequence[torch.Tensor], processes: Processes
) -> Weights:
    """Weights with batch norms whose moments are those of some batches, not what is left of earlier ones.

    A moving moment remembers a hundred steps in which the weights were others, and a short run has no hundred steps.
    ``weights`` are not the module's own; what the batches leave as it is keeps its own.
    """
    names = [name for name, _ in module.named_buffers()]
    if not names or not batches:
        return weights
    with loaded(module, weights):
        moments = dict(module.named_buffers())

        def after(batch: torch.Tensor, start: float) -> list[torch.Tensor]:
            """Moments after one batch, from a common start: ``kept * start + (1 - kept) * moments of the batch``."""
            torch.manual_seed(0)
            for moment in moments.values():
                moment.fill_(start)
            module.train()
            module(batch)
            return [moment.clone() for moment in moments.values()]

        from_zero, from_one = (after(batches[0], start) for start in (0.0, 1.0))
        shares = [(1 - (one - zero)).mean() for zero, one in zip(from_zero, from_one, strict=True)]
        sums = [torch.zeros_like(moment) for moment in from_zero]
        for batch in batches:
            torch._foreach_add_(sums, after(batch, 0.0))
    found = {
        name: total / share / len(batches)
        for name, total, share in zip(names, sums, shares, strict=True)
        if share > LEAST_SHARE
    }
    processes.mean(found.values())
    return {**weights, **found}


def weighted_loss(
    logits: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor, activation: str
) -> torch.Tensor:
    """Loss of each clip: cross-entropy for softmax, the mean of all classes' for sigmoid."""
    if activation == "softmax":
        return -(class_weights * targets * functional.log_softmax(logits, 1)).sum(1)
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (class_weights * losses).mean(1)


def smoothed(targets: torch.Tensor, smoothing: float, activation: str) -> torch.Tensor:
    """Targets that are less sure: towards all classes alike with softmax, towards a half with sigmoid."""
    return torch.lerp(
        targets, torch.full_like(targets, 1 / targets.shape[1] if activation == "softmax" else 0.5), smoothing
    )


def find_class_weights(targets: FloatArray, power: float) -> torch.Tensor:
    """``(mean count / count) ** power`` of each class, so that their mean over the labels is 1.

    A class without clips weighs as one with a single clip; where no class has any, all weigh 1.
    """
    counts = targets.sum(axis=0, dtype=np.float64)
    if not counts.any():
        return torch.ones(len(counts))
    weights = (counts.mean() / np.maximum(counts, 1)) ** power
    weights *= counts.sum() / (weights * counts).sum()
    return torch.from_numpy(weights.astype(np.float32))


def measure(task: Task, module: TorchNetwork, weights: Weights, rows: IndexArray, processes: Processes) -> float:
    """Balanced accuracy on some clips, the same in all processes; NaN where a score is, or no clip has a class."""
    scores = predict(task, module, weights, rows, processes)
    is_defined = np.isfinite(scores).all()
    return processes.agree(
        clip_balanced_accuracy(scores, task.targets[rows], task.decision) if is_defined else math.nan
    )


def predict(task: Task, module: TorchNetwork, weights: Weights, rows: IndexArray, processes: Processes) -> FloatArray:
    """Scores of some clips by given weights: the mean over all patches of each, as a model folder gives them."""
    own = processes.part(np.arange(len(rows)))
    total = torch.zeros((len(rows), task.targets.shape[1]))
    groups: dict[int, list[tuple[int, int, Any]]] = {}
    for place in own:
        every = task.spectrograms.patches(int(rows[place]))
        for patch in every:
            groups.setdefault(len(patch), []).append((int(place), len(every), patch))
    with loaded(module, weights):
        for length, group in groups.items():
            size = max(1, FRAMES_AT_ONCE // length)
            for start in range(0, len(group), size):
                places, counts, patches = zip(*group[start : start + size], strict=True)
                scores = module(stacked(patches).to(processes.device)).scores.float().cpu()
                total.index_add_(0, torch.tensor(places), scores / torch.tensor(counts)[:, None])
    return processes.total(total)


def _batches(
    state: TrainingState, task: Task, config: FinetuneConfig, rows: IndexArray, processes: Processes
) -> Iterator[TrainingBatch]:
    """The batches of a run from where it stands."""
    for epoch in range(state.epoch, config.n_epochs):
        prepare_epoch(state.module, state.optimizer, config, epoch)
        every = make_pass(task, config, rows, epoch, processes)
        is_stored = config.checkpoint_every > 0 and (epoch + 1) % config.checkpoint_every == 0
        for place in range(state.batch, len(every)):
            progress = (epoch + place / len(every)) / config.n_epochs
            is_last = place == len(every) - 1
            yield TrainingBatch(
                every[place],
                tuple(learning_rate(config, group["stage"], progress) for group in state.optimizer.param_groups),
                place=f" (epoch {epoch + 1}, batch {place + 1})",
                ends_pass=is_last,
                is_stored=is_last and is_stored,
            )


def _find_loss(
    state: TrainingState,
    task: Task,
    config: FinetuneConfig,
    class_weights: torch.Tensor,
    rows: IndexArray,
    n_clips: int,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    patches, targets = (x.to(class_weights.device) for x in task.augmented(rows, rng))
    targets = smoothed(targets, config.label_smoothing, task.activation)
    with autocast(config.precision, patches.device):
        logits = state.module(patches).logits
    return weighted_loss(logits.float(), targets, class_weights, task.activation).sum() / n_clips, patches


def _measure_pass(
    state: TrainingState,
    task: Task,
    config: FinetuneConfig,
    rows: IndexArray,
    held_out: IndexArray,
    processes: Processes,
    batch: TrainingBatch,
) -> Iterator[Record]:
    """The line of the measurements after a pass, and what it means for the run."""
    if not batch.ends_pass:
        return
    line: Record = {"epoch": state.epoch, "loss": state.take_loss()}
    if len(held_out):
        batches = make_pass(task, config, rows, state.epoch - 1, processes)[:BATCHES_TO_MEASURE]
        weights = _settled(state, task, config, batches, processes)
        accuracy = measure(task, state.module, weights, held_out, processes)
        if math.isfinite(accuracy):  # what is not defined is not the best
            line["held_out_accuracy"] = accuracy
            state.note_score(accuracy, weights if config.patience else {})
    yield line


def _settled(
    state: TrainingState, task: Task, config: FinetuneConfig, batches: Sequence[IndexArray], processes: Processes
) -> Weights:
    """The weights of the run, with moments of their own where they follow the clips."""
    if config.batch_norms == "keep" or state.epoch <= config.head_epochs:
        return state.weights
    rng = np.random.Generator(np.random.SFC64([config.seed, state.iteration, processes.rank, 1]))
    made = [task.augmented(processes.part(rows), rng)[0].to(processes.device) for rows in batches]
    return fresh_moments(state.module, copied(state.weights), made, processes)


def _digest(task: Task, rows: IndexArray, held_out: IndexArray) -> str:
    parts = [
        data_digest(task.collection, task.digests).encode(),
        rows.astype("<i8").tobytes(),
        held_out.astype("<i8").tobytes(),
    ]
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]
