"""The clips that a run trains and measures on, taken from the features batch by batch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audioset.arrays import Array, ByteArray, FloatArray, Int64Array
from audioset.dataset.features import folder as feature_folder
from audioset.dataset.features.clips import SUBSETS, ClipArrays, subset_code
from audioset.dataset.features.reading import read_arrays
from audioset.errors import DataError, NoInputError, UsageError
from audioset.files import check_regular
from audioset.train.heads.config import TrainConfig
from audioset.train.heads.samplers import split
from audioset.train.heads.sparse_labels import SparseLabels

N_CLASSES = 527
SEVERAL = {"train": ("bal_train", "unbal_train"), "all": None, "": None}  # names for more than one subset


@dataclass(frozen=True, eq=False)
class Batch:
    """Some clips."""

    embeddings: ByteArray  # (n_clips, n_seconds, 128)
    mask: FloatArray  # (n_clips, n_seconds): 1 for the seconds of a clip, 0 for the padding after them
    targets: FloatArray  # (n_clips, n_classes), in [0, 1]


@dataclass(frozen=True, eq=False)
class Examples:
    """Clips of the features, chosen but not copied."""

    arrays: ClipArrays  # all of the features, perhaps mapped
    rows: Int64Array  # which of them
    labels: SparseLabels
    digest: str  # of the features and the choice
    soft: Array | None = None  # soft targets (n_soft, n_classes), perhaps mapped
    soft_rows: Int64Array | None = None  # of each clip
    soft_share: float = 1.0  # what they count against labels

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Int64Array) -> Examples:
        """Some of these clips."""
        soft_rows = None if self.soft_rows is None else self.soft_rows[positions]
        return replace(self, rows=self.rows[positions], labels=self.labels.take(positions), soft_rows=soft_rows)

    def batch(self, positions: Int64Array) -> Batch:
        """Some of these clips, read."""
        rows = self.rows[positions]
        embeddings = np.asarray(self.arrays.embeddings[rows])
        mask = np.arange(embeddings.shape[1]) < np.asarray(self.arrays.lengths[rows])[:, None]
        return Batch(embeddings, mask.astype(np.float32), self._targets(positions))

    def names(self, positions: Int64Array) -> list[str]:
        """YouTube's names of some of these clips."""
        return [video_id.decode() for video_id in np.asarray(self.arrays.video_ids[self.rows[positions]]).tolist()]

    def _targets(self, positions: Int64Array) -> FloatArray:
        targets = self.labels.targets(positions)
        if self.soft is None or self.soft_rows is None:
            return targets
        soft = np.asarray(self.soft[self.soft_rows[positions]], np.float32)
        if not (soft.min() >= 0 and soft.max() <= 1):
            raise DataError("the soft targets hold values outside [0, 1]; expected probabilities, not logits")
        mixed: FloatArray = self.soft_share * soft + (1 - self.soft_share) * targets
        return mixed.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Data:
    """What a run reads; what it measures on is kept from training, or not of it."""

    training: Examples
    held_out: Examples | None
    evaluation: Examples | None

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        parts = [part.digest for part in (self.training, self.evaluation) if part is not None]
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def load_data(config: TrainConfig) -> Data:
    """Find the clips of a run; features in a folder of arrays are mapped, not read.

    UsageError if no features are named, or the same clips are to be trained and measured on; NoInputError or DataError
    as ``audioset.dataset.features.reading.read``; DataError for soft targets of another shape.
    """
    if not config.features:
        raise UsageError("there is nothing to train on. Next step: --features PATH, or features in the settings")
    examples = _with_soft_targets(load_examples(config.features, config.subset), config)
    evaluation = None
    if config.eval_features or config.eval_subset:
        path = config.eval_features or config.features
        _check_apart(config, path)
        evaluation = load_examples(path, config.eval_subset)
    if not config.holdout:
        return Data(examples, None, evaluation)
    trained_on, held_out = split(examples.labels, config.holdout, config.seed)
    if not len(held_out):
        raise UsageError(
            f"holdout is {config.holdout}, which of {len(examples)} clips is none. Next step: a larger one"
        )
    return Data(examples.take(trained_on), replace(examples, soft=None).take(held_out), evaluation)


def load_examples(path: str, subset: str) -> Examples:
    """The clips of a subset, or of several; those without a single embedding are left out."""
    is_mapped = feature_folder.is_feature_folder(Path(path))
    names = SEVERAL.get(subset, (subset,))
    arrays = read_arrays(path, None if is_mapped or names is None or len(names) > 1 else names[0])
    is_chosen = np.asarray(arrays.lengths) > 0
    if names is not None:
        is_chosen &= np.isin(arrays.subsets, [subset_code(_known(name)) for name in names])
    rows = np.flatnonzero(is_chosen)
    if not len(rows):
        raise NoInputError(
            f"{path} has no clips of {subset or 'any subset'}; audioset data features info shows what it has"
        )
    labels = SparseLabels.of(arrays, rows, N_CLASSES)
    if len(labels.indices) and not 0 <= labels.indices.min() <= labels.indices.max() < N_CLASSES:
        raise DataError(f"{path} has labels outside 0 to {N_CLASSES - 1}. Likely cause: a damaged file")
    return Examples(arrays, rows, labels, _digest(Path(path), arrays, rows, is_mapped))


def _known(subset: str) -> str:
    if subset not in SUBSETS:
        raise UsageError(f"eval_subset is {subset!r}; expected one of {', '.join((*SUBSETS, 'train', 'all'))}")
    return subset


def _check_apart(config: TrainConfig, path: str) -> None:
    """Refuse to measure on what is trained on."""
    ours, theirs = (SEVERAL.get(name, (name,)) or SUBSETS for name in (config.subset, config.eval_subset))
    shared = set(ours) & set(theirs)
    if shared and Path(path).resolve() == Path(config.features).resolve():
        raise UsageError(
            f"{', '.join(sorted(shared))} of {path} would be both trained and measured on. "
            "Next step: another eval_subset, or holdout = 0.1"
        )


def _with_soft_targets(examples: Examples, config: TrainConfig) -> Examples:
    if not config.targets:
        return examples
    try:
        check_regular(Path(config.targets))
        soft = np.load(config.targets, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read the soft targets {config.targets}: {error}. Expected a .npy file") from error
    if soft.shape != (len(examples), N_CLASSES) or soft.dtype.kind != "f":
        raise DataError(
            f"{config.targets} has shape {soft.shape} and dtype {soft.dtype}; expected floats of shape "
            f"{(len(examples), N_CLASSES)}: a row for each clip of {config.subset}, in the order of the features"
        )
    return replace(examples, soft=soft, soft_rows=np.arange(len(examples)), soft_share=config.target_share)


def _digest(path: Path, arrays: ClipArrays, rows: Int64Array, is_mapped: bool) -> str:
    """Identity of the clips. A folder of arrays says the digests of its files, so that they need not be read."""
    digest = hashlib.sha256(rows.tobytes())
    if is_mapped:
        digest.update(json.dumps(feature_folder.read_card(path)["files"], sort_keys=True).encode())
    else:
        for array in (arrays.embeddings, arrays.lengths, arrays.label_indices, arrays.label_offsets):
            digest.update(array.tobytes())
    return digest.hexdigest()
