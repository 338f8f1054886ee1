"""A store in a temporary folder and short ways to say what happens to it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from engines import open_store

from daemon.clock import Clock
from daemon.model import (
    Claim,
    Commit,
    CommitChange,
    Delivery,
    DeliveryStatus,
    Entry,
    Outcome,
    RemoteRepository,
    RunResult,
    SnapshotChange,
    Trigger,
)
from daemon.store.database import Database
from daemon.store.history import History
from daemon.store.jobs import Jobs
from daemon.store.repositories import Repositories
from daemon.store.snapshots import Snapshots

NOW = datetime(2026, 11, 23, 21, 40, 41, 123456, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Rule:
    owner: str
    name: str
    branches: tuple[str, ...] = ()


def rule(full_name: str, *branches: str) -> Rule:
    owner, name = full_name.split("/")
    return Rule(owner, name, branches)


def remote(full_name: str = "octo/data", github_id: int = 7, default: str | None = "main") -> RemoteRepository:
    owner, name = full_name.split("/")
    return RemoteRepository(github_id, owner, name, default)


def delivery(number: int = 1, **changes: Any) -> Delivery:
    """An accepted push to octo/data's main; ``number`` makes GUID, body and head."""
    values: dict[str, Any] = {
        "guid": f"guid-{number}",
        "body_digest": f"{number:064x}",
        "event": "push",
        "action": None,
        "repository": "octo/data",
        "ref": "refs/heads/main",
        "before": sha(f"head {number - 1}"),
        "after": sha(f"head {number}"),
        "received_at": NOW,
        "status": DeliveryStatus.ACCEPTED,
        "repository_id": 1,
        "branch": "main",
    }
    return Delivery(**(values | changes))


def blob(path: bytes, content: bytes, *, stored: bool = True, mode: str = "100644") -> Entry:
    header = b"blob %d\0" % len(content)
    return Entry(path, mode, hashlib.sha1(header + content, usedforsecurity=False).hexdigest(), len(content), stored)


def commit(name: str, **changes: Any) -> Commit:
    values: dict[str, Any] = {
        "sha": sha(name),
        "tree_sha": sha(f"tree of {name}"),
        "parents": (),
        "author_name": "Octo",
        "author_email": "octo@example.org",
        "authored_at": "2026-11-23T20:00:00Z",
        "committed_at": "2026-11-23T20:00:00Z",
        "message": name,
    }
    return Commit(**(values | changes))


def change(head: str, **changes: Any) -> SnapshotChange:
    values: dict[str, Any] = {
        "head_sha": sha(head),
        "tree_sha": sha(f"tree of {head}"),
        "added": (),
        "modified": (),
        "removed": (),
        "tree_verified": True,
        "tree_error": None,
        "rules_digest": "rules",
    }
    return SnapshotChange(**(values | changes))


def result(outcome: Outcome = Outcome.UPDATED, **changes: Any) -> RunResult:
    values: dict[str, Any] = {"before": None, "after": None, "started_at": NOW, "finished_at": NOW}
    return RunResult(outcome, **(values | changes))


class Bench:
    """A store that tracks octo/data, its default branch ``main`` known, as branch 1."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._begin(open_store(path, clock=Clock(), **options), path)

    @classmethod
    def on(cls, database: Database, path: Path) -> Bench:
        """Over a store that is open already."""
        bench = cls.__new__(cls)
        bench._begin(database, path)
        return bench

    def _begin(self, database: Database, path: Path) -> None:
        self.path = path
        self.db = database
        self.repositories = Repositories(self.db)
        self.jobs = Jobs(self.db)
        self.snapshots = Snapshots(self.db)
        self.history = History(self.db)

    def begin(self) -> Bench:
        self.repositories.track([rule("octo/data")], now=NOW)
        self.repositories.identify(1, remote(), now=NOW)
        return self

    def want(self, trigger: Trigger = Trigger.WEBHOOK, *, now: datetime = NOW, branch: int = 1) -> bool:
        return self.jobs.want([branch], trigger, now=now)

    def claim(self, *, now: datetime = NOW, owner: str = "worker", lease_seconds: float = 60.0) -> Claim | None:
        return self.jobs.claim(owner, now=now, lease_seconds=lease_seconds)

    def claimed(self, trigger: Trigger = Trigger.WEBHOOK, *, now: datetime = NOW) -> Claim:
        self.want(trigger, now=now)
        claim = self.claim(now=now)
        assert claim is not None
        return claim

    def apply(
        self,
        made: SnapshotChange,
        *,
        claim: Claim | None = None,
        contents: tuple[bytes, ...] = (),
        commits: CommitChange | None = None,
        now: datetime = NOW,
        before: str | None = None,
        served: tuple[int, ...] = (),
    ) -> int:
        """Sync the branch to ``made``; ``contents`` are stored first."""
        pairs = [(blob(b"", content).sha, content) for content in contents]
        if pairs:
            self.snapshots.store_blobs(pairs, now=now)
        return self.snapshots.apply(
            claim or self.claimed(now=now),
            made,
            result(before=before, after=made.head_sha, started_at=now, finished_at=now),
            commits=commits,
            now=now,
            read_at=now,
            served=served,
        )

    def rows(self, sql: str, *params: object) -> list[Any]:
        with self.db.read():
            return self.db.execute(sql, params).fetchall()

    def tables(self) -> list[str]:
        """Every table with rows of its own."""
        if self.db.shared:
            names = self.rows("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename")
        else:
            names = self.rows(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name"
            )
        return [name for (name,) in names]

    def columns(self, table: str) -> set[str]:
        if self.db.shared:
            of = "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = ?"
        else:
            of = "SELECT name FROM pragma_table_info(?)"
        return {name for (name,) in self.rows(of, table)}

    def value(self, sql: str, *params: object) -> Any:
        return self.rows(sql, *params)[0][0]


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Run every call in a thread of its own, all let go at once; their results, or the exceptions they raised."""
    outcomes: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(number: int, call: Callable[[], Any]) -> None:
        start.wait(10)
        try:
            outcomes[number] = call()
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes
