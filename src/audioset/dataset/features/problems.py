"""What to do about a damaged part of a file: end with an error, or go on and keep account."""

from __future__ import annotations

from audioset.errors import DataError, UsageError, one_line

ON_ERROR = ("raise", "skip")
MOST_KEPT = 1000  # messages; a large damaged file may have millions


class Malformed(ValueError):  # noqa: N818 - internal: it becomes a DataError, which names the place
    """What is wrong with a part of a file."""


class Problems:
    """An account of damaged parts."""

    def __init__(self, on_error: str = "raise") -> None:
        if on_error not in ON_ERROR:
            raise UsageError(f"on_error is {on_error!r}; expected one of {', '.join(ON_ERROR)}")
        self._on_error = on_error
        self.n_skipped = 0  # damaged parts: a record, or the rest of a file that nothing can be read of
        self.kept: list[DataError] = []

    def add(self, place: str, reason: object, hint: str = "") -> None:
        """Note what is wrong where, or raise it."""
        hint = hint or "Likely cause: a damaged or unfinished copy. Next step: fetch the file again"
        error = DataError(f"{one_line(place)}: {one_line(str(reason))}. {hint}")
        if self._on_error == "raise":
            raise error from (reason if isinstance(reason, BaseException) else None)
        self.n_skipped += 1
        if len(self.kept) < MOST_KEPT:
            self.kept.append(error)
