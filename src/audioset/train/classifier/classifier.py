"""Learn your own sounds on the embeddings of a published model.

>>> from audioset.sounds.reading import read_collection  # doctest: +SKIP
>>> classifier = learn_classifier(read_collection("birds/"), "yamnet")  # doctest: +SKIP
>>> classifier.write("model/")  # doctest: +SKIP
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset import __version__
from audioset.arrays import FloatArray, IndexArray
from audioset.audio.limits import LIMITS, Limits
from audioset.calibration.fit import fit as fit_thresholds
from audioset.errors import DataError, UsageError
from audioset.labels.labels import LabelSet
from audioset.sounds.check import Check, check_collection
from audioset.sounds.collection import Collection
from audioset.sounds.splits import find_leaks, fold_by_file, fold_by_group
from audioset.train.backbones import find_backbone
from audioset.train.classifier.choosing import CrossValidated, cross_validate, fold_scores, learning_curve
from audioset.train.classifier.embeddings import ClipEmbeddings, embed_collection
from audioset.train.classifier.fit import HIDDEN_L2, Recipe, fit
from audioset.train.classifier.gaps import find_named_groups, gap_warning, is_gap
from audioset.train.measures import Decision, measure
from audioset.train.results import BY_FILE, BY_GROUP, GIVEN_TEST, CurvePoint, HeldOut, Learned, write_result
from audioset.weights.model_folder import ModelCard

Progress = Callable[[str, int, int], None]  # stage, done, in all

FEW_CLIPS = 10  # a class, on average: with fewer, each file is held out by itself
MOST_FOLDS = 60  # when each file is a fold
LEAST_FOLDS = 2
MOST = 0.9  # share of clips that says how long clips are


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier that was learned: what is known of it, and its model.

    Attributes
    ----------
    learned : Learned
    card : ModelCard
    weights : dict of str to ndarray
    """

    learned: Learned
    card: ModelCard
    weights: Mapping[str, FloatArray]

    def write(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Write the model folder with ``results.json`` and ``report.html``; see ``write_result``."""
        return write_result(Path(folder), self.learned, self.card, self.weights)


@dataclass
class _Clock:
    """Seconds of each stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def learn_classifier(
    collection: Collection,
    backbone: str | os.PathLike[str] = "yamnet",
    *,
    hidden_size: int = 0,
    n_folds: int = 5,
    seed: int = 0,
    balances_classes: bool = False,
    check: Check | None = None,
    limits: Limits = LIMITS,
    n_threads: int | None = None,
    on_progress: Progress = lambda stage, n_done, n_all: None,
) -> Classifier:
    """Check the clips, embed them, and fit, choose and measure a classifier.

    Clips with one class each make a softmax over the classes; clips with several, or with none, as background, make
    classes that are independent of each other. The strength of L2 is chosen by cross-validation: by group where the
    clips have groups, else by file.

    Parameters
    ----------
    collection : Collection
    backbone : str or path
        A published model, or a model folder.
    hidden_size : int
        Units of a layer between embeddings and classes; 0 for none.
    n_folds : int
        Of the cross-validation, from 2. With few clips each file is a fold of its own.
    seed : int
    balances_classes : bool
        Whether rare classes weigh as much as frequent ones.
    check : Check, optional
        What ``check_collection`` has found, if it has been asked already.
    limits : Limits
        What one file may cost.
    n_threads : int, optional
        Default: one for each core.
    on_progress : function, optional
        Called with the name of a stage, what is done of it, and all of it.

    Returns
    -------
    Classifier

    Raises
    ------
    NoInputError
        No clip can be used.
    DataError
        There is nothing to tell apart.
    UsageError, AssetError, WeightsError
        As ``find_backbone``; and for settings outside their ranges.
    """
    if n_folds < LEAST_FOLDS:
        raise UsageError(f"n_folds is {n_folds}; expected {LEAST_FOLDS} or more")
    clock = _Clock()
    with clock.stage("check"):
        check = check or check_collection(
            collection, limits=limits, on_file=_counting(on_progress, len({clip.path for clip in collection.clips}))
        )
        usable = check.require()
    with clock.stage("embeddings"):
        embeddings = embed_collection(
            usable,
            find_backbone(backbone, float(np.quantile(check.durations_s, MOST))),
            digests=check.digests,
            limits=limits,
            n_threads=n_threads,
            on_progress=lambda done, n_all: on_progress("embeddings", done, n_all),
        )
    activation = "sigmoid" if embeddings.collection.is_multi_label else "softmax"
    recipe = Recipe(activation, hidden_size, balances_classes, seed=seed)
    if hidden_size:
        recipe = replace(recipe, shrinkages=(1.0,), l2=HIDDEN_L2)
    return _Training(embeddings, recipe, n_folds, _digests(embeddings, check), clock, on_progress).classifier(check)


def _counting(on_progress: Progress, n_all: int) -> Callable[..., None]:
    done = iter(range(1, n_all + 1))
    return lambda *_: on_progress("check", next(done, n_all), n_all)


def _digests(embeddings: ClipEmbeddings, check: Check) -> list[str]:
    """Of the files of the clips that could be embedded."""
    known = dict(zip(check.usable.clips, check.digests, strict=True))
    return [known[clip] for clip in embeddings.collection.clips]


class _Training:
    """One training: its data, and what is found on the way."""

    def __init__(
        self,
        embeddings: ClipEmbeddings,
        recipe: Recipe,
        n_folds: int,
        digests: list[str],
        clock: _Clock,
        on_progress: Progress,
    ) -> None:
        self._all = embeddings
        self._clips = embeddings.collection.clips
        is_test = np.array([clip.split == "test" for clip in self._clips])
        self._train, self._test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        self._known = embeddings.select(self._train)
        self._digests = [digests[row] for row in self._train]
        if len({label for clip in self._known.collection.clips for label in clip.labels}) < 2 and (
            recipe.activation == "softmax"
        ):
            raise DataError(
                "the clips to learn from are of one class: there is nothing to tell apart. Next step: add clips of "
                "another class, or of background, that are not for testing",
                code="one_class",
            )
        self._recipe = recipe
        self._n_folds = n_folds
        self._clock = clock
        self._on_progress = on_progress
        self._warnings = list(embeddings.warnings)

    def classifier(self, check: Check) -> Classifier:
        """Do it all."""
        with self._clock.stage("cross-validation"):
            found = self._cross_validations()
        primary = found.get(BY_GROUP) or found.get(BY_FILE)
        recipe = self._recipe.only(primary[1].candidate if primary else self._middle())
        with self._clock.stage("fit"):
            # With a hidden layer, stopping early is a part of what was measured.
            is_rough = recipe.hidden_size > 0
            head = fit(self._known.means, self._known.collection.targets(), recipe, is_rough=is_rough).head(0)
        held_out = [self._held_out(name, *each) for name, each in found.items()]
        calibration, thresholds = self._thresholds(held_out)
        decision = self._decision(thresholds)
        if self._test.size:
            held_out.insert(0, self._tested(recipe))
        measured = {
            each.name: measure(each.scores, each.targets, each.folds, self._all.collection.classes, decision)
            for each in held_out
        }
        with self._clock.stage("learning curve"):
            curve = self._curve(found, recipe, decision)
        self._warn(check, measured, found, recipe, decision)
        backbone = self._all.backbone
        (shrinkage, l2) = recipe.candidates[0]
        settings = {
            "backbone": backbone.name,
            "frontend": backbone.card.frontend,
            "hidden units": recipe.hidden_size,
            "L2": l2,
            "shrinkage": shrinkage,
            "classes weigh the same": recipe.balances_classes,
            "folds": {name: len(np.unique(each[0])) for name, each in found.items()},
            "seed": recipe.seed,
            "clips from the cache": len(self._clips) - self._all.n_computed,
        }
        learned = Learned(
            name=self._all.collection.source or "your sounds",
            backbone=backbone.name,
            classes=self._all.collection.classes,
            activation=recipe.activation,
            clips=self._clips,
            held_out=tuple(held_out),
            thresholds=thresholds,
            curve=curve,
            findings=[finding.to_dict() for finding in check.findings],
            settings=settings,
            timings_s=self._clock.seconds,
            warnings=tuple(self._warnings),
        )
        accuracies = {name: round(each["balanced_accuracy"], 4) for name, each in measured.items()}
        source = {"audioset": __version__, "method": "train classifier", "n_clips": len(self._train)}
        source |= {"balanced_accuracy": {k: v if np.isfinite(v) else None for k, v in accuracies.items()}}
        card, weights = backbone.with_head(head, learned.classes, {**source, "settings": settings}, calibration)
        return Classifier(learned, card, weights)

    def _cross_validations(self) -> dict[str, tuple[IndexArray, CrossValidated]]:
        """By group and by file, as far as the clips allow: the folds, and what was found."""
        found = {}
        for number, (name, folds) in enumerate(self._folds()):
            self._on_progress("cross-validation", number, 2)
            result = cross_validate(self._known, folds, self._recipe)
            if result is not None:
                found[name] = (folds, result)
            self._note_unjudged(name, result)
        self._on_progress("cross-validation", 2, 2)
        return found

    def _folds(self) -> Iterator[tuple[str, IndexArray]]:
        collection = self._known.collection
        if len({clip.group for clip in collection.clips} - {None}) > 1:
            yield BY_GROUP, fold_by_group(collection, self._n_folds, self._recipe.seed)
        n_files = len({*self._digests})
        is_few = len(collection) <= FEW_CLIPS * len(collection.classes)
        n_folds = min(n_files, MOST_FOLDS) if is_few else min(n_files, self._n_folds)
        if n_folds >= LEAST_FOLDS:
            yield BY_FILE, fold_by_file(collection, n_folds, self._recipe.seed, digests=self._digests)

    def _note_unjudged(self, name: str, result: CrossValidated | None) -> None:
        """Say which classes have no figure: all their clips are in one fold."""
        targets = self._known.collection.targets()
        judged = np.zeros(targets.shape[1]) if result is None else targets[result.rows].sum(axis=0)
        lost = [
            label
            for label, n, n_all in zip(self._known.collection.classes, judged, targets.sum(axis=0), strict=True)
            if n_all and not n
        ]
        if lost:
            where = "one file" if name == BY_FILE else "one group"
            self._warnings.append(
                f"{', '.join(lost[:5])}{' and others' if len(lost) > 5 else ''}: all clips are of {where}, so nothing "
                f"can be said of how well {'it is' if len(lost) == 1 else 'they are'} recognised ({name}). Next step: "
                "add recordings"
            )

    def _middle(self) -> int:
        """The candidate where nothing can be compared."""
        return len(self._recipe.candidates) // 2

    def _held_out(self, name: str, folds: IndexArray, result: CrossValidated) -> HeldOut:
        clips = [self._known.collection.clips[row] for row in result.rows]
        fold_names = []
        for fold in range(int(folds.max()) + 1):
            groups = sorted({clip.group or "" for clip, own in zip(clips, result.folds, strict=True) if own == fold})
            fold_names.append(", ".join(groups[:3]) if name == BY_GROUP else f"fold {fold + 1}")
        targets = self._known.collection.targets()[result.rows]
        rows = self._train[result.rows]
        return HeldOut(name, rows, result.scores, targets, result.folds, tuple(fold_names))

    def _tested(self, recipe: Recipe) -> HeldOut:
        """The part that the data call test, by the head that learned from all of the rest."""
        scores = fold_scores(self._all, self._train, self._test, recipe)[0]
        targets = self._all.collection.targets()[self._test]
        return HeldOut(GIVEN_TEST, self._test, scores, targets, np.zeros(len(self._test), np.intp), ("test",))

    def _thresholds(self, held_out: list[HeldOut]) -> tuple[dict[str, Any] | None, dict[str, float | None]]:
        """Those of the most telling held-out scores, for the model's card and for people."""
        if not held_out:
            return None, {}
        labels = LabelSet(self._all.collection.classes, self._all.collection.classes)
        clips = [self._clips[row] for row in held_out[0].rows]
        if not held_out[0].targets.any():
            return None, {}
        found = fit_thresholds(
            np.clip(held_out[0].scores, 0, 1),
            held_out[0].targets,
            labels,
            recordings=[str(clip.path) for clip in clips],
        )
        return found.calibration.to_record(), dict(found.calibration.thresholds)

    def _decision(self, thresholds: Mapping[str, float | None]) -> Decision:
        return Learned(
            "", "", self._all.collection.classes, self._recipe.activation, self._clips, (), thresholds
        ).decision

    def _curve(
        self, found: Mapping[str, tuple[IndexArray, CrossValidated]], recipe: Recipe, decision: Decision
    ) -> list[CurvePoint]:
        points: list[CurvePoint] = []
        for name, (folds, _) in found.items():
            self._on_progress("learning curve", len(points), len(points) + 1)
            points += learning_curve(self._known, folds, recipe, name, decision, recipe.seed)
        return points

    def _warn(
        self,
        check: Check,
        measured: Mapping[str, Mapping[str, Any]],
        found: Mapping[str, tuple[IndexArray, CrossValidated]],
        recipe: Recipe,
        decision: Decision,
    ) -> None:
        """Say first what the numbers alone would hide."""
        first: list[str] = []
        if BY_FILE in measured and BY_GROUP in measured and is_gap(measured[BY_FILE], measured[BY_GROUP]):
            first.append(gap_warning(measured[BY_FILE]["accuracy"], measured[BY_GROUP]["accuracy"]))
        if BY_FILE in measured and BY_GROUP not in found and self._has_no_groups:
            first += self._named_groups(measured[BY_FILE], recipe, decision)
        if self._test.size:
            leaks = find_leaks(self._all.collection, np.array([clip.split == "test" for clip in self._clips]))
            first += [
                f"the given test shares {len(names)} {kind} with what was learned ({', '.join(names[:3])}): its "
                "figures are too good. Next step: give each to one part"
                for kind, names in leaks.items()
            ]
        errors = [finding.message for finding in check.findings if finding.severity == "error"]
        self._warnings = [*first, *errors, *self._warnings]

    @property
    def _has_no_groups(self) -> bool:
        return all(clip.group is None for clip in self._known.collection.clips)

    def _named_groups(self, by_file: Mapping[str, Any], recipe: Recipe, decision: Decision) -> Iterator[str]:
        """Warnings for groups in the names of the files that a split by file hides."""
        collection = self._known.collection
        for named in find_named_groups(collection):
            folds = fold_by_group(named.applied_to(collection), self._n_folds, recipe.seed)
            result = cross_validate(self._known, folds, recipe)
            if result is None:
                continue
            targets = collection.targets()[result.rows]
            by_group = measure(result.scores, targets, result.folds, collection.classes, decision)
            if is_gap(by_file, by_group):
                yield gap_warning(by_file["accuracy"], by_group["accuracy"], named.pattern)
