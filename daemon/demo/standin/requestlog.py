"""What was asked and how it was answered: the ground truth for "how many requests did that take"."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

KEPT_REQUESTS = 20_000
LOGGED_HEADERS = (
    "accept",
    "authorization",
    "content-type",
    "host",
    "if-none-match",
    "user-agent",
    "x-github-api-version",
)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request and the status it got; the status is 0 when the connection was closed instead."""

    method: str
    path: str
    query: str
    status: int
    headers: Mapping[str, str]


class RequestLog:
    """The latest requests, oldest first. A request is in it before its answer leaves."""

    def __init__(self) -> None:
        self._entries: deque[LoggedRequest] = deque(maxlen=KEPT_REQUESTS)
        self._changed = threading.Condition()

    def add(self, entry: LoggedRequest) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    def all(self) -> list[LoggedRequest]:
        with self._changed:
            return list(self._entries)

    def paths(self) -> list[str]:
        return [entry.path for entry in self.all()]

    def count(self, prefix: str = "", *, method: str | None = None, status: int | None = None) -> int:
        """How many requests had a path that starts with ``prefix``."""
        return sum(
            entry.path.startswith(prefix) and method in {None, entry.method} and status in {None, entry.status}
            for entry in self.all()
        )

    def wait_for(self, wanted: Callable[[list[LoggedRequest]], bool], *, timeout: float = 10) -> bool:
        """Wait until ``wanted`` holds for the entries so far; False when it did not within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: wanted(list(self._entries)), timeout)

    def clear(self) -> None:
        with self._changed:
            self._entries.clear()

    def __len__(self) -> int:
        return len(self.all())

    def __iter__(self) -> Iterator[LoggedRequest]:
        return iter(self.all())
