"""A delivery answered `accepted` leads to a sync that includes it, whatever is killed after the answer."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import pytest
from harness import Daemon, assert_equal_to_git

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

KILLS = 12
MANY_KILLS = 50


class Pusher(threading.Thread):
    """Commits and delivers without pause; remembers every head whose delivery was answered `accepted`."""

    def __init__(self, github: StandIn, repo: GitRepo, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self.github, self.repo, self.daemon_under_test = github, repo, daemon
        self.accepted: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ended.is_set():
            number += 1
            before = self.repo.head() or ""
            after = self.repo.commit({f"load/{number % 50}.txt": b"%d\n" % number}, f"Load {number}")
            result = self.github.push("octo/data", "main", before, after)
            if result is not None and result.status == 200 and b'"accepted"' in result.body:
                self.accepted.append(after)
            else:
                time.sleep(0.02)  # the daemon is down: do not spin


def kill_and_restart(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], *, kills: int, seed: int
) -> Daemon:
    chance = random.Random(seed)
    daemon = make_daemon(interval="1h", reconcile="1h", sections={"webhook": ""})
    daemon.start()
    hook = github.hook("octo/data", daemon.webhook_url, daemon.secret)
    pusher = Pusher(github, repo, daemon)
    pusher.start()
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.0, 0.4))  # the moment of the kill is what is random here
            daemon.kill()
            assert daemon.integrity() == "ok"
            daemon.start()
            hook.url = daemon.webhook_url
    finally:
        pusher.ended.set()
        pusher.join(30)
    assert len(pusher.accepted) > kills
    # What was accepted is synced even if nothing else ever arrives: the last head is what it led to.
    daemon.wait_head(repo.head())
    daemon.wait_idle()
    unreflected = [
        item for item in daemon.items("/api/v1/deliveries") if item["status"] == "accepted" and item["run_id"] is None
    ]
    assert unreflected == []
    known = {item["after"] for item in daemon.items("/api/v1/deliveries") if item["status"] == "accepted"}
    assert set(pusher.accepted) <= known
    assert_equal_to_git(daemon, repo)
    return daemon


@pytest.mark.timeout(300)
def test_no_accepted_delivery_is_lost_to_kills_under_load(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = kill_and_restart(github, repo, make_daemon, kills=KILLS, seed=1)
    assert daemon.stop() == 0
    assert daemon.integrity() == "ok"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_no_accepted_delivery_is_lost_to_fifty_kills_under_load(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], seed: int
) -> None:
    kill_and_restart(github, repo, make_daemon, kills=MANY_KILLS, seed=seed)


def test_a_delivery_accepted_just_before_a_kill_is_synced_after_the_restart(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon().start()
    daemon.wait_head(repo.head())
    github.hook("octo/data", daemon.webhook_url, daemon.secret)
    before = repo.head()
    after = repo.commit({"last.txt": b"words\n"})
    result = github.push("octo/data", "main", before, after)
    daemon.kill()
    assert result is not None
    assert result.status == 200
    daemon.start()
    daemon.wait_head(after)
    delivery = next(iter(daemon.items("/api/v1/deliveries")))
    assert (delivery["after"], delivery["status"]) == (after, "accepted")
