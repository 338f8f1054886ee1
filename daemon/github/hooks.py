"""Webhooks of repositories and organisations as GitHub has them, and its log of what it delivered."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import requests

from daemon.github import shapes
from daemon.github.calls import Call
from daemon.github.exchange import Exchange
from daemon.github.paths import organisation_path, repository_path
from daemon.github.protocol import Answer, Subject, parse_json, quoted
from daemon.model import RepositoryRef

# Pushes are what it is about; events of the repository tell of renames, which polling would notice later.
EVENTS = ("push", "repository")
PAGE = 100
MOST_HOOK_PAGES = 10  # GitHub allows 20 hooks for an event


@dataclass(frozen=True, slots=True)
class HookPlace:
    """Where hooks are: a repository or, as ``owner/*``, an organisation. ``path`` is that of the API.

    ``asker`` tells whose token is used where there is a GitHub App.
    """

    name: str
    path: str
    asker: RepositoryRef | str

    @property
    def github_id(self) -> int | None:
        return self.asker.github_id if isinstance(self.asker, RepositoryRef) else None

    @property
    def of_all(self) -> bool:
        """Whether its hooks are for all repositories of an organisation."""
        return self.name.endswith("/*")


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook; ``last_response`` is what became of its newest delivery, in GitHub's words."""

    id: int
    url: str
    active: bool
    events: tuple[str, ...]
    content_type: str
    has_secret: bool
    insecure_ssl: str
    last_response: str


@dataclass(frozen=True, slots=True)
class PlacedHook:
    """A hook and where it is."""

    place: HookPlace
    hook: Hook


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """One attempt of a delivery as GitHub's log has it; ``status`` is GitHub's words.

    ``repository_id`` is None where it is not told, or the event was about none.
    """

    id: int
    guid: str
    event: str
    delivered_at: datetime
    redelivery: bool
    status: str
    status_code: int
    repository_id: int | None = None

    @property
    def ok(self) -> bool:
        """A time-out has no status code of failure, so only the words tell (GITHUB.md, Deliveries)."""
        return self.status == "OK"


@dataclass(frozen=True, slots=True)
class Attempts:
    """All attempts of one delivery that were read: the newest, and the first unless it is older than what was read."""

    newest: LoggedDelivery
    first: LoggedDelivery | None

    @property
    def guid(self) -> str:
        return self.newest.guid


class Hooks:
    """Reads and changes webhooks. Thread-safe; raises only `GitHubError`.

    Forbidden when the token may not administer them, Rejected when GitHub does not take a change.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def permitted(self) -> bool:
        """Whether asking makes sense at all: nobody may without a token. Raises Unauthorized when there is none."""
        return self._exchange.app is not None or self._exchange.token() is not None

    def at(self, place: HookPlace) -> list[Hook]:
        """Every hook of a place."""
        found: list[Hook] = []
        for page in range(1, MOST_HOOK_PAGES + 1):
            call = _call("hooks", place, f"?per_page={PAGE}&page={page}")
            items = shapes.list_of(self._json(call), asked=call.asked)
            found += [_hook(item, asked=call.asked) for item in items]
            if len(items) < PAGE:
                break
        return found

    def create(self, place: HookPlace, url: str, secret: str) -> Hook:
        """A new hook; GitHub sends it a ping."""
        config = {"url": url, "content_type": "json", "secret": secret, "insecure_ssl": "0"}
        body = {"name": "web", "active": True, "events": EVENTS, "config": config}
        call = _call("hook_create", place, method="POST", body=body)
        return _hook(self._json(call), asked=call.asked)

    def correct(self, place: HookPlace, hook: Hook, secret: str) -> Hook:
        """The hook made active, JSON, signed with ``secret``, and told of what headwater needs besides what it has."""
        # A configuration replaces the old one: what is left out of it, the secret too, is gone.
        config = {"url": hook.url, "content_type": "json", "secret": secret, "insecure_ssl": hook.insecure_ssl}
        body = {"active": True, "events": wanted_events(hook.events), "config": config}
        call = _call("hook_change", place, f"/{hook.id}", method="PATCH", body=body)
        return _hook(self._json(call), asked=call.asked)

    def remove(self, place: HookPlace, hook_id: int) -> None:
        self._exchange.ask(_call("hook_remove", place, f"/{hook_id}", method="DELETE"))

    def ping(self, place: HookPlace, hook_id: int) -> None:
        """Have GitHub deliver a ping; it answers before it does."""
        self._exchange.ask(_call("hook_ping", place, f"/{hook_id}/pings", method="POST"))

    def deliveries(
        self, place: HookPlace, hook_id: int, *, since: datetime | None = None, pages: int = 1, size: int = PAGE
    ) -> list[LoggedDelivery]:
        """Attempts, newest first: the pages of the log until one goes back to ``since``, but at most so many."""
        found: list[LoggedDelivery] = []
        cursor = ""
        for _ in range(pages):
            call = _call("hook_deliveries", place, f"/{hook_id}/deliveries?per_page={size}{cursor}")
            answer = self._exchange.ask(call)
            items = shapes.list_of(parse_json(answer, asked=call.asked), asked=call.asked)
            found += [_delivery(item, asked=call.asked) for item in items]
            cursor = _next_cursor(answer) if items else ""
            if not cursor or (since is not None and found[-1].delivered_at <= since):
                break
        return found

    def ref(self, place: HookPlace, hook_id: int, delivery_id: int) -> str | None:
        """The ref that a delivery of a push was about, None when its payload names none."""
        call = _call("hook_delivery", place, f"/{hook_id}/deliveries/{delivery_id}")
        request = shapes.object_of(self._json(call), asked=call.asked).get("request")
        payload = request.get("payload") if isinstance(request, dict) else None
        ref = payload.get("ref") if isinstance(payload, dict) else None
        return ref if isinstance(ref, str) else None

    def redeliver(self, place: HookPlace, hook_id: int, delivery_id: int) -> None:
        """Have GitHub send a delivery again, under its GUID."""
        path = f"/{hook_id}/deliveries/{delivery_id}/attempts"
        self._exchange.ask(_call("hook_redeliver", place, path, method="POST"))

    def _json(self, call: Call) -> Any:
        return parse_json(self._exchange.ask(call), asked=call.asked)


def of_repository(ref: RepositoryRef) -> HookPlace:
    """The hooks of one repository. Raises RepositoryNotFound for a name that none can have."""
    return HookPlace(ref.full_name, repository_path(ref), ref)


def of_organisation(login: str) -> HookPlace:
    """The hooks of an organisation, which are for all its repositories."""
    return HookPlace(f"{login}/*", organisation_path(login), login)


def leads_to(hook: Hook, url: str) -> bool:
    """Whether a hook delivers to ``url``: the case of scheme and host does not matter."""
    return _comparable(hook.url) == _comparable(url)


def wanted_events(events: tuple[str, ...]) -> tuple[str, ...]:
    """``events`` with those that headwater needs."""
    return events if "*" in events else tuple(dict.fromkeys((*events, *EVENTS)))


def shortcomings(hook: Hook) -> tuple[str, ...]:
    """What is wrong with a hook of ours, a few words each; `Hooks.correct` mends it."""
    lacking = [event for event in wanted_events(hook.events) if event not in hook.events]
    found = {
        "it is switched off": not hook.active,
        f"its content type is {hook.content_type or 'not told'}, not json": hook.content_type != "json",
        "it has no secret": not hook.has_secret,
        f"it is not told of {' and '.join(lacking)} events": bool(lacking),
    }
    return tuple(words for words, wrong in found.items() if wrong)


def by_guid(deliveries: Iterable[LoggedDelivery]) -> list[Attempts]:
    """The attempts of each delivery, whose newest was the newest first."""
    groups: dict[str, list[LoggedDelivery]] = {}
    for delivery in sorted(deliveries, key=lambda one: (one.delivered_at, one.id), reverse=True):
        groups.setdefault(delivery.guid, []).append(delivery)
    return [Attempts(group[0], group[-1] if not group[-1].redelivery else None) for group in groups.values()]


def remedy(delivery: LoggedDelivery) -> str:
    """What a person can do about a delivery that failed."""
    if delivery.status_code in {401, 403}:
        return "most likely GitHub has another secret: `headwater hooks install --rotate-secret` sends it again"
    if delivery.status_code in {404, 405}:
        return "the URL leads to another path or server: compare it with webhook.path and the proxy before it"
    if delivery.status_code:
        return "a proxy in between, or the daemon, refuses it: look into their logs"
    return "GitHub cannot reach the URL: is the daemon (and the proxy before it) up, and the port open to GitHub?"


def _call(endpoint: str, place: HookPlace, path: str = "", *, method: str = "GET", body: Any = None) -> Call:
    return Call(
        endpoint=endpoint,
        asked=f"{place.name} webhooks",
        path=f"{place.path}/hooks{path}",
        asker=place.asker,
        github_id=place.github_id,
        subject=Subject.HOOKS,
        method=method,
        body=None if body is None else json.dumps(body).encode(),
    )


def _comparable(url: str) -> tuple[str, str, str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ("", "", url, "")
    return parts.scheme.lower(), parts.netloc.lower(), parts.path or "/", parts.query


def _hook(value: object, *, asked: str) -> Hook:
    facts = shapes.object_of(value, asked=asked)
    config = shapes.object_of(facts.get("config"), asked=asked)
    events = shapes.list_of(facts.get("events"), asked=asked)
    return Hook(
        id=shapes.count_of(facts.get("id"), "id", asked=asked),
        url=_words(config.get("url")),
        active=facts.get("active") is True,
        events=tuple(quoted(event) for event in events if isinstance(event, str)),
        content_type=_words(config.get("content_type")),
        has_secret=bool(config.get("secret")),
        insecure_ssl="1" if str(config.get("insecure_ssl")) == "1" else "0",
        last_response=_last_response(facts.get("last_response")),
    )


def _last_response(value: object) -> str:
    """GitHub's code and words in one: ``200 active``, ``timed out``, ``unused``; empty where it tells none."""
    facts = value if isinstance(value, dict) else {}
    code = facts.get("code")
    words = _words(facts.get("message")) or _words(facts.get("status"))
    return f"{code} {words}" if isinstance(code, int) and code else words


def _delivery(value: object, *, asked: str) -> LoggedDelivery:
    facts = shapes.object_of(value, asked=asked)
    code, repository_id = facts.get("status_code"), facts.get("repository_id")
    return LoggedDelivery(
        id=shapes.count_of(facts.get("id"), "id", asked=asked),
        guid=shapes.text_of(facts.get("guid"), "guid", asked=asked),
        event=_words(facts.get("event")),
        delivered_at=shapes.instant_of(facts.get("delivered_at"), "time", asked=asked),
        redelivery=facts.get("redelivery") is True,
        status=_words(facts.get("status")),
        status_code=code if isinstance(code, int) else 0,
        repository_id=repository_id if isinstance(repository_id, int) else None,
    )


def _words(value: object) -> str:
    return quoted(value) if isinstance(value, str) else ""


def _next_cursor(answer: Answer) -> str:
    """The query that leads to the next page: the cursor is taken out of the link, which is not followed itself."""
    for link in requests.utils.parse_header_links(answer.headers.get("link", "")):
        if link.get("rel") == "next":
            cursors = parse_qs(urlsplit(link["url"]).query).get("cursor")
            return f"&cursor={quote(cursors[0], safe='')}" if cursors else ""
    return ""
