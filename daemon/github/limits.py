"""The arithmetic of GitHub's rate limits: headers in, budgets and waits in seconds out. Pure.

Everything is counted from the answer's own ``Date``, never from this machine's clock, and no wait is longer than
an hour. Source: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api and
https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

MAX_WAIT_SECONDS = 3600.0
SECONDARY_WAIT_SECONDS = 60.0
RESERVED_SHARE = 0.2  # of the limit, left by polling for work that deliveries cause
WINDOW_SECONDS = 3600.0  # of the primary limit
BURST_SHARE = 0.1  # of the time left, that polling may be ahead of an even pace: a round after a start comes at once
SPARE_SHARE = 0.02  # of the limit, that a window may begin with for looks that no promise needs
MAX_DIGITS = 15

_DIGITS = re.compile(r"[0-9]+")
_LIMIT_WORDS = ("rate limit", "abuse detection")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one answer says of its resource; ``reset_seconds`` from now, None when it was not said."""

    limit: int
    remaining: int
    reset_seconds: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to ask nothing: of ``everything``, or only of the resource that the answer was about.

    ``explicit`` tells a wait that GitHub named from one that was guessed.
    """

    seconds: float
    everything: bool
    explicit: bool


def read_budget(headers: Mapping[str, str], *, now: datetime) -> Budget | None:
    """The primary limit as told by an answer; None when a header is absent or nonsense (Enterprise Server)."""
    limit = _count(headers.get("x-ratelimit-limit"))
    remaining = _count(headers.get("x-ratelimit-remaining"))
    if limit is None or remaining is None or limit == 0:
        return None
    return Budget(limit, min(remaining, limit), _reset_seconds(headers, now=now))


def is_limited(status: int, headers: Mapping[str, str], message: str) -> bool:
    """Whether an error answer is a rate limit and not a missing permission."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    if status != HTTPStatus.FORBIDDEN:
        return False
    said = message.lower()
    told = "retry-after" in headers or _count(headers.get("x-ratelimit-remaining")) == 0
    return told or any(words in said for words in _LIMIT_WORDS)


def limited_wait(headers: Mapping[str, str], *, now: datetime, strikes: int) -> Wait:
    """How long a limited answer asks to wait: retry-after, else the reset, else 60 s doubled by every strike."""
    after = _retry_after(headers, now=now)
    if after is not None:
        return Wait(_bounded(after), everything=True, explicit=True)
    exhausted = _count(headers.get("x-ratelimit-remaining")) == 0
    reset = _reset_seconds(headers, now=now)
    if exhausted and reset is not None and reset > 0:
        return Wait(_bounded(reset), everything=False, explicit=True)
    # A reset that is past contradicts the refusal: obeying it would ask again at once, for ever.
    seconds = SECONDARY_WAIT_SECONDS * 2.0 ** min(strikes, 10)
    return Wait(_bounded(seconds), everything=not exhausted, explicit=False)


def exhausted_wait(budget: Budget) -> Wait | None:
    """The wait that a *good* answer implies when it used the last request of its window."""
    if budget.remaining > 0:
        return None
    if budget.reset_seconds is None:
        return Wait(SECONDARY_WAIT_SECONDS, everything=False, explicit=False)
    if budget.reset_seconds <= 0:
        return None
    return Wait(_bounded(budget.reset_seconds), everything=False, explicit=True)


def pace(budget: Budget) -> float:
    """Seconds between two requests of polling that make what it may use last until the reset; 0 when unlimited."""
    room = budget.remaining - budget.limit * RESERVED_SHARE
    if budget.reset_seconds is None or budget.reset_seconds <= 0:
        return 0.0
    return budget.reset_seconds / max(room, 1.0)


def has_spare(budget: Budget) -> bool:
    """Whether less than half was used of what an even pace would have: enough for looks that no promise needs."""
    passed = 1.0 - min(max(budget.reset_seconds or 0.0, 0.0), WINDOW_SECONDS) / WINDOW_SECONDS
    return budget.remaining >= budget.limit * (1.0 - passed / 2 - SPARE_SHARE)


def within_reserve(budget: Budget) -> bool:
    """Whether what remains is the part that polling leaves for work caused by deliveries."""
    return budget.remaining <= budget.limit * RESERVED_SHARE


def _bounded(seconds: float) -> float:
    return max(1.0, min(seconds, MAX_WAIT_SECONDS))


def _count(text: str | None) -> int | None:
    if text is None or _DIGITS.fullmatch(text.strip()) is None:
        return None  # "-1", "1e9" and words are no count
    digits = text.strip()
    return int(digits) if len(digits) <= MAX_DIGITS else 10**MAX_DIGITS


def _retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    text = headers.get("retry-after")
    seconds = _count(text)
    if seconds is not None:
        return float(seconds)
    at = _http_date(text)
    if at is None:
        return None
    wait = (at - server_now(headers, now=now)).total_seconds()
    return wait if wait >= 0 else None


def _reset_seconds(headers: Mapping[str, str], *, now: datetime) -> float | None:
    epoch = _count(headers.get("x-ratelimit-reset"))
    if epoch is None:
        return None
    # Plus one second: the reset is a whole second, and asking within it may still count for the old window.
    seconds = epoch + 1 - server_now(headers, now=now).timestamp()
    return min(seconds, MAX_WAIT_SECONDS)


def server_now(headers: Mapping[str, str], *, now: datetime) -> datetime:
    """The instant of an answer by GitHub's own clock; ``now`` when it does not say."""
    return date_of(headers) or now


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """When GitHub says that it answered."""
    return _http_date(headers.get("date"))


def _http_date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
