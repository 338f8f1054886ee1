"""Whoever receives what an action posts: checks the signature itself, answers as told."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer = b"thanks"
        self.received: list[dict[str, Any]] = []
        self.deliveries: list[str] = []
        self.url = ""

    def take(self, headers: Any, body: bytes) -> None:
        expected = "sha256=" + hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        verified = headers.get("X-Hub-Signature-256") == expected
        told = json.loads(body) | {"verified": verified, "header_event": headers.get("X-Headwater-Event")}
        self.deliveries.append(headers.get("X-Headwater-Delivery"))
        self.received.append(told)


@contextmanager
def receiver(secret: str = "shared") -> Iterator[Receiver]:
    peer = Receiver(secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            peer.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(peer.status)
            for name, value in peer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(peer.answer)))
            self.end_headers()
            self.wfile.write(peer.answer)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_port}/changed"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
