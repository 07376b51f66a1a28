"""TensorFlow checkpoints and comparisons that tests share."""

from __future__ import annotations

from reference_data import ASSETS

from audioset.errors import WeightsError
from audioset.weights.tf_checkpoint import open_tf_checkpoint

FOLDER = ASSETS.parent / "reference" / "tf_checkpoints"
V1, V2 = "tiny_v1.ckpt", "tiny_v2.ckpt"


def check_same(found, expected):
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == expected.tobytes()
    assert found.flags.owndata
    assert found.flags.writeable


def is_refused(path, tensors):
    """Whether a damaged checkpoint is refused; if it is not, its values are right."""
    try:
        checkpoint = open_tf_checkpoint(path)
        found = {name: checkpoint.read(name) for name in tensors}
    except WeightsError:
        return True
    assert list(checkpoint.variables) == sorted(tensors)
    for name, value in tensors.items():
        check_same(found[name], value)
    return False
