"""A branch never moves back because something arrived late."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness import Daemon, Stopwatch, assert_equal_to_git

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo


def test_late_deliveries_and_stale_reads_do_not_move_the_branch_back(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="1s", reconcile="1s").start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    old = repo.head()
    middle = repo.commit({"middle.txt": b"1\n"})
    late = "99999999-0000-0000-0000-000000000000"
    github.push("octo/data", "main", old, middle, guid=late, deliver=False)
    newest = repo.commit({"newest.txt": b"2\n"})
    github.push("octo/data", "main", middle, newest)
    daemon.wait_head(newest)
    github.stale("octo/data", "main", old, reads=4)
    github.redeliver(late)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        assert daemon.head() == newest
        time.sleep(0.02)  # watching for something that must not happen takes a while
    assert_equal_to_git(daemon, repo)


def test_a_reset_to_an_older_commit_is_followed_when_announced(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    older = repo.head()
    newer = repo.commit({"newer.txt": b"1\n"})
    daemon = make_daemon().start()
    daemon.wait_head(newer)
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    repo.reset("main", older or "")
    github.push("octo/data", "main", newer, older)
    with Stopwatch() as watch:
        daemon.wait_head(older)
    assert watch.seconds < 5
    assert_equal_to_git(daemon, repo)


def test_a_reset_nobody_announced_is_followed_once_reads_over_ten_seconds_agree(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    older = repo.head()
    newer = repo.commit({"newer.txt": b"1\n"})
    daemon = make_daemon(interval="1s", reconcile="1s").start()
    daemon.wait_head(newer)
    repo.reset("main", older or "")
    with Stopwatch() as watch:
        daemon.wait_head(older)
    assert watch.elapsed > 9
    assert watch.seconds < 15
    assert_equal_to_git(daemon, repo)


def test_a_slow_api_after_a_push_ends_at_the_push(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    before = repo.head()
    daemon.wait_head(before)
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    after = repo.commit({"slow.txt": b"1\n"})
    github.stale("octo/data", "main", before, seconds=3, objects=True)
    github.push("octo/data", "main", before, after)
    daemon.wait_head(after)
