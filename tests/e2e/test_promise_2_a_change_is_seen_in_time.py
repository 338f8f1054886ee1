"""Whatever webhooks do, a change is seen within `polling.interval` (or `reconcile_interval`) plus one request."""

from __future__ import annotations

from collections.abc import Callable

from harness import Daemon, Stopwatch, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

ONE_REQUEST_SECONDS = 1.5  # and the sync after it, on a busy machine


def test_without_webhooks_a_change_is_stored_within_the_interval(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="2s", reconcile="1h").start()
    daemon.wait_head(repo.head())
    for number in range(3):
        after = repo.commit({"polled.txt": b"%d\n" % number})
        with Stopwatch() as watch:
            daemon.wait_head(after)
        assert watch.seconds < 2 + ONE_REQUEST_SECONDS
        assert daemon.runs()[0]["trigger"] == "poll"
    assert_equal_to_git(daemon, repo)


def test_with_healthy_webhooks_a_lost_one_is_found_within_the_reconcile_interval(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="1s", reconcile="3s").start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    before = repo.head()
    after = repo.commit({"hooked.txt": b"1\n"})
    github.push("octo/data", "main", before, after)
    daemon.wait_head(after)
    wait_for(lambda: daemon.repository()["webhook"] == "healthy", "the webhook to be healthy")
    lost = repo.commit({"lost.txt": b"2\n"})
    with Stopwatch() as watch:
        daemon.wait_head(lost)
    assert watch.seconds < 3 + ONE_REQUEST_SECONDS
    wait_for(lambda: daemon.repository()["webhook"] == "missing", "the webhook to be missed")
    assert daemon.repository()["missed_webhooks"] == 1


def test_once_a_webhook_was_missed_the_short_interval_holds_at_once(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="2s", reconcile="1h").start()
    before = repo.head()
    daemon.wait_head(before)
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    hooked = repo.commit({"hooked.txt": b"1\n"})
    github.push("octo/data", "main", before, hooked)
    daemon.wait_head(hooked)  # or the sync for this delivery would bring in the lost commit too
    wait_for(lambda: daemon.repository()["webhook"] == "healthy", "the webhook to be healthy")
    lost = repo.commit({"lost.txt": b"2\n"})
    github.event("octo/data", "repository", {"action": "edited"})  # a hint: the look that finds it
    daemon.wait_head(lost)
    wait_for(lambda: daemon.repository()["webhook"] == "missing", "the webhook to be missed")
    after = repo.commit({"lost-too.txt": b"3\n"})
    with Stopwatch() as watch:
        daemon.wait_head(after)
    assert watch.seconds < 2 + ONE_REQUEST_SECONDS


def test_everything_is_looked_at_once_after_a_start(repo: GitRepo, make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(interval="1h", reconcile="1h").start()
    daemon.wait_head(repo.head())
    assert daemon.stop() == 0
    after = repo.commit({"while-down.txt": b"1\n"})
    daemon.start()
    daemon.wait_head(after)
    assert daemon.runs()[0]["trigger"] == "startup"


def test_github_being_down_delays_nothing_beyond_its_return(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="1s", reconcile="1s").start()
    daemon.wait_head(repo.head())
    github.stop()
    after = repo.commit({"outage.txt": b"1\n"})
    wait_for(lambda: daemon.repository()["last_error"], "the outage to be told")
    assert daemon.get("/readyz").status_code == 200
    github.start()
    daemon.wait_head(after)
    wait_for(lambda: daemon.repository()["last_error"] is None, "the error to be gone")
