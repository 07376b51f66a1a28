"""VGG16, a network for photographs, on pictures of log-mel spectrograms.

Source: Simonyan and Zisserman 2014 (arXiv 1409.1556), table 1, column D; torchvision, models/vgg.py; Keras,
applications/vgg16.py. With the same weights, embeddings in OpenVINO, ONNX Runtime and PyTorch are within 5e-6 of
their largest value from the layers as PyTorch's own modules (``tests/networks/test_vgg16.py``).
"""

from __future__ import annotations

from typing import NamedTuple

from audioset.networks.ops import TORCH_NAMES, Ops, Outputs, Tensor

# For each block, its filters and the places of its convolutions among torchvision's ``features``.
BLOCKS = ((64, (0, 2)), (128, (5, 7)), (256, (10, 12, 14)), (512, (17, 19, 21)), (512, (24, 26, 28)))
HIDDEN_SIZE = 4096
DROPOUT = 0.5


class Channel(NamedTuple):
    """How one of the three channels is made of a picture in [0, 1]: ``x gain + offset``."""

    gain: float
    offset: float


# Red, green and blue with the means and deviations of ImageNet; blue, green and red in [0, 255] without their means.
NORMALISATIONS = {
    "torchvision": tuple(
        Channel(1 / deviation, -mean / deviation)
        for mean, deviation in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
    ),
    "keras": tuple(Channel(255.0, -mean) for mean in (103.939, 116.779, 123.68)),
}


def vgg16(
    ops: Ops[Tensor],
    patches: Tensor,
    n_classes: int | None = None,
    *,
    hidden_size: int = HIDDEN_SIZE,
    normalisation: str = "torchvision",
) -> Outputs[Tensor]:
    """Embeddings of pictures, and scores if there are classes.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, 224, 224)
        Log-mel pictures of ``frontend.published.VGG16``, grey and from 0 to 1; what is outside is cut off.
    n_classes : int or None
        None for a network that only embeds: the published classes are of photographs.
    hidden_size : int
        Units of each of the two layers before the last.
    normalisation : {"torchvision", "keras"}
        How three channels are made of a grey picture: as the network was trained that the weights are of.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, hidden_size), none below 0, what the last layer sees; with classes, ``logits`` and
        ``scores`` (n_patches, n_classes), an independent sigmoid for each.

    Raises
    ------
    TypeError
        For another normalisation.
    """
    if normalisation not in NORMALISATIONS:
        raise TypeError(f"normalisation is {normalisation!r}; expected one of {', '.join(NORMALISATIONS)}")
    picture = ops.clip(ops.transpose(patches), 0.0, 1.0)  # frequency is the height
    first, second, third = (ops.affine(picture, *channel) for channel in NORMALISATIONS[normalisation])
    x = ops.concatenate(ops.concatenate(first, second), third)
    for filters, places in BLOCKS:
        for place in places:
            layer = f"features.{place}"
            x = ops.relu(
                ops.conv2d(x, layer, filters=filters, kernel=3, bias=True, padding="symmetric", names=TORCH_NAMES)
            )
        x = ops.max_pool(x, size=2, stride=2, padding="none")
    x = ops.relu(ops.dense(ops.flatten(x), "classifier.0", hidden_size, names=TORCH_NAMES))
    x = ops.relu(ops.dense(ops.dropout(x, DROPOUT), "classifier.3", hidden_size, names=TORCH_NAMES))
    if n_classes is None:
        return Outputs(embeddings=x)
    logits = ops.dense(ops.dropout(x, DROPOUT), "classifier.6", n_classes, names=TORCH_NAMES)
    return Outputs(embeddings=x, logits=logits, scores=ops.sigmoid(logits))
