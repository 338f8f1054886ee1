"""What `headwater check --online` says of the token, or of the App and its installations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from daemon.commands.findings import Finding
from daemon.config import Config
from daemon.errors import GitHubError, Unreachable
from daemon.github.apps import App, Installation
from daemon.github.client import TOKEN_ASKED, GitHubClient
from daemon.github.tokenfacts import TokenFacts
from daemon.web.answers import iso

NEAR = timedelta(days=14)


def check_credentials(client: GitHubClient, config: Config, *, now: datetime) -> list[Finding]:
    """What GitHub says of who asks; where the first finding is not ok, nothing else can be asked."""
    if client.app is not None:
        return _installations(client, client.app, config)
    return [_token(client, config, now=now)]


def _installations(client: GitHubClient, app: App, config: Config) -> list[Finding]:
    """The App, and each of its installations that the configuration makes use of."""
    owners = {rule.owner.lower() for rule in config.repositories}
    fixed = config.github.installation_id
    try:
        name, every = app.name(), list(app.installations())
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
    try:
        facts = client.token_facts(installation.id)
    except GitHubError as error:
        return Finding(subject, str(error), ok=False)
    details = {"rate_limits": _limits(facts)}
    return Finding(subject, f"of {installation.owner}, {seen}; {_left(facts)}", details=details)


def _token(client: GitHubClient, config: Config, *, now: datetime) -> Finding:
    """The token: its limits, scopes and end."""
    try:
        facts = client.token_facts()
    except GitHubError as error:
        return Finding("github", _refused(error, config.github.api_url), ok=False)
    details = {
        "rate_limits": _limits(facts),
        "scopes": None if facts.scopes is None else list(facts.scopes),
        "token_expires_at": iso(facts.expires_at),
    }
    near = facts.expires_at is not None and facts.expires_at - now < NEAR
    return Finding("github", "; ".join(_of_token(facts, near=near)), warning=near, details=details)


def _refused(error: GitHubError, api_url: str) -> str:
    """The error without the question, which nobody has asked, and with what a person can do."""
    words = str(error).removeprefix(f"{TOKEN_ASKED}: ").removesuffix("; it is asked again later")
    return f"{words}; is github.api_url ({api_url}) right?" if isinstance(error, Unreachable) else words


def _of_token(facts: TokenFacts, *, near: bool) -> Iterator[str]:
    yield f"reachable; {_left(facts)}"
    if facts.scopes is not None:
        yield f"token scopes {', '.join(facts.scopes) or 'none'}"
    if near:
        yield f"the token ends on {iso(facts.expires_at)}: make a new one in time, and set github.token"


def _left(facts: TokenFacts) -> str:
    each = (f"{name}: {one['remaining']} of {one['limit']} left" for name, one in sorted(facts.limits.items()))
    return ", ".join(each) or "it names no rate limit"


def _limits(facts: TokenFacts) -> dict[str, dict[str, int]]:
    return {name: dict(limit) for name, limit in facts.limits.items()}
