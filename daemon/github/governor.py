"""The one memory of what GitHub still allows: fed by every answer, asked before every request. Thread-safe.

A limit found by one worker holds for all of them: going on regardless can get an integration banned
(https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api).
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from daemon.clock import Clock
from daemon.errors import Paced, RateLimited, Unauthorized
from daemon.github import limits
from daemon.github.auth import fingerprint
from daemon.model import BudgetRecord

CORE = "core"
GRAPHQL = "graphql"
PUBLIC = "public"  # the account of what is asked without a token, beside an App
DOWNLOADS = "downloads"  # codeload has limits of its own, which say nothing about the API's
ANONYMOUS = fingerprint(None)  # the mark of no token: what is not modified counts as well then

SAME_WINDOW_SECONDS = 5.0  # by which two readings of one reset may differ
LONG_AGO = float("-inf")
REJECTED_SECONDS = 60.0
# A fresh installation token may be answered 401 for some 5 s (reports): it must not cost a minute of promises.
FRESH_SECONDS = 10.0
FRESH_REJECTED_SECONDS = 5.0


@dataclass(slots=True)
class _Window:
    """What is known of one resource; instants are of the monotonic clock."""

    limit: int | None = None
    remaining: int | None = None
    reset_at: float | None = None
    paused_until: float = 0.0
    strikes: int = 0
    turn_at: float = LONG_AGO  # when an even pace comes to the next request of polling

    def budget(self, now: float) -> limits.Budget | None:
        """What is left; None when that is not known, or a new window has begun."""
        if self.limit is None or self.remaining is None or self.reset_at is None or self.reset_at <= now:
            return None
        return limits.Budget(self.limit, self.remaining, self.reset_at - now)


@dataclass(slots=True)
class _Memory:
    """What is known of one ``account``; of a plain token ("") it is forgotten as a whole when another is used."""

    account: str
    since: float
    rejected_until: float = 0.0
    paused_until: float = 0.0
    windows: dict[str, _Window] = field(default_factory=dict)


class Governor:
    """Budgets and pauses of the token in use, or of each installation of an App; REST and GraphQL apart."""

    def __init__(
        self,
        clock: Clock,
        *,
        jitter: Callable[[], float] = random.random,
        on_pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._on_pause = on_pause
        self._lock = threading.Lock()
        self._memories: dict[str, _Memory] = {}  # by mark
        self._heard: dict[str, list[BudgetRecord]] = {}  # by mark
        self.answers = 0  # how many were learnt from: what is known is news when it has grown

    def use(self, token: str | None, *, account: str = "") -> str:
        """Declare who makes the next request and return the mark of it.

        Accounts are remembered side by side, whatever token each has just now. Of plain tokens there is one: a new
        one lifts pauses and forgets numbers.
        """
        mark = account or fingerprint(token)
        with self._lock:
            if mark not in self._memories:
                kept = {known: memory for known, memory in self._memories.items() if account and memory.account}
                self._memories = {**kept, mark: _Memory(account, since=self._clock.monotonic())}
                self._recall(mark)
            return mark

    def hear(self, records: Iterable[BudgetRecord]) -> None:
        """Take in what was written down before a restart, or by another daemon that asks as the same account."""
        with self._lock:
            self._heard = {}
            for record in records:
                self._heard.setdefault(record.mark, []).append(record)
            for mark in self._memories:
                self._recall(mark)

    def records(self) -> list[BudgetRecord]:
        """What is known, to be written down."""
        with self._lock:
            now = self._clock.monotonic()
            return [record for mark, memory in self._memories.items() for record in self._written(mark, memory, now)]

    def check(self, resource: str, mark: str, *, background: bool = False) -> None:
        """Raise RateLimited or Unauthorized when nothing may be asked now; ``background`` leaves the reserve alone."""
        with self._lock:
            memory = self._memories.get(mark)
            if memory is None:
                return
            now = self._clock.monotonic()
            if memory.rejected_until > now:
                refused, remedy = (memory.account, "") if memory.account else ("this token", "; set a new github.token")
                raise Unauthorized(f"GitHub refused {refused} (401) less than a minute ago{remedy}")
            window = memory.windows.get(resource) or _Window()
            until = max(memory.paused_until, window.paused_until)
            if until > now:
                raise RateLimited(
                    f"GitHub's rate limit ({_named(resource, memory)}): "
                    f"nothing is asked before {self._at(until):%H:%M:%S} UTC",
                    until=self._at(until),
                )
            if background:
                self._check_reserve(resource, window, now)

    def observe(
        self,
        resource: str,
        mark: str,
        *,
        status: int,
        headers: Mapping[str, str],
        message: str = "",
        background: bool = False,
    ) -> RateLimited | None:
        """Learn from an answer; returns the error to raise when it is a limit.

        ``message`` is the error text of the body; a GraphQL answer that is limited is given as status 429.
        ``background`` is polling, whose turns are counted.
        """
        limited = self._learn(resource, mark, status, headers, message, background=background)
        if limited is not None:
            self._on_pause()  # outside the lock: it may want to write down what is known
        return limited

    def _learn(
        self, resource: str, mark: str, status: int, headers: Mapping[str, str], message: str, *, background: bool
    ) -> RateLimited | None:
        with self._lock:
            self.answers += 1
            now = self._clock.now()
            # Without a memory it is an answer to a token that is no longer used.
            memory = self._memories.get(mark) or _Memory("", since=self._clock.monotonic())
            if status == HTTPStatus.UNAUTHORIZED:
                self._reject(memory)
                return None
            window = memory.windows.setdefault(self._resource(resource, headers), _Window())
            budget = limits.read_budget(headers, now=now)
            if budget is not None:
                self._note(window, budget)
            if background and (status != HTTPStatus.NOT_MODIFIED or mark in {ANONYMOUS, PUBLIC}):
                self._take_turn(window)
            if not limits.is_limited(status, headers, message):
                window.strikes = 0
                return None
            wait = limits.limited_wait(headers, now=now, strikes=window.strikes)
            until = self._pause(memory, window, wait, resource)
            return RateLimited(
                f"GitHub's rate limit ({_named(resource, memory)}, {status}): "
                f"asked again after {self._at(until):%H:%M:%S} UTC",
                until=self._at(until),
            )

    def snapshot(self) -> dict[str, Any]:
        """What status shows: ``paused_until`` and, per resource, limit, remaining, ``reset_at``, ``paused_until``.

        With an App each of its accounts is shown so under ``accounts``, and in their place the most exhausted one.
        """
        with self._lock:
            now = self._clock.monotonic()
            memories = sorted(
                self._memories.values(), key=lambda memory: (memory.account == PUBLIC, self._left(memory, now))
            )
            shown = {memory.account: self._summary(memory, now) for memory in memories}
            first: dict[str, Any] = next(iter(shown.values()), {"paused_until": None, "resources": {}})
            return first if "" in shown or not shown else {**first, "accounts": shown}

    def _recall(self, mark: str) -> None:
        memory, now = self._memories[mark], self._clock.monotonic()
        for record in self._heard.get(mark, []):
            paused_until = now + self._seconds_until(record.paused_until)
            if not record.resource:
                memory.paused_until = max(memory.paused_until, paused_until)
                continue
            window = memory.windows.setdefault(record.resource, _Window())
            window.paused_until = max(window.paused_until, paused_until)
            left = self._seconds_until(record.reset_at)
            if left > 0 and (window.reset_at is None or window.reset_at < now + left - SAME_WINDOW_SECONDS):
                window.limit, window.remaining, window.reset_at = record.limit, record.remaining, now + left

    def _seconds_until(self, at: datetime | None) -> float:
        """From now; never longer than a limit can last, should the wall clock have been set."""
        seconds = (at - self._clock.now()).total_seconds() if at is not None else 0.0
        return seconds if seconds <= limits.MAX_WAIT_SECONDS + SAME_WINDOW_SECONDS else 0.0

    def _written(self, mark: str, memory: _Memory, now: float) -> list[BudgetRecord]:
        whole = BudgetRecord(mark, "", None, None, None, self._future(memory.paused_until, now))
        return [whole, *(self._record(mark, *named, now) for named in memory.windows.items())]

    def _record(self, mark: str, resource: str, window: _Window, now: float) -> BudgetRecord:
        reset_at = None if window.reset_at is None else self._future(window.reset_at, now)
        paused_until = self._future(window.paused_until, now)
        return BudgetRecord(mark, resource, window.limit, window.remaining, reset_at, paused_until)

    def _check_reserve(self, resource: str, window: _Window, now: float) -> None:
        budget = window.budget(now)
        if budget is not None and window.reset_at is not None and limits.within_reserve(budget):
            raise RateLimited(
                f"polling leaves the last fifth of GitHub's {resource} budget to webhooks: {budget.remaining} of "
                f"{budget.limit} requests remain until {self._at(window.reset_at):%H:%M:%S} UTC",
                until=self._at(window.reset_at),
            )

    def has_spare(self, resource: str, mark: str) -> bool:
        """Whether there is enough left for looks that no promise needs."""
        with self._lock:
            budget = self._window(resource, mark).budget(self._clock.monotonic())
        return budget is None or limits.has_spare(budget)

    def limit_of(self, resource: str, mark: str) -> int | None:
        """GitHub's limit an hour; None while it has not said."""
        with self._lock:
            return self._window(resource, mark).limit

    def check_turn(self, resource: str, mark: str) -> None:
        """Raise Paced while a look would be ahead of an even pace. To be asked before a look, not amid its requests:
        one that is given up half way has spent its share for nothing.
        """
        with self._lock:
            window = self._window(resource, mark)
            now = self._clock.monotonic()
            budget = window.budget(now)
            if budget is not None and window.turn_at > now:
                until = self._at(min(window.turn_at, now + (budget.reset_seconds or 0.0)))
                raise Paced(
                    f"polling spreads what is left of GitHub's {resource} budget over the time until it is renewed: "
                    f"the next turn is at {until:%H:%M:%S} UTC",
                    until=until,
                )

    def _window(self, resource: str, mark: str) -> _Window:
        memory = self._memories.get(mark)
        return (memory.windows.get(resource) if memory else None) or _Window()

    def _take_turn(self, window: _Window) -> None:
        """Count a request of polling, which may be ahead of an even pace by a share of what is left and no more."""
        now = self._clock.monotonic()
        budget = window.budget(now)
        if budget is None:
            return
        gap = limits.pace(budget)
        ahead = max(gap, (budget.reset_seconds or 0.0) * limits.BURST_SHARE)
        window.turn_at = max(window.turn_at, now - ahead) + gap

    def _left(self, memory: _Memory, now: float) -> float:
        """The share of the budget that remains where the least of it does, below zero while it is paused."""
        windows = [*memory.windows.values()]
        if max(memory.paused_until, *(window.paused_until for window in windows), 0.0) > now:
            return -1.0
        numbers = (self._shown(window, now) for window in windows if window.limit)
        return min((shown["remaining"] / shown["limit"] for shown in numbers), default=1.0)

    def _summary(self, memory: _Memory, now: float) -> dict[str, Any]:
        windows = memory.windows.items()
        pauses = [memory.paused_until, *(window.paused_until for _, window in windows)]
        return {
            "paused_until": self._future(max(pauses), now),
            "resources": {
                name: self._shown(window, now) for name, window in windows if window.limit or window.paused_until
            },
        }

    def _reject(self, memory: _Memory) -> None:
        now = self._clock.monotonic()
        fresh = now - memory.since < FRESH_SECONDS
        memory.rejected_until = now + (FRESH_REJECTED_SECONDS if fresh else REJECTED_SECONDS)

    def _note(self, window: _Window, budget: limits.Budget) -> None:
        now = self._clock.monotonic()
        if window.budget(now) is None:
            window.turn_at = LONG_AGO
        window.limit, window.remaining = budget.limit, budget.remaining
        window.reset_at = None if budget.reset_seconds is None else now + budget.reset_seconds
        wait = limits.exhausted_wait(budget)
        if wait is not None:
            window.paused_until = max(window.paused_until, now + wait.seconds)

    def _pause(self, memory: _Memory, window: _Window, wait: limits.Wait, resource: str) -> float:
        seconds = wait.seconds
        if not wait.explicit:
            window.strikes += 1
            seconds = min(seconds * (1 + self._jitter() / 10), limits.MAX_WAIT_SECONDS)
        until = self._clock.monotonic() + seconds
        window.paused_until = max(window.paused_until, until)
        if wait.everything and resource != DOWNLOADS:
            memory.paused_until = max(memory.paused_until, until)
        return until

    @staticmethod
    def _resource(resource: str, headers: Mapping[str, str]) -> str:
        named = headers.get("x-ratelimit-resource", resource)
        return named if resource != DOWNLOADS and named in {CORE, GRAPHQL} else resource

    def _at(self, monotonic: float) -> datetime:
        return self._clock.now() + timedelta(seconds=monotonic - self._clock.monotonic())

    def _future(self, monotonic: float, now: float) -> datetime | None:
        return self._at(monotonic) if monotonic > now else None

    def _shown(self, window: _Window, now: float) -> dict[str, Any]:
        current = window.reset_at is None or window.reset_at > now
        return {
            "limit": window.limit,
            "remaining": window.remaining if current else window.limit,
            "reset_at": None if window.reset_at is None else self._future(window.reset_at, now),
            "paused_until": self._future(window.paused_until, now),
        }


def _named(resource: str, memory: _Memory) -> str:
    return f"{resource} of {memory.account}" if memory.account else resource
