"""Can polling keep its promise with what GitHub allows? Pure arithmetic, in numbers and in a sentence.

Limits: https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api and
https://docs.github.com/graphql/overview/rate-limits-and-query-limits-for-the-graphql-api.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from daemon.github.limits import RESERVED_SHARE
from daemon.github.queries import MAX_REPOSITORIES

SECONDS_PER_HOUR = 3600
TOKEN_LIMIT = 5000
ANONYMOUS_LIMIT = 60
SECONDARY_LIMIT = 900 * 60  # of requests that are free of the primary one, since they answer 304 to a token


class Means(StrEnum):
    """How heads are asked for."""

    GRAPHQL = "graphql"  # a point for each batch of repositories
    REST = "rest"  # a request for each branch, free of the primary limit while nothing changes
    ANONYMOUS = "anonymous"  # a request for each branch


@dataclass(frozen=True, slots=True)
class Demand:
    """Repositories that are to be looked at within the same bound."""

    seconds: float
    repositories: int
    branches: int


@dataclass(frozen=True, slots=True)
class Afford:
    """What polling needs an hour and what it may use; ``available_per_hour`` is None where no limit is known."""

    means: Means
    needed_per_hour: float
    available_per_hour: float | None
    sentence: str

    @property
    def can_keep_promise(self) -> bool:
        return self.available_per_hour is None or self.needed_per_hour <= self.available_per_hour

    @property
    def strain(self) -> float:
        """The share of what may be used that is needed; above 1 the promise cannot be kept."""
        return self.needed_per_hour / self.available_per_hour if self.available_per_hour else 0.0

    def as_json(self) -> dict[str, object]:
        """As ``/api/v1/status`` and ``check --json`` tell it."""
        available = self.available_per_hour
        return {
            "means": self.means.value,
            "needed_per_hour": round(self.needed_per_hour, 1),
            "available_per_hour": None if available is None else round(available, 1),
            "can_keep_promise": self.can_keep_promise,
            "sentence": self.sentence,
        }


def afford(demands: Iterable[Demand], means: Means, *, batch_size: int, limit: int | None) -> Afford:
    """The arithmetic; ``limit`` is GitHub's, an hour, of which polling leaves a fifth to deliveries."""
    parts = sorted((one for one in demands if one.repositories), key=lambda one: one.seconds)
    size = min(batch_size, MAX_REPOSITORIES)
    rounds = [(math.ceil(one.repositories / size) if means is Means.GRAPHQL else one.branches) for one in parts]
    needed = sum(count * SECONDS_PER_HOUR / one.seconds for count, one in zip(rounds, parts, strict=True))
    available = None if limit is None else limit * (1 - RESERVED_SHARE)
    unit = "point" if means is Means.GRAPHQL else "request"
    terms = [_term(one, count, means, unit) for count, one in zip(rounds, parts, strict=True)]
    sentence = f"{' and '.join(terms) or 'no repository'}: {_number(needed)} {unit}s an hour; {_allowed(limit, means)}"
    if available is not None and needed > available:
        sentence += f". The promise cannot be kept; {_remedy(parts[0].seconds * needed / available, means)}"
    return Afford(means, needed, available, sentence)


def usual_limit(api_url: str, means: Means) -> int | None:
    """GitHub's limit before it has told one; Enterprise Server has none unless somebody sets one."""
    if means is Means.ANONYMOUS:
        return ANONYMOUS_LIMIT
    if api_url.rstrip("/").endswith("/api/v3"):
        return None
    return SECONDARY_LIMIT if means is Means.REST else TOKEN_LIMIT


def _term(one: Demand, count: int, means: Means, unit: str) -> str:
    every = f"every {one.seconds:g} s"
    if means is Means.GRAPHQL:
        return f"{_counted(one.repositories, 'repository')} at {_counted(count, unit)} {every}"
    return f"{_counted(one.branches, 'branch')} at 1 request each {every}"


def _allowed(limit: int | None, means: Means) -> str:
    if limit is None:
        return "no limit of this server is known"
    without = " without a token" if means is Means.ANONYMOUS else ""
    return f"GitHub allows {limit}{without}, of which polling may use {_number(limit * (1 - RESERVED_SHARE))}"


def _remedy(seconds: float, means: Means) -> str:
    longer = f'a polling.interval of "{math.ceil(seconds)}s" or more'
    if means is Means.ANONYMOUS:
        return f"set github.token, or {longer}"
    return f"set {longer}, or see to it that webhooks arrive"


def _counted(count: int, word: str) -> str:
    plural = {"repository": "repositories", "branch": "branches"}.get(word, f"{word}s")
    return f"{count} {word if count == 1 else plural}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004 - two digits do
