"""`headwater check`: is the configuration usable? What GitHub says is in `online`."""

from __future__ import annotations

from daemon.commands.findings import Finding
from daemon.config import Config, RepositoryRule
from daemon.triggers.budget import Demand, Means, afford, usual_limit
from daemon.web.words import counted


def check_config(config: Config) -> list[Finding]:
    """What a valid configuration means, and what in it may surprise."""
    patterns = [rule.full_name for rule in config.repositories if rule.is_pattern]
    count = " and ".join([counted(len(config.repositories) - len(patterns), "repository", "repositories"), *patterns])
    findings = [Finding(str(config.source or "configuration"), f"valid, {count}")]
    if not config.repositories:
        findings.append(Finding("repositories", "none is configured: nothing will be synced", warning=True))
    if not config.github.configured:
        text = "no token, and github.anonymous is false: pushes are answered `skipped` and nothing is fetched"
        findings.append(Finding("github", text, warning=True))
    if config.github.app_id is not None:
        findings.append(Finding("github", _app_named(config)))
    if not config.webhook.secrets():
        findings.append(Finding("webhook.secret", "not set: development mode, nothing is verified", warning=True))
    findings += [Finding("configuration", sentence, warning=True) for sentence in config.advice]
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
    numbers = {"numbers": found.as_json()}
    return Finding(subject, found.sentence, warning=not found.can_keep_promise, details=numbers)
