"""The training loop, of heads and of whole networks: they differ in their batches, their loss and their measures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from audioset.arrays import Int64Array
from audioset.executors.torch import TorchNetwork
from audioset.stopping import Stopping
from audioset.train.checkpoint import Record, RunFolder
from audioset.train.distributed import Processes
from audioset.train.finite import no_number
from audioset.train.state import TrainingState, copied

OnLine = Callable[[Record], None]
Say = Callable[[TrainingState, Record], None]

LEAST_CLIPS = 2  # of a process's part of a batch: batch norms need two values


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """What is trained on next, the same in all processes."""

    rows: Int64Array  # of the clips of all processes
    learning_rates: tuple[float, ...]  # of each group of the optimizer
    place: str = ""  # for people, after the number of the iteration
    ends_pass: bool = False
    is_stored: bool = False  # whether there is a checkpoint after it


@dataclass(frozen=True, eq=False)
class TrainingRecipe:
    """What a kind of training does in its own way.

    ``loss`` is told this process's clips of a batch, how many clips the whole batch has, and a generator, and returns
    its part of the mean loss and what the network saw, (n_clips, ...). ``measure`` gives the lines of the measurements
    after a batch. ``names`` says which clips some rows are, for people.
    """

    loss: Callable[[Int64Array, int, np.random.Generator], tuple[torch.Tensor, torch.Tensor]]
    measure: Callable[[TrainingBatch], Iterable[Record]]
    names: Callable[[Int64Array], list[str]]
    seed: int
    clip_norm: float  # largest norm of the gradient; 0: any
    patience: int  # measurements without a better one before it stops; 0: any


def train_on(
    batches: Iterator[TrainingBatch],
    state: TrainingState,
    recipe: TrainingRecipe,
    folder: RunFolder,
    processes: Processes,
    say: Say,
) -> None:
    """Train on batches to their end, or go on from the last checkpoint.

    ``batches`` are asked for one by one, the first of them after the state was restored: they go on where it stands.
    """
    stored = folder.load()
    if stored is not None:
        state.restore(*stored)
    with Stopping() as stopping:
        while not 0 < recipe.patience <= state.n_stale and (batch := next(batches, None)):
            state.note_loss(take_step(state, recipe, batch, processes))
            if batch.ends_pass:
                state.epoch, state.batch = state.epoch + 1, 0
            for line in recipe.measure(batch):
                say(state, line)
            is_asked = processes.is_any(stopping.is_asked)
            if batch.is_stored or is_asked:
                folder.save(state.tensors(), state.record())
            if is_asked:
                raise stopping.stop()


def take_step(state: TrainingState, recipe: TrainingRecipe, batch: TrainingBatch, processes: Processes) -> float:
    """Train on a batch, and return its mean loss.

    Everything that is random in a step comes from the seed, the iteration and the process alone, so there is no state
    of generators to store.
    """
    rng = np.random.Generator(np.random.SFC64([recipe.seed, state.iteration, processes.rank]))
    torch.manual_seed(int(rng.integers(1 << 62)))  # for primitives that draw with PyTorch
    rows = processes.part(batch.rows)
    loss, inputs = recipe.loss(rows, len(batch.rows), rng)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    total = loss.detach()
    gradients = [parameter.grad for parameter in state.module.parameters() if parameter.grad is not None]
    processes.add_up([*gradients, total])
    processes.mean(state.module.buffers())
    norm = torch.nn.utils.clip_grad_norm_(state.module.parameters(), recipe.clip_norm or math.inf)
    if not torch.isfinite(total + norm):
        is_spoilt = ~torch.isfinite(inputs).flatten(1).all(1).cpu().numpy()
        place = f"iteration {state.iteration + 1}{batch.place}"
        raise no_number(
            float(total), float(norm), place, recipe.names(batch.rows), spoilt_clips=recipe.names(rows[is_spoilt])
        )
    for group, rate in zip(state.optimizer.param_groups, batch.learning_rates, strict=True):
        group["lr"] = rate
    state.optimizer.step()
    state.iteration += 1
    state.batch += 1
    if state.moving:
        state.moving.update(state.module.state_dict(), state.iteration)
    return float(total)


def reporter(folder: RunFolder, processes: Processes, on_line: OnLine | None) -> Say:
    """A function that writes a line of the measurements and tells it, in the first process."""
    started_at, cpu_at = time.monotonic(), time.process_time()

    def say(state: TrainingState, values: Record) -> None:
        if values and processes.is_first:
            elapsed = {"elapsed_s": time.monotonic() - started_at, "core_s": time.process_time() - cpu_at}
            line = {"iteration": state.iteration, **values, **{name: round(s, 3) for name, s in elapsed.items()}}
            folder.note(line)
            if on_line:
                on_line(line)

    return say


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """What makes products be computed in the precision of the run."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def loaded(module: TorchNetwork, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let the module compute with other weights; afterwards it has its own again and trains on."""
    own, was_training = copied(module.state_dict()), module.training
    module.load_state_dict(dict(weights))
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.load_state_dict(own)
        module.train(was_training)
