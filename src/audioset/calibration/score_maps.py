"""Monotone maps from a class's scores to how often the class is there: Platt's sigmoid and isotonic regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from audioset.arrays import BoolArray, RealArray
from audioset.errors import UsageError, WeightsError

SMALLEST = 1e-7  # scores are kept so far from 0 and 1: their logits stay finite; next to 1, float32 has no finer steps
MAX_STEPS = 100
SMALLEST_STEP = 1e-10  # of Newton's, as a part of the full one
ROUNDING = 1e-12  # losses that differ by a smaller part are equal: next to the lowest, sums of floats waver
GRADIENT = 1e-9  # for each clip: a loss this flat is at its lowest
MAX_BLOCKS = 100  # of an isotonic map: it is stored in a model's card, which people read


class ScoreMap(Protocol):
    """A map that never falls, from scores in [0, 1] to [0, 1]."""

    kind: ClassVar[str]

    def __call__(self, scores: RealArray) -> RealArray:
        """Map scores of any shape; float64."""
        ...

    def to_record(self) -> dict[str, Any]:
        """As JSON's own types; ``map_from_record`` reads it."""
        ...


@dataclass(frozen=True)
class PlattMap:
    """A sigmoid of the score's logit: ``sigmoid(slope * logit(score) + offset)``.

    Attributes
    ----------
    slope : float
        Positive; 1, with an offset of 0, changes nothing.
    offset : float
        Of the logit.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999, of logits instead of margins.
    """

    slope: float
    offset: float
    kind: ClassVar[str] = "platt"

    def __post_init__(self) -> None:
        if not (0 < self.slope < math.inf and math.isfinite(self.offset)):
            raise UsageError(f"slope is {self.slope} and offset {self.offset}; expected finite numbers, the slope > 0")

    def __call__(self, scores: RealArray) -> RealArray:
        """Map scores of any shape; float64."""
        return _sigmoid(self.slope * _logit(scores) + self.offset)

    def to_record(self) -> dict[str, Any]:
        """As JSON's own types."""
        return {"kind": self.kind, "slope": self.slope, "offset": self.offset}


@dataclass(frozen=True)
class IsotonicMap:
    """Straight lines between breakpoints; before the first and after the last, it is level.

    Attributes
    ----------
    scores : tuple of float
        Where the breakpoints are: in [0, 1], rising.
    values : tuple of float
        What the map is there: in [0, 1], never falling.

    Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", 2002.
    """

    scores: tuple[float, ...]
    values: tuple[float, ...]
    kind: ClassVar[str] = "isotonic"

    def __post_init__(self) -> None:
        is_fitting = len(self.scores) == len(self.values) and 0 < len(self.scores) <= 2 * MAX_BLOCKS
        if not (is_fitting and _is_within(self.scores) and _is_within(self.values)):
            raise UsageError(
                f"{len(self.scores)} breakpoints have {len(self.values)} values; expected 1 to {2 * MAX_BLOCKS} of "
                "each, all in [0, 1]"
            )
        if (np.diff(self.scores) <= 0).any() or (np.diff(self.values) < 0).any():
            raise UsageError("breakpoints do not rise, or their values fall; expected a map that never falls")

    def __repr__(self) -> str:
        return f"<IsotonicMap of {len(self.scores)} breakpoints>"

    def __call__(self, scores: RealArray) -> RealArray:
        """Map scores of any shape; float64."""
        mapped: RealArray = np.interp(scores, self.scores, self.values)
        return np.clip(mapped, self.values[0], self.values[-1])  # interpolation may miss the ends by a rounding

    def to_record(self) -> dict[str, Any]:
        """As JSON's own types."""
        return {"kind": self.kind, "scores": list(self.scores), "values": list(self.values)}


def fit_platt(scores: RealArray, is_positive: BoolArray) -> PlattMap | None:
    """Fit a sigmoid to scores in [0, 1], of shape (n_clips,), by Newton's method.

    None where no rising sigmoid fits: higher scores do not mean the class more often. ``UsageError`` if the lowest loss
    is not found; no scores are known for which that happens. The targets are drawn a little towards the middle,
    ``(n_positives + 1) / (n_positives + 2)`` and ``1 / (n_negatives + 2)``, so the loss has one lowest point, at finite
    numbers, even if a threshold separates the two perfectly.

    Source: Platt 1999, section 2.2; steps that are halved as in Lin, Lin and Weng, "A note on Platt's probabilistic
    outputs for support vector machines", 2007.
    """
    logits = _logit(scores)
    centre, deviation = float(logits.mean()), float(logits.std())
    if np.ptp(logits) == 0 or deviation == 0:
        return None
    n_positives = int(is_positive.sum())
    high, low = (n_positives + 1) / (n_positives + 2), 1 / (len(scores) - n_positives + 2)
    targets = np.where(is_positive, high, low)
    features = np.stack([(logits - centre) / deviation, np.ones(len(logits))])
    parameters = np.array([0.0, math.log((n_positives + 1) / (len(scores) - n_positives + 1))])
    for _ in range(MAX_STEPS):
        chances = _sigmoid(parameters @ features)
        gradient = features @ (chances - targets)
        if np.abs(gradient).max() <= GRADIENT * len(scores):
            slope, offset = parameters[0] / deviation, parameters[1] - parameters[0] * centre / deviation
            return PlattMap(float(slope), float(offset)) if slope > 0 else None
        curvature = (features * (chances * (1 - chances))) @ features.T
        parameters = _downhill(parameters, np.linalg.solve(curvature, gradient), gradient, features, targets)
    raise UsageError(f"Platt's sigmoid is not found in {MAX_STEPS} steps. Next step: --map isotonic, or none")


def fit_isotonic(scores: RealArray, is_positive: BoolArray) -> IsotonicMap | None:
    """Fit the map that never falls and has the lowest squared error, by pooling neighbours.

    The scores are in [0, 1], of shape (n_clips,); the map has there their block's share of positives. None where all
    are one block: higher scores do not mean the class more often. More than 100 blocks are joined into as many of about
    equal size.

    Source: the pool-adjacent-violators algorithm, Ayer et al. 1955.
    """
    values, where = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    n_clips = np.bincount(where)
    n_positives = np.bincount(where, weights=is_positive)
    stops = _pool(n_positives.tolist(), n_clips.tolist())
    if len(stops) > MAX_BLOCKS:
        stops = _thinned(stops, n_clips)
    if len(stops) == 1:
        return None
    starts = np.array([0, *stops[:-1]])
    shares = np.add.reduceat(n_positives, starts) / np.add.reduceat(n_clips, starts)
    ends = np.stack([values[starts], values[np.array(stops) - 1]], axis=1)  # a block is level from end to end
    breakpoints, is_first = np.unique(ends.ravel(), return_index=True)
    return IsotonicMap(tuple(breakpoints.tolist()), tuple(np.repeat(shares, 2)[is_first].tolist()))


FITS = {"none": lambda scores, is_positive: None, "platt": fit_platt, "isotonic": fit_isotonic}


def map_from_record(record: Any) -> ScoreMap:
    """Read what ``to_record`` has written; ``WeightsError`` if it is not such a record, or the map would fall."""
    try:
        match record:
            case {"kind": "platt", "slope": slope, "offset": offset, **rest} if not rest:
                return PlattMap(_number(slope), _number(offset))
            case {"kind": "isotonic", "scores": [*scores], "values": [*values], **rest} if not rest:
                return IsotonicMap(tuple(map(_number, scores)), tuple(map(_number, values)))
    except UsageError as error:
        raise WeightsError(f"a map of scores cannot be used: {error}") from error
    shown = sorted(record) if isinstance(record, Mapping) else record
    raise WeightsError(
        f"a map of scores is {shown!r}; expected kind 'platt' with slope and offset, or 'isotonic' with scores and "
        "values"
    )


def _downhill(
    parameters: RealArray, step: RealArray, gradient: RealArray, features: RealArray, targets: RealArray
) -> RealArray:
    """Take Newton's step, halved until the loss falls as much as its slope promises a small part of."""
    loss, size = _loss(parameters, features, targets), 1.0
    most = loss + ROUNDING * max(1.0, loss)
    while size > SMALLEST_STEP:
        there = parameters - size * step
        if _loss(there, features, targets) <= most - 1e-4 * size * float(gradient @ step):
            return there
        size /= 2
    return parameters - step


def _loss(parameters: RealArray, features: RealArray, targets: RealArray) -> float:
    logits = parameters @ features
    return float((np.logaddexp(0, logits) - targets * logits).sum())


def _pool(n_positives: Sequence[float], n_clips: Sequence[int]) -> list[int]:
    """Pool neighbours until shares of positives rise from block to block; where each block stops."""
    blocks: list[tuple[float, int, int]] = []  # positives, clips, stop
    for stop, (positives, clips) in enumerate(zip(n_positives, n_clips, strict=True), start=1):
        while blocks and blocks[-1][0] * clips >= positives * blocks[-1][1]:  # of shares, without dividing
            before, more, _ = blocks.pop()
            positives, clips = positives + before, clips + more
        blocks.append((positives, clips, stop))
    return [stop for _, _, stop in blocks]


def _thinned(stops: Sequence[int], n_clips: Any) -> list[int]:
    """At most ``MAX_BLOCKS`` of the stops, with about as many clips between each two."""
    n_before = np.cumsum(n_clips)[np.array(stops) - 1]
    wanted = n_before[-1] * np.arange(1, MAX_BLOCKS + 1) / MAX_BLOCKS
    return [stops[index] for index in np.unique(np.searchsorted(n_before, wanted))]


def _logit(scores: RealArray) -> RealArray:
    inside = np.clip(np.asarray(scores, np.float64), SMALLEST, 1 - SMALLEST)
    logits: RealArray = np.log(inside) - np.log1p(-inside)
    return logits


def _sigmoid(logits: RealArray) -> RealArray:
    small = np.exp(-np.abs(logits))
    chances: RealArray = np.where(logits >= 0, 1, small) / (1 + small)
    return chances


def _is_within(values: Sequence[float]) -> bool:
    return all(0 <= value <= 1 for value in values)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{value!r} is no number")
    return float(value)
