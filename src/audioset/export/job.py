"""What is to be exported: a model, what the file takes, and the clips that int8 is calibrated on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from audioset import __version__
from audioset.arrays import FloatArray
from audioset.export.clips import CalibrationClip
from audioset.frontend.cutting import slab_patches, slabs
from audioset.frontend.log_mel import log_mel
from audioset.models.folders import digest_weights
from audioset.models.model import Model


@dataclass(frozen=True)
class Job:
    """One export."""

    model: Model
    name: str  # what the model is called
    input: str  # waveform, patches or embeddings
    calibration: Sequence[CalibrationClip] = ()  # not empty for int8

    @property
    def is_int8(self) -> bool:
        """Whether the network's weights become bytes."""
        return bool(self.calibration)

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the exported model takes, in order."""
        return ("waveform",) if self.input == "waveform" else self.model.inputs

    def inputs_of(self, waveform: FloatArray) -> list[dict[str, FloatArray]]:
        """What the exported model is given for a waveform at the model's rate: several calls for a long one.

        AudioError if it is shorter than a patch, and the frontend has ``pad="error"``.
        """
        if self.input == "waveform":
            return [{"waveform": waveform}]
        spec = self.model.frontend
        return [
            dict(
                zip(
                    self.model.inputs,
                    self.model.network_inputs(slab, log_mel(slab.waveform, spec), spec),
                    strict=True,
                )
            )
            for slab in slabs([waveform], spec, slab_patches(spec))
        ]

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the file means, for its metadata and its card."""
        model = self.model
        labels = [{"id": key, "name": name} for key, name in zip(model.labels.ids, model.labels.names, strict=True)]
        return {
            "model": self.name,
            "network": model.card.network,
            "input": self.input,
            "precision": "int8" if self.is_int8 else "f32",
            "labels": labels,
            "frontend": asdict(model.frontend),
            "sample_rate": model.frontend.sample_rate,
            "patch_s": model.frontend.patch_frames * model.frontend.frame_hop_s,
            "hop_s": model.frontend.patch_hop_frames * model.frontend.frame_hop_s,
            "pad": model.frontend.pad,
            "licence": model.card.licence,
            "weights_digest": digest_weights(model.card, model.folder),
            "source": model.card.source,
            "calibration": model.card.calibration,
            "audioset_version": __version__,
        }

    @property
    def metadata(self) -> dict[str, str]:
        """``facts`` as text by name, as most formats hold them: what is no text is JSON."""
        facts = {key: value for key, value in self.facts.items() if value is not None}
        texts = {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in facts.items()
        }
        return {**texts, "frontend": self.model.frontend.name, "frontend_spec": texts["frontend"]}


def possible_inputs(model: Model) -> tuple[str, ...]:
    """What an export of a model may take, the best first."""
    return model.export_inputs
