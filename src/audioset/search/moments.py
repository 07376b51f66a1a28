"""Moments of recordings, and the choice of those that do not overlap."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

# Seconds by which two patches may overlap and still be two moments: times are sums of floating-point numbers.
TOUCH_S = 1e-6


@dataclass(frozen=True)
class Span:
    """A stretch of a recording, whole seconds or not."""

    path: str  # as in the index: absolute
    # start_s, end_s: seconds from the start of the recording
    start_s: float
    end_s: float

    def overlaps(self, other: Span) -> bool:
        """Whether both have some of the same sound."""
        return self.path == other.path and min(self.end_s, other.end_s) - max(self.start_s, other.start_s) > TOUCH_S


@dataclass(frozen=True)
class Moment(Span):
    """A patch of a recording that was found."""

    # Cosine of the angle between its embedding and the example's, in [-1, 1]; 1 is the same direction
    similarity: float


@dataclass
class Choice:
    """The best moments, one after the other, without those that say the same second again.

    At most ``per_file`` of one recording, and none that overlaps the stretches of ``exclude``, such as the
    example's own.
    """

    per_file: int | None = None
    exclude: Collection[Span] = ()
    moments: list[Moment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._taken: dict[str, list[Span]] = {}
        for span in self.exclude:
            self._taken.setdefault(span.path, []).append(span)
        self._n_of_path: dict[str, int] = {}

    def offer(self, moments: Iterable[Moment]) -> None:
        """Take those that overlap none taken before; give the best first."""
        for moment in moments:
            if self._is_full(moment.path) or any(map(moment.overlaps, self._taken.get(moment.path, ()))):
                continue
            self.moments.append(moment)
            self._taken.setdefault(moment.path, []).append(moment)
            self._n_of_path[moment.path] = self._n_of_path.get(moment.path, 0) + 1

    def _is_full(self, path: str) -> bool:
        return self.per_file is not None and self._n_of_path.get(path, 0) >= self.per_file
