"""The published files: found, fetched, kept if they are right, and named if they are not."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asset_server import Handler, Server
from click.testing import CliRunner, Result

from audioset.assets import find_file
from audioset.cli.data_fetch import KINDS, fetch
from audioset.dataset.lists import published
from audioset.dataset.lists.published import (
    REGIONS,
    SUBSET_FILES,
    fetch_published,
    published_files,
    segments_path,
    strong_path,
)
from audioset.errors import AssetError, ConflictError, UsageError

CONTENT = b"some bytes"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A place on this machine that publishes all files, with the bytes of ``server.script``."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.script, server.ranges = [("good", CONTENT)], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(published, "BUCKET", f"http://127.0.0.1:{server.server_port}/{{region}}_audioset")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache of the test's own, and no folder with assets."""
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUDIOSET_ASSETS", raising=False)
    return tmp_path / "cache" / "assets"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(fetch, list(map(str, arguments)), standalone_mode=False)


def asset(kind: str, place: int = 0) -> Any:
    return published_files()[kind][place]


def test_the_table_is_well_formed() -> None:
    for region in REGIONS:
        groups = published_files(region)
        assert tuple(groups) == KINDS
        files = [asset for group in groups.values() for asset in group]
        assert len({asset.name for asset in files}) == len(files) == 12
        for entry in files:
            assert entry.url.startswith("https://")
            assert entry.url.endswith(f"/{entry.name}")
            assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|", entry.digest)
    assert published_files("eu")["features"][0].url == (
        "https://storage.googleapis.com/eu_audioset/youtube_corpus/v1/features/features.tar.gz"
    )
    assert published_files("eu")["segments"] == published_files("asia")["segments"]
    with pytest.raises(UsageError, match="region is 'mars'; expected one of us, eu, asia"):
        published_files("mars")


@pytest.mark.parametrize(("kind", "place"), [("segments", 0), ("segments", 1), ("labels", 0), ("ontology", 0)])
def test_the_published_files_at_hand_have_the_published_hashes(kind: str, place: int, assets_folder: Path) -> None:
    path, is_new = fetch_published(asset(kind, place), assets_folder)
    assert path == assets_folder / asset(kind, place).name
    assert not is_new


def test_a_published_file_comes_whole_and_right(server: Any, assets_folder: Path, tmp_path: Path) -> None:
    body = (assets_folder / "eval_segments.csv").read_bytes()
    server.script = [("good", body, 300_000), ("good", body)]
    path, is_new = fetch_published(asset("segments"), tmp_path / "new")
    assert is_new
    assert path.read_bytes() == body
    assert server.ranges == [None, "bytes=300000-"]
    assert fetch_published(asset("segments"), tmp_path / "new") == (path, False)
    assert len(server.ranges) == 2


def test_other_bytes_from_the_server_are_refused(server: Any, tmp_path: Path) -> None:
    server.script = [("good", b"x" * 14_675)]
    with pytest.raises(AssetError, match=r"have the hash md5:.*They were deleted"):
        fetch_published(asset("labels"), tmp_path)
    assert not (tmp_path / "class_labels_indices.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(b"x" * 14_675, "it has the hash md5:"), (b"x", "it has 1 bytes; expected 14,675")]
)
def test_a_foreign_file_is_named_and_left_alone(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "class_labels_indices.csv"
    path.write_bytes(content)
    with pytest.raises(ConflictError, match=message):
        fetch_published(asset("labels"), tmp_path)
    assert path.read_bytes() == content


def test_subsets_are_found_by_both_names(assets_folder: Path) -> None:
    assert segments_path("eval") == assets_folder / "eval_segments.csv"
    assert (
        segments_path("bal_train") == segments_path("balanced_train") == assets_folder / "balanced_train_segments.csv"
    )
    assert SUBSET_FILES["unbal_train"] == SUBSET_FILES["unbalanced_train"] == "unbalanced_train_segments.csv"
    assert segments_path("./eval") == Path("./eval")
    assert segments_path("-list.csv") == Path("-list.csv")


def test_a_list_that_is_not_here_is_fetched_into_the_cache(server: Any, empty: Path) -> None:
    assert find_file("unbalanced_train_segments.csv") is None
    path = segments_path("unbalanced_train")
    assert path == empty / "unbalanced_train_segments.csv"
    assert path.read_bytes() == CONTENT
    assert find_file(path.name) == path
    assert strong_path("eval_framed").name == "audioset_eval_strong_framed_posneg.tsv"
    assert strong_path("my.tsv") == Path("my.tsv")


def test_nothing_is_fetched_offline(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    with pytest.raises(AssetError, match="AUDIOSET_OFFLINE is set"):
        segments_path("eval")


def test_the_command_fetches_a_kind_into_a_folder(server: Any, tmp_path: Path) -> None:
    result = run("strong", "--output", tmp_path / "strong", "--json")
    records = json.loads(result.stdout)
    assert result.return_value == 0
    assert [record["file"] for record in records] == [asset.name for asset in published_files()["strong"]]
    assert all(record["is_new"] and Path(record["path"]).read_bytes() == CONTENT for record in records)
    again = run("strong", "--output", tmp_path / "strong")
    assert again.stdout.splitlines() == [record["path"] for record in records]
    assert again.stderr.count("is there already; no hash is published") == 4


def test_a_foreign_file_does_not_stop_the_others(server: Any, assets_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "eval_segments.csv").write_bytes(b"x")
    server.script = [("good", (assets_folder / "balanced_train_segments.csv").read_bytes()), ("good", CONTENT)]
    result = run("segments", "--output", tmp_path)
    assert result.return_value == 6
    assert "eval_segments.csv is there, but is not the published file" in result.stderr
    assert [Path(line).name for line in result.stdout.splitlines()] == [
        "balanced_train_segments.csv",
        "unbalanced_train_segments.csv",
    ]


def test_the_list_says_what_is_here(assets_folder: Path, tmp_path: Path) -> None:
    records = {record["file"]: record for record in json.loads(run("--list", "--json").stdout)}
    assert len(records) == 12
    assert records["eval_segments.csv"]["path"] == str(assets_folder / "eval_segments.csv")
    assert records["audioset_train_strong.tsv"]["path"] is None
    assert "not here" in run("segments", "--list", "--output", tmp_path).stdout


def test_the_command_asks_what_to_fetch() -> None:
    result = run()
    assert "say what to fetch: segments, labels" in str(getattr(result.exception, "message", ""))
