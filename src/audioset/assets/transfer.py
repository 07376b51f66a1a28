"""How a published file gets here by HTTP: resumed where it stopped, never of two versions, and never without end."""

from __future__ import annotations

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
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO

from audioset import cache
from audioset.assets.published import Asset
from audioset.errors import AssetError
from audioset.files import write_atomically
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


def fetch_part(asset: Asset, part: Path) -> None:
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
                    raise AssetError(by_hand(asset, failure)) from error
                pause_s = _retry_after_s(error.headers.get("Retry-After"), 2.0**attempt)
            except _RefusedRedirect as error:
                raise AssetError(by_hand(asset, str(error))) from error
            except NETWORK_ERRORS as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, socket.gaierror):  # no network at all: waiting does not help
                    raise AssetError(by_hand(asset, f"there is no connection ({reason.strerror})")) from error
                failure = str(reason)
                pause_s = 2.0**attempt
            if attempt < ATTEMPTS - 1:
                logger.info("%s: %s; trying again in %.0f s", asset.name, failure, pause_s)
                time.sleep(pause_s)
    raise AssetError(by_hand(asset, f"{failure} ({ATTEMPTS} attempts)"))


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
        state = read_json(state_path(part), {"url": TEXT, "validator": TEXT}, AssetError)
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
        raise AssetError(by_hand(asset, f"the server sends a web page. {WRONG_FILE}"))
    if encoding not in ("identity", ""):
        raise AssetError(by_hand(asset, f"the server sends it packed as {encoding!r:.40}, which was not asked for"))


def _check_range(headers: Message, n_have: int, validator: str, part: Path) -> None:
    """Refuse a piece that does not go on where we are, or is of another version; the file begins again then."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "").strip())
    offered = _validator(headers)
    fits = match and int(match[1]) == n_have and (match[3] == "*" or int(match[2]) + 1 == int(match[3]))
    is_other = offered != validator and (offered or validator.startswith('"'))  # an ETag comes with each piece
    if not fits or is_other:
        state_path(part).unlink(missing_ok=True)  # so that the next attempt asks for all of it
        raise ConnectionError("the server sent another piece, or a piece of another version, than the one asked for")


def _note_validator(asset: Asset, part: Path, headers: Message) -> None:
    state, validator = state_path(part), _validator(headers)
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


def state_path(part: Path) -> Path:
    """Where it is noted of which version a part is."""
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
            raise AssetError(by_hand(asset, f"the server does not say how long it is. {WRONG_FILE}"))
        if n_all == 0:
            raise AssetError(by_hand(asset, f"the server sends nothing. {WRONG_FILE}"))
        return n_all
    if n_all not in (None, asset.n_bytes):
        offer = f"the server offers {n_all:,} bytes; expected {asset.n_bytes:,}"
        raise AssetError(by_hand(asset, f"{offer}. {WRONG_FILE}"))
    return asset.n_bytes


def by_hand(asset: Asset, failure: str) -> str:
    """Why a file is not here, and how a person brings it."""
    folder = next(iter(asset_folders()), "a folder of yours")
    size = "" if asset.n_bytes is None else f" ({asset.n_bytes / 1e6:.1f} MB)"
    return (
        f"{asset.name}{size} is needed and is not on this machine; {failure}. "
        f"Next step: download {asset.url} on a machine that can, put the file into {folder}, and set "
        f"AUDIOSET_ASSETS to that folder; or put it into {downloads()}"
    )


def asset_folders() -> list[str]:
    """Where people keep published files of their own."""
    return [folder for folder in os.environ.get("AUDIOSET_ASSETS", "").split(os.pathsep) if folder]


def downloads() -> Path:
    """Where the cache keeps them."""
    return cache.cache_folder() / cache.ASSETS


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
