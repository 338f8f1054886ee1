"""What more repositories and more pushes cost, for README's "How far it goes", on SQLite and on PostgreSQL.

Idle repositories, by how many there are: what the store keeps of each, and what reads all of them. A push of one file of
2 KB: what it adds to the store, and the CPU time of the sync. `COUNTS=100,1000000` for other numbers.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support import (
    ROUNDS,
    Bench,
    engines,
    folder,
    make_repository,
    middle,
    name_of,
    quiet,
    report,
    served,
    synced,
    text,
)

from daemon import overview
from daemon.clock import Clock
from daemon.config import Config, StorageSettings
from daemon.core import Core
from daemon.metrics import Metrics
from daemon.service import COLLECTOR_THRESHOLDS

COUNTS = tuple(int(count) for count in os.environ.get("COUNTS", "100,10000,100000").split(","))
FILES, FILE_BYTES, PUSHES = 1_000, 2_000, 200
AT = "2026-05-01T00:00:00.000000Z"
SHA = "1" * 40
SIZES = {
    engines.SQLITE: "SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())",
    engines.POSTGRESQL: "SELECT pg_database_size(current_database())",
}
_REPOSITORY = """
    INSERT INTO repository (id, github_id, owner, name, full_name, configured_as, default_branch, state, polled_at,
                            next_poll_at)
    VALUES (?, ?, 'octo', ?, ?, 'octo/*', 'main', 'available', ?, ?)
"""
_BRANCH = """
    INSERT INTO branch (id, repository_id, name, is_default, head_sha, tree_sha, remote_sha, remote_read_at, confirmed_at,
                        synced_at, snapshot, rules_digest, tree_verified)
    VALUES (?, ?, 'main', TRUE, ?, ?, ?, ?, ?, ?, 1, 'rules', TRUE)
"""
_JOB = "INSERT INTO job (branch_id, wanted_generation, done_generation, claimed_generation) VALUES (?, 1, 1, 1)"


def fill(db: Any, count: int) -> None:
    """Rows of repositories that were synced and are asked about in their turn."""
    numbers = range(1, count + 1)
    with db.write():
        rows = ((number, number, f"r{number:07}", f"octo/r{number:07}", AT, AT) for number in numbers)
        db.executemany(_REPOSITORY, rows)
        db.executemany(_BRANCH, ((number, number, SHA, SHA, SHA, AT, AT, AT) for number in numbers))
        db.executemany(_JOB, ((number,) for number in numbers))


def size(db: Any, engine: engines.Engine) -> int:
    with db.read():
        return int(db.execute(SIZES[engine.name]).fetchone()[0])


def seconds(work: Callable[[], object]) -> float:
    """CPU of this process; a server's comes on top."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


def idle(engine: engines.Engine, path: Path, count: int) -> dict[str, float]:
    """What ``count`` repositories cost while nothing happens."""
    storage = StorageSettings(url=engine.url(path / f"idle-{count}.db"))
    core = Core(Config(storage=storage), clock=Clock(), metrics=Metrics())
    before = size(core.database, engine)
    fill(core.database, count)
    kept = (size(core.database, engine) - before) / count
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    now = datetime.now(UTC)
    told = {
        "bytes": round(kept),
        "refresh_seconds": middle([seconds(core.refresh) for _ in range(ROUNDS)]),
        "due_seconds": middle([seconds(lambda: core.repositories.due(now=now, limit=100)) for _ in range(ROUNDS)]),
        "status_seconds": middle([seconds(lambda: status(core, now)) for _ in range(ROUNDS)]),
        "memory_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024),
    }
    core.close()
    return told


def status(core: Core, now: datetime) -> None:
    overview.status(core, started_at=now, now=now, webhook_secrets=1, by_rest=False, syncs=())


def pushes(engine: engines.Engine, path: Path) -> dict[str, float]:
    """What a first sync keeps of each file, and what each push of one after it adds and takes."""
    repo = make_repository(path / "origin.git", FILES, size=FILE_BYTES)
    with served({"octo/data": repo.path}) as github:
        one = Bench(path, github, repo, timeout_seconds=60.0)  # type: ignore[arg-type]
        before = size(one.database, engine)
        synced(one)
        first = size(one.database, engine)
        requests, cpu = [], []
        for number in range(PUSHES):
            repo.commit({name_of(number): text(number + FILES, FILE_BYTES)})
            started = time.process_time()
            requests.append(synced(one).requests)
            cpu.append(time.process_time() - started)
        added = size(one.database, engine) - first
        one.close()
    return {
        "bytes_a_file": round((first - before) / FILES),
        "bytes_a_push": round(added / PUSHES),
        "requests_a_push": max(requests),
        "cpu_seconds_a_push": middle(cpu),
    }


def on_each() -> Iterator[tuple[engines.Engine, Path]]:
    server = engines.Server()
    try:
        for of in (None, server):
            with folder() as path:
                engine = engines.Engine(of)
                with engines.used(engine):
                    yield engine, path
                engine.close()
    finally:
        server.close()


def main() -> None:
    quiet()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    for engine, path in on_each():
        figures = {str(count): idle(engine, path, count) for count in COUNTS}
        report("scale", engine=engine.name, idle=figures, push=pushes(engine, path))


if __name__ == "__main__":
    main()
