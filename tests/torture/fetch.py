"""``audioset models pull`` of a file that a server on this machine sends slowly, in place of the published weights."""

from __future__ import annotations

import hashlib
import io
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np

from audioset import assets, cli
from audioset.models.cards import NETWORKS
from audioset.networks.shapes import trace_shapes

NAME = "yamnet.h5"
N_CHUNKS = 30
PAUSE_S = 0.03


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    data = b""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(self.data) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        self.end_headers()
        n_bytes = len(self.data) // N_CHUNKS
        with suppress(OSError):  # the client was killed
            for at in range(start, len(self.data), n_bytes):
                self.wfile.write(self.data[at : at + n_bytes])
                time.sleep(PAUSE_S)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed here."""


@contextmanager
def weights_server(data: bytes) -> Iterator[list[str]]:
    """What this program needs to know to fetch the data, as long as the block runs."""
    handler = type("_WeightsHandler", (_Handler,), {"data": data})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    digest = hashlib.sha256(data).hexdigest()
    with server:
        yield [f"http://127.0.0.1:{server.server_port}/{NAME}", f"sha256:{digest}", str(len(data))]


def yamnet_file() -> bytes:
    """A Keras file of YAMNet's shapes."""
    shapes, _ = trace_shapes(NETWORKS["yamnet"], (96, 64), {"n_classes": 521})
    file = io.BytesIO()
    with h5py.File(file, "w") as weights:
        for name, shape in shapes.items():
            weights[f"{name.rpartition('/')[0]}/{name}:0"] = np.full(shape, 0.01, np.float32)
    return file.getvalue()


if __name__ == "__main__":
    url, digest, n_bytes = sys.argv[1:]
    assets.ASSETS[NAME] = replace(assets.ASSETS[NAME], url=url, digest=digest, n_bytes=int(n_bytes))
    sys.argv = ["audioset", "models", "pull", "yamnet"]
    sys.exit(cli.main())
