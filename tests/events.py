"""A reader of server-sent events, as a browser's EventSource is one: it comes back with the last id it saw."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

DEADLINE = 30.0


@dataclass(frozen=True)
class Event:
    """One dispatched event; ``id`` is None for one without a number."""

    id: int | None
    name: str
    data: Any


class Stream:
    """One connection to ``/api/v1/events``. Iterating ends with the connection, however it ends."""

    def __init__(
        self, url: str, *lines: str, query: str = "", last: int | None = None, receive_buffer: int | None = None
    ) -> None:
        self.comments: list[str] = []
        self.retry: int | None = None
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(DEADLINE)
        self._file = self._socket.makefile("rb")
        try:
            self._ask(urlsplit(url), query, lines if last is None else (f"Last-Event-ID: {last}", *lines))
        except BaseException:
            self.close()
            raise

    def _ask(self, where: SplitResult, query: str, lines: Sequence[str]) -> None:
        self._socket.connect((where.hostname, where.port))
        # HTTP/1.0: what comes is the stream itself, without the framing of chunks.
        head = [f"GET /api/v1/events{query} HTTP/1.0", f"Host: {where.netloc}", *lines, "", ""]
        self._socket.sendall("\r\n".join(head).encode("latin-1"))
        first = self._file.readline().split()
        if not first:
            raise ConnectionError("closed without an answer")
        self.status = int(first[1])
        self.headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()

    def body(self) -> Any:
        """The rest, as the JSON of an answer that is no stream."""
        return json.loads(self._file.read())

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n":
                if "data" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    yield Event(number, fields["event"], json.loads(fields["data"]))
                fields = {}
            elif not name:
                self.comments.append(value)
            elif name == "retry":
                self.retry = int(value)
            else:
                fields[name] = value

    def _line(self) -> str:
        """The next line; empty at the end, and for a line that was cut."""
        try:
            line = self._file.readline().decode("ascii")
        except (ConnectionError, ValueError):
            return ""
        return line if line.endswith("\n") else ""

    def close(self) -> None:
        """Cut the connection, as a network does; what was on its way is lost."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
