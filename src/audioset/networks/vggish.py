"""VGGish: a VGG-like network that turns a log-mel patch into 128 numbers.

Source: tensorflow/models, research/audioset/vggish/vggish_slim.py; Hershey et al. 2017 (arXiv 1609.09430).
"""

from __future__ import annotations

from audioset.networks.ops import SLIM_NAMES, Ops, Outputs, Tensor

# For each block, the convolutions before its pooling: (layer, filters)
BLOCKS = (
    (("conv1", 64),),
    (("conv2", 128),),
    (("conv3/conv3_1", 256), ("conv3/conv3_2", 256)),
    (("conv4/conv4_1", 512), ("conv4/conv4_2", 512)),
)
HIDDEN = (("fc1/fc1_1", 4096), ("fc1/fc1_2", 4096))
EMBEDDING_SIZE = 128
ACTIVATIONS = (None, "relu")


def vggish(ops: Ops[Tensor], patches: Tensor, activation: str | None = None) -> Outputs[Tensor]:
    """Embeddings of log-mel patches.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, 96, 64)
        Natural log-mel magnitudes of ``frontend.published.VGGISH``.
    activation : {None, "relu"}
        Of the embedding. None, as in the current original: the released AudioSet features and the
        postprocessor's principal components are of this kind. ``"relu"``, as in its older versions and in
        several ports, makes all negative values 0.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, 128); no logits and no scores.

    Raises
    ------
    TypeError
        For another activation.
    """
    if activation not in ACTIVATIONS:
        raise TypeError(f"activation is {activation!r}; expected None or 'relu'")
    x = patches
    for block in BLOCKS:
        for layer, filters in block:
            x = ops.relu(ops.conv2d(x, f"vggish/{layer}", filters=filters, kernel=3, bias=True, names=SLIM_NAMES))
        x = ops.max_pool(x, size=2, stride=2)
    x = ops.flatten(x)
    for layer, units in HIDDEN:
        x = ops.relu(ops.dense(x, f"vggish/{layer}", units, names=SLIM_NAMES))
    embeddings = ops.dense(x, "vggish/fc2", EMBEDDING_SIZE, names=SLIM_NAMES)
    return Outputs(embeddings=ops.relu(embeddings) if activation == "relu" else embeddings)
