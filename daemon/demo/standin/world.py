"""Everything the parts of the stand-in share, and the answers to "who asks" and "which commit"."""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from dataclasses import dataclass, field

from daemon.clock import Clock
from daemon.demo.standin.answers import Problem, Request
from daemon.demo.standin.callers import Apps, Caller
from daemon.demo.standin.deliveries import Deliveries
from daemon.demo.standin.limits import RateLimits
from daemon.demo.standin.objects import CommitObject
from daemon.demo.standin.repositories import Registry, ServedRepository
from daemon.demo.standin.staleness import Heads

LINK_SECONDS = 300
HOOK_ADDRESSES = ("192.30.252.0/22", "185.199.108.0/22", "140.82.112.0/20", "143.55.64.0/20", "2a0a:a440::/29")
_SHA = re.compile(r"[0-9a-f]{40}")
_SHORT_SHA = re.compile(r"[0-9a-f]{4,39}")


@dataclass(slots=True)
class Options:
    """What a test or the demo may change while the stand-in runs."""

    token: str | None
    scopes: str | None = "repo, admin:repo_hook"  # None: a fine-grained or app token, which has no scopes header
    token_expires: str | None = None  # the text of the header, as in "2026-12-01 00:00:00 UTC"
    graphql_enabled: bool = True
    tree_limit: int = 100_000
    tree_bytes_limit: int = 7_000_000
    blob_limit_bytes: int = 100_000_000
    hook_addresses: tuple[str, ...] | None = HOOK_ADDRESSES  # None: Enterprise Server names none


@dataclass
class World:
    """The state behind the API."""

    clock: Clock
    options: Options
    registry: Registry
    heads: Heads
    limits: RateLimits
    deliveries: Deliveries
    links: DownloadLinks = field(init=False)
    apps: Apps = field(init=False)

    def __post_init__(self) -> None:
        self.links = DownloadLinks(self.clock)
        self.apps = Apps(self.clock)

    def authenticate(self, request: Request) -> Caller:
        """Who asks; raises 401 when a token is demanded or the one given is wrong."""
        given = request.headers.get("authorization")
        token = self.options.token
        if given is None and (token is None or request.path == "/meta"):
            return Caller(authorized=False)
        if given is None:
            raise Problem(401, "Requires authentication")
        scheme, _, value = given.partition(" ")
        if scheme.lower() not in {"bearer", "token"}:
            raise Problem(401, "Bad credentials")
        if token is not None and _equal(value.strip(), token):
            return Caller(authorized=True)
        caller = self.apps.caller(value.strip())
        if caller is None:
            raise Problem(401, "Bad credentials")
        return caller

    def resolve(self, repository: ServedRepository, ref: str) -> str | None:
        """The id of the commit that a ref names: a branch, ``heads/B``, ``tags/T``, a full or a short id."""
        name = ref.removeprefix("refs/")
        if "\0" in name:
            return None
        if name == "HEAD":
            name = repository.default_branch
        if name.startswith("tags/"):
            return self._peeled(repository, f"refs/{name}")
        if (head := self.heads.get(repository, name.removeprefix("heads/"))) is not None:
            return head
        if _SHA.fullmatch(name):
            return self._peeled(repository, name)
        return self._by_name(repository, name)

    def _by_name(self, repository: ServedRepository, name: str) -> str | None:
        if (tagged := self._peeled(repository, f"refs/tags/{name}")) is not None:
            return tagged
        return self._peeled(repository, name) if _SHORT_SHA.fullmatch(name) else None

    def _peeled(self, repository: ServedRepository, name: str) -> str | None:
        if _SHA.fullmatch(name) and repository.commit(name) is not None:
            sha = name
        else:
            answer = repository.git.attempt("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            if answer is None:
                return None
            sha = answer.decode().strip()
        return None if self.heads.hides(repository, sha) else sha

    def commit(self, repository: ServedRepository, ref: str) -> CommitObject | None:
        sha = self.resolve(repository, ref)
        return repository.commit(sha) if sha is not None else None


def _equal(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


class DownloadLinks:
    """The tokens in links to archives of private repositories: good once, and for five minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._good: dict[str, tuple[str, float]] = {}

    def make(self, path: str) -> str:
        token = secrets.token_hex(16).upper()
        with self._lock:
            self._good[token] = (path, self._clock.monotonic() + LINK_SECONDS)
        return token

    def use(self, token: str, path: str) -> bool:
        with self._lock:
            made_for, until = self._good.pop(token, ("", 0.0))
        return made_for == path and self._clock.monotonic() < until
