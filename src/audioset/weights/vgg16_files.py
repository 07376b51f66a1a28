"""Read the published weights of VGG16, torchvision's and Keras's, into one layout.

Kernels are torchvision's (out, in, height, width), and dense weights (out, in). The first dense layer alone has
another order than in torchvision's file: its inputs are places of a map with the channels last, as ``Ops.flatten``
makes them, which is Keras's order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audioset.arrays import FloatArray
from audioset.errors import WeightsError
from audioset.networks.vgg16 import BLOCKS
from audioset.weights.keras_h5 import read_keras_h5
from audioset.weights.torch_zip import read_torch_zip

Shape = tuple[int, ...]

FIRST_DENSE = "classifier.0.weight"
N_CHANNELS = BLOCKS[-1][0]
LAST = "classifier.6"  # of the thousand kinds of photographs
N_PHOTOGRAPHS = 1000
# Keras's name of each of torchvision's layers
KERAS_LAYERS = {
    **{
        f"features.{place}": f"block{block}_conv{number}"
        for block, (_, places) in enumerate(BLOCKS, start=1)
        for number, place in enumerate(places, start=1)
    },
    "classifier.0": "fc1",
    "classifier.3": "fc2",
    LAST: "predictions",
}
# A layer's tensors in files as they are saved today, and in the one that was published in 2016.
KERAS_STYLES = ({"weight": "kernel", "bias": "bias"}, {"weight": "{layer}_W_1", "bias": "{layer}_b_1"})


def read_vgg16_torch(path: Path, shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
    """Read ``vgg16-397923af.pth`` or another state dict of torchvision's network, without its last layer.

    ``shapes`` are by torchvision's names. Fails as ``read_torch_zip``.
    """
    weights = read_torch_zip(path, shapes, ignored=(f"{LAST}.*",))
    weight = weights[FIRST_DENSE]
    maps = weight.reshape(len(weight), N_CHANNELS, -1)  # the map is as high as it is wide
    weights[FIRST_DENSE] = np.ascontiguousarray(maps.transpose(0, 2, 1)).reshape(weight.shape)
    return weights


def read_vgg16_keras(path: Path, shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
    """Read ``vgg16_weights_tf_dim_ordering_tf_kernels.h5`` or another saving of Keras's, without its last layer.

    ``shapes`` are by torchvision's names. Fails as ``read_keras_h5``.
    """
    n_hidden = shapes["classifier.3.bias"][0]
    stored = {**shapes, f"{LAST}.weight": (N_PHOTOGRAPHS, n_hidden), f"{LAST}.bias": (N_PHOTOGRAPHS,)}
    failure: WeightsError | None = None
    for style in KERAS_STYLES:
        names = {name: _keras_name(name, style) for name in stored}
        try:
            weights = read_keras_h5(path, {names[name]: _keras_shape(shape) for name, shape in stored.items()})
        except WeightsError as error:
            failure = failure or error
        else:
            return {name: _from_keras(weights[names[name]]) for name in shapes}
    raise failure or WeightsError(f"{path} cannot be read")


def _keras_name(name: str, style: Mapping[str, str]) -> str:
    layer, _, kind = name.rpartition(".")
    keras_layer = KERAS_LAYERS[layer]
    return f"{keras_layer}/{style[kind].format(layer=keras_layer)}"


def _keras_shape(shape: Shape) -> Shape:
    """Of the same tensor in Keras, which has outputs last."""
    orders = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
    return tuple(shape[axis] for axis in orders[len(shape)])


def _from_keras(value: FloatArray) -> FloatArray:
    orders = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    return np.ascontiguousarray(value.transpose(orders[value.ndim]))
