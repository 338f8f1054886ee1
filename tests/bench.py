"""The sync with its real store, client and stand-in, but no threads and a clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engines import PATIENCE_SECONDS, open_store
from harness import TOKEN

from daemon.clock import Clock
from daemon.config import PollingSettings, SyncSettings
from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.github.apps import AppSettings
from daemon.github.client import GitHubClient
from daemon.github.exchange import ClientSettings
from daemon.github.governor import Governor
from daemon.model import (
    BranchFacts,
    Claim,
    ContentRules,
    Delivery,
    DeliveryStatus,
    RepositoryRecord,
    RunResult,
    Trigger,
)
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync.patterns import rules
from daemon.sync.routine import Routine
from daemon.sync.workers import Workers
from daemon.triggers.poller import Poller


@dataclass(frozen=True)
class Rule:
    """What the store needs of a configured repository."""

    owner: str = "octo"
    name: str = "data"
    branches: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


class MovableClock:
    """Both clocks go as told, and only then: how long the machine takes makes them differ by nothing."""

    def __init__(self) -> None:
        self.at = datetime(2026, 5, 1, tzinfo=UTC)
        self._seconds = 1000.0
        self.clock = Clock(now=lambda: self.at, monotonic=lambda: self._seconds, sleep=self.advance)

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self._seconds += seconds


@dataclass
class Bench:
    folder: Path
    github: StandIn
    repo: GitRepo
    repositories_rules: tuple[Rule, ...] = (Rule(),)
    content: ContentRules = field(default_factory=lambda: rules((), (), 5_000_000))
    token: str | None = TOKEN
    anonymous: bool = False
    batch_size: int = 100
    busy_seconds: float = PATIENCE_SECONDS
    app: AppSettings | None = None
    time: MovableClock = field(default_factory=MovableClock)
    timeout_seconds: float = PATIENCE_SECONDS

    def __post_init__(self) -> None:
        self.database = open_store(self.folder / "bench.db", clock=self.time.clock, busy_seconds=self.busy_seconds)
        self.repositories = Repositories(self.database)
        self.jobs = Jobs(self.database)
        self.snapshots = Snapshots(self.database)
        self.history = History(self.database)
        settings = ClientSettings(
            api_url=self.github.url,
            graphql_url=self.github.url + "/graphql",
            timeout_seconds=self.timeout_seconds,
            token=lambda: self.token,
            anonymous=self.anonymous,
            app=self.app,
        )
        self.client = GitHubClient(settings, clock=self.time.clock, governor=Governor(clock=self.time.clock))
        self.sync_settings = SyncSettings(workers=1, max_attempts=3, max_file_bytes=5_000_000, commit_history=100)
        self.routine = Routine(
            self.client,
            self.repositories,
            self.jobs,
            self.snapshots,
            clock=self.time.clock,
            settings=lambda: self.sync_settings,
            rules=lambda _ref: self.content,
        )
        self.workers = Workers(
            self.jobs,
            self.routine,
            clock=self.time.clock,
            owner="bench",
            settings=lambda: self.sync_settings,
            jitter=lambda: 0.5,
        )
        self.polling = PollingSettings(
            enabled=True, interval_seconds=60.0, reconcile_interval_seconds=900.0, batch_size=self.batch_size
        )
        self.found = self.missed = self.learnt = 0
        self.poller = Poller(
            self.database,
            self.repositories,
            self.jobs,
            self.client,
            clock=self.time.clock,
            settings=lambda: self.polling,
            rules_digest=lambda _target: self.content.digest,
            on_found=self._count_found,
            on_missed=self._count_missed,
            on_identity=self._count_learnt,
        )
        self.repositories.track(self.repositories_rules, now=self.time.at)

    def _count_found(self) -> None:
        self.found += 1

    def _count_missed(self, count: int) -> None:
        self.missed += count

    def _count_learnt(self) -> None:
        self.learnt += 1

    def close(self) -> None:
        self.client.close()
        self.database.close()

    # -- triggers ---------------------------------------------------------------------------------

    @property
    def repository_id(self) -> int:
        found = self.repositories.by_name("octo", "data")
        assert found is not None
        return found

    def facts(self, branch: str | None = None) -> BranchFacts:
        every = self.repositories.branches(self.repository_id)
        return next(one for one in every if branch is None or one.name == branch)

    def record(self) -> RepositoryRecord:
        found = self.repositories.record("octo", "data")
        assert found is not None
        return found

    def want(self, trigger: Trigger = Trigger.MANUAL, branch: str | None = None) -> None:
        self.jobs.want([self.facts(branch).id], trigger, now=self.time.at)

    def announce(
        self, before: str | None, after: str | None, *, branch: str = "main", guid: str | None = None
    ) -> DeliveryStatus:
        """A verified push delivery, as intake would hand it to the writer."""
        delivery = self.announcement(before, after, branch=branch, guid=guid)
        return self.history.store_deliveries([delivery], now=self.time.at)[0]

    def announcement(
        self, before: str | None, after: str | None, *, branch: str = "main", guid: str | None = None
    ) -> Delivery:
        return Delivery(
            guid=guid,
            body_digest=f"{before}{after}",
            event="push",
            action=None,
            repository="octo/data",
            ref=f"refs/heads/{branch}",
            before=before,
            after=after,
            received_at=self.time.at,
            status=DeliveryStatus.ACCEPTED,
            repository_id=self.repository_id,
            branch=branch,
        )

    # -- work -------------------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        return self.jobs.claim("bench", now=self.time.at, lease_seconds=60.0)

    def work(self) -> RunResult | None:
        """One claim, run to its end as a worker does."""
        claim = self.claim()
        assert claim is not None, "nothing to claim"
        return self.workers.work(claim)

    def sync(self, trigger: Trigger = Trigger.MANUAL) -> RunResult:
        """Want a sync and expect it to reach an end at once."""
        self.want(trigger)
        result = self.work()
        assert result is not None
        return result

    def settle(self, *, rounds: int = 40) -> float:
        """Work and let time pass until nothing is wanted; how many seconds that took on the moved clock."""
        began = self.time.at
        for _ in range(rounds):
            claim = self.claim()
            if claim is not None:
                self.workers.work(claim)
            elif (wait := self.jobs.next_due(self.time.at)) is None:
                return (self.time.at - began).total_seconds()
            else:
                self.time.advance(max(wait, 0.01))
        raise AssertionError("the queue does not settle")

    # -- the oracle -------------------------------------------------------------------------------

    def tree(self, branch: str | None = None) -> list[tuple[str, str, int | None, bytes]]:
        return [(e.mode, e.sha, e.size, e.path) for e in self.snapshots.entries(self.facts(branch).id)]

    def assert_equal_to_git(self, branch: str = "main", *, contents: bool = True) -> None:
        """Every row as `git ls-tree -r` has it, every content as `git cat-file`."""
        truth = sorted(((e.mode, e.sha, e.size, e.path) for e in self.repo.ls_tree(branch)), key=lambda row: row[3])
        assert sorted(self.tree(branch), key=lambda row: row[3]) == truth
        facts = self.facts(branch)
        assert (facts.head_sha, facts.tree_sha) == (self.repo.head(branch), self.repo.tree_sha(branch))
        if contents:
            for mode, sha, _, _ in truth:
                if mode != "160000":
                    assert self.snapshots.blob(sha) == self.repo.cat(sha)

    def requests(self) -> list[str]:
        return self.github.requests.paths()
