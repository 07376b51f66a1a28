"""YAMNet: MobileNet v1 on log-mel patches.

Source: tensorflow/models, research/audioset/yamnet/yamnet.py and params.py; Howard et al. 2017
(arXiv 1704.04861), table 1.
"""

from __future__ import annotations

from audioset.networks.ops import Ops, Outputs, Tensor

# (stride of the depthwise convolution, channels after the pointwise one), layers 2 to 14
LAYERS = (
    (1, 64),
    (2, 128),
    (1, 128),
    (2, 256),
    (1, 256),
    (2, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (1, 512),
    (2, 1024),
    (1, 1024),
)
EPSILON = 1e-4  # params.py, batchnorm_epsilon


def yamnet(ops: Ops[Tensor], patches: Tensor, n_classes: int | None = 521) -> Outputs[Tensor]:
    """Scores and embeddings of log-mel patches.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, 96, 64)
        Natural log-mel magnitudes of ``frontend.published.YAMNET``.
    n_classes : int or None
        521 in the published network; None for one that only embeds.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, 1024), the mean of the last feature map; ``logits`` and ``scores``
        (n_patches, n_classes), an independent sigmoid for each class.
    """

    def normed(x: Tensor, layer: str) -> Tensor:
        return ops.relu(ops.batch_norm(x, f"{layer}/bn", epsilon=EPSILON, scale=False))

    x = normed(ops.conv2d(patches, "layer1/conv", filters=32, kernel=3, stride=2), "layer1/conv")
    for number, (stride, filters) in enumerate(LAYERS, start=2):
        depthwise, pointwise = f"layer{number}/depthwise_conv", f"layer{number}/pointwise_conv"
        x = normed(ops.depthwise_conv2d(x, depthwise, kernel=3, stride=stride), depthwise)
        x = normed(ops.conv2d(x, pointwise, filters=filters, kernel=1), pointwise)
    embeddings = ops.spatial_mean(x)
    if n_classes is None:
        return Outputs(embeddings=embeddings)
    logits = ops.dense(embeddings, "logits", n_classes)
    return Outputs(embeddings=embeddings, logits=logits, scores=ops.sigmoid(logits))
