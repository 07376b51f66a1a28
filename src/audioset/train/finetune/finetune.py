"""Fine-tune a network on a collection, measure it on what it has not heard, and write the result.

>>> from audioset.sounds.reading import read_collection  # doctest: +SKIP
>>> finetune(read_collection("birds/"), FinetuneConfig(backbone="mn04"), "model/")  # doctest: +SKIP
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset.errors import DataError, MissingExtraError, UsageError

try:
    import torch
except ImportError as error:
    raise MissingExtraError("fine-tuning", "torch", "train") from error

from audioset import __version__
from audioset.calibration.fit import fit as fit_thresholds
from audioset.labels.labels import LabelSet
from audioset.models.published import FRONTENDS, find_frontend, prepare_model
from audioset.sounds.check import Check, check_collection
from audioset.sounds.collection import Collection
from audioset.sounds.splits import fold_by_file, fold_by_group
from audioset.train.backbones import Backbone, find_backbone
from audioset.train.checkpoint import Record, Weights, read_measurements
from audioset.train.distributed import Processes, join_processes
from audioset.train.finetune.augment import Augmentation
from audioset.train.finetune.config import FinetuneConfig
from audioset.train.finetune.data import IndexArray, data_digest, noise_source, read_spectrograms
from audioset.train.finetune.scratch import DRAWN, prepare_or_draw
from audioset.train.finetune.training import Task, make_module, predict, train, with_new_layers
from audioset.train.finite import named
from audioset.train.loop import OnLine
from audioset.train.measures import measure
from audioset.train.results import BY_FILE, BY_GROUP, GIVEN_TEST, HeldOut, Learned, check_output, write_result
from audioset.weights.model_folder import ModelCard

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
Stage = Callable[[str, int, int], None]

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
    n_folds: int = 5,
    check: Check | None = None,
    on_stage: Stage = lambda stage, n_done, n_all: None,
    on_line: OnLine | None = None,
) -> Record:
    """Check the clips, train the network on them, measure it, and write model, measurements and report.

    A run that was stopped goes on where it stood, and ends with the same weights.

    Parameters
    ----------
    collection : Collection
    config : FinetuneConfig
    output : path
        Folder of the result: a model folder, with ``report.html``, ``results.json``, and the runs' own folders.
    cross_validates : bool
        Whether each group, or each part of the files where there are no groups, is also held out in turn, in a
        training of its own. This takes so many times longer.
    n_folds : int
        At most so many parts.
    check : Check, optional
        What ``check_collection`` has found, if it has been asked already.
    on_stage : function, optional
        Called with the name of a stage, what is done of it, and all of it.
    on_line : function of dict, optional
        Is told each line of the measurements.

    Returns
    -------
    dict
        What ``results.json`` says.

    Raises
    ------
    NoInputError, DataError
        No clip can be used; there is nothing to tell apart.
    UsageError, AssetError, WeightsError
        As ``find_backbone``; settings that cannot be used; a loss that is no number.
    ConflictError
        ``output`` holds something else, or a run with other settings or data.
    OutputError
        It cannot be written.
    KeyboardInterrupt
        A signal asked to stop; a checkpoint was written.
    """
    folder = Path(output)
    check_output(folder, OWN_NAMES)
    backbone = prepare_backbone(config)
    with join_processes(config.device) as processes, _threads(config.n_threads):
        return _Finetuning(collection, config, backbone, folder, processes, on_stage, on_line).run(
            check, n_folds if cross_validates else 0
        )


def prepare_backbone(config: FinetuneConfig) -> Backbone:
    """The network to be trained, with the arguments and the frontend of the settings.

    Raises
    ------
    UsageError, AssetError, WeightsError
        As ``find_backbone``; and for a frontend that there is not, or that does not fit.
    """
    card, model = _card_and_folder(config)
    if config.frontend:
        if config.frontend not in FRONTENDS:
            raise UsageError(f"frontend is {config.frontend!r}; expected one of {', '.join(FRONTENDS)}")
        ours, other = find_frontend(card), FRONTENDS[config.frontend]
        if (ours.n_mels, ours.is_centred) != (other.n_mels, other.is_centred):
            raise UsageError(f"the frontend {other.name} does not fit {config.backbone}, which has {ours.name}")
        card = replace(card, frontend=config.frontend)
    return Backbone(config.backbone, card, model)


def _card_and_folder(config: FinetuneConfig) -> tuple[ModelCard, Path]:
    """The network with the arguments of the settings, or with those that suit short clips."""
    if config.backbone in DRAWN:
        return prepare_or_draw(config.backbone, config.backbone_arguments)
    found = find_backbone(config.backbone)
    arguments = config.backbone_arguments or ({} if found.is_classifier else RECIPES.get(found.network, {}))
    if found.is_classifier and config.backbone_arguments:
        raise UsageError("backbone_arguments are for published models; a model folder of one's own classes has its own")
    return prepare_model(config.backbone, arguments=dict(arguments)) if arguments else (found.card, found.folder)


class _Finetuning:
    """One fine-tuning: its data, and what is found on the way."""

    def __init__(
        self,
        collection: Collection,
        config: FinetuneConfig,
        backbone: Backbone,
        folder: Path,
        processes: Processes,
        on_stage: Stage,
        on_line: OnLine | None,
    ) -> None:
        self._collection, self._config, self._backbone = collection, config, backbone
        self._folder, self._processes = folder, processes
        self._on_stage, self._on_line = on_stage, on_line
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []

    def run(self, check: Check | None, n_folds: int) -> Record:
        """Do it all."""
        with self._timed("check"):
            self._check = check or self._checked()
            usable = self._check.require()
        with self._timed("spectrograms"):
            self._task = self._prepared(usable)
        train_rows, test_rows = self._parts()
        held_out = []
        if n_folds:
            with self._timed("cross-validation"):
                held_out += self._cross_validated(train_rows, n_folds)
        with self._timed("training"):
            name, validation = self._validation(train_rows)
            learned = np.setdiff1d(train_rows, validation)
            weights = self._train(learned, validation, self._folder / RUN)
        if test_rows.size:
            held_out.insert(0, self._measured(GIVEN_TEST, test_rows, weights, "test"))
        if not n_folds and validation.size:
            held_out.append(self._measured(name, validation, weights, "held out"))
        return self._written(tuple(held_out), weights, len(learned))

    def _checked(self) -> Check:
        files = len({clip.path for clip in self._collection.clips})
        done = iter(range(1, files + 1))
        return check_collection(self._collection, on_file=lambda *_: self._on_stage("check", next(done, files), files))

    def _prepared(self, usable: Collection) -> Task:
        spec = find_frontend(self._backbone.card)
        noise = noise_source(self._config.noise, spec)
        spectrograms, readable, failures = read_spectrograms(
            usable, self._config, spec, lambda done, n_all: self._on_stage("spectrograms", done, n_all)
        )
        self._warnings += [f"{path} is left out: {error}" for path, error in failures.items()]
        known = dict(zip(usable.clips, self._check.digests, strict=True))
        self._digests = [known[clip] for clip in readable.clips]
        self._usable = readable
        activation = "sigmoid" if readable.is_multi_label else "softmax"
        decision = Learned("", "", readable.classes, activation, readable.clips, ()).decision
        return Task(
            spectrograms=spectrograms,
            targets=readable.targets(),
            digest=data_digest(readable, self._digests),
            backbone=self._backbone,
            classes=readable.classes,
            decision=decision,
            augmentation=Augmentation(self._config, spectrograms.spec, noise),
        )

    def _parts(self) -> tuple[IndexArray, IndexArray]:
        """Clips to learn from, and those that the data call test."""
        is_test = np.array([clip.split == "test" for clip in self._usable.clips])
        rows, test_rows = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        if self._task.activation == "softmax" and (self._task.targets[rows].sum(axis=0) > 0).sum() < 2:
            raise DataError(
                "the clips to learn from are of one class: there is nothing to tell apart. Next step: add clips of "
                "another class, or of background, that are not for testing",
                code="one_class",
            )
        return rows, test_rows

    def _validation(self, rows: IndexArray) -> tuple[str, IndexArray]:
        """Clips that are kept from training: how they were chosen, and which. Every class keeps some to learn."""
        config, collection = self._config, self._usable.select(rows.tolist())
        n_groups = len({clip.group for clip in collection.clips} - {None})
        by_group = config.holdout_by == "group" or (config.holdout_by == "auto" and n_groups >= LEAST_GROUPS)
        name = BY_GROUP if by_group else BY_FILE
        if config.holdout_by == "group" and n_groups < 2:
            raise UsageError(f"holdout_by is 'group', and there are {n_groups} groups. Next step: --group")
        digests = [self._digests[row] for row in rows]
        n_units = n_groups if by_group else len(set(digests))
        if not config.holdout or n_units < 2:
            return name, rows[:0]
        n_folds = min(n_units, max(2, round(1 / config.holdout)))
        folds = (
            fold_by_group(collection, n_folds, config.seed)
            if by_group
            else fold_by_file(collection, n_folds, config.seed, digests=digests)
        )
        held = folds == 0
        targets = self._task.targets[rows]
        lost = (targets[~held].sum(axis=0) == 0) & (targets.sum(axis=0) > 0)
        held &= ~(targets[:, lost] > 0).any(axis=1)  # a class with all its clips there could not be learned
        return name, rows[held]

    def _cross_validated(self, rows: IndexArray, n_folds: int) -> list[HeldOut]:
        """Scores of all clips by networks that learned from the others; none if no clip's class is in other folds."""
        collection = self._usable.select(rows.tolist())
        groups = {clip.group for clip in collection.clips} - {None}
        name = BY_GROUP if len(groups) > 1 else BY_FILE
        folds = (
            fold_by_group(collection, max(n_folds, 2), self._config.seed)
            if name == BY_GROUP
            else fold_by_file(collection, n_folds, self._config.seed, digests=[self._digests[row] for row in rows])
        )
        scores = np.zeros((len(rows), len(self._usable.classes)), np.float32)
        is_judged = self._judged(rows, folds)
        if not is_judged.any():
            return []
        names = []
        for fold in range(int(folds.max()) + 1):
            held = folds == fold
            own = sorted({collection.clips[row].group or "" for row in np.flatnonzero(held)})
            names.append(", ".join(own[:3]) if name == BY_GROUP else f"fold {fold + 1}")
            self._on_stage(f"cross-validation: {names[-1]}", fold, int(folds.max()) + 1)
            weights = self._train(rows[~held], rows[held][:0], self._folder / FOLDS / str(fold + 1))
            scores[held] = self._scores(rows[held], weights)
        targets = self._task.targets[rows]
        chosen = np.flatnonzero(is_judged)
        parts = folds[chosen].astype(np.intp)
        return [HeldOut(name, rows[chosen], scores[chosen], targets[chosen], parts, tuple(names))]

    def _judged(self, rows: IndexArray, folds: IndexArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether all classes of a clip are in clips of other folds too: no other can be recognised."""
        targets = self._task.targets[rows] > 0
        is_judged = np.ones(len(rows), bool)
        for fold in np.unique(folds):
            unknown = ~targets[folds != fold].any(axis=0)
            is_judged &= ~((folds == fold) & (targets & unknown).any(axis=1))
        lost = [self._usable.classes[column] for column in np.flatnonzero(targets[~is_judged].any(axis=0))]
        if lost:
            self._warnings.append(
                f"{', '.join(lost[:5])}{' and others' if len(lost) > 5 else ''}: all clips are in one part of the "
                "cross-validation, so nothing is known of how well they are recognised. Next step: add recordings"
            )
        return is_judged

    def _train(self, rows: IndexArray, held_out: IndexArray, folder: Path) -> Weights:
        return train(self._task, self._config, rows, held_out, folder, self._processes, self._on_line)

    def _measured(self, name: str, rows: IndexArray, weights: Weights, fold_name: str) -> HeldOut:
        zeros = np.zeros(len(rows), np.intp)
        return HeldOut(name, rows, self._scores(rows, weights), self._task.targets[rows], zeros, (fold_name,))

    def _scores(self, rows: IndexArray, weights: Weights) -> FloatArray:
        task = self._task
        card, first = with_new_layers(task.backbone, task.classes, task.activation, self._config, {})
        module = make_module(card, first, self._config).to(self._processes.device)
        scores = predict(task, module, weights, rows, self._processes)
        is_spoilt = ~np.isfinite(scores).all(axis=1)
        if is_spoilt.any():
            raise UsageError(
                f"the scores of {named(task.names(rows[is_spoilt]))} are not finite. Likely cause: a training that has "
                "diverged. Next step: a lower learning_rate, or clip_norm = 1"
            )
        return scores

    def _written(self, held_out: tuple[HeldOut, ...], weights: Weights, n_clips: int) -> Record:
        config, task = self._config, self._task
        calibration, thresholds = self._thresholds(held_out)
        learned = Learned(
            name=self._usable.source or "your sounds",
            backbone=config.backbone,
            classes=task.classes,
            activation=task.activation,
            clips=self._usable.clips,
            held_out=held_out,
            thresholds=thresholds,
            history=read_measurements(self._folder / RUN),
            findings=[finding.to_dict() for finding in self._check.findings],
            settings=config.as_dict(),
            timings_s=self._seconds,
            warnings=tuple(self._warnings + self._doubts(held_out)),
        )
        accuracies = {
            each.name: measure(each.scores, each.targets, each.folds, task.classes, learned.decision)["accuracy"]
            for each in held_out
        }
        source = {"audioset": __version__, "method": "finetune", "n_clips": n_clips, "accuracy": accuracies}
        card, _ = with_new_layers(
            task.backbone, task.classes, task.activation, config, {**source, "settings": config.as_dict()}
        )
        card = replace(card, calibration=calibration)
        arrays = {name: value.detach().float().cpu().numpy() for name, value in weights.items()}
        record: Record = {}
        if self._processes.is_first:
            record = write_result(self._folder, learned, card, arrays, OWN_NAMES)
        self._processes.wait()
        return record

    def _thresholds(self, held_out: tuple[HeldOut, ...]) -> tuple[dict[str, Any] | None, dict[str, float | None]]:
        """Those of the most telling held-out scores, for the model's card and for people."""
        if not held_out or not held_out[0].targets.any():
            return None, {}
        first = held_out[0]
        labels = LabelSet(self._task.classes, self._task.classes)
        recordings = [str(self._usable.clips[row].path) for row in first.rows]
        found = fit_thresholds(np.clip(first.scores, 0, 1), first.targets, labels, recordings=recordings)
        return found.calibration.to_record(), dict(found.calibration.thresholds)

    def _doubts(self, held_out: tuple[HeldOut, ...]) -> list[str]:
        """What a reader must know before the numbers."""
        if not held_out:
            return ["nothing was held out: nothing is known of how good this model is. Next step: --holdout 0.1"]
        has_groups = len({clip.group for clip in self._usable.clips} - {None}) > 1
        if has_groups and all(each.name == BY_FILE for each in held_out):
            return [
                "only whole files were held out, so the model knows their groups: expect less on new ones. "
                "Next step: --cross-validate holds out each group in turn"
            ]
        return []

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[stage] = time.perf_counter() - start


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    """Compute on so many cores, and afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
