"""`headwater sync`: here when no daemon runs, else by asking the daemon, which alone may write."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from daemon import logs
from daemon.clock import Clock
from daemon.config import Config
from daemon.core import Core
from daemon.errors import GitHubError, HeadwaterError, RepositoryEmpty, StoreError
from daemon.globs import is_glob, matches_branch
from daemon.metrics import Metrics
from daemon.model import BranchFacts, JobRecord, RepositoryRef, RunRecord, TrackedRepository, Trigger
from daemon.store.database import Database
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.opening import open_to_read
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots
from daemon.sync.workers import LEASE_SECONDS, Workers
from daemon.web.answers import run_json

POLL_SECONDS = 0.1
ASK_SECONDS = 30.0
STARTING_SECONDS = 10.0
RESTART_SECONDS = 6.0
SHORT = 7
MOST_ANSWER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What became of one branch."""

    repository: str
    branch: str
    run: RunRecord | None
    head: str | None
    error: str | None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def line(self) -> str:
        where = f"{self.repository}@{self.branch or '(default branch)'}"
        if self.error is not None:
            return f"{where}  failed: {self.error}"
        if self.run is None or self.run.outcome == "unchanged":
            return f"{where}  unchanged at {self.head[:SHORT] if self.head else 'no commit'}"
        run = self.run
        seconds = (run.finished_at - run.started_at).total_seconds()
        return (
            f"{where}  updated {(run.before or 'nothing')[:SHORT]} -> {(run.after or 'nothing')[:SHORT]}"
            f"  +{run.added} ~{run.modified} -{run.removed}  {run.requests} requests  {seconds:.1f} s"
        )

    def as_json(self) -> dict[str, Any]:
        shown = run_json(self.run) if self.run else None
        return {
            "repository": self.repository,
            "branch": self.branch,
            "outcome": "failed" if self.failed else self.run.outcome if self.run else "unchanged",
            "head_sha": self.head,
            "error": self.error,
            "run": shown,
        }


def sync_now(config: Config, names: Sequence[str], *, trigger: Trigger = Trigger.MANUAL) -> list[SyncResult]:
    """Sync the named repositories, all of them when none is named, each branch once.

    Raises StoreError when the store cannot be used, HeadwaterError when GitHub is not configured.
    """
    if not config.github.configured:
        raise HeadwaterError(
            "GitHub is not configured: set github.token (or GITHUB_TOKEN), github.app_id, "
            "or github.anonymous = true for public repositories"
        )
    # On PostgreSQL this process is one more node.
    if not config.storage.is_postgres and (url := daemon_url(config.storage.sqlite_path, Clock())):
        return Asking(config, url).sync(names, trigger)
    core = Core(config, clock=Clock(), metrics=Metrics())
    logs.configure(
        "warning",
        config.log.format,
        secrets=lambda: [*config.secret_values(), *core.client.secrets()],
        stream=sys.stderr,
    )
    try:
        return _Working(core).sync(names, trigger)
    finally:
        core.close()


def daemon_url(path: Path, clock: Clock) -> str | None:
    """Where the daemon that owns the store is asked; one that is just starting is given time to listen."""
    deadline = clock.monotonic() + STARTING_SECONDS
    while (owner := Database.locked_by(path)) is not None:
        if url := owner.get("admin_url"):
            return str(url)
        if clock.monotonic() > deadline:
            return None
        clock.sleep(POLL_SECONDS)
    return None


class _Working:
    """Syncs in this process, which owns the store meanwhile."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._workers = Workers(
            core.jobs,
            core.routine,
            clock=core.clock,
            owner=core.node.id,
            settings=lambda: core.config.sync,
        )

    def sync(self, names: Sequence[str], trigger: Trigger) -> list[SyncResult]:
        core = self._core
        core.recover()
        self._discover(names)
        names = names or every_name(core.config, core.repositories)
        globbed = self._globbed()
        looked = [self._track_matching(name, globbed[name.lower()]) for name in names if name.lower() in globbed]
        branches = list(_branches(core.repositories, names))
        ids = [branch.id for _, branch in branches]
        core.jobs.want(ids, trigger, now=core.clock.now())
        self._workers.start_heartbeat()
        try:
            with _progress_bars() as bars:
                self._work(ids, bars)
        finally:
            self._workers.stop(0.0)
        core.renew_entities()  # where the rules have changed and the commit has not
        return [failed for failed in looked if failed] + [
            _result(name, branch.id, core.jobs, core.history, core.snapshots) for name, branch in branches
        ]

    def _discover(self, names: Sequence[str]) -> None:
        """Find what is meant by an ``owner/*``; raises HeadwaterError when GitHub does not tell."""
        core = self._core
        named = {rule.full_name.lower() for rule in core.config.repositories if not rule.is_pattern}
        if names and named.issuperset(name.lower() for name in names):
            return
        core.discovery.tick()
        if errors := [one.last_error for one in core.owners.records() if one.last_error]:
            raise HeadwaterError("; ".join(errors))

    def _globbed(self) -> dict[str, TrackedRepository]:
        """What is tracked by globs, by each name that it may be given."""
        return {
            name: one
            for one in reversed(self._core.tracked)  # the first of a name counts
            if any(map(is_glob, one.branches))
            for name in (one.configured, one.full_name.lower())
        }

    def _track_matching(self, name: str, one: TrackedRepository) -> SyncResult | None:
        """Track what matches the globs of a repository, as a daemon's looks do; what kept GitHub from telling."""
        try:
            found = self._core.client.branches(RepositoryRef(one.owner, one.name, one.github_id))
        except RepositoryEmpty:
            return None
        except GitHubError as error:
            return SyncResult(name, ", ".join(one.branches), None, None, str(error))
        for branch in found:
            if matches_branch(branch, one.branches):
                self._core.repositories.ensure_branch(one.id, branch)
        return None

    def _work(self, ids: Sequence[int], bars: _Bars) -> None:
        """Claim until every wanted branch is done or has failed once; waits only where GitHub lags behind."""
        clock, jobs = self._core.clock, self._core.jobs
        while open_ids := [branch_id for branch_id in ids if not _ended(jobs.record(branch_id))]:
            claim = jobs.claim(self._core.node.id, now=clock.now(), lease_seconds=LEASE_SECONDS, branch_ids=open_ids)
            if claim is None:
                clock.sleep(POLL_SECONDS)
                continue
            bars.start(f"{claim.repository.full_name}@{claim.branch or 'default'}")
            self._workers.work(claim, progress=bars.show)


class Asking:
    """Asks the running daemon through its admin listener, which alone may write; watches the store for outcomes."""

    def __init__(self, config: Config, url: str) -> None:
        self._config = config
        self._url = url
        self._clock = Clock()
        self._last_alive = self._clock.monotonic()

    def sync(self, names: Sequence[str], trigger: Trigger) -> list[SyncResult]:
        database = open_to_read(self._config.storage, clock=self._clock)
        try:
            names = names or every_name(self._config, Repositories(database))
            for name in names:
                status, body = self._ask("POST", f"/api/v1/repositories/{name}/sync?trigger={trigger}")
                if status != http.client.NOT_FOUND:  # no branch of it (yet), which does not keep the others
                    self._good(status, body, http.client.ACCEPTED)
            return self._wait(database, names)
        finally:
            database.close()

    def _wait(self, database: Database, names: Sequence[str]) -> list[SyncResult]:
        jobs, history, snapshots = Jobs(database), History(database), Snapshots(database)
        branches = list(_branches(Repositories(database), names))
        with _progress_bars() as bars:
            for name, branch in branches:
                while not _ended(jobs.record(branch.id)):
                    self._assert_daemon()
                    self._show(bars, name)
                    self._clock.sleep(POLL_SECONDS)
        return [_result(name, branch.id, jobs, history, snapshots) for name, branch in branches]

    def _show(self, bars: _Bars, name: str) -> None:
        """How far the daemon has come with a repository, where somebody looks at it."""
        if not bars.shown:
            return
        told = self._good(*self._ask("GET", "/api/v1/status"), http.client.OK)
        for one in told.get("syncs", ()):
            if one["repository"].lower() == name.lower():
                bars.start(f"{one['repository']}@{one['branch'] or 'default'}")
                bars.show(one["phase"], one["done"], one["total"])

    def retry_actions(self, action: str | None) -> int:
        """Have the daemon try failed actions again; on how many branches there were some."""
        query = f"?action={quote(action, safe='')}" if action else ""
        return int(self._post(f"/api/v1/actions/retry{query}")["retried"])

    def prune(self, name: str) -> bool:
        """Have the daemon remove a repository; False where it may not be (any more)."""
        status, body = self._ask("POST", f"/api/v1/repositories/{quote(name)}/prune")
        if status in (http.client.NOT_FOUND, http.client.CONFLICT):
            return False
        self._good(status, body, http.client.ACCEPTED)
        return True

    def webhook_changed(self, name: str) -> None:
        """Have the daemon forget what it was told of a repository's webhook, and look soon."""
        self._post(f"/api/v1/repositories/{quote(name)}/webhook")

    def _assert_daemon(self) -> None:
        """Raise HeadwaterError once no daemon has owned the store for longer than a restart takes."""
        now = self._clock.monotonic()
        if Database.locked_by(self._config.storage.sqlite_path) is not None:
            self._last_alive = now
        elif now - self._last_alive > RESTART_SECONDS:
            raise HeadwaterError("the daemon ended before it had synced; it will when it is started again")

    def _post(self, path: str) -> Any:
        return self._good(*self._ask("POST", path), http.client.ACCEPTED)

    def _good(self, status: int, body: bytes, expected: int) -> Any:
        if status != expected:
            raise HeadwaterError(f"the running daemon refused: {status} {_detail(body)}")
        return json.loads(body)

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        headers = {"Content-Length": "0", "Host": self._config.admin.allowed_hosts[0]}
        if token := self._config.admin.token():
            headers["Authorization"] = f"Bearer {token}"
        try:
            with closing(self._connect()) as connection:
                connection.request(method, path, headers=headers)
                response = connection.getresponse()
                return response.status, response.read(MOST_ANSWER_BYTES)
        except OSError as error:
            raise HeadwaterError(f"the running daemon does not answer at {self._url}: {error}") from error

    def _connect(self) -> http.client.HTTPConnection:
        if self._url.startswith("unix:"):
            return _UnixConnection(self._url.removeprefix("unix:"))
        parts = urlsplit(self._url)
        return http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=ASK_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ASK_SECONDS)
        self.sock.connect(self._path)


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def every_name(config: Config, repositories: Repositories) -> list[str]:
    """The names of all that is configured by name, and of what was found by an ``owner/*``."""
    named = [rule.full_name for rule in config.repositories if not rule.is_pattern]
    return named + [one.full_name for one in repositories.tracked() if one.configured.endswith("/*")]


def _branches(repositories: Repositories, names: Sequence[str]) -> Iterator[tuple[str, BranchFacts]]:
    for name in names:
        record = repositories.record(*name.split("/", 1))
        if record is None:
            raise StoreError(
                f"{name} is not in the store: restart or reload the daemon after adding it; of an owner/* there is "
                "what GitHub lists and its filters let in"
            )
        if record.replaced:
            raise StoreError(f"{name} cannot be synced any more: {record.last_error}")
        for branch in repositories.branches(record.id):
            yield name, branch


def _ended(job: JobRecord) -> bool:
    """Nothing is left to do, or the last attempt failed: a person who waits wants to hear of it now."""
    if job.state == "running":
        return False
    if job.done_generation >= job.wanted_generation or job.state == "failed":
        return True
    # Asking takes the wait away and a failed attempt sets it: an error without a wait is that of an attempt before.
    return job.last_error is not None and job.run_after is not None


def _result(name: str, branch_id: int, jobs: Jobs, history: History, snapshots: Snapshots) -> SyncResult:
    job = jobs.record(branch_id)
    facts = snapshots.facts(branch_id)
    runs = history.runs(branch_id=branch_id, before_id=None, limit=1)
    error = job.last_error if job.done_generation < job.wanted_generation else None
    if error is None and facts.gone:
        error = f"branch {facts.name} does not exist on GitHub"
    return SyncResult(name, facts.name, runs[0] if runs else None, facts.head_sha, error)


class _Bars:
    """One progress bar at a time: that of the phase of the sync that goes on."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)
        self._phase = ""
        self._label = ""
        self.shown = not progress.disable

    def start(self, label: str) -> None:
        self._label = label

    def show(self, phase: str, done: int, total: int) -> None:
        named = f"{self._label} {phase}"
        if named != self._phase:  # a bar of its own: rich takes no total back, and that of a stream is not known
            self._progress.remove_task(self._task)
            self._task, self._phase = self._progress.add_task(named, total=None), named
        self._progress.update(self._task, completed=done, total=total or None)


@contextmanager
def _progress_bars() -> Iterator[_Bars]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Bars(progress)
