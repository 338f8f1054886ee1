"""What is asked of GitHub, with what, and what is told of it: the values that go between client and exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.github.apps import AppSettings, Asker
from daemon.github.governor import CORE
from daemon.github.protocol import Answer, Subject

JSON = "application/vnd.github+json"
MAX_JSON_BYTES = 64 * 1024 * 1024  # GitHub's own caps are 7 MB for a tree, some more for 100,000 refs


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the client needs of the configuration; ``token`` is called for every call, so a changed file counts.

    With an ``app`` its installations' tokens are used and ``token`` is not. ``secrets`` is what no message may quote.
    """

    api_url: str
    graphql_url: str
    timeout_seconds: float
    token: Callable[[], str | None]
    anonymous: bool = False
    app: AppSettings | None = None
    secrets: Callable[[], Sequence[str]] = tuple


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """One HTTP request, for metrics and logs; ``status`` is None when no answer arrived."""

    endpoint: str
    status: int | None
    seconds: float
    resource: str


@dataclass(slots=True)
class Tally:
    """How many HTTP requests were made inside ``tally()`` by this thread, and alongside it."""

    requests: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is asked: ``endpoint`` names it for metrics, ``asked`` for people; ``path`` is on the API unless ``url``.

    ``asker`` tells whose token is used where there is a GitHub App.
    """

    endpoint: str
    asked: str
    asker: Asker
    github_id: int | None = None  # of the repository, when it is known: a redirect may lead to no other
    path: str = ""
    url: str | None = None
    subject: Subject = Subject.OBJECT
    accept: str = JSON
    method: str = "GET"
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    resource: str = CORE
    max_bytes: int = MAX_JSON_BYTES
    download: bool = False
    public: bool = False  # may be asked without a token too, and is with an App
    divisible: bool = False  # too big may be asked again in parts, so it is not repeated as it is
    inspect: Callable[[Answer], Answer] | None = None  # may turn a 200 into the error that its body tells
