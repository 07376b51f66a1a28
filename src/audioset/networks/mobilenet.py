"""EfficientAT's MobileNets: MobileNetV3-Large on the log-mel spectrogram of a whole clip, in several widths.

Source: fschmid56/EfficientAT, models/mn/model.py and models/mn/block_types.py; Schmid et al. 2023
(arXiv 2211.04772); Howard et al. 2019 (arXiv 1905.02244), table 1. On stored references of mn04_as, scores are
within 2e-6 of the original's in OpenVINO and ONNX Runtime, and embeddings within 4e-6 of their largest value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from audioset.networks.ops import TORCH_NAMES, Ops, Outputs, Tensor


class Block(NamedTuple):
    """An inverted residual."""

    kernel: int  # of the depthwise convolution
    n_expanded: int  # channels of the depthwise convolution
    n_out: int  # channels after it
    is_squeezed: bool  # whether it has squeeze-and-excitation
    activation: str  # relu or hard_swish
    # In ``BLOCKS``, the place of its stride among the network's four, or None for a stride of 1.
    stride: int | None = None
    n_in: int = 0  # channels before it
    n_frequencies: int = 0  # height of the map after it


N_FIRST = 16
BLOCKS = (  # of width 1
    Block(3, 16, 16, False, "relu"),
    Block(3, 64, 24, False, "relu", 0),
    Block(3, 72, 24, False, "relu"),
    Block(5, 72, 40, True, "relu", 1),
    Block(5, 120, 40, True, "relu"),
    Block(5, 120, 40, True, "relu"),
    Block(3, 240, 80, False, "hard_swish", 2),
    Block(3, 200, 80, False, "hard_swish"),
    Block(3, 184, 80, False, "hard_swish"),
    Block(3, 184, 80, False, "hard_swish"),
    Block(3, 480, 112, True, "hard_swish"),
    Block(3, 672, 112, True, "hard_swish"),
    Block(5, 672, 160, True, "hard_swish", 3),
    Block(5, 960, 160, True, "hard_swish"),
    Block(5, 960, 160, True, "hard_swish"),
)
LAST_EXPANSION = 6  # of the last block's channels: the embedding
N_HIDDEN = 1280
DROPOUT = 0.2
SQUEEZE = 4  # se_r
EPSILON = 1e-3
HEAD_EPSILON = 1e-5  # of the convolutional head's batch norm: PyTorch's default
HEADS = ("mlp", "fully_convolutional")
SQUEEZED_AXES = {"c": "channels", "f": "height", "none": None}  # se_dims: height is frequency


def mobilenet(
    ops: Ops[Tensor],
    patches: Tensor,
    width: float = 1.0,
    n_classes: int | None = 527,
    *,
    strides: Sequence[int] = (2, 2, 2, 2),
    head: str = "mlp",
    se_dims: str = "c",
    n_mels: int = 128,
) -> Outputs[Tensor]:
    """Scores and embeddings of clips.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        Log-mel powers of ``frontend.published.EFFICIENTAT`` or one of its variants, any number of frames.
    width : float
        Factor of all numbers of channels: 0.4 for ``mn04_as``, 1.0 for ``mn10_as``.
    n_classes : int or None
        527 in the published networks; None for one that only embeds.
    strides : sequence of four int
        Of the blocks that make the map smaller: (2, 2, 2, 1) for ``mn10_as_fc_s2221``.
    head : {"mlp", "fully_convolutional"}
        The latter for ``mn10_as_fc`` and its variants.
    se_dims : {"c", "f", "none"}
        What squeeze-and-excitation weighs: channels, as in every published checkpoint, frequencies, or nothing.
    n_mels : int
        Of the patches; used with ``se_dims="f"`` alone.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, embedding_size), the mean of the last feature map, which the original returns
        as its features: 960 numbers times the width, 384 for ``mn04_as``; ``logits`` and ``scores``
        (n_patches, n_classes), an independent sigmoid for each class.

    Raises
    ------
    TypeError
        For other strides, heads or ``se_dims``.
    """
    if len(strides) != 4 or not set(strides) <= {1, 2}:
        raise TypeError(f"strides is {strides!r}; expected four numbers, each 1 or 2")
    if head not in HEADS or se_dims not in SQUEEZED_AXES:
        raise TypeError(
            f"head is {head!r} and se_dims is {se_dims!r}; expected one of {', '.join(HEADS)}, "
            f"and one of {', '.join(SQUEEZED_AXES)}"
        )
    n_first = round_channels(N_FIRST * width)
    x = ops.transpose(patches)  # frequency is the height
    x = ops.hard_swish(_conv(ops, x, "features.0", n_first, kernel=3, stride=2))
    for number, block in enumerate(scaled_blocks(width, strides, n_mels), start=1):
        x = _inverted_residual(ops, x, f"features.{number}.block", block, SQUEEZED_AXES[se_dims])
    n_last = LAST_EXPANSION * round_channels(BLOCKS[-1].n_out * width)
    x = ops.hard_swish(_conv(ops, x, f"features.{len(BLOCKS) + 1}", n_last))
    embeddings = ops.spatial_mean(x)
    if n_classes is None:
        return Outputs(embeddings=embeddings)
    if head == "mlp":
        n_hidden = round_channels(N_HIDDEN * width)
        hidden = ops.hard_swish(ops.dense(embeddings, "classifier.2", n_hidden, names=TORCH_NAMES))
        logits = ops.dense(ops.dropout(hidden, DROPOUT), "classifier.5", n_classes, names=TORCH_NAMES)
    else:
        x = ops.conv2d(x, "classifier.0", filters=n_classes, kernel=1, names=TORCH_NAMES)
        logits = ops.spatial_mean(ops.batch_norm(x, "classifier.1", epsilon=HEAD_EPSILON, names=TORCH_NAMES))
    return Outputs(embeddings=embeddings, logits=logits, scores=ops.sigmoid(logits))


def scaled_blocks(width: float, strides: Sequence[int], n_mels: int) -> Iterator[Block]:
    """``BLOCKS`` of another width, with their strides, the channels before them and the frequencies after them."""
    n_in, n_frequencies = round_channels(N_FIRST * width), -(-n_mels // 2)
    for block in BLOCKS:
        n_expanded, n_out = round_channels(block.n_expanded * width), round_channels(block.n_out * width)
        stride = 1 if block.stride is None else strides[block.stride]
        n_frequencies = -(-n_frequencies // stride)
        yield block._replace(n_expanded=n_expanded, n_out=n_out, stride=stride, n_in=n_in, n_frequencies=n_frequencies)
        n_in = n_out


def round_channels(n_channels: float) -> int:
    """The nearest multiple of 8, 8 at least, and never less than nine tenths of ``n_channels``."""
    rounded = max(8, int(n_channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * n_channels else rounded + 8


def _inverted_residual(ops: Ops[Tensor], x: Tensor, layer: str, block: Block, axis: str | None) -> Tensor:
    activate = {"relu": ops.relu, "hard_swish": ops.hard_swish}[block.activation]
    parts = (f"{layer}.{number}" for number in range(4))
    stride = block.stride or 1
    y = x
    if block.n_expanded != block.n_in:
        y = activate(_conv(ops, y, next(parts), block.n_expanded))
    y = _conv(ops, y, next(parts), block.n_expanded, kernel=block.kernel, stride=stride, groups=block.n_expanded)
    y = activate(y)
    if block.is_squeezed and axis:
        length = {"channels": block.n_expanded, "height": block.n_frequencies}[axis]
        y = _squeeze_and_excite(ops, y, f"{next(parts)}.conc_se_layers.0", axis, length)
    y = _conv(ops, y, next(parts), block.n_out)
    return ops.add(x, y) if stride == 1 and block.n_in == block.n_out else y


def _squeeze_and_excite(ops: Ops[Tensor], x: Tensor, layer: str, axis: str, length: int) -> Tensor:
    n_squeezed = round_channels(length // SQUEEZE)
    squeezed = ops.relu(ops.dense(ops.axis_mean(x, axis), f"{layer}.fc1", n_squeezed, names=TORCH_NAMES))
    return ops.scale(x, ops.sigmoid(ops.dense(squeezed, f"{layer}.fc2", length, names=TORCH_NAMES)), axis)


def _conv(
    ops: Ops[Tensor], x: Tensor, layer: str, filters: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> Tensor:
    """A convolution and its batch norm."""
    x = ops.conv2d(
        x,
        f"{layer}.0",
        filters=filters,
        kernel=kernel,
        stride=stride,
        groups=groups,
        padding="symmetric",
        names=TORCH_NAMES,
    )
    return ops.batch_norm(x, f"{layer}.1", epsilon=EPSILON, names=TORCH_NAMES)
