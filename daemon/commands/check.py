"""`headwater check`: is the configuration usable, here and on GitHub?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from daemon.clock import Clock
from daemon.config import Config, RepositoryRule
from daemon.core import client_settings
from daemon.errors import GitHubError
from daemon.github.apps import Installation
from daemon.github.client import GitHubClient
from daemon.github.governor import Governor
from daemon.model import RepositoryRef
from daemon.triggers.budget import Demand, Means, afford, usual_limit


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a warning is a finding that does not fail the check."""

    subject: str
    message: str
    ok: bool = True
    warning: bool = False
    numbers: dict[str, object] = field(default_factory=dict)  # what the message was worked out from

    def line(self) -> str:
        mark = "ok     " if self.ok and not self.warning else "warning" if self.ok else "FAILED "
        return f"{mark} {self.subject}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        told = {"subject": self.subject, "message": self.message, "ok": self.ok, "warning": self.warning}
        return {**told, "numbers": self.numbers} if self.numbers else told


def check_config(config: Config) -> list[Finding]:
    """What a valid configuration means, and what in it may surprise."""
    count = len(config.repositories)
    findings = [Finding(str(config.source or "configuration"), f"valid, {count} repositories")]
    if not count:
        findings.append(Finding("repositories", "none is configured: nothing will be synced", warning=True))
    if not config.github.configured:
        text = "no token, and github.anonymous is false: pushes are answered `skipped` and nothing is fetched"
        findings.append(Finding("github", text, warning=True))
    if config.github.app_id is not None:
        findings.append(Finding("github", _app_named(config)))
    if not config.webhook.secrets():
        findings.append(Finding("webhook.secret", "not set: development mode, nothing is verified", warning=True))
    findings += [
        Finding("configuration", sentence, warning=True) for sentence in (*config.unsupported(), *config.advice)
    ]
    return findings + _budget(config)


def _app_named(config: Config) -> str:
    found = config.github.installation_id
    return f"GitHub App {config.github.app_id}, " + (
        f"installation {found}" if found is not None else "with the installation of each repository's owner"
    )


def _budget(config: Config) -> list[Finding]:
    """What polling costs while no webhook is known to arrive, against what GitHub allows: the arithmetic."""
    if not (config.github.configured and config.polling.enabled and config.repositories):
        return []
    by_app = config.github.app_id is not None
    means = Means.GRAPHQL if by_app or config.github.token() is not None else Means.ANONYMOUS
    each_owner = by_app and config.github.installation_id is None  # has an installation with a budget of its own
    groups: dict[str, list[RepositoryRule]] = {}
    for rule in config.repositories:
        if not rule.is_pattern:
            groups.setdefault(rule.owner.lower() if each_owner else "", []).append(rule)
    return [_afforded(config, means, owner, rules) for owner, rules in sorted(groups.items())]


def _afforded(config: Config, means: Means, owner: str, rules: list[RepositoryRule]) -> Finding:
    branches = sum(max(1, len(rule.branches)) for rule in rules)
    demand = Demand(config.polling.interval_seconds, len(rules), branches)
    limit = usual_limit(config.github.api_url, means)
    found = afford([demand], means, batch_size=config.polling.batch_size, limit=limit)
    subject = f"polling of {owner}" if owner else "polling"
    return Finding(subject, found.sentence, warning=not found.can_keep_promise, numbers=found.as_json())


def check_online(config: Config) -> list[Finding]:
    """Ask GitHub about the token, or the App and its installations, and every repository."""
    if not config.github.configured:
        return [Finding("github", "not configured: there is nothing to ask with", ok=False)]
    clock = Clock()
    client = GitHubClient(client_settings(config), clock=clock, governor=Governor(clock=clock))
    findings = _installations(client, config) if client.app is not None else [_rate_limit(client)]
    if findings[0].ok and config.webhook.github_hook_addresses:
        findings.append(_hook_addresses(client))
    if findings[0].ok:
        findings += [_repository(client, rule) for rule in config.repositories if not rule.is_pattern]
    return findings


def _installations(client: GitHubClient, config: Config) -> list[Finding]:
    """The App, and each of its installations that the configuration makes use of."""
    assert client.app is not None
    owners = {rule.owner.lower() for rule in config.repositories}
    fixed = config.github.installation_id
    try:
        name, every = client.app.name(), list(client.app.installations())
    except GitHubError as error:
        return [Finding("github", str(error), ok=False)]
    used = [one for one in every if (one.id == fixed if fixed is not None else one.owner.lower() in owners)]
    findings = [Finding("github", f"GitHub App {config.github.app_id} ({name}), {len(every)} installations")]
    if fixed is not None and not used:
        text = f"GitHub App {config.github.app_id} has no installation {fixed}; correct it, or leave it out"
        findings.append(Finding("github.installation_id", text, ok=False))
    return findings + [_installation(client, one) for one in used]


def _installation(client: GitHubClient, installation: Installation) -> Finding:
    subject = f"installation {installation.id}"
    if installation.suspended:
        return Finding(subject, f"of {installation.owner} is suspended; unsuspend it on GitHub", ok=False)
    seen = "selected repositories" if installation.selected else "all repositories"
    return _rate_limit(client, subject, f"of {installation.owner}, {seen}", installation.id)


def _rate_limit(
    client: GitHubClient, subject: str = "github", good: str = "reachable", installation: int | None = None
) -> Finding:
    try:
        limits = client.rate_limit(installation)
    except GitHubError as error:
        return Finding(subject, str(error), ok=False)
    if not limits:
        return Finding(subject, f"{good}; it names no rate limit")
    left = ", ".join(f"{name}: {limit['remaining']} of {limit['limit']} left" for name, limit in sorted(limits.items()))
    return Finding(subject, f"{good}; {left}")


def _hook_addresses(client: GitHubClient) -> Finding:
    subject = "webhook.github_hook_addresses"
    try:
        return Finding(subject, f"GitHub delivers from {len(client.hook_addresses())} networks")
    except GitHubError as error:
        return Finding(subject, f"every delivery would be refused: {error}", ok=False)


def _repository(client: GitHubClient, rule: RepositoryRule) -> Finding:
    try:
        remote = client.repository(RepositoryRef(rule.owner, rule.name))
    except GitHubError as error:
        return Finding(rule.full_name, str(error).removeprefix(f"{rule.full_name}: "), ok=False)
    branch = remote.default_branch or "no commit yet"
    renamed = (
        f"; now named {remote.owner}/{remote.name}" if (remote.owner, remote.name) != (rule.owner, rule.name) else ""
    )
    return Finding(rule.full_name, f"visible, default branch {branch}{renamed}")
