"""What an index says of itself: ``index.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from audioset.errors import ConflictError, DataError, UsageError
from audioset.files import writing
from audioset.models.folders import digest_model
from audioset.models.model import Model
from audioset.records import OBJECT, TEXT, WHOLE, check_record, map_of, number, optional, read_json, whole
from audioset.search.shards import shard_path

NAME = "index.json"
FORMAT = 1
HINT = "Next step: delete the folder, and index the recordings again"
SECONDS = optional(number(0, 1e6))
SETTINGS_SCHEMA = {
    "model": TEXT,
    "weights": optional(TEXT),
    "precision": TEXT,
    "hop_s": SECONDS,
    "window_s": SECONDS,
    "pad": optional(TEXT),
}
SCHEMA = {
    "settings": OBJECT,
    "model_digest": TEXT,
    "embedding_size": whole(1, 1 << 16),
    "shards": map_of(WHOLE, 1 << 20),
    "n_recordings": WHOLE,
    "version": TEXT,
    "format": WHOLE,
}


@dataclass(frozen=True)
class Settings:
    """How the embeddings of an index are made; an example is embedded in the same way."""

    model: str = "yamnet"  # name of a published model, or path of a model folder
    weights: str | None = None  # A checkpoint of one's own
    precision: str = "f32"  # {"f32", "bf16"}
    # hop_s, window_s: seconds between patches, and of a patch of a model of clips; None: the model's own
    hop_s: float | None = None
    window_s: float | None = None
    pad: str | None = None  # what happens to audio that does not fill a patch; None: the model's own

    @property
    def embedding_arguments(self) -> dict[str, Any]:
        """Those that ``Model.predict`` and ``batch.tag_files`` take."""
        return {"hop_s": self.hop_s, "window_s": self.window_s, "pad": self.pad}


@dataclass(frozen=True)
class Manifest:
    """What ``index.json`` says. Whatever it does not name is not part of the index."""

    settings: Settings
    model_digest: str  # SHA-256 of the network's name, its arguments, its frontend and its weights
    embedding_size: int
    shards: dict[str, int] = field(default_factory=dict)  # moments in each file of embeddings, by its name
    n_recordings: int = 0  # in all of them
    version: str = ""  # of the package that wrote it
    format: int = FORMAT

    @property
    def n_moments(self) -> int:
        """In all files of embeddings."""
        return sum(self.shards.values())

    @property
    def digest(self) -> str:
        """Of what is in the index: another one after each change."""
        record = json.dumps([self.model_digest, self.embedding_size, self.shards])
        return hashlib.sha256(record.encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Write ``index.json``, whole or not at all; OutputError if the disk is full or the place forbids it."""
        with writing(folder / NAME) as file:
            file.write(json.dumps({**asdict(self), "n_moments": self.n_moments}, indent=2).encode() + b"\n")

    def check_model(self, model: Model) -> None:
        """Refuse a model other than the one that made the embeddings."""
        if digest_model(model.card, model.folder) != self.model_digest:
            raise UsageError(
                f"the index was made with {self.settings.model} ({self.embedding_size} numbers an embedding), and "
                f"this is another model ({model.embedding_size} numbers): their embeddings cannot be compared. "
                "Next step: leave --model out, or index the recordings with this model, in another folder"
            )


def read_manifest(folder: Path) -> Manifest:
    """Read ``index.json``."""
    path = folder / NAME
    try:
        record = read_json(path, {"format": WHOLE}, DataError, HINT)
    except OSError as error:
        raise UsageError(
            f"{folder} is not an index: {NAME} cannot be read ({error.strerror}). "
            "Next step: audioset index RECORDINGS --output FOLDER"
        ) from error
    if record["format"] != FORMAT:
        raise DataError(
            f"{path} has format {record['format']}; this version reads {FORMAT}. Next step: update audioset"
        )
    check_record(record, str(path), SCHEMA, DataError, HINT)
    check_record(record["settings"], f"{path}: 'settings'", SETTINGS_SCHEMA, DataError, HINT)
    for name in record["shards"]:
        shard_path(folder, name)
    settings = Settings(**{name: record["settings"][name] for name in SETTINGS_SCHEMA})
    return Manifest(**{name: record[name] for name in SCHEMA if name != "settings"}, settings=settings)


def open_or_begin(folder: Path, settings: Settings, model: Model) -> Manifest:
    """The manifest of a folder, or a new one for a folder that is empty or not there."""
    from audioset import __version__

    fresh = Manifest(settings, digest_model(model.card, model.folder), model.embedding_size, version=__version__)
    if not (folder / NAME).exists():
        if folder.exists() and (not folder.is_dir() or any(entry.name[0] != "." for entry in folder.iterdir())):
            raise ConflictError(f"{folder} is not empty, and not an index. Next step: choose another folder")
        return fresh
    manifest = read_manifest(folder)
    before, now = (
        {"model_digest": part.model_digest, **asdict(part.settings), "model": None, "weights": None}
        for part in (manifest, fresh)
    )
    different = [name for name in now if now[name] != before[name]]
    if different:
        shown = ", ".join(f"{name} was {before[name]!s:.12} and is now {now[name]!s:.12}" for name in different)
        raise ConflictError(
            f"the index {folder} was made in another way, with {manifest.settings.model}: {shown}. "
            "Next step: leave these options out, or choose another folder"
        )
    return manifest
