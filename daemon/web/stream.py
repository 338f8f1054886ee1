"""Server-sent events: the change feed, numbered and exact, and between its events what happens just now.

A reader that lags is given the store's rows, page by page, at its own pace. One that has caught up shares what the
pump reads once for all of them. Either way an id is sent when everything before it was, so that a reader who comes
back with the last id it saw misses nothing and sees nothing twice. Everything runs on the loop but reading and
encoding; ``publish`` and ``changed`` may be called on any thread.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Protocol

from daemon.errors import Refusal
from daemon.logs import get_logger
from daemon.model import Claim, Delivery, DeliveryStatus, RunResult
from daemon.store.feed import Feed
from daemon.web.answers import change_json, delivered_json, ended_json, started_json

log = get_logger()

MOST_CLIENTS = 100
MOST_FRAMES = 1000  # that wait for one client; and bytes
MOST_BUFFERED_BYTES = 8 * 1024 * 1024
HEARTBEAT_SECONDS = 15.0  # proxies cut what is silent for longer than 30 s or a minute
POLL_SECONDS = 1.0  # the longest a change stays unseen that nobody told of
PAGE = 200
HELLO = b"retry: 2000\n\n"
HEARTBEAT = b": still here\n\n"

Frames = list[tuple[int, bytes]]


class Sink(Protocol):
    """Where a stream is written to: one connection."""

    async def send(self, piece: bytes) -> None:
        """Raises StreamClosedError, also for a client that does not take it in time."""

    def when_gone(self, tell: Callable[[], None]) -> None: ...

    def abort(self) -> None:
        """Cut the connection, whatever is on its way."""


class _Client:
    """One stream: the id that its events have come to, and what waits to be sent."""

    def __init__(self, sink: Sink, at: int) -> None:
        self.at = at
        self._sink = sink
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()
        self._sending = False
        self.ended = False
        sink.when_gone(self.end)

    def offer(self, frame: bytes, number: int | None = None) -> None:
        """Queue a frame that it has not had yet. A client for which too much waits is cut off: it will resume."""
        if number is not None and number <= self.at:
            return
        if self._frames and (len(self._frames) >= MOST_FRAMES or self._bytes + len(frame) > MOST_BUFFERED_BYTES):
            self.end()
            return
        self.at = self.at if number is None else number
        self._frames.append(frame)
        self._bytes += len(frame)
        self._woken.set()

    def end(self) -> None:
        """Send nothing more; what it does not take just now is not waited for."""
        self.ended = True
        self._woken.set()
        if self._sending:
            self._sink.abort()

    async def send(self, piece: bytes) -> None:
        self._sending = True
        try:
            await self._sink.send(piece)
        finally:
            self._sending = False

    async def take(self, seconds: float) -> bytes:
        """All that waits; after ``seconds`` of silence a heartbeat."""
        if not self._frames and not self.ended:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()
        piece = b"".join(self._frames) or HEARTBEAT
        self._frames.clear()
        self._bytes = 0
        return piece


class Hub:
    """All streams of one daemon. Made on the loop that serves them; ``close`` ends them there."""

    def __init__(
        self,
        feed: Feed,
        *,
        executor: Executor,
        loop: asyncio.AbstractEventLoop,
        most_clients: int = MOST_CLIENTS,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._feed = feed
        self._executor = executor
        self._loop = loop
        self._most_clients = most_clients
        self._heartbeat_seconds = heartbeat_seconds
        self._clients: set[_Client] = set()
        self._live: set[_Client] = set()  # those that have caught up
        self._position = 0  # the id that the live ones have come to
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    # -- what happens, told on any thread -----------------------------------------------------------

    def changed(self) -> None:
        """There may be new changes in the store."""
        if self._live:
            self._tell(self._changed.set)

    def publish(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell the live streams of something that has no number."""
        if self._live:
            self._tell(self._spread, _frame(event, data))

    def sync_started(self, claim: Claim) -> None:
        self.publish("sync.started", started_json(claim))

    def sync_finished(self, claim: Claim, result: RunResult | None) -> None:
        """``result`` is None for a sync that was put off without having failed."""
        self.changed()
        self.publish("sync.finished", ended_json(claim, result))

    def delivered(self, delivery: Delivery, status: DeliveryStatus) -> None:
        self.publish("delivery", delivered_json(delivery, status))

    def _tell(self, function: Callable[..., Any], *arguments: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who could be told
            self._loop.call_soon_threadsafe(function, *arguments)

    def _spread(self, frame: bytes, number: int | None = None) -> None:
        for client in tuple(self._live):
            client.offer(frame, number)

    # -- streams ------------------------------------------------------------------------------------

    async def serve(self, sink: Sink, since: int) -> None:
        """One stream, from the change after ``since`` until either side ends it.

        Raises Refusal 503 before anything was sent, and StreamClosedError when the client has gone.
        """
        if self._closed or len(self._clients) >= self._most_clients:
            raise Refusal(503, "Too many streams are open, try again later")
        client = _Client(sink, since)
        self._clients.add(client)
        try:
            await client.send(HELLO)
            await self._catch_up(client)
            while not client.ended:
                await client.send(await client.take(self._heartbeat_seconds))
        except LookupError:
            return  # what it has yet to see was swept meanwhile: it will be told so when it comes back
        finally:
            self._clients.discard(client)
            self._live.discard(client)
            if not self._live:
                self._changed.set()  # the pump ends

    def close(self) -> None:
        """End every stream now, and open no more."""
        self._closed = True
        for client in tuple(self._clients):
            client.end()

    async def _catch_up(self, client: _Client) -> None:
        """Send what the store has until nothing is missing, then have it share what is read for all."""
        while not client.ended:
            frames, more = await self._read(client.at)
            if frames:
                await client.send(b"".join(frame for _, frame in frames))
                client.at = frames[-1][0]
            elif not more and (not self._live or client.at >= self._position):
                self._join(client)
                return

    def _join(self, client: _Client) -> None:
        if not self._live:
            self._position = client.at
        self._live.add(client)
        self._changed.set()  # something may have been stored since it read
        if self._pump is None or self._pump.done():
            self._pump = self._loop.create_task(self._run())

    # -- the pump: one reader for all who have caught up ----------------------------------------------

    async def _run(self) -> None:
        while self._live:
            self._changed.clear()
            try:
                await self._advance()
            except LookupError:
                for client in tuple(self._live):
                    client.end()
            except Exception as error:  # noqa: BLE001 - the top of this task: the next look may succeed
                log.warning("stream.read_failed", error=f"{type(error).__name__}: {error}")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), POLL_SECONDS)

    async def _advance(self) -> None:
        more = True
        while more and self._live:
            asked = self._position
            frames, more = await self._read(asked)
            if self._position != asked:
                more = True  # everybody left and somebody else came: what was read may begin beyond them
                continue
            for number, frame in frames:
                self._spread(frame, number)
                self._position = number

    async def _read(self, after: int) -> tuple[Frames, bool]:
        return await self._loop.run_in_executor(self._executor, self._frames, after)

    def _frames(self, after: int) -> tuple[Frames, bool]:
        page = self._feed.page(after, limit=PAGE)
        return [(one.id, _frame(one.type, change_json(one), one.id)) for one in page.items], page.more


def _frame(event: str, data: Mapping[str, Any], number: int | None = None) -> bytes:
    """One event; JSON in ASCII has no line break, so the data is one line."""
    numbered = "" if number is None else f"id: {number}\n"
    return f"{numbered}event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode("ascii")
