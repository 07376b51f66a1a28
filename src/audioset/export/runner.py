"""An exported model, loaded again and ready to run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]
Shape = Sequence[str | int | None]


@dataclass(frozen=True)
class Runner:
    """A loaded export.

    Attributes
    ----------
    run : function
        From inputs, in the order in which the network takes them, to outputs by name.
    runtime : str
        What it runs in, with its version.
    input_names : sequence of str
        As the file has them.
    shapes : mapping of str to sequence
        Of inputs and outputs by name; an axis that is free is a name or None. Left out where the file has none.
    """

    run: Callable[[Arrays], Mapping[str, np.ndarray[Any, Any]]]
    runtime: str
    input_names: Sequence[str]
    shapes: Mapping[str, Shape] = field(default_factory=dict)


@contextmanager
def without_advice(*kinds: type[Warning]) -> Iterator[None]:
    """Let frameworks not tell users what their own code, or another format, should do; nor warn of these kinds."""
    with warnings.catch_warnings():
        ignored: tuple[type[Warning], ...] = (DeprecationWarning, FutureWarning, *kinds)
        for kind in ignored:
            warnings.simplefilter("ignore", kind)
        yield
