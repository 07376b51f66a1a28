"""The table of models: which network, frontend, labels and files belong to a name."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from audioset.arrays import FloatArray
from audioset.errors import UsageError
from audioset.models.cards import FRONTENDS, NETWORKS, NO_LABELS, patch_shape
from audioset.networks.shapes import trace_shapes
from audioset.weights.keras_h5 import read_keras_h5
from audioset.weights.model_folder import CARD_NAME
from audioset.weights.tf_checkpoint import read_tf_checkpoint
from audioset.weights.torch_zip import read_torch_zip
from audioset.weights.vgg16_files import read_vgg16_keras, read_vgg16_torch

WeightReader = Callable[[Path, Mapping[str, tuple[int, ...]]], dict[str, FloatArray]]

BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"


@dataclass(frozen=True)
class ModelSpec:
    """One published model."""

    name: str
    network: str  # key of ``NETWORKS``
    frontend: str  # key of ``FRONTENDS``
    labels: str  # name of a label set, or ``NO_LABELS``
    weights: str  # asset with the published checkpoint
    reader: WeightReader  # reads that checkpoint
    summary: str  # one line for people
    source: str  # where the original is
    mean_ap: float | None  # published, on the AudioSet evaluation set; None for a network that only embeds
    arguments: dict[str, Any] = field(default_factory=dict)  # keyword arguments of the network
    postprocessor: str | None = None  # asset with the parameters that quantise its embeddings

    @property
    def n_parameters(self) -> int:
        """Numbers in all tensors of the network, the stored moments of batch norms among them."""
        shapes, _ = trace_shapes(NETWORKS[self.network], patch_shape(FRONTENDS[self.frontend]), self.arguments)
        return sum(math.prod(shape) for shape in shapes.values())


def _mobilenet(name: str, file: str, width: float, frontend: str = "efficientat", **arguments: Any) -> ModelSpec:
    """One of EfficientAT's networks; its mean average precision is in the name of its file."""
    return ModelSpec(
        name=name,
        network="mobilenet",
        arguments={"width": width, "n_classes": 527, **arguments},
        frontend=frontend,
        labels="audioset-527",
        weights=file,
        reader=read_torch_zip,
        summary=f"MobileNet v3 of width {width:g} on clips of up to 10 s; 527 classes; EfficientAT",
        source="https://github.com/fschmid56/EfficientAT",
        mean_ap=int(re.findall(r"mAP_(\d+)", file)[0]) / 1000,
    )


# models/mn/model.py of EfficientAT. Where several runs were published, the first has the plain name.
MOBILENETS = (
    _mobilenet("mn01_as", "mn01_as_mAP_298.pt", 0.1),
    _mobilenet("mn02_as", "mn02_as_mAP_378.pt", 0.2),
    _mobilenet("mn04_as", "mn04_as_mAP_432.pt", 0.4),
    _mobilenet("mn05_as", "mn05_as_mAP_443.pt", 0.5),
    _mobilenet("mn10_as", "mn10_as_mAP_471.pt", 1.0),
    _mobilenet("mn20_as", "mn20_as_mAP_478.pt", 2.0),
    _mobilenet("mn30_as", "mn30_as_mAP_482.pt", 3.0),
    _mobilenet("mn40_as", "mn40_as_mAP_484.pt", 4.0),
    _mobilenet("mn40_as_2", "mn40_as_mAP_483.pt", 4.0),
    _mobilenet("mn40_as_3", "mn40_as_mAP_483(2).pt", 4.0),
    _mobilenet("mn40_as_no_im_pre", "mn40_as_no_im_pre_mAP_483.pt", 4.0),
    _mobilenet("mn40_as_no_im_pre_2", "mn40_as_no_im_pre_mAP_483(2).pt", 4.0),
    _mobilenet("mn40_as_no_im_pre_3", "mn40_as_no_im_pre_mAP_482.pt", 4.0),
    _mobilenet("mn40_as_ext", "mn40_as_ext_mAP_487.pt", 4.0),
    _mobilenet("mn40_as_ext_2", "mn40_as_ext_mAP_486.pt", 4.0),
    _mobilenet("mn40_as_ext_3", "mn40_as_ext_mAP_485.pt", 4.0),
    _mobilenet("mn10_as_hop_5", "mn10_as_hop_5_mAP_475.pt", 1.0, "efficientat_hop_5"),
    _mobilenet("mn10_as_hop_15", "mn10_as_hop_15_mAP_463.pt", 1.0, "efficientat_hop_15"),
    _mobilenet("mn10_as_hop_20", "mn10_as_hop_20_mAP_456.pt", 1.0, "efficientat_hop_20"),
    _mobilenet("mn10_as_hop_25", "mn10_as_hop_25_mAP_447.pt", 1.0, "efficientat_hop_25"),
    _mobilenet("mn10_as_mels_40", "mn10_as_mels_40_mAP_453.pt", 1.0, "efficientat_mels_40"),
    _mobilenet("mn10_as_mels_64", "mn10_as_mels_64_mAP_461.pt", 1.0, "efficientat_mels_64"),
    _mobilenet("mn10_as_mels_256", "mn10_as_mels_256_mAP_474.pt", 1.0, "efficientat_mels_256"),
    _mobilenet("mn10_as_fc", "mn10_as_fc_mAP_465.pt", 1.0, head="fully_convolutional"),
    _mobilenet(
        "mn10_as_fc_s2221", "mn10_as_fc_s2221_mAP_466.pt", 1.0, head="fully_convolutional", strides=[2, 2, 2, 1]
    ),
    _mobilenet(
        "mn10_as_fc_s2211", "mn10_as_fc_s2211_mAP_466.pt", 1.0, head="fully_convolutional", strides=[2, 2, 1, 1]
    ),
)
ALIASES = {"mn04": "mn04_as"}


def _panns(name: str, file: str, network: str = "panns_cnn", frontend: str = "panns", **arguments: Any) -> ModelSpec:
    """One of the PANNs; its mean average precision is in the name of its file."""
    published_name = file.partition("_mAP")[0]
    return ModelSpec(
        name=name,
        network=network,
        arguments={"n_classes": 527, **arguments},
        frontend=frontend,
        labels="audioset-527",
        weights=file,
        reader=partial(read_torch_zip, ignored=(*FRONTEND_TENSORS, *UNUSED.get(published_name, ()))),
        summary=f"{published_name} on clips of up to 10 s; 527 classes; PANNs",
        source="https://github.com/qiuqiangkong/audioset_tagging_cnn",
        mean_ap=float(re.findall(r"mAP=([\d.]+)\.pth", file)[0]),
    )


# Their checkpoints hold the frontend as tensors too; ours is computed. Some hold layers that their networks never use.
UNUSED = {
    "Cnn14_DecisionLevelAtt": ("att_block.bn_att.*",),
    "Wavegram_Cnn14": ("bn0.*", "conv_block1.*"),
}
FRONTEND_TENSORS = ("*num_batches_tracked", "spectrogram_extractor.*", "logmel_extractor.*")

PANNS_MODELS = (
    _panns("cnn14", "Cnn14_mAP=0.431.pth"),
    _panns("cnn10", "Cnn10_mAP=0.380.pth", channels=[64, 128, 256, 512]),
    _panns("cnn6", "Cnn6_mAP=0.343.pth", channels=[64, 128, 256, 512], kernel=5),
    _panns("cnn14_16k", "Cnn14_16k_mAP=0.438.pth", frontend="panns_16k"),
    _panns("cnn14_8k", "Cnn14_8k_mAP=0.416.pth", frontend="panns_8k"),
    _panns("cnn14_decision_max", "Cnn14_DecisionLevelMax_mAP=0.385.pth", decision="max"),
    _panns("cnn14_decision_att", "Cnn14_DecisionLevelAtt_mAP=0.425.pth", decision="attention"),
    _panns("cnn14_emb512", "Cnn14_emb512_mAP=0.420.pth", embedding_size=512),
    _panns("cnn14_emb32", "Cnn14_emb32_mAP=0.364.pth", embedding_size=32),
    _panns("resnet22", "ResNet22_mAP=0.430.pth", "panns_resnet", n_blocks=[2, 2, 2, 2]),
    _panns("resnet38", "ResNet38_mAP=0.434.pth", "panns_resnet"),
    _panns("resnet54", "ResNet54_mAP=0.429.pth", "panns_resnet", kernels=[1, 3, 1]),
    _panns("mobilenet_v1", "MobileNetV1_mAP=0.389.pth", "panns_mobilenet"),
    _panns("mobilenet_v2", "MobileNetV2_mAP=0.383.pth", "panns_mobilenet_v2"),
    _panns("wavegram_cnn14", "Wavegram_Cnn14_mAP=0.389.pth", "panns_wavegram"),
    _panns("wavegram_logmel_cnn14", "Wavegram_Logmel_Cnn14_mAP=0.439.pth", "panns_wavegram_logmel"),
)

MODELS = {
    model.name: model
    for model in (
        ModelSpec(
            name="yamnet",
            network="yamnet",
            arguments={"n_classes": 521},
            frontend="yamnet",
            labels="yamnet-521",
            weights="yamnet.h5",
            reader=read_keras_h5,
            summary="MobileNet v1 on 0.96 s patches; 521 classes; embeddings of 1,024",
            source="https://github.com/tensorflow/models/tree/master/research/audioset/yamnet",
            mean_ap=0.306,  # its README, on 20,366 evaluation clips
        ),
        ModelSpec(
            name="vggish",
            network="vggish",
            arguments={"activation": None},
            frontend="vggish",
            labels=NO_LABELS,
            weights="vggish_model.ckpt",
            reader=read_tf_checkpoint,
            summary="VGG-like network on 0.96 s patches; embeddings of 128, as in the released features",
            source="https://github.com/tensorflow/models/tree/master/research/audioset/vggish",
            mean_ap=None,
            postprocessor="vggish_pca_params.npz",
        ),
        *MOBILENETS,
        *PANNS_MODELS,
        ModelSpec(
            name="vgg16",
            network="vgg16",
            arguments={},
            frontend="vgg16",
            labels=NO_LABELS,
            weights="vgg16-397923af.pth",
            reader=read_vgg16_torch,
            summary="VGG16, trained on photographs, on log-mel pictures of 2.24 s; embeddings of 4,096; torchvision",
            source="https://github.com/pytorch/vision",
            mean_ap=None,
        ),
        ModelSpec(
            name="vgg16_keras",
            network="vgg16",
            arguments={"normalisation": "keras"},
            frontend="vgg16",
            labels=NO_LABELS,
            weights="vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            reader=read_vgg16_keras,
            summary="VGG16 as trained by its authors; embeddings of 4,096; Keras",
            source="https://github.com/keras-team/keras",
            mean_ap=None,
        ),
    )
}


def bundled_models() -> dict[str, Path]:
    """Models that are part of the package: name and model folder of each."""
    return {path.parent.name: path.parent for path in sorted(BUNDLED_FOLDER.glob(f"*/{CARD_NAME}"))}


def find_model(name: str) -> ModelSpec:
    """The row of a published model; the UsageError of an unknown name has the nearest one."""
    name = ALIASES.get(name, name)
    if name not in MODELS:
        near = difflib.get_close_matches(name, [*MODELS, *bundled_models()], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(
            f"there is no model {name!r}{hint}; expected a name that 'audioset models list' shows, "
            f"or a folder with {CARD_NAME}"
        )
    return MODELS[name]
