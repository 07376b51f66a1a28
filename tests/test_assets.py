"""Published files: found on this machine, or fetched whole and right, whatever the server does."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from asset_server import CONTENT, Handler, Server

from audioset.assets import ASSETS, Asset, fetch, find_asset, get_asset, hash_file, transfer
from audioset.cache import cache_folder, writable_folder
from audioset.errors import AssetError, OutputError, UsageError

DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
ASSET = Asset("thing.bin", "set by the server fixture", DIGEST, len(CONTENT), "CC0")
FETCH_IN_PROCESS = """
import sys
import threading
from pathlib import Path
from audioset.assets import Asset, fetch
fetch(Asset("thing.bin", sys.argv[1], sys.argv[2], int(sys.argv[3]), "CC0"), Path(sys.argv[4]))
"""


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.script, server.ranges, server.released = [("good",)], [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def asset(server):
    return replace(ASSET, url=f"http://127.0.0.1:{server.server_port}/thing.bin")


@pytest.fixture
def pauses(monkeypatch):
    """Waits between attempts, noted instead of waited for."""
    noted = []
    monkeypatch.setattr(transfer, "time", SimpleNamespace(sleep=noted.append, monotonic=time.monotonic))
    return noted


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A cache of the test's own, and no folder with assets."""
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUDIOSET_ASSETS", raising=False)
    return tmp_path / "cache"


def check_refused(asset, folder, match, kind=AssetError):
    with pytest.raises(kind, match=match):
        fetch(asset, folder)
    assert not (folder / asset.name).exists()


def test_the_table_is_well_formed():
    for name, asset in ASSETS.items():
        assert name == asset.name == unquote(urlparse(asset.url).path.rsplit("/", 1)[1])
        assert asset.url.startswith("https://")
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|", asset.digest)
        assert asset.n_bytes is None or asset.n_bytes > 0
        assert asset.licence


def test_the_network_is_out_of_reach_of_tests():
    with socket.socket() as connection, pytest.raises(AssertionError, match="a test opens a connection"):
        connection.connect(("192.0.2.1", 80))


# ---- fetching


def test_a_good_server(server, asset, tmp_path):
    path = fetch(asset, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "thing.bin"
    assert path.read_bytes() == CONTENT
    assert hash_file(path) == asset.digest
    assert not path.with_name("thing.bin.part").exists()
    assert server.ranges == [None]


def test_a_file_that_is_there_is_not_fetched_again(server, asset, tmp_path):
    fetch(asset, tmp_path)
    fetch(asset, tmp_path)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("n_bytes", [1, 262_143, 262_144, 599_999])
def test_a_cut_connection_is_resumed(server, asset, tmp_path, pauses, n_bytes):
    server.script = [("good", CONTENT, n_bytes), ("good",)]
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={n_bytes}-"]
    assert pauses == [1.0]


def test_a_later_run_goes_on_where_an_earlier_one_stopped(server, asset, tmp_path, pauses):
    server.script = [("good", CONTENT, 100_000), ("status", 404), ("good",)]
    check_refused(asset, tmp_path, "404")
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=100000-"


def test_a_server_that_ignores_ranges(server, asset, tmp_path, pauses):
    server.script = [("good", CONTENT, 100_000), ("whole",)]
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("body", [bytes(600_000), CONTENT[:-1] + b"?"], ids=["other bytes", "last byte"])
def test_wrong_bytes_never_get_the_name(server, asset, tmp_path, body):
    server.script = [("good", body)]
    check_refused(asset, tmp_path, f"have the hash .*expected 600,000 bytes with {asset.digest}.*They were deleted")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("body", [b"<html>please log in</html>", CONTENT + b"more"], ids=["page", "longer"])
def test_another_length_is_told_at_once(server, asset, tmp_path, pauses, body):
    server.script = [("good", body)]
    check_refused(asset, tmp_path, f"the server offers {len(body):,} bytes; expected 600,000.*a login or error page")
    assert not list(tmp_path.glob("*.part"))
    assert pauses == []


def test_a_body_longer_than_the_file_is_not_read_to_its_end(server, asset, tmp_path):
    server.script = [("whole", CONTENT * 20)]
    check_refused(asset, tmp_path, r"the (6|7|8)\d\d,\d{3} bytes from .* have the hash")


def test_a_file_whose_size_only_the_server_knows(server, asset, tmp_path, pauses):
    server.script = [("good", CONTENT, 100_000), ("good",)]
    unsized = replace(asset, n_bytes=None, digest=f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert fetch(unsized, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_file_whose_size_nobody_knows(server, asset, tmp_path):
    server.script = [("whole",)]
    check_refused(replace(asset, n_bytes=None), tmp_path, "the server does not say how long it is")


def test_wrong_bytes_of_a_file_whose_size_only_the_server_knows(server, asset, tmp_path):
    server.script = [("good", CONTENT[:-1] + b"?")]
    check_refused(replace(asset, n_bytes=None), tmp_path, f"have the hash .*expected {asset.digest}")


def test_a_file_without_a_published_hash_is_taken_with_a_warning(server, asset, tmp_path, caplog):
    assert fetch(replace(asset, digest="", n_bytes=None), tmp_path).read_bytes() == CONTENT
    assert "thing.bin cannot be checked: its publisher gives no hash" in caplog.text


def test_a_page_without_a_length(server, asset, tmp_path, pauses):
    """It looks like a cut connection, until the server is asked for the rest."""
    server.script = [("whole", b"<html>please log in</html>"), ("status", 416)]
    check_refused(asset, tmp_path, r"the server answered 416 .*\(5 attempts\)")
    assert not list(tmp_path.glob("*.part"))


def test_a_stale_part_is_not_believed(server, asset, tmp_path):
    (tmp_path / "thing.bin.part").write_bytes(bytes(1_000))
    assert fetch(asset, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("n_bytes", [600_000, 600_001])
def test_a_part_of_full_length_is_checked(server, asset, tmp_path, n_bytes):
    (tmp_path / "thing.bin.part").write_bytes((CONTENT + b"?")[:n_bytes])
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == n_bytes - 600_000  # the right bytes need no request


@pytest.mark.parametrize("code", [400, 403, 404, 410])
def test_a_refusal_is_not_repeated(server, asset, tmp_path, pauses, code):
    server.script = [("status", code)]
    check_refused(asset, tmp_path, f"the server answered {code}")
    assert len(server.ranges) == 1
    assert pauses == []


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, asset, tmp_path, pauses, code):
    server.script = [("status", code), ("status", code, ("Retry-After", "7")), ("good",)]
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert pauses == [1.0, 7.0]


def test_attempts_end(server, asset, tmp_path, pauses):
    server.script = [("status", 503)]
    check_refused(asset, tmp_path, r"the server answered 503 .*\(5 attempts\)")
    assert pauses == [1.0, 2.0, 4.0, 8.0]


def test_retry_after_is_bounded(server, asset, tmp_path, pauses):
    server.script = [("status", 503, ("Retry-After", "86400")), ("status", 503, ("Retry-After", "Friday")), ("good",)]
    fetch(asset, tmp_path)
    assert pauses == [60.0, 2.0]


def test_a_server_that_stalls(server, asset, tmp_path, pauses, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.2)
    server.script = [("stall",), ("good",)]
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=1000-"]


def test_nobody_listens(asset, tmp_path, pauses):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        deaf = replace(asset, url=f"http://127.0.0.1:{taken.getsockname()[1]}/thing.bin")
        check_refused(deaf, tmp_path, r"refused.*\(5 attempts\)")


def test_no_network_at_all_is_told_at_once(asset, tmp_path, pauses, monkeypatch):
    def no_such_host(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_host)
    check_refused(replace(asset, url="http://nowhere.invalid/thing.bin"), tmp_path, "there is no connection")
    assert pauses == []


def test_offline(asset, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    check_refused(asset, tmp_path, "AUDIOSET_OFFLINE is set, so nothing is downloaded")


# ---- one version, and nothing else

OTHER = CONTENT[:1_000] + np.random.default_rng(1).bytes(599_000)  # a later version: it begins as the first does
LONG_AGO = "Wed, 21 Oct 2015 07:28:00 GMT"


def unhashed(asset):
    """As most published files: nobody but the server knows what they hold."""
    return replace(asset, digest="", n_bytes=None)


def test_a_version_that_changes_between_two_requests_is_fetched_anew(server, asset, tmp_path, pauses):
    server.script = [("good", CONTENT, 100_000), ("good", OTHER)]
    assert fetch(unhashed(asset), tmp_path).read_bytes() == OTHER
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": 'W/"1"'},
        {"Last-Modified": "Fri, 01 Jan 2100 00:00:00 GMT"},
        {"ETag": '"1\x01"'},
        {"Last-Modified": "soon"},
    ],
    ids=["none", "weak", "just changed", "control", "no time"],
)
def test_what_names_no_version_is_not_resumed(server, asset, tmp_path, pauses, headers):
    server.script = [("piece", 200, CONTENT, headers, 100_000), ("piece", 200, OTHER, headers)]
    assert fetch(unhashed(asset), tmp_path).read_bytes() == OTHER
    assert server.ranges == [None, None]


def test_a_time_of_change_long_ago_names_a_version(server, asset, tmp_path, pauses):
    headers = {"Last-Modified": LONG_AGO}
    rest = {**headers, "Content-Range": "bytes 100000-599999/600000"}
    server.script = [("piece", 200, CONTENT, headers, 100_000), ("piece", 206, CONTENT[100_000:], rest)]
    assert fetch(unhashed(asset), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 99999-599999/600000"},
        {"Content-Range": "bytes 100000-599998/600000"},
        {"Content-Range": "bytes */600000"},
        {"Content-Range": "bytes 100000-599999/600000", "ETag": '"2"'},
        {"Content-Range": "bytes 100000-599999/600000"},
        {},
    ],
    ids=["start", "end", "none", "version", "no version", "missing"],
)
def test_another_piece_than_the_one_asked_for_is_not_joined(server, asset, tmp_path, pauses, headers):
    server.script = [
        ("piece", 200, CONTENT, {"ETag": '"1"'}, 100_000),
        ("piece", 206, OTHER[100_000:], headers),
        ("piece", 200, OTHER, {"ETag": '"2"'}),
    ]
    assert fetch(unhashed(asset), tmp_path).read_bytes() == OTHER
    assert server.ranges == [None, "bytes=100000-", None]


def test_a_file_that_became_shorter_is_fetched_anew(server, asset, tmp_path, pauses):
    server.script = [("good", CONTENT, 100_000), ("status", 416), ("good", OTHER[:50_000])]
    assert fetch(unhashed(asset), tmp_path).read_bytes() == OTHER[:50_000]


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x", "gopher://127.0.0.1"]
)
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_server_may_lead_to_http_only(server, asset, tmp_path, url, code):
    server.script = [("status", code, ("Location", url))]
    check_refused(asset, tmp_path, f"the server leads to {re.escape(repr(url))}, which is not followed; expected http")
    assert list(tmp_path.iterdir()) == [tmp_path / "thing.bin.lock"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_server_may_lead_on(server, asset, tmp_path, code):
    server.script = [("status", code, ("Location", "/elsewhere/thing.bin")), ("good",)]
    assert fetch(asset, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://[", "//["])
def test_a_server_may_lead_nowhere(server, asset, tmp_path, url):
    server.script = [("status", 302, ("Location", url))]
    check_refused(asset, tmp_path, f"the server leads to {re.escape(repr(url))}, which is no address")


@pytest.mark.parametrize(
    ("headers", "match"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "the server sends a web page. Likely cause: a login"),
        ({"Content-Encoding": "gzip"}, "the server sends it packed as 'gzip', which was not asked for"),
    ],
)
@pytest.mark.parametrize("n_before", [0, 100_000])
def test_other_bytes_than_the_files_own_are_not_taken(server, asset, tmp_path, pauses, headers, match, n_before):
    rest = {"ETag": '"1"', "Content-Range": "bytes 100000-599999/600000", **headers}
    whole = ("piece", 200, CONTENT, {"ETag": '"1"'}, n_before)
    server.script = [whole, ("piece", 206, CONTENT[n_before:], rest)] if n_before else [("piece", 200, CONTENT, rest)]
    check_refused(replace(unhashed(asset), n_bytes=None), tmp_path, match)
    assert not (tmp_path / asset.name).exists()


def test_an_empty_answer(server, asset, tmp_path):
    server.script = [("good", b"")]
    check_refused(replace(asset, n_bytes=None), tmp_path, "the server sends nothing")


def test_a_trickle_is_a_broken_connection(server, asset, tmp_path, pauses, monkeypatch):
    monkeypatch.setattr(transfer, "PACE_S", -1.0)
    monkeypatch.setattr(transfer, "PACE_BYTES", 10**9)
    check_refused(asset, tmp_path, r"fewer than 1,000,000,000 bytes came in -1 s \(5 attempts\)")
    assert len(server.ranges) == 5


@pytest.fixture
def known(asset, empty_cache, monkeypatch):
    """The asset as one of the table."""
    monkeypatch.setitem(ASSETS, asset.name, asset)
    return empty_cache / "assets" / asset.name


def test_a_download_that_was_damaged_in_the_cache_is_fetched_again(server, known, caplog):
    assert get_asset("thing.bin") == known
    known.write_bytes(CONTENT[:-1] + b"?")
    assert get_asset("thing.bin").read_bytes() == CONTENT
    assert "thing.bin is damaged (it does not fit its checksum) and is fetched again" in caplog.text
    assert get_asset("thing.bin") == known
    assert len(server.ranges) == 2


def test_a_damaged_download_stays_until_there_is_another(server, known, monkeypatch):
    get_asset("thing.bin")
    known.write_bytes(b"damaged")
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    with pytest.raises(AssetError, match="AUDIOSET_OFFLINE is set, so nothing is downloaded"):
        get_asset("thing.bin")
    assert known.read_bytes() == b"damaged"


def test_a_file_put_into_the_cache_by_hand_is_used_as_it_is(server, known):
    known.parent.mkdir(parents=True)
    known.write_bytes(b"mine")
    assert get_asset("thing.bin").read_bytes() == b"mine"
    assert server.ranges == []


def test_a_server_that_leads_in_a_circle(server, asset, tmp_path, pauses):
    server.script = [("status", 302, ("Location", "/thing.bin"))]
    check_refused(asset, tmp_path, "infinite loop")


def test_https_never_becomes_http():
    request = urllib.request.Request("https://127.0.0.1/thing.bin")
    with pytest.raises(transfer._RefusedRedirect, match="is not followed; expected https"):
        transfer._Redirects().redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/thing.bin")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_only_http_is_opened_at_all(asset, tmp_path, pauses, url):
    check_refused(replace(asset, url=url), tmp_path, "unknown url type")


@pytest.mark.parametrize("kind", ["symbolic", "hard", "broken", "folder"])
def test_a_link_in_place_of_a_partial_file_is_not_written_through(server, asset, tmp_path, kind):
    victim, part = tmp_path / "victim", tmp_path / "new" / "thing.bin.part"
    part.parent.mkdir()
    victim.write_bytes(b"mine")
    if kind == "hard":
        part.hardlink_to(victim)
    else:
        part.symlink_to({"symbolic": victim, "broken": tmp_path / "nothing", "folder": tmp_path}[kind])
    assert fetch(asset, part.parent).read_bytes() == CONTENT
    assert victim.read_bytes() == b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "new"}


@pytest.mark.parametrize("state", [b"", b"no JSON", b"[]", b'{"url": 1, "validator": 2}', b'{"a":' * 100_000])
def test_a_damaged_note_of_the_version_is_no_version(server, asset, tmp_path, state):
    (tmp_path / "thing.bin.part").write_bytes(bytes(1_000))
    (tmp_path / "thing.bin.part.json").write_bytes(state)
    assert fetch(asset, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None]


# ---- by hand


def test_the_message_says_what_to_do_by_hand(asset, empty_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("AUDIOSET_OFFLINE", "1")
    check_refused(asset, tmp_path, rf"\(0\.6 MB\).*download {re.escape(asset.url)} .*into {empty_cache}/assets$")
    monkeypatch.setenv("AUDIOSET_ASSETS", "/my/folder")
    check_refused(asset, tmp_path, "put the file into /my/folder, and set AUDIOSET_ASSETS to that folder")


def test_a_folder_that_cannot_be_written(asset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"thing\.bin cannot be written to .*Not a directory"):
        fetch(asset, tmp_path / "file" / "folder")


def test_threads_share_one_download(server, asset, tmp_path):
    server.script = [("good", CONTENT, None, 0.2)]
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, [asset] * 4, [tmp_path] * 4))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.ranges) == 1


def test_processes_share_one_download(server, asset, tmp_path):
    server.script = [("good", CONTENT, None, 0.5)]
    command = [sys.executable, "-c", FETCH_IN_PROCESS, asset.url, asset.digest, str(asset.n_bytes), str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert (tmp_path / "thing.bin").read_bytes() == CONTENT
    assert len(server.ranges) == 1


def test_a_person_sees_a_bar(asset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(asset, tmp_path)
    shown = capsys.readouterr()
    assert "thing.bin" in shown.err
    assert shown.out == ""


def test_nobody_watching_sees_nothing(asset, tmp_path, capsys):
    fetch(asset, tmp_path)
    assert capsys.readouterr() == ("", "")


# ---- looking


def test_the_order_of_places(server, asset, tmp_path, empty_cache, monkeypatch):
    monkeypatch.setitem(ASSETS, asset.name, asset)
    assert find_asset(asset.name) is None
    assert server.ranges == []
    fetched = get_asset(asset.name)
    assert fetched == empty_cache / "assets" / "thing.bin" == find_asset(asset.name)

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    monkeypatch.setenv("AUDIOSET_ASSETS", f"{first}{os.pathsep}{os.pathsep}{second}")
    assert get_asset(asset.name) == fetched  # neither folder has it
    (second / "thing.bin").write_bytes(b"the user's own, used as it is")
    assert get_asset(asset.name) == second / "thing.bin"
    (first / "thing.bin").write_bytes(b"the same")
    assert get_asset(asset.name) == first / "thing.bin"
    assert len(server.ranges) == 1


def test_unknown_assets():
    with pytest.raises(UsageError, match=r"there is no asset 'yamnet'; expected one of yamnet\.h5, "):
        find_asset("yamnet")


def test_the_cache_follows_the_environment(empty_cache):
    assert cache_folder() == empty_cache
    assert not empty_cache.exists()
    assert writable_folder() == empty_cache
    assert list(empty_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(empty_cache, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUDIOSET_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING):
        folder = writable_folder()
        assert writable_folder() == folder
    (folder / "test").write_bytes(b"works")
    assert len(caplog.records) == 1  # one warning, not one each time
    assert "cannot be written (Not a directory)" in caplog.text
    assert "set AUDIOSET_CACHE to a folder of yours" in caplog.text
