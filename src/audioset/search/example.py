"""What a search is for: sounds that serve as examples, as embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audioset.arguments import check_choice
from audioset.arrays import FloatArray
from audioset.audio.limits import LIMITS, Limits
from audioset.errors import AudioError, UsageError
from audioset.formats.rows import printable
from audioset.models.model import Model
from audioset.models.prediction import Prediction, join_predictions
from audioset.search.manifest import Settings
from audioset.search.moments import Span
from audioset.search.shards import to_units

COMBINATIONS = ("mean", "max")
NO_LENGTH = 1e-6  # of a mean of vectors of length 1: what rounding leaves of opposites


@dataclass(frozen=True, eq=False)
class Example:
    """A sound to look for."""

    embedding: FloatArray  # shape (size,), float32; of length 1: of one patch, or the mean of all
    span: Span  # the patch, or the whole recording


def embed_example(
    model: Model,  # that of the index
    path: str | os.PathLike[str],
    settings: Settings | None = None,  # those of the index; default: the model's own
    *,
    at_s: float | None = None,  # seconds from the start: the patch whose middle is nearest
    limits: Limits = LIMITS,  # what the file may cost
) -> Example:
    """Embed an example as the recordings of an index were.

    By default it is the mean of all patches, each with the same weight however loud it is. AudioError if the file
    cannot be read or used; UsageError if ``at_s`` is not in the recording.
    """
    name = printable(os.path.abspath(path))  # noqa: PTH100 - links stay links, as in the index
    try:
        arguments = (settings or Settings()).embedding_arguments
        prediction = join_predictions(model.predict_blocks(path, **arguments, limits=limits, isolated=True))
    except AudioError as error:
        raise AudioError(f"the example {printable(path)}: {error}", code=error.code) from error
    units, _ = to_units(prediction.embeddings)
    if at_s is not None:
        row = _patch_at(prediction, at_s, name)
        end_s = min(prediction.end_s[row], prediction.duration_s)
        return Example(units[row].astype(np.float32), Span(name, float(prediction.start_s[row]), float(end_s)))
    return Example(_direction(units.astype(np.float32)), Span(name, 0.0, prediction.duration_s))


def combine_examples(examples: Sequence[Example], combination: str = "mean") -> FloatArray:
    """What to search for: what is like all examples together (``"mean"``), or like any one of them (``"max"``)."""
    check_choice("combination", combination, COMBINATIONS)
    embeddings = np.stack([example.embedding for example in examples])
    return embeddings if combination == "max" else _direction(embeddings)[np.newaxis]


def _patch_at(prediction: Prediction, at_s: float, name: str) -> int:
    if not 0 <= at_s < prediction.duration_s:
        raise UsageError(
            f"--at {at_s:g} is not in {name}, which lasts {prediction.duration_s:.2f} s. "
            "Next step: give a second from its start to its end"
        )
    return int(np.argmin(np.abs((prediction.start_s + prediction.end_s) / 2 - at_s)))


def _direction(vectors: FloatArray) -> FloatArray:
    """The mean's direction; zeros, if there is none, as of digital silence or of opposites."""
    mean: FloatArray = vectors.mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length > NO_LENGTH else np.zeros_like(mean)
