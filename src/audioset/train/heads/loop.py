"""Training of a head on features: one loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray, Int64Array
from audioset.errors import MissingExtraError, UsageError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("training", "torch", "train") from error

from audioset import metrics
from audioset.executors.torch import TorchNetwork
from audioset.networks.heads import HEADS
from audioset.stopping import Stopping
from audioset.train.average import Weights
from audioset.train.checkpoint import Record, RunFolder
from audioset.train.distributed import Processes, join_processes
from audioset.train.finite import no_number
from audioset.train.heads.augment import Preparation
from audioset.train.heads.config import TrainConfig
from audioset.train.heads.examples import Data, Examples, load_data
from audioset.train.heads.fast_ops import binary_cross_entropy, forward
from audioset.train.heads.optimisation import learning_rate
from audioset.train.heads.state import TrainingState
from audioset.weights.model_folder import ModelCard

CLIPS_AT_ONCE = 1000  # that are only measured
LEAST_CLIPS = 2  # of a process's part of a batch: batch norms need two values
MOST_SHORT_BATCHES = 100  # in a row, that are passed over
FRONTEND, LABELS = "vggish", "audioset-527"
MEASURES = ("mean_ap", "mean_auc", "d_prime", "lwlrap")


def train(config: TrainConfig, output: str | Path, on_line: Callable[[Record], None] | None = None) -> Record:
    """Train a head, or go on with a run that was stopped.

    Parameters
    ----------
    config : TrainConfig
    output : path
        Folder of the run. In the end it is a model folder; see ``checkpoint.RunFolder``.
    on_line : function of dict, optional
        Is told each line of the measurements, in the first process.

    Returns
    -------
    dict
        The measurements of the model: ``holdout`` and ``eval``, each with ``mean_ap`` and others, where there are
        clips to measure on.

    Raises
    ------
    UsageError, NoInputError, DataError
        Settings or data that cannot be used; a loss that is no number.
    ConflictError
        ``output`` holds a run with other settings or data.
    OutputError
        It cannot be written.
    EngineError
        There is no such device.
    KeyboardInterrupt
        A signal asked to stop; a checkpoint was written after the iteration.
    """
    with join_processes(config.device) as processes:
        _check_parts(config, processes)
        data = load_data(config)
        folder = RunFolder(Path(output), config, data.digest, is_writer=processes.is_first)
        processes.wait()
        result = folder.find_result()
        if result is not None:
            return result
        state = TrainingState(config, data.training.labels, processes.device)
        stored = folder.load()
        if stored is not None:
            state.restore(*stored)
        prepare = Preparation(config, data.training.labels.counts, len(data.training), processes.device)
        say = _reporter(folder, processes, on_line)
        with Stopping() as stopping:
            while state.iteration < config.n_iterations and not _has_stalled(state, config):
                loss = take_step(state, config, data.training, prepare, processes)
                state.note_loss(loss)
                if _is_due(state, config.log_every):
                    say(state, _loss_line(state, config))
                if config.eval_every and _is_due(state, config.eval_every):
                    measured = measure_all(state.module, state.weights, data, processes)
                    say(state, measured)
                    if "holdout" in measured:
                        mean_ap = measured["holdout"]["mean_ap"] or 0.0
                        state.note_measurement(mean_ap, keeps_best=config.choose == "best")
                if config.average_every and _is_in_average(state, config):
                    state.mean.add(_member(state, config, data, processes))
                if config.checkpoint_every and _is_due(state, config.checkpoint_every):
                    folder.save(state.tensors(), state.record())
                if processes.is_any(stopping.is_asked):
                    folder.save(state.tensors(), state.record())
                    raise stopping.stop()
        return _finish(state, config, data, processes, folder, say)


def take_step(
    state: TrainingState, config: TrainConfig, examples: Examples, prepare: Preparation, processes: Processes
) -> float:
    """Train on the next batch, and return its mean loss.

    Everything that is random in a step comes from the seed, the iteration and the process alone, so there is no state
    of generators to store.
    """
    positions = _next_positions(state, config, processes)
    rng = np.random.Generator(np.random.SFC64([config.seed, state.iteration, processes.rank]))
    torch.manual_seed(int(rng.integers(1 << 62)))  # for primitives that draw with PyTorch
    state.iteration += 1
    embeddings, mask, targets = prepare(examples.batch(processes.part(positions)), rng)
    with autocast(config, processes.device):
        outputs = forward(state.module, rng, embeddings, mask)
    n_targets = len(positions) * targets.shape[1]
    loss = binary_cross_entropy(outputs, targets, prepare.class_weights) / n_targets
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    total = loss.detach()
    gradients = [parameter.grad for parameter in state.module.parameters() if parameter.grad is not None]
    processes.add_up([*gradients, total])
    processes.mean(state.module.buffers())
    norm = torch.nn.utils.clip_grad_norm_(state.module.parameters(), config.clip_norm or math.inf)
    if not torch.isfinite(total + norm):
        raise no_number(float(total), float(norm), f"iteration {state.iteration}", examples.names(positions))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.iteration)
    state.optimizer.step()
    if state.moving:
        state.moving.update(state.module.state_dict(), state.iteration)
    return float(total)


def measure_all(module: TorchNetwork, weights: Weights, data: Data, processes: Processes) -> Record:
    """The measurements of some weights on the held-out and the evaluation clips."""
    parts = {"holdout": data.held_out, "eval": data.evaluation}
    return {
        name: measure(predict(module, weights, examples, processes), examples, processes)
        for name, examples in parts.items()
        if examples is not None
    }


def measure(scores: FloatArray, examples: Examples, processes: Processes) -> dict[str, float | None]:
    """The measurements of scores, the same in all processes; None where one is not defined or infinite."""
    targets = examples.labels.targets(np.arange(len(examples))) > 0
    found = metrics.evaluate(scores, targets)
    values = {name: processes.agree(getattr(found, name)) for name in MEASURES}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def predict(
    module: TorchNetwork, weights: Mapping[str, torch.Tensor], examples: Examples, processes: Processes
) -> FloatArray:
    """Scores of all clips, in float32, by weights other than the module's own.

    Returns
    -------
    ndarray, shape (n_clips, n_classes), float32, in [0, 1]
    """
    positions = processes.part(np.arange(len(examples)))
    scores = torch.zeros((len(examples), examples.labels.n_classes))
    with _evaluating(module, weights), torch.no_grad():
        for chosen in np.array_split(positions, max(1, math.ceil(len(positions) / CLIPS_AT_ONCE))):
            batch = examples.batch(chosen)
            inputs = (torch.from_numpy(array).to(processes.device).float() for array in (batch.embeddings, batch.mask))
            scores[chosen] = module(*inputs).scores.float().cpu()
    if processes.n_processes > 1:
        scores = scores.to(processes.device)
        processes.add_up([scores])
    return scores.cpu().numpy()


def autocast(config: TrainConfig, device: torch.device) -> Any:
    """What makes products be computed in the precision of the run."""
    return torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()


def _finish(
    state: TrainingState,
    config: TrainConfig,
    data: Data,
    processes: Processes,
    folder: RunFolder,
    say: Callable[[TrainingState, Record], None],
) -> Record:
    """Choose the weights, measure them and write the model."""
    is_mean = config.average == "weights" and state.mean.n_members > 0
    weights = state.mean.tensors if is_mean else state.best or state.weights
    result = measure_all(state.module, weights, data, processes)
    if config.average == "scores" and data.evaluation is not None and state.mean.n_members:
        mean = state.mean.tensors["scores"].cpu().numpy()
        result["eval_of_mean_scores"] = measure(mean, data.evaluation, processes)
        result["n_members"] = state.mean.n_members
    say(state, {"result": result})
    spec = HEADS[config.head]
    card = ModelCard(
        network=spec.network.__name__,
        arguments={**spec.arguments, **config.head_arguments},
        frontend=FRONTEND,
        labels=LABELS,
        licence=config.licence,
        source=folder.provenance(result),
    )
    folder.finish(card, {name: value.detach().float().cpu().numpy() for name, value in weights.items()})
    processes.wait()
    return result


def _next_positions(state: TrainingState, config: TrainConfig, processes: Processes) -> Int64Array:
    """The next batch that is long enough, for every process to have a part; the end of a pass may be too short."""
    least = config.batch_size if config.whole_batches else LEAST_CLIPS * processes.n_processes
    for _ in range(MOST_SHORT_BATCHES):
        positions = state.sampler.next_batch()
        if len(positions) >= least:
            return positions
    raise UsageError(
        f"{MOST_SHORT_BATCHES} batches in a row have fewer than {least} clips. Likely cause: fewer clips to train on "
        "than that. Next step: a smaller batch_size, or whole_batches = false"
    )


def _member(state: TrainingState, config: TrainConfig, data: Data, processes: Processes) -> Weights:
    """What the mean over iterations takes in of this one."""
    if config.average == "weights" or data.evaluation is None:
        return state.weights
    scores = predict(state.module, state.weights, data.evaluation, processes)
    return {"scores": torch.from_numpy(scores).to(processes.device)}


def _is_due(state: TrainingState, every: int) -> bool:
    return state.iteration % every == 0


def _is_in_average(state: TrainingState, config: TrainConfig) -> bool:
    since = state.iteration - config.average_from
    return since >= 0 and since % config.average_every == 0


def _has_stalled(state: TrainingState, config: TrainConfig) -> bool:
    return 0 < config.patience <= state.n_stale


def _loss_line(state: TrainingState, config: TrainConfig) -> Record:
    return {"loss": state.take_loss(), "learning_rate": learning_rate(config, state.iteration)}


def _reporter(
    folder: RunFolder, processes: Processes, on_line: Callable[[Record], None] | None
) -> Callable[[TrainingState, Record], None]:
    """A function that writes a line of the measurements and tells it."""
    started_at = time.monotonic()

    def say(state: TrainingState, values: Record) -> None:
        if values and processes.is_first:
            line = {"iteration": state.iteration, "elapsed_s": round(time.monotonic() - started_at, 3), **values}
            folder.note(line)
            if on_line:
                on_line(line)

    return say


def _check_parts(config: TrainConfig, processes: Processes) -> None:
    least = LEAST_CLIPS * processes.n_processes
    if config.batch_size < least:
        raise UsageError(
            f"batch_size is {config.batch_size} for {processes.n_processes} processes; expected at least {least}"
        )


@contextmanager
def _evaluating(module: TorchNetwork, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let the module predict with other weights; afterwards it has its own again and trains on."""
    own = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(dict(weights))
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(own)
        module.train()
