"""Published files: where they are, what they must hash to, and how they get here.

A file is looked for in the folders of ``AUDIOSET_ASSETS``, then in the cache, and fetched last. What is
fetched has the published hash or does not get its name.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import math
import os
import re
import socket
import ssl
import stat
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from audioset import cache
from audioset.errors import AssetError, OutputError, UsageError
from audioset.files import confined, read_blocks, write_atomically
from audioset.records import TEXT, read_json

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 30
ATTEMPTS = 5
PACE_S, PACE_BYTES = 60.0, 6_000  # what must come in that time
STRONG_S = 60.0  # that a time of change must be old to name one version
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
    candidates.append(_downloads() / name)
    return next((path for path in candidates if path.is_file()), None)


def get_asset(name: str) -> Path:
    """Path of an asset, fetched into the cache if it is not on this machine, or is damaged there.

    Raises
    ------
    AssetError
        If it cannot be fetched; the message says where to put the file by hand.
    """
    return get_file(_asset(name))


def get_file(asset: Asset) -> Path:
    """As ``get_asset``, of any published file. What the cache has is compared with its checksum."""
    path = find_file(asset.name)
    if path is None:
        return _fetch_to_cache(asset)
    if path != _downloads() / asset.name or not cache.is_sealed(path) or cache.is_whole(path):
        return path  # the user's own, or as it was fetched
    logger.warning("%s is damaged (it does not fit its checksum) and is fetched again", path)
    return _fetch_to_cache(asset, is_damaged=True)


def _fetch_to_cache(asset: Asset, *, is_damaged: bool = False) -> Path:
    return fetch(asset, cache.writable_folder() / cache.ASSETS, is_damaged=is_damaged)


def _downloads() -> Path:
    return cache.cache_folder() / cache.ASSETS


def fetch(asset: Asset, folder: Path, *, is_damaged: bool = False) -> Path:
    """Download an asset: resumed where it stopped, checked, and only then given its name.

    Several processes that ask at once share one download.

    Parameters
    ----------
    asset : Asset
    folder : Path
        Where the file goes; made if need be.
    is_damaged : bool
        A file of that name that does not fit its checksum in the cache is replaced.

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

    target = confined(folder, asset.name)
    if os.environ.get("AUDIOSET_OFFLINE"):
        raise AssetError(_by_hand(asset, "AUDIOSET_OFFLINE is set, so nothing is downloaded"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{asset.name}.lock"):
            if not target.is_file() or (is_damaged and not cache.is_whole(target)):
                part = folder / f"{asset.name}{cache.PART_SUFFIX}"
                _fetch_part(asset, part)
                _check_hash(asset, part)
                if cache.holds_downloads(folder):
                    cache.seal_as(part, target)
                part.replace(target)
                _state_path(part).unlink(missing_ok=True)
    except AssetError:
        raise
    except OSError as error:
        raise OutputError(f"{asset.name} cannot be written to {folder}: {error.strerror or error}") from error
    return target


def hash_file(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file: the algorithm, a colon and the hash in hexadecimal."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    for block in read_blocks(path):
        state.update(block)
    return f"{algorithm}:{state.hexdigest()}"


def is_published(asset: Asset, path: Path) -> bool:
    """Whether a file is the published one, by its hash; assumed where no hash is published."""
    return not asset.digest or hash_file(path, asset.digest.partition(":")[0]) == asset.digest


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
                elif error.code not in RETRIED_STATUS:
                    raise AssetError(_by_hand(asset, failure)) from error
                pause_s = _retry_after_s(error.headers.get("Retry-After"), 2.0**attempt)
            except _RefusedRedirect as error:
                raise AssetError(_by_hand(asset, str(error))) from error
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
    """One request: append to ``part`` what it lacks, or begin it again where it may be of another version."""
    with _open_part(part) as file:
        n_have, validator = _resumable(asset, part, file)
        if n_have == asset.n_bytes:
            return
        request = urllib.request.Request(asset.url, headers={"User-Agent": "audioset", "Accept-Encoding": "identity"})
        if n_have:
            request.add_header("Range", f"bytes={n_have}-")
            request.add_header("If-Range", validator)
        with _opener().open(request, timeout=TIMEOUT_S) as response:
            _check_content(asset, response.headers)
            if response.status == http.client.PARTIAL_CONTENT:
                _check_range(response.headers, n_have, validator, part)
            else:
                n_have = 0
            n_all = _n_expected(asset, n_have, response.length)
            file.seek(n_have)
            file.truncate()
            _note_validator(asset, part, response.headers)
            progress(n_have, n_all)
            pace = _Pace(n_have)
            while n_have <= n_all and (chunk := response.read1(CHUNK_BYTES)):
                file.write(chunk)
                n_have += len(chunk)
                pace.check(n_have)
                progress(n_have, n_all)
    if n_have < n_all:
        raise ConnectionError(f"the connection closed after {n_have:,} of {n_all:,} bytes")


@contextmanager
def _open_part(part: Path) -> Iterator[BinaryIO]:
    """The beginning of a file that is ours, or an empty one: a link there, to whatever, is taken away, not followed."""
    with suppress(FileNotFoundError):
        status = part.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            part.unlink()
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(part, flags, 0o666), "r+b") as file:
            yield file
    finally:
        if part.stat().st_size == 0:
            part.unlink()


def _resumable(asset: Asset, part: Path, file: BinaryIO) -> tuple[int, str]:
    """How many bytes are there of the version that a validator names; none if nobody knows of which they are."""
    n_have = file.seek(0, os.SEEK_END)
    is_whole = n_have == asset.n_bytes and asset.digest
    try:
        state = read_json(_state_path(part), {"url": TEXT, "validator": TEXT}, AssetError)
        validator = str(state["validator"]) if state["url"] == asset.url else ""
    except OSError:  # AssetError among them
        validator = ""
    is_valid = validator.isascii() and validator.isprintable() and bool(validator)
    if is_whole or (n_have and is_valid and n_have < (asset.n_bytes or math.inf)):
        return n_have, validator
    return 0, ""


def _check_content(asset: Asset, headers: Message) -> None:
    """Refuse a page for people, and bytes that are not the file's own: no asset is a page or comes packed."""
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if headers.get("Content-Type", "").lower().startswith("text/html"):
        raise AssetError(_by_hand(asset, f"the server sends a web page. {WRONG_FILE}"))
    if encoding not in ("identity", ""):
        raise AssetError(_by_hand(asset, f"the server sends it packed as {encoding!r:.40}, which was not asked for"))


def _check_range(headers: Message, n_have: int, validator: str, part: Path) -> None:
    """Refuse a piece that does not go on where we are, or is of another version; the file begins again then."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "").strip())
    offered = _validator(headers)
    fits = match and int(match[1]) == n_have and (match[3] == "*" or int(match[2]) + 1 == int(match[3]))
    is_other = offered != validator and (offered or validator.startswith('"'))  # an ETag comes with each piece
    if not fits or is_other:
        _state_path(part).unlink(missing_ok=True)  # so that the next attempt asks for all of it
        raise ConnectionError("the server sent another piece, or a piece of another version, than the one asked for")


def _note_validator(asset: Asset, part: Path, headers: Message) -> None:
    state, validator = _state_path(part), _validator(headers)
    if validator:
        write_atomically(state, json.dumps({"url": asset.url, "validator": validator}).encode())
    else:
        state.unlink(missing_ok=True)


def _validator(headers: Message) -> str:
    """What names a version for certain: a strong ETag, or a time of change long before the answer; or nothing.

    Source: RFC 9110, sections 8.8.2.2 and 13.1.5.
    """
    etag = headers.get("ETag", "").strip()
    if etag.startswith('"') and etag.isascii() and etag.isprintable():
        return etag
    changed, answered = headers.get("Last-Modified", "").strip(), headers.get("Date", "").strip()
    try:
        is_strong = (parsedate_to_datetime(answered) - parsedate_to_datetime(changed)).total_seconds() >= STRONG_S
    except (TypeError, ValueError, IndexError):
        return ""
    return changed if is_strong else ""


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + cache.STATE_SUFFIX)


class _Pace:
    """Ends a transfer that goes on so slowly that it would never be done."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes, self._at = n_bytes, time.monotonic()

    def check(self, n_bytes: int) -> None:
        if time.monotonic() - self._at > PACE_S:
            if n_bytes - self._n_bytes < PACE_BYTES:
                raise ConnectionError(f"fewer than {PACE_BYTES:,} bytes came in {PACE_S:g} s")
            self._n_bytes, self._at = n_bytes, time.monotonic()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to http and https only, and never from https to http, where anybody could change the file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = (urllib.parse.urlsplit(url).scheme.lower() for url in (req.full_url, newurl))
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise _RefusedRedirect(f"the server leads to {newurl!r:.200}, which is not followed; expected {before}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Python's own refuses other addresses in words of its own; ours come first."""
        target = headers.get("location") or headers.get("uri")
        try:
            if target:
                self.redirect_request(req, fp, code, msg, headers, urllib.parse.urljoin(req.full_url, target))
        except ValueError as error:
            raise _RefusedRedirect(f"the server leads to {target!r:.200}, which is no address: {error}") from error
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _RefusedRedirect(Exception):  # noqa: N818 - becomes an AssetError
    """Where a server leads to is no place to fetch from."""


def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https, and nothing else: Python's own would open files and FTP too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def _n_expected(asset: Asset, n_have: int, n_offered: int | None) -> int:
    """Bytes of the whole file, as published or as the server says."""
    n_all = None if n_offered is None else n_have + n_offered
    if asset.n_bytes is None:
        if n_all is None:
            raise AssetError(_by_hand(asset, f"the server does not say how long it is. {WRONG_FILE}"))
        if n_all == 0:
            raise AssetError(_by_hand(asset, f"the server sends nothing. {WRONG_FILE}"))
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
        f"AUDIOSET_ASSETS to that folder; or put it into {_downloads()}"
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
