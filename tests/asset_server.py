"""A server of files on this machine, with the faults that servers have."""

from __future__ import annotations

import hashlib
import http.server
import re
import time

import numpy as np

CONTENT = np.random.default_rng(0).bytes(600_000)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each request as the next entry of ``server.script`` says; the last entry stays."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        step = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        getattr(self, f"answer_{step[0]}")(*step[1:])

    def answer_good(self, body=CONTENT, n_sent=None, pause_s=0.0):
        """The body, from the byte asked for if it is of the version asked for; ``n_sent`` cuts the connection early."""
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked and self.headers.get("If-Range") == etag else 0
        headers = {"ETag": etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.answer_piece(206 if start else 200, body[start:], headers, n_sent, pause_s)

    def answer_piece(self, code, piece, headers, n_sent=None, pause_s=0.0):
        """Whatever the headers say of it."""
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(piece))}.items():
            self.send_header(name, value)
        self.end_headers()
        time.sleep(pause_s)
        self.wfile.write(piece[:n_sent])

    def answer_whole(self, body=CONTENT):
        """The body from its first byte, whatever was asked for, and no word about its length."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def answer_status(self, code, *headers):
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def answer_stall(self):
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.md5(CONTENT).hexdigest()}"')
        self.end_headers()
        self.wfile.write(CONTENT[:1_000])
        self.wfile.flush()
        self.server.released.wait(10)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Say nothing of clients that hang up early."""
