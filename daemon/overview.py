"""The whole in a few numbers: for `/api/v1/status` and the gauges of `/metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.core import Core
from daemon.github.governor import CORE, GRAPHQL
from daemon.metrics import Metrics
from daemon.model import (
    BranchRecord,
    BranchState,
    OwnerRecord,
    RepositoryRecord,
    RepositoryRef,
    SyncProgress,
    WebhookHealth,
)
from daemon.triggers import budget
from daemon.triggers.budget import Afford, Demand, Means, usual_limit
from daemon.triggers.schedule import promised_seconds
from daemon.version import __version__
from daemon.web.answers import branch_state, is_stale, iso, progress_json, repository_state, seen_at


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch with what is derived of it: its state, and how long ago GitHub was seen to be at its commit."""

    repository: RepositoryRecord
    record: BranchRecord
    state: BranchState
    stale: bool
    unconfirmed_seconds: float | None


def _promised(core: Core, repository: RepositoryRecord) -> float:
    return promised_seconds(repository.webhook, core.config.polling, archived=repository.archived)


def branches(core: Core, repositories: Iterable[RepositoryRecord], *, now: datetime) -> Iterator[Branch]:
    """The tracked branches of these repositories that have a name."""
    for repository in repositories:
        bound = _promised(core, repository)
        for record in repository.branches:
            seen = seen_at(repository, record)
            age = (now - seen).total_seconds() if seen else None
            state = branch_state(record, now=now, promised_seconds=bound, repository=repository.state)
            late = is_stale(seen, now=now, promised_seconds=bound)
            stale = repository.expected and late
            yield Branch(repository, record, state, stale, age)


def afford(core: Core, repositories: Iterable[RepositoryRecord], *, by_rest: bool) -> Afford:
    """Whether polling these repositories keeps the promise within the budget; of several accounts the worst off."""
    accounts: dict[str, list[RepositoryRecord]] = {}
    for repository in repositories:
        accounts.setdefault(core.client.account_of(_ref(repository)), []).append(repository)
    found = [_afford(core, own, by_rest=by_rest) for own in accounts.values()]
    return max(found, key=lambda one: one.strain) if found else _afford(core, [], by_rest=by_rest)


def _afford(core: Core, repositories: list[RepositoryRecord], *, by_rest: bool) -> Afford:
    github, polling = core.config.github, core.config.polling
    counted: Counter[float] = Counter()
    branched: Counter[float] = Counter()
    for repository in repositories:
        bound = promised_seconds(repository.webhook, polling, archived=repository.archived)
        counted[bound] += 1
        branched[bound] += max(1, len(repository.branches))
    anonymous = github.app_id is None and github.token() is None
    means = Means.ANONYMOUS if anonymous else Means.REST if by_rest else Means.GRAPHQL
    resource = GRAPHQL if means is Means.GRAPHQL else CORE
    told = core.client.limit_of(resource, _ref(repositories[0])) if repositories else None
    limit = usual_limit(github.api_url, means) if told is None or means is Means.REST else told
    demands = [Demand(bound, count, branched[bound]) for bound, count in counted.items()]
    return budget.afford(demands, means, batch_size=polling.batch_size, limit=limit)


def _ref(repository: RepositoryRecord) -> RepositoryRef:
    return RepositoryRef(repository.owner, repository.name, repository.github_id)


def status(
    core: Core,
    *,
    started_at: datetime,
    now: datetime,
    webhook_secrets: int,
    by_rest: bool,
    syncs: Iterable[SyncProgress],
) -> dict[str, object]:
    """What `GET /api/v1/status` answers."""
    repositories = list(core.repositories.every())
    every = list(branches(core, repositories, now=now))
    health = Counter(repository.webhook for repository in repositories)
    counts = core.jobs.counts(now)
    polling = core.config.polling
    return {
        "version": __version__,
        "started_at": iso(started_at),
        "uptime_seconds": round((now - started_at).total_seconds(), 3),
        "github": {"configured": core.config.github.configured, "budget": _told(core.governor.snapshot())},
        "queue": {
            "pending": counts.pending,
            "running": counts.running,
            "failed": counts.failed,
            "oldest_seconds": round(counts.oldest_seconds, 3),
        },
        "syncs": [progress_json(one) for one in syncs],
        "webhooks": {"verified": webhook_secrets > 0, **{kind.value: health[kind] for kind in WebhookHealth}},
        "polling": {
            "enabled": polling.enabled,
            "interval_seconds": polling.interval_seconds,
            "reconcile_interval_seconds": polling.reconcile_interval_seconds,
            **afford(core, repositories, by_rest=by_rest).as_json(),
        },
        "discovery": [_owner(record) for record in core.owners.records()],
        "actions": core.actions.counts(),
        "stalest": _stalest(every),
        "promises_kept": not any(branch.stale for branch in every)
        and not any(_never_synced(repository) for repository in repositories),
    }


def sentence(core: Core, *, now: datetime) -> str:
    """How it goes, for `systemctl status`: ``keeping 2 repositories; 1 fresh, 1 stale; queue 0``."""
    repositories = list(core.repositories.every())
    states = Counter(repository_state(one, now=now, promised_seconds=_promised(core, one)) for one in repositories)
    told = ", ".join(f"{states[state]} {state}" for state in BranchState if states[state])
    counts = core.jobs.counts(now)
    noun = "repository" if len(repositories) == 1 else "repositories"
    parts = [f"keeping {len(repositories)} {noun}", told, f"queue {counts.pending + counts.running}"]
    return "; ".join(part for part in parts if part)


def measure(core: Core, metrics: Metrics, *, now: datetime, by_rest: bool) -> None:
    """Set the gauges that are read from the store when somebody asks."""
    counts = core.jobs.counts(now)
    metrics.queue_pending.set(counts.pending)
    metrics.queue_running.set(counts.running)
    metrics.queue_failed.set(counts.failed)
    metrics.queue_oldest_seconds.set(counts.oldest_seconds)
    repositories = list(core.repositories.every())
    need = afford(core, repositories, by_rest=by_rest)
    metrics.polling_needed.set(need.needed_per_hour)
    metrics.polling_available.set(float("inf") if need.available_per_hour is None else need.available_per_hour)
    every = list(branches(core, repositories, now=now))
    _measure_repositories(core, metrics, repositories, every)
    metrics.actions_failing.set(core.actions.counts()["failed"])
    states = Counter(branch.state for branch in every)
    for state in BranchState:
        metrics.branches.labels(state=state.value).set(states[state])
    metrics.stalest_seconds.set(max((branch.unconfirmed_seconds or 0.0 for branch in every), default=0.0))
    for resource, left in core.governor.snapshot()["resources"].items():
        if left["remaining"] is not None:
            metrics.rate_limit_remaining.labels(resource=resource).set(left["remaining"])
        if left["limit"] is not None:
            metrics.rate_limit_allowed.labels(resource=resource).set(left["limit"])


def _measure_repositories(
    core: Core, metrics: Metrics, repositories: list[RepositoryRecord], every: list[Branch]
) -> None:
    health = Counter(repository.webhook for repository in repositories)
    for kind in WebhookHealth:
        metrics.repositories.labels(webhook=kind.value).set(health[kind])
    metrics.stale_branches.set(sum(branch.stale for branch in every))
    named = (metrics.branch_unconfirmed_seconds, metrics.branch_stale, metrics.repository_missed_webhooks)
    for gauge in named:
        gauge.clear()  # what is not tracked any more, or not to be named
    if not core.config.metrics.repository_labels:
        return
    for repository in repositories:
        metrics.repository_missed_webhooks.labels(repository=repository.full_name).set(repository.missed_webhooks)
    for branch in every:
        labels = {"repository": branch.repository.full_name, "branch": branch.record.name}
        metrics.branch_stale.labels(**labels).set(branch.stale)
        if branch.unconfirmed_seconds is not None:
            metrics.branch_unconfirmed_seconds.labels(**labels).set(branch.unconfirmed_seconds)


def _owner(record: OwnerRecord) -> dict[str, object]:
    return {
        "owner": record.configured_as,
        "repositories": record.repositories,
        "looked_at": iso(record.looked_at),
        "next_look_at": iso(record.next_look_at),
        "last_error": record.last_error,
    }


def _told(numbers: Any) -> Any:
    """The governor's numbers with their instants as the API writes them."""
    if isinstance(numbers, dict):
        return {name: _told(value) for name, value in numbers.items()}
    return iso(numbers) if isinstance(numbers, datetime) else numbers


def _never_synced(repository: RepositoryRecord) -> bool:
    return repository.expected and not repository.branches and repository.state.value != "empty"


def _stalest(every: list[Branch]) -> dict[str, object] | None:
    """The branch whose last confirmation is the oldest; one never confirmed is staler than any other."""
    if not every:
        return None
    worst = max(
        every, key=lambda branch: float("inf") if branch.unconfirmed_seconds is None else branch.unconfirmed_seconds
    )
    return {
        "repository": worst.repository.full_name,
        "branch": worst.record.name,
        "state": worst.state.value,
        "confirmed_at": iso(worst.record.confirmed_at) if worst.record.confirmed_at else None,
        "seconds": None if worst.unconfirmed_seconds is None else round(worst.unconfirmed_seconds, 3),
    }
