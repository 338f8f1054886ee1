"""When is a repository looked at next? Pure arithmetic over its row and the settings.

Looks are spread by themselves: one that comes in its turn is followed by the next a whole wait later, so a batch stays
together and keeps its distance to the others. Looks that come all at once (after a start, a reload, an outage, a sleep)
are out of turn, and the ones that follow are spread over the wait.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Protocol

from daemon.model import WebhookHealth

# A look starts this share of the promised bound after the one before, so that the tick, the batch
# it waits in and the request itself still fit into the promise.
EAGERNESS = 0.85
FAILURE_LIMIT_SECONDS = 3600.0
FAILURE_SPREAD = 0.2
BUSIEST_SHARE = 0.25  # of the bound: no repository is looked at more often than that, however busy
BUSIEST_SECONDS = 5.0
LATE_SHARE = 0.25  # of the wait: a look that is later than that was not in its turn
CALM_SHARE = 0.05  # of all repositories: in one tick no more are asked about, unless that would be too late for some
PRESSING_SHARE = 0.04  # of the bound: how late a look may be before it waits for no other tick
AHEAD_SHARE = 0.15  # of the interval: a request with room in it also asks about those due so soon


class Pace(Protocol):
    """The two intervals of the configuration's ``polling`` section."""

    @property
    def interval_seconds(self) -> float: ...
    @property
    def reconcile_interval_seconds(self) -> float: ...


class Looked(Protocol):
    """What the schedule needs of a repository's row, as it was before the look."""

    @property
    def repository_id(self) -> int: ...
    @property
    def health(self) -> WebhookHealth: ...
    @property
    def archived(self) -> bool: ...
    @property
    def changed_at(self) -> datetime | None: ...
    @property
    def polled_at(self) -> datetime | None: ...
    @property
    def due_at(self) -> datetime | None: ...
    @property
    def put_off(self) -> bool: ...


def promised_seconds(health: WebhookHealth, polling: Pace, *, archived: bool = False) -> float:
    """How long a change may go unseen: the long bound only while webhooks are known to work.

    What is archived cannot change before somebody opens it again, which is worth the long bound too.
    """
    if archived or health is WebhookHealth.HEALTHY:
        return polling.reconcile_interval_seconds
    return polling.interval_seconds


def tick_seconds(polling: Pace) -> float:
    """How often the poller asks the database what is due."""
    return min(1.0, max(0.1, polling.interval_seconds / 10))


def ahead_seconds(polling: Pace) -> float:
    """How much before its turn a repository may be asked about in a request that is made anyway."""
    return polling.interval_seconds * AHEAD_SHARE


def calm_requests(repositories: int, batch_size: int) -> int:
    """After how many requests of one tick the rest waits for the next one, as long as nothing is pressing."""
    return max(1, int(repositories * CALM_SHARE / batch_size))


def is_pressing(now: datetime, look: Looked, polling: Pace) -> bool:
    """Whether a look that is due should wait no longer: it is late already, or was not in its turn to begin with."""
    if look.due_at is None or look.put_off:
        return True
    bound = promised_seconds(look.health, polling, archived=look.archived)
    return (now - look.due_at).total_seconds() > bound * PRESSING_SHARE


def grace_seconds(polling: Pace) -> float:
    """How long after a poll found a head its delivery may still arrive before it counts as missed."""
    return min(30.0, max(2.0, polling.interval_seconds))


def turn_seconds(polling: Pace) -> float:
    """How long a look is left to the daemon that began it before another, which shares its store, begins it anew."""
    return min(60.0, max(10.0, polling.interval_seconds))


def next_poll_at(
    now: datetime, look: Looked, polling: Pace, *, requests: int = 1, changed: bool = False, spare: bool = False
) -> datetime:
    """The due time after a look at ``now`` that GitHub answered, never later than promised.

    ``requests`` is how many a round over all repositories takes: what one request answers need not be spread.
    ``changed`` is whether the look found a change. With ``spare`` budget a busy repository is due after half the
    time since it last changed.
    """
    bound = promised_seconds(look.health, polling, archived=look.archived)
    wait = bound * EAGERNESS
    changed_at = now if changed else look.changed_at
    if spare and changed_at is not None and now >= changed_at:
        quickest = max(BUSIEST_SECONDS, bound * BUSIEST_SHARE)
        wait = min(wait, max(quickest, (now - changed_at).total_seconds() / 2))
    if not _in_turn(now, look, wait):
        wait *= 1.0 - _fraction(now, look.repository_id) * (1.0 - 1.0 / max(requests, 1))
    return now + timedelta(seconds=wait)


def retry_at(now: datetime, look: Looked, polling: Pace, *, failures: int) -> datetime:
    """The due time after the look that was the ``failures``-th in a row to fail: it backs off alone, to an hour."""
    bound = promised_seconds(look.health, polling, archived=look.archived)
    seconds = min(bound * EAGERNESS * 2.0 ** min(failures - 1, 16), max(FAILURE_LIMIT_SECONDS, bound * EAGERNESS))
    return now + timedelta(seconds=seconds * (1.0 - FAILURE_SPREAD * _fraction(now, look.repository_id)))


def _in_turn(now: datetime, look: Looked, wait: float) -> bool:
    """Whether the look came as the one before had set it. A last look ahead of ``now``: the clock jumped back."""
    if look.due_at is None or look.polled_at is None or look.polled_at > now or look.put_off:
        return False
    return (now - look.due_at).total_seconds() <= wait * LATE_SHARE


def _fraction(now: datetime, repository_id: int) -> float:
    """A number from 0 up to 1 that is spread evenly over repositories, and another one at another time."""
    digest = hashlib.blake2b(f"{repository_id} {now.timestamp()}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64
