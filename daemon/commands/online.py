"""`headwater check --online`: the token, each repository and its webhook, as GitHub sees them, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.clock import Clock
from daemon.commands.credentials import check_credentials
from daemon.commands.findings import Finding
from daemon.config import Config, RepositoryRule
from daemon.core import client_settings
from daemon.errors import Forbidden, GitHubError, RepositoryNotFound
from daemon.github.client import GitHubClient
from daemon.github.governor import Governor
from daemon.github.hooks import (
    Hook,
    HookPlace,
    LoggedDelivery,
    by_guid,
    leads_to,
    of_organisation,
    of_repository,
    remedy,
    shortcomings,
)
from daemon.model import RemoteRepository, RepositoryRef
from daemon.triggers.discovery import takes
from daemon.web.answers import iso

INSTALL = "`headwater hooks install` makes one; until then polling finds every change"


@dataclass(frozen=True, slots=True)
class Webhook:
    """What GitHub has of our webhook for a repository: ``present``, ``wrong``, ``absent`` or ``unknown``.

    ``message`` is what it means and what to do; ``last`` the newest delivery.
    """

    state: str
    message: str
    hook: Hook | None = None
    last: LoggedDelivery | None = None

    @property
    def warning(self) -> bool:
        return self.state in {"wrong", "absent"} or (self.last is not None and not self.last.ok)

    def as_json(self) -> dict[str, Any]:
        delivery = None
        if self.last is not None:
            shown = ("guid", "event", "status", "status_code")
            delivery = {name: getattr(self.last, name) for name in shown}
            delivery |= {"delivered_at": iso(self.last.delivered_at), "ok": self.last.ok}
        told = {"state": self.state, "message": self.message, "last_delivery": delivery}
        return told | {"id": self.hook.id if self.hook else None, "url": self.hook.url if self.hook else None}


@contextmanager
def asking_client(config: Config, clock: Clock) -> Iterator[GitHubClient]:
    """A client of its own for a report."""
    client = GitHubClient(client_settings(config), clock=clock, governor=Governor(clock=clock))
    try:
        yield client
    finally:
        client.close()


def check_online(config: Config, client: GitHubClient, clock: Clock) -> list[Finding]:
    """Ask GitHub about the token, or the App and its installations, and every repository and its webhook."""
    if not config.github.configured:
        return [Finding("github", "not configured: there is nothing to ask with", ok=False)]
    return list(_findings(_Checking(client, config, clock.now()), config))


def _findings(checking: _Checking, config: Config) -> Iterator[Finding]:
    yield from checking.credentials
    if not checking.credentials[0].ok:
        return
    if config.webhook.github_hook_addresses:
        yield checking.hook_addresses()
    if checking.url is None:
        text = "not set: whether a webhook on GitHub leads here cannot be told"
        yield Finding("webhook.public_url", text, warning=True)
    for rule in config.repositories:
        if not rule.is_pattern:
            yield checking.repository(rule)
            continue
        yield checking.owner(rule)
        if checking.url is not None:
            yield checking.organisation(rule.owner)


class _Checking:
    """The questions, and what was answered about organisations, each of which is asked about once."""

    def __init__(self, client: GitHubClient, config: Config, now: datetime) -> None:
        self._client = client
        self.url = config.webhook.delivery_url()
        self.credentials = check_credentials(client, config, now=now)
        self._organisations: dict[str, Webhook] = {}

    def hook_addresses(self) -> Finding:
        subject = "webhook.github_hook_addresses"
        try:
            return Finding(subject, f"GitHub delivers from {len(self._client.hook_addresses())} networks")
        except GitHubError as error:
            return Finding(subject, f"every delivery would be refused: {error}", ok=False)

    def owner(self, rule: RepositoryRule) -> Finding:
        """What an ``owner/*`` would find now."""
        try:
            listed = self._client.repositories_of(rule.owner)
        except GitHubError as error:
            return Finding(rule.full_name, str(error), ok=False)
        taken = sum(takes(rule, one) for one in listed)
        return Finding(rule.full_name, f"{len(listed)} repositories visible, {taken} of them taken", warning=not taken)

    def repository(self, rule: RepositoryRule) -> Finding:
        """Whether it can be read, what the token may do there, and how its webhook does."""
        details: dict[str, Any] = {"repository": rule.full_name, "visible": False}
        try:
            remote = self._client.repository(RepositoryRef(rule.owner, rule.name))
        except GitHubError as error:
            why = str(error).removeprefix(f"{rule.full_name}: ")
            if isinstance(error, RepositoryNotFound) and self._client.app is None:
                why = self._not_visible()
            return Finding(rule.full_name, why, ok=False, details=details)
        details |= {"visible": True, "permissions": list(remote.permissions), "default_branch": remote.default_branch}
        details |= {"full_name": f"{remote.owner}/{remote.name}"}
        visible = _visible(rule, remote)
        if self.url is None:
            return Finding(rule.full_name, visible, details=details)
        webhook = self._webhook(remote, self.url)
        details["webhook"] = webhook.as_json()
        return Finding(rule.full_name, f"{visible}; {webhook.message}", warning=webhook.warning, details=details)

    def organisation(self, owner: str) -> Finding:
        """The webhook of an organisation all of whose repositories are configured."""
        webhook = self._of_organisation(owner)
        details = {"repository": f"{owner}/*", "webhook": webhook.as_json()}
        return Finding(f"{owner}/*", webhook.message, warning=webhook.warning, details=details)

    def _not_visible(self) -> str:
        scopes = self.credentials[0].details.get("scopes")
        words = "" if scopes is None else f" (it has the scopes: {', '.join(scopes) or 'none'})"
        return (
            "GitHub says 404: there is no such repository, or it is private and the token does not reach it. Check the "
            f"name; a classic token needs the scope repo{words}, a fine-grained one this repository and the permission "
            "Contents, and an organisation with single sign-on must have authorised it"
        )

    def _webhook(self, remote: RemoteRepository, url: str) -> Webhook:
        place = of_repository(RepositoryRef(remote.owner, remote.name, remote.github_id))
        own = self._at(place, url, "the webhook")
        if own.state != "absent":
            return own
        above = self._of_organisation(remote.owner)
        return above if above.hook is not None else own

    def _of_organisation(self, owner: str) -> Webhook:
        if owner not in self._organisations:
            self._organisations[owner] = self._at(of_organisation(owner), self.url or "", "the organisation's webhook")
        return self._organisations[owner]

    def _at(self, place: HookPlace, url: str, what: str) -> Webhook:
        try:
            if not self._client.hooks.permitted():
                return Webhook("unknown", f"{what} is unknown: nobody may look without a token")
            ours = [hook for hook in self._client.hooks.at(place) if leads_to(hook, url)]
            if not ours:
                return Webhook("absent", f"{what} is absent: {INSTALL}")
            hook = min(ours, key=lambda hook: not hook.active)
            attempts = by_guid(self._client.hooks.deliveries(place, hook.id))
        except Forbidden:
            return Webhook(
                "unknown",
                f"{what} is unknown: the token may not look (administrators may, with the scope "
                "admin:repo_hook or the permission Webhooks); polling finds every change",
            )
        except GitHubError as error:
            return Webhook("unknown", f"{what} is unknown: {error}")
        return _judged(hook, attempts[0].newest if attempts else None, what)


def _judged(hook: Hook, last: LoggedDelivery | None, what: str) -> Webhook:
    if wrong := shortcomings(hook):
        return Webhook("wrong", f"{what}: {'; '.join(wrong)}; `headwater hooks install` corrects it", hook, last)
    if last is None:
        return Webhook("present", f"{what} is there and has delivered nothing yet", hook)
    words = f"{what}'s last delivery ({last.event}, {iso(last.delivered_at)}): {last.status or 'no status'}"
    return Webhook("present", words if last.ok else f"{words}; {remedy(last)}", hook, last)


def _visible(rule: RepositoryRule, remote: RemoteRepository) -> str:
    words = f"visible, default branch {remote.default_branch or 'no commit yet'}"
    if remote.permissions:
        words += f", permissions {', '.join(remote.permissions)}"
    renamed = (remote.owner, remote.name) != (rule.owner, rule.name)
    return f"{words}; now named {remote.owner}/{remote.name}" if renamed else words
