"""Heads: classifiers of clips on the embeddings that AudioSet was released with, 128 bytes for each second.

Those here are Kong's, which pool the seconds of a clip in five ways; YouTube-8M's are in ``youtube8m_heads``, and our
own is in ``two_branch``.

Source: qiuqiangkong/audioset_classification, pytorch/models.py; Kong et al. 2018 (arXiv 1711.00927), Yu et al. 2018
(arXiv 1803.02353), Kong et al. 2019 (arXiv 1903.00765). On stored references, made with generated weights, the scores
of all five are within 8e-7 of the original's in OpenVINO, ONNX Runtime, PyTorch and Keras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from audioset.networks.ops import KERAS_NAMES, TORCH_NAMES, Network, Ops, Outputs, Tensor
from audioset.networks.two_branch import RECIPE, two_branch
from audioset.networks.youtube8m_heads import dbof, frame_logistic, logistic, lstm, moe

HIDDEN_SIZE = 1024
DROPOUT = 0.5
CENTRE = 128.0  # of the bytes, which become numbers from -1 to 0.992
ATTENTION_LIMITS = (1e-7, 1 - 1e-7)
PADDINGS = ("mask", "zero")


@dataclass(frozen=True)
class Variant:
    """What the PyTorch and the Keras edition of the original do not share."""

    has_input_norm: bool  # whether the embeddings are normalised by moments of their own
    attends: str  # primitive that makes attention of numbers: ``sigmoid``, or ``softmax`` over the classes
    is_attention_shared: bool  # whether both levels of ``multi_attention`` have the same weights
    epsilon: float  # of batch norms
    momentum: float  # of batch norms
    is_torch: bool  # whether the layers have the names and layouts of the published PyTorch code


VARIANTS = {
    "torch": Variant(True, "sigmoid", True, 1e-5, 0.9, True),
    "keras": Variant(False, "softmax", False, 1e-3, 0.99, False),
}


def kong(
    ops: Ops[Tensor],
    embeddings: Tensor,
    mask: Tensor,
    *,
    pooling: str,
    n_classes: int = 527,
    padding: str = "zero",
    variant: str = "torch",
) -> Outputs[Tensor]:
    """Scores of clips by one of Kong's five heads.

    Parameters
    ----------
    ops : Ops
        The executor.
    embeddings : tensor, shape (n_clips, n_seconds, 128)
        The released bytes, 0 to 255, as float32.
    mask : tensor, shape (n_clips, n_seconds)
        1 for the seconds of a clip, 0 for the padding after them.
    pooling : {"average", "max", "single_attention", "multi_attention", "feature_attention"}
        How the seconds of a clip become one: the mean, or the largest, of their scores; their scores weighed by
        attention; the same on two levels; or what the last hidden layer says of them, weighed by attention.
    n_classes : int
        527 in the original.
    padding : {"zero", "mask"}
        ``"zero"``, as in the original: the mask is not used, so padding counts as seconds whose bytes are 0, which is
        a loud input (-1 in each place). ``"mask"``: only the seconds of the clip are pooled. In training, batch norms
        see the padding either way.
    variant : {"torch", "keras"}
        The original comes in two editions. ``"keras"`` does not normalise its input, lets the classes compete for
        attention (softmax) and attends to both levels of ``multi_attention`` by weights of their own. No checkpoint
        of it was published; its layers are named by us.

    Returns
    -------
    Outputs
        ``scores`` (n_clips, n_classes), independent for each class; ``logits`` for the last two poolings.
        ``embeddings``: the mean over the seconds of what the last hidden layer says (n_clips, 1024), and with
        ``feature_attention`` what the last layer sees. For the first three poolings, ``framewise`` (n_clips,
        n_seconds, n_classes) are the scores of the seconds before pooling, of padding too.

    Raises
    ------
    TypeError
        For another pooling, padding or variant.
    """
    if pooling not in POOLINGS or padding not in PADDINGS or variant not in VARIANTS:
        raise TypeError(
            f"pooling is {pooling!r}, padding {padding!r} and variant {variant!r}; expected one of "
            f"{', '.join(POOLINGS)}, one of {', '.join(PADDINGS)} and one of {', '.join(VARIANTS)}"
        )
    head = _Layers(ops, VARIANTS[variant], mask if padding == "mask" else None)
    x = ops.affine(embeddings, 1 / CENTRE, -1.0)
    if head.variant.has_input_norm:
        x = head.batch_norm(x, "emb.bn0")
    first = head.hidden(x, 1)
    second = head.hidden(first, 2)
    return POOLINGS[pooling](head, second, head.hidden(second, 3), n_classes)


class _Layers:
    """The layers that the five heads are made of, in one variant; without a mask, all seconds count."""

    def __init__(self, ops: Ops[Any], variant: Variant, mask: Any) -> None:
        self.ops = ops
        self.variant = variant
        self.mask = mask
        self.names = TORCH_NAMES if variant.is_torch else KERAS_NAMES

    def hidden(self, x: Any, number: int) -> Any:
        """One of the three layers that each second passes on its own."""
        x = self.pointwise(x, f"emb.conv{number}", HIDDEN_SIZE, bias=not self.variant.is_torch)
        return self.normalise(x, f"emb.bn{number}")

    def pointwise(self, x: Any, layer: str, units: int, *, bias: bool = True) -> Any:
        """A layer that the original's PyTorch edition writes as a convolution of 1 by 1."""
        if self.variant.is_torch:
            return self.ops.conv2d(x, layer, filters=units, kernel=1, bias=bias, names=self.names)
        return self.ops.pointwise_dense(x, layer, units, bias=bias, names=self.names)

    def normalise(self, x: Any, layer: str) -> Any:
        """Batch norm, activation and dropout."""
        return self.ops.dropout(self.ops.relu(self.batch_norm(x, layer)), DROPOUT)

    def batch_norm(self, x: Any, layer: str) -> Any:
        epsilon, momentum = self.variant.epsilon, self.variant.momentum
        return self.ops.batch_norm(x, layer, epsilon=epsilon, momentum=momentum, names=self.names)

    def attend(self, x: Any, layer: str, units: int, activation: Callable[[Any], Any]) -> tuple[Any, Any]:
        """What a layer says of each second, and its mean weighed by attention, as a map of one row."""
        ops = self.ops
        attends = getattr(ops, self.variant.attends)
        weights = ops.clip(attends(self.pointwise(x, f"{layer}.att", units)), *ATTENTION_LIMITS)
        weights = weights if self.mask is None else ops.multiply(weights, self.mask)
        said = activation(self.pointwise(x, f"{layer}.cla", units))
        return said, ops.height_mean(said, weights)

    def mean(self, x: Any) -> Any:
        """Mean over the seconds: (n_clips, channels)."""
        return self.ops.flatten(self.ops.height_mean(x, self.mask))

    def last(self, x: Any, n_classes: int) -> Any:
        return self.ops.dense(x, "fc_final", n_classes, names=self.names)

    def last_of_seconds(self, x: Any, n_classes: int) -> Any:
        """Scores of each second."""
        return self.ops.sigmoid(self.ops.pointwise_dense(x, "fc_final", n_classes, names=self.names))


def _pool_by_mean(head: _Layers, second: Any, third: Any, n_classes: int) -> Outputs[Any]:
    scores = head.last_of_seconds(third, n_classes)
    return Outputs(head.mean(third), None, head.mean(scores), head.ops.rows(scores))


def _pool_by_max(head: _Layers, second: Any, third: Any, n_classes: int) -> Outputs[Any]:
    ops = head.ops
    scores = head.last_of_seconds(third, n_classes)
    seen = scores if head.mask is None else ops.multiply(scores, head.mask)  # no score is below 0
    return Outputs(head.mean(third), None, ops.flatten(ops.height_max(seen)), ops.rows(scores))


def _pool_by_attention(head: _Layers, second: Any, third: Any, n_classes: int) -> Outputs[Any]:
    scores, pooled = head.attend(third, "attention", n_classes, head.ops.sigmoid)
    return Outputs(head.mean(third), None, head.ops.flatten(pooled), head.ops.rows(scores))


def _pool_two_levels(head: _Layers, second: Any, third: Any, n_classes: int) -> Outputs[Any]:
    ops = head.ops
    layers = ("attention", "attention") if head.variant.is_attention_shared else ("attention3", "attention2")
    levels = zip((third, second), layers, strict=True)
    pooled = [head.attend(level, layer, n_classes, ops.sigmoid)[1] for level, layer in levels]
    logits = head.last(ops.flatten(ops.concatenate(*pooled)), n_classes)
    return Outputs(head.mean(third), logits, ops.sigmoid(logits))


def _pool_features(head: _Layers, second: Any, third: Any, n_classes: int) -> Outputs[Any]:
    ops = head.ops
    _, pooled = head.attend(third, "attention", HIDDEN_SIZE, lambda x: x)
    embeddings = ops.flatten(head.normalise(pooled, "bn_attention"))
    logits = head.last(embeddings, n_classes)
    return Outputs(embeddings, logits, ops.sigmoid(logits))


POOLINGS: dict[str, Callable[..., Outputs[Any]]] = {
    "average": _pool_by_mean,
    "max": _pool_by_max,
    "single_attention": _pool_by_attention,
    "multi_attention": _pool_two_levels,
    "feature_attention": _pool_features,
}


@dataclass(frozen=True)
class HeadSpec:
    """One kind of head."""

    name: str
    network: Network  # sees ``embeddings`` and ``mask``
    arguments: dict[str, Any] = field(default_factory=dict)  # its own, but for ``n_classes`` and ``padding``
    summary: str = ""  # one line for people
    source: str = ""  # where the original is, of a published one
    # Settings of ``audioset.train.TrainConfig`` that it is best trained with, where they are not the defaults.
    recipe: dict[str, Any] = field(default_factory=dict)


def _kong_head(name: str, pooling: str, summary: str) -> HeadSpec:
    source = "https://github.com/qiuqiangkong/audioset_classification"
    return HeadSpec(name, kong, {"pooling": pooling}, summary, source)


def _youtube8m_head(name: str, network: Network, summary: str) -> HeadSpec:
    return HeadSpec(name, network, {}, summary, "https://github.com/google/youtube-8m")


HEADS: dict[str, HeadSpec] = {
    head.name: head
    for head in (
        _kong_head("average-pooling", "average", "three layers for each second, mean of the seconds' scores"),
        _kong_head("max-pooling", "max", "three layers for each second, the largest of the seconds' scores"),
        _kong_head("single-attention", "single_attention", "the seconds' scores, weighed by attention of each class"),
        _kong_head("multi-attention", "multi_attention", "the same on two levels, joined by one more layer"),
        _kong_head("feature-attention", "feature_attention", "the seconds' features, weighed by attention of each"),
        _youtube8m_head("logistic", logistic, "one layer on the mean of the seconds"),
        _youtube8m_head("moe", moe, "for each class, two experts and a gate on the mean of the seconds"),
        _youtube8m_head("frame-logistic", frame_logistic, "one layer on the mean of the seconds, each normalised"),
        _youtube8m_head("dbof", dbof, "deep bag of frames: 8,192 clusters, the largest over the seconds, experts"),
        _youtube8m_head("lstm", lstm, "two LSTM layers of 1,024 over the seconds, experts on the last output"),
        HeadSpec(
            "two-branch", two_branch, {}, "our own: the clip as a whole, and its seconds by attention", "", RECIPE
        ),
    )
}
