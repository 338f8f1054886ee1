"""Where a listener listens, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from tornado import web

from daemon.config import Address
from daemon.web import listeners
from daemon.web.app import Answer, ExactPath, Handler, NotFound, encode
from daemon.web.listeners import Listener, connection_limit, listen

REQUEST = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
LOOPBACK = Address("tcp", host="127.0.0.1", port=0)


class Slow(Handler):
    """Answers when it is told to."""

    methods = ("GET",)

    def initialize(self, asked: asyncio.Event, go: asyncio.Event) -> None:
        self._asked = asked
        self._go = go

    async def respond(self, body: bytes) -> Answer:
        self._asked.set()
        await self._go.wait()
        return encode({"done": True})


def application(**events: asyncio.Event) -> web.Application:
    from tornado.routing import Rule

    rules = [Rule(ExactPath("/slow"), Slow, events)] if events else []
    return web.Application(rules, default_handler_class=NotFound, log_function=lambda _: None)


async def ask(listener: Listener, path: Path | None = None) -> bytes:
    if path is not None:
        reader, writer = await asyncio.open_unix_connection(path)
    else:
        host, _, port = listener.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


def test_port_zero_becomes_the_port_that_was_bound():
    async def main() -> None:
        listener = listen(application(), LOOPBACK)
        assert not listener.url.endswith(":0")
        assert (await ask(listener)).startswith(b"HTTP/1.1 404")
        await listener.stop(1.0)

    asyncio.run(main())


@pytest.mark.parametrize(("host", "named"), [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "127.0.0.1")])
def test_the_url_is_one_that_can_be_connected_to(host, named):
    async def main() -> None:
        listener = listen(application(), Address("tcp", host=host, port=0))
        assert listener.url.startswith((f"http://{named}:", "http://[::1]:"))
        assert (await ask(listener)).startswith(b"HTTP/1.1 404")
        await listener.stop(1.0)

    asyncio.run(main())


def test_a_port_in_use_is_an_error():
    async def main() -> None:
        listener = listen(application(), LOOPBACK)
        taken = Address("tcp", host="127.0.0.1", port=int(listener.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="in use"):
            listen(application(), taken)
        await listener.stop(1.0)

    asyncio.run(main())


def test_a_unix_socket_is_served_and_removed_at_the_end(tmp_path):
    path = tmp_path / "web.sock"

    async def main() -> None:
        listener = listen(application(), Address("unix", path=str(path)))
        assert listener.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert (await ask(listener, path)).startswith(b"HTTP/1.1 404")
        await listener.stop(1.0)

    asyncio.run(main())
    assert not path.exists()


def test_a_stale_unix_socket_is_replaced(tmp_path):
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))

    async def main() -> None:
        listener = listen(application(), Address("unix", path=str(path)))
        assert (await ask(listener, path)).startswith(b"HTTP/1.1 404")
        await listener.stop(1.0)

    asyncio.run(main())


def test_a_unix_socket_that_somebody_serves_is_left_alone(tmp_path):
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        async def main() -> None:
            with pytest.raises(OSError, match="another process"):
                listen(application(), Address("unix", path=str(path)))

        asyncio.run(main())
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path, kind):
    path = tmp_path / "web.sock"
    target = tmp_path / "precious"
    target.write_text("data")
    {"file": lambda: path.write_text("data"), "folder": path.mkdir, "link": lambda: path.symlink_to(target)}[kind]()

    async def main() -> None:
        with pytest.raises(FileExistsError):
            listen(application(), Address("unix", path=str(path)))

    asyncio.run(main())
    assert path.exists()
    assert target.read_text() == "data"


def test_an_inherited_socket_is_served_whatever_the_address_says(tmp_path):
    async def main() -> None:
        inherited = socket.create_server(("127.0.0.1", 0))
        port = inherited.getsockname()[1]
        listener = listen(application(), Address("unix", path=str(tmp_path / "no")), inherited=inherited)
        assert listener.url == f"http://127.0.0.1:{port}"
        assert (await ask(listener)).startswith(b"HTTP/1.1 404")
        await listener.stop(1.0)

    asyncio.run(main())


def test_an_inherited_unix_socket_stays_where_it_is(tmp_path):
    path = tmp_path / "web.sock"

    async def main() -> None:
        inherited = socket.socket(socket.AF_UNIX)
        inherited.bind(str(path))
        inherited.listen()
        listener = listen(application(), Address("unix", path=str(path)), inherited=inherited)
        assert (await ask(listener, path)).startswith(b"HTTP/1.1 404")
        await listener.stop(1.0)

    asyncio.run(main())
    assert path.is_socket()


def test_stopping_lets_the_request_under_way_be_answered():
    async def main() -> None:
        asked, go = asyncio.Event(), asyncio.Event()
        listener = listen(application(asked=asked, go=go), LOOPBACK)
        reader, writer = await _begin(listener)
        await asked.wait()
        stopping = asyncio.ensure_future(listener.stop(30.0))
        await _refused(listener)
        go.set()
        assert b'{"done":true}' in await asyncio.wait_for(reader.read(), 30)
        await asyncio.wait_for(stopping, 30)
        writer.close()

    asyncio.run(main())


def test_a_request_that_is_read_only_after_the_stop_began_is_answered(monkeypatch):
    monkeypatch.setattr(listeners, "GREETING_SECONDS", 30.0)

    async def main() -> None:
        listener = listen(application(), LOOPBACK)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
        while not listener.server._connections:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(listener.stop(30.0))
        await _refused(listener)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 404")
        await asyncio.wait_for(stopping, 30)
        writer.close()

    asyncio.run(main())


def test_stopping_does_not_wait_longer_than_told_nor_for_idle_connections():
    async def main() -> None:
        asked = asyncio.Event()
        listener = listen(application(asked=asked, go=asyncio.Event()), LOOPBACK)
        idle = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
        reader, writer = await _begin(listener)
        await asked.wait()
        await asyncio.wait_for(listener.stop(0.1), 10)
        assert await reader.read() == b""
        assert await idle[0].read() == b""
        for one in (writer, idle[1]):
            one.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(main())


def test_stopping_with_nothing_but_idle_connections_is_immediate():
    async def main() -> None:
        listener = listen(application(), LOOPBACK)
        _, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
        await ask(listener)
        await asyncio.wait_for(listener.stop(60.0), 10)
        writer.close()

    asyncio.run(main())


async def _begin(listener: Listener) -> Any:
    streams = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
    streams[1].write(REQUEST)
    return streams


async def _refused(listener: Listener) -> None:
    """Wait until the listener accepts no more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", int(listener.url.rpartition(":")[2]))
        except ConnectionError:
            return
        writer.close()
        await asyncio.sleep(0)


def test_connections_leave_files_for_everything_else(monkeypatch):
    import resource

    for allowed, limit in ((64, 16), (1024, 448), (65536, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, allowed=allowed: (allowed, allowed))
        assert connection_limit() == limit
