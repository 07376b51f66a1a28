"""PANNs: convolutional networks on the log-mel spectrogram of a whole clip, its samples, or both.

Source: qiuqiangkong/audioset_tagging_cnn, pytorch/models.py; Kong et al. 2020 (arXiv 1912.10211), tables 1 to 3.
On stored references, made with generated weights, the embeddings of Cnn14, Cnn10, Cnn6, ResNet38, MobileNetV1 and
Wavegram_Logmel_Cnn14 are within 2e-6 of their largest value in OpenVINO, ONNX Runtime and PyTorch. Scores, also those
of Cnn14 for segments, are within 4e-5 of the original's, but for ResNet38: there the generated weights make logits of
7e4, and the one score that is neither 0 nor 1 is up to 8e-3 off, the original's own being 3e-3 from its arithmetic in
float64. ResNet22, ResNet54, MobileNetV2, Wavegram_Cnn14, the other ways to decide and smaller embeddings have no
stored references: they share the code of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from audioset.networks.ops import TORCH_NAMES, Ops, Outputs, Tensor

CHANNELS = (64, 128, 256, 512, 1024, 2048)  # of Cnn14's blocks; Cnn10 and Cnn6 have the first four
CONVOLUTIONS = {3: 2, 5: 1}  # in a block, by the size of its kernels
N_POOLED = 5  # blocks at most that end with pooling, which leave 2 of 64 mel bins
RESNET_CHANNELS = (64, 128, 256, 512, 2048)  # of the residual blocks, and of the block after them
EXPANSIONS = {(3, 3): 1, (1, 3, 1): 4}  # of the last convolution's channels, by the kernels of a residual block
MOBILENET_FIRST = 32
MOBILENET_BLOCKS = (  # channels, and the size of the pooling
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)
MOBILENET_V2_BLOCKS = (  # factor of the channels within, channels, number of blocks, pooling in the first of these
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 2),
    (6, 160, 3, 1),
    (6, 320, 1, 1),
)
MOBILENET_V2_LAST = 1280
MOBILENET_V2_LIMIT = 6.0  # of its activations
MOBILENET_SIZE = 1024  # of the embeddings
WAVE_FIRST = 64  # filters of the first convolution of the samples, with a kernel of 11 and a stride of 5
WAVE_CHANNELS = (64, 128, 128)  # of the blocks after it, each of which ends with the maximum of 4
WAVE_COLUMNS = 32  # that the last of these channels become: a row of 2 ms then is a row of 32 places and 4 channels
ATTENTION_LIMIT = 10.0
DROPOUT = 0.2  # after a block
RESIDUAL_DROPOUT = 0.1
HEAD_DROPOUT = 0.5
EPSILON = 1e-5  # of batch norms, and their momentum: PyTorch's defaults
MOMENTUM = 0.9


def panns_cnn(
    ops: Ops[Tensor],
    patches: Tensor,
    channels: Sequence[int] = CHANNELS,
    n_classes: int | None = 527,
    *,
    kernel: int = 3,
    embedding_size: int | None = None,
    decision: str = "clip",
) -> Outputs[Tensor]:
    """Scores and embeddings of clips by Cnn14, Cnn10 or Cnn6.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        Log-mel powers of ``frontend.published.PANNS`` or one of its variants; 32 frames at least, 16 with four blocks.
    channels : sequence of int
        One for each block.
    n_classes : int or None
        527 in the published networks; None for one that only embeds.
    kernel : {3, 5}
        5 for Cnn6, whose blocks have one convolution; the others' have two.
    embedding_size : int, optional
        As many as the last block's channels, unless given: 512, 128 and 32 in Cnn14_emb512 and its like.
    decision : {"clip", "max", "mean", "attention"}
        Whether classes are decided for the clip, or for each segment of 32 frames (16 with four blocks). A clip's
        score is then the largest of its segments', as in Cnn14_DecisionLevelMax, their mean, as in DecisionLevelAvg,
        or a mean that the network weighs, as in DecisionLevelAtt.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, embedding_size), none below 0, what the last layer sees; with a decision for
        segments, where the original returns none, the mean of what it sees of each. ``scores`` (n_patches,
        n_classes), independent for each class; ``logits``, but for means of scores; and, with a decision for
        segments, ``framewise`` (n_patches, n_segments, n_classes). Segments follow each other from the first frame;
        frames after the last whole one belong to that.

    Raises
    ------
    TypeError
        For another kernel or decision, or no classes to decide.
    """
    if n_classes is None and decision != "clip":
        raise TypeError(f"decision is {decision!r} and there are no classes to decide; expected 'clip'")
    if kernel not in CONVOLUTIONS or decision not in DECISIONS:
        raise TypeError(
            f"kernel is {kernel!r} and decision is {decision!r}; expected one of "
            f"{', '.join(map(str, CONVOLUTIONS))}, and one of {', '.join(DECISIONS)}"
        )
    x = _blocks(ops, _normalise(ops, patches), enumerate(channels, start=1), kernel)
    return DECISIONS[decision](ops, x, embedding_size or channels[-1], n_classes)


def panns_wavegram(
    ops: Ops[Tensor], waveforms: Tensor, channels: Sequence[int] = CHANNELS, n_classes: int = 527
) -> Outputs[Tensor]:
    """Scores and embeddings of clips by Wavegram_Cnn14, which sees their samples only.

    Parameters
    ----------
    ops : Ops
        The executor.
    waveforms : tensor, shape (n_patches, n_samples)
        At 32 kHz, in [-1, 1], from 32 frames of 10 ms.
    channels : sequence of int
        Of Cnn14's blocks; here the first makes way for blocks that see samples, and has their channels.
    n_classes : int
        527 in the published network.

    Returns
    -------
    Outputs
        As ``panns_cnn`` for the clip.
    """
    x = ops.dropout(_wavegram(ops, waveforms, channels[0]), DROPOUT)
    x = _blocks(ops, x, enumerate(channels[1:], start=2))
    return _decide_for_clip(ops, x, channels[-1], n_classes)


def panns_wavegram_logmel(
    ops: Ops[Tensor], patches: Tensor, waveforms: Tensor, channels: Sequence[int] = CHANNELS, n_classes: int = 527
) -> Outputs[Tensor]:
    """Scores and embeddings of clips by Wavegram_Logmel_Cnn14, which sees their samples too.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        Log-mel powers of ``frontend.published.PANNS``, 32 frames at least, twice as many bands as ``WAVE_COLUMNS``.
    waveforms : tensor, shape (n_patches, n_samples)
        Samples of each patch, as ``frontend.cutting.patch_waveforms`` gives them, so that both make as many rows.
    channels : sequence of int
        Of Cnn14's blocks; the first of the samples has as many as the first of the patches.
    n_classes : int
        527 in the published network.

    Returns
    -------
    Outputs
        As ``panns_cnn`` for the clip.
    """
    wavegram = _wavegram(ops, waveforms, channels[0])
    x = _halve(ops, _block(ops, _normalise(ops, patches), "conv_block1", channels[0]))
    x = ops.dropout(ops.concatenate(x, wavegram), DROPOUT)
    x = _blocks(ops, x, enumerate(channels[1:], start=2))
    return _decide_for_clip(ops, x, channels[-1], n_classes)


def panns_resnet(
    ops: Ops[Tensor],
    patches: Tensor,
    n_blocks: Sequence[int] = (3, 4, 6, 3),
    n_classes: int | None = 527,
    *,
    kernels: Sequence[int] = (3, 3),
    channels: Sequence[int] = RESNET_CHANNELS,
) -> Outputs[Tensor]:
    """Scores and embeddings of clips by ResNet38, ResNet22 or ResNet54.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        Log-mel powers of ``frontend.published.PANNS``, 32 frames at least.
    n_blocks : sequence of four int
        Residual blocks of each width: (2, 2, 2, 2) for ResNet22.
    n_classes : int or None
        527 in the published networks; None for one that only embeds.
    kernels : {(3, 3), (1, 3, 1)}
        Of the convolutions of a residual block: the latter for ResNet54, whose blocks end with four times the
        channels.
    channels : sequence of five int
        These widths, and the channels of the block after them: the size of the embeddings.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, embedding_size), none below 0, what the last layer sees; ``logits`` and ``scores``
        (n_patches, n_classes), an independent sigmoid for each class.

    Raises
    ------
    TypeError
        For other numbers of blocks or channels, or other kernels.
    """
    if len(n_blocks) != 4 or len(channels) != 5 or min(*n_blocks, *channels) < 1:
        raise TypeError(
            f"n_blocks is {n_blocks!r} and channels is {channels!r}; expected four and five numbers, each 1 or more"
        )
    if tuple(kernels) not in EXPANSIONS:
        raise TypeError(f"kernels is {kernels!r}; expected one of {', '.join(map(str, EXPANSIONS))}")
    *widths, n_last = channels
    x = _block(ops, _normalise(ops, patches), "conv_block1", widths[0])
    x = ops.dropout(_halve(ops, x), DROPOUT)
    for layer, (width, count) in enumerate(zip(widths, n_blocks, strict=True), start=1):
        for number in range(count):
            is_halved = layer > 1 and number == 0
            is_projected = is_halved or (number == 0 and EXPANSIONS[tuple(kernels)] > 1)
            x = _residual(ops, x, f"resnet.layer{layer}.{number}", width, kernels, is_halved, is_projected)
    x = ops.dropout(_halve(ops, x), DROPOUT)
    x = ops.dropout(_block(ops, x, "conv_block_after1", n_last), DROPOUT)
    return _decide_for_clip(ops, x, n_last, n_classes)


def panns_mobilenet(ops: Ops[Tensor], patches: Tensor, n_classes: int | None = 527) -> Outputs[Tensor]:
    """Scores and embeddings of clips by MobileNetV1.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        Log-mel powers of ``frontend.published.PANNS``, 32 frames at least.
    n_classes : int or None
        527 in the published network; None for one that only embeds.

    Returns
    -------
    Outputs
        ``embeddings`` (n_patches, 1024), none below 0, what the last layer sees; ``logits`` and ``scores``
        (n_patches, n_classes), an independent sigmoid for each class.
    """
    n_in = MOBILENET_FIRST
    x = _conv(ops, _normalise(ops, patches), "features.0.0", "features.0.2", n_in, pool=2)
    for number, (n_out, pool) in enumerate(MOBILENET_BLOCKS, start=1):
        layer = f"features.{number}"
        x = _conv(ops, x, f"{layer}.0", f"{layer}.2", n_in, groups=n_in, pool=pool)
        x = _conv(ops, x, f"{layer}.4", f"{layer}.5", n_out, kernel=1)
        n_in = n_out
    return _decide_for_clip(ops, x, n_in, n_classes)


def panns_mobilenet_v2(ops: Ops[Tensor], patches: Tensor, n_classes: int | None = 527) -> Outputs[Tensor]:
    """Scores and embeddings of clips by MobileNetV2.

    Parameters
    ----------
    ops : Ops
        The executor.
    patches : tensor, shape (n_patches, n_frames, n_mels)
        Log-mel powers of ``frontend.published.PANNS``, 32 frames at least.
    n_classes : int or None
        527 in the published network; None for one that only embeds.

    Returns
    -------
    Outputs
        As ``panns_mobilenet``.
    """
    limit = MOBILENET_V2_LIMIT
    n_in = MOBILENET_FIRST
    x = _conv(ops, _normalise(ops, patches), "features.0.0", "features.0.2", n_in, pool=2, limit=limit)
    number = 0
    for factor, n_out, n_blocks, pool in MOBILENET_V2_BLOCKS:
        for index in range(n_blocks):
            number += 1
            x = _inverted_residual(ops, x, f"features.{number}.conv", n_in, n_out, factor, 1 if index else pool)
            n_in = n_out
    last = f"features.{number + 1}"
    x = _conv(ops, x, f"{last}.0", f"{last}.1", MOBILENET_V2_LAST, kernel=1, limit=limit)
    return _decide_for_clip(ops, x, MOBILENET_SIZE, n_classes, dropout=0.0)


def _normalise(ops: Ops[Tensor], patches: Tensor) -> Tensor:
    """Each mel band by moments of its own."""
    return _batch_norm(ops, patches, "bn0", axis="width")


def _batch_norm(ops: Ops[Tensor], x: Tensor, layer: str, axis: str = "channels") -> Tensor:
    return ops.batch_norm(x, layer, epsilon=EPSILON, axis=axis, momentum=MOMENTUM, names=TORCH_NAMES)


def _halve(ops: Ops[Tensor], x: Tensor) -> Tensor:
    return ops.avg_pool(x, size=(2, 2), stride=2)


def _conv(
    ops: Ops[Tensor],
    x: Tensor,
    layer: str,
    norm: str,
    filters: int,
    *,
    kernel: int = 3,
    groups: int = 1,
    pool: int = 1,
    is_last: bool = False,
    limit: float | None = None,
) -> Tensor:
    """A convolution, pooling where there is some, its batch norm and, but for a residual's last, the activation."""
    x = ops.conv2d(x, layer, filters=filters, kernel=kernel, groups=groups, padding="symmetric", names=TORCH_NAMES)
    x = _halve(ops, x) if pool == 2 else x
    x = _batch_norm(ops, x, norm)
    return x if is_last else ops.relu(x, limit)


def _blocks(ops: Ops[Tensor], x: Tensor, numbered: Iterable[tuple[int, int]], kernel: int = 3) -> Tensor:
    """The blocks of these numbers and channels, with pooling and dropout."""
    for number, n_channels in numbered:
        x = _block(ops, x, f"conv_block{number}", n_channels, kernel)
        x = ops.dropout(_halve(ops, x) if number <= N_POOLED else x, DROPOUT)
    return x


def _block(ops: Ops[Tensor], x: Tensor, layer: str, filters: int, kernel: int = 3) -> Tensor:
    for number in range(1, CONVOLUTIONS[kernel] + 1):
        x = _conv(ops, x, f"{layer}.conv{number}", f"{layer}.bn{number}", filters, kernel=kernel)
    return x


def _residual(
    ops: Ops[Tensor],
    x: Tensor,
    layer: str,
    width: int,
    kernels: Sequence[int],
    is_halved: bool,
    is_projected: bool,
) -> Tensor:
    x = _halve(ops, x) if is_halved else x
    *others, last = enumerate(kernels, start=1)
    y = x
    for number, kernel in others:
        y = _conv(ops, y, f"{layer}.conv{number}", f"{layer}.bn{number}", width, kernel=kernel)
    n_out = width * EXPANSIONS[tuple(kernels)]
    number, kernel = last
    y = ops.dropout(y, RESIDUAL_DROPOUT)
    y = _conv(ops, y, f"{layer}.conv{number}", f"{layer}.bn{number}", n_out, kernel=kernel, is_last=True)
    if is_projected:
        first = int(is_halved)  # the original counts the pooling as a layer
        names = (f"{layer}.downsample.{first}", f"{layer}.downsample.{first + 1}")
        x = _conv(ops, x, *names, n_out, kernel=1, is_last=True)
    return ops.relu(ops.add(x, y))


def _inverted_residual(
    ops: Ops[Tensor], x: Tensor, layer: str, n_in: int, n_out: int, factor: int, pool: int
) -> Tensor:
    limit, n_within = MOBILENET_V2_LIMIT, n_in * factor
    y, first = x, 0
    if factor > 1:
        y, first = _conv(ops, y, f"{layer}.0", f"{layer}.1", n_within, kernel=1, limit=limit), 3
    names = (f"{layer}.{first}", f"{layer}.{first + 2}")  # the original counts the pooling as a layer
    y = _conv(ops, y, *names, n_within, groups=n_within, pool=pool, limit=limit)
    y = _conv(ops, y, f"{layer}.{first + 4}", f"{layer}.{first + 5}", n_out, kernel=1, is_last=True)
    return ops.add(x, y) if pool == 1 and n_in == n_out else y


def _wavegram(ops: Ops[Tensor], waveforms: Tensor, filters: int) -> Tensor:
    """A map of 20 ms rows and ``WAVE_COLUMNS`` columns from samples."""
    x = ops.conv1d(waveforms, "pre_conv0", filters=WAVE_FIRST, kernel=11, stride=5)
    x = ops.relu(_batch_norm(ops, x, "pre_bn0"))
    for block, n_channels in enumerate(WAVE_CHANNELS, start=1):
        for number in (1, 2):  # also the dilation
            layer = f"pre_block{block}.conv{number}"
            x = ops.conv1d(x, layer, filters=n_channels, kernel=3, dilation=number)
            x = ops.relu(_batch_norm(ops, x, f"pre_block{block}.bn{number}"))
        x = ops.max_pool(x, size=(1, 4), stride=(1, 4), padding="none")
    x = _block(ops, ops.spread(x, WAVE_COLUMNS), "pre_block4", filters)
    return ops.avg_pool(x, size=(2, 1), stride=(2, 1))


def _decide_for_clip(
    ops: Ops[Tensor], x: Tensor, embedding_size: int, n_classes: int | None, dropout: float = HEAD_DROPOUT
) -> Outputs[Tensor]:
    frames = ops.width_mean(x)
    summary = ops.dropout(ops.add(ops.spatial_max(frames), ops.spatial_mean(frames)), dropout)
    embeddings = ops.relu(ops.dense(summary, "fc1", embedding_size, names=TORCH_NAMES))
    if n_classes is None:
        return Outputs(embeddings=embeddings)
    logits = ops.dense(embeddings, "fc_audioset", n_classes, names=TORCH_NAMES)
    return Outputs(embeddings=embeddings, logits=logits, scores=ops.sigmoid(logits))


def _segments(ops: Ops[Tensor], x: Tensor, embedding_size: int) -> Tensor:
    """What the last layer sees of each segment: a map of one column."""
    frames = ops.width_mean(x)
    means = ops.avg_pool(frames, size=(3, 1), stride=1, padding="symmetric")
    segments = ops.dropout(ops.add(ops.max_pool(frames, size=3, stride=1), means), HEAD_DROPOUT)
    return ops.relu(ops.pointwise_dense(segments, "fc1", embedding_size, names=TORCH_NAMES))


def _decide_by_max(ops: Ops[Tensor], x: Tensor, embedding_size: int, n_classes: int) -> Outputs[Tensor]:
    hidden = _segments(ops, x, embedding_size)
    last = ops.pointwise_dense(ops.dropout(hidden, HEAD_DROPOUT), "fc_audioset", n_classes, names=TORCH_NAMES)
    logits = ops.spatial_max(last)  # the sigmoid of the largest is the largest sigmoid
    framewise = ops.rows(ops.sigmoid(last))
    return Outputs(ops.spatial_mean(hidden), logits, ops.sigmoid(logits), framewise)


def _decide_by_mean(ops: Ops[Tensor], x: Tensor, embedding_size: int, n_classes: int) -> Outputs[Tensor]:
    hidden = _segments(ops, x, embedding_size)
    last = ops.pointwise_dense(ops.dropout(hidden, HEAD_DROPOUT), "fc_audioset", n_classes, names=TORCH_NAMES)
    scores = ops.sigmoid(last)
    return Outputs(ops.spatial_mean(hidden), None, ops.spatial_mean(scores), ops.rows(scores))


def _decide_by_attention(ops: Ops[Tensor], x: Tensor, embedding_size: int, n_classes: int) -> Outputs[Tensor]:
    hidden = _segments(ops, x, embedding_size)
    seen = ops.dropout(hidden, HEAD_DROPOUT)
    weights = ops.conv1d(seen, "att_block.att", filters=n_classes, kernel=1, bias=True)
    scores = ops.sigmoid(ops.conv1d(seen, "att_block.cla", filters=n_classes, kernel=1, bias=True))
    clip_scores = ops.attention_mean(scores, weights, ATTENTION_LIMIT)
    return Outputs(ops.spatial_mean(hidden), None, clip_scores, ops.rows(scores))


DECISIONS: dict[str, Callable[..., Outputs[Any]]] = {
    "clip": _decide_for_clip,
    "max": _decide_by_max,
    "mean": _decide_by_mean,
    "attention": _decide_by_attention,
}
