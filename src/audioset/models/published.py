"""The table of models: which network, frontend, labels and files belong to a name."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from audioset import __version__, assets, cache
from audioset.cache import Graph
from audioset.errors import AudioSetError, UsageError, WeightsError
from audioset.files import is_file, read_blocks
from audioset.frontend.published import (
    EFFICIENTAT,
    EFFICIENTAT_2S,
    EFFICIENTAT_VARIANTS,
    PANNS,
    PANNS_VARIANTS,
    VGG16,
    VGGISH,
    YAMNET,
)
from audioset.frontend.spec import FrontendSpec
from audioset.labels.labels import NAMES as LABEL_SETS
from audioset.labels.labels import LabelSet
from audioset.models.postprocess import EMBEDDING_SIZE
from audioset.networks.classifier import classifier
from audioset.networks.heads import HEADS
from audioset.networks.mobilenet import mobilenet
from audioset.networks.ops import Network, Outputs, input_names, trace_shapes
from audioset.networks.panns import (
    panns_cnn,
    panns_mobilenet,
    panns_mobilenet_v2,
    panns_resnet,
    panns_wavegram,
    panns_wavegram_logmel,
)
from audioset.networks.vgg16 import vgg16
from audioset.networks.vggish import vggish
from audioset.networks.yamnet import yamnet
from audioset.records import DAMAGE, TEXT, read_json
from audioset.weights.keras_h5 import read_keras_h5
from audioset.weights.model_folder import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    card_to_bytes,
    copy_model_folder,
    read_card,
    read_weights,
    weights_to_bytes,
    write_model_folder,
)
from audioset.weights.tf_checkpoint import read_tf_checkpoint
from audioset.weights.torch_zip import read_torch_zip
from audioset.weights.vgg16_files import read_vgg16_keras, read_vgg16_torch

logger = logging.getLogger(__name__)

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
WeightReader = Callable[[Path, Mapping[str, tuple[int, ...]]], dict[str, FloatArray]]

NETWORKS: dict[str, Network] = {
    "yamnet": yamnet,
    "vggish": vggish,
    "mobilenet": mobilenet,
    "panns_cnn": panns_cnn,
    "panns_resnet": panns_resnet,
    "panns_mobilenet": panns_mobilenet,
    "panns_mobilenet_v2": panns_mobilenet_v2,
    "panns_wavegram": panns_wavegram,
    "panns_wavegram_logmel": panns_wavegram_logmel,
    "vgg16": vgg16,
    "classifier": classifier,
    **{head.network.__name__: head.network for head in HEADS.values()},
}
FRONTENDS: dict[str, FrontendSpec] = {
    spec.name: spec
    for spec in (YAMNET, VGGISH, EFFICIENTAT, EFFICIENTAT_2S, *EFFICIENTAT_VARIANTS, PANNS, *PANNS_VARIANTS, VGG16)
}
NO_LABELS = ""  # of a network that only embeds
ORIGIN_NAME = "checkpoint.json"  # of a folder of the cache: which model and file it stands for
BUNDLED_FOLDER = Path(__file__).parents[1] / "bundled"


@dataclass(frozen=True)
class ModelSpec:
    """One published model.

    Attributes
    ----------
    name : str
    network, frontend, labels : str
        Keys of ``NETWORKS`` and ``FRONTENDS``, and the name of a label set or ``NO_LABELS``.
    weights : str
        Asset with the published checkpoint.
    reader : function
        Reads that checkpoint.
    summary, source : str
        One line for people; where the original is.
    mean_ap : float or None
        Published mean average precision on the AudioSet evaluation set; None for a network that only embeds.
    arguments : dict
        Keyword arguments of the network.
    postprocessor : str or None
        Asset with the parameters that quantise its embeddings.
    """

    name: str
    network: str
    frontend: str
    labels: str
    weights: str
    reader: WeightReader
    summary: str
    source: str
    mean_ap: float | None
    arguments: dict[str, Any] = field(default_factory=dict)
    postprocessor: str | None = None

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
    """The row of a published model.

    Raises
    ------
    UsageError
        If there is none of that name; the message names the nearest one.
    """
    name = ALIASES.get(name, name)
    if name not in MODELS:
        near = difflib.get_close_matches(name, [*MODELS, *bundled_models()], n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UsageError(
            f"there is no model {name!r}{hint}; expected a name that 'audioset models list' shows, "
            f"or a folder with {CARD_NAME}"
        )
    return MODELS[name]


def prepare_model(
    name: str, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> tuple[ModelCard, Path]:
    """Card of a model, and its folder: a model folder, or one of the cache that stands for a published checkpoint.

    Parameters
    ----------
    name : str
        A published model, a bundled one, or the path of a model folder.
    weights : Path, optional
        A checkpoint of the user's own, in the published format.
    arguments : mapping, optional
        Arguments of the network in place of the published ones.

    Returns
    -------
    card : ModelCard
    folder : Path

    Raises
    ------
    UsageError, AssetError, WeightsError, OutputError
    """
    folder = Path(name)
    if not is_file(folder / CARD_NAME):
        folder = bundled_models().get(name, folder)
    if is_file(folder / CARD_NAME):
        if weights is not None:
            raise UsageError(f"{folder} is a model folder and brings its own weights; leave out weights={weights}")
    else:
        folder = _kept_folder(find_model(name), weights)
    card = read_card(folder)
    if arguments:
        card = replace(card, arguments={**card.arguments, **arguments})
        try:
            network_shapes(card)
        except WeightsError as error:
            raise UsageError(str(error)) from error
    return card, folder


def prepare_graph(card: ModelCard, folder: Path) -> Graph:
    """A model's ONNX graph, made when an engine asks for it, and where the cache has what the engine makes of it.

    Its inputs and outputs are those of ``executors.onnx.network_to_onnx``. The cache has the weights once, in that
    form: whoever needs them as they were published reads the checkpoint, see ``load_weights``.
    """
    identity = hashlib.sha256(f"{__version__}:{card}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Graph(f"{_entry(folder)}/graph-{identity}", partial(_make_graph, folder, card))


def network_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a card's network."""
    return _trace(card)[0]


def output_shapes(card: ModelCard) -> Outputs[tuple[int, ...]]:
    """Shapes of what a card's network makes of one patch."""
    return _trace(card)[1]


def segment_frames(card: ModelCard) -> int | None:
    """Frames in one segment of what a card's network says over time, or None if it does not."""
    n_frames = 1 << 12  # any number with as many halves as a network has poolings
    framewise = _trace(card, n_frames)[1].framewise
    return None if framewise is None else n_frames // framewise[0]


def find_network(card: ModelCard) -> Network:
    """The network that a card names."""
    if card.network not in NETWORKS:
        raise WeightsError(f"the model's network is {card.network!r}; expected one of {', '.join(NETWORKS)}")
    return NETWORKS[card.network]


def load_weights(card: ModelCard, folder: Path) -> dict[str, FloatArray]:
    """The weights of a model, each by its published name, checked against the network.

    They are those of its folder or, of a published model, of its checkpoint.
    """
    shapes = network_shapes(card)
    checkpoint = _checkpoint(folder)
    if checkpoint is None:
        return read_weights(folder, shapes)
    name, path = checkpoint
    return MODELS[name].reader(path, shapes)


def hash_weights(state: Any, card: ModelCard, folder: Path) -> None:
    """Feed a hash of ``hashlib`` with a model's weights, as ``model.safetensors`` has them or would have them."""
    if _checkpoint(folder) is None:
        for block in read_blocks(folder / WEIGHTS_NAME):
            state.update(block)
    else:
        state.update(weights_to_bytes(load_weights(card, folder)))


def digest_weights(card: ModelCard, folder: Path) -> str:
    """SHA-256 of a model's weights, as ``assets.hash_file`` writes it."""
    state = hashlib.sha256()
    hash_weights(state, card, folder)
    return f"sha256:{state.hexdigest()}"


def copy_model(card: ModelCard, folder: Path, target: Path, new_card: ModelCard) -> None:
    """Write a model folder with the weights of a model and another card.

    Raises
    ------
    WeightsError, OutputError
    """
    if _checkpoint(folder) is None:
        copy_model_folder(folder, target, new_card)
    else:
        write_model_folder(target, new_card, load_weights(card, folder))


def find_frontend(card: ModelCard) -> FrontendSpec:
    """The frontend that a card names."""
    if card.frontend not in FRONTENDS:
        raise WeightsError(f"the model's frontend is {card.frontend!r}; expected one of {', '.join(FRONTENDS)}")
    return FRONTENDS[card.frontend]


def find_labels(card: ModelCard) -> LabelSet:
    """The labels of a card, one for each of the network's classes."""
    labels = _labels(card.labels)
    scores = output_shapes(card).scores
    n_classes = 0 if scores is None else scores[0]
    if n_classes != len(labels):
        named = f"label set {card.labels!r} has" if isinstance(card.labels, str) else "labels are"
        raise WeightsError(f"the model has {n_classes} classes, and its {named} {len(labels)}")
    return labels


def _labels(labels: str | list[str]) -> LabelSet:
    """A published label set by its name, or a model's own labels."""
    if isinstance(labels, list):
        try:
            return LabelSet(tuple(labels), tuple(labels))
        except UsageError as error:
            raise WeightsError(f"the model's labels are no set: {error}") from error
    if labels == NO_LABELS:
        return LabelSet((), ())
    if labels not in LABEL_SETS:
        raise WeightsError(f"the model's label set is {labels!r}; expected one of {', '.join(LABEL_SETS)}")
    return LabelSet.load(labels)


def patch_shape(frontend: FrontendSpec) -> tuple[int | None, int]:
    """Frames and mel bands of one patch; the frames of a clip model's are free."""
    return None if frontend.is_centred else frontend.patch_frames, frontend.n_mels


def sees_embeddings(card: ModelCard) -> bool:
    """Whether a card's network is a head: a classifier of embeddings, not of audio."""
    return "embeddings" in input_names(find_network(card))


def input_shape(card: ModelCard) -> tuple[int | None, int]:
    """Rows and columns of what a card's network sees: of a patch, or of a clip's embeddings, as many as there are."""
    return (None, EMBEDDING_SIZE) if sees_embeddings(card) else patch_shape(find_frontend(card))


def _trace(card: ModelCard, n_frames: int | None = None) -> tuple[dict[str, tuple[int, ...]], Outputs[tuple[int, ...]]]:
    """Shapes of the parameters and outputs of a card's network, for patches as its frontend makes them."""
    frontend, network = find_frontend(card), find_network(card)
    if "waveforms" in input_names(network) and not frontend.is_centred:
        raise WeightsError(
            f"{card.network!r} sees samples, which {card.frontend!r} does not give; expected a frontend of whole clips"
        )
    shape = input_shape(card)
    try:
        return trace_shapes(network, (n_frames or shape[0], shape[1]), card.arguments)
    except AudioSetError:
        raise
    except DAMAGE as error:
        raise WeightsError(f"{card.network!r} cannot have the arguments {card.arguments}: {error}") from error


def _kept_folder(spec: ModelSpec, weights: Path | None) -> Path:
    """Folder in the cache with the card of a checkpoint, made at first use."""
    checkpoint = weights or assets.get_asset(spec.weights)
    if not is_file(checkpoint):
        raise WeightsError(f"the weights {checkpoint} are not a file; expected a checkpoint like {spec.weights}")
    entry = cache.entry_name(spec.name, _fingerprint(checkpoint))
    origin = {"model": spec.name, "path": str(checkpoint.resolve())}
    cache.keep_file(f"{entry}/{ORIGIN_NAME}", lambda: json.dumps(origin).encode())
    folder = cache.keep_file(f"{entry}/{CARD_NAME}", lambda: card_to_bytes(_make_card(spec, checkpoint))).parent
    if weights is None and not read_card(folder).source["is_published"]:
        logger.warning("%s is not the published file (its hash differs); it is used as it is", checkpoint)
    return folder


def _checkpoint(folder: Path) -> tuple[str, Path] | None:
    """Name of the published model that a folder of the cache stands for, and its checkpoint; None for model folders."""
    if (folder / WEIGHTS_NAME).is_file() or not cache.is_whole(folder / ORIGIN_NAME):
        return None
    origin = read_json(folder / ORIGIN_NAME, {"model": TEXT, "path": TEXT}, WeightsError)
    path = Path(origin["path"])
    if origin["model"] not in MODELS or not folder.name.endswith(f"-{_fingerprint(path)}"):
        raise WeightsError(
            f"the checkpoint {path} is not the one that {folder} was made from. Next step: load the model by its name, "
            "with weights= if they are your own"
        )
    return origin["model"], path


def _entry(folder: Path) -> str:
    """Where the cache has what was made from a model's weights."""
    if _checkpoint(folder) is not None:
        return f"{cache.MODELS}/{folder.name}"
    return cache.entry_name(folder.resolve().name, _fingerprint(folder / WEIGHTS_NAME))


def _make_card(spec: ModelSpec, checkpoint: Path) -> ModelCard:
    asset = assets.ASSETS[spec.weights]
    try:
        digest = assets.hash_file(checkpoint, asset.digest.partition(":")[0] or "sha256")
    except OSError as error:
        raise WeightsError(f"the weights {checkpoint} cannot be read: {error.strerror or error}") from error
    return ModelCard(
        network=spec.network,
        arguments=spec.arguments,
        frontend=spec.frontend,
        labels=spec.labels,
        licence=asset.licence,
        source={
            "file": checkpoint.name,
            "digest": digest,
            "is_published": asset.digest in ("", digest),  # as assets.is_published, without reading the file again
            "url": asset.url,
        },
    )


def _make_graph(folder: Path, card: ModelCard) -> bytes:
    from audioset.executors.onnx import network_to_onnx

    weights = load_weights(card, folder)
    return network_to_onnx(find_network(card), weights, input_shape(card), card.arguments)


def _fingerprint(path: Path) -> str:
    """Identity of a file's contents and of the code that converts it, without reading it."""
    try:
        status = path.stat()
    except OSError as error:
        raise WeightsError(f"the weights {path} cannot be read: {error.strerror}") from error
    identity = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{__version__}"
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
