"""Which clips make a batch.

A sampler is determined by its seed and a handful of counters. Every order that it shuffles is drawn from a generator
of its own, made of the seed, the class and the number of the pass: to restore a sampler is to restore the counters.

Sources: Kong et al., audioset_classification, utils/data_generator.py (balanced, uniform); Schmid et al.,
EfficientAT, datasets/audioset.py (weighted).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from audioset.arrays import Array, DoubleArray, Int64Array
from audioset.train.heads.sparse_labels import SparseLabels
from audioset.train.state import Sampler

State = dict[str, Int64Array]

WEIGHT_OFFSET, WEIGHT_SCALE = 100, 1000  # EfficientAT: a class with n clips adds 1000 / (100 + n) to a clip's weight
PASSES_OVER_ALL = 20  # EfficientAT draws 100,000 of two million clips
QUEUE = -1  # stands where the number of a class does, for the order of the classes themselves


class PassSampler:
    """Passes over clips in an order that depends on the pass; its last batch may be short."""

    def __init__(self, order: Callable[[int], Int64Array], batch_size: int) -> None:
        self._order_of, self._batch_size = order, batch_size
        self.restore({"counters": np.zeros(2, np.int64)})

    def next_batch(self) -> Int64Array:
        """Positions of the next batch's clips."""
        if self._place >= len(self._order):
            self.restore({"counters": np.array([self._pass + 1, 0])})
        batch = self._order[self._place : self._place + self._batch_size]
        self._place += len(batch)
        return batch

    def state(self) -> State:
        """The number of the pass, and the place in it."""
        return {"counters": np.array([self._pass, self._place])}

    def restore(self, state: Mapping[str, Int64Array]) -> None:
        """Go to where the sampler stood that ``state`` is from."""
        self._pass, self._place = map(int, state["counters"])
        self._order = self._order_of(self._pass)


class BalancedSampler:
    """Kong's balance in batch: classes take turns, and each gives the next of its own clips.

    A queue repeats the classes, shuffled anew each time. A batch takes as many classes as it has places; these are
    served in ascending order, each with as many clips as it was drawn times, from the place where the class stands in
    its own shuffled list. So a class has one or two clips in a batch of up to 527, rows come in the order of classes,
    and a clip with several classes may come twice. At the end of its list a class gives what is left, so a batch may be
    short; then the list is shuffled anew. Classes without clips take no turns.
    """

    def __init__(self, labels: SparseLabels, batch_size: int, seed: int) -> None:
        self._clips_of = labels.clips_of_classes()
        self._classes = np.flatnonzero(labels.counts)
        self._batch_size, self._seed = batch_size, seed
        self.restore({name: np.zeros(labels.n_classes + 1, np.int64) for name in ("passes", "places")})

    def next_batch(self) -> Int64Array:
        """Positions of the next batch's clips."""
        turns = np.bincount(np.concatenate(self._next_classes()), minlength=len(self._clips_of))
        return np.concatenate([self._next_clips(int(k), int(turns[k])) for k in np.flatnonzero(turns)])

    def state(self) -> State:
        """For each class, and last for the queue, how often it was shuffled and where it stands."""
        return {"passes": self._passes.copy(), "places": self._places.copy()}

    def restore(self, state: Mapping[str, Int64Array]) -> None:
        """Go to where the sampler stood that ``state`` is from."""
        self._passes, self._places = state["passes"].copy(), state["places"].copy()
        self._orders: dict[int, Int64Array] = {}

    def _next_classes(self) -> list[Int64Array]:
        turns, n_missing = [], self._batch_size
        while n_missing:
            turns.append(self._slice(QUEUE, self._classes, n_missing))
            n_missing -= len(turns[-1])
        return turns

    def _next_clips(self, k: int, n_clips: int) -> Int64Array:
        return self._slice(k, self._clips_of[k], n_clips)

    def _slice(self, k: int, items: Array, n_items: int) -> Int64Array:
        """The next items of a list, or fewer at its end."""
        if k not in self._orders:
            self._orders[k] = _generator(self._seed, k + 1, int(self._passes[k])).permutation(items)
        start = self._places[k]
        chosen = self._orders[k][start : start + n_items]
        self._places[k] += n_items
        if self._places[k] >= len(items):
            self._places[k] = 0
            self._passes[k] += 1
            del self._orders[k]
        return chosen


def make_sampler(name: str, labels: SparseLabels, batch_size: int, seed: int, draws_per_pass: int = 0) -> Sampler:
    """A sampler by name; of weighted ones, 0 ``draws_per_pass`` are a twentieth of all clips."""
    if name == "balanced":
        return BalancedSampler(labels, batch_size, seed)
    if name == "uniform":
        return PassSampler(lambda number: _generator(seed, number).permutation(len(labels)), batch_size)
    n_draws = min(draws_per_pass or -(-len(labels) // PASSES_OVER_ALL), len(labels))
    weights = clip_weights(labels)
    return PassSampler(lambda number: weighted_draw(weights, n_draws, _generator(seed, number)), batch_size)


def clip_weights(labels: SparseLabels) -> DoubleArray:
    """The sum of 1000 / (100 + n) over the classes of each clip, where n clips have the class; shape (n_clips,)."""
    return labels.sums(WEIGHT_SCALE / (WEIGHT_OFFSET + labels.counts))


def weighted_draw(weights: DoubleArray, n_draws: int, rng: np.random.Generator) -> Int64Array:
    """Draw without replacement, each time by weight among what is left.

    The waiting times of independent events come in this order (Efraimidis & Spirakis 2006), so one sort does it. Clips
    without weight come last.
    """
    with np.errstate(divide="ignore"):
        times = rng.standard_exponential(len(weights)) / weights
    first = np.argpartition(times, n_draws - 1)[:n_draws]
    return first[np.argsort(times[first], kind="stable")]


def split(labels: SparseLabels, share: float, seed: int) -> tuple[Int64Array, Int64Array]:
    """Keep a share of the clips from training, and of every class as nearly the same share as can be.

    Classes choose in turn, the rarest first, among their clips that no rarer class has settled. Returns the positions
    of clips to train on and of those held out, ascending.
    """
    rng = _generator(seed)
    is_held, is_settled = np.zeros((2, len(labels)), np.bool_)
    clips_of = labels.clips_of_classes()
    without = np.flatnonzero(np.diff(labels.offsets) == 0)
    for clips in [*(clips_of[k] for k in np.argsort(labels.counts, kind="stable")), without]:
        n_missing = round(share * len(clips)) - np.count_nonzero(is_held[clips])
        free = rng.permutation(clips[~is_settled[clips]])
        is_held[free[: max(0, n_missing)]] = True
        is_settled[clips] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
