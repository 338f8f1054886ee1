"""When is a repository looked at next? Pure arithmetic over its row and the settings."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from daemon.model import WebhookHealth

# A look starts this share of the promised bound after the one before, so that the tick, the batch
# it waits in and the request itself still fit into the promise.
EAGERNESS = 0.85
FAILURE_LIMIT_SECONDS = 3600.0


class Pace(Protocol):
    """The two intervals of the configuration's ``polling`` section."""

    @property
    def interval_seconds(self) -> float: ...
    @property
    def reconcile_interval_seconds(self) -> float: ...


def promised_seconds(health: WebhookHealth, polling: Pace) -> float:
    """How long a change may go unseen: the long bound only while webhooks are known to work."""
    if health is WebhookHealth.HEALTHY:
        return polling.reconcile_interval_seconds
    return polling.interval_seconds


def tick_seconds(polling: Pace) -> float:
    """How often the poller asks the database what is due."""
    return min(1.0, max(0.1, polling.interval_seconds / 10))


def grace_seconds(polling: Pace) -> float:
    """How long after a poll found a head its delivery may still arrive before it counts as missed."""
    return min(30.0, max(2.0, polling.interval_seconds))


def next_poll_at(now: datetime, health: WebhookHealth, polling: Pace, *, failures: int = 0) -> datetime:
    """The due time after a look at ``now``; a repository that keeps failing backs off alone, to an hour."""
    bound = promised_seconds(health, polling)
    seconds = bound * EAGERNESS
    if failures > 1:
        seconds = min(bound * 2.0 ** min(failures - 1, 16), max(FAILURE_LIMIT_SECONDS, bound))
    return now + timedelta(seconds=seconds)
