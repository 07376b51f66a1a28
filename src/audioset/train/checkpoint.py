"""What a run leaves in its folder: settings, measurements, checkpoints, and in the end a model.

A checkpoint is one safetensors file: tensors, and everything else as JSON in its header. It appears whole or not at
all, so a run may be killed at any point. The last two are kept.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audioset.arrays import FloatArray
from audioset.dataset.features.framing import frame_record
from audioset.dataset.features.sequence_example import message, varint
from audioset.errors import ConflictError, DataError, UsageError
from audioset.files import check_regular, explain_os_errors, output_file
from audioset.records import DAMAGE, parse_json
from audioset.train.finite import named
from audioset.train.settings import Settings, differences, read_settings
from audioset.weights.model_folder import CARD_NAME, ModelCard, read_card, write_model_folder

logger = logging.getLogger(__name__)

CONFIG_NAME = "run.toml"
METRICS_NAME = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
N_KEPT = 2
FORMAT = 2  # of checkpoints: another one is of an earlier version
Weights = dict[str, torch.Tensor]
Record = dict[str, Any]
# TensorBoard: tensorflow/core/util/event.proto and framework/summary.proto. The tags of fields have their wire types:
# Event.wall_time, Event.step, Summary.Value.simple_value.
VERSION = b"brain.Event:2"
WALL_TIME, STEP, SIMPLE_VALUE = b"\x09", b"\x10", b"\x15"
FILE_VERSION, SUMMARY, VALUE, TAG = 3, 5, 1, 1


class RunFolder:
    """The folder of a run, made if need be; only ``is_writer`` writes, the other processes read.

    ConflictError if the folder holds a run with other settings, or something else; OutputError if the place cannot be
    written.
    """

    def __init__(
        self, path: Path, config: Settings, data_digest: str, *, is_writer: bool, is_logged: bool = False
    ) -> None:
        self.path, self._config, self._data_digest, self._is_writer = path, config, data_digest, is_writer
        if is_writer:
            self._begin()
        self._is_logged = is_logged  # for TensorBoard too
        self._events: EventFile | None = None

    def find_result(self) -> Record | None:
        """Metrics of the finished model, if this run has been here to its end."""
        if not (self.path / CARD_NAME).is_file():
            return None
        source = read_card(self.path).source
        self._check_data(source.get("data_digest"))
        metrics: Record = source["metrics"]
        return metrics

    def load(self) -> tuple[Weights, Record] | None:
        """The newest checkpoint that can be read, or None; later measurements are struck out.

        ConflictError if it is of other data, or of an earlier version; DataError if there are checkpoints, and none can
        be read.
        """
        paths = self._checkpoints()
        for path in reversed(paths):
            try:
                tensors, record = _read(path)
            except DataError as error:
                logger.warning("%s; going on with the one before", error)
                continue
            self._check_data(record["data_digest"])
            if record.get("format") != FORMAT:
                raise ConflictError(f"{path} is of another version of audioset. Next step: delete {self.path}")
            self._strike_out_after(record["iteration"])
            return tensors, record
        if paths:
            raise DataError(f"none of the checkpoints in {self.path / CHECKPOINTS} can be read. Next step: delete them")
        self._strike_out_after(0)
        return None

    def save(self, tensors: Weights, record: Record) -> None:
        """Write a checkpoint, and delete all but the last two."""
        if not self._is_writer:
            return
        from safetensors.torch import save

        header = {"record": json.dumps({**record, "format": FORMAT, "data_digest": self._data_digest})}
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._write(f"{CHECKPOINTS}/{record['iteration']:09d}.safetensors", save(contiguous, header))
        for path in self._checkpoints()[:-N_KEPT]:
            path.unlink()

    def note(self, record: Record) -> None:
        """Add a line to the measurements."""
        if not self._is_writer:
            return
        path = self.path / METRICS_NAME
        with explain_os_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._is_logged:
            self._events = self._events or EventFile(self.path)
            self._events.write(record)

    def finish(self, card: ModelCard, weights: Weights, metrics: Record) -> None:
        """Write the model, and where its weights come from: the folder is then one that ``load_model`` reads.

        If a weight is not finite, a UsageError, and nothing is written.
        """
        arrays = as_arrays(weights)
        spoilt = [name for name, value in arrays.items() if not np.isfinite(value).all()]
        if spoilt:
            raise UsageError(
                f"the weights {named(spoilt)} are not finite, and no model was written. Likely cause: a learning rate "
                "that is too high. Next step: a lower learning_rate, a warm_up, or clip_norm = 1"
            )
        if not self._is_writer:
            return
        provenance = {
            "file": CONFIG_NAME,
            "digest": "",
            "url": "",
            "is_published": False,
            "config": self._config.as_dict(),
            "data_digest": self._data_digest,
            "metrics": metrics,
        }
        with explain_os_errors(self.path):
            write_model_folder(self.path, replace(card, source={**card.source, **provenance}), arrays)

    def delete_checkpoints(self) -> None:
        """Once the model is written, they are of no use but to look back."""
        if self._is_writer:
            shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    def _begin(self) -> None:
        """Write the settings, before anything else, and clear away what a killed process was writing."""
        self._check_settings()
        if not (self.path / CONFIG_NAME).exists():
            self._write(CONFIG_NAME, self._config.to_toml().encode())
        with explain_os_errors(self.path):
            (self.path / CHECKPOINTS).mkdir(exist_ok=True)
            for path in (self.path / CHECKPOINTS).glob(".*"):
                path.unlink()

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / CHECKPOINTS).glob("*.safetensors"))

    def _check_settings(self) -> None:
        path = self.path / CONFIG_NAME
        if path.is_file():
            changed = differences(self._config.as_dict(), read_settings(type(self._config), path, {}).as_dict())
            if changed:
                raise ConflictError(
                    f"{self.path} holds a run with other settings ({'; '.join(changed)}). "
                    "Next step: another --output, or delete the folder"
                )
        elif self.path.is_dir() and any(not path.name.startswith(".") for path in self.path.iterdir()):
            raise ConflictError(f"{self.path} holds something that is no run. Next step: another --output")

    def _check_data(self, digest: str | None) -> None:
        if digest != self._data_digest:
            raise ConflictError(
                f"{self.path} holds a run on other data than the settings name now. Likely cause: features that "
                "were converted anew. Next step: another --output, or delete the folder"
            )

    def _strike_out_after(self, iteration: int) -> None:
        if not (self._is_writer and (self.path / METRICS_NAME).is_file()):
            return
        kept = [record for record in read_measurements(self.path) if record["iteration"] <= iteration]
        self._write(METRICS_NAME, "".join(f"{json.dumps(record)}\n" for record in kept).encode())

    def _write(self, name: str, data: bytes) -> None:
        with output_file(self.path / name) as temporary:
            temporary.write_bytes(data)


class EventFile:
    """Measurements as TensorBoard reads them, written without it; each time that a run goes on, it begins another."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        self._append(_event(message(FILE_VERSION, VERSION)))

    def write(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a line of the measurements, by their names: ``eval/mean_ap``."""
        values = b"".join(
            message(VALUE, message(TAG, name.encode()) + SIMPLE_VALUE + struct.pack("<f", value))
            for name, value in numbers(line)
            if name != "iteration"
        )
        self._append(_event(STEP + varint(line["iteration"]) + message(SUMMARY, values)))

    def _append(self, event: bytes) -> None:
        with explain_os_errors(self._path), self._path.open("ab") as file:
            file.write(frame_record(event))


def numbers(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dictionaries, by the path to each; not those that are None, NaN or infinite."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}/")
        elif value is not None and math.isfinite(value):
            yield f"{prefix}{name}", value


def _event(content: bytes) -> bytes:
    return WALL_TIME + struct.pack("<d", time.time()) + content


def as_arrays(weights: Weights) -> dict[str, FloatArray]:
    """Weights as a model folder has them."""
    return {name: value.detach().float().cpu().numpy() for name, value in weights.items()}


def read_measurements(folder: Path) -> list[Record]:
    """The measurements of a run; what is no line of them, as the end of one that was being written, is left out."""
    path, records = folder / METRICS_NAME, list[Record]()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        with suppress(*DAMAGE):
            record = json.loads(line)
            int(record["iteration"])
            records.append(record)
    return records


def _read(path: Path) -> tuple[Weights, Record]:
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            record = parse_json(file.metadata()["record"], str(path), {}, DataError)
            return {name: file.get_tensor(name) for name in file.keys()}, record  # noqa: SIM118 - it is no mapping
    except (SafetensorError, *DAMAGE) as error:
        raise DataError(f"the checkpoint {path} cannot be read ({error})") from error
