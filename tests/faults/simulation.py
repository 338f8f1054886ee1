"""Queue, schedule, store and routine on a clock that is moved, against a GitHub made of rows: one seed, one history.

Steps and faults are drawn from the seed: pushes, force pushes, deletions, deliveries that are late, doubled, out of
order or lost, a stale API, outages, leases that run out, kills. They also strike between any two requests of a run:
the fake GitHub calls back before it answers. A seed that fails is played again by ``play(seed, steps)``.
"""

from __future__ import annotations

import io
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from daemon.clock import Clock
from daemon.config import PollingSettings, SyncSettings
from daemon.errors import BranchNotFound, ObjectNotFound, Outage
from daemon.model import (
    MODE_FILE,
    ZERO_SHA,
    ChangedFile,
    Claim,
    Commit,
    Comparison,
    Delivery,
    DeliveryStatus,
    Difference,
    RemoteEntry,
    RemoteRepository,
    RemoteTree,
    RepositoryHeads,
)
from daemon.store.database import Database
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync.gitobjects import blob_sha, root_tree
from daemon.sync.patterns import rules
from daemon.sync.routine import Routine
from daemon.sync.workers import Workers
from daemon.triggers.poller import Poller

BEGAN = datetime(2026, 5, 1, tzinfo=UTC)
BRANCHES = ("main", "side")
INTERVAL, RECONCILE = 60.0, 300.0
LONGEST_LAG_SECONDS = 8.0  # below what lets agreeing reads be believed
LEASE_SECONDS = 60.0
DEEPEST = 2  # runs that begin within a request of a run
RULES = rules((), (), 1_000_000)


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Rule:
    owner: str = "octo"
    name: str = "data"
    branches: tuple[str, ...] = BRANCHES


@dataclass
class Truth:
    """What GitHub has: commits by id, and every head that a branch ever had with the time it came."""

    commits: dict[str, tuple[str | None, dict[bytes, bytes]]] = field(default_factory=dict)
    heads: dict[str, list[tuple[datetime, str | None]]] = field(default_factory=dict)

    def head(self, branch: str, at: datetime) -> str | None:
        return next((sha for since, sha in reversed(self.heads[branch]) if since <= at), None)

    def commit(self, parent: str | None, files: dict[bytes, bytes], salt: int) -> str:
        sha = sha1(repr((parent, sorted(files.items()), salt)).encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = (parent, files)
        return sha

    def ancestors(self, sha: str | None) -> Iterator[str]:
        while sha is not None:
            yield sha
            sha = self.commits[sha][0]

    def entries(self, sha: str) -> list[tuple[bytes, str, str]]:
        return sorted((path, MODE_FILE, blob_sha(content)) for path, content in self.commits[sha][1].items())


class FakeGitHub:
    """The client's methods over the truth as a lagging replica shows it; ``between`` is called before each answer."""

    def __init__(self, truth: Truth, clock: Callable[[], datetime]) -> None:
        self.truth = truth
        self.between: Callable[[], None] = lambda: None
        self.lag_seconds = 0.0
        self.down_until = BEGAN
        self.requests = 0
        self._clock = clock

    def _ask(self) -> datetime:
        self.requests += 1
        self.between()
        now = self._clock()
        if now < self.down_until:
            raise Outage("the fake is down")
        return now - timedelta(seconds=self.lag_seconds)

    def _visible(self, sha: str, at: datetime) -> None:
        heads = (head for branch in self.truth.heads.values() for since, head in branch if since <= at)
        if not any(sha in self.truth.ancestors(head) for head in heads):
            raise ObjectNotFound(f"{sha} is not there yet")

    @contextmanager
    def tally(self) -> Iterator[FakeGitHub]:
        yield self

    def background(self) -> Any:
        return nullcontext()

    def account_of(self, ref: Any) -> str:
        return ""

    def repository(self, ref: Any) -> RemoteRepository:
        self._ask()
        return RemoteRepository(77, ref.owner, ref.name, "main")

    def heads(self, queries: Any) -> list[RepositoryHeads]:
        at = self._ask()
        remote = RemoteRepository(77, "octo", "data", "main")
        return [RepositoryHeads(remote, {name: self.truth.head(name, at) for name in BRANCHES}) for _ in queries]

    def heads_by_rest(self, query: Any) -> RepositoryHeads:
        return self.heads([query])[0]

    def settle(self, queries: Any, answers: Any) -> Any:
        """No repository of the fake is ever lost."""
        return iter(answers)

    def token_facts(self) -> None:
        """Asked to see whether GitHub is up at all; nobody looks at what it tells."""
        self._ask()

    def check_turn(self, resource: str, ref: Any) -> None:
        """The fake has no limits."""

    def has_spare(self, resource: str, ref: Any) -> bool:
        return True

    def head(self, ref: Any, branch: str, *, known: str | None = None) -> str:
        found = self.truth.head(branch, self._ask())
        if found is None:
            raise BranchNotFound(f"no branch {branch}")
        return found

    def compare(self, ref: Any, base: str, head: str) -> Comparison:
        at = self._ask()
        self._visible(base, at)
        self._visible(head, at)
        ahead, behind = list(self.truth.ancestors(head)), list(self.truth.ancestors(base))
        if base == head:
            return Comparison("identical", 0, 0)
        if base in ahead:
            return Comparison("ahead", ahead.index(base), 0)
        return Comparison("behind" if head in behind else "diverged", 1, 1)

    def difference(self, ref: Any, base: str, head: str) -> Difference:
        status = self.compare(ref, base, head).status
        new = list(self.truth.ancestors(head))
        new = new[: new.index(base)] if base in new else []
        files = list(self._changed(base, head)) if status == "ahead" else []
        return Difference(status, len(new), tuple(self._commit(sha) for sha in reversed(new)), tuple(files[:300]))

    def _changed(self, base: str, head: str) -> Iterator[ChangedFile]:
        before, after = self.truth.commits[base][1], self.truth.commits[head][1]
        for path in sorted({*before, *after}):
            content = after.get(path, before.get(path, b""))
            if path not in after:
                yield ChangedFile(path.decode(), "removed", blob_sha(content))
            elif before.get(path) != content:
                yield ChangedFile(path.decode(), "modified" if path in before else "added", blob_sha(content))

    def _commit(self, sha: str) -> Commit:
        parent = self.truth.commits[sha][0]
        at = "2026-01-01T00:00:00Z"
        tree = root_tree(self.truth.entries(sha))
        return Commit(sha, tree, (parent,) if parent else (), "A", "a@example.org", at, at, "m")

    def commits(
        self, ref: Any, sha: str, *, limit: int, known: Callable[[str], bool] = lambda _: False
    ) -> list[Commit]:
        self._visible(sha, self._ask())
        found = []
        for one in self.truth.ancestors(sha):
            found.append(self._commit(one))
            if len(found) == limit or known(one):
                break
        return found

    def tree(self, ref: Any, tree_sha: str, *, recursive: bool) -> RemoteTree:
        self._ask()
        for sha in reversed(self.truth.commits):
            entries = self.truth.entries(sha)
            if root_tree(entries) == tree_sha:
                sizes = {path: len(content) for path, content in self.truth.commits[sha][1].items()}
                listed = tuple(RemoteEntry(path.decode(), mode, blob, sizes[path]) for path, mode, blob in entries)
                return RemoteTree(tree_sha, listed, truncated=False)
        raise ObjectNotFound(tree_sha)

    def blob(self, ref: Any, sha: str, *, max_bytes: int) -> bytes:
        self._ask()
        for _, files in self.truth.commits.values():
            for content in files.values():
                if blob_sha(content) == sha:
                    return content
        raise ObjectNotFound(sha)

    @contextmanager
    def tarball(self, ref: Any, sha: str, *, max_bytes: int) -> Iterator[Iterator[bytes]]:
        self._ask()
        made = io.BytesIO()
        with tarfile.open(
            fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT, pax_headers={"comment": sha}
        ) as archive:
            for path, content in sorted(self.truth.commits[sha][1].items()):
                member = tarfile.TarInfo(f"octo-data-{sha[:7]}/{path.decode()}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        yield iter([made.getvalue()])


@lru_cache(maxsize=1)
def _template() -> TemporaryDirectory[str]:
    """A store with nothing in it, made once: every seed begins with a copy."""
    memory = Path("/dev/shm")
    folder = TemporaryDirectory(dir=memory if memory.is_dir() else None)
    Database.open(Path(folder.name) / "empty.db", clock=Clock()).close()
    return folder


class Simulation:
    """One seed's world, daemon and steps."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.now = BEGAN
        self.truth = Truth()
        self.github = FakeGitHub(self.truth, lambda: self.now)
        self.github.between = self._between
        self.depth = 0
        self.calm = False
        self.undelivered: list[tuple[str, str, str]] = []
        self.delivered: list[tuple[str, Delivery]] = []
        self.heads_seen: dict[str, tuple[str | None, int]] = {}  # each branch's stored head, its place in the truth
        self.stored_before: dict[str, set[str]] = {branch: set() for branch in BRANCHES}
        self.leases: dict[int, datetime] = {}
        self.number = 0
        for branch in BRANCHES:
            self.truth.heads[branch] = [(BEGAN, self.truth.commit(None, {b"a": branch.encode()}, 0))]
            self.heads_seen[branch] = (None, -1)
        self.clock = Clock(
            now=lambda: self.now, monotonic=lambda: (self.now - BEGAN).total_seconds(), sleep=self.pass_time
        )
        shutil.copy(Path(_template().name) / "empty.db", folder / "sim.db")
        self.database = Database.open(folder / "sim.db", clock=self.clock)
        self._build()
        self.repositories.track([Rule()], now=self.now)  # type: ignore[list-item]

    def _build(self) -> None:
        """A process begins: nothing is known but what the store holds."""
        self.repositories, self.jobs = Repositories(self.database), Jobs(self.database)
        self.snapshots, self.history = Snapshots(self.database), History(self.database)
        sync = SyncSettings(workers=1, max_attempts=3, max_file_bytes=1_000_000, commit_history=100)
        client: Any = self.github
        self.routine = Routine(
            client, self.repositories, self.jobs, self.snapshots,
            clock=self.clock, settings=lambda: sync, rules=lambda _ref: RULES,
        )  # fmt: skip
        self.workers = Workers(
            self.jobs, self.routine, clock=self.clock, owner="sim", settings=lambda: sync, jitter=lambda: 0.5
        )
        polling = PollingSettings(
            enabled=True, interval_seconds=INTERVAL, reconcile_interval_seconds=RECONCILE, batch_size=100
        )
        self.poller = Poller(
            self.database, self.repositories, self.jobs, client,
            clock=self.clock, settings=lambda: polling, rules_digest=lambda _target: RULES.digest, on_found=lambda: None,
        )  # fmt: skip

    # -- steps ------------------------------------------------------------------------------------

    def step(self) -> None:
        draw = self.chance.choices(
            (self.push, self.deliver, self.poll, self.work, self.short_time, self.long_time, self.fault, self.kill),
            weights=(6, 6, 4, 8, 6, 1, 1, 1),
        )
        try:
            draw[0]()
        except Killed:
            self.restart()
        self.check()

    def push(self) -> None:
        branch = self.chance.choice(BRANCHES)
        before = self.truth.heads[branch][-1][1]
        kind = self.chance.random()
        self.number += 1
        if kind < 0.06 and before is not None:
            after = None
        elif kind < 0.2 and before is not None and self.truth.commits[before][0] is not None:
            after = self.chance.choice(list(self.truth.ancestors(before))[1:])  # a reset to an older commit
            if kind < 0.13:
                after = self._commit(after)
        else:
            after = self._commit(before)
        self.truth.heads[branch].append((self.now, after))
        if self.chance.random() < 0.8:  # else its delivery is lost
            self.undelivered.append((branch, before or ZERO_SHA, after or ZERO_SHA))

    def _commit(self, parent: str | None) -> str:
        files = dict(self.truth.commits[parent][1]) if parent else {}
        files[b"f%d" % self.chance.randrange(6)] = b"%d" % self.number
        files.pop(b"f%d" % self.chance.randrange(6), None)
        return self.truth.commit(parent, files or {b"a": b"x"}, self.number)

    def deliver(self) -> None:
        """Any that waits, or one that came before again."""
        if self.delivered and self.chance.random() < 0.2:
            _, delivery = self.chance.choice(self.delivered)
        elif self.undelivered:
            place = self.chance.randrange(len(self.undelivered)) if self.chance.random() < 0.3 else 0
            delivery = self._delivery(*self.undelivered.pop(place))
        else:
            return
        (status,) = self.history.store_deliveries([delivery], now=self.now)
        if status is DeliveryStatus.ACCEPTED:
            self.delivered.append((str(delivery.guid), delivery))

    def _delivery(self, branch: str, before: str, after: str) -> Delivery:
        self.number += 1
        found = self.repositories.by_name("octo", "data")
        return Delivery(
            guid=f"guid-{self.number}", body_digest=f"{before}{after}", event="push", action=None,
            repository="octo/data", ref=f"refs/heads/{branch}", before=before, after=after, received_at=self.now,
            status=DeliveryStatus.ACCEPTED, repository_id=found, branch=branch,
        )  # fmt: skip

    def poll(self) -> None:
        if self.depth == 0:  # one at a time, as the scheduler calls it
            with self._deeper():
                self.poller.tick()

    def work(self) -> None:
        if self.depth > DEEPEST:
            return
        claim = self.jobs.claim(f"worker-{self.depth}", now=self.now, lease_seconds=LEASE_SECONDS)
        if claim is None:
            return
        self.check_alone(claim)
        lease_end = self.now + timedelta(seconds=LEASE_SECONDS)
        self.leases[claim.branch_id] = lease_end
        with self._deeper():
            self.workers.work(claim)
        if self.leases.get(claim.branch_id) == lease_end:
            del self.leases[claim.branch_id]

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def short_time(self) -> None:
        self.pass_time(self.chance.uniform(0.0, 5.0))

    def long_time(self) -> None:
        self.pass_time(self.chance.uniform(20.0, 200.0))  # leases run out, polls fall due

    def fault(self) -> None:
        if self.chance.random() < 0.5:
            self.github.lag_seconds = self.chance.uniform(0.0, LONGEST_LAG_SECONDS)
        else:
            self.github.down_until = self.now + timedelta(seconds=self.chance.uniform(0.0, 90.0))

    def kill(self) -> None:
        raise Killed

    def restart(self) -> None:
        self.depth = 0
        self.leases = {}
        self._build()
        self.jobs.recover(now=self.now)
        self.repositories.everything_due()

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def _between(self) -> None:
        """Before an answer of GitHub: time passes, and now and then something else happens."""
        self.pass_time(0.01)
        if self.calm:
            return
        if self.chance.random() < 0.25:
            steps = (self.push, self.deliver, self.work, self.short_time, self.long_time, self.kill)
            self.chance.choices(steps, weights=(5, 5, 3, 4, 1, 0.3))[0]()
            self.check()

    # -- what must hold ---------------------------------------------------------------------------

    def check(self) -> None:
        for branch in BRANCHES:
            self._check_branch(branch)

    def check_alone(self, claim: Claim) -> None:
        """No run of a branch begins while the lease of another one lasts."""
        assert self.leases.get(claim.branch_id, self.now) <= self.now, f"two runs of branch {claim.branch_id} at once"

    def _stored(self, branch: str) -> tuple[int, str | None, bool]:
        """The id of a branch, the head that is stored of it, and whether it is gone."""
        with self.database.read():
            row = self.database.execute("SELECT id, head_sha, gone FROM branch WHERE name = ?", (branch,)).fetchone()
        return (int(row[0]), row[1], bool(row[2])) if row else (0, None, False)

    def _check_branch(self, branch: str) -> None:
        branch_id, head, _ = self._stored(branch)
        before, place = self.heads_seen[branch]
        if head is None or head == before:
            return
        rows = sorted((e.path, e.mode, e.sha) for e in self.snapshots.entries(branch_id))
        assert rows == self.truth.entries(head), f"{branch}: the snapshot is not that of {head}"
        places = [n for n, (_, sha) in enumerate(self.truth.heads[branch]) if sha == head]
        later = [n for n in places if n > place]
        # A head that was never stored, and is no ancestor of what is, cannot be told from a force push by anybody.
        known = head in self.stored_before[branch] or head in self.truth.ancestors(before)
        assert later or not known, f"{branch} moved back to {head}, which it was before and has not been since"
        self.heads_seen[branch] = (head, later[0] if later else places[-1])
        self.stored_before[branch].add(head)

    def settle(self) -> None:
        """The faults stop: everything must be as GitHub has it within the longer interval and a little."""
        self.calm = True
        self.github.lag_seconds, self.github.down_until = 0.0, self.now
        bound = self.now + timedelta(seconds=RECONCILE + 120.0)
        while self.now < bound:
            self.poll()
            self.work()
            self.pass_time(5.0)
            self.check()
        for branch in BRANCHES:
            truth = self.truth.heads[branch][-1][1]
            _, head, gone = self._stored(branch)
            if truth is None:
                assert head is None or gone, f"{branch} is gone on GitHub, and not here"
            else:
                assert head == truth, f"{branch} is at {head}, GitHub at {truth}"
        with self.database.read():
            waiting = self.database.execute(
                "SELECT guid FROM delivery WHERE status = 'accepted' AND NOT acted"
            ).fetchall()
            parked = self.database.execute("SELECT count(*) FROM job WHERE parked").fetchone()[0]
            defects = self.database.execute("SELECT error FROM run WHERE error LIKE 'unexpected%'").fetchall()
        assert waiting == [], f"accepted and never acted on: {waiting}"
        assert parked == 0, "a job is parked although GitHub answers"
        assert defects == [], f"runs ended in defects: {defects}"


def play(seed: int, steps: int, *, broken: Callable[[Simulation], None] | None = None) -> Simulation:
    """One seed from its begin to its settled end. Raises AssertionError, naming the seed, for what does not hold."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        simulation = Simulation(seed, Path(folder))
        if broken is not None:
            broken(simulation)
        try:
            for _ in range(steps):
                simulation.step()
            simulation.settle()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            simulation.database.close()
        return simulation
