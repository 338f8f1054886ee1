"""GitHub's rate limits: an hourly budget for each resource, and the secondary limit."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

from daemon.clock import Clock
from daemon.demo.standin.answers import Answer, Problem

WINDOW_SECONDS = 3600
LIMITS = {"core": 5000, "graphql": 5000, "anonymous": 60}
EXHAUSTED = "API rate limit exceeded for user ID 1."
SECONDARY = (
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again. "
    "If you reach out to GitHub Support for help, please include the request ID."
)


@dataclass(slots=True)
class Budget:
    """What is left of one resource until ``reset`` (epoch seconds)."""

    limit: int
    remaining: int
    reset: int
    used: int = 0

    def headers(self, resource: str) -> dict[str, str]:
        return {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.remaining)),
            "x-ratelimit-reset": str(self.reset),
            "x-ratelimit-used": str(self.used),
            "x-ratelimit-resource": "core" if resource == "anonymous" else resource,
        }

    def shape(self) -> dict[str, int]:
        return {"limit": self.limit, "used": self.used, "remaining": max(0, self.remaining), "reset": self.reset}


@dataclass(frozen=True, slots=True)
class Charge:
    """One request paid for, or the status that refuses it; ``headers`` are the limit's."""

    headers: dict[str, str]
    refused_with: int | None = None
    message: str = ""
    retry_after_seconds: float | None = None

    def retry_headers(self) -> dict[str, str]:
        return {} if self.retry_after_seconds is None else {"retry-after": f"{self.retry_after_seconds:g}"}


class RateLimits:
    """Counts what requests cost. ``enabled`` False is Enterprise Server's default: no limit, no headers."""

    def __init__(self, clock: Clock) -> None:
        self.enabled = True
        self._clock = clock
        self._lock = threading.Lock()
        self._budgets: dict[tuple[str, str], Budget] = {}  # by account and resource
        self._secondary_left = 0
        self._secondary = Charge({})

    def set(self, *, remaining: int, reset_in: float, resource: str | None = None, account: str = "") -> None:
        """Leave ``remaining`` requests (or points) until ``reset_in`` seconds from now, rounded up to a full second.

        An ``account`` is the number of an installation, or else whoever has the token.
        """
        reset = math.ceil(self._clock.now().timestamp() + reset_in)
        with self._lock:
            for name in (resource,) if resource else LIMITS:
                limit = LIMITS[name]
                self._budgets[account, name] = Budget(limit, remaining, reset, used=max(0, limit - remaining))

    def set_secondary(self, times: int, *, retry_after: float | None = None, status: int = 403) -> None:
        """Refuse the next ``times`` requests as abuse, with or without a ``retry-after``."""
        with self._lock:
            self._secondary_left = times
            self._secondary = Charge({}, status, SECONDARY, retry_after)

    def clear(self) -> None:
        """Full budgets, nothing refused."""
        with self._lock:
            self._budgets.clear()
            self._secondary_left = 0

    def charge(self, resource: str, cost: int = 1, *, account: str = "") -> Charge:
        """Take the cost of one request, unless it is over a limit already."""
        with self._lock:
            budget = self._current(account, resource)
            if self._secondary_left > 0:
                self._secondary_left -= 1
                return replace(self._secondary, headers=self._headers(account, resource))
            if self.enabled and budget.remaining < cost:
                return Charge(self._headers(account, resource), 403, EXHAUSTED)
            budget.remaining -= cost
            budget.used += cost
            return Charge(self._headers(account, resource))

    def refund(self, resource: str, cost: int = 1, *, account: str = "") -> dict[str, str]:
        """Give back what a 304 does not cost; returns the headers as they are then."""
        with self._lock:
            budget = self._current(account, resource)
            budget.remaining += cost
            budget.used -= cost
            return self._headers(account, resource)

    def shape(self, resource: str, *, account: str = "") -> dict[str, int]:
        """One resource as ``GET /rate_limit`` shows it."""
        with self._lock:
            return self._current(account, resource).shape()

    def _headers(self, account: str, resource: str) -> dict[str, str]:
        return self._budgets[account, resource].headers(resource) if self.enabled else {}

    def _current(self, account: str, resource: str) -> Budget:
        now = self._clock.now().timestamp()
        budget = self._budgets.get((account, resource))
        if budget is None or budget.reset <= now:
            limit = LIMITS[resource]
            budget = self._budgets[account, resource] = Budget(limit, limit, math.ceil(now) + WINDOW_SECONDS)
        return budget


class OverLimit(Problem):
    """The REST answer of a request that is over a limit."""

    def __init__(self, status: int, message: str, headers: dict[str, str]) -> None:
        super().__init__(status, message)
        self._headers = headers

    def answer(self) -> Answer:
        return super().answer().with_headers(**self._headers)


def refuse_over_limit(charge: Charge) -> None:
    """Raise OverLimit unless the request was paid for."""
    if charge.refused_with:
        raise OverLimit(charge.refused_with, charge.message, charge.retry_headers())
