"""A site on this machine that serves one sound for each video, and fails in every way that it is told to."""

from __future__ import annotations

import re
import socket
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from sounds import wav_bytes

RATE = 8_000
SECONDS = 2.0
HTML = b"<!doctype html><html><head><title>Sorry</title></head><body><p>Something went wrong.</p></body></html>"
# What answers the first request for a video, and what spoils the transfer.
REFUSALS = {
    "403": (403, {}),
    "404": (404, {}),
    "429": (429, {"Retry-After": "1"}),
    "500": (500, {}),
    "503": (503, {"Retry-After": "1"}),
    "html": (200, {}),
    "loop": (302, {}),
    "silent": (0, {}),
}
LOOP = "/loop"
SPOILERS = ("cut", "cut-quietly", "stall", "noise", "empty", "data-403", "data-503", "short")
FAULTS = (*REFUSALS, *SPOILERS)


def sound(video_id: str, seconds: float = SECONDS) -> np.ndarray:
    """The sound of a video, int16: noise that no other video has."""
    rng = np.random.default_rng(zlib.crc32(video_id.encode()))
    return rng.integers(-20_000, 20_000, round(seconds * RATE)).astype(np.int16)


def media(video_id: str) -> bytes:
    """The same as a WAV file."""
    return wav_bytes(sound(video_id), RATE)


@dataclass
class Site:
    """The server, and what it was asked.

    Attributes
    ----------
    plan : dict of str to list of str
        For each video the faults of the next attempts, in order; no fault where the list is empty.
    requests : list of (float, str, str)
        When, for which video, and which part: ``probe``, ``data`` or ``range``.
    """

    plan: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    make: Callable[[str], bytes] = media
    content_type: str = "audio/wav"
    stall_s: float = 5.0
    requests: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._is_probed: dict[str, bool] = defaultdict(bool)
        self._closing = threading.Event()

    def __enter__(self) -> Site:
        site = self

        class Handler(_Handler):
            pass

        Handler.site = site
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url_template(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{{video_id}}.wav"

    def n_requests(self, video_id: str, part: str) -> int:
        return sum(1 for _, asked, kind in self.requests if (asked, kind) == (video_id, part))

    def next_fault(self, video_id: str, has_range: bool) -> tuple[str, str]:
        """Which part a request is for, and what goes wrong with it.

        yt-dlp asks twice for each attempt: once to see what is there, and once for the data.
        """
        with self._lock:
            if has_range:
                part, fault = "range", ""
            elif not self._is_probed[video_id]:
                part = "probe"
                fault = self.plan[video_id][0] if self.plan[video_id] else ""
                fault = fault if fault in REFUSALS else ""
                self._is_probed[video_id] = not fault
                if fault:
                    self.plan[video_id].pop(0)
            else:
                part = "data"
                fault = self.plan[video_id].pop(0) if self.plan[video_id] else ""
                self._is_probed[video_id] = False
            self.requests.append((time.time(), video_id, part))
            return part, fault

    def wait(self, seconds: float) -> None:
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up when they have seen enough."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        if self.path == LOOP:
            self._refuse("loop")
            return
        video_id = self.path.removeprefix("/").removesuffix(".wav")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        _, fault = self.site.next_fault(video_id, wanted is not None)
        if fault in REFUSALS:
            self._refuse(fault)
        elif fault in ("data-403", "data-503"):
            self._send(int(fault[5:]), b"no", {})
        else:
            self._serve(self.site.make(video_id), fault, int(wanted[1]) if wanted else 0)

    def _refuse(self, fault: str) -> None:
        status, headers = REFUSALS[fault]
        if fault == "silent":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "loop":
            self._send(status, b"", {"Location": LOOP})
        elif fault == "html":
            self._send(status, HTML, {"Content-Type": "text/html"})
        else:
            self._send(status, b"no", headers)

    def _serve(self, data: bytes, fault: str, start: int) -> None:
        headers = {"Content-Type": self.site.content_type, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if fault == "noise":
            data = np.random.default_rng(len(data)).bytes(len(data))
        elif fault == "empty":
            data = b""
        elif fault == "short":
            data = data[: len(data) // 2]
        if fault == "cut-quietly":
            self._begin(200, headers | {"Connection": "close"}, None)
            self._write(data[: len(data) // 3])
            self.close_connection = True
            return
        self._begin(206 if start else 200, headers, len(data) - start)
        if fault in ("cut", "stall"):
            self._write(data[start : start + (len(data) - start) // 3])
            self.wfile.flush()
            if fault == "stall":
                self.site.wait(self.site.stall_s)
            self.close_connection = True
            return
        self._write(data[start:])

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._begin(status, headers, len(body))
        self._write(body)

    def _begin(self, status: int, headers: dict[str, str], n_bytes: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if n_bytes is not None:
            self.send_header("Content-Length", str(n_bytes))
        self.end_headers()

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Nothing."""
