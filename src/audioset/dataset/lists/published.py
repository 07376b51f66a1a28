"""The files that AudioSet publishes: where they are, and how they get here."""

from __future__ import annotations

import os
from pathlib import Path

from audioset.assets import ASSETS, Asset, fetch, get_file, hash_file, is_published
from audioset.errors import ConflictError, UsageError

REGIONS = ("us", "eu", "asia")
BUCKET = "https://storage.googleapis.com/{region}_audioset/youtube_corpus"
LICENCE = "CC-BY-4.0"

# name of the subset -> (other names for it, file)
SUBSETS = {
    "eval": ((), "eval_segments.csv"),
    "balanced_train": (("bal_train",), "balanced_train_segments.csv"),
    "unbalanced_train": (("unbal_train",), "unbalanced_train_segments.csv"),
}
STRONG_FILES = {
    "train": "audioset_train_strong.tsv",
    "eval": "audioset_eval_strong.tsv",
    "eval_framed": "audioset_eval_strong_framed_posneg.tsv",
}
SUBSET_FILES = {name: file for subset, (others, file) in SUBSETS.items() for name in (subset, *others)}


def published_files(region: str = "us") -> dict[str, tuple[Asset, ...]]:
    """The published files, by what they are; the digest is empty where none is known. Only the features have copies."""
    if region not in REGIONS:
        raise UsageError(f"region is {region!r}; expected one of {', '.join(REGIONS)}")
    tables, features = BUCKET.format(region="us"), BUCKET.format(region=region)

    def asset(url: str, digest: str = "", n_bytes: int | None = None) -> Asset:
        return Asset(url.rpartition("/")[2], url, digest, n_bytes, LICENCE)

    return {
        "segments": (
            asset(f"{tables}/v1/csv/eval_segments.csv", "md5:85e796902a4e6a0898980a55f86b55f3", 1_143_389),
            asset(f"{tables}/v1/csv/balanced_train_segments.csv", "md5:0ec13c62ec25d1148b9bf3390dee8bd7", 1_211_931),
            asset(f"{tables}/v1/csv/unbalanced_train_segments.csv"),
        ),
        "labels": (asset(f"{tables}/v1/csv/class_labels_indices.csv", "md5:68c0b5c199d6cc789852b144cc3ab500", 14_675),),
        "ontology": (ASSETS["ontology.json"],),
        "strong": (
            asset(f"{tables}/strong/audioset_train_strong.tsv"),
            asset(f"{tables}/strong/audioset_eval_strong.tsv"),
            asset(f"{tables}/strong/audioset_eval_strong_framed_posneg.tsv"),
            asset(f"{tables}/strong/mid_to_display_name.tsv"),
        ),
        "qa": (asset(f"{tables}/v1/qa/qa_true_counts.csv"), asset(f"{tables}/v1/qa/rerated_video_ids.txt")),
        "features": (asset(f"{features}/v1/features/features.tar.gz"),),
    }


def get_published(name: str) -> Path:
    """Path of a published file, fetched into the cache if it is not on this machine."""
    asset = next(asset for group in published_files().values() for asset in group if asset.name == name)
    return get_file(asset)


def segments_path(source: str | os.PathLike[str]) -> Path:
    """The file of a list of clips, given its path or the name of a subset.

    ``"eval"`` and the other names of ``SUBSET_FILES`` are the published lists; a file of such a name is meant by
    ``./eval``.
    """
    name = SUBSET_FILES.get(os.fspath(source))
    return get_published(name) if name else Path(source)


def strong_path(source: str | os.PathLike[str]) -> Path:
    """The file of labels with times, given its path, or ``"train"``, ``"eval"`` or ``"eval_framed"``."""
    name = STRONG_FILES.get(os.fspath(source))
    return get_published(name) if name else Path(source)


def fetch_published(asset: Asset, folder: Path) -> tuple[Path, bool]:
    """Fetch a published file into a folder, unless it is there: its path, and whether it was fetched now."""
    path = folder / asset.name
    if not path.is_file():
        return fetch(asset, folder), True
    n_bytes = path.stat().st_size
    if asset.n_bytes not in (None, n_bytes):
        raise _not_published(path, f"has {n_bytes:,} bytes", f"{asset.n_bytes:,}")
    if not is_published(asset, path):
        found = hash_file(path, asset.digest.partition(":")[0])
        raise _not_published(path, f"has the hash {found}", asset.digest)
    return path, False


def _not_published(path: Path, found: str, expected: str) -> ConflictError:
    return ConflictError(
        f"{path} is there, but is not the published file: it {found}; expected {expected}. It is left as it is. "
        "Likely cause: an edited or cut copy. Next step: move it away, or choose another folder"
    )
