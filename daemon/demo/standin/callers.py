"""Who asks: nobody, whoever has the token, a GitHub App, or one of its installations."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from daemon.clock import Clock
from daemon.demo.standin.answers import Problem
from daemon.demo.standin.repositories import ServedRepository

FIRST_INSTALLATION = 4_000_000_001
MOST_JWT_SECONDS = 600
UNDECODED = "A JSON web token could not be decoded"


@dataclass(eq=False, slots=True)
class Installation:
    """An App on an owner's account; ``repositories`` are the names it was given, None for all of them."""

    id: int
    owner: str
    repositories: frozenset[str] | None = None
    suspended_at: datetime | None = None

    def sees(self, repository: ServedRepository) -> bool:
        """Stricter than GitHub, which shows what is public to everybody: so nothing can rely on a wrong token."""
        chosen = self.repositories is None or repository.name.lower() in self.repositories
        return repository.owner.lower() == self.owner.lower() and chosen


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    authorized: bool
    is_app: bool = False
    installation: Installation | None = None

    @property
    def account(self) -> str:
        """Whose limits are used up; "" is the plain token's."""
        return str(self.installation.id) if self.installation else "app" if self.is_app else ""

    def sees(self, repository: ServedRepository) -> bool:
        if self.installation is not None:
            return self.installation.sees(repository)
        return self.authorized or not repository.private


@dataclass(frozen=True, slots=True)
class _Token:
    installation: Installation
    good_from: float  # of the monotonic clock
    good_until: float


class Apps:
    """The one App that there may be, its installations, and the tokens it was given."""

    def __init__(self, clock: Clock) -> None:
        self.lifetime_seconds = 3600.0  # of the tokens made from now on
        self.late_seconds = 0.0  # for how long a new token is answered 401
        self.token_prefix = "ghs_"  # noqa: S105  # how GitHub marks them; older Enterprise Servers do not
        self.issued = 0
        self.app_id = ""
        self._public_key = ""
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = itertools.count(FIRST_INSTALLATION)
        self._installations: dict[int, Installation] = {}
        self._tokens: dict[str, _Token] = {}

    def register(self, app_id: str, public_key: str) -> None:
        """There is an App with this id, whose JSON Web Tokens this key (PEM) verifies."""
        self.app_id, self._public_key = app_id, public_key

    def install(self, owner: str, repositories: Iterable[str] | None = None) -> Installation:
        """Install the App for an owner, for all repositories or for those with these names."""
        chosen = None if repositories is None else frozenset(name.lower() for name in repositories)
        with self._lock:
            installation = Installation(next(self._ids), owner, chosen)
            self._installations[installation.id] = installation
        return installation

    def uninstall(self, installation: Installation) -> None:
        with self._lock:
            del self._installations[installation.id]
            self._tokens = {text: one for text, one in self._tokens.items() if one.installation is not installation}

    def revoke_tokens(self) -> None:
        """Answer 401 to every token made so far."""
        with self._lock:
            self._tokens.clear()

    def all(self) -> list[Installation]:
        with self._lock:
            return list(self._installations.values())

    def by_id(self, number: int) -> Installation | None:
        return self._installations.get(number)

    def of(self, repository: ServedRepository) -> Installation | None:
        return next((one for one in self.all() if one.sees(repository)), None)

    def make_token(self, installation: Installation) -> tuple[str, datetime]:
        """A new token, and when it ends."""
        text, now = f"{self.token_prefix}{secrets.token_hex(18)}", self._clock.monotonic()
        with self._lock:
            self.issued += 1
            self._tokens[text] = _Token(installation, now + self.late_seconds, now + self.lifetime_seconds)
        return text, self._clock.now() + timedelta(seconds=self.lifetime_seconds)

    def caller(self, text: str) -> Caller | None:
        """Whose token it is, None when it is none of ours. Raises 401 for a JSON Web Token that is not good."""
        with self._lock:
            token = self._tokens.get(text)
        if token is not None and token.good_from <= self._clock.monotonic() < token.good_until:
            return Caller(authorized=True, installation=token.installation)
        if self.app_id and text.startswith("eyJ"):
            self._verify(text)
            return Caller(authorized=True, is_app=True)
        return None

    def _verify(self, text: str) -> None:
        import jwt

        try:
            claims: dict[str, Any] = jwt.decode(
                text, self._public_key, algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
            )
        except jwt.InvalidTokenError:
            raise Problem(401, UNDECODED) from None
        now = self._clock.now().timestamp()
        if claims.get("iss") != self.app_id:
            raise Problem(401, "'Issuer' claim ('iss') must be the App's id")
        if not now < claims.get("exp", 0) <= now + MOST_JWT_SECONDS:
            raise Problem(401, "'Expiration time' claim ('exp') is too far in the future, or past")
        if not 0 < claims.get("iat", now + 1) <= now:
            raise Problem(401, "'Issued at' claim ('iat') must be an Integer representing the time of the assertion")
