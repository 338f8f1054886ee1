"""Deliveries without pause while the daemon is killed again and again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from harness import Daemon, assert_equal_to_git, wait_for

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

READY_SECONDS = 30.0  # on a machine that does other things too


class Pusher(threading.Thread):
    """Commits and delivers without pause; remembers every head whose delivery was answered `accepted`.

    Its last one is one of those: a commit that nobody was told of is seen by the next look only, an hour later.
    """

    def __init__(self, github: StandIn, repo: GitRepo) -> None:
        super().__init__(daemon=True)
        self.github, self.repo = github, repo
        self.accepted: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        number, told = 0, False
        while not (self.ended.is_set() and told):
            number += 1
            before = self.repo.head() or ""
            after = self.repo.commit({f"load/{number % 50}.txt": b"%d\n" % number}, f"Load {number}")
            result = self.github.push("octo/data", "main", before, after)
            told = result is not None and result.status == 200 and b'"accepted"' in result.body
            if told:
                self.accepted.append(after)
            else:
                time.sleep(0.02)  # the daemon is down: do not spin


def kill_and_restart(
    github: StandIn, repo: GitRepo, make_daemon: Callable[..., Daemon], *, kills: int, seed: int
) -> Daemon:
    """One store through many kills; every accepted delivery is reflected in the end, and each start is as quick."""
    chance = random.Random(seed)
    daemon = make_daemon(interval="1h", reconcile="1h", sections={"webhook": ""})
    daemon.start()
    hook = github.hook("octo/data", daemon.webhook_url, daemon.secret)
    pusher = Pusher(github, repo)
    pusher.start()
    try:
        for number in range(kills):
            if number % 3:  # under way, however slow the machine is; else as soon as it listens
                had = len(pusher.accepted)
                wait_for(lambda had=had: len(pusher.accepted) > had, "a delivery to be accepted")  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.4))  # the moment of the kill is what is random here
            daemon.kill()
            assert daemon.integrity() == "ok"
            started = time.monotonic()
            daemon.start()
            assert time.monotonic() - started < READY_SECONDS
            hook.url = daemon.webhook_url
    finally:
        pusher.ended.set()
        pusher.join(30)
    assert len(pusher.accepted) >= kills // 2
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
