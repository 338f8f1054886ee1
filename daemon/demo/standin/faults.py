"""A script of faults: what the next requests of a kind get instead of a good answer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from daemon.demo.standin.answers import JSON_TYPE, Answer, Request


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on its way: ``genuine`` computes the answer it would get, ``closing`` is set when the server stops."""

    request: Request
    genuine: Callable[[], Answer]
    closing: threading.Event


class Action(Protocol):
    """What happens to a request: any object that makes an answer of an exchange."""

    def apply(self, exchange: Exchange, /) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Status:
    """Answer a status with a body (JSON when it is not text or bytes) and headers, without doing anything."""

    code: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def apply(self, _: Exchange, /) -> Answer:
        body = {"message": f"Fault {self.code}"} if self.body is None else self.body
        raw = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else json.dumps(body).encode()
        return Answer(self.code, raw, {"content-type": JSON_TYPE, **self.headers})


@dataclass(frozen=True, slots=True)
class Html:
    """A page for people instead of an answer, as proxies and maintenance give it."""

    code: int = 200
    page: str = "<!DOCTYPE html><html><body><h1>We'll be right back</h1></body></html>"

    def apply(self, _: Exchange, /) -> Answer:
        return Answer(self.code, self.page.encode(), {"content-type": "text/html; charset=utf-8"})


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection without an answer; ``reset`` with RST."""

    reset: bool = False

    def apply(self, _: Exchange, /) -> Answer:
        return Answer(0, drop=True, reset=self.reset)


@dataclass(frozen=True, slots=True)
class Raw:
    """Send these bytes as they stand, whatever they are, and close."""

    data: bytes

    def apply(self, _: Exchange, /) -> Answer:
        return Answer(0, raw=self.data)


@dataclass(frozen=True, slots=True)
class CutBody:
    """Send so many bytes of the body, then close. Without a length (``close_delimited``) nothing shows the cut."""

    after_bytes: int
    reset: bool = False
    close_delimited: bool = False

    def apply(self, exchange: Exchange) -> Answer:
        return replace(
            exchange.genuine(), cut_after_bytes=self.after_bytes, reset=self.reset, close_delimited=self.close_delimited
        )


@dataclass(frozen=True, slots=True)
class Drip:
    """Send the body at so many bytes a second."""

    bytes_per_second: float

    def apply(self, exchange: Exchange) -> Answer:
        return replace(exchange.genuine(), bytes_per_second=self.bytes_per_second)


@dataclass(frozen=True, slots=True)
class Delay:
    """Answer as always, so many seconds later."""

    seconds: float

    def apply(self, exchange: Exchange) -> Answer:
        exchange.closing.wait(self.seconds)
        return exchange.genuine()


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep a request waiting until ``release`` is called; ``reached`` is set when one has come.

    The answer is computed before the wait (``late`` False), as when the network is slow, or after it.
    """

    late: bool = False
    timeout_seconds: float = 30
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.released.set()

    def apply(self, exchange: Exchange) -> Answer:
        early = None if self.late else exchange.genuine()
        self.reached.set()
        self.released.wait(self.timeout_seconds)
        return early or exchange.genuine()


@dataclass(frozen=True, slots=True)
class Replace:
    """Pass the genuine answer through a function: wrong data, other headers, a redirect, anything."""

    change: Callable[[Answer], Answer]

    def apply(self, exchange: Exchange) -> Answer:
        return self.change(exchange.genuine())


@dataclass(frozen=True, slots=True)
class Pass:
    """The genuine answer: a good request between two faults."""

    def apply(self, exchange: Exchange) -> Answer:
        return exchange.genuine()


@dataclass(slots=True)
class Rule:
    """An action for requests whose ``PATH?QUERY`` matches, so many times more (None: until removed)."""

    pattern: re.Pattern[str]
    action: Action
    times: int | None
    method: str | None = None
    hits: int = 0

    def matches(self, request: Request) -> bool:
        return self.method in {None, request.method} and bool(self.pattern.search(request.target))


class Faults:
    """Rules in the order they were added; the first that matches and is not used up decides."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, path: str, action: Action, *, times: int | None = None, method: str | None = None) -> Rule:
        """Let requests whose target (path and query, as sent) matches the regular expression get ``action``."""
        rule = Rule(re.compile(path), action, times, method)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        with self._lock:
            self._rules = [each for each in self._rules if each is not rule]

    def clear(self) -> None:
        """Remove every rule, and let go what is held."""
        self.release()
        with self._lock:
            self._rules = []

    def release(self) -> None:
        """Let go every request that a Hold keeps."""
        with self._lock:
            actions = [rule.action for rule in self._rules]
        for action in actions:
            if isinstance(action, Hold):
                action.release()

    def take(self, request: Request) -> Action | None:
        """The action for this request, counted as used."""
        with self._lock:
            rule = next((each for each in self._rules if each.times != 0 and each.matches(request)), None)
            if rule is None:
                return None
            rule.hits += 1
            if rule.times is not None:
                rule.times -= 1
            return rule.action
