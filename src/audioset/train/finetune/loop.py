"""Fine-tuning of a network on clips of one's own: one loop, to be read from top to bottom."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from audioset.arrays import FloatArray, Int64Array
from audioset.errors import UsageError
from audioset.executors.torch import TorchNetwork
from audioset.stopping import Stopping
from audioset.train.average import Weights, copied
from audioset.train.backbones import Backbone
from audioset.train.checkpoint import Record
from audioset.train.distributed import Processes
from audioset.train.finetune.augment import Augmentation
from audioset.train.finetune.config import FinetuneConfig
from audioset.train.finetune.data import Spectrograms, make_batches, stacked
from audioset.train.finetune.layers import learning_rate, prepare_epoch
from audioset.train.finetune.state import FinetuneFolder, FinetuneState, with_new_layers
from audioset.train.finite import no_number
from audioset.train.measures import Decision, clip_balanced_accuracy

OnLine = Callable[[Record], None]

FRAMES_AT_ONCE = 20_000  # of patches that are only measured
BATCHES_TO_MEASURE, BATCHES_TO_FINISH = 4, 20  # that the moments are of
LEAST_CLIPS = 2  # of a process's part of a batch: batch norms need two values
LEAST_SHARE = 1e-6  # of a batch in moments that follow it; less is rounding


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be learned.

    Attributes
    ----------
    spectrograms : Spectrograms
    targets : ndarray, shape (n_clips, n_classes), float32
    digest : str
        Of the clips and their labels.
    backbone : Backbone
    classes : tuple of str
    decision : Decision
    augmentation : Augmentation
    """

    spectrograms: Spectrograms
    targets: FloatArray
    digest: str
    backbone: Backbone
    classes: tuple[str, ...]
    decision: Decision
    augmentation: Augmentation

    @property
    def activation(self) -> str:
        """Of the scores."""
        return self.decision.activation

    def names(self, rows: Int64Array) -> list[str]:
        """Paths of some clips, for people."""
        return [str(self.spectrograms.clips[row].path) for row in rows]


def train(
    task: Task,
    config: FinetuneConfig,
    rows: Int64Array,
    held_out: Int64Array,
    output: Path,
    processes: Processes,
    on_line: OnLine | None = None,
) -> Weights:
    """Train on some of the clips, or go on with a run that was stopped.

    Parameters
    ----------
    task : Task
    config : FinetuneConfig
    rows, held_out : ndarray of int
        Clips to learn, and clips to measure on after each epoch.
    output : Path
        Folder of the run; in the end it is a model folder.
    processes : Processes
    on_line : function of dict, optional
        Is told each line of the measurements, in the first process.

    Returns
    -------
    dict of str to tensor
        The weights.

    Raises
    ------
    UsageError
        Settings that cannot be used; a loss that is no number, because the training diverged.
    DataError
        Log-mels that are no numbers after augmentation.
    ConflictError
        ``output`` holds a run with other settings or data.
    OutputError
        It cannot be written.
    KeyboardInterrupt
        A signal asked to stop; a checkpoint was written after the iteration.
    """
    source: Record = {"method": "finetune"}
    card, first = with_new_layers(task.backbone, task.classes, task.activation, config, source)
    folder = FinetuneFolder(output, config, _digest(task, rows, held_out), is_writer=processes.is_first)
    processes.wait()
    state = FinetuneState(card, first, config, processes.device)
    if folder.find_result() is not None:
        return folder.finished(card)
    stored = folder.load()
    if stored is not None:
        state.restore(*stored)
    class_weights = find_class_weights(task.targets[rows], config.class_weight_power)
    say = _reporter(folder, processes, on_line)
    with Stopping() as stopping:
        while state.epoch < config.n_epochs and not 0 < config.patience <= state.n_stale:
            prepare_epoch(state.module, state.optimizer, config, state.epoch)
            batches = _batches(task, config, rows, state.epoch, processes)
            while state.batch < len(batches):
                progress = (state.epoch + state.batch / len(batches)) / config.n_epochs
                batch = processes.part(batches[state.batch])
                take_step(state, task, config, batch, len(batches[state.batch]), progress, class_weights, processes)
                if processes.is_any(stopping.is_asked):
                    folder.save(state.tensors(), state.record())
                    raise stopping.stop()
            line: Record = {"epoch": state.epoch + 1, "loss": state.loss_sum / len(batches)}
            state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
            if len(held_out):
                weights = _settled(state, task, config, batches[:BATCHES_TO_MEASURE], processes)
                accuracy = measure(task, state.module, weights, held_out, processes)
                if math.isfinite(accuracy):  # what is not defined is not the best
                    line["held_out_accuracy"] = accuracy
                    state.note_score(accuracy, weights if config.patience else {})
            say(state, line)
            if config.checkpoint_every and state.epoch % config.checkpoint_every == 0:
                folder.save(state.tensors(), state.record())
    batches = _batches(task, config, rows, config.n_epochs, processes)[:BATCHES_TO_FINISH]
    weights = state.best or _settled(state, task, config, batches, processes)
    folder.finish(folder.signed(card), {name: value.float().cpu().numpy() for name, value in weights.items()})
    processes.wait()
    return weights


def take_step(
    state: FinetuneState,
    task: Task,
    config: FinetuneConfig,
    batch: Int64Array,
    n_clips: int,
    progress: float,
    class_weights: torch.Tensor,
    processes: Processes,
) -> None:
    """Train on a process's part of a batch of ``n_clips``.

    Everything that is random in a step comes from the seed, the iteration and the process alone, so there is no state
    of generators to store.
    """
    rng = np.random.Generator(np.random.SFC64([config.seed, state.iteration, processes.rank]))
    torch.manual_seed(int(rng.integers(1 << 62)))  # for dropout
    clips = [task.spectrograms.piece(row, rng) for row in batch]
    patches, targets = task.augmentation(clips, torch.from_numpy(task.targets[batch]), rng)
    patches, targets, class_weights = (x.to(processes.device) for x in (patches, targets, class_weights))
    targets = smoothed(targets, config.label_smoothing, task.activation)
    with torch.autocast(processes.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        logits = state.module(patches).logits
    loss = weighted_loss(logits.float(), targets, class_weights, task.activation).sum() / n_clips
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    total = loss.detach()
    gradients = [parameter.grad for parameter in state.module.parameters() if parameter.grad is not None]
    processes.add_up([*gradients, total])
    processes.mean(state.module.buffers())
    norm = torch.nn.utils.clip_grad_norm_(state.module.parameters(), config.clip_norm or math.inf)
    if not torch.isfinite(total + norm):
        place = f"iteration {state.iteration + 1} (epoch {state.epoch + 1}, batch {state.batch + 1})"
        is_spoilt = ~torch.isfinite(patches).flatten(1).all(1).cpu().numpy()
        raise no_number(float(total), float(norm), place, task.names(batch), task.names(batch[is_spoilt]))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, group["stage"], progress)
    state.optimizer.step()
    state.iteration += 1
    state.batch += 1
    state.loss_sum += float(total)
    if state.moving:
        state.moving.update(state.module.state_dict(), state.iteration)


def fresh_moments(
    module: TorchNetwork, weights: Weights, batches: Sequence[torch.Tensor], processes: Processes
) -> Weights:
    """Weights with batch norms whose moments are those of some batches, not what is left of earlier ones.

    A moving moment remembers a hundred steps in which the weights were others, and a short run has no hundred steps.

    Parameters
    ----------
    module : TorchNetwork
    weights : dict of str to tensor
        Not the module's own.
    batches : sequence of tensor, shape (n_clips, n_frames, n_mels)

    Returns
    -------
    dict of str to tensor
        What the batches leave as it is keeps its own.
    """
    names = [name for name, _ in module.named_buffers()]
    if not names or not batches:
        return weights
    with _loaded(module, weights), torch.no_grad():
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
    """Loss of each clip: cross-entropy for softmax, the mean of all classes' for sigmoid.

    Parameters
    ----------
    logits, targets : tensor, shape (n_clips, n_classes)
    class_weights : tensor, shape (n_classes,)
    activation : {"softmax", "sigmoid"}
    """
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


def measure(task: Task, module: TorchNetwork, weights: Weights, rows: Int64Array, processes: Processes) -> float:
    """Balanced accuracy on some clips, the same in all processes; NaN where a score is, or no clip has a class."""
    scores = predict(task, module, weights, rows, processes)
    is_defined = np.isfinite(scores).all()
    return processes.agree(
        clip_balanced_accuracy(scores, task.targets[rows], task.decision) if is_defined else math.nan
    )


def predict(task: Task, module: TorchNetwork, weights: Weights, rows: Int64Array, processes: Processes) -> FloatArray:
    """Scores of some clips by given weights: the mean over all patches of each, as a model folder gives them.

    Returns
    -------
    ndarray, shape (n_rows, n_classes), float32, in [0, 1]
    """
    own = processes.part(np.arange(len(rows)))
    total = torch.zeros((len(rows), task.targets.shape[1]))
    groups: dict[int, list[tuple[int, int, Any]]] = {}
    for place in own:
        every = task.spectrograms.patches(int(rows[place]))
        for patch in every:
            groups.setdefault(len(patch), []).append((int(place), len(every), patch))
    with _loaded(module, weights), torch.no_grad():
        for length, group in groups.items():
            size = max(1, FRAMES_AT_ONCE // length)
            for start in range(0, len(group), size):
                places, counts, patches = zip(*group[start : start + size], strict=True)
                scores = module(stacked(patches).to(processes.device)).scores.float().cpu()
                total.index_add_(0, torch.tensor(places), scores / torch.tensor(counts)[:, None])
    if processes.n_processes > 1:
        total = total.to(processes.device)
        processes.add_up([total])
    return total.cpu().numpy()


def _settled(
    state: FinetuneState, task: Task, config: FinetuneConfig, batches: Sequence[Int64Array], processes: Processes
) -> Weights:
    """The weights of the run, with moments of their own where they follow the clips."""
    if config.batch_norms == "keep" or state.epoch <= config.head_epochs:
        return state.weights
    rng = np.random.Generator(np.random.SFC64([config.seed, state.iteration, processes.rank, 1]))
    made = []
    for rows in map(processes.part, batches):
        clips = [task.spectrograms.piece(row, rng) for row in rows]
        patches, _ = task.augmentation(clips, torch.from_numpy(task.targets[rows]), rng)
        made.append(patches.to(processes.device))
    return fresh_moments(state.module, copied(state.weights), made, processes)


def _batches(
    task: Task, config: FinetuneConfig, rows: Int64Array, epoch: int, processes: Processes
) -> list[Int64Array]:
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


def _digest(task: Task, rows: Int64Array, held_out: Int64Array) -> str:
    parts = [task.digest.encode(), rows.astype("<i8").tobytes(), held_out.astype("<i8").tobytes()]
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]


def _reporter(
    folder: FinetuneFolder, processes: Processes, on_line: OnLine | None
) -> Callable[[FinetuneState, Mapping[str, Any]], None]:
    """A function that writes a line of the measurements and tells it."""
    started_at, cpu_at = time.monotonic(), time.process_time()

    def say(state: FinetuneState, values: Mapping[str, Any]) -> None:
        if processes.is_first:
            elapsed = {"elapsed_s": time.monotonic() - started_at, "core_s": time.process_time() - cpu_at}
            line = {"iteration": state.iteration, **values, **{name: round(s, 3) for name, s in elapsed.items()}}
            folder.note(line)
            if on_line:
                on_line(line)

    return say


@contextmanager
def _loaded(module: TorchNetwork, weights: Weights) -> Iterator[None]:
    """Let the module compute with other weights; afterwards it has its own again and trains on."""
    own, was_training = copied(module.state_dict()), module.training
    module.load_state_dict(dict(weights))
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(own)
        module.train(was_training)
