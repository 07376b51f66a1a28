"""Fit a classifier to embeddings: standardised, linear or with one hidden layer, at many strengths of L2 at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from audioset.arrays import Array, RealArray
from audioset.errors import UsageError
from audioset.train.backbones import Head, hidden_head, linear_head

Objective = Callable[[RealArray], tuple[RealArray, RealArray]]

L2_GRID = (3.0, 30.0, 100.0, 300.0)
SHRINKAGES = (1.0, 0.7, 0.1)
MAX_ITERATIONS = 300
ROUGH_ITERATIONS = 40
HIDDEN_L2 = (10.0, 100.0)  # to choose from with a hidden layer, where each costs more
TOLERANCE = 1e-5  # of the gradient, against that at the start
ROUGH_TOLERANCE = 2e-3  # for comparisons
HISTORY = 10
MAX_HALVINGS = 20
ARMIJO = 1e-4
TINY = 1e-12  # of the highest variance: less is rounding
LEAST_DEVIATION = 1e-3  # of the mean one
RESIDUAL_ROUNDING = 100  # steps of the precision, against all that varies: less within classes is what sums leave
ROUNDING = 4 * float(np.finfo(np.float32).eps)  # of embeddings, as a part of the largest: engines sum in any order


@dataclass(frozen=True)
class Recipe:
    """How a head is fitted; UsageError for values outside their ranges.

    ``l2 / 2`` times the squared norm of the weights of standardised embeddings is added to the sum of the log losses:
    scikit-learn's ``C`` is its inverse. With a shrinkage of 1, L2 is the same in all directions. With less, it is
    stronger along those in which clips of one class differ most from each other, as they do from voice to voice: in
    proportion to ``shrinkage`` plus ``1 - shrinkage`` times the variance there, against the mean one.
    """

    activation: str = "softmax"  # softmax or sigmoid
    hidden_size: int = 0  # units of a layer with ReLU; 0 makes the head linear
    balances_classes: bool = False  # whether each class weighs the same, however many clips it has
    l2: tuple[float, ...] = L2_GRID  # strengths to choose from
    shrinkages: tuple[float, ...] = SHRINKAGES  # in (0, 1], to choose from as well
    seed: int = 0  # of the first weights of a hidden layer

    def __post_init__(self) -> None:
        if self.hidden_size < 0 or not self.l2 or min(self.l2) <= 0:
            raise UsageError(
                f"hidden_size is {self.hidden_size} and l2 {self.l2}; expected 0 or more units, and strengths above 0"
            )
        if not self.shrinkages or min(self.shrinkages) <= 0 or max(self.shrinkages) > 1:
            raise UsageError(f"shrinkages are {self.shrinkages}; expected values above 0 and up to 1")

    @property
    def candidates(self) -> tuple[tuple[float, float], ...]:
        """Each pair of ``shrinkage`` and ``l2``: what is chosen from, in the order of the heads of ``Fitted``."""
        return tuple(itertools.product(self.shrinkages, self.l2))

    def only(self, candidate: int) -> Recipe:
        """The same with one candidate alone."""
        shrinkage, l2 = self.candidates[candidate]
        return replace(self, shrinkages=(shrinkage,), l2=(l2,))


@dataclass(frozen=True, eq=False)
class Fitted:
    """Heads for embeddings as they are: the standardisation is in their weights."""

    layers: tuple[tuple[RealArray, RealArray], ...]  # kernels (n_candidates, n_inputs, n_outputs) and biases
    activation: str  # softmax or sigmoid

    def scores(self, embeddings: Array) -> Array:
        """Scores of every candidate: (n_candidates, n, n_classes), float32, in [0, 1]."""
        x = np.asarray(embeddings, np.float64)
        for index, (kernel, bias) in enumerate(self.layers):
            x = (np.maximum(x, 0) if index else x) @ kernel + bias[:, np.newaxis]
        activated = _softmax(x) if self.activation == "softmax" else _sigmoid(x)
        return activated.astype(np.float32)

    def head(self, index: int) -> Head:
        """That of one candidate, for a model folder."""
        pairs = [(kernel[index].astype(np.float32), bias[index].astype(np.float32)) for kernel, bias in self.layers]
        if len(pairs) == 1:
            return linear_head(*pairs[0], self.activation)
        return hidden_head(pairs[0], pairs[1], self.activation)


def fit(embeddings: Array, targets: Array, recipe: Recipe, *, is_rough: bool = False) -> Fitted:
    """Fit heads of all candidates to embeddings (n_clips, embedding_size) and targets (n_clips, n_classes) of 0 and 1.

    With ``is_rough`` it computes in single precision and stops early, several times as fast: for comparisons. The same
    numbers give the same heads. With softmax, classes that no clip has get next to no score.
    """
    if not len(embeddings):
        raise UsageError("there are no clips to learn from")
    precision = np.float32 if is_rough else np.float64
    x, y = np.asarray(embeddings, np.float64), np.asarray(targets, precision)
    mean, scale = _standardisation(x)
    weights = _clip_weights(y, balances=recipe.balances_classes)
    shares = (weights / weights.sum()).astype(precision)
    data = _Data(((x - mean) / scale).astype(precision), y, shares, recipe.activation, is_rough)
    axes, variances = _axes(data)
    shrinkages, l2 = np.array(recipe.candidates).T[:, :, np.newaxis]
    strengths = (l2 / weights.sum() * (shrinkages + (1 - shrinkages) * variances)).astype(precision)
    turned = replace(data, x=data.x @ axes)
    layers = _fit_hidden(turned, strengths, recipe) if recipe.hidden_size else _fit_linear(turned, strengths)
    (kernel, bias), *others = [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in layers]
    kernel = axes @ kernel
    kernel = kernel / scale[:, np.newaxis]
    return Fitted(((kernel, bias - mean @ kernel), *others), recipe.activation)


def log_losses(scores: Array, targets: Array) -> RealArray:
    """Log loss of each clip: of its class with softmax scores, the sum over classes with independent ones.

    ``scores`` are (..., n_clips, n_classes), ``targets`` (n_clips, n_classes).
    """
    safe = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-7)
    is_distribution = np.allclose(scores.sum(axis=-1), 1, atol=1e-3) and np.all(targets.sum(axis=-1) == 1)
    losses = -(targets * np.log(safe)).sum(axis=-1)
    if not is_distribution:
        losses -= ((1 - targets) * np.log1p(-safe)).sum(axis=-1)
    result: RealArray = losses
    return result


@dataclass(frozen=True, eq=False)
class _Data:
    """Standardised embeddings (n, d), targets (n, n_classes), and the share of each clip in the loss, summing to 1."""

    x: RealArray
    y: RealArray
    shares: RealArray
    activation: str
    is_rough: bool

    @property
    def limits(self) -> tuple[float, int]:
        """Share of the gradient that is small enough, and iterations that are enough."""
        return (ROUGH_TOLERANCE, ROUGH_ITERATIONS) if self.is_rough else (TOLERANCE, MAX_ITERATIONS)

    def loss(self, logits: RealArray) -> tuple[RealArray, RealArray]:
        """Loss of each problem, and the slope of each logit: logits are (n_problems, n, n_classes)."""
        if self.activation == "softmax":
            highest = logits.max(axis=-1, keepdims=True)
            powers = np.exp(logits - highest)
            sums = powers.sum(axis=-1, keepdims=True)
            losses = (np.log(sums) + highest)[..., 0] - (logits * self.y).sum(axis=-1)
            slopes = powers / sums - self.y
        else:
            losses = (np.logaddexp(0, logits) - logits * self.y).sum(axis=-1)
            slopes = _sigmoid(logits) - self.y
        return losses @ self.shares, slopes * self.shares[:, np.newaxis]


def _standardisation(x: RealArray) -> tuple[RealArray, RealArray]:
    """Mean and deviation of each dimension; one that hardly varies is not blown up, and one that does not stays."""
    deviation = x.std(axis=0)
    varies = deviation > ROUNDING * np.abs(x).max(axis=0)
    return x.mean(axis=0), np.where(varies, np.maximum(deviation, LEAST_DEVIATION * deviation.mean()), 1.0)


def _clip_weights(y: RealArray, *, balances: bool) -> RealArray:
    """1 for each clip, or less for those of frequent classes, 1 on average. Clips without a class are one class."""
    if not balances:
        return np.ones(len(y))
    every = np.column_stack([y, y.sum(axis=1) == 0])
    counts = every.sum(axis=0)
    weights = (every / np.maximum(counts, 1)).sum(axis=1) / np.maximum(every.sum(axis=1), 1)
    result: RealArray = weights / weights.mean()
    return result


def _fit_linear(data: _Data, strengths: RealArray) -> list[tuple[RealArray, RealArray]]:
    """Kernel and bias for each row of strengths (n_problems, n_axes).

    Along the axes the second derivative is nearly diagonal, and known, so that a few dozen steps are enough.
    """
    n_problems, n_axes = strengths.shape
    n_classes = data.y.shape[1]
    bias_curvature = np.full((n_problems, 1), 0.25)
    curvature = np.concatenate([strengths + (data.x**2).mean(axis=0) / 4, bias_curvature], axis=1).astype(data.x.dtype)
    per_weight = strengths[:, :, np.newaxis]

    def objective(flat: RealArray) -> tuple[RealArray, RealArray]:
        both = flat.reshape(n_problems, n_axes + 1, n_classes)
        kernel, bias = both[:, :-1], both[:, -1:]
        losses, slopes = data.loss(_wide(data.x, kernel) + bias)
        losses = losses + (per_weight * kernel**2).sum(axis=(1, 2)) / 2
        slope = _wide(data.x.T, slopes) + per_weight * kernel
        joined = np.concatenate([slope, slopes.sum(axis=1, keepdims=True)], axis=1)
        return losses, joined.reshape(n_problems, -1)

    start = np.zeros((n_problems, (n_axes + 1) * n_classes), data.x.dtype)
    found = minimise(objective, start, 1 / np.repeat(curvature, n_classes, axis=1), *data.limits)
    both = found.reshape(n_problems, n_axes + 1, n_classes)
    return [(both[:, :-1], both[:, -1])]


def _fit_hidden(data: _Data, strengths: RealArray, recipe: Recipe) -> list[tuple[RealArray, RealArray]]:
    """The same with a layer of ReLU units between, from weights drawn after He et al. 2015."""
    n_problems, n_inputs, n_classes = len(strengths), data.x.shape[1], data.y.shape[1]
    shapes = ((n_inputs, recipe.hidden_size), (1, recipe.hidden_size), (recipe.hidden_size, n_classes), (1, n_classes))
    stops = np.cumsum([rows * columns for rows, columns in shapes])
    rng = np.random.default_rng(recipe.seed)
    drawn = [
        rng.normal(0, np.sqrt(2 / shape[0]), shape) * is_kernel
        for shape, is_kernel in zip(shapes, (True, False, True, False), strict=True)
    ]
    per_weight = strengths[:, :, np.newaxis]
    per_last = strengths.mean(axis=1)[:, np.newaxis, np.newaxis]

    def split(flat: RealArray) -> list[RealArray]:
        parts = np.split(flat, stops[:-1], axis=1)
        return [part.reshape(n_problems, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def objective(flat: RealArray) -> tuple[RealArray, RealArray]:
        kernel, bias, last, last_bias = split(flat)
        hidden = np.maximum(_wide(data.x, kernel) + bias, 0)
        losses, slopes = data.loss(hidden @ last + last_bias)
        losses = losses + ((per_weight * kernel**2).sum(axis=(1, 2)) + (per_last * last**2).sum(axis=(1, 2))) / 2
        below = (slopes @ last.transpose(0, 2, 1)) * (hidden > 0)
        parts = (
            _wide(data.x.T, below) + per_weight * kernel,
            below.sum(axis=1),
            hidden.transpose(0, 2, 1) @ slopes + per_last * last,
            slopes.sum(axis=1),
        )
        return losses, np.concatenate([part.reshape(n_problems, -1) for part in parts], axis=1)

    start = np.tile(np.concatenate([each.ravel() for each in drawn]), (n_problems, 1)).astype(data.x.dtype)
    kernel, bias, last, last_bias = split(minimise(objective, start, np.ones_like(start), *data.limits))
    return [(kernel, bias[:, 0]), (last, last_bias[:, 0])]


def minimise(
    objective: Objective,
    start: RealArray,
    inverse_curvature: RealArray,
    tolerance: float = TOLERANCE,
    n_iterations: int = MAX_ITERATIONS,
) -> RealArray:
    """Minimise several problems at once by L-BFGS, from the points ``start`` (n_problems, n_values).

    Steps begin with ``inverse_curvature``, about one over the second derivative by each value. A problem is solved
    where the norm of its gradient is ``tolerance`` of that at the start.

    Source: Nocedal and Wright, "Numerical Optimization", 2006, algorithms 7.4 and 3.1.
    """
    point = start.copy()
    losses, slopes = objective(point)
    limits = tolerance * np.maximum(np.linalg.norm(slopes, axis=1), 1e-12)
    pairs: list[tuple[RealArray, RealArray, RealArray]] = []
    for _ in range(n_iterations):
        is_open = np.linalg.norm(slopes, axis=1) > limits
        if not is_open.any():
            break
        step = _direction(slopes, pairs, inverse_curvature) * is_open[:, np.newaxis]
        descent = (step * slopes).sum(axis=1)
        lengths = np.ones(len(point), point.dtype)
        for _ in range(MAX_HALVINGS):
            reached = point + lengths[:, np.newaxis] * step
            new_losses, new_slopes = objective(reached)
            is_good = (new_losses <= losses + ARMIJO * lengths * descent) | ~is_open
            if is_good.all():
                break
            lengths = np.where(is_good, lengths, lengths / 2)
        is_moved = is_good & is_open  # others stay where they are: rounding is all that is left of them
        if not is_moved.any():
            break
        moved = np.where(is_moved[:, np.newaxis], reached - point, 0)
        change = np.where(is_moved[:, np.newaxis], new_slopes - slopes, 0)
        curvature = (moved * change).sum(axis=1)
        inverse = np.divide(1.0, curvature, out=np.zeros_like(curvature), where=curvature > 1e-300)
        pairs = [*pairs[1 - HISTORY :], (moved, change, inverse)]
        limits = np.where(is_open & ~is_moved, np.inf, limits)
        point = point + moved
        losses = np.where(is_moved, new_losses, losses)
        slopes = slopes + change
    found: RealArray = point
    return found


def _direction(
    slopes: RealArray, pairs: Sequence[tuple[RealArray, RealArray, RealArray]], inverse_curvature: RealArray
) -> RealArray:
    """Where to go, of each problem: the two loops of L-BFGS. A pair with an inverse of 0 changes nothing."""
    step, alphas = -slopes, []
    for moved, change, inverse in reversed(pairs):
        alpha = inverse * (moved * step).sum(axis=1)
        step = step - alpha[:, np.newaxis] * change
        alphas.append(alpha)
    scale = np.ones(len(slopes), slopes.dtype)
    if pairs:
        moved, change, inverse = pairs[-1]
        bent = (change * change * inverse_curvature).sum(axis=1) * inverse
        scale = np.divide(1.0, bent, out=scale, where=bent > 0)
    step = step * inverse_curvature * scale[:, np.newaxis]
    for (moved, change, inverse), alpha in zip(pairs, reversed(alphas), strict=True):
        beta = inverse * (change * step).sum(axis=1)
        step = step + (alpha - beta)[:, np.newaxis] * moved
    result: RealArray = step
    return result


def _axes(data: _Data) -> tuple[RealArray, RealArray]:
    """Directions as columns, orthonormal, and the variance within classes along each, against their mean.

    The directions are those in which clips differ from others of their classes. With fewer clips than dimensions there
    are no more of them than clips: weights in any other direction stay 0, for no clip asks for them. Where clips of one
    class are all alike, no direction is more theirs than another.
    """
    basis = _row_space(data.x)
    reduced = data.x if basis is None else data.x @ basis
    columns = np.column_stack([data.y, np.ones_like(data.y[:, :1])])
    residual = reduced - columns @ (np.linalg.pinv(columns) @ reduced)
    values, vectors = np.linalg.eigh(residual.T @ residual)
    values = np.maximum(values, 0)
    rounding = (RESIDUAL_ROUNDING * np.finfo(data.x.dtype).eps) ** 2 * (reduced**2).sum()
    variances = values / values.mean() if values.max() > rounding else np.ones_like(values)
    return (vectors if basis is None else basis @ vectors), variances


def _row_space(x: RealArray) -> RealArray | None:
    """Orthonormal columns that span the rows, if there are fewer rows than columns."""
    if x.shape[0] >= x.shape[1]:
        return None
    values, vectors = np.linalg.eigh(x @ x.T)
    is_used = values > max(float(values[-1]), 1e-30) * (TINY if x.dtype == np.float64 else 1e-6)
    if not is_used.any():  # clips that are all alike: one direction is as good as another
        return np.eye(x.shape[1], 1, dtype=x.dtype)
    basis: RealArray = x.T @ (vectors[:, is_used] / np.sqrt(values[is_used]))
    return basis


def _wide(left: RealArray, right: RealArray) -> RealArray:
    """``left @ right`` for all problems as one product: (n, m) and (n_problems, m, k) make (n_problems, n, k)."""
    n_problems, m, k = right.shape
    joined = left @ right.transpose(1, 0, 2).reshape(m, n_problems * k)
    result: RealArray = joined.reshape(len(left), n_problems, k).transpose(1, 0, 2)
    return result


def _softmax(logits: RealArray) -> RealArray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: RealArray = powers / powers.sum(axis=-1, keepdims=True)
    return result


def _sigmoid(logits: RealArray) -> RealArray:
    result: RealArray = 0.5 * (1 + np.tanh(logits / 2))
    return result
