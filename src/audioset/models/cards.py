"""What a model's card names: its network, frontend and labels, and the shapes that follow."""

from __future__ import annotations

from audioset.errors import AudioSetError, UsageError, WeightsError
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
from audioset.networks.ops import Network, Outputs, input_names
from audioset.networks.panns import (
    panns_cnn,
    panns_mobilenet,
    panns_mobilenet_v2,
    panns_resnet,
    panns_wavegram,
    panns_wavegram_logmel,
)
from audioset.networks.shapes import trace_shapes
from audioset.networks.vgg16 import vgg16
from audioset.networks.vggish import vggish
from audioset.networks.yamnet import yamnet
from audioset.records import DAMAGE
from audioset.weights.model_folder import (
    ModelCard,
)

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


def network_shapes(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a card's network."""
    return _trace(card)[0]


def output_shapes(card: ModelCard) -> Outputs[tuple[int, ...]]:
    """Shapes of what a card's network makes of one patch."""
    return _trace(card)[1]


def segment_frames(card: ModelCard) -> int | None:
    """Frames in one segment of what a card's network says over time, or None if it does not."""
    if sees_embeddings(card):
        return None
    n_frames = 1 << 12  # any number with as many halves as a network has poolings
    framewise = _trace(card, n_frames)[1].framewise
    return None if framewise is None else n_frames // framewise[0]


def find_network(card: ModelCard) -> Network:
    """The network that a card names."""
    if card.network not in NETWORKS:
        raise WeightsError(f"the model's network is {card.network!r}; expected one of {', '.join(NETWORKS)}")
    return NETWORKS[card.network]


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
