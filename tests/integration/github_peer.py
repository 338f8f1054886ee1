"""A server that answers each path with exactly the bytes that a test scripts, on a free port of the loopback."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

Reply = bytes | Callable[[socket.socket], None]


def http(status: int, body: bytes | str | dict | list = b"", **headers: str) -> bytes:
    """A whole, honest answer; header names with ``_`` for ``-``. A header of None is left out."""
    if isinstance(body, dict | list):
        body = json.dumps(body).encode()
    raw = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": "application/json", "Content-Length": str(len(raw))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode("latin-1") + raw


def then_close(data: bytes) -> Callable[[socket.socket], None]:
    """Sends ``data`` and closes, however much was announced."""

    def reply(connection: socket.socket) -> None:
        connection.sendall(data)

    return reply


def then_reset(data: bytes) -> Callable[[socket.socket], None]:
    """Sends ``data``, then resets the connection (RST)."""

    def reply(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return reply


def dripping(start: bytes, *, stop: threading.Event, drop: bytes = b" ") -> Callable[[socket.socket], None]:
    """Sends ``start``, then one ``drop`` every 20 ms until the client goes or the test ends."""

    def reply(connection: socket.socket) -> None:
        connection.sendall(start)
        while not stop.wait(0.02):
            connection.sendall(drop)

    return reply


def silent(stop: threading.Event) -> Callable[[socket.socket], None]:
    """Accepts, reads, and never answers."""
    return lambda _: (stop.wait(30), None)[1]


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """``script`` is by path (with query); of several replies the last one repeats. What is not scripted answers 599."""

    script: dict[str, list[Reply]] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads[0].start()

    def on(self, path: str, *replies: Reply) -> None:
        self.script[path] = list(replies)

    def paths(self) -> list[str]:
        return [seen.path for seen in self.requests]

    def close(self) -> None:
        self.stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                with connection.makefile("rb") as stream:
                    while (seen := _read_request(stream)) is not None and not self.stop.is_set():
                        reply = self._next(seen)
                        if not isinstance(reply, bytes):
                            reply(connection)
                            return
                        connection.sendall(reply)
            except OSError:
                return
            finally:
                with self._lock:
                    self._open.remove(connection)

    def _next(self, seen: Seen) -> Reply:
        with self._lock:
            self.requests.append(seen)
            replies = self.script.get(seen.path)
            if not replies:
                return http(599, f"not scripted: {seen.path}")
            return replies.pop(0) if len(replies) > 1 else replies[0]


def _read_request(stream) -> Seen | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) < 2:
        return None
    headers = {}
    while (header := stream.readline().strip()) != b"":
        name, _, value = header.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return Seen(line[0], line[1], headers, stream.read(int(headers.get("content-length", 0))))
