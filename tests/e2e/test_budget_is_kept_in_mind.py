"""What GitHub allows is kept in mind over a restart, and a promise that it does not pay for is called by its name."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from harness import Daemon, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

THREE = ("octo/one", "octo/two", "octo/three")
ANONYMOUS = {"github": "anonymous = true"}


@pytest.fixture
def anonymous(github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]) -> Daemon:
    """Three repositories every minute, for which GitHub allows sixty requests an hour."""
    github.token = None
    for name in THREE:
        github.add(name, repo.path)
    return make_daemon(token=None, repositories=THREE, interval="60s", sections=ANONYMOUS)


def test_check_shows_the_arithmetic_of_a_promise_that_cannot_be_kept(anonymous: Daemon) -> None:
    ended = anonymous.cli("check")
    assert ended.returncode == 0
    assert "180 requests an hour" in ended.stdout
    assert "The promise cannot be kept" in ended.stdout
    findings = json.loads(anonymous.cli("check", "--json").stdout)["findings"]
    (polling,) = (one for one in findings if one["subject"] == "polling")
    assert polling["warning"]
    assert polling["numbers"]["needed_per_hour"] == 180
    assert polling["numbers"]["available_per_hour"] == 48
    assert not polling["numbers"]["can_keep_promise"]
    anonymous.write_config(interval="5m")
    assert "cannot be kept" not in anonymous.cli("check").stdout


def test_a_daemon_says_so_too_in_its_log_its_status_and_its_metrics(anonymous: Daemon) -> None:
    anonymous.start()
    (warning,) = anonymous.log_lines("polling.cannot_keep_promise")
    polling = anonymous.get("/api/v1/status").json()["polling"]
    assert warning["reason"] == polling["sentence"]
    assert (polling["means"], polling["can_keep_promise"]) == ("anonymous", False)
    assert (polling["needed_per_hour"], polling["available_per_hour"]) == (180, 48)
    metrics = anonymous.get("/metrics").text
    assert "headwater_polling_needed_per_hour 180.0" in metrics
    assert "headwater_polling_available_per_hour 48.0" in metrics


def test_with_a_token_the_promise_of_a_few_repositories_is_kept(
    repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="60s").start()
    daemon.wait_head(repo.head())
    assert daemon.log_lines("polling.cannot_keep_promise") == []
    polling = daemon.get("/api/v1/status").json()["polling"]
    assert (polling["means"], polling["can_keep_promise"], polling["needed_per_hour"]) == ("graphql", True, 60)
    assert polling["available_per_hour"] == 4000


def test_a_restart_during_a_pause_asks_nothing(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(interval="1s", reconcile="1s").start()
    daemon.wait_head(repo.head())
    github.secondary_limit(1, retry_after=600)
    wait_for(lambda: daemon.log_lines("poll.put_off"), "the pause to be noticed")
    daemon.kill()
    github.requests.clear()
    said = len(daemon.log_lines("poll.put_off"))
    daemon.start()
    wait_for(lambda: len(daemon.log_lines("poll.put_off")) > said, "the pause to be remembered")
    assert github.requests.paths() == []
    assert daemon.get("/api/v1/status").json()["github"]["budget"]["paused_until"]
