"""YouTube-8M's heads: classifiers of clips on embeddings of 8 bits, one for each second.

All of them scale the bytes back to whitened values and divide by their Euclidean length. Unlike Kong's, the originals
know how long a clip is.

Source: google/youtube-8m, video_level_models.py and frame_level_models.py, of TensorFlow 1.14.
"""

from __future__ import annotations

from typing import Any

from audioset.networks.ops import SLIM_NAMES, Names, Ops, Outputs, Tensor

EPSILON = 1e-3  # of batch norms, and their momentum: Slim's defaults
MOMENTUM = 0.999
SHORTEST = 1e-6  # length that shorter vectors count as
N_EXPERTS = 2
N_DRAWN = 30
CLUSTERS = 8192
HIDDEN_SIZE = 1024
LSTM_LAYERS = ("rnn/multi_rnn_cell/cell_0/basic_lstm_cell", "rnn/multi_rnn_cell/cell_1/basic_lstm_cell")
FORGET_BIAS = 1.0
MATRIX_NAMES = Names(separator="_", weight="weights")  # "cluster_weights"
LAST = "fully_connected"


def logistic(
    ops: Ops[Tensor], embeddings: Tensor, mask: Tensor, *, n_classes: int = 527, padding: str = "mask"
) -> Outputs[Tensor]:
    """Scores by one layer on the mean of a clip's seconds: LogisticModel.

    The original reads means that were taken of the features before they were quantised, and normalises them; these
    are taken of the quantised ones.

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
        ``"mask"``, as in the original: only the seconds of the clip count. ``"zero"``: the mask is not used, so
        padding counts as seconds whose bytes are 0.

    Returns
    -------
    Outputs
        ``scores`` (n_clips, n_classes), independent for each class, and ``logits``; ``embeddings`` (n_clips, 128),
        what the layer sees.
    """
    x = _normalised_mean(ops, embeddings, _used(mask, padding))
    return _decide_by_layer(ops, x, n_classes)


def moe(
    ops: Ops[Tensor], embeddings: Tensor, mask: Tensor, *, n_classes: int = 527, padding: str = "mask"
) -> Outputs[Tensor]:
    """Scores by two experts for each class on the mean of a clip's seconds: MoeModel.

    Parameters
    ----------
    ops, embeddings, mask, n_classes, padding
        As for ``logistic``.

    Returns
    -------
    Outputs
        ``scores`` (n_clips, n_classes); no logits, for scores are means of the experts'. ``embeddings`` (n_clips,
        128), what experts and gates see.
    """
    x = _normalised_mean(ops, embeddings, _used(mask, padding))
    return _decide_by_experts(ops, x, n_classes)


def frame_logistic(
    ops: Ops[Tensor], embeddings: Tensor, mask: Tensor, *, n_classes: int = 527, padding: str = "mask"
) -> Outputs[Tensor]:
    """Scores by one layer on the mean of a clip's normalised seconds: FrameLevelLogisticModel.

    Parameters
    ----------
    ops, embeddings, mask, n_classes, padding
        As for ``logistic``.

    Returns
    -------
    Outputs
        As of ``logistic``.
    """
    x = ops.height_mean(_normalised(ops, embeddings), _used(mask, padding))
    return _decide_by_layer(ops, ops.flatten(x), n_classes)


def dbof(
    ops: Ops[Tensor], embeddings: Tensor, mask: Tensor, *, n_classes: int = 527, padding: str = "mask"
) -> Outputs[Tensor]:
    """Scores by a deep bag of frames: DbofModel with batch norms, sigmoids, and the maximum over the seconds.

    In training, 30 seconds of each clip are drawn with replacement. The original draws them in evaluation too, so that
    it gives other scores each time; here all seconds are used then, once each.

    Parameters
    ----------
    ops, embeddings, mask, n_classes, padding
        As for ``logistic``.

    Returns
    -------
    Outputs
        ``scores`` (n_clips, n_classes); no logits. ``embeddings`` (n_clips, 1024), what experts and gates see.
    """
    x, drawn_mask = ops.draw_rows(_normalised(ops, embeddings), _used(mask, padding), N_DRAWN)
    x = ops.batch_norm(x, "input_bn", epsilon=EPSILON, momentum=MOMENTUM)
    x = _cluster(ops, x, "cluster", CLUSTERS)
    x = x if drawn_mask is None else ops.multiply(x, drawn_mask)  # no activation is below 0
    x = _cluster(ops, ops.height_max(x), "hidden1", HIDDEN_SIZE)
    return _decide_by_experts(ops, ops.flatten(x), n_classes)


def lstm(
    ops: Ops[Tensor], embeddings: Tensor, mask: Tensor, *, n_classes: int = 527, padding: str = "mask"
) -> Outputs[Tensor]:
    """Scores by two LSTM layers of 1,024 units that read the seconds in order: LstmModel.

    Parameters
    ----------
    ops, embeddings, mask, n_classes, padding
        As for ``logistic``.

    Returns
    -------
    Outputs
        ``scores`` (n_clips, n_classes); no logits. ``embeddings`` (n_clips, 1024), the second layer's output at the
        last second.
    """
    x = _normalised(ops, embeddings)
    x = ops.lstm(x, _used(mask, padding), LSTM_LAYERS, HIDDEN_SIZE, FORGET_BIAS)
    return _decide_by_experts(ops, x, n_classes)


def _used(mask: Any, padding: str) -> Any:
    """The mask, or None where padding counts as seconds."""
    if padding not in ("mask", "zero"):
        raise TypeError(f"padding is {padding!r}; expected one of mask, zero")
    return mask if padding == "mask" else None


def _dequantised(ops: Ops[Tensor], embeddings: Tensor) -> Tensor:
    """Whitened values of the bytes; see ``postprocess.dequantize``."""
    return ops.affine(embeddings, 4 / 255, 4 / 512 - 2)


def _normalised(ops: Ops[Tensor], embeddings: Tensor) -> Tensor:
    return ops.l2_normalize(_dequantised(ops, embeddings), SHORTEST)


def _normalised_mean(ops: Ops[Tensor], embeddings: Tensor, mask: Tensor | None) -> Tensor:
    mean = ops.height_mean(_dequantised(ops, embeddings), mask)
    return ops.flatten(ops.l2_normalize(mean, SHORTEST))


def _cluster(ops: Ops[Tensor], x: Tensor, layer: str, units: int) -> Tensor:
    x = ops.pointwise_dense(x, layer, units, bias=False, names=MATRIX_NAMES)
    return ops.sigmoid(ops.batch_norm(x, f"{layer}_bn", epsilon=EPSILON, momentum=MOMENTUM))


def _decide_by_layer(ops: Ops[Tensor], x: Tensor, n_classes: int) -> Outputs[Tensor]:
    logits = ops.dense(x, LAST, n_classes, names=SLIM_NAMES)
    return Outputs(embeddings=x, logits=logits, scores=ops.sigmoid(logits))


def _decide_by_experts(ops: Ops[Tensor], x: Tensor, n_classes: int) -> Outputs[Tensor]:
    gates = ops.dense(x, "gates", n_classes * (N_EXPERTS + 1), bias=False, names=SLIM_NAMES)
    experts = ops.sigmoid(ops.dense(x, "experts", n_classes * N_EXPERTS, names=SLIM_NAMES))
    return Outputs(embeddings=x, scores=ops.mixture(gates, experts, N_EXPERTS))
