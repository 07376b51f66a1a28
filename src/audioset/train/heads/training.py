"""Training of a head on features: from the settings to a model folder, to be read from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from audioset.arrays import FloatArray, IndexArray
from audioset.errors import MissingExtraError, UsageError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("training", "torch", "train") from error

from audioset import metrics
from audioset.executors.torch import TorchNetwork, network_to_torch
from audioset.networks.heads import HEADS
from audioset.train.checkpoint import Record, RunFolder, Weights
from audioset.train.distributed import Processes, join_processes
from audioset.train.heads.config import TrainConfig
from audioset.train.heads.examples import Batch, Data, Examples, load_data
from audioset.train.heads.fast_ops import binary_cross_entropy, forward
from audioset.train.heads.init import init_weights
from audioset.train.heads.samplers import make_sampler
from audioset.train.heads.sparse_labels import SparseLabels
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
from audioset.train.state import Sampler, TrainingState
from audioset.weights.model_folder import ModelCard

CLIPS_AT_ONCE = 1000  # that are only measured
MOST_SHORT_BATCHES = 100  # in a row, that are passed over
FRONTEND, LABELS = "vggish", "audioset-527"
MEASURES = ("mean_ap", "mean_auc", "d_prime", "lwlrap")
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
# PyTorch's OneCycleLR with its defaults: it rises from 1/25 for 30 % of the iterations and falls to 1/250,000.
RISE, FIRST, LAST = 0.3, 1 / 25, 1 / 250_000


def train(config: TrainConfig, output: str | Path, on_line: OnLine | None = None) -> Record:
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
        folder = RunFolder(
            Path(output), config, data.digest, is_writer=processes.is_first, is_logged=config.tensorboard
        )
        processes.wait()
        result = folder.find_result()
        if result is not None:
            return result
        sampler = choose_sampler(config, data.training.labels)
        state = first_state(config, sampler, processes.device)
        say = reporter(folder, processes, on_line)
        recipe = make_recipe(state, config, data, processes)
        train_on(batches(state, sampler, config, processes), state, recipe, folder, processes, say)
        is_mean = config.average == "weights" and state.mean.n_members > 0
        weights = state.mean.tensors if is_mean else state.best or state.weights
        result = _measure_result(state, weights, config, data, processes)
        say(state, {"result": result})
        folder.finish(_make_card(config), weights, result)
        processes.wait()
        return result


def choose_sampler(config: TrainConfig, labels: SparseLabels) -> Sampler:
    """What chooses the batches of a run, whose clips have these labels."""
    return make_sampler(config.sampler, labels, config.batch_size, config.seed, config.draws_per_pass)


def first_state(config: TrainConfig, sampler: Sampler, device: torch.device) -> TrainingState:
    """What a run begins with."""
    module = make_module(config).to(device).train()
    return TrainingState(module, make_optimizer(module, config), config.ema, sampler)


def make_module(config: TrainConfig) -> TorchNetwork:
    """The network of a run with the weights that it begins with."""
    weights = init_weights(config.head, config.head_arguments, config.seed)
    spec = HEADS[config.head]
    return network_to_torch(spec.network, weights, {**spec.arguments, **config.head_arguments})


def make_optimizer(module: torch.nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam or AdamW. Only matrices decay, as biases and batch norms have no size to keep small."""
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer = OPTIMIZERS[config.optimizer](
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )
    return optimizer


class Preparation:
    """From a batch of clips to tensors; ``class_counts`` say how many of the ``n_clips`` have each class."""

    def __init__(self, config: TrainConfig, class_counts: np.ndarray, n_clips: int, device: torch.device) -> None:
        self._mixup, self._smoothing, self._device = config.mixup, config.label_smoothing, device
        counts = torch.tensor(class_counts, dtype=torch.float32, device=device)
        self._frequencies = counts / n_clips
        power = config.class_weight_power if counts.any() else 0.0  # with no labels at all, no class is rarer
        self.class_weights = (counts.mean() / counts.clamp(min=1)) ** power if power else None

    def __call__(self, batch: Batch, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings (n_clips, n_seconds, 128), mask (n_clips, n_seconds) and targets (n_clips, n_classes)."""
        arrays = (batch.embeddings, batch.mask, batch.targets)
        embeddings, mask, targets = (torch.from_numpy(array).to(self._device).float() for array in arrays)
        if self._smoothing:
            targets = torch.lerp(targets, self._frequencies, self._smoothing)
        if self._mixup:
            partners = torch.from_numpy(rng.permutation(len(targets))).to(self._device)
            drawn = rng.beta(self._mixup, self._mixup, (len(targets), 1)).astype(np.float32)
            shares = torch.from_numpy(np.maximum(drawn, 1 - drawn)).to(self._device)
            return mixup(embeddings, mask, targets, partners, shares)
        return embeddings, mask, targets


def mixup(
    embeddings: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor, partners: torch.Tensor, shares: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix each clip with one of ``partners``. A second that only one of the two has is that one's own.

    ``shares`` (n_clips, 1) are what each clip's own part counts.

    Source: Zhang et al. 2018 (arXiv:1710.09412), with the larger share always the clip's own.
    """
    own, other = shares * mask, (1 - shares) * mask[partners]
    total = own + other
    own, other = (part / total.clamp(min=1e-6) for part in (own, other))
    mixed = own.unsqueeze(2) * embeddings + other.unsqueeze(2) * embeddings[partners]
    return mixed, (total > 0).float(), shares * targets + (1 - shares) * targets[partners]


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """The learning rate of an iteration, the first of which is 1."""
    progress = (iteration - 1) / config.n_iterations
    warmth = min(1.0, iteration / config.warm_up) if config.warm_up else 1.0
    return config.learning_rate * warmth * SCHEDULES[config.schedule](progress)


def batches(
    state: TrainingState, sampler: Sampler, config: TrainConfig, processes: Processes
) -> Iterator[TrainingBatch]:
    """The batches of a run from where it stands."""
    for iteration in range(state.iteration + 1, config.n_iterations + 1):
        rates = (learning_rate(config, iteration),) * len(state.optimizer.param_groups)
        is_stored = config.checkpoint_every > 0 and iteration % config.checkpoint_every == 0
        yield TrainingBatch(_next_rows(sampler, config, processes), rates, is_stored=is_stored)


def make_recipe(state: TrainingState, config: TrainConfig, data: Data, processes: Processes) -> TrainingRecipe:
    """How heads are trained, and measured on the way."""
    examples = data.training
    prepare = Preparation(config, examples.labels.counts, len(examples), processes.device)
    return TrainingRecipe(
        loss=partial(_find_loss, state.module, config, examples, prepare),
        measure=lambda _batch: _measure_iteration(state, config, data, processes),
        names=examples.names,
        seed=config.seed,
        clip_norm=config.clip_norm,
        patience=config.patience,
    )


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


def predict(module: TorchNetwork, weights: Weights, examples: Examples, processes: Processes) -> FloatArray:
    """Scores of all clips, (n_clips, n_classes), in float32, by weights other than the module's own."""
    positions = processes.part(np.arange(len(examples)))
    scores = torch.zeros((len(examples), examples.labels.n_classes))
    with loaded(module, weights):
        for chosen in np.array_split(positions, max(1, math.ceil(len(positions) / CLIPS_AT_ONCE))):
            batch = examples.batch(chosen)
            inputs = (torch.from_numpy(array).to(processes.device).float() for array in (batch.embeddings, batch.mask))
            scores[chosen] = module(*inputs).scores.float().cpu()
    return processes.total(scores)


def _find_loss(
    module: TorchNetwork,
    config: TrainConfig,
    examples: Examples,
    prepare: Preparation,
    rows: IndexArray,
    n_clips: int,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    embeddings, mask, targets = prepare(examples.batch(rows), rng)
    with autocast(config.precision, embeddings.device):
        outputs = forward(module, rng, embeddings, mask)
    loss = binary_cross_entropy(outputs, targets, prepare.class_weights)
    return loss / (n_clips * targets.shape[1]), embeddings


def _measure_iteration(state: TrainingState, config: TrainConfig, data: Data, processes: Processes) -> Iterator[Record]:
    """The lines of the measurements after an iteration, and what they mean for the run."""
    iteration = state.iteration
    if iteration % config.log_every == 0:
        yield {"loss": state.take_loss(), "learning_rate": learning_rate(config, iteration)}
    if config.eval_every and iteration % config.eval_every == 0:
        measured = measure_all(state.module, state.weights, data, processes)
        yield measured
        if "holdout" in measured:
            mean_ap = measured["holdout"]["mean_ap"] or 0.0
            best = state.weights if mean_ap > state.best_score else state.best  # of equal ones, the earlier one's
            state.note_score(mean_ap, best if config.choose == "best" else {})
    since = iteration - config.average_from
    if config.average_every and since >= 0 and since % config.average_every == 0:
        state.mean.add(_member(state, config, data, processes))


def _member(state: TrainingState, config: TrainConfig, data: Data, processes: Processes) -> Weights:
    """What the mean over iterations takes in of this one."""
    if config.average == "weights" or data.evaluation is None:
        return state.weights
    scores = predict(state.module, state.weights, data.evaluation, processes)
    return {"scores": torch.from_numpy(scores).to(processes.device)}


def _measure_result(
    state: TrainingState, weights: Weights, config: TrainConfig, data: Data, processes: Processes
) -> Record:
    """The measurements of the weights that were chosen, and of the mean of scores."""
    result = measure_all(state.module, weights, data, processes)
    if config.average == "scores" and data.evaluation is not None and state.mean.n_members:
        mean = state.mean.tensors["scores"].cpu().numpy()
        result["eval_of_mean_scores"] = measure(mean, data.evaluation, processes)
        result["n_members"] = state.mean.n_members
    return result


def _make_card(config: TrainConfig) -> ModelCard:
    spec = HEADS[config.head]
    arguments = {**spec.arguments, **config.head_arguments}
    return ModelCard(spec.network.__name__, arguments, FRONTEND, LABELS, config.licence, source={})


def _next_rows(sampler: Sampler, config: TrainConfig, processes: Processes) -> IndexArray:
    """The next batch that is long enough, for every process to have a part; the end of a pass may be too short."""
    least = config.batch_size if config.whole_batches else LEAST_CLIPS * processes.n_processes
    for _ in range(MOST_SHORT_BATCHES):
        rows = sampler.next_batch()
        if len(rows) >= least:
            return rows
    raise UsageError(
        f"{MOST_SHORT_BATCHES} batches in a row have fewer than {least} clips. Likely cause: fewer clips to train on "
        "than that. Next step: a smaller batch_size, or whole_batches = false"
    )


def _check_parts(config: TrainConfig, processes: Processes) -> None:
    least = LEAST_CLIPS * processes.n_processes
    if config.batch_size < least:
        raise UsageError(
            f"batch_size is {config.batch_size} for {processes.n_processes} processes; expected at least {least}"
        )


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _one_cycle(progress: float) -> float:
    if progress < RISE:
        return 1 + (FIRST - 1) * _cosine(progress / RISE)
    return LAST + (1 - LAST) * _cosine((progress - RISE) / (1 - RISE))


SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1 - progress,
    "cosine": _cosine,
    "one-cycle": _one_cycle,
}
