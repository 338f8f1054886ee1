"""`headwater hooks`: the webhooks of the configured repositories and organisations, as they are to be on GitHub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from daemon.clock import Clock
from daemon.commands.sync import Asking, daemon_url
from daemon.config import Config
from daemon.core import client_settings
from daemon.errors import GitHubError, HeadwaterError
from daemon.github.client import GitHubClient
from daemon.github.governor import Governor
from daemon.github.hooks import (
    Hook,
    HookPlace,
    LoggedDelivery,
    PlacedHook,
    by_guid,
    leads_to,
    of_organisation,
    of_repository,
    shortcomings,
)
from daemon.model import RepositoryRef
from daemon.store.hooklog import HookLog
from daemon.store.opening import open_store, open_to_read
from daemon.store.repositories import Repositories
from daemon.values import is_loopback_host
from daemon.web.answers import iso

REDELIVERABLE = timedelta(days=3)  # for so long GitHub keeps what it sent
MOST_PAGES = 50
MISSING = "no webhook leads here: `headwater hooks install` makes one"


@dataclass(frozen=True, slots=True)
class Row:
    """What was found or done at one place (``owner/name``, or ``owner/*``), in a word and a sentence."""

    repository: str
    state: str
    message: str
    failed: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        return f"{self.repository}  {self.state}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        return {"repository": self.repository, "state": self.state, "message": self.message, **self.details}


class Desk:
    """What the commands work with: the client, and the URL that our hooks lead to."""

    def __init__(self, client: GitHubClient, url: str, names: Sequence[str]) -> None:
        self.client = client
        self.hooks = client.hooks
        self.url = url
        self._names = names

    def each(self, work: Callable[[HookPlace], list[Row]]) -> list[Row]:
        """The rows of every place; one that GitHub does not let in is a failed row, and the others go on."""
        rows: list[Row] = []
        for name in self._names:
            try:
                rows += work(self._place(name))
            except GitHubError as error:
                why = str(error).removeprefix(f"{name} webhooks: ").removeprefix(f"{name}: ")
                rows.append(Row(name, "failed", why, failed=True))
        return rows

    def ours(self, place: HookPlace) -> list[Hook]:
        """The hooks that lead here, active ones first."""
        return sorted(
            (hook for hook in self.hooks.at(place) if leads_to(hook, self.url)), key=lambda hook: not hook.active
        )

    def _place(self, name: str) -> HookPlace:
        owner, _, bare = name.partition("/")
        if bare == "*":
            return of_organisation(owner)
        # Under its current name: a change to a former one would be answered with a redirect.
        found = self.client.repository(RepositoryRef(owner, bare))
        return of_repository(RepositoryRef(found.owner, found.name, found.github_id))


@contextmanager
def opened(config: Config, names: Sequence[str], url: str) -> Iterator[Desk]:
    """A desk for the places of these names. Raises HeadwaterError without a token."""
    github = config.github
    if github.anonymous and github.token() is None and github.app_id is None:
        raise HeadwaterError("webhooks can only be managed with a token: set github.token")
    clock = Clock()
    client = GitHubClient(client_settings(config), clock=clock, governor=Governor(clock=clock))
    try:
        yield Desk(client, url, names)
    finally:
        client.close()


def selected(config: Config, names: Sequence[str], *, org: bool) -> tuple[str, ...]:
    """The places that are meant, in the configured spelling; all when none is named, the owners of them with ``org``.

    Raises LookupError for a name that is not configured.
    """
    configured = {rule.full_name.lower(): rule.full_name for rule in config.repositories}
    chosen = []
    for name in names:
        owner, slash, bare = name.lower().partition("/")
        found = configured.get(name.lower()) or (name if slash and bare and f"{owner}/*" in configured else None)
        if found is None:
            raise LookupError(name)
        chosen.append(found)
    every = chosen or list(configured.values())
    return tuple(dict.fromkeys(f"{name.partition('/')[0]}/*" if org else name for name in every))


def doubts(url: str) -> str | None:
    """A sentence about a URL that works but is unwise."""
    parts = urlsplit(url)
    if parts.scheme == "https" or is_loopback_host(parts.hostname or ""):
        return None
    return f"{url} is plain http: whoever is on the way can read your pushes; put a proxy with TLS before headwater"


# -- the commands -----------------------------------------------------------------------------------


def show(desk: Desk) -> list[Row]:
    """Every hook, ours marked, and where there is none of ours."""

    def at(place: HookPlace) -> list[Row]:
        hooks = desk.hooks.at(place)
        rows = [_shown(desk, place, hook) for hook in hooks]
        missing = not any(leads_to(hook, desk.url) for hook in hooks)
        return [*rows, Row(place.name, "missing", MISSING)] if missing else rows

    return desk.each(at)


def _shown(desk: Desk, place: HookPlace, hook: Hook) -> Row:
    events = " ".join(hook.events) or "no events"
    told = f"{'active' if hook.active else 'off'}, {hook.content_type or '?'}, {events}, last response "
    told += hook.last_response or "unknown"
    if not leads_to(hook, desk.url):
        return Row(place.name, "other", f"leads to {hook.url} ({told})", details=_facts(hook))
    if wrong := shortcomings(hook):
        words = f"{'; '.join(wrong)}: `headwater hooks install` corrects it ({told})"
        return Row(place.name, "wrong", words, details=_facts(hook))
    return Row(place.name, "ok", told, details=_facts(hook))


def install(desk: Desk, secret: str | None, *, rotate: bool = False) -> list[Row]:
    """Make a hook where there is none of ours, correct one that is wrong, leave alone what is right.

    Raises HeadwaterError without a secret: what GitHub would send then, anybody could.
    """
    if secret is None:
        raise HeadwaterError(
            "webhook.secret is not set, and without one anybody can send deliveries: write one into a file "
            "(`openssl rand -hex 32`), and its path to webhook.secret_file"
        )

    def at(place: HookPlace) -> list[Row]:
        ours = desk.ours(place)
        if not ours:
            made = desk.hooks.create(place, desk.url, secret)
            return [Row(place.name, "created", f"leads to {desk.url}", details=_facts(made))]
        wrong = shortcomings(ours[0])
        if not wrong and not rotate:
            return [Row(place.name, "unchanged", "it is as it should be", details=_facts(ours[0]))]
        mended = desk.hooks.correct(place, ours[0], secret)
        return [Row(place.name, "corrected", "; ".join(wrong) or "the secret was sent again", details=_facts(mended))]

    return desk.each(at)


def redeliver(desk: Desk, *, dry_run: bool = False) -> list[Row]:
    """Have GitHub send again what failed in the last three days and was not sent again since."""
    since = Clock().now() - REDELIVERABLE

    def at(place: HookPlace) -> list[Row]:
        rows = [
            _sent_again(desk, PlacedHook(place, hook), attempts.newest, dry_run=dry_run)
            for hook in desk.ours(place)
            for attempts in by_guid(desk.hooks.deliveries(place, hook.id, since=since, pages=MOST_PAGES))
            if not attempts.newest.ok and attempts.newest.delivered_at > since
        ]
        return rows or [Row(place.name, "nothing", "no delivery of the last three days has failed")]

    return desk.each(at)


def _sent_again(desk: Desk, found: PlacedHook, delivery: LoggedDelivery, *, dry_run: bool) -> Row:
    if not dry_run:
        desk.hooks.redeliver(found.place, found.hook.id, delivery.id)
    facts = {
        "guid": delivery.guid,
        "event": delivery.event,
        "delivered_at": iso(delivery.delivered_at),
        "status": delivery.status,
    }
    words = f"{delivery.event} {delivery.guid} of {iso(delivery.delivered_at)} ({delivery.status})"
    return Row(found.place.name, "failed before" if dry_run else "sent again", words, details=facts)


def removable(desk: Desk) -> tuple[list[PlacedHook], list[Row]]:
    """Our hooks, and a row for each place that has none."""
    found: list[PlacedHook] = []

    def at(place: HookPlace) -> list[Row]:
        ours = desk.ours(place)
        found.extend(PlacedHook(place, hook) for hook in ours)
        return [] if ours else [Row(place.name, "nothing", f"no webhook leads to {desk.url}")]

    rows = desk.each(at)
    return found, rows


def remove(desk: Desk, found: Sequence[PlacedHook]) -> list[Row]:
    """Remove these hooks from GitHub."""
    rows = []
    for one in found:
        try:
            desk.hooks.remove(one.place, one.hook.id)
            rows.append(Row(one.place.name, "removed", f"led to {one.hook.url}", details=_facts(one.hook)))
        except GitHubError as error:
            rows.append(Row(one.place.name, "failed", str(error), failed=True))
    return rows


def look_anew(config: Config, rows: Sequence[Row]) -> None:
    """Have the store forget what it was told of the webhooks that these rows are about, and look soon.

    Raises HeadwaterError when that cannot be had: it is found out within an hour all the same.
    """
    places = {row.repository.lower() for row in rows if not row.failed}
    storage, clock = config.storage, Clock()
    if not places or not (storage.is_postgres or storage.sqlite_path.exists()):
        return
    url = None if storage.is_postgres else daemon_url(storage.sqlite_path, clock)
    database = open_to_read(storage, clock=clock) if url else open_store(storage, clock=clock)
    try:
        hook_log = HookLog(database)
        for one in Repositories(database).tracked():
            if not places.isdisjoint({one.full_name.lower(), f"{one.full_name.partition('/')[0]}/*".lower()}):
                if url:
                    Asking(config, url).webhook_changed(one.full_name)
                else:
                    hook_log.anew(one.id)
    finally:
        database.close()


def _facts(hook: Hook) -> dict[str, Any]:
    return {
        "id": hook.id,
        "url": hook.url,
        "active": hook.active,
        "events": list(hook.events),
        "content_type": hook.content_type,
        "secret": hook.has_secret,
        "last_response": hook.last_response,
    }
