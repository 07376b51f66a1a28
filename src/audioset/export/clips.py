"""The user's clips: what int8 is calibrated on, and how its accuracy is measured."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import AudioError, NoInputError
from audioset.files import is_folder
from audioset.folders import AUDIO_SUFFIXES, find_files
from audioset.frontend.spec import FrontendSpec
from audioset.labels.labels import LabelSet
from audioset.sounds.audio import read_clip
from audioset.sounds.collection import Clip
from audioset.sounds.reading import read_collection

logger = logging.getLogger(__name__)


MAX_CALIBRATION = 100  # clips whose ranges are measured
MAX_MEASURED = 500  # further ones that differences and accuracy are measured on
MAX_SECONDS = 10  # of a clip: its start


@dataclass(frozen=True)
class CalibrationClip:
    """One clip of the user's."""

    waveform: FloatArray  # (n_samples,), float32: mono, at the model's rate; at most ten seconds
    column: int | None  # of the one class that it has, where the model has that class


@dataclass(frozen=True)
class CalibrationClips:
    """Clips to calibrate on, and others to measure accuracy on."""

    ranges: tuple[CalibrationClip, ...]
    # Clips that are not among ``ranges``; ``ranges`` themselves where there are no others.
    measured: tuple[CalibrationClip, ...]
    n_failed: int  # clips that could not be read


def read_calibration(
    source: str | os.PathLike[str],
    labels: LabelSet,  # of the model
    spec: FrontendSpec,
    max_calibration: int = MAX_CALIBRATION,
    max_measured: int = MAX_MEASURED,
) -> CalibrationClips:
    """Read clips to calibrate on; NoInputError if there are none, or none can be read.

    ``source`` is a folder of sounds, a folder with a folder of sounds for each class, or a table as
    ``sounds.reading.read_collection`` reads. Of more clips than ``max_calibration`` and ``max_measured``, so many are
    taken, spread evenly over all.
    """
    clips = _find_clips(Path(source))
    chosen = _spread(clips, max_calibration)
    taken = {id(clip) for clip in chosen}
    others = [clip for clip in clips if id(clip) not in taken]
    columns = {key: column for names in (labels.names, labels.ids) for column, key in enumerate(names)}
    failures: list[str] = []

    def read(chosen: Iterable[Clip]) -> Iterator[CalibrationClip]:
        for clip in chosen:
            try:
                yield _read(clip, columns, spec)
            except AudioError as error:
                failures.append(f"{clip.path}: {error}")

    ranges, measured = tuple(read(chosen)), tuple(read(_spread(others, max_measured)))
    if failures:
        logger.warning(
            "%d clips of %s cannot be used and are left out; the first: %s", len(failures), source, failures[0]
        )
    if not ranges:
        raise NoInputError(
            f"int8 is calibrated on clips, and none of {source} can be used; the first: {failures[0]}. "
            "Next step: give --calibration a folder with sounds such as the model will hear"
        )
    return CalibrationClips(ranges, measured or ranges, len(failures))


def _read(clip: Clip, columns: dict[str, int], spec: FrontendSpec) -> CalibrationClip:
    waveform = read_clip(clip, spec.sample_rate)[: MAX_SECONDS * spec.sample_rate]
    if spec.pad == "error" and len(waveform) < spec.min_samples:
        waveform = np.pad(waveform, (0, spec.min_samples - len(waveform)))
    return CalibrationClip(waveform, columns.get(clip.labels[0]) if len(clip.labels) == 1 else None)


def _find_clips(source: Path) -> Sequence[Clip]:
    """Clips of a folder of sounds, which have no labels, or of whatever has labels."""
    if is_folder(source):
        files = find_files(source, AUDIO_SUFFIXES)
        if not files:
            raise NoInputError(
                f"there is no audio in {source}. Next step: give --calibration a folder with sounds such as the model "
                "will hear"
            )
        if any(path.parent == source for path in files):
            return [Clip(path, ()) for path in files]
    return read_collection(source).clips


def _spread(clips: Sequence[Clip], n: int) -> list[Clip]:
    """At most ``n`` clips, evenly spread."""
    if len(clips) <= n:
        return list(clips)
    return [clips[round(place)] for place in np.linspace(0, len(clips) - 1, n)]
