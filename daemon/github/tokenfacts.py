"""What an answer of GitHub says of the token that it was asked with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon.github import shapes
from daemon.github.protocol import Answer, parse_json, quoted

_NUMBERS = ("limit", "remaining", "reset")
_EXPIRES_FORMATS = ("%Y-%m-%d %H:%M:%S %Z", "%Y-%m-%d %H:%M:%S %z")


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What is known of a token. ``scopes`` is None where it has none to tell: fine-grained, or an App's.

    ``limits`` are ``limit``, ``remaining`` and ``reset`` (epoch seconds) by resource; empty where there are no limits.
    """

    limits: Mapping[str, Mapping[str, int]]
    scopes: tuple[str, ...] | None
    expires_at: datetime | None


def token_facts(answer: Answer, *, asked: str) -> TokenFacts:
    """The facts in an answer to ``GET /rate_limit``."""
    resources = shapes.object_of(parse_json(answer, asked=asked), asked=asked).get("resources")
    limits = {name: _budget(body, asked=asked) for name, body in shapes.object_of(resources, asked=asked).items()}
    return TokenFacts(limits, _scopes(answer), expires_at(answer.headers))


def _budget(body: object, *, asked: str) -> dict[str, int]:
    facts = shapes.object_of(body, asked=asked)
    return {key: shapes.count_of(facts.get(key), key, asked=asked) for key in _NUMBERS}


def _scopes(answer: Answer) -> tuple[str, ...] | None:
    told = answer.headers.get("x-oauth-scopes")
    return None if told is None else tuple(quoted(scope) for scope in told.split(",") if scope.strip())


def expires_at(headers: Mapping[str, str]) -> datetime | None:
    """When the token ends, where GitHub tells (a header that older tokens do not have)."""
    # https://docs.github.com/en/rest/overview/troubleshooting: "2026-12-01 00:00:00 UTC", or with a numeric zone.
    told = headers.get("github-authentication-token-expiration", "").strip()
    for form in _EXPIRES_FORMATS:
        try:
            found = datetime.strptime(told, form)  # noqa: DTZ007 - the zone is in the text, and UTC where it is a name
        except ValueError:
            continue
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return None
