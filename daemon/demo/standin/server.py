"""The HTTP server: turns sockets into requests and answers into bytes, faults included."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import struct
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from daemon.demo.standin.answers import Answer, Problem, Request
from daemon.demo.standin.requestlog import LOGGED_HEADERS, LoggedRequest, RequestLog

Respond = Callable[[Request], Answer]
_NO_BODY = frozenset({204, 304})
_STEPS_A_SECOND = 20


class _Cut(Exception):
    """The body is to end here, and the connection with it."""


class Server(ThreadingHTTPServer):
    """Listens on loopback; a thread for each connection, all of which end with the server."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, respond: Respond, log: RequestLog) -> None:
        self.respond = respond
        self.log = log
        self.closing = threading.Event()
        self.request_numbers = itertools.count(1)
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="standin-server", daemon=True)
        thread.start()

    def stop(self) -> None:
        """Stop listening and end every connection, also one that is being answered."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away, or the end of the server, is no event worth a line.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection. Requests are read by the standard library, answers written here in one piece."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120
    server: Server

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()
            return
        self.close_connection = True

    def do_request(self) -> None:
        request = self._read()
        try:
            answer = self.server.respond(request)
        except Problem as problem:
            answer = problem.answer()
        except Exception:
            logging.getLogger(__name__).exception("standin.request.failed")
            answer = Problem(500, "The stand-in failed").answer()
        self._log(request, answer)
        self._send(answer, head_only=request.method == "HEAD")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.do_request
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """The request log is kept elsewhere."""

    def _read(self) -> Request:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "0")
        body = self.rfile.read(int(length)) if length.isdigit() else b""
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        path = unquote(parts.path, errors="surrogateescape")
        return Request(self.command, self.path, path, query, headers, body)

    def _log(self, request: Request, answer: Answer) -> None:
        kept = {name: request.headers[name] for name in LOGGED_HEADERS if name in request.headers}
        query = request.target.partition("?")[2]
        self.server.log.add(LoggedRequest(request.method, request.path, query, answer.status, kept))

    def _send(self, answer: Answer, *, head_only: bool) -> None:
        wire = self._wire(answer, bodiless=head_only or answer.status in _NO_BODY)
        try:
            for piece in wire:
                self.wfile.write(piece)
        except _Cut:
            self._end(reset=answer.reset)
        finally:
            if isinstance(answer.body, Generator):
                answer.body.close()

    def _wire(self, answer: Answer, *, bodiless: bool) -> Iterator[bytes]:
        """All bytes of an answer. Head and start of the body are one piece: no second packet to wait for."""
        if answer.drop:
            raise _Cut
        if answer.raw is not None:
            yield answer.raw
            raise _Cut
        head = self._head(answer)
        for piece in () if bodiless else self._framed(answer):
            yield head + piece
            head = b""
        if head:
            yield head
        if answer.cut_after_bytes is not None:
            raise _Cut

    def _head(self, answer: Answer) -> bytes:
        headers = {
            "server": "github.com",
            "x-github-request-id": f"STAN:{next(self.server.request_numbers):06X}",
            **answer.headers,
        }
        if answer.close_delimited:
            headers["connection"] = "close"
            self.close_connection = True
        elif isinstance(answer.body, bytes):
            if answer.status not in _NO_BODY:
                headers["content-length"] = str(len(answer.body))
        else:
            headers["transfer-encoding"] = "chunked"
        reason = self.responses.get(answer.status, ("Unknown",))[0]
        lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")

    def _framed(self, answer: Answer) -> Iterator[bytes]:
        if isinstance(answer.body, bytes) or answer.close_delimited:
            yield from self._paced(answer)
            return
        for piece in filter(None, self._paced(answer)):
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
        if answer.cut_after_bytes is None:
            yield b"0\r\n\r\n"

    def _paced(self, answer: Answer) -> Iterator[bytes]:
        """The body in pieces: cut where it is to be cut, slowed down when it is to be slow."""
        source = iter((answer.body,)) if isinstance(answer.body, bytes) else answer.body
        left = answer.cut_after_bytes
        for whole in source:
            part = whole if left is None else whole[:left]
            left = None if left is None else left - len(part)
            yield from self._slowly(part, answer.bytes_per_second) if answer.bytes_per_second else [part]
            if left == 0:
                return

    def _slowly(self, part: bytes, bytes_per_second: float) -> Iterator[bytes]:
        step = max(1, int(bytes_per_second / _STEPS_A_SECOND))
        for at in range(0, len(part), step):
            yield part[at : at + step]
            if self.server.closing.wait(step / bytes_per_second):
                raise _Cut

    def _end(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            # Lingering for no time makes close() send RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
