"""Published files: where they are, what they must hash to, and how they get here.

A file is looked for in the folders of ``AUDIOSET_ASSETS``, then in the cache, and fetched last. What is
fetched has the published hash or does not get its name.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from audioset import cache
from audioset.assets.published import ASSETS as ASSETS
from audioset.assets.published import Asset as Asset
from audioset.assets.transfer import WRONG_FILE, asset_folders, by_hand, downloads, fetch_part, state_path
from audioset.errors import AssetError, OutputError, UsageError
from audioset.files import confined, read_blocks

logger = logging.getLogger(__name__)


def find_asset(name: str) -> Path | None:
    """Path of an asset that is on this machine, or None. Opens no connection.

    ``UsageError`` if it is no key of ``ASSETS``.
    """
    _asset(name)
    return find_file(name)


def find_file(name: str) -> Path | None:
    """Path of a published file of any name, in the folders of ``AUDIOSET_ASSETS`` or in the cache; or None."""
    candidates = [Path(folder) / name for folder in asset_folders()]
    candidates.append(downloads() / name)
    return next((path for path in candidates if path.is_file()), None)


def get_asset(name: str) -> Path:
    """Path of an asset, fetched into the cache if it is not on this machine, or is damaged there.

    ``AssetError`` if it cannot be fetched; the message says where to put the file by hand.
    """
    return get_file(_asset(name))


def get_file(asset: Asset) -> Path:
    """As ``get_asset``, of any published file. What the cache has is compared with its checksum."""
    path = find_file(asset.name)
    if path is None:
        return _fetch_to_cache(asset)
    if path != downloads() / asset.name or not cache.is_sealed(path) or cache.is_whole(path):
        return path  # the user's own, or as it was fetched
    logger.warning("%s is damaged (it does not fit its checksum) and is fetched again", path)
    return _fetch_to_cache(asset, is_damaged=True)


def _fetch_to_cache(asset: Asset, *, is_damaged: bool = False) -> Path:
    return fetch(asset, cache.writable_folder() / cache.ASSETS, is_damaged=is_damaged)


def fetch(asset: Asset, folder: Path, *, is_damaged: bool = False) -> Path:
    """Download an asset: resumed where it stopped, checked, and only then given its name.

    Several processes that ask at once share one download. The folder is made if need be. ``is_damaged``: a file of that
    name in the cache does not fit its checksum and is replaced. ``AssetError`` if there is no connection, a refusal, or
    bytes that are not the published ones; ``OutputError`` if the folder cannot be written, or the disk is full.
    """
    import filelock

    target = confined(folder, asset.name)
    if os.environ.get("AUDIOSET_OFFLINE"):
        raise AssetError(by_hand(asset, "AUDIOSET_OFFLINE is set, so nothing is downloaded"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f"{asset.name}.lock"):
            if not target.is_file() or (is_damaged and not cache.is_whole(target)):
                part = folder / f"{asset.name}{cache.PART_SUFFIX}"
                fetch_part(asset, part)
                _check_hash(asset, part)
                if cache.holds_downloads(folder):
                    cache.seal_as(part, target)
                part.replace(target)
                state_path(part).unlink(missing_ok=True)
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


def _check_hash(asset: Asset, part: Path) -> None:
    if not asset.digest:
        logger.warning("%s cannot be checked: its publisher gives no hash", asset.name)
    elif not is_published(asset, part):
        n_bytes, digest = part.stat().st_size, hash_file(part, asset.digest.partition(":")[0])
        part.unlink()
        size = "" if asset.n_bytes is None else f"{asset.n_bytes:,} bytes with "
        raise AssetError(
            by_hand(
                asset,
                f"the {n_bytes:,} bytes from {asset.url} have the hash {digest}; expected {size}{asset.digest}. "
                f"They were deleted. {WRONG_FILE}",
            )
        )
