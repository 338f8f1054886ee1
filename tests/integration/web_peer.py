"""A listener in a thread of its own, and a client that sends exactly the bytes it is told."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tornado import web

from daemon.config import Address
from daemon.web.listeners import listen

DEADLINE = 30.0
THREADS = 2


@contextmanager
def serve(
    make: Callable[[ThreadPoolExecutor], web.Application],
    address: Address = Address("tcp", host="127.0.0.1", port=0),  # noqa: B008 - frozen
    **limits: Any,
) -> Iterator[int]:
    """Serve what ``make`` builds until the block ends, on a port of its own unless told otherwise; the port, or 0."""
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ports: list[int] = []

    async def main(executor: ThreadPoolExecutor) -> None:
        listener = listen(make(executor), address, **limits)
        ports.append(0 if address.kind == "unix" else int(listener.url.rpartition(":")[2]))
        started.set()
        await stop.wait()
        await listener.stop(1.0)

    def run() -> None:
        with ThreadPoolExecutor(THREADS) as executor:
            loop.run_until_complete(main(executor))
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(DEADLINE)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE)


@dataclass(frozen=True)
class Reply:
    """An answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)


def read_reply(connection: socket.socket, method: str = "POST") -> Reply | None:
    """One reply; None when the connection ends without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = receive(connection)
        if not piece:
            return None
        data += piece
    top, _, body = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = 0 if method == "HEAD" else int(headers.get("content-length", 0))
    while len(body) < length:
        body += receive(connection)
    return Reply(int(first.split()[1]), headers, body)


def receive(connection: socket.socket) -> bytes:
    """What comes next; nothing at the end, however it came."""
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def talk(port: int, data: bytes, method: str = "POST") -> Reply | None:
    with connect(port) as connection:
        connection.sendall(data)
        return read_reply(connection, method)
