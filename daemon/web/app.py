"""What both listeners share: the request handler with its guards.

A body is streamed into a bounded list of chunks, and nothing parses it before the handler asks: Tornado's
own body parsing (forms, multipart) never runs. Every refusal is JSON, constant, and without a traceback.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from tornado import httputil, routing, web
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from daemon.errors import Refusal, StoreError
from daemon.logs import get_logger

log = get_logger()

RETRY_AFTER_SECONDS = 5
LINGER_SECONDS = 2.0  # how long the rest of a refused body is read to nowhere
WRITE_SECONDS = 30.0  # for a client to take an answer, and longer for a long one; Tornado would wait for ever
SLOWEST_BYTES_PER_SECOND = 16 * 1024
UNBOUNDED = 2**62
DIGITS = re.compile(r"0*([0-9]*)")
_ENCODER = json.JSONEncoder(separators=(",", ":"))
JSON_TYPE = "application/json; charset=utf-8"

SECURITY_HEADERS = {
    "Server": "headwater",  # Tornado's own value names its version
    "Content-Type": JSON_TYPE,
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer: what a handler sends, encoded already, so that no encoding runs on the loop.

    With ``stream`` the body is what that sends, piece by piece, until it returns. Raising Refusal before the first
    piece answers that instead.
    """

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Callable[[Handler], Awaitable[None]] | None = None


def encode(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """A JSON answer. Lone surrogates and the like stay escaped: the bytes are ASCII."""
    return Answer(_ENCODER.encode(value).encode("ascii"), status, headers or {})


class ExactPath(routing.Matcher):
    """Matches one path and nothing that merely decodes, folds or trims to it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def match(self, request: httputil.HTTPServerRequest) -> dict[str, Any] | None:
        return {} if request.path == self._path else None


@web.stream_request_body
class Handler(web.RequestHandler):
    """One request: guarded by ``check``, answered by ``respond``, logged by ``seen``.

    Subclasses name the methods they answer in ``methods``.
    """

    SUPPORTED_METHODS = (*web.RequestHandler.SUPPORTED_METHODS, "TRACE", "CONNECT")
    methods: tuple[str, ...] = ()

    def __init__(self, application: web.Application, request: httputil.HTTPServerRequest, **arguments: Any) -> None:
        self._chunks: list[bytes] = []
        self._received = 0
        self._refusal: Refusal | None = None
        self._hung_up = False
        self._streamed: Answer | None = None
        self._tell_gone: Callable[[], None] = lambda: None
        super().__init__(application, request, **arguments)

    def set_default_headers(self) -> None:
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)

    def check_route(self) -> None:
        """Refuse what is not answered here, before anything else is looked at. Raises Refusal."""
        if self.request.method not in self.methods:
            raise Refusal(405, "Method not allowed")

    def check(self) -> None:
        """Refuse by the headers alone, before a byte of the body is read. Raises Refusal."""

    def body_limit(self) -> int:
        return 64 * 1024

    async def respond(self, body: bytes) -> Answer:
        """The answer to a request that passed ``check`` and whose body arrived whole."""
        raise NotImplementedError

    def seen(self, status: int, detail: str | None) -> None:
        """Called once for a request, just before its answer is sent: one canonical line for each refused one."""
        if status < HTTPStatus.BAD_REQUEST:
            return
        request = self.request
        log.info(
            "request.refused",
            code=status,
            detail=detail,
            method=request.method,
            path=request.path[:200],
            peer=request.remote_ip,
        )

    def prepare(self) -> None:
        # The limit is ours to enforce, with a 413 that may change on reload; Tornado answers a bare 400.
        self._http().set_max_body_size(UNBOUNDED)
        try:
            self.check_route()
            self._check_length()
            self.check()
        except Refusal as refusal:
            self._refuse(refusal)

    async def data_received(self, chunk: bytes) -> None:
        self._received += len(chunk)
        if self._refusal is not None:
            return
        try:
            self.take(chunk)
        except Refusal as refusal:
            self._chunks.clear()
            self._refuse(refusal)

    def take(self, chunk: bytes) -> None:
        """Keep a piece of the body. Raises Refusal 413 beyond the limit."""
        if self._received > self.body_limit():
            raise Refusal(413, "The body is too large")
        self._chunks.append(chunk)

    async def _run(self) -> None:
        if self._headers_written:
            return  # refused while the body was on its way
        if self._refusal is not None:
            self._send_refusal(self._refusal)
            return
        try:
            body = b"".join(self._chunks)
            self._chunks.clear()
            answer = await self.respond(body)
            if answer.stream is None or self.request.method == "HEAD":
                self._send(answer)
            else:
                await self._stream(answer)
        except Refusal as refusal:
            self._send_refusal(refusal)
        except StoreError as error:
            self._send(_unavailable("The store is unavailable, try again later"), str(error))
        except MemoryError:
            if self._headers_written:
                raise
            self._send(_unavailable("There is no memory for it, try again later"), "MemoryError")

    get = head = post = put = delete = patch = options = trace = connect = _run

    async def _stream(self, answer: Answer) -> None:
        """Have the answer's pieces sent; its head goes out with the first of them."""
        assert answer.stream is not None
        self._streamed = answer
        with suppress(StreamClosedError):
            await answer.stream(self)
            self.finish()

    async def send(self, piece: bytes) -> None:
        """One piece of a streamed answer, taken by the client.

        Raises StreamClosedError when the client has gone, or did not take it in time and was cut off.
        """
        if self._streamed is not None:
            self._write_head(self._streamed)
            self._streamed = None
        self.write(piece)
        sent = asyncio.ensure_future(self.flush())
        done, _ = await asyncio.wait({sent}, timeout=WRITE_SECONDS + len(piece) / SLOWEST_BYTES_PER_SECOND)
        if not done:
            self.abort()
        await sent

    def when_gone(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called when the client closes the connection of a streamed answer."""
        self._tell_gone = tell

    def abort(self) -> None:
        """Cut the connection, whatever is on its way."""
        self._http().stream.close()

    def on_connection_close(self) -> None:
        self._tell_gone()

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> asyncio.Future[None]:
        stream = self._http().stream
        sent = super().finish(chunk)
        if not sent.done():
            # A client that never reads would keep its connection, and the answer, for ever.
            seconds = WRITE_SECONDS + int(self._headers.get("Content-Length", 0)) / SLOWEST_BYTES_PER_SECOND
            timer = asyncio.get_running_loop().call_later(seconds, stream.close)
            sent.add_done_callback(lambda _: timer.cancel())
        return sent

    def on_finish(self) -> None:
        if self._hung_up:
            self._http().stream.close()

    def write_error(self, status_code: int, **_kwargs: Any) -> None:
        """A constant sentence: whatever went wrong, no traceback, path or query leaves the process."""
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.set_header("Allow", ", ".join(self.methods))
        detail = HTTPStatus(status_code).phrase
        self.seen(status_code, detail)
        self.finish(encode({"detail": detail}).body)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        if value is not None and not isinstance(value, web.HTTPError):
            log.error(
                "request.failed", method=self.request.method, path=self.request.path[:200], exc_info=(typ, value, tb)
            )

    def compute_etag(self) -> str | None:
        return None  # Tornado would hash every answer on the loop

    def over_unix(self) -> bool:
        """Whether the request came through a unix socket, whose peer has no address."""
        return getattr(self._http().context, "address_family", None) == socket.AF_UNIX

    def _http(self) -> HTTP1Connection:
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        return connection

    def _check_length(self) -> None:
        # What is no number is left to Tornado, which closes the connection for it.
        digits = DIGITS.fullmatch(self.request.headers.get("Content-Length", ""))
        if digits and (len(digits[1]) > len(str(UNBOUNDED)) or int(digits[1] or "0") > self.body_limit()):
            raise Refusal(413, "The body is too large")

    def _refuse(self, refusal: Refusal) -> None:
        """Answer before the body has been read, and make sure that the answer can be read.

        Closing at once while the client still sends makes the kernel reset the connection, and the client
        loses the answer (RFC 9112, 9.6): so send it, end our half, and read to nowhere for a moment.
        """
        self._refusal = refusal
        if not self._sends_body():
            return  # nothing is on its way: answered like any other request, the connection is kept
        self.set_header("Connection", "close")
        self._write(_refusal_answer(refusal, self.methods))
        self._hung_up = True
        self.seen(refusal.status, refusal.detail)
        self.flush().add_done_callback(lambda _: self._hang_up())

    def _sends_body(self) -> bool:
        headers = self.request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0").lstrip("0") != ""

    def _hang_up(self) -> None:
        stream = self._http().stream
        if stream.closed() or stream.socket is None:
            return
        try:
            stream.socket.shutdown(socket.SHUT_WR)
        except OSError:
            stream.close()
            return
        asyncio.get_running_loop().call_later(LINGER_SECONDS, stream.close)

    def _send_refusal(self, refusal: Refusal) -> None:
        self._send(_refusal_answer(refusal, self.methods), refusal.detail)

    def _send(self, answer: Answer, detail: str | None = None) -> None:
        self._write(answer)
        self.seen(answer.status, detail)
        self.finish()

    def _write_head(self, answer: Answer) -> None:
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)

    def _write(self, answer: Answer) -> None:
        self._write_head(answer)
        if answer.status != HTTPStatus.NOT_MODIFIED:
            self.set_header("Content-Length", len(answer.body))
            self.write(answer.body)


def _refusal_answer(refusal: Refusal, methods: tuple[str, ...]) -> Answer:
    headers = {}
    if refusal.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(methods)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return encode({"detail": refusal.detail}, status=refusal.status, headers=headers)


def _unavailable(detail: str) -> Answer:
    """The 503 of what cannot be used now; what it said is for the log, not for strangers."""
    return encode({"detail": detail}, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


class NotFound(Handler):
    """Whatever no route names."""

    def check_route(self) -> None:
        raise Refusal(404, "Not found")
