"""Published files: where they are, what they must hash to, and how they get here.

A file is looked for in the folders of ``AUDIOSET_ASSETS``, then in the cache, and fetched last. What is
fetched has the published hash or does not get its name.
"""

from __future__ import annotations

import atexit
import hashlib
import http.client
import logging
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from audioset.errors import AssetError, OutputError, UsageError

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30
ATTEMPTS = 5
RETRIED_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError)

WRONG_FILE = "Likely cause: a login or error page, or a newer file"

Progress = Callable[[int, int], None]  # bytes done and in all


@dataclass(frozen=True)
class Asset:
    """One published file.

    Attributes
    ----------
    name : str
        File name, here and in the cache.
    url : str
    digest : str
        ``"sha256:"`` or ``"md5:"`` and the published hash in hexadecimal; empty where none is published.
    n_bytes : int or None
        None where only the server knows.
    licence : str
    """

    name: str
    url: str
    digest: str
    n_bytes: int | None
    licence: str


EFFICIENTAT = "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1"
# models/mn/model.py there; no hashes and no sizes are published.
EFFICIENTAT_FILES = (
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
            "https://storage.googleapis.com/audioset/yamnet.h5",
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
        Asset(
            "mn04_as_mAP_432.pt",
            f"{EFFICIENTAT}/mn04_as_mAP_432.pt",
            "sha256:899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
            4066513,
            "MIT",
        ),
        *(Asset(name, f"{EFFICIENTAT}/{quote(name)}", "", None, "MIT") for name in EFFICIENTAT_FILES),
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
            "https://storage.googleapis.com/audioset/vggish_model.ckpt",
            "md5:d1c7011e6366aa34176bb05c705e31a8",  # openmic/vggish/params.py in cosmir/openmic-2018
            None,
            "Apache-2.0",
        ),
        Asset(
            "vggish_pca_params.npz",
            "https://storage.googleapis.com/audioset/vggish_pca_params.npz",
            "md5:c80cae691033abe7c7ecd11ea39fc834",  # the same
            None,
            "Apache-2.0",
        ),
    )
}


def find_asset(name: str) -> Path | None:
    """Path of an asset that is on this machine, or None. Opens no connection.

    Parameters
    ----------
    name : str
        A key of ``ASSETS``.

    Raises
    ------
    UsageError
        If there is no such asset.
    """
    _asset(name)
    return find_file(name)


def find_file(name: str) -> Path | None:
    """Path of a published file of any name, in the folders of ``AUDIOSET_ASSETS`` or in the cache; or None."""
    candidates = [Path(folder) / name for folder in _asset_folders()]
    candidates.append(cache_folder() / "assets" / name)
    return next((path for path in candidates if path.is_file()), None)


def get_asset(name: str) -> Path:
    """Path of an asset, fetched into the cache if it is not on this machine.

    Raises
    ------
    AssetError
        If it cannot be fetched; the message says where to put the file by hand.
    """
    return find_asset(name) or fetch(_asset(name), cache_folder() / "assets")


def fetch(asset: Asset, folder: Path) -> Path:
    """Download an asset: resumed where it stopped, checked, and only then given its name.

    Several processes that ask at once share one download.

    Parameters
    ----------
    asset : Asset
    folder : Path
        Where the file goes; made if need be.

    Returns
    -------
    Path

    Raises
    ------
    AssetError
        No connection, a refusal, or bytes that are not the published ones.
    OutputError
        The folder cannot be written, or the disk is full.
    """
    import filelock

    target = folder / asset.name
    if os.environ.get("AUDIOSET_OFFLINE"):
        raise AssetError(_by_hand(asset, "AUDIOSET_OFFLINE is set, so nothing is downloaded"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{asset.name}.lock"):
            if not target.is_file():
                part = folder / f"{asset.name}.part"
                _fetch_part(asset, part)
                _check_hash(asset, part)
                part.replace(target)
    except AssetError:
        raise
    except OSError as error:
        raise OutputError(f"{asset.name} cannot be written to {folder}: {error.strerror or error}") from error
    return target


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file: the algorithm, a colon and the hash in hexadecimal."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
    return f"{algorithm}:{state.hexdigest()}"


def is_published(asset: Asset, path: Path) -> bool:
    """Whether a file is the published one, by its hash; assumed where no hash is published."""
    return not asset.digest or hash_file(path, asset.digest.partition(":")[0]) == asset.digest


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Folder for downloads, converted weights and compiled models.

    ``AUDIOSET_CACHE`` if set, else the platform's cache folder. Where that cannot be written, a temporary
    folder that lasts as long as the process, with one warning.
    """
    import platformdirs

    folder = Path(os.environ.get("AUDIOSET_CACHE") or platformdirs.user_cache_dir("audioset", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        temporary = Path(tempfile.mkdtemp(prefix="audioset-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        logger.warning(
            "the cache folder %s cannot be written (%s): models are prepared again at every start. "
            "Next step: set AUDIOSET_CACHE to a folder of yours",
            folder,
            error.strerror,
        )
        return temporary
    return folder


def _asset(name: str) -> Asset:
    if name not in ASSETS:
        raise UsageError(f"there is no asset {name!r}; expected one of {', '.join(ASSETS)}")
    return ASSETS[name]


def _asset_folders() -> list[str]:
    return [folder for folder in os.environ.get("AUDIOSET_ASSETS", "").split(os.pathsep) if folder]


def _fetch_part(asset: Asset, part: Path) -> None:
    """Complete ``part``, going on after a broken connection as long as attempts last."""
    with _progress_bar(asset) as progress:
        for attempt in range(ATTEMPTS):
            try:
                _receive(asset, part, progress)
                return
            except urllib.error.HTTPError as error:
                failure = f"the server answered {error.code} {error.reason}"
                if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                    part.unlink(missing_ok=True)  # the beginning of something else
                if error.code not in RETRIED_STATUS:
                    raise AssetError(_by_hand(asset, failure)) from error
                pause_s = _retry_after_s(error.headers.get("Retry-After"), 2.0**attempt)
            except NETWORK_ERRORS as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, socket.gaierror):  # no network at all: waiting does not help
                    raise AssetError(_by_hand(asset, f"there is no connection ({reason.strerror})")) from error
                failure = str(reason)
                pause_s = 2.0**attempt
            if attempt < ATTEMPTS - 1:
                logger.info("%s: %s; trying again in %.0f s", asset.name, failure, pause_s)
                time.sleep(pause_s)
    raise AssetError(_by_hand(asset, f"{failure} ({ATTEMPTS} attempts)"))


def _receive(asset: Asset, part: Path, progress: Progress) -> None:
    """One request: append to ``part`` what it lacks, or start it again if the server does not resume."""
    n_have = part.stat().st_size if part.exists() else 0
    if n_have == asset.n_bytes:
        return
    if asset.n_bytes is not None and n_have > asset.n_bytes:
        part.unlink()
        n_have = 0
    request = urllib.request.Request(asset.url, headers={"User-Agent": "audioset"})
    if n_have:
        request.add_header("Range", f"bytes={n_have}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        resumes = response.status == 206
        n_have = n_have if resumes else 0
        n_all = _n_expected(asset, n_have, response.length)
        progress(n_have, n_all)
        with part.open("ab" if resumes else "wb") as file:
            while n_have <= n_all and (chunk := response.read1(CHUNK_BYTES)):
                file.write(chunk)
                n_have += len(chunk)
                progress(n_have, n_all)
    if n_have < n_all:
        raise ConnectionError(f"the connection closed after {n_have:,} of {n_all:,} bytes")


def _n_expected(asset: Asset, n_have: int, n_offered: int | None) -> int:
    """Bytes of the whole file, as published or as the server says."""
    n_all = None if n_offered is None else n_have + n_offered
    if asset.n_bytes is None:
        if n_all is None:
            raise AssetError(_by_hand(asset, f"the server does not say how long it is. {WRONG_FILE}"))
        return n_all
    if n_all not in (None, asset.n_bytes):
        offer = f"the server offers {n_all:,} bytes; expected {asset.n_bytes:,}"
        raise AssetError(_by_hand(asset, f"{offer}. {WRONG_FILE}"))
    return asset.n_bytes


def _check_hash(asset: Asset, part: Path) -> None:
    if not asset.digest:
        logger.warning("%s cannot be checked: its publisher gives no hash", asset.name)
    elif not is_published(asset, part):
        n_bytes, digest = part.stat().st_size, hash_file(part, asset.digest.partition(":")[0])
        part.unlink()
        size = "" if asset.n_bytes is None else f"{asset.n_bytes:,} bytes with "
        raise AssetError(
            _by_hand(
                asset,
                f"the {n_bytes:,} bytes from {asset.url} have the hash {digest}; expected {size}{asset.digest}. "
                f"They were deleted. {WRONG_FILE}",
            )
        )


def _by_hand(asset: Asset, failure: str) -> str:
    folder = next(iter(_asset_folders()), "a folder of yours")
    size = "" if asset.n_bytes is None else f" ({asset.n_bytes / 1e6:.1f} MB)"
    return (
        f"{asset.name}{size} is needed and is not on this machine; {failure}. "
        f"Next step: download {asset.url} on a machine that can, put the file into {folder}, and set "
        f"AUDIOSET_ASSETS to that folder; or put it into {cache_folder() / 'assets'}"
    )


def _retry_after_s(header: str | None, default: float) -> float:
    return min(60.0, float(header)) if header and header.isdigit() else default


def _progress_bar(asset: Asset) -> AbstractContextManager[Progress]:
    """A bar on stderr where a person watches; else nothing."""
    if not sys.stderr.isatty():
        return nullcontext(lambda n_done, n_all: None)
    return _RichBar(asset)


class _RichBar(AbstractContextManager[Progress]):
    def __init__(self, asset: Asset) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task(asset.name, total=asset.n_bytes)

    def __enter__(self) -> Progress:
        self._bar.start()
        return lambda n_done, n_all: self._bar.update(self._task, completed=n_done, total=n_all)

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
