"""The poller with a GitHub App: what one installation may not ask keeps no other from being asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from app_key import AppKey
from bench import Bench, MovableClock, Rule

from daemon.appkey import PrivateKey
from daemon.demo.standin import GitRepo, StandIn, Status
from daemon.github.apps import AppSettings
from daemon.model import RepositoryRecord, RepositoryState

OWNERS = ("acme", "octo")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def github(clock: MovableClock, app_key: AppKey) -> Iterator[StandIn]:
    with StandIn(token="nobody has this one", clock=clock.clock) as standin:
        standin.apps.register("7", app_key.public)
        yield standin


@pytest.fixture
def bench(tmp_path: Path, github: StandIn, app_key: AppKey, clock: MovableClock) -> Iterator[Bench]:
    repo = GitRepo.init(tmp_path / "served.git")
    repo.commit({"README.md": b"# Data\n"}, "Begin")
    for owner in OWNERS:
        for name in ("data", "more"):
            github.add(f"{owner}/{name}", repo.path, private=True)
    key = tmp_path / "app.pem"
    key.write_text(app_key.private)
    rules = tuple(Rule(owner, name) for name in ("data", "more") for owner in OWNERS)
    app = AppSettings("7", PrivateKey(key))
    bench = Bench(tmp_path, github, repo, rules, app=app, time=clock)
    yield bench
    bench.close()


def poll(bench: Bench, *, after: float = 60.0) -> list[str]:
    bench.time.advance(after)
    bench.github.requests.clear()
    bench.poller.tick()
    return bench.requests()


def records(bench: Bench) -> dict[str, RepositoryRecord]:
    return {one.full_name: one for one in bench.repositories.records(after=None, limit=9)}


def test_a_round_costs_one_query_an_installation(bench: Bench, github: StandIn) -> None:
    for owner in OWNERS:
        github.apps.install(owner)
    bench.poller.tick()
    bench.settle()
    assert poll(bench) == ["/graphql", "/graphql"]
    assert all(one.branches[0].confirmed_at == bench.time.at for one in records(bench).values())


def test_a_used_up_budget_puts_off_the_repositories_of_its_installation_only(bench: Bench, github: StandIn) -> None:
    github.apps.install("acme")
    limited = github.apps.install("octo")
    bench.poller.tick()
    bench.settle()
    github.limit(remaining=0, reset_in=600, installation=limited)
    until = bench.time.at + timedelta(seconds=600)
    poll(bench)
    for _ in range(3):
        assert poll(bench, after=60.0) == ["/graphql"]
        found = records(bench)
        for name in ("acme/data", "acme/more"):
            assert (found[name].last_error, found[name].branches[0].confirmed_at) == (None, bench.time.at)
        for name in ("octo/data", "octo/more"):
            assert "rate limit" in (found[name].last_error or "")
            next_poll_at = found[name].next_poll_at
            assert next_poll_at is not None
            assert next_poll_at >= until
    assert poll(bench, after=600.0) == ["/graphql", "/graphql"]
    assert not any(one.last_error for one in records(bench).values())


def test_a_refused_installation_puts_off_its_own_repositories_only(bench: Bench, github: StandIn) -> None:
    github.apps.install("acme")
    refused = github.apps.install("octo")
    github.faults.add(f"/app/installations/{refused.id}/", Status(401))
    bench.poller.tick()
    found = records(bench)
    assert {name for name, one in found.items() if one.last_error} == {"octo/data", "octo/more"}
    assert not any(one.state is RepositoryState.GONE for one in found.values())


def test_an_owner_without_the_app_fails_alone_and_costs_the_others_no_graphql(bench: Bench, github: StandIn) -> None:
    github.apps.install("octo")
    paths = poll(bench)
    assert paths.count("/graphql") == 1
    found = records(bench)
    assert "is not installed for acme" in (found["acme/data"].last_error or "")
    assert (found["acme/data"].state, found["octo/data"].state) == (RepositoryState.BLOCKED, RepositoryState.AVAILABLE)
    bench.settle()
    assert poll(bench).count("/graphql") == 1
    github.apps.install("acme")
    for _ in range(10):
        poll(bench)
    assert not any(one.last_error for one in records(bench).values())
