"""Sockets and the HTTP server around an application: limits, deadlines, and an orderly stop.

Tornado's defaults wait an hour for headers and take any number of connections; a listener that strangers
reach needs neither to be patient nor to be generous.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
from collections.abc import Awaitable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado import httputil, iostream, web
from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer

from daemon.config import Address

IDLE_SECONDS = 10.0  # for the headers, and between two requests of a connection
BODY_SECONDS = 20.0
MAX_HEADER_BYTES = 16 * 1024
CHUNK_BYTES = 64 * 1024
GREETING_SECONDS = 1.0  # what a connection accepted just before a stop has to send its headers
BACKLOG = 1024
MOST_CONNECTIONS = 1000
RESERVED_FILES = 128  # database, logs, GitHub, the standard streams
FEWEST_CONNECTIONS = 16
LACKING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening server: ``url`` is where it is reached, with the port that was really bound."""

    server: BoundedServer
    url: str
    unix_path: Path | None = None

    async def stop(self, grace_seconds: float) -> None:
        """Stop accepting, let the requests under way be answered, then close every connection."""
        self.server.stop()
        if self.unix_path is not None:
            self.unix_path.unlink(missing_ok=True)
        await self.server.drain(grace_seconds)
        await self.server.close_all_connections()


class BoundedServer(HTTPServer):
    """An HTTP server with at most ``max_connections``: the one idle for longest makes room for a new one.

    So a crowd of connections that never finish their headers cannot keep a real request out: it needs a
    place only for the moment it takes to arrive.
    """

    def initialize(self, *arguments: Any, max_connections: int, **options: Any) -> None:  # type: ignore[override]
        super().initialize(*arguments, **options)
        self._max_connections = max_connections
        self._idle: dict[iostream.IOStream, None] = {}  # in the order in which they fell idle
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._silent: set[iostream.IOStream] = set()  # has not asked for anything yet
        self._heard = asyncio.Event()
        self._heard.set()

    def handle_stream(self, stream: iostream.IOStream, address: Any) -> None:
        if len(self._connections) >= self._max_connections:
            if not self._idle:
                stream.close()
                return
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close()
        self._idle[stream] = None
        self._silent.add(stream)
        self._heard.clear()
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        stream = _stream(server_conn)
        self._idle[stream] = None
        self._note()
        return _Watched(super().start_request(server_conn, request_conn), lambda: self._busy(stream))

    def on_close(self, server_conn: object) -> None:
        self._idle.pop(_stream(server_conn), None)
        self._hear(_stream(server_conn))
        super().on_close(server_conn)
        self._note()

    async def drain(self, seconds: float) -> None:
        """Wait until no request is under way, at most ``seconds``.

        A request whose connection was accepted but which has not been read yet is under way for whoever sent it.
        """
        await _within(self._heard, min(seconds, GREETING_SECONDS))
        await _within(self._quiet, seconds)

    def _hear(self, stream: iostream.IOStream) -> None:
        self._silent.discard(stream)
        if not self._silent:
            self._heard.set()

    def _busy(self, stream: iostream.IOStream) -> None:
        self._idle.pop(stream, None)
        self._hear(stream)
        self._note()

    def _note(self) -> None:
        if len(self._idle) >= len(self._connections):
            self._quiet.set()
        else:
            self._quiet.clear()


async def _within(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _stream(server_conn: object) -> iostream.IOStream:
    assert isinstance(server_conn, HTTP1ServerConnection)
    return server_conn.stream


class _Watched(httputil.HTTPMessageDelegate):
    """Passes a request on, and tells when its headers are complete."""

    def __init__(self, inner: httputil.HTTPMessageDelegate, arrived: Any) -> None:
        self._inner = inner
        self._arrived = arrived

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        self._arrived()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()


def listen(
    application: web.Application,
    address: Address,
    *,
    inherited: socket.socket | None = None,
    max_connections: int | None = None,
    unix_mode: int = 0o660,
    idle_seconds: float = IDLE_SECONDS,
    body_seconds: float = BODY_SECONDS,
) -> Listener:
    """Serve ``application`` at ``address``, or on a socket inherited from systemd. OSError when it cannot be bound.

    Call it on the running loop that is to serve.
    """
    sockets = [inherited] if inherited is not None else _bind(address, unix_mode)
    server = BoundedServer(
        application,
        max_connections=max_connections or connection_limit(),
        decompress_request=False,
        chunk_size=CHUNK_BYTES,
        max_header_size=MAX_HEADER_BYTES,
        idle_connection_timeout=idle_seconds,
        body_timeout=body_seconds,
    )
    for one in sockets:
        one.setblocking(False)
    server.add_sockets(sockets)
    ours = inherited is None and address.kind == "unix"
    return Listener(server, _url(sockets[0]), Path(address.path) if ours else None)


def connection_limit() -> int:
    """How many connections one of two listeners may hold, so that files for all else remain."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, (allowed - RESERVED_FILES) // 2))


def _bind(address: Address, unix_mode: int) -> list[socket.socket]:
    if address.kind == "tcp":
        return _bind_tcp(address.host, address.port)
    _remove_stale(address.path)
    return [_bind_unix(address.path, unix_mode)]


def _bind_tcp(host: str, port: int) -> list[socket.socket]:
    """One socket for each address of ``host``, all at the same port."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))
    with ExitStack() as undo:
        bound: list[socket.socket] = []
        for family, place in places:
            chosen = bound[0].getsockname()[1] if bound else port
            try:
                one = socket.create_server((place[0], chosen, *place[2:]), family=family, backlog=BACKLOG)
            except OSError as error:
                # A name may have an address that this machine lacks, such as ::1 for localhost.
                if error.errno not in LACKING or (place == places[-1][1] and not bound):
                    raise
            else:
                bound.append(undo.enter_context(one))
        undo.pop_all()
    return bound


def _bind_unix(path: str, mode: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        Path(path).chmod(mode)  # before listen(): until then nobody can connect, whatever the umask was
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more; whatever else has that name stays, and is an error."""
    try:
        found = os.stat(path)  # noqa: PTH116 - the very name that bind() will be given
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "exists and is not a socket", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "another process listens on it", path)


def _url(listening: socket.socket) -> str:
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{os.fsdecode(name)}"
    host, port = name[:2]
    # A wildcard is where to listen, not where to connect to.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
