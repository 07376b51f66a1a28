"""Learn your own sounds on the embeddings of a published model.

>>> from audioset.sounds.reading import read_collection  # doctest: +SKIP
>>> classifier = learn_classifier(read_collection("birds/"), "yamnet")  # doctest: +SKIP
>>> classifier.write("model/")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audioset import __version__
from audioset.arrays import FloatArray, IndexArray
from audioset.audio.limits import LIMITS, Limits
from audioset.errors import UsageError
from audioset.sounds.check import Check
from audioset.sounds.collection import Collection
from audioset.sounds.splits import find_leaks, fold_by_file, fold_by_group
from audioset.train.backbones import find_backbone
from audioset.train.classifier.choosing import CrossValidated, cross_validate, fold_scores, learning_curve
from audioset.train.classifier.embeddings import ClipEmbeddings, embed_collection
from audioset.train.classifier.fit import HIDDEN_L2, Recipe, fit
from audioset.train.classifier.gaps import find_named_groups, gap_warning, is_gap
from audioset.train.measures import Decision, measure
from audioset.train.results import BY_FILE, BY_GROUP, GIVEN_TEST, CurvePoint, HeldOut, Learned, decide, write_result
from audioset.train.steps import (
    OnStage,
    check_sounds,
    digests_of,
    find_thresholds,
    name_fold,
    split_off_test,
    timed,
)
from audioset.weights.model_folder import ModelCard

FEW_CLIPS = 10  # a class, on average: with fewer, each file is held out by itself
MOST_FOLDS = 60  # when each file is a fold
LEAST_FOLDS = 2
MOST = 0.9  # share of clips that says how long clips are


@dataclass(frozen=True, eq=False)
class Classifier:
    """A classifier that was learned: what is known of it, and its model."""

    learned: Learned
    card: ModelCard
    weights: Mapping[str, FloatArray]

    def write(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Write the model folder with ``results.json`` and ``report.html``; see ``write_result``."""
        return write_result(Path(folder), self.learned, self.card, self.weights)


def learn_classifier(
    collection: Collection,
    backbone: str | os.PathLike[str] = "yamnet",  # a published model, or a model folder
    *,
    hidden_size: int = 0,  # units of a layer between embeddings and classes; 0 for none
    n_folds: int = 5,  # of the cross-validation, from 2; with few clips each file is a fold of its own
    seed: int = 0,
    balances_classes: bool = False,  # whether rare classes weigh as much as frequent ones
    check: Check | None = None,  # what ``check_collection`` has found, if it has been asked already
    limits: Limits = LIMITS,  # what one file may cost
    n_threads: int | None = None,  # default: one for each core
    on_progress: OnStage = lambda stage, n_done, n_all: None,
) -> Classifier:
    """Check the clips, embed them, and fit, choose and measure a classifier.

    Clips with one class each make a softmax over the classes; clips with several, or with none, as background, make
    classes that are independent of each other. The strength of L2 is chosen by cross-validation: by group where the
    clips have groups, else by file. NoInputError if no clip can be used; DataError if there is nothing to tell apart;
    UsageError, AssetError or WeightsError as ``find_backbone``, and UsageError for settings outside their ranges.
    """
    if n_folds < LEAST_FOLDS:
        raise UsageError(f"n_folds is {n_folds}; expected {LEAST_FOLDS} or more")
    seconds: dict[str, float] = {}
    with timed(seconds, "check"):
        check = check_sounds(collection, check, on_progress, limits)
        usable = check.require()
    with timed(seconds, "embeddings"):
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
    return _learn(embeddings, recipe, n_folds, check, seconds, on_progress)


def _learn(
    embeddings: ClipEmbeddings,
    recipe: Recipe,
    n_folds: int,
    check: Check,
    seconds: dict[str, float],
    on_progress: OnStage,
) -> Classifier:
    """Choose and fit a head, measure it, and say what is known of it."""
    collection = embeddings.collection
    rows, test_rows = split_off_test(collection, recipe.activation)
    known = embeddings.select(rows)
    with timed(seconds, "cross-validation"):
        splits = _split_all(known.collection, digests_of(check, known.collection.clips), n_folds, recipe.seed)
        found, unjudged = _cross_validate_all(known, splits, recipe, on_progress)
    primary = found.get(BY_GROUP) or found.get(BY_FILE)
    recipe = recipe.only(primary.candidate if primary else len(recipe.candidates) // 2)
    with timed(seconds, "fit"):
        # With a hidden layer, stopping early is a part of what was measured.
        head = fit(known.means, known.collection.targets(), recipe, is_rough=recipe.hidden_size > 0).head(0)
    held_out = [_held_out(name, known.collection, rows, result) for name, result in found.items()]
    calibration, thresholds = find_thresholds(held_out, collection)
    decision = decide(collection.clips, collection.classes, recipe.activation, thresholds)
    if test_rows.size:
        held_out.insert(0, _test(embeddings, rows, test_rows, recipe))
    measured = {
        each.name: measure(each.scores, each.targets, each.folds, collection.classes, decision) for each in held_out
    }
    with timed(seconds, "learning curve"):
        curve = _draw_curve(known, found, recipe, decision, on_progress)
    first = [*_warn_of_gaps(measured, found, known, recipe, decision, n_folds), *_warn_of_leaks(collection, test_rows)]
    errors = [finding.message for finding in check.findings if finding.severity == "error"]
    warnings = (*first, *errors, *embeddings.warnings, *unjudged)
    learned = _describe(embeddings, recipe, found, check, held_out, thresholds, curve, seconds, warnings)
    source = {"audioset": __version__, "method": "train classifier", "n_clips": len(rows)}
    accuracies = {name: round(each["balanced_accuracy"], 4) for name, each in measured.items()}
    source |= {"balanced_accuracy": {k: v if np.isfinite(v) else None for k, v in accuracies.items()}}
    source |= {"settings": learned.settings}
    card, weights = embeddings.backbone.with_head(head, learned.classes, source, calibration)
    return Classifier(learned, card, weights)


def _split_all(
    collection: Collection, digests: Sequence[str], n_folds: int, seed: int
) -> Iterator[tuple[str, IndexArray]]:
    """Folds by group and by file, as far as the clips allow."""
    if len({clip.group for clip in collection.clips} - {None}) > 1:
        yield BY_GROUP, fold_by_group(collection, n_folds, seed)
    is_few = len(collection) <= FEW_CLIPS * len(collection.classes)
    n_file_folds = min(len(set(digests)), MOST_FOLDS if is_few else n_folds)
    if n_file_folds >= LEAST_FOLDS:
        yield BY_FILE, fold_by_file(collection, n_file_folds, seed, digests=digests)


def _cross_validate_all(
    known: ClipEmbeddings, splits: Iterator[tuple[str, IndexArray]], recipe: Recipe, on_progress: OnStage
) -> tuple[dict[str, CrossValidated], list[str]]:
    """What each way to split tells, and warnings of what it does not."""
    found: dict[str, CrossValidated] = {}
    warnings: list[str] = []
    for number, (name, folds) in enumerate(splits):
        on_progress("cross-validation", number, 2)
        result = cross_validate(known, folds, recipe)
        if result is not None:
            found[name] = result
        warnings += _warn_of_unjudged(name, known.collection, result)
    on_progress("cross-validation", 2, 2)
    return found, warnings


def _warn_of_unjudged(name: str, collection: Collection, result: CrossValidated | None) -> Iterator[str]:
    """Say which classes have no figure: all their clips are in one fold."""
    targets = collection.targets()
    judged = np.zeros(targets.shape[1]) if result is None else targets[result.rows].sum(axis=0)
    lost = [collection.classes[column] for column in np.flatnonzero((targets.sum(axis=0) > 0) & (judged == 0))]
    if lost:
        yield (
            f"{', '.join(lost[:5])}{' and others' if len(lost) > 5 else ''}: all clips are of "
            f"{'one file' if name == BY_FILE else 'one group'}, so nothing can be said of how well "
            f"{'it is' if len(lost) == 1 else 'they are'} recognised ({name}). Next step: add recordings"
        )


def _held_out(name: str, collection: Collection, rows: IndexArray, result: CrossValidated) -> HeldOut:
    clips = np.array(collection.clips, object)[result.rows]
    n_folds = int(result.all_folds.max()) + 1
    names = [name_fold(name, clips[result.folds == fold].tolist(), fold) for fold in range(n_folds)]
    targets = collection.targets()[result.rows]
    return HeldOut(name, rows[result.rows], result.scores, targets, result.folds, tuple(names))


def _test(embeddings: ClipEmbeddings, rows: IndexArray, test_rows: IndexArray, recipe: Recipe) -> HeldOut:
    """The part that the data call test, by a head that learned from all of the rest."""
    scores = fold_scores(embeddings, rows, test_rows, recipe)[0]
    targets = embeddings.collection.targets()[test_rows]
    return HeldOut(GIVEN_TEST, test_rows, scores, targets, np.zeros(len(test_rows), np.intp), ("test",))


def _draw_curve(
    known: ClipEmbeddings,
    found: Mapping[str, CrossValidated],
    recipe: Recipe,
    decision: Decision,
    on_progress: OnStage,
) -> list[CurvePoint]:
    points: list[CurvePoint] = []
    for name, result in found.items():
        on_progress("learning curve", len(points), len(points) + 1)
        points += learning_curve(known, result.all_folds, recipe, name, decision, recipe.seed)
    return points


def _warn_of_gaps(
    measured: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, CrossValidated],
    known: ClipEmbeddings,
    recipe: Recipe,
    decision: Decision,
    n_folds: int,
) -> Iterator[str]:
    """Say where a split by file flatters: with groups that are given, or else with those in the names of the files."""
    by_file, collection = measured.get(BY_FILE), known.collection
    if by_file is None:
        return
    if BY_GROUP in measured:
        if is_gap(by_file, measured[BY_GROUP]):
            yield gap_warning(by_file["accuracy"], measured[BY_GROUP]["accuracy"])
        return
    for named in find_named_groups(collection) if all(clip.group is None for clip in collection.clips) else ():
        result = cross_validate(known, fold_by_group(named.applied_to(collection), n_folds, recipe.seed), recipe)
        if result is not None:
            targets = collection.targets()[result.rows]
            by_group = measure(result.scores, targets, result.folds, collection.classes, decision)
            if is_gap(by_file, by_group):
                yield gap_warning(by_file["accuracy"], by_group["accuracy"], named.pattern)


def _warn_of_leaks(collection: Collection, test_rows: IndexArray) -> Iterator[str]:
    """Say what the given test shares with what was learned."""
    for kind, names in find_leaks(collection, np.isin(np.arange(len(collection)), test_rows)).items():
        yield (
            f"the given test shares {len(names)} {kind} with what was learned ({', '.join(names[:3])}): its "
            "figures are too good. Next step: give each to one part"
        )


def _describe(
    embeddings: ClipEmbeddings,
    recipe: Recipe,
    found: Mapping[str, CrossValidated],
    check: Check,
    held_out: Sequence[HeldOut],
    thresholds: Mapping[str, float | None],
    curve: Sequence[CurvePoint],
    seconds: Mapping[str, float],
    warnings: tuple[str, ...],
) -> Learned:
    collection, backbone = embeddings.collection, embeddings.backbone
    (shrinkage, l2) = recipe.candidates[0]
    return Learned(
        name=collection.source or "your sounds",
        backbone=backbone.name,
        classes=collection.classes,
        activation=recipe.activation,
        clips=collection.clips,
        held_out=tuple(held_out),
        thresholds=thresholds,
        curve=curve,
        findings=[finding.to_dict() for finding in check.findings],
        settings={
            "backbone": backbone.name,
            "frontend": backbone.card.frontend,
            "hidden units": recipe.hidden_size,
            "L2": l2,
            "shrinkage": shrinkage,
            "classes weigh the same": recipe.balances_classes,
            "folds": {name: len(np.unique(each.all_folds)) for name, each in found.items()},
            "seed": recipe.seed,
            "clips from the cache": len(collection) - embeddings.n_computed,
        },
        timings_s=seconds,
        warnings=warnings,
    )
