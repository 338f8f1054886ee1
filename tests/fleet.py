"""Thousands of repositories on a clock of their own: the real schedule, poller, governor and store; a model of GitHub.

Who looks at GitHub gets the heads as they are at that moment and pays points. Changes follow Zipf's law: a few
repositories change all the time and most hardly ever. A sync is a row that is set to what was seen.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench import Rule

from daemon.clock import Clock
from daemon.config import PollingSettings
from daemon.github.governor import GRAPHQL, Governor
from daemon.model import (
    Delivery,
    DeliveryStatus,
    HeadsQuery,
    RemoteRepository,
    RepositoryHeads,
    RepositoryRef,
    WebhookHealth,
)
from daemon.store.database import Database
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.triggers.poller import Poller
from daemon.triggers.schedule import promised_seconds, tick_seconds

START = datetime(2026, 5, 1, tzinfo=UTC)
REQUEST_SECONDS = 0.1
DELIVERY_SECONDS = 2.0
FLAPPING_SECONDS = 400.0
LIMIT = 5000
WINDOW_SECONDS = 3600


@dataclass
class FakeTime:
    seconds: float = 0.0
    clock: Clock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock(now=self.now, monotonic=lambda: self.seconds, sleep=self.advance)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Change:
    """One push: from when somebody has promised to see it, until when, and when it was seen."""

    at: float
    due: float
    seen_at: float | None = None


class World:
    """The repositories as GitHub has them, who is told of their changes, and who has seen them."""

    def __init__(self, count: int, *, seed: int, changes_per_second: float) -> None:
        self.random = random.Random(seed)
        self.heads = [0] * count
        self.unseen: dict[int, list[Change]] = defaultdict(list)
        self.changes: list[Change] = []
        ranks = list(range(1, count + 1))
        self.random.shuffle(ranks)
        total = sum(1 / rank for rank in ranks)
        self._rates = [changes_per_second / rank / total for rank in ranks]
        self._next = [(self._wait(number), number) for number in range(count)]
        heapq.heapify(self._next)

    def until(self, seconds: float) -> Iterator[tuple[float, int]]:
        """The changes up to then, as they happen: when, and of which repository."""
        while self._next[0][0] <= seconds:
            at, number = self._next[0]
            heapq.heapreplace(self._next, (at + self._wait(number), number))
            self.heads[number] += 1
            yield at, number

    def note(self, number: int, change: Change) -> None:
        self.changes.append(change)
        self.unseen[number].append(change)

    def see(self, number: int, at: float) -> None:
        for change in self.unseen.pop(number, ()):
            change.seen_at = at

    def webhook_arrives(self, number: int, at: float) -> bool:
        """Half of them work, a quarter is dead, a quarter works now and then."""
        kind = number % 4
        return kind < 2 or (kind == 3 and int(at / FLAPPING_SECONDS + number / 7) % 2 == 0)

    def _wait(self, number: int) -> float:
        return self.random.expovariate(self._rates[number])


class GitHub:
    """What the poller needs of a client: heads for points, within the governor's limits."""

    def __init__(self, world: World, time: FakeTime, governor: Governor) -> None:
        self._world = world
        self._time = time
        self.governor = governor
        self._mark = ""
        self.requests: list[tuple[float, int]] = []  # when, and for how many repositories
        self._resets_at = 0.0
        self._used = 0

    @contextmanager
    def background(self) -> Iterator[None]:
        yield

    def account_of(self, ref: RepositoryRef) -> str:
        return ""

    def check_turn(self, resource: str, ref: RepositoryRef) -> None:
        self.governor.check_turn(resource, self._mark)

    def has_spare(self, resource: str, ref: RepositoryRef) -> bool:
        return self.governor.has_spare(resource, self._mark)

    def heads(self, queries: Sequence[HeadsQuery]) -> list[RepositoryHeads]:
        assert len(queries) <= 100
        mark = self._mark = self.governor.use("token")
        self.governor.check(GRAPHQL, mark, background=True)
        self.requests.append((self._time.seconds, len(queries)))
        answers = [self._answer(query) for query in queries]
        self._time.advance(REQUEST_SECONDS)
        self.governor.observe(GRAPHQL, mark, status=200, headers=self._charged(), background=True)
        return answers

    def settle(self, _queries: Sequence[HeadsQuery], answers: list[RepositoryHeads]) -> Iterator[RepositoryHeads]:
        """Every name leads to its repository here."""
        return iter(answers)

    def _answer(self, query: HeadsQuery) -> RepositoryHeads:
        number = int(query.repository.name)
        self._world.see(number, self._time.seconds)
        remote = RemoteRepository(number + 1, query.repository.owner, query.repository.name, "main")
        return RepositoryHeads(remote, {"main": sha(self._world.heads[number])})

    def _charged(self) -> dict[str, str]:
        if self._time.seconds >= self._resets_at:
            self._used, self._resets_at = 0, self._time.seconds + WINDOW_SECONDS
        self._used += 1
        reset = START.timestamp() + self._resets_at
        numbers = {"limit": LIMIT, "remaining": LIMIT - self._used, "reset": int(reset)}
        return {f"x-ratelimit-{name}": str(value) for name, value in numbers.items()}


def sha(head: int) -> str:
    return f"{head:040x}"


class Simulation:
    """A daemon's polling over such a world; ``run`` lets time pass and ``restart`` starts it anew on its store."""

    def __init__(
        self, folder: Path, *, count: int, seed: int, changes_per_second: float, reconcile_seconds: float
    ) -> None:
        self.path = folder / "simulation.db"
        self.count = count
        self.time = FakeTime()
        self.world = World(count, seed=seed, changes_per_second=changes_per_second)
        self.polling = PollingSettings(interval_seconds=60.0, reconcile_interval_seconds=reconcile_seconds)
        self.health: Counter[WebhookHealth] = Counter()
        self.requests: list[tuple[float, int]] = []
        self.starts: list[float] = []
        self._in_flight: list[tuple[float, int, int]] = []
        self._start()

    def close(self) -> None:
        self.requests += self.github.requests
        self.database.close()

    def restart(self, *, down_seconds: float) -> None:
        """Webhooks that come meanwhile are lost; what changes meanwhile is promised from the start on."""
        self.close()
        self.time.advance(down_seconds)
        self._start()
        for number, unseen in self.world.unseen.items():
            for change in unseen:
                change.due = max(change.due, self.time.seconds + self._bound(number))
        for at, number in self.world.until(self.time.seconds):
            self.world.note(number, Change(at, self.time.seconds + self._bound(number)))

    def run(self, seconds: float) -> None:
        end = self.time.seconds + seconds
        while self.time.seconds < end:
            self._change()
            self._deliver()
            self.poller.tick()
            self._sync()
            self.time.advance(tick_seconds(self.polling))

    def _start(self) -> None:
        clock = self.time.clock
        self.database = Database.open(self.path, clock=Clock())
        self.database._sqlite.execute_sql("PRAGMA synchronous = OFF")  # no power fails here, and it is half the time
        self.repositories = Repositories(self.database)
        self.jobs = Jobs(self.database)
        self.history = History(self.database)
        self.github = GitHub(self.world, self.time, Governor(clock, jitter=lambda: 0.5))
        self.poller = Poller(
            self.database,
            self.repositories,
            self.jobs,
            self.github,
            clock=clock,
            settings=lambda: self.polling,
            rules_digest=lambda _target: "rules",
            on_found=self._find,
        )
        self.repositories.track([Rule(name=str(number)) for number in range(self.count)], now=self.time.now())
        self.repositories.everything_due()
        self.starts.append(self.time.seconds)
        self._found = False
        self._ids = {int(one.name): one.id for one in self.repositories.tracked()}

    def _find(self) -> None:
        self._found = True

    def _change(self) -> None:
        for at, number in self.world.until(self.time.seconds):
            self.world.note(number, Change(at, at + self._bound(number)))
            if self.world.webhook_arrives(number, at):
                heapq.heappush(self._in_flight, (at + DELIVERY_SECONDS, number, self.world.heads[number]))

    def _bound(self, number: int) -> float:
        """What is promised of a repository now, as its row says."""
        with self.database.read():
            row = self.database.execute("SELECT webhook FROM repository WHERE id = ?", (self._ids[number],)).fetchone()
        return promised_seconds(WebhookHealth(row[0]), self.polling)

    def _deliver(self) -> None:
        deliveries = []
        while self._in_flight and self._in_flight[0][0] <= self.time.seconds:
            _, number, head = heapq.heappop(self._in_flight)
            deliveries.append(self._delivery(number, head))
            self.world.see(number, self.time.seconds)
        if deliveries:
            self.history.store_deliveries(deliveries, now=self.time.now())
            self._found = True

    def _delivery(self, number: int, head: int) -> Delivery:
        return Delivery(
            guid=f"{number}-{head}",
            body_digest="",
            event="push",
            action=None,
            repository=f"octo/{number}",
            ref="refs/heads/main",
            before=sha(head - 1),
            after=sha(head),
            received_at=self.time.now(),
            status=DeliveryStatus.ACCEPTED,
            repository_id=self._ids[number],
            branch="main",
        )

    def _sync(self) -> None:
        """Every branch that is wanted is where GitHub is, as far as the rows tell; those that moved have changed."""
        if not self._found:
            return
        self._found = False
        with self.database.write():
            wanted = self.database.execute(
                "SELECT branch.id, repository.id, repository.name, branch.head_sha FROM job"
                " JOIN branch ON branch.id = job.branch_id JOIN repository ON repository.id = branch.repository_id"
                " WHERE job.wanted_generation > job.done_generation"
            ).fetchall()
            at = self.time.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
            for branch_id, repository_id, name, before in wanted:
                head = sha(self.world.heads[int(name)])
                self.database.execute(
                    "UPDATE branch SET head_sha = ?, remote_sha = ?, remote_read_at = ?, rules_digest = 'rules'"
                    " WHERE id = ?",
                    (head, head, at, branch_id),
                )
                if before not in {None, head}:
                    self.database.execute("UPDATE repository SET changed_at = ? WHERE id = ?", (at, repository_id))
                self.world.see(int(name), self.time.seconds)
            self.database.execute(
                "UPDATE job SET done_generation = wanted_generation, triggers = '[]', wanted_at = NULL"
                " WHERE wanted_generation > done_generation"
            )

    # -- the judge --------------------------------------------------------------------------------

    def late(self) -> list[Change]:
        """Changes that were not seen within their promise, one tick and one request."""
        grace = tick_seconds(self.polling) + REQUEST_SECONDS * 2
        now = self.time.seconds
        return [one for one in self.world.changes if (now if one.seen_at is None else one.seen_at) > one.due + grace]

    def busiest_second(self, *, settled_seconds: float) -> int:
        """The most looks within one second, but for those right after a start, where all are due at once."""
        looks: Counter[int] = Counter()
        for at, count in self.requests:
            if not any(0 <= at - start < settled_seconds for start in self.starts):
                looks[int(at)] += count
        return max(looks.values())

    def busiest_hour(self) -> int:
        """The most points within any hour."""
        times = [at for at, _ in self.requests]
        first, most = 0, 0
        for last, at in enumerate(times):
            while times[first] <= at - WINDOW_SECONDS:
                first += 1
            most = max(most, last - first + 1)
        return most
