"""FAULTS C9: a day without GitHub, a thousand repositories: within two intervals of its return all are as it has them."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import simulation
from simulation import BEGAN, RULES, FakeGitHub, Rule, Truth

from daemon.clock import Clock
from daemon.config import PollingSettings, SyncSettings
from daemon.model import Delivery, DeliveryStatus, RemoteRepository, RepositoryHeads
from daemon.store.database import Database
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync.routine import Routine
from daemon.sync.workers import Workers
from daemon.triggers import poller
from daemon.triggers.poller import Poller
from daemon.triggers.schedule import tick_seconds

COUNT = 1000
ANNOUNCED = 20  # of them by a delivery that came during the outage
DAY = 86_400.0
LONG_LOOK, SHORT_LOOK = 1800.0, 60.0  # seconds between two looks of this test, early and late in the outage


class Fleet(FakeGitHub):
    """Repositories of one content; each has its own number and name."""

    def heads(self, queries: Any) -> list[RepositoryHeads]:
        at = self._ask()
        main = self.truth.head("main", at)
        return [
            RepositoryHeads(
                RemoteRepository(int(one.repository.name) + 1, "octo", one.repository.name, "main"), {"main": main}
            )
            for one in queries
        ]


class Outage:
    """The daemon's parts on one store and a moved clock, as the simulation has them, over many repositories."""

    def __init__(self, folder: Path, *, max_attempts: int = 3) -> None:
        self.now = BEGAN
        clock = Clock(now=lambda: self.now, monotonic=lambda: (self.now - BEGAN).total_seconds(), sleep=self.advance)
        self.truth = Truth()
        self.move(0)
        client: Any = Fleet(self.truth, lambda: self.now)
        self.github = client
        shutil.copy(Path(simulation._template().name) / "empty.db", folder / "outage.db")
        self.database = Database.open(folder / "outage.db", clock=Clock())
        self.database._sqlite.execute_sql("PRAGMA synchronous = OFF")  # no power fails here
        self.repositories, self.jobs = Repositories(self.database), Jobs(self.database)
        self.snapshots, self.history = Snapshots(self.database), History(self.database)
        sync = SyncSettings(workers=1, max_attempts=max_attempts, max_file_bytes=1_000_000, commit_history=100)
        routine = Routine(
            client, self.repositories, self.jobs, self.snapshots,
            clock=clock, settings=lambda: sync, rules=lambda _ref: RULES,
        )  # fmt: skip
        self.workers = Workers(
            self.jobs, routine, clock=clock, owner="outage", settings=lambda: sync, jitter=lambda: 0.5
        )
        self.polling = PollingSettings(interval_seconds=60.0, reconcile_interval_seconds=60.0)
        self.poller = Poller(
            self.database, self.repositories, self.jobs, client,
            clock=clock, settings=lambda: self.polling, rules_digest=lambda _target: RULES.digest,
            on_found=lambda: None,
        )  # fmt: skip
        rules = [Rule(name=str(number), branches=()) for number in range(COUNT)]
        self.repositories.track(rules, now=self.now)  # type: ignore[arg-type]
        self.repositories.everything_due()

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def move(self, number: int) -> str:
        """Every repository gets the same next commit."""
        heads = self.truth.heads.setdefault("main", [])
        parent = heads[-1][1] if heads else None
        heads.append((self.now, self.truth.commit(parent, {b"a": b"%d" % number}, number)))
        return str(heads[-1][1])

    def announce(self, before: str, after: str) -> None:
        deliveries = [
            Delivery(
                guid=f"guid-{one.name}", body_digest=after, event="push", action=None, repository=one.full_name,
                ref="refs/heads/main", before=before, after=after, received_at=self.now,
                status=DeliveryStatus.ACCEPTED, repository_id=one.id, branch="main",
            )
            for one in self.repositories.tracked()[:ANNOUNCED]
        ]  # fmt: skip
        assert set(self.history.store_deliveries(deliveries, now=self.now)) == {DeliveryStatus.ACCEPTED}

    def look(self) -> None:
        """What a tick of the scheduler and the workers do."""
        self.poller.tick()
        while (claim := self.jobs.claim("outage", now=self.now, lease_seconds=60.0)) is not None:
            self.workers.work(claim)

    def until(self, end: datetime, step: float) -> None:
        while self.now < end:
            self.look()
            self.advance(step)

    def behind(self, head: str) -> int:
        with self.database.read():
            sql = "SELECT count(*) FROM branch WHERE head_sha IS NOT ?"
            return int(self.database.execute(sql, (head,)).fetchone()[0])


def a_day_without_github(outage: Outage) -> str:
    """Everything is synced, then nothing is answered for a day, in which everything moves and some of it is told."""
    before = outage.truth.heads["main"][-1][1] or ""
    outage.until(outage.now + timedelta(seconds=180), tick_seconds(outage.polling))
    assert outage.behind(before) == 0
    outage.github.down_until = outage.now + timedelta(seconds=DAY)
    after = outage.move(1)
    outage.announce(before, after)
    outage.until(outage.github.down_until - timedelta(hours=1), LONG_LOOK)
    outage.until(outage.github.down_until, SHORT_LOOK)
    return after


@pytest.mark.timeout(300)
def test_after_a_day_without_github_everything_is_seen_within_two_intervals(tmp_path: Path) -> None:
    outage = Outage(tmp_path)
    after = a_day_without_github(outage)
    assert outage.behind(after) == COUNT
    outage.until(outage.now + timedelta(seconds=2 * outage.polling.interval_seconds), tick_seconds(outage.polling))
    assert outage.behind(after) == 0
    counts = outage.jobs.counts(outage.now)
    assert (counts.pending, counts.failed) == (0, 0)
    outage.database.close()


def test_the_oracle_sees_a_build_that_waits_ever_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "LONGEST_OUTAGE_WAIT_SECONDS", DAY)
    outage = Outage(tmp_path)
    after = a_day_without_github(outage)
    outage.until(outage.now + timedelta(seconds=2 * outage.polling.interval_seconds), tick_seconds(outage.polling))
    assert outage.behind(after) > COUNT / 2
    outage.database.close()
