"""A model's own thresholds and maps of scores, as its folder keeps them. ``calibration.fit`` learns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from audioset.arrays import Array, FloatArray
from audioset.calibration.score_maps import ScoreMap, map_from_record
from audioset.errors import UsageError, WeightsError
from audioset.labels.events import EventSettings, LabelThreshold
from audioset.labels.labels import LabelSet

VERSION = 1
FIELDS = {"version", "thresholds", "maps", "made_from"}


@dataclass(frozen=True)
class Calibration:
    """Thresholds and maps of some of a model's labels.

    Attributes
    ----------
    thresholds : mapping of str to float or None
        By label id; of mapped scores where the label has a map. None: no score of this label makes an event.
    maps : mapping of str to ScoreMap
        By label id.
    made_from : dict
        For people: how many clips, a digest of their labels, what the thresholds are best for.

    Raises
    ------
    UsageError
        If a threshold is not in [0, 1].
    """

    thresholds: Mapping[str, float | None]
    maps: Mapping[str, ScoreMap] = field(default_factory=dict)
    made_from: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        EventSettings(label_thresholds=self.thresholds)  # checks the ranges

    def __repr__(self) -> str:
        return f"<Calibration of {len(self.thresholds)} thresholds and {len(self.maps)} maps>"

    def apply(self, scores: Array, labels: LabelSet) -> FloatArray:
        """Mapped scores; those of labels without a map stay as they are.

        Parameters
        ----------
        scores : ndarray, shape (..., n_classes)
            In [0, 1].
        labels : LabelSet
            What the columns mean.

        Returns
        -------
        ndarray, the same shape, float32
            In [0, 1]. The order of a label's scores stays, but some may become equal.
        """
        mapped: FloatArray = np.array(scores, np.float32)
        for index, label_id in enumerate(labels.ids):
            if label_id in self.maps:
                mapped[..., index] = self.maps[label_id](mapped[..., index])
        return mapped

    def settings(
        self,
        labels: LabelSet,
        threshold: float | None = None,
        label_thresholds: Mapping[str, LabelThreshold] | None = None,
        **others: Any,
    ) -> EventSettings:
        """Settings for events, with these thresholds where the caller gives none.

        Parameters
        ----------
        labels : LabelSet
        threshold : float, optional
            In [0, 1]; holds for all labels in place of the stored thresholds. Default: those, and for the other
            labels that of ``EventSettings``.
        label_thresholds : mapping, optional
            By id or name; win over both.
        **others
            Other attributes of ``EventSettings``.

        Returns
        -------
        EventSettings

        Raises
        ------
        UsageError
            If a label is unknown, or a value outside its range.
        """
        own = dict(label_thresholds or {})
        if threshold is not None:
            return EventSettings(threshold, label_thresholds=own, **others)
        named = {labels.ids[labels.index(label)] for label in own}
        stored = {label_id: value for label_id, value in self.thresholds.items() if label_id in labels.ids}
        unnamed = {label_id: value for label_id, value in stored.items() if label_id not in named}
        return EventSettings(label_thresholds={**unnamed, **own}, **others)

    def to_record(self) -> dict[str, Any]:
        """As JSON's own types, for a model's card."""
        return {
            "version": VERSION,
            "thresholds": dict(self.thresholds),
            "maps": {label_id: score_map.to_record() for label_id, score_map in self.maps.items()},
            "made_from": dict(self.made_from),
        }

    @classmethod
    def from_record(cls, record: Any, labels: LabelSet) -> Calibration:
        """Read what ``to_record`` has written.

        Raises
        ------
        WeightsError
            If it is of another version, not such a record, or of labels that the model does not have.
        """
        if not isinstance(record, Mapping) or "version" not in record:
            raise WeightsError(f"the model's calibration is {_shown(record)}; expected an object with a version")
        if record["version"] != VERSION or isinstance(record["version"], bool):
            raise WeightsError(
                f"the model's calibration has version {record['version']!r}; this version of audioset reads "
                f"{VERSION}. Next step: update audioset, or calibrate the model again"
            )
        parts: list[Any] = [record.get(name) for name in ("thresholds", "maps", "made_from")]
        if set(record) != FIELDS or not all(isinstance(part, Mapping) for part in parts):
            raise WeightsError(
                f"the model's calibration has the fields {', '.join(sorted(map(str, record)))}; expected version, "
                "thresholds, maps and made_from, the last three of them objects"
            )
        thresholds, maps, made_from = parts
        _check_record(thresholds, maps, labels)
        try:
            read_maps = {label_id: map_from_record(value) for label_id, value in maps.items()}
            return cls(dict(thresholds), read_maps, dict(made_from))
        except UsageError as error:
            raise WeightsError(f"the model's calibration cannot be used: {error}") from error


NONE = Calibration({})


def _check_record(thresholds: Mapping[str, Any], maps: Mapping[str, Any], labels: LabelSet) -> None:
    for label_id, value in thresholds.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise WeightsError(f"the model's calibration has the threshold {value!r} of {label_id}; expected a number")
    unknown = sorted({*thresholds, *maps} - set(labels.ids))
    if unknown:
        raise WeightsError(
            f"the model's calibration is of {', '.join(map(repr, unknown[:3]))}, which is none of its {len(labels)} "
            "labels. Likely cause: the card of another model"
        )


def _shown(record: Any) -> str:
    return "an object without one" if isinstance(record, Mapping) else repr(record)
