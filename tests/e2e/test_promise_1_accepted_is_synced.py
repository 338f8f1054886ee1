"""A delivery answered `accepted` leads to a sync that includes it, whatever is killed after the answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Daemon
from kills import kill_and_restart

from daemon.demo.standin import StandIn
from daemon.demo.standin.gitrepo import GitRepo

KILLS = 12
MANY_KILLS = 50


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
