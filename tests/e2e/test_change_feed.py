"""Whoever reads the change feed sees each change exactly once and in order, whatever is cut or killed meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from events import Event, Stream
from harness import Daemon, Stopwatch, wait_for

from daemon.clock import Clock
from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo
from daemon.store.database import Database
from daemon.store.feed import Feed

COMMITS = 200
MANY_COMMITS = 500
BRANCHES = ("main", "side")


class Reader(threading.Thread):
    """Reads the stream and loses its connection again and again, at moments that chance picks."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._chance = random.Random(seed)
        self.last = 0
        self.changes: list[dict[str, Any]] = []
        self.unnumbered = 0
        self.cuts = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                stream = Stream(self._daemon.admin_url, last=self.last)
            except OSError:
                time.sleep(0.02)  # the daemon is down: do not spin
                continue
            cut = threading.Timer(self._chance.uniform(0.0, 0.4), stream.close)
            cut.start()
            for event in stream:
                self._take(event)
            cut.cancel()
            stream.close()
            self.cuts += 1

    def _take(self, event: Event) -> None:
        if event.id is None:
            self.unnumbered += 1
            return
        self.last = event.id
        assert event.id == event.data["id"]
        self.changes.append(event.data)


def disconnected_at_random(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], *, commits: int, seed: int
) -> None:
    repo.commit({"side.txt": b"side\n"}, branch="side", parents=[repo.head()])
    daemon = make_daemon(extra='branches = ["main", "side"]').start()
    for branch in BRANCHES:
        daemon.wait_head(repo.head(branch), branch)
    hook = github.hook("octo/data", daemon.webhook_url, daemon.secret)
    readers = [Reader(daemon, seed * 10 + number) for number in range(3)]
    for reader in readers:
        reader.start()
    kills = {commits // 3, 2 * commits // 3}
    for number in range(commits):
        branch = BRANCHES[number % 3 == 0]
        before = repo.head(branch)
        after = repo.commit({f"load/{number % 50}.txt": b"%d\n" % number}, f"Load {number}", branch=branch)
        github.push("octo/data", branch, before, after)
        if number % 4 == 3:  # the others may be coalesced, as many as the machine is slow
            daemon.wait_head(after, branch)
        if number in kills:
            daemon.kill()
            daemon.start()
            hook.url = daemon.webhook_url
    for branch in BRANCHES:
        daemon.post("/api/v1/repositories/octo/data/sync", params={"branch": branch})
        daemon.wait_head(repo.head(branch), branch, seconds=90)
    daemon.wait_idle()
    truth = list(daemon.items("/api/v1/changes"))
    for reader in readers:
        wait_for(lambda reader=reader: reader.last >= truth[-1]["id"], "the reader to have seen everything")
        reader.ended.set()
        reader.join(30)
        assert reader.changes == truth
        assert reader.cuts > 3
    assert len(truth) > commits // 4
    assert any(reader.unnumbered for reader in readers)
    assert [change["id"] for change in truth] == list(range(1, len(truth) + 1))
    for branch in BRANCHES:
        chain = [change for change in truth if change["branch"] == branch]
        assert chain[0]["before"] is None
        assert all(one["after"] == two["before"] for one, two in pairwise(chain))
        assert chain[-1]["after"] == repo.head(branch)
    assert daemon.stop() == 0


@pytest.mark.timeout(300)
def test_each_change_once_over_cut_connections_and_kills(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    disconnected_at_random(github, repo, make_daemon, commits=COMMITS, seed=1)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_each_change_once_over_many_more(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], seed: int
) -> None:
    disconnected_at_random(github, repo, make_daemon, commits=MANY_COMMITS, seed=seed)


def test_term_does_not_wait_for_streams(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    streams = [Stream(daemon.admin_url, last=0) for _ in range(20)]
    for stream in streams:
        assert next(iter(stream)).id == 1
    with Stopwatch() as watch:
        assert daemon.stop() == 0
    assert watch.seconds < 2.0
    for stream in streams:
        assert list(stream) == []
        stream.close()


def test_a_push_is_told_as_it_goes_through(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    told: dict[str, Event] = {}
    with Stream(daemon.admin_url, last=0) as stream:
        events = iter(stream)
        assert next(events).id == 1
        while len(told) < 4:  # a stream that has just caught up is told of what comes after that
            before = repo.head()
            after = repo.commit({"told.txt": b"%s\n" % str(before).encode()})
            github.push("octo/data", "main", before, after)
            told = pushed(events, after)
    assert (told["delivery"].data["after"], told["delivery"].data["status"]) == (after, "accepted")
    assert told["sync.started"].data["trigger"] == "webhook"
    assert (told["sync.finished"].data["outcome"], told["sync.finished"].data["after"]) == ("updated", after)
    assert {name for name, event in told.items() if event.id is not None} == {"branch.changed"}


def pushed(events: Iterator[Event], after: str) -> dict[str, Event]:
    """What is told of one push, by the kind of event: all up to the end of its sync and its change."""
    told: dict[str, Event] = {}
    for event in events:
        if event.data.get("after", after) != after:
            continue  # of the push before, whose change a stream was told of that missed the rest
        told[event.name] = event
        changed = told.get("branch.changed")
        if changed and changed.data["after"] == after and (len(told) == 1 or "sync.finished" in told):
            return told
    raise AssertionError("the stream has ended")


def test_after_a_sweep_a_reader_is_told_that_it_has_missed_something(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    after = repo.commit({"more.txt": b"1\n"})
    daemon.post("/api/v1/repositories/octo/data/sync")
    daemon.wait_head(after)
    assert daemon.stop() == 0
    database = Database.open(daemon.database, clock=Clock())
    assert Feed(database).sweep(now=Clock().now() + timedelta(days=30), keep_seconds=3600) == 2
    database.close()
    daemon.start()
    for path in ("/api/v1/changes?since=1", "/api/v1/events?since=1"):
        assert daemon.get(path).status_code == 410
    assert daemon.cli("changes", "--since", "1").returncode == 1
    last = repo.commit({"more.txt": b"2\n"})
    with Stream(daemon.admin_url, last=2) as stream:
        daemon.post("/api/v1/repositories/octo/data/sync")
        (change,) = islice((event for event in stream if event.id is not None), 1)
    assert (change.id, change.data["before"], change.data["after"]) == (3, after, last)
