"""The table of published files: where each is, and what it must hash to."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class Asset:
    """One published file."""

    name: str  # file name, here and in the cache
    url: str
    digest: str  # ``sha256:`` or ``md5:`` and the published hash in hexadecimal; empty where none is published
    n_bytes: int | None  # None where only the server knows
    licence: str


AUDIOSET = "https://storage.googleapis.com/audioset"
EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"
# models/mn/model.py there; no hashes and no sizes are published.
EFFICIENTAT_FILES = (
    "mn04_as_mAP_432.pt",
    "mn01_as_mAP_298.pt",
    "mn02_as_mAP_378.pt",
    "mn05_as_mAP_443.pt",
    "mn10_as_mAP_471.pt",
    "mn20_as_mAP_478.pt",
    "mn30_as_mAP_482.pt",
    "mn40_as_mAP_484.pt",
    "mn40_as_mAP_483.pt",
    "mn40_as_mAP_483(2).pt",
    "mn40_as_no_im_pre_mAP_483.pt",
    "mn40_as_no_im_pre_mAP_483(2).pt",
    "mn40_as_no_im_pre_mAP_482.pt",
    "mn40_as_ext_mAP_487.pt",
    "mn40_as_ext_mAP_486.pt",
    "mn40_as_ext_mAP_485.pt",
    "mn10_as_hop_5_mAP_475.pt",
    "mn10_as_hop_15_mAP_463.pt",
    "mn10_as_hop_20_mAP_456.pt",
    "mn10_as_hop_25_mAP_447.pt",
    "mn10_as_mels_40_mAP_453.pt",
    "mn10_as_mels_64_mAP_461.pt",
    "mn10_as_mels_256_mAP_474.pt",
    "mn10_as_fc_mAP_465.pt",
    "mn10_as_fc_s2221_mAP_466.pt",
    "mn10_as_fc_s2211_mAP_466.pt",
)
EFFICIENTAT_KNOWN: dict[str, tuple[str, int | None]] = {
    "mn04_as_mAP_432.pt": ("sha256:899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c", 4_066_513)
}

# Published as record 3987831 of Zenodo by Kong et al.; empty where the hash is not known.
PANNS = "https://zenodo.org/record/3987831/files"
PANNS_FILES = {
    "Cnn14_mAP=0.431.pth": "md5:541141fa2ee191a88f24a3219fff024e",
    "Cnn10_mAP=0.380.pth": "md5:bfb1f1f9968938fa8ef4012b8471f5f6",
    "Cnn6_mAP=0.343.pth": "md5:e25e26b84585b14c7754c91e48efc9be",
    "Cnn14_16k_mAP=0.438.pth": "md5:362fc5ff18f1d6ad2f6d464b45893f2c",
    "Cnn14_8k_mAP=0.416.pth": "",
    "Cnn14_DecisionLevelMax_mAP=0.385.pth": "md5:70539c43c18b6a289b3199c503a82c5a",
    "Cnn14_DecisionLevelAtt_mAP=0.425.pth": "md5:c8281ca2b9967244b91d557aa941e8ca",
    "Cnn14_emb512_mAP=0.420.pth": "",
    "Cnn14_emb32_mAP=0.364.pth": "",
    "ResNet22_mAP=0.430.pth": "md5:cf36d413096793c4e15dc752a3abd599",
    "ResNet38_mAP=0.434.pth": "md5:bf12f36aaabac4e0855e22d3c3239c1b",
    "ResNet54_mAP=0.429.pth": "md5:4f1f1406d37a29e2379916885e18c5f3",
    "MobileNetV1_mAP=0.389.pth": "md5:a419303e1c88aa1b9d2ac3811563d371",
    "MobileNetV2_mAP=0.383.pth": "",
    "Wavegram_Cnn14_mAP=0.389.pth": "md5:1e3506ab640371e0b5a417b15fd66d21",
    "Wavegram_Logmel_Cnn14_mAP=0.439.pth": "md5:17fa9ab65af3c0eb5ffbc5f65552c4e1",
}

ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            "yamnet.h5",
            f"{AUDIOSET}/yamnet.h5",
            "sha256:13c3308955bbfaef262f175ac9c40e47b134573a93984f009220dd7cc12a1744",
            15_296_092,
            "Apache-2.0",
        ),
        Asset(
            "yamnet_class_map.csv",
            "https://raw.githubusercontent.com/tensorflow/models/master/research/audioset/yamnet/yamnet_class_map.csv",
            "sha256:cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
            14_096,
            "Apache-2.0",
        ),
        *(
            Asset(name, f"{EFFICIENTAT}/{quote(name)}", *EFFICIENTAT_KNOWN.get(name, ("", None)), "MIT")
            for name in EFFICIENTAT_FILES
        ),
        *(Asset(name, f"{PANNS}/{quote(name)}", digest, None, "CC-BY-4.0") for name, digest in PANNS_FILES.items()),
        Asset(
            "vgg16-397923af.pth",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            553_433_881,
            "BSD-3-Clause",
        ),
        Asset(
            "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
            "vgg16_weights_tf_dim_ordering_tf_kernels.h5",
            "md5:64373286793e3c8b2b4e3219cbf3544b",
            553_467_096,
            "CC-BY-4.0",
        ),
        Asset(
            "ontology.json",
            "https://raw.githubusercontent.com/audioset/ontology/master/ontology.json",
            "sha256:9c685f4403eecc3ca9be37fd7285cf212feaaea6ff7229d3e7ca89e0d1f2d15d",
            342_780,
            "CC-BY-SA-4.0",
        ),
        Asset(
            "vggish_model.ckpt",
            f"{AUDIOSET}/vggish_model.ckpt",
            "md5:d1c7011e6366aa34176bb05c705e31a8",  # openmic/vggish/params.py in cosmir/openmic-2018
            None,
            "Apache-2.0",
        ),
        Asset(
            "vggish_pca_params.npz",
            f"{AUDIOSET}/vggish_pca_params.npz",
            "md5:c80cae691033abe7c7ecd11ea39fc834",  # the same
            None,
            "Apache-2.0",
        ),
    )
}
