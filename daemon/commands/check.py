"""`headwater check`: is the configuration usable, here and on GitHub?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from daemon.clock import Clock
from daemon.config import Config, RepositoryRule
from daemon.core import client_settings
from daemon.errors import GitHubError
from daemon.github.client import GitHubClient
from daemon.github.governor import Governor
from daemon.model import RepositoryRef

SECONDS_PER_HOUR = 3600
ANONYMOUS_LIMIT = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; a warning is a finding that does not fail the check."""

    subject: str
    message: str
    ok: bool = True
    warning: bool = False

    def line(self) -> str:
        mark = "ok     " if self.ok and not self.warning else "warning" if self.ok else "FAILED "
        return f"{mark} {self.subject}: {self.message}"

    def as_json(self) -> dict[str, Any]:
        return {"subject": self.subject, "message": self.message, "ok": self.ok, "warning": self.warning}


def check_config(config: Config) -> list[Finding]:
    """What a valid configuration means, and what in it may surprise."""
    count = len(config.repositories)
    findings = [Finding(str(config.source or "configuration"), f"valid, {count} repositories")]
    if not count:
        findings.append(Finding("repositories", "none is configured: nothing will be synced", warning=True))
    if not config.github.configured:
        text = "no token, and github.anonymous is false: pushes are answered `skipped` and nothing is fetched"
        findings.append(Finding("github", text, warning=True))
    if not config.webhook.secrets():
        findings.append(Finding("webhook.secret", "not set: development mode, nothing is verified", warning=True))
    findings += [Finding("configuration", sentence, warning=True) for sentence in config.unsupported()]
    return findings + _budget(config)


def _budget(config: Config) -> list[Finding]:
    """Without a token every look at a branch costs one of sixty requests an hour: show the arithmetic."""
    if config.github.token() or not config.github.anonymous or not config.polling.enabled:
        return []
    per_hour = len(config.repositories) * SECONDS_PER_HOUR / config.polling.interval_seconds
    if per_hour <= ANONYMOUS_LIMIT:
        return []
    text = (
        f"{len(config.repositories)} repositories every {config.polling.interval_seconds:g} s are "
        f"{per_hour:.0f} requests an hour, but without a token GitHub allows {ANONYMOUS_LIMIT}: "
        "set a token or a longer polling.interval"
    )
    return [Finding("polling.interval", text, warning=True)]


def check_online(config: Config) -> list[Finding]:
    """Ask GitHub about the token and every repository."""
    if not config.github.configured:
        return [Finding("github", "not configured: there is nothing to ask with", ok=False)]
    clock = Clock()
    client = GitHubClient(client_settings(config), clock=clock, governor=Governor(clock=clock))
    findings = [_rate_limit(client)]
    if findings[0].ok:
        findings += [_repository(client, rule) for rule in config.repositories if not rule.is_pattern]
    return findings


def _rate_limit(client: GitHubClient) -> Finding:
    try:
        limits = client.rate_limit()
    except GitHubError as error:
        return Finding("github", str(error), ok=False)
    if not limits:
        return Finding("github", "reachable; it names no rate limit")
    left = ", ".join(f"{name}: {limit['remaining']} of {limit['limit']} left" for name, limit in sorted(limits.items()))
    return Finding("github", f"reachable; {left}")


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
