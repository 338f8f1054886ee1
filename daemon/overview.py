"""The whole in a few numbers: for `/api/v1/status` and the gauges of `/metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon import __version__
from daemon.core import Core
from daemon.metrics import Metrics
from daemon.model import BranchRecord, BranchState, RepositoryRecord, WebhookHealth
from daemon.triggers.schedule import promised_seconds
from daemon.web.answers import branch_state, is_stale, iso


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch with what is derived of it: its state, and how long ago GitHub was seen to be at its commit."""

    repository: RepositoryRecord
    record: BranchRecord
    state: BranchState
    stale: bool
    unconfirmed_seconds: float | None


def branches(core: Core, repositories: Iterable[RepositoryRecord], *, now: datetime) -> Iterator[Branch]:
    """The tracked branches of these repositories that have a name."""
    for repository in repositories:
        bound = promised_seconds(repository.webhook, core.config.polling)
        for record in repository.branches:
            age = (now - record.confirmed_at).total_seconds() if record.confirmed_at else None
            state = branch_state(record, now=now, promised_seconds=bound)
            stale = is_stale(record.confirmed_at, now=now, promised_seconds=bound)
            yield Branch(repository, record, state, stale, age)


def status(core: Core, *, started_at: datetime, now: datetime, webhook_secrets: int) -> dict[str, object]:
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
        "webhooks": {"verified": webhook_secrets > 0, **{kind.value: health[kind] for kind in WebhookHealth}},
        "polling": {
            "enabled": polling.enabled,
            "interval_seconds": polling.interval_seconds,
            "reconcile_interval_seconds": polling.reconcile_interval_seconds,
        },
        "actions": core.actions.counts(),
        "stalest": _stalest(every),
        "promises_kept": not any(branch.stale for branch in every)
        and not any(_never_synced(repository) for repository in repositories),
    }


def measure(core: Core, metrics: Metrics, *, now: datetime) -> None:
    """Set the gauges that are read from the store when somebody asks."""
    counts = core.jobs.counts(now)
    metrics.queue_pending.set(counts.pending)
    metrics.queue_running.set(counts.running)
    metrics.queue_failed.set(counts.failed)
    metrics.queue_oldest_seconds.set(counts.oldest_seconds)
    every = list(branches(core, core.repositories.every(), now=now))
    states = Counter(branch.state for branch in every)
    for state in BranchState:
        metrics.branches.labels(state=state.value).set(states[state])
    metrics.stalest_seconds.set(max((branch.unconfirmed_seconds or 0.0 for branch in every), default=0.0))
    for resource, budget in core.governor.snapshot()["resources"].items():
        if budget["remaining"] is not None:
            metrics.rate_limit_remaining.labels(resource=resource).set(budget["remaining"])


def _told(budget: Any) -> Any:
    """The governor's numbers with their instants as the API writes them."""
    if isinstance(budget, dict):
        return {name: _told(value) for name, value in budget.items()}
    return iso(budget) if isinstance(budget, datetime) else budget


def _never_synced(repository: RepositoryRecord) -> bool:
    return not repository.branches and repository.state.value != "empty"


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
