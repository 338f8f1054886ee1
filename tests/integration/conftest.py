from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import engines
import pytest
from bench import Bench

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.store import postgres as postgres_module

# Whose tests run on SQLite and on PostgreSQL, but for those marked `sqlite`.
BOTH = {
    "test_actions_publish",
    "test_actions_runner",
    "test_discovery",
    "test_poll_round",
    "test_poller",
    "test_poller_apps",
    "test_recovery",
    "test_routine",
    "test_routine_forward",
    "test_routine_reads",
    "test_store_budgets",
    "test_store_entities",
    "test_store_feed",
    "test_store_history",
    "test_store_jobs",
    "test_store_pruning",
    "test_store_repositories",
    "test_store_search",
    "test_store_snapshots",
    "test_web_admin",
    "test_web_dashboard",
    "test_web_stream",
    "test_workers",
    "test_writer",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in BOTH and metafunc.definition.get_closest_marker("sqlite") is None:
        metafunc.parametrize("engine", [engines.SQLITE, engines.POSTGRESQL], indirect=True)


@pytest.fixture(autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[engines.Engine]:
    """What the stores of a test are opened on."""
    on_postgres = getattr(request, "param", engines.SQLITE) == engines.POSTGRESQL
    engine = engines.Engine(request.getfixturevalue("postgres") if on_postgres else None)
    with engines.used(engine):
        yield engine
    engine.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still while a test holds a write costs it nothing."""
    monkeypatch.setattr(postgres_module, "_WRITE_IDLE_SECONDS", 2 * engines.PATIENCE_SECONDS)


@pytest.fixture
def bench(tmp_path: Path, github: StandIn, repo: GitRepo) -> Iterator[Bench]:
    bench = Bench(tmp_path, github, repo)
    yield bench
    bench.close()
