from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from harness import Daemon

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

PUSHES = 15


def test_a_push_is_queryable_within_a_quarter_second_in_the_median(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    seconds = []
    for number in range(PUSHES):
        before = repo.head()
        after = repo.commit({"timed.txt": b"%d\n" % number})
        github.push("octo/data", "main", before, after)
        started = time.monotonic()
        daemon.wait_head(after)
        seconds.append(time.monotonic() - started)
    assert statistics.median(seconds) < 0.25, seconds


def test_a_poll_of_a_hundred_unchanged_repositories_is_one_request(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    names = tuple(f"octo/r{number:03}" for number in range(100))
    for name in names:
        github.add(name, repo.path)
    daemon = make_daemon(repositories=names, interval="4s", reconcile="4s").start()
    for name in names:
        daemon.wait_head(repo.head(), name=name)
    daemon.wait_idle()
    confirmed = daemon.branch(name=names[0])["confirmed_at"]
    github.requests.clear()
    while daemon.branch(name=names[0])["confirmed_at"] == confirmed:
        time.sleep(0.02)
    polls = [entry for entry in github.requests if entry.path == "/graphql"]
    assert len(github.requests) == len(polls)
    assert len(polls) <= 2  # the repositories were confirmed one by one at first, so their due times may span two ticks
