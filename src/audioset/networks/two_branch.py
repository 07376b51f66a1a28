"""Our own head: one layer for each second, and on it two branches, each trained by a loss of its own.

The clip branch sees a clip as a whole: mean and maximum of what the layer says, and four statistics of the embeddings.
The frame branch decides second by second, and each class attends to the seconds for itself, as in Kong's single
attention. They err on different clips, so the mean of their scores is better than each.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from audioset.networks.ops import TORCH_NAMES, Ops, Outputs, Tensor

CENTRE, SPREAD = 127.5, 64.0  # of the bytes, which become numbers from -2 to 2
HIGHEST = 255.0
DEVIATION_FLOOR = 1e-3  # added to a variance, so that its root has a gradient at 0
EPSILON, MOMENTUM = 1e-5, 0.9  # of batch norms
ATTENTION_LIMITS = (1e-7, 1 - 1e-7)
PADDINGS = ("mask", "zero")

# Chosen on clips kept from the balanced training set; see docs/heads.md. There are 22,160 clips in all of it.
RECIPE: dict[str, Any] = {
    "sampler": "uniform",
    "whole_batches": True,
    "batch_size": 500,
    "n_iterations": 1100,
    "mixup": 1.0,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "epsilon": 1e-8,
    "weight_decay": 0.02,
    "schedule": "cosine",
    "ema": 0.98,
}


def two_branch(
    ops: Ops[Tensor],
    embeddings: Tensor,
    mask: Tensor,
    *,
    n_classes: int = 527,
    padding: str = "mask",
    n_frame: int = 1024,
    n_clip: int = 1024,
    n_attention: int = 768,
    pool_dropout: float = 0.2,
    clip_dropout: float = 0.5,
    frame_dropout: float = 0.3,
) -> Outputs[Tensor]:
    """Scores of clips by a branch that sees the clip as a whole, and one that sees its seconds.

    Parameters
    ----------
    ops : Ops
        The executor.
    embeddings : tensor, shape (n_clips, n_seconds, 128)
        The released bytes, 0 to 255, as float32.
    mask : tensor, shape (n_clips, n_seconds)
        1 for the seconds of a clip, 0 for the padding after them.
    n_classes : int
    padding : {"mask", "zero"}
        ``"mask"``: only the seconds of the clip are pooled. ``"zero"``: the mask is not used, so padding counts as
        seconds whose bytes are 0. In training, batch norms see the padding either way.
    n_frame, n_clip, n_attention : int
        Units of the layer that both branches share, of the clip branch, and of the frame branch's two layers.
    pool_dropout, clip_dropout, frame_dropout : float
        Rates in training: on what the clip branch pools, on its hidden layer, and before and in the frame branch.

    Returns
    -------
    Outputs
        ``scores`` (n_clips, n_classes), independent for each class: the mean of the two ``branches``, the clip's
        first. No logits. ``embeddings`` (n_clips, n_clip): the clip branch's hidden layer. ``framewise`` (n_clips,
        n_seconds, n_classes): what the frame branch says of each second, of padding too.

    Raises
    ------
    TypeError
        For another padding.
    """
    if padding not in PADDINGS:
        raise TypeError(f"padding is {padding!r}; expected one of {', '.join(PADDINGS)}")
    head = _Layers(ops, mask if padding == "mask" else None)
    x = ops.affine(embeddings, 1 / SPREAD, -CENTRE / SPREAD)
    shared = head.hidden(head.batch_norm(x, "input_bn"), "shared", n_frame, 0.0)

    pooled = reduce(ops.concatenate, (*head.mean_and_max(shared), *head.statistics(embeddings, x)))
    pooled = ops.dropout(head.batch_norm(pooled, "pool_bn"), pool_dropout)
    hidden = head.hidden(pooled, "clip", n_clip, clip_dropout)
    clip = ops.sigmoid(head.dense(hidden, "clip_out", n_classes))

    frames = ops.dropout(shared, frame_dropout)
    for number in (1, 2):
        frames = head.hidden(frames, f"frame{number}", n_attention, frame_dropout)
    framewise, frame = head.attend(frames, "attention", n_classes)

    scores = ops.affine(ops.add(clip, frame), 0.5, 0.0)
    return Outputs(ops.flatten(hidden), None, ops.flatten(scores), ops.rows(framewise), (clip, frame))


class _Layers:
    """What the two branches are made of; without a mask, all seconds count."""

    def __init__(self, ops: Ops[Any], mask: Any) -> None:
        self.ops = ops
        self.mask = mask

    def dense(self, x: Any, layer: str, units: int, *, bias: bool = True) -> Any:
        return self.ops.pointwise_dense(x, layer, units, bias=bias, names=TORCH_NAMES)

    def batch_norm(self, x: Any, layer: str) -> Any:
        return self.ops.batch_norm(x, layer, epsilon=EPSILON, momentum=MOMENTUM, names=TORCH_NAMES)

    def hidden(self, x: Any, layer: str, units: int, dropout: float) -> Any:
        """A layer with batch norm, activation and dropout."""
        x = self.batch_norm(self.dense(x, layer, units, bias=False), f"{layer}_bn")
        return self.ops.dropout(self.ops.relu(x), dropout)

    def masked(self, x: Any) -> Any:
        """0 in place of padding."""
        return x if self.mask is None else self.ops.multiply(x, self.mask)

    def mean_and_max(self, x: Any) -> tuple[Any, Any]:
        """Over the seconds, of numbers of which none is below 0."""
        return self.ops.height_mean(x, self.mask), self.ops.height_max(self.masked(x))

    def statistics(self, embeddings: Any, x: Any) -> tuple[Any, Any, Any, Any]:
        """Mean, maximum, minimum and deviation over the seconds of the scaled embeddings.

        The extremes are taken of bytes, where the 0 of padding is neutral.
        """
        ops = self.ops
        mean = ops.height_mean(x, self.mask)
        highest = ops.height_max(self.masked(embeddings))
        below = ops.height_max(self.masked(ops.affine(x, -SPREAD, HIGHEST - CENTRE)))  # how far the lowest is from 255
        mean_square = ops.height_mean(ops.multiply(x, x), self.mask)
        square_of_mean = ops.multiply(mean, mean)
        variance = ops.add(mean_square, ops.affine(square_of_mean, -1.0, DEVIATION_FLOOR))
        return (
            mean,
            ops.affine(highest, 1 / SPREAD, -CENTRE / SPREAD),
            ops.affine(below, -1 / SPREAD, (HIGHEST - CENTRE) / SPREAD),
            ops.sqrt(variance),
        )

    def attend(self, x: Any, layer: str, units: int) -> tuple[Any, Any]:
        """Scores of each second, and their mean weighed by attention, as a map of one row."""
        ops = self.ops
        weights = ops.clip(ops.sigmoid(self.dense(x, f"{layer}.att", units)), *ATTENTION_LIMITS)
        scores = ops.sigmoid(self.dense(x, f"{layer}.cla", units))
        return scores, ops.height_mean(scores, self.masked(weights))
