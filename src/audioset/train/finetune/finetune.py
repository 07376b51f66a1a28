"""Fine-tune a network on a collection, measure it on what it has not heard, and write the result.

>>> from audioset.sounds.reading import read_collection  # doctest: +SKIP
>>> finetune(read_collection("birds/"), FinetuneConfig(backbone="mn04"), "model/")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from audioset.arrays import FloatArray, IndexArray
from audioset.errors import MissingExtraError, UsageError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("fine-tuning", "torch", "train") from error

from audioset import __version__
from audioset.models.cards import FRONTENDS, find_frontend
from audioset.models.folders import prepare_model
from audioset.sounds.check import Check
from audioset.sounds.collection import Clip, Collection
from audioset.sounds.splits import fold_by_file, fold_by_group
from audioset.train.backbones import Backbone, find_backbone
from audioset.train.checkpoint import Record, Weights, as_arrays, read_measurements
from audioset.train.distributed import Processes, join_processes
from audioset.train.finetune.augment import Augmentation
from audioset.train.finetune.config import FinetuneConfig
from audioset.train.finetune.data import noise_source, read_spectrograms
from audioset.train.finetune.scratch import DRAWN, prepare_or_draw
from audioset.train.finetune.training import Task, make_module, predict, train, with_new_layers
from audioset.train.finite import named
from audioset.train.loop import OnLine
from audioset.train.measures import measure
from audioset.train.results import (
    BY_FILE,
    BY_GROUP,
    GIVEN_TEST,
    HeldOut,
    Learned,
    check_output,
    decide,
    write_result,
)
from audioset.train.steps import (
    OnStage,
    can_be_judged,
    check_sounds,
    digests_of,
    find_thresholds,
    name_fold,
    split_off_test,
    timed,
)
from audioset.weights.model_folder import ModelCard

Fit = Callable[[IndexArray, IndexArray, Path], Weights]  # clips to learn, clips to measure on, folder
Score = Callable[[IndexArray, Weights], FloatArray]

LEAST_GROUPS = 5  # for one of them to be held out: with fewer, it would be missed in training
RUN, FOLDS = "run", "folds"  # below the output
OWN_NAMES = (RUN, FOLDS)
# What suits clips shorter than those a network was published for: its last stages see finer steps of time.
RECIPES: Mapping[str, Mapping[str, Any]] = {"mobilenet": {"strides": [2, 2, 1, 1]}}


def finetune(
    collection: Collection,
    config: FinetuneConfig,
    output: str | os.PathLike[str],
    *,
    cross_validates: bool = False,
    n_folds: int = 5,  # at most so many parts
    check: Check | None = None,  # what ``check_collection`` has found, if it has been asked already
    on_stage: OnStage = lambda stage, n_done, n_all: None,
    on_line: OnLine | None = None,  # is told each line of the measurements
) -> Record:
    """Check the clips, train the network on them, measure it, and write model, measurements and report.

    A run that was stopped goes on where it stood, and ends with the same weights. ``output`` becomes a model folder,
    with ``report.html``, ``results.json``, whose record is returned, and the runs' own folders. With
    ``cross_validates``, each group, or each part of the files where there are no groups, is also held out in turn, in a
    training of its own. This takes so many times longer.

    NoInputError if no clip can be used; DataError if there is nothing to tell apart; UsageError, AssetError or
    WeightsError as ``find_backbone``, and UsageError for settings that cannot be used or a loss that is no number;
    ConflictError if ``output`` holds something else, or a run with other settings or data; OutputError if it cannot be
    written; KeyboardInterrupt if a signal asked to stop: a checkpoint was written.
    """
    folder = Path(output)
    check_output(folder, OWN_NAMES)
    backbone = prepare_backbone(config)
    seconds: dict[str, float] = {}
    held_out: list[HeldOut] = []
    with join_processes(config.device) as processes, _threads(config.n_threads):
        with timed(seconds, "check"):
            check = check_sounds(collection, check, on_stage)
        with timed(seconds, "spectrograms"):
            task, warnings = _prepare_task(check, config, backbone, on_stage)
        rows, test_rows = split_off_test(task.collection, task.activation)
        fit = partial(train, task, config, processes=processes, on_line=on_line)
        score = partial(_score, task, config, processes)
        if cross_validates:
            with timed(seconds, "cross-validation"):
                held_out, unjudged = _cross_validate(task, config, rows, n_folds, folder / FOLDS, fit, score, on_stage)
            warnings += unjudged
        with timed(seconds, "training"):
            split, validation = _choose_validation(task, config, rows)
            learned_rows = np.setdiff1d(rows, validation)
            weights = fit(learned_rows, validation, folder / RUN)
        if test_rows.size:
            held_out.insert(0, _measure_part(GIVEN_TEST, task, test_rows, score(test_rows, weights), "test"))
        if not cross_validates and validation.size:
            held_out.append(_measure_part(split, task, validation, score(validation, weights), "held out"))
        learned, card = _describe(task, config, check, held_out, len(learned_rows), folder, seconds, warnings)
        record = write_result(folder, learned, card, as_arrays(weights), OWN_NAMES) if processes.is_first else {}
        processes.wait()
        return record


def prepare_backbone(config: FinetuneConfig) -> Backbone:
    """The network to be trained, with the arguments and the frontend of the settings."""
    card, model = _prepare_network(config)
    if config.frontend:
        if config.frontend not in FRONTENDS:
            raise UsageError(f"frontend is {config.frontend!r}; expected one of {', '.join(FRONTENDS)}")
        ours, other = find_frontend(card), FRONTENDS[config.frontend]
        if (ours.n_mels, ours.is_centred) != (other.n_mels, other.is_centred):
            raise UsageError(f"the frontend {other.name} does not fit {config.backbone}, which has {ours.name}")
        card = replace(card, frontend=config.frontend)
    return Backbone(config.backbone, card, model)


def _prepare_network(config: FinetuneConfig) -> tuple[ModelCard, Path]:
    """The network with the arguments of the settings, or with those that suit short clips."""
    if config.backbone in DRAWN:
        return prepare_or_draw(config.backbone, config.backbone_arguments)
    found = find_backbone(config.backbone)
    arguments = config.backbone_arguments or ({} if found.is_classifier else RECIPES.get(found.network, {}))
    if found.is_classifier and config.backbone_arguments:
        raise UsageError("backbone_arguments are for published models; a model folder of one's own classes has its own")
    return prepare_model(config.backbone, arguments=dict(arguments)) if arguments else (found.card, found.folder)


def _prepare_task(
    check: Check, config: FinetuneConfig, backbone: Backbone, on_stage: OnStage
) -> tuple[Task, list[str]]:
    """What is to be learned, and warnings of what is not."""
    spec = find_frontend(backbone.card)
    noise = noise_source(config.noise, spec)
    spectrograms, readable, failures = read_spectrograms(
        check.require(), config, spec, lambda done, n_all: on_stage("spectrograms", done, n_all)
    )
    activation = "sigmoid" if readable.is_multi_label else "softmax"
    task = Task(
        spectrograms=spectrograms,
        collection=readable,
        digests=digests_of(check, readable.clips),
        targets=readable.targets(),
        backbone=backbone,
        decision=decide(readable.clips, readable.classes, activation, {}),
        augmentation=Augmentation(config, spectrograms.spec, noise),
    )
    return task, [f"{path} is left out: {error}" for path, error in failures.items()]


def _choose_validation(task: Task, config: FinetuneConfig, rows: IndexArray) -> tuple[str, IndexArray]:
    """Clips that are kept from training: how they were chosen, and which. Every class keeps some to learn."""
    n_groups = len({task.collection.clips[row].group for row in rows} - {None})
    by_group = config.holdout_by == "group" or (config.holdout_by == "auto" and n_groups >= LEAST_GROUPS)
    split = BY_GROUP if by_group else BY_FILE
    if config.holdout_by == "group" and n_groups < 2:
        raise UsageError(f"holdout_by is 'group', and there are {n_groups} groups. Next step: --group")
    n_units = n_groups if by_group else len({task.digests[row] for row in rows})
    if not config.holdout or n_units < 2:
        return split, rows[:0]
    held = _fold(task, rows, split, min(n_units, max(2, round(1 / config.holdout))), config.seed) == 0
    targets = task.targets[rows]
    lost = (targets[~held].sum(axis=0) == 0) & (targets.sum(axis=0) > 0)
    held &= ~(targets[:, lost] > 0).any(axis=1)  # a class with all its clips there could not be learned
    return split, rows[held]


def _fold(task: Task, rows: IndexArray, split: str, n_folds: int, seed: int) -> IndexArray:
    """The fold of each of some clips."""
    collection = task.collection.select(rows.tolist())
    if split == BY_GROUP:
        return fold_by_group(collection, n_folds, seed)
    return fold_by_file(collection, n_folds, seed, digests=[task.digests[row] for row in rows])


def _cross_validate(
    task: Task,
    config: FinetuneConfig,
    rows: IndexArray,
    n_folds: int,
    folder: Path,
    fit: Fit,
    score: Score,
    on_stage: OnStage,
) -> tuple[list[HeldOut], list[str]]:
    """Scores of clips by networks that learned from the others, and warnings; none if no clip can be judged."""
    clips = np.array(task.collection.clips, object)[rows]
    split = BY_GROUP if len({clip.group for clip in clips} - {None}) > 1 else BY_FILE
    folds = _fold(task, rows, split, max(n_folds, 2) if split == BY_GROUP else n_folds, config.seed)
    targets = task.targets[rows]
    is_judged = can_be_judged(targets, folds)
    warnings = list(_warn_of_unjudged(task.collection.classes, targets[~is_judged]))
    if not is_judged.any():
        return [], warnings
    scores, names = np.zeros(targets.shape, np.float32), []
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        names.append(name_fold(split, clips[held].tolist(), fold))
        on_stage(f"cross-validation: {names[-1]}", fold, int(folds.max()) + 1)
        weights = fit(rows[~held], rows[:0], folder / str(fold + 1))
        scores[held] = score(rows[held], weights)
    chosen = np.flatnonzero(is_judged)
    parts = folds[chosen].astype(np.intp)
    return [HeldOut(split, rows[chosen], scores[chosen], targets[chosen], parts, tuple(names))], warnings


def _warn_of_unjudged(classes: Sequence[str], targets: FloatArray) -> Iterator[str]:
    """Say of which classes some clips, with these targets, are of no other fold."""
    lost = [classes[int(column)] for column in np.flatnonzero(targets.any(axis=0))]
    if lost:
        yield (
            f"{', '.join(lost[:5])}{' and others' if len(lost) > 5 else ''}: all clips are in one part of the "
            "cross-validation, so nothing is known of how well they are recognised. Next step: add recordings"
        )


def _score(task: Task, config: FinetuneConfig, processes: Processes, rows: IndexArray, weights: Weights) -> FloatArray:
    card, first = with_new_layers(task.backbone, task.collection.classes, task.activation, config, {})
    scores = predict(task, make_module(card, first, config).to(processes.device), weights, rows, processes)
    is_spoilt = ~np.isfinite(scores).all(axis=1)
    if is_spoilt.any():
        raise UsageError(
            f"the scores of {named(task.names(rows[is_spoilt]))} are not finite. Likely cause: a training that has "
            "diverged. Next step: a lower learning_rate, or clip_norm = 1"
        )
    return scores


def _measure_part(split: str, task: Task, rows: IndexArray, scores: FloatArray, name: str) -> HeldOut:
    return HeldOut(split, rows, scores, task.targets[rows], np.zeros(len(rows), np.intp), (name,))


def _describe(
    task: Task,
    config: FinetuneConfig,
    check: Check,
    held_out: Sequence[HeldOut],
    n_clips: int,
    folder: Path,
    seconds: Mapping[str, float],
    warnings: Sequence[str],
) -> tuple[Learned, ModelCard]:
    """What is known of a network that learned from so many clips, and its card."""
    classes, clips = task.collection.classes, task.collection.clips
    calibration, thresholds = find_thresholds(held_out, task.collection)
    learned = Learned(
        name=task.collection.source or "your sounds",
        backbone=config.backbone,
        classes=classes,
        activation=task.activation,
        clips=clips,
        held_out=tuple(held_out),
        thresholds=thresholds,
        history=read_measurements(folder / RUN),
        findings=[finding.to_dict() for finding in check.findings],
        settings=config.as_dict(),
        timings_s=seconds,
        warnings=(*warnings, *_doubt(clips, held_out)),
    )
    accuracies = {
        each.name: measure(each.scores, each.targets, each.folds, classes, learned.decision)["accuracy"]
        for each in held_out
    }
    source = {"audioset": __version__, "method": "finetune", "n_clips": n_clips, "accuracy": accuracies}
    source |= {"settings": config.as_dict()}
    card, _ = with_new_layers(task.backbone, classes, task.activation, config, source)
    return learned, replace(card, calibration=calibration)


def _doubt(clips: Sequence[Clip], held_out: Sequence[HeldOut]) -> Iterator[str]:
    """What a reader must know before the numbers."""
    if not held_out:
        yield "nothing was held out: nothing is known of how good this model is. Next step: --holdout 0.1"
        return
    has_groups = len({clip.group for clip in clips} - {None}) > 1
    if has_groups and all(each.name == BY_FILE for each in held_out):
        yield (
            "only whole files were held out, so the model knows their groups: expect less on new ones. "
            "Next step: --cross-validate holds out each group in turn"
        )


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    """Compute on so many cores, and afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
